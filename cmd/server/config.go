package main

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/notebookd/notebookd/internal/access"
	"github.com/notebookd/notebookd/internal/storage"
	"github.com/notebookd/notebookd/internal/telemetry"
	"github.com/notebookd/notebookd/internal/upstream"
)

// config is the configuration file. Zero fields have the documented default.
type config struct {
	GRPC   grpcConfig    `yaml:"grpc"`   // the gRPC door
	HTTP   httpConfig    `yaml:"http"`   // the HTTP door: REST, events, metrics, health
	TLS    *tlsConfig    `yaml:"tls"`    // of all doors; without it they speak plain text. Whether there is one counts at the next start
	Auth   access.Config `yaml:"auth"`   // who may call; without it everybody
	Limits limitsConfig  `yaml:"limits"` // what callers can take
	Watch  watchConfig   `yaml:"watch"`  // the bounds of watches
	Store  storeConfig   `yaml:"store"`  // where everything is kept
	Log    logConfig     `yaml:"log"`    // to stderr
	Debug  debugConfig   `yaml:"debug"`  // a door for those who run the server
	Drain  time.Duration `yaml:"drain"`  // time for open calls to end; default 10s
	Reload time.Duration `yaml:"reload"` // how often this file, and those that it names, are looked at; default 5s
	Clouds []cloudConfig `yaml:"clouds"` // accounts on clouds; at least one is needed

	Tracing telemetry.Config `yaml:"tracing"` // where spans are sent; default nowhere

	path  string            // of the file; empty without one
	files []string          // that secrets were read from
	seen  [sha256.Size]byte // the digest of all files, right after they were read
}

// cloud returns the section of a cloud, or nil.
func (c *config) cloud(name string) *cloudConfig {
	for i := range c.Clouds {
		if c.Clouds[i].Name == name {
			return &c.Clouds[i]
		}
	}
	return nil
}

// grpcConfig is the gRPC door.
type grpcConfig struct {
	Address string `yaml:"address"` // host:port; default 127.0.0.1:9090
}

// httpConfig is the HTTP door.
type httpConfig struct {
	Address string     `yaml:"address"` // host:port; default 127.0.0.1:8080
	CORS    corsConfig `yaml:"cors"`    // which web pages from elsewhere may call
	// TrustedProxies are networks, as 10.0.0.0/8, whose X-Forwarded-For is believed,
	// also by the gRPC door. Default: none.
	TrustedProxies []string `yaml:"trusted_proxies"`
	// HSTS is for how long browsers are told to come with HTTPS only, when there is
	// a tls section; default 8760h, a year; 0s not at all.
	HSTS *time.Duration `yaml:"hsts"`
}

// corsConfig lets web pages from elsewhere call the HTTP door.
type corsConfig struct {
	Origins []string `yaml:"origins"` // such as https://console.example; default: none
}

// tlsConfig is how both doors prove who they are. Its files are read again when they
// change.
type tlsConfig struct {
	Cert     string `yaml:"cert"`      // a file with the certificate and those that lead to the root
	Key      string `yaml:"key"`       // a file with its key
	ClientCA string `yaml:"client_ca"` // a file with the certificates that client certificates must lead to; default: none are asked for
}

// limitsConfig bounds what callers can take. Zero fields have the documented default.
type limitsConfig struct {
	// CallsPerSecond of one caller, on average; default 200 where callers are
	// authenticated, otherwise none. A caller is a subject, or else an address.
	CallsPerSecond float64 `yaml:"calls_per_second"`
	Burst          int     `yaml:"burst"` // calls of one caller at once; default twice calls_per_second
	// Connections of both doors together; default 20000. What is more is closed at once.
	Connections int `yaml:"connections"`
	// ConnectionsPerAddress do not count where the address is this host's own or a
	// trusted proxy's; default 1000.
	ConnectionsPerAddress int `yaml:"connections_per_address"`
	StreamsPerConnection  int `yaml:"streams_per_connection"` // calls at once over one HTTP/2 connection; default 1000
	StreamsPerAddress     int `yaml:"streams_per_address"`    // gRPC calls at once from one address; default 10000
	MessageBytes          int `yaml:"message_bytes"`          // of one request; default 1048576
	HeaderBytes           int `yaml:"header_bytes"`           // of the header of one request; default 65536
	URLBytes              int `yaml:"url_bytes"`              // of the path and query of one request; default 16384
	// RequestTime is for how long a request may be on its way, from its first byte to
	// its last; default 10s.
	RequestTime time.Duration `yaml:"request_time"`
}

