package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/web/sentences"
)

// configError is all that is wrong with a configuration file.
type configError struct {
	file     string
	problems []problem
}

// problem is one thing that is wrong.
type problem struct {
	line int    // 0: of the file as a whole
	path string // of the key, or of what is around it; may be empty
	text string
}

// Error implements error.
func (e *configError) Error() string {
	return e.say(counted(len(e.problems), "problem"), problem.String)
}

// Chinese is the error in Chinese.
func (e *configError) Chinese() string {
	return e.say(strconv.Itoa(len(e.problems))+" 个问题", problem.chinese)
}

func (e *configError) say(number string, of func(problem) string) string {
	var text strings.Builder
	_, _ = fmt.Fprintf(&text, "%s: %s", e.file, number)
	for _, p := range e.problems {
		text.WriteString("\n  " + of(p))
	}
	return text.String()
}

// String implements fmt.Stringer.
func (p problem) String() string { return p.say("line %d: ", ": ", p.text) }

func (p problem) chinese() string { return p.say("第 %d 行：", "：", sentences.Starting(p.text)) }

func (p problem) say(line, colon, text string) string {
	if p.path != "" {
		text = p.path + colon + text
	}
	if p.line != 0 {
		text = fmt.Sprintf(line, p.line) + text
	}
	return text
}

// counted is a number of things.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}

func parseConfig(file string, data []byte) (*config, error) {
	c := &checker{file: file, lines: map[string]int{}}
	var root yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			c.problem("", "the file is empty; clouds are needed")
		} else {
			c.yaml(err)
		}
		return nil, c.err()
	}
	cfg := &config{}
	if err := root.Decode(cfg); err != nil {
		c.yaml(err)
	}
	c.walk(&root, reflect.ValueOf(cfg).Elem(), "")
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		c.problem("", "more than one document")
	}
	for i := range cfg.Clouds {
		c.section(&cfg.Clouds[i], fmt.Sprintf("clouds[%d]", i))
	}
	if !c.garbled {
		c.validate(cfg)
	}
	cfg.files = c.files
	return cfg, c.err()
}

// checker collects what is wrong with a file. It knows the line of every key.
type checker struct {
	file     string
	lines    map[string]int
	problems []problem
	wrong    []wrongForm
	garbled  bool     // parts of the file have no value, so that more would be found than is wrong
	files    []string // that secrets were read from
}

// wrongForm is a value that the decoder could not use: where it is, and what it should be.
type wrongForm struct {
	line int
	want string
}

// forms are what the types of values want, in words.
var forms = map[string]string{
	"time.Duration": "must be a time with its unit, such as 10s or 1h30m",
	"int":           "must be a whole number",
	"float64":       "must be a number",
	"bool":          "must be true or false",
	"string":        "must be a text",
	"[]string":      "must be a list of texts, such as [a, b]",
}

// keyAt is the key whose value begins on a line, if there is one and no other.
func (c *checker) keyAt(line int) string {
	var found []string
	for path, at := range c.lines {
		if at == line {
			found = append(found, path)
		}
	}
	// An item of a list begins where its first key does.
	slices.Sort(found)
	for len(found) > 1 && strings.HasPrefix(found[1], found[0]+".") {
		found = found[1:]
	}
	if len(found) != 1 || strings.Contains(found[0], "?") {
		return ""
	}
	return found[0]
}

func (c *checker) err() error {
	// The decoder knows lines alone; which key that is is known when all have been seen.
	for _, w := range c.wrong {
		c.problems = append(c.problems, problem{w.line, c.keyAt(w.line), w.want})
	}
	c.wrong = nil
	if len(c.problems) == 0 {
		return nil
	}
	slices.SortFunc(c.problems, func(a, b problem) int { // maps have no order
		return cmp.Or(cmp.Compare(a.line, b.line), strings.Compare(a.String(), b.String()))
	})
	return &configError{c.file, c.problems}
}

// decoded is a problem that the decoder has put into words, which begin with the line.
func decoded(text string) problem {
	var p problem
	p.text = strings.TrimPrefix(text, "yaml: ")
	if _, err := fmt.Sscanf(p.text, "line %d:", &p.line); err == nil {
		_, p.text, _ = strings.Cut(p.text, ": ")
	}
	return p
}

// problem notes a problem with the key at path, or with the nearest key around
// it that the file has.
func (c *checker) problem(path, text string) {
	for at := path; at != ""; at = at[:max(strings.LastIndexAny(at, ".["), 0)] {
		if line, ok := c.lines[at]; ok {
			c.problems = append(c.problems, problem{line, path, text})
			return
		}
	}
	c.problems = append(c.problems, problem{0, path, text})
}

