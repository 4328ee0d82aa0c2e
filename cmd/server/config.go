package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/notebookd/notebookd/internal/storage"
	"github.com/notebookd/notebookd/internal/telemetry"
	"github.com/notebookd/notebookd/internal/upstream"
)

// config is the configuration file. Zero fields have the documented default.
type config struct {
	GRPC   listenConfig  `yaml:"grpc"`
	HTTP   listenConfig  `yaml:"http"`
	Store  storeConfig   `yaml:"store"`
	Log    logConfig     `yaml:"log"`
	Drain  time.Duration `yaml:"drain"` // time for open calls to end; default 10 s
	Watch  watchConfig   `yaml:"watch"`
	Clouds []cloudConfig `yaml:"clouds"`

	Tracing telemetry.Config `yaml:"tracing"`
}

type listenConfig struct {
	Address string `yaml:"address"`
}

type storeConfig struct {
	DataDir    string        `yaml:"data_dir"`   // empty: in memory
	Sync       string        `yaml:"sync"`       // how often data_dir is forced to the disk: a duration, default 10s, or always
	Tombstones time.Duration `yaml:"tombstones"` // how long deletions are remembered; default 24 h
	NATSURL    string        `yaml:"nats_url"`   // servers of a NATS cluster, comma-separated; empty: embedded
	NATS       natsConfig    `yaml:"nats"`
	Lease      time.Duration `yaml:"lease"` // for how long a replica that is not heard of keeps its clouds; default 5 s
}

// natsConfig says how to use the cluster that nats_url names.
type natsConfig struct {
	User        string          `yaml:"user"`
	Password    upstream.Secret `yaml:"password"`
	Credentials string          `yaml:"credentials"` // a .creds file
	NKey        string          `yaml:"nkey"`        // a file with a seed
	CA          string          `yaml:"ca"`          // certificates to trust
	Cert        string          `yaml:"cert"`
	Key         string          `yaml:"key"`
	Replicas    int             `yaml:"replicas"` // servers that keep each message: 1, 3 (default) or 5
	Prefix      string          `yaml:"prefix"`   // of streams, buckets and subjects; default notebookd
}

// storage is the configuration of what everything is kept in.
func (c storeConfig) storage(log *slog.Logger) storage.Config {
	out := storage.Config{DataDir: c.DataDir, Logger: log, SyncAlways: c.Sync == syncAlways}
	if d, err := time.ParseDuration(c.Sync); err == nil {
		out.Sync = d
	}
	if c.NATSURL != "" {
		n := c.NATS
		out.Cluster = &storage.ClusterConfig{
			URLs: c.urls(), User: n.User, Password: n.Password.Reveal(), Credentials: n.Credentials, NKey: n.NKey,
			CA: n.CA, Cert: n.Cert, Key: n.Key, Replicas: n.Replicas, Prefix: n.Prefix,
		}
	}
	return out
}

// syncAlways is the sync setting that forces every write to the disk.
const syncAlways = "always"

func (c storeConfig) urls() []string {
	var out []string
	for _, u := range strings.Split(c.NATSURL, ",") {
		out = append(out, strings.TrimSpace(u))
	}
	return out
}

type watchConfig struct {
	MaxPerCaller int           `yaml:"max_per_caller"` // watches that one address may have open; default 1000
	MaxLifetime  time.Duration `yaml:"max_lifetime"`   // after which a watch is told to come again; default 1 h
	SlowReader   time.Duration `yaml:"slow_reader"`    // for how long a reader may not take a frame; default 30 s
}

type logConfig struct {
	Level  string `yaml:"level"`  // debug, info (default), warn, error
	Format string `yaml:"format"` // text (default), json
}

