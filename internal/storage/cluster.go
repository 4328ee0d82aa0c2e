package storage

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// ClusterConfig says how to reach a NATS cluster with JetStream, and how to use
// it. Zero fields have the documented default.
type ClusterConfig struct {
	// URLs of some of its servers: nats://host:port or tls://host:port. They hold
	// no user and no password.
	URLs []string
	// User and Password, Credentials (a .creds file) or NKey (a file with a seed)
	// say who connects.
	User, Password string
	Credentials    string
	NKey           string
	// CA is a file with the certificates to trust; Cert and Key are files that
	// identify this client.
	CA, Cert, Key string
	// Replicas is how many servers keep each message: 1, 3 or 5. Default 3.
	Replicas int
	// Prefix begins the names of streams, buckets and subjects. Installations with
	// different ones can share a cluster. Default notebookd.
	Prefix string
}

func (c ClusterConfig) replicas() int { return cmp.Or(c.Replicas, 3) }

const (
	dialTimeout   = 2 * time.Second
	reconnectWait = 250 * time.Millisecond
	// A connection on which nothing comes back for pings × pingInterval is given
	// up for another server.
	pingInterval = 2 * time.Second
	pings        = 2
)

// connect begins to connect and goes on for ever.
func connect(cfg ClusterConfig, log *slog.Logger) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name("notebookd"), nats.Timeout(dialTimeout), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectWait, reconnectWait), nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(pings),
		// What cannot be sent now is an error now: a write that is sent when nobody
		// waits for it any more is worse than none.
		nats.ReconnectBufSize(-1),
		nats.NoEcho(), // what is said to the other replicas is not for this one
		nats.ConnectHandler(func(c *nats.Conn) { log.Info("nats connected", "server", c.ConnectedServerName()) }),
		nats.ReconnectHandler(func(c *nats.Conn) { log.Info("nats connected again", "server", c.ConnectedServerName()) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("nats connection lost", "error", err)
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Warn("nats", "error", err) }),
	}
	if cfg.User != "" {
		options = append(options, nats.UserInfo(cfg.User, cfg.Password))
	}
	if cfg.Credentials != "" {
		options = append(options, nats.UserCredentials(cfg.Credentials))
	}
	if cfg.NKey != "" {
		nkey, err := nats.NkeyOptionFromSeed(cfg.NKey)
		if err != nil {
			return nil, fmt.Errorf("storage: nkey %s: %w", cfg.NKey, err)
		}
		options = append(options, nkey)
	}
	if cfg.CA != "" || cfg.Cert != "" {
		options = append(options, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	if cfg.CA != "" {
		options = append(options, nats.RootCAs(cfg.CA))
	}
	if cfg.Cert != "" {
		options = append(options, nats.ClientCert(cfg.Cert, cfg.Key))
	}
	conn, err := nats.Connect(strings.Join(cfg.URLs, ","), options...)
	if err != nil {
		return nil, fmt.Errorf("storage: nats: %w", err)
	}
	return conn, nil
}