// withDefaults fills in what the file left out. authenticated says that callers are.
func (c limitsConfig) withDefaults(authenticated bool) limitsConfig {
	if c.CallsPerSecond == 0 && authenticated {
		c.CallsPerSecond = 200
	}
	c.Burst = cmp.Or(c.Burst, max(int(2*c.CallsPerSecond), 1))
	c.Connections = cmp.Or(c.Connections, 20000)
	c.ConnectionsPerAddress = cmp.Or(c.ConnectionsPerAddress, 1000)
	c.StreamsPerConnection = cmp.Or(c.StreamsPerConnection, 1000)
	c.StreamsPerAddress = cmp.Or(c.StreamsPerAddress, 10000)
	c.MessageBytes = cmp.Or(c.MessageBytes, 1<<20)
	c.HeaderBytes = cmp.Or(c.HeaderBytes, 64<<10)
	c.URLBytes = cmp.Or(c.URLBytes, 16<<10)
	c.RequestTime = cmp.Or(c.RequestTime, 10*time.Second)
	return c
}

// debugConfig is a third door, for those who run the server.
type debugConfig struct {
	// Address of the profiles of net/http/pprof, for the role admin; default: none.
	Address string `yaml:"address"`
}

type storeConfig struct {
	DataDir    string        `yaml:"data_dir"`   // empty: in memory
	Sync       string        `yaml:"sync"`       // how often data_dir is forced to the disk: a duration, default 10s, or always
	Tombstones time.Duration `yaml:"tombstones"` // how long deletions are remembered; default 24 h
	NATSURL    string        `yaml:"nats_url"`   // servers of a NATS cluster, comma-separated; empty: embedded
	NATS       natsConfig    `yaml:"nats"`       // how that cluster is used
	Lease      time.Duration `yaml:"lease"`      // for how long a replica that is not heard of keeps its clouds; default 5 s
}

// natsConfig says how to use the cluster that nats_url names.
type natsConfig struct {
	User        string          `yaml:"user"`        // with password; default none
	Password    upstream.Secret `yaml:"password"`    // of user
	Credentials string          `yaml:"credentials"` // a .creds file
	NKey        string          `yaml:"nkey"`        // a file with a seed
	CA          string          `yaml:"ca"`          // certificates to trust
	Cert        string          `yaml:"cert"`        // a file with a client certificate
	Key         string          `yaml:"key"`         // a file with its key
	Replicas    int             `yaml:"replicas"`    // servers that keep each message: 1, 3 (default) or 5
	Prefix      string          `yaml:"prefix"`      // of streams, buckets and subjects; default notebookd
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
	MaxPerCaller int           `yaml:"max_per_caller"` // watches that one caller may have open: a subject, or else an address; default 1000
	MaxLifetime  time.Duration `yaml:"max_lifetime"`   // after which a watch is told to come again; default 1 h
	SlowReader   time.Duration `yaml:"slow_reader"`    // for how long a reader may not take a frame; default 30 s
}

type logConfig struct {
	Level  string `yaml:"level"`  // debug, info (default), warn, error
	Format string `yaml:"format"` // text (default), json
}

type cloudConfig struct {
	Name    string        `yaml:"name"`    // as in clouds/{name}; needed
	Kind    string        `yaml:"kind"`    // coreshub or scnet, whose section is beside it; needed
	Poll    pollConfig    `yaml:"poll"`    // time from one poll of a location to the next, ±10 %
	Timeout time.Duration `yaml:"timeout"` // of one call; default 10s
	Breaker breakerConfig `yaml:"breaker"` // when calls are not made any more
	Budget  *budgetConfig `yaml:"budget"`  // default: the quota that the kind of cloud documents
	// Sections holds the settings of the kind, under the kind's name.
	Sections map[string]yaml.Node `yaml:",inline"`

	settings settings // the section of Kind, decoded
}

type pollConfig struct {
	Fast   time.Duration `yaml:"fast"`   // while a notebook is on its way from one state to another, or was just changed; default 5s
	Normal time.Duration `yaml:"normal"` // while somebody watches or lists; default 15s
	Idle   time.Duration `yaml:"idle"`   // otherwise; default 60s
}

type breakerConfig struct {
	Window       time.Duration `yaml:"window"`        // over which calls are counted; default 60s
	MinRequests  uint32        `yaml:"min_requests"`  // that must have been made; default 5
	FailureRatio float64       `yaml:"failure_ratio"` // of them that must have failed for the breaker to open; default 0.5
	OpenFor      time.Duration `yaml:"open_for"`      // until one call is let through to try; default 30s
}

type budgetConfig struct {
	CallsPerHour int     `yaml:"calls_per_hour"` // that the account may make in any hour; 0 for as many as it likes
	Burst        int     `yaml:"burst"`          // of them at once; default a tenth
	WriteShare   float64 `yaml:"write_share"`    // of them that is kept for image changes; default 0.2
}

// simulated reports whether there is no configured cloud, so that the simulated
// ones are started.
func (c *config) simulated() bool { return len(c.Clouds) == 0 }

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
	cfg.path = file
	setDefault(&cfg.GRPC.Address, "127.0.0.1:9090")
	setDefault(&cfg.HTTP.Address, "127.0.0.1:8080")
	setDefault(&cfg.Log.Level, "info")
	setDefault(&cfg.Log.Format, "text")
	setDefault(&cfg.Drain, 10*time.Second)
	setDefault(&cfg.Reload, 5*time.Second)
	cfg.seen = digest(cfg.watched())
	return cfg, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