// yaml notes what the decoder found. Its texts begin with the line.
func (c *checker) yaml(err error) {
	c.garbled = true
	if types, ok := errors.AsType[*yaml.TypeError](err); ok {
		for _, text := range types.Errors { // which quote the value, and that may be a secret
			if _, _, ok := strings.Cut(text, ": cannot unmarshal "); ok {
				want := forms[text[strings.LastIndex(text, " into ")+len(" into "):]]
				c.wrong = append(c.wrong, wrongForm{decoded(text).line, cmp.Or(want, "has a value of the wrong form")})
				continue
			}
			c.problems = append(c.problems, decoded(text))
		}
		return
	}
	c.problems = append(c.problems, decoded(err.Error()))
}

var secretType = reflect.TypeFor[upstream.Secret]()

// walk compares the keys of a node with the fields of the value that it was
// decoded into, and remembers their lines.
func (c *checker) walk(node *yaml.Node, value reflect.Value, path string) {
	switch node.Kind {
	case yaml.DocumentNode:
		c.walk(node.Content[0], value, path)
		return
	case yaml.AliasNode:
		c.walk(node.Alias, value, path)
		return
	default:
	}
	for value.Kind() == reflect.Pointer {
		if value.IsNil() {
			value = reflect.New(value.Type().Elem())
		}
		value = value.Elem()
	}
	switch {
	case value.Type() == secretType:
		secret := value.Interface().(upstream.Secret)
		if problem := secret.Problem(); problem != "" {
			c.problem(path, problem)
		}
		if file := secret.File(); file != "" {
			c.files = append(c.files, file)
		}
	case value.Kind() == reflect.Struct && node.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			at := strings.TrimPrefix(path+"."+key.Value, ".")
			c.lines[at] = key.Line
			if key.Value == "<<" {
				continue // a merge, checked where it is defined
			}
			if field, ok := fieldByKey(value, key.Value); ok {
				c.walk(node.Content[i+1], field, at)
			} else if _, isKind := kinds[key.Value]; !isKind || value.Type() != reflect.TypeFor[cloudConfig]() {
				if !keyForm.MatchString(key.Value) { // it may be a secret in the wrong place
					c.lines[path+".?"] = key.Line
					at = strings.TrimPrefix(path+".?", ".")
				}
				c.problem(at, "unknown key")
			}
		}
	case value.Kind() == reflect.Slice && node.Kind == yaml.SequenceNode:
		for i, item := range node.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			c.lines[at] = item.Line
			if i < value.Len() {
				c.walk(item, value.Index(i), at)
			}
		}
	}
}

// keyForm is that of keys.
var keyForm = regexp.MustCompile(`^[a-z][a-z_]{0,30}$`)

