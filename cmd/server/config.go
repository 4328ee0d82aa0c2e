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
//
// docs/configuration.md is made of the comments of its fields, and of those of what
// it is made of: `make docs`.
type config struct {
	// GRPC is the door for gRPC.
	GRPC grpcConfig `yaml:"grpc"`
	// HTTP is the door for REST, the web console, health, metrics and the OpenAPI
	// document.
	HTTP httpConfig `yaml:"http"`
	// TLS is what all doors prove themselves with, and what callers may prove themselves
	// with. Default: none, the doors speak plain text.
	TLS *tlsConfig `yaml:"tls"`
	// Auth says who may call and what. Without it everybody may do everything, and the
	// doors may only be on addresses of this host itself.
	Auth access.Config `yaml:"auth"`
	// Limits bound what callers can take.
	Limits limitsConfig `yaml:"limits"`
	// Watch bounds watches. A reload is for those that begin after it.
	Watch watchConfig `yaml:"watch"`
	// Store is where everything is kept.
	Store storeConfig `yaml:"store"`
	// Log is what is written to standard error.
	Log logConfig `yaml:"log"`
	// Debug is a third door, for those who run the server.
	Debug debugConfig `yaml:"debug"`
	// Drain is how long open calls have to end when the server stops. Watches are told
	// to go elsewhere over the first half of it. Default: 10s.
	Drain time.Duration `yaml:"drain"`
	// Reload is how often this file is looked at for changes, and with it the files that
	// it names for secrets, callers and the certificates of tls. Default: 5s.
	Reload time.Duration `yaml:"reload"`
	// Clouds are the accounts that are polled. Needed, at least one.
	Clouds []cloudConfig `yaml:"clouds"`

	// Tracing is where spans are sent.
	Tracing telemetry.Config `yaml:"tracing"`

	path  string            // of the file; empty without one
	files []string          // that secrets were read from
	seen  [sha256.Size]byte // the digest of all files, right after they were read
}

// asks reports whether callers are asked who they are.
func (c *config) asks() bool {
	return c.Auth.TokensFile != "" || len(c.Auth.OIDC) > 0 || c.Auth.Certificates != nil
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
	// Address is host:port to listen on. Default: 127.0.0.1:9090.
	Address string `yaml:"address"`
}

// httpConfig is the HTTP door.
type httpConfig struct {
	// Address is host:port to listen on. Default: 127.0.0.1:8080.
	Address string `yaml:"address"`
	// CORS lets web pages from elsewhere call this door.
	CORS corsConfig `yaml:"cors"`
	// TrustedProxies are networks, as 10.0.0.0/8, whose X-Forwarded-For is believed,
	// also by the gRPC door. Default: none.
	TrustedProxies []string `yaml:"trusted_proxies"`
	// HSTS is for how long browsers are told to come with HTTPS only, where there is
	// a tls section; 0s tells them nothing. Default: 8760h, a year.
	HSTS *time.Duration `yaml:"hsts"`
	// Console is the web console, at / of this door.
	Console consoleConfig `yaml:"console"`
}

// consoleConfig is the web console.
type consoleConfig struct {
	// Enabled is whether it is served. Default: true.
	Enabled *bool `yaml:"enabled"`
}

func (c consoleConfig) on() bool { return c.Enabled == nil || *c.Enabled }

// corsConfig lets web pages from elsewhere call the HTTP door.
type corsConfig struct {
	// Origins are scheme and host of those pages, as https://console.example.
	// Default: none.
	Origins []string `yaml:"origins"`
}

// tlsConfig is how all doors prove who they are. Its files are read again when they
// change.
type tlsConfig struct {
	// Cert is a file with the certificate and those that lead to the root, in PEM.
	// Needed.
	Cert string `yaml:"cert"`
	// Key is a file with the certificate's key, in PEM. Needed.
	Key string `yaml:"key"`
	// ClientCA is a file with the certificates that client certificates must lead to,
	// in PEM. Goes together with auth.certificates. Default: none, client certificates
	// are not asked for.
	ClientCA string `yaml:"client_ca"`
}

