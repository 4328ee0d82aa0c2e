package main

import (
	"fmt"
	"net"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// serverConfig is what has to fit the surroundings of a configuration of the server.
// Whether it is right in itself is for the server's own loader, in a test of
// cmd/server.
type serverConfig struct {
	ports   map[string]int32 // by door: grpc, http
	tls     bool
	drain   time.Duration
	dataDir string
	nats    []string // hosts
	files   []string // every file that it names
	rest    map[string]any
}

func parseServerConfig(r *report, where string, data []byte) *serverConfig {
	c := &serverConfig{ports: map[string]int32{}}
	if err := yaml.UnmarshalStrict(data, &c.rest); err != nil {
		r.problem(where, "%v", err)
		return c
	}
	for _, door := range []string{"grpc", "http"} {
		_, port, err := net.SplitHostPort(text(c.rest, door, "address"))
		number, numberErr := strconv.ParseInt(port, 10, 32)
		if err != nil || numberErr != nil {
			r.problem(where, "%s.address is not host:port", door)
			continue
		}
		c.ports[door] = int32(number)
	}
	var err error
	if c.drain, err = time.ParseDuration(text(c.rest, "drain")); err != nil {
		r.problem(where, "drain: %v", err)
	}
	c.tls = text(c.rest, "tls", "cert") != ""
	r.that(c.tls, where, "no tls: tokens would be sent in the clear")
	r.that(text(c.rest, "auth", "tokens_file") != "", where, "no auth.tokens_file: the server refuses to serve others without")
	c.dataDir = text(c.rest, "store", "data_dir")
	if servers := text(c.rest, "store", "nats_url"); servers != "" {
		for _, server := range strings.Split(servers, ",") {
			u, err := url.Parse(strings.TrimSpace(server))
			if err != nil || u.Hostname() == "" {
				r.problem(where, "store.nats_url is no URL")
				continue
			}
			c.nats = append(c.nats, u.Hostname())
		}
	}
	c.collect(r, where, "", c.rest)
	return c
}

// text returns the string at a path, or "".
func text(value any, path ...string) string {
	for _, key := range path {
		m, _ := value.(map[string]any)
		value = m[key]
	}
	s, _ := value.(string)
	return s
}

// fileKeys are the settings that name a file and are no {file: PATH}.
var fileKeys = map[string]bool{
	".tls.cert": true, ".tls.key": true, ".tls.client_ca": true, ".auth.tokens_file": true,
	".store.nats.credentials": true, ".store.nats.nkey": true, ".store.nats.ca": true, ".store.nats.cert": true, ".store.nats.key": true,
}

// collect finds every file that is named, and refuses secrets that are none.
func (c *serverConfig) collect(r *report, where, path string, value any) {
	switch value := value.(type) {
	case map[string]any:
		for key, v := range value {
			at := path + "." + key
			s, isText := v.(string)
			switch {
			case isText && (key == "file" || fileKeys[at]):
				c.files = append(c.files, s)
			case isText && len(value) == 1 && key == "value":
				r.problem(where, "%s holds a secret", strings.TrimPrefix(path, "."))
			default:
				c.collect(r, where, at, v)
			}
		}
	case []any:
		for i, v := range value {
			c.collect(r, where, fmt.Sprintf("%s[%d]", path, i), v)
		}
	}
}

// differs reports whether two configurations differ in more than where they store.
func (c *serverConfig) differs(other *serverConfig) bool {
	less := func(m map[string]any) map[string]any {
		out := map[string]any{}
		for k, v := range m {
			if k != "store" {
				out[k] = v
			}
		}
		return out
	}
	return !reflect.DeepEqual(less(c.rest), less(other.rest))
}