func fieldByKey(value reflect.Value, key string) (reflect.Value, bool) {
	for i := range value.NumField() {
		tag, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("yaml"), ",")
		if tag == key && tag != "" {
			return value.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// section decodes the settings of a cloud's kind.
func (c *checker) section(cloud *cloudConfig, path string) {
	kind, ok := kinds[cloud.Kind]
	if !ok {
		c.problem(path+".kind", fmt.Sprintf("must be one of %s", strings.Join(slices.Sorted(maps.Keys(kinds)), ", ")))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(cloud.Sections)) {
		if _, isKind := kinds[name]; isKind && name != cloud.Kind {
			c.problem(path+"."+name, "does not belong to kind "+cloud.Kind)
		}
	}
	cloud.settings = kind.settings()
	at := path + "." + cloud.Kind
	node, ok := cloud.Sections[cloud.Kind]
	if !ok {
		c.problem(at, "is needed")
		return
	}
	before := len(c.problems) + len(c.wrong)
	if err := node.Decode(cloud.settings); err != nil {
		c.yaml(err)
	}
	c.walk(&node, reflect.ValueOf(cloud.settings), at)
	if len(c.problems)+len(c.wrong) > before {
		return // what follows from these would only confuse
	}
	c.errors(at, cloud.settings.Validate())
}

// errors notes what the Validate of a section has joined: the text of each error
// begins with its key.
func (c *checker) errors(section string, err error) {
	for _, err := range split(err) {
		key, text, _ := strings.Cut(err.Error(), ": ")
		c.problem(section+"."+key, text)
	}
}

// split takes errors.Join apart.
func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

var cloudName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

func (c *checker) validate(cfg *config) {
	c.address("grpc.address", cfg.GRPC.Address)
	c.address("http.address", cfg.HTTP.Address)
	c.address("debug.address", cfg.Debug.Address)
	c.doors(cfg)
	c.limits(cfg.Limits)
	c.positive("drain", cfg.Drain)
	c.positive("reload", cfg.Reload)
	c.positive("store.tombstones", cfg.Store.Tombstones)
	if cfg.Store.Tombstones != 0 && cfg.Store.Tombstones < time.Second {
		c.problem("store.tombstones", "must be at least 1s")
	}
	c.store(cfg.Store)
	c.positive("watch.max_lifetime", cfg.Watch.MaxLifetime)
	c.positive("watch.slow_reader", cfg.Watch.SlowReader)
	if _, given := c.lines["watch.max_per_caller"]; given && cfg.Watch.MaxPerCaller < 1 {
		c.problem("watch.max_per_caller", "must be at least 1")
	}
	c.oneOf("log.level", cfg.Log.Level, "debug", "info", "warn", "error")
	c.oneOf("log.format", cfg.Log.Format, "text", "json")
	c.errors("tracing", cfg.Tracing.Validate())
	if len(cfg.Clouds) == 0 {
		c.problem("clouds", "at least one is needed")
	}
	seen := map[string]bool{}
	for i, cloud := range cfg.Clouds {
		path := fmt.Sprintf("clouds[%d]", i)
		switch {
		case !cloudName.MatchString(cloud.Name):
			c.problem(path+".name", "must begin with a lower-case letter and hold only a-z, 0-9 and -")
		case seen[cloud.Name]:
			c.problem(path+".name", "is used twice")
		}
		seen[cloud.Name] = true
		c.positive(path+".timeout", cloud.Timeout)
		for key, d := range map[string]time.Duration{"fast": cloud.Poll.Fast, "normal": cloud.Poll.Normal, "idle": cloud.Poll.Idle} {
			c.positive(path+".poll."+key, d)
			if d > 0 && d < 100*time.Millisecond {
				c.problem(path+".poll."+key, "must be at least 100ms")
			}
		}
		c.positive(path+".breaker.window", cloud.Breaker.Window)
		c.positive(path+".breaker.open_for", cloud.Breaker.OpenFor)
		if r := cloud.Breaker.FailureRatio; r < 0 || r > 1 {
			c.problem(path+".breaker.failure_ratio", "must be above 0 and at most 1")
		}
		if b := cloud.Budget; b != nil {
			if b.CallsPerHour < 0 || b.Burst < 0 {
				c.problem(path+".budget", "calls_per_hour and burst must not be negative")
			}
			if b.Burst > b.CallsPerHour {
				c.problem(path+".budget.burst", "must not be above calls_per_hour")
			}
			if b.WriteShare < 0 || b.WriteShare >= 1 {
				c.problem(path+".budget.write_share", "must be from 0 to below 1")
			}
		}
	}
}

// doors checks who can come in, and how.
func (c *checker) doors(cfg *config) {
	c.errors("auth", cfg.Auth.Validate())
	if t := cfg.TLS; t != nil {
		if t.Cert == "" || t.Key == "" {
			c.problem("tls", "needs cert and key")
		} else if _, err := newCertificates(*t); err != nil {
			c.problem("tls", err.Error())
		}
	}
	clientCA := cfg.TLS != nil && cfg.TLS.ClientCA != ""
	switch {
	case cfg.Auth.Certificates != nil && !clientCA:
		c.problem("auth.certificates", "needs tls.client_ca, to know which client certificates to believe")
	case cfg.Auth.Certificates == nil && clientCA:
		c.problem("tls.client_ca", "needs auth.certificates, to say who the callers are; {} takes its defaults")
	}
	for _, door := range []struct{ key, address string }{
		{"grpc.address", cfg.GRPC.Address}, {"http.address", cfg.HTTP.Address}, {"debug.address", cfg.Debug.Address},
	} {
		if door.address != "" && !cfg.asks() && !cfg.Auth.Insecure && !isLoopback(door.address) {
			c.problem(door.key, "others can reach it, and nothing asks them who they are: add an auth section, or auth: {insecure: true} if something else keeps them out")
		}
	}
	for i, network := range cfg.HTTP.TrustedProxies {
		if _, err := netip.ParsePrefix(network); err != nil {
			c.problem(fmt.Sprintf("http.trusted_proxies[%d]", i), "must be a network such as 10.0.0.0/8")
		}
	}
	for i, origin := range cfg.HTTP.CORS.Origins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Scheme+"://"+u.Host != origin {
			c.problem(fmt.Sprintf("http.cors.origins[%d]", i), "must be scheme and host, such as https://console.example")
		}
	}
	if d := cfg.HTTP.HSTS; d != nil && *d < 0 {
		c.problem("http.hsts", "must not be negative")
	}
}

// isLoopback reports whether nobody but this host itself can reach an address.
func isLoopback(address string) bool {
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return true // it is no address
	}
	if name == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback()
}