// limitsConfig bounds what callers can take. Zero fields have the documented default.
type limitsConfig struct {
	// CallsPerSecond is how often one caller may call, on average. A caller is a subject or,
	// where nobody is asked and for credentials that are not accepted, an address.
	// Default: 200 where callers are authenticated, otherwise no limit.
	CallsPerSecond float64 `yaml:"calls_per_second"`
	// Burst is how many calls one caller may make at once. Default: twice
	// calls_per_second, at least 1.
	Burst int `yaml:"burst"`
	// Connections are those of all doors together. What is more is closed at once.
	// Default: 20000.
	Connections int `yaml:"connections"`
	// ConnectionsPerAddress are those from one address, unless it is this host's own or
	// a trusted proxy's. Default: 1000.
	ConnectionsPerAddress int `yaml:"connections_per_address"`
	// StreamsPerConnection are calls at once over one HTTP/2 connection. Default: 1000.
	StreamsPerConnection int `yaml:"streams_per_connection"`
	// StreamsPerAddress are calls over gRPC at once from one address, unless it is this
	// host's own or a trusted proxy's. Default: 10000.
	StreamsPerAddress int `yaml:"streams_per_address"`
	// MessageBytes is the size of one request. Default: 1048576.
	MessageBytes int `yaml:"message_bytes"`
	// HeaderBytes is the size of the header of one request. Default: 65536.
	HeaderBytes int `yaml:"header_bytes"`
	// URLBytes is the length of path and query of one request over HTTP, at most
	// header_bytes. Default: 16384.
	URLBytes int `yaml:"url_bytes"`
	// RequestTime is for how long a request may be on its way, from its first byte to
	// its last. A reload changes it for gRPC calls only; HTTP requests and TLS
	// handshakes follow at the next start. Default: 10s.
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
	// Address is host:port for the profiles of net/http/pprof. Where callers are
	// authenticated, they are for the role admin in all clouds. Default: none, there is
	// no such door.
	Address string `yaml:"address"`
}

type storeConfig struct {
	// DataDir is the directory in which the embedded store keeps its files, for one
	// process at a time. It does not go with nats_url. Default: none, everything is kept
	// in memory.
	DataDir string `yaml:"data_dir"`
	// Sync is how often data_dir is forced to the disk: a duration, or always for every
	// write. It does not go with nats_url. Default: 10s.
	Sync string `yaml:"sync"`
	// Tombstones is how long deletions are remembered, and so how old a token may be
	// that is resumed from. At least 1s. Default: 24h.
	Tombstones time.Duration `yaml:"tombstones"`
	// NATSURL are servers of a NATS cluster with JetStream, nats://host:port or
	// tls://host:port, separated by commas. Several replicas can share it. Default: none,
	// the store is embedded.
	NATSURL string `yaml:"nats_url"`
	// NATS says how to use the cluster that nats_url names.
	NATS natsConfig `yaml:"nats"`
	// Lease is for how long a replica that is not heard of keeps its clouds; only with
	// nats_url. At least 1s. Default: 5s.
	Lease time.Duration `yaml:"lease"`
}

// natsConfig says how to use the cluster that nats_url names.
type natsConfig struct {
	// User is the name to connect with. Default: none.
	User string `yaml:"user"`
	// Password is the user's. Default: none.
	Password upstream.Secret `yaml:"password"`
	// Credentials is a .creds file to connect with. Default: none.
	Credentials string `yaml:"credentials"`
	// NKey is a file with the seed of an nkey to connect with. Default: none.
	NKey string `yaml:"nkey"`
	// CA is a file with the certificates to trust, in PEM. Default: those of the system.
	CA string `yaml:"ca"`
	// Cert is a file with the certificate to connect with, in PEM. Goes together with
	// key. Default: none.
	Cert string `yaml:"cert"`
	// Key is a file with the certificate's key, in PEM. Default: none.
	Key string `yaml:"key"`
	// Replicas is how many servers of the cluster keep each message: 1, 3 or 5.
	// Default: 3.
	Replicas int `yaml:"replicas"`
	// Prefix begins the names of streams, buckets and subjects. Installations with
	// different ones can share a cluster. Default: notebookd.
	Prefix string `yaml:"prefix"`
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
	// MaxPerCaller is how many watches one caller may have open. A caller is a subject
	// or, where nobody is asked, an address. Default: 1000.
	MaxPerCaller int `yaml:"max_per_caller"`
	// MaxLifetime is after what time a watch is told to come again, ±10 %. Default: 1h.
	MaxLifetime time.Duration `yaml:"max_lifetime"`
	// SlowReader is for how long a reader may take no frame before its watch is ended.
	// Default: 30s.
	SlowReader time.Duration `yaml:"slow_reader"`
}