type cloudConfig struct {
	Name    string        `yaml:"name"`
	Kind    string        `yaml:"kind"`
	Poll    pollConfig    `yaml:"poll"`
	Timeout time.Duration `yaml:"timeout"` // of one call; default 10 s
	Breaker breakerConfig `yaml:"breaker"`
	Budget  *budgetConfig `yaml:"budget"` // default: the kind's
	// Sections holds the settings of the kind, under the kind's name.
	Sections map[string]yaml.Node `yaml:",inline"`

	settings settings // the section of Kind, decoded
}

type pollConfig struct {
	Fast   time.Duration `yaml:"fast"`
	Normal time.Duration `yaml:"normal"`
	Idle   time.Duration `yaml:"idle"`
}

type breakerConfig struct {
	Window       time.Duration `yaml:"window"`
	MinRequests  uint32        `yaml:"min_requests"`
	FailureRatio float64       `yaml:"failure_ratio"`
	OpenFor      time.Duration `yaml:"open_for"`
}

type budgetConfig struct {
	CallsPerHour int     `yaml:"calls_per_hour"`
	Burst        int     `yaml:"burst"`
	WriteShare   float64 `yaml:"write_share"`
}

// simulated reports whether there is no configured cloud, so that the simulated
// ones are started.
func (c *config) simulated() bool { return len(c.Clouds) == 0 }

// configError is all that is wrong with a configuration file.
type configError struct {
	file     string
	problems []string
}

// Error implements error.
func (e *configError) Error() string {
	return fmt.Sprintf("%s: %d problems\n  %s", e.file, len(e.problems), strings.Join(e.problems, "\n  "))
}

// loadConfig reads and checks a configuration file. Without a file it returns
// the defaults. Its error names every problem with its place.
func loadConfig(file string) (*config, error) {
	cfg := &config{}
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		if cfg, err = parseConfig(file, data); err != nil {
			return nil, err
		}
	}
	setDefault(&cfg.GRPC.Address, "127.0.0.1:9090")
	setDefault(&cfg.HTTP.Address, "127.0.0.1:8080")
	setDefault(&cfg.Log.Level, "info")
	setDefault(&cfg.Log.Format, "text")
	setDefault(&cfg.Drain, 10*time.Second)
	return cfg, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
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
	if len(c.problems) == 0 {
		c.validate(cfg)
	}
	return cfg, c.err()
}

// checker collects what is wrong with a file. It knows the line of every key.
type checker struct {
	file     string
	lines    map[string]int
	problems []string
}

func (c *checker) err() error {
	if len(c.problems) == 0 {
		return nil
	}
	return &configError{c.file, c.problems}
}

// problem notes a problem with the key at path, or with the nearest key around
// it that the file has.
func (c *checker) problem(path, text string) {
	for at := path; at != ""; at = at[:max(strings.LastIndexAny(at, ".["), 0)] {
		if line, ok := c.lines[at]; ok {
			c.problems = append(c.problems, fmt.Sprintf("line %d: %s: %s", line, path, text))
			return
		}
	}
	if path != "" {
		text = path + ": " + text
	}
	c.problems = append(c.problems, text)
}

// yaml notes what the decoder found. Its texts begin with the line.
func (c *checker) yaml(err error) {
	if types, ok := errors.AsType[*yaml.TypeError](err); ok {
		c.problems = append(c.problems, types.Errors...)
		return
	}
	c.problems = append(c.problems, strings.TrimPrefix(err.Error(), "yaml: "))
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
		if problem := value.Interface().(upstream.Secret).Problem(); problem != "" {
			c.problem(path, problem)
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
	before := len(c.problems)
	if err := node.Decode(cloud.settings); err != nil {
		c.yaml(err)
	}
	c.walk(&node, reflect.ValueOf(cloud.settings), at)
	if len(c.problems) > before {
		return // what follows from these would only confuse
	}
	for _, err := range split(cloud.settings.Validate()) {
		key, text, _ := strings.Cut(err.Error(), ": ")
		c.problem(at+"."+key, text)
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
	c.positive("drain", cfg.Drain)
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
	c.tracing(cfg.Tracing)
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
	slices.Sort(c.problems) // maps have no order
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