// limits checks the bounds of what callers can take.
func (c *checker) limits(l limitsConfig) {
	if _, given := c.lines["limits.calls_per_second"]; given && l.CallsPerSecond <= 0 {
		c.problem("limits.calls_per_second", "must be above 0")
	}
	for _, limit := range []struct {
		key             string
		value, min, max int
	}{
		{"burst", l.Burst, 1, 1 << 30}, {"connections", l.Connections, 10, 1 << 20}, {"connections_per_address", l.ConnectionsPerAddress, 1, 1 << 20},
		{"streams_per_connection", l.StreamsPerConnection, 1, 1 << 20}, {"streams_per_address", l.StreamsPerAddress, 1, 1 << 20},
		{"message_bytes", l.MessageBytes, 64 << 10, 64 << 20}, {"header_bytes", l.HeaderBytes, 8 << 10, 1 << 20}, {"url_bytes", l.URLBytes, 1 << 10, 1 << 20},
	} {
		if _, given := c.lines["limits."+limit.key]; given && (limit.value < limit.min || limit.value > limit.max) {
			c.problem("limits."+limit.key, fmt.Sprintf("must be from %d to %d", limit.min, limit.max))
		}
	}
	c.positive("limits.request_time", l.RequestTime)
	if l.URLBytes > l.HeaderBytes && l.HeaderBytes != 0 {
		c.problem("limits.url_bytes", "must not be above header_bytes, which it is a part of")
	}
}

var natsPrefix = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// store checks where everything is kept.
func (c *checker) store(cfg storeConfig) {
	c.positive("store.lease", cfg.Lease)
	if cfg.Lease != 0 && cfg.Lease < time.Second {
		c.problem("store.lease", "must be at least 1s")
	}
	if d, err := time.ParseDuration(cfg.Sync); cfg.Sync != "" && cfg.Sync != syncAlways && (err != nil || d <= 0) {
		c.problem("store.sync", "must be a positive duration such as 10s, or always")
	}
	n := cfg.NATS
	if cfg.NATSURL == "" {
		for key := range c.lines {
			if strings.HasPrefix(key, "store.nats.") || key == "store.lease" {
				c.problem(key, "needs store.nats_url")
			}
		}
		return
	}
	for _, key := range []string{"store.data_dir", "store.sync"} {
		if _, given := c.lines[key]; given {
			c.problem(key, "does not go with store.nats_url: the NATS cluster keeps everything")
		}
	}
	for _, text := range cfg.urls() {
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Host == "":
			c.problem("store.nats_url", "must be nats://host:port or tls://host:port, several separated by commas")
		case u.User != nil:
			c.problem("store.nats_url", "must hold no user and no password: they go into store.nats.user and store.nats.password")
		}
	}
	for key, file := range map[string]string{"credentials": n.Credentials, "nkey": n.NKey, "ca": n.CA, "cert": n.Cert, "key": n.Key} {
		if _, err := os.Stat(file); file != "" && err != nil {
			c.problem("store.nats."+key, "the file cannot be read")
		}
	}
	if (n.Cert == "") != (n.Key == "") {
		c.problem("store.nats", "cert and key belong together")
	}
	if n.Replicas != 0 && n.Replicas != 1 && n.Replicas != 3 && n.Replicas != 5 {
		c.problem("store.nats.replicas", "must be 1, 3 or 5")
	}
	if n.Prefix != "" && !natsPrefix.MatchString(n.Prefix) {
		c.problem("store.nats.prefix", "must begin with a lower-case letter and hold only a-z, 0-9 and -")
	}
}

func (c *checker) positive(path string, d time.Duration) {
	if _, given := c.lines[path]; given && d <= 0 {
		c.problem(path, "must be a positive duration such as 10s")
	}
}

func (c *checker) oneOf(path, value string, words ...string) {
	if value != "" && !slices.Contains(words, value) {
		c.problem(path, "must be one of "+strings.Join(words, ", "))
	}
}

func (c *checker) address(path, address string) {
	if address == "" {
		return
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		c.problem(path, "must be host:port")
	}
}