type logConfig struct {
	// Level is the least that is written: debug, info, warn or error. Default: info.
	Level string `yaml:"level"`
	// Format is text or json. Default: text.
	Format string `yaml:"format"`
}

type cloudConfig struct {
	// Name is what the account is called in resource names: clouds/NAME. It begins with
	// a lower-case letter and holds at most 63 of a-z, 0-9 and -. Needed.
	Name string `yaml:"name"`
	// Kind is the kind of cloud, and also the name of the section with its settings. Needed.
	Kind string `yaml:"kind"`
	// Poll is how often each location is read. An interval is at least 100ms and varies
	// by ±10 %; the call budget can make it longer.
	Poll pollConfig `yaml:"poll"`
	// Timeout bounds one call, from connecting to the last byte. Default: 10s.
	Timeout time.Duration `yaml:"timeout"`
	// Breaker says when a circuit breaker opens. Each location has one for reads and
	// one for changes.
	Breaker breakerConfig `yaml:"breaker"`
	// Budget keeps the calls of the account below its quota. Default: the quota that the
	// kind of cloud documents.
	Budget *budgetConfig `yaml:"budget"`
	// Sections holds the settings of the cloud's kind, under the kind's name. A cloud
	// has none of another kind. Needed.
	Sections map[string]yaml.Node `yaml:",inline"`

	settings settings // the section of Kind, decoded
}

type pollConfig struct {
	// Fast is used while a notebook is in transition or was just changed. Default: 5s.
	Fast time.Duration `yaml:"fast"`
	// Normal is used while somebody watches or lists. Default: 15s.
	Normal time.Duration `yaml:"normal"`
	// Idle is used otherwise. Default: 60s.
	Idle time.Duration `yaml:"idle"`
}

type breakerConfig struct {
	// Window is the time in which calls and failures are counted. Default: 60s.
	Window time.Duration `yaml:"window"`
	// MinRequests is how many calls the window must have before the breaker can open.
	// Default: 5.
	MinRequests uint32 `yaml:"min_requests"`
	// FailureRatio is the share of failures among them with which it opens, above 0 and
	// at most 1. Default: 0.5.
	FailureRatio float64 `yaml:"failure_ratio"`
	// OpenFor is how long no call is sent then, before one call decides. Default: 30s.
	OpenFor time.Duration `yaml:"open_for"`
}

type budgetConfig struct {
	// CallsPerHour is how many calls are made in any hour; 0 is no limit. Default: 0.
	CallsPerHour int `yaml:"calls_per_hour"`
	// Burst is how many of them may be made at once. Default: a tenth of calls_per_hour,
	// at least 2.
	Burst int `yaml:"burst"`
	// WriteShare is the share of them that is kept for changes, below 1. Default: 0.2.
	WriteShare float64 `yaml:"write_share"`
}

// simulated reports whether there is no configured cloud, so that the simulated
// ones are started.
func (c *config) simulated() bool { return len(c.Clouds) == 0 }

// loadConfig reads and checks a configuration file. Without a file it returns
// the defaults. Its error names every problem with its place; a configuration that
// comes with one is good for nothing but to say which files it names.
func loadConfig(file string) (*config, error) {
	cfg := &config{}
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		if cfg, err = parseConfig(file, data); err != nil {
			if cfg != nil {
				cfg.path = file
			}
			return cfg, err
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
