package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/notebookd/notebookd/internal/access"
	"github.com/notebookd/notebookd/internal/inventory"
	"github.com/notebookd/notebookd/internal/service"
)

// reloads says how the last reload of the configuration went.
type reloads struct {
	success  prometheus.Gauge
	applied  prometheus.Counter
	refused  prometheus.Counter
	expiries *prometheus.GaugeVec
}

func newReloads(registry prometheus.Registerer) *reloads {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "notebookd_config_reloads_total", Help: "Reloads of the configuration by outcome: applied or refused.",
	}, []string{"outcome"})
	r := &reloads{
		success: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "notebookd_config_reload_success", Help: "1 when what the configuration file says is what the server does, 0 when the file was refused.",
		}),
		applied: total.WithLabelValues("applied"), refused: total.WithLabelValues("refused"),
		expiries: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "notebookd_certificate_expiry_timestamp_seconds", Help: "Until when the certificate of a door is good.",
		}, []string{"listener"}),
	}
	registry.MustRegister(total, r.success, r.expiries)
	r.success.Set(1)
	return r
}

// reloadOn reads the configuration again when a signal comes, and when a file that
// it is made of has changed, until ctx ends.
func (s *server) reloadOn(ctx context.Context, signals <-chan os.Signal) {
	if s.cfg.path == "" { // there is no file
		return
	}
	tick := time.NewTicker(s.cfg.Reload)
	defer tick.Stop()
	// What the files were before they were last read. They may change while they are
	// applied, which the next look must find. After files were named that were not
	// watched before it finds a change, too: they are read once more.
	seen := s.cfg.seen
	var wanted []string // the files of a configuration that was refused
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			s.log.Info("configuration: asked to reload")
			seen = digest(s.watched(wanted))
		case <-tick.C:
			now := digest(s.watched(wanted))
			if now == seen {
				continue
			}
			seen = now
		}
		cfg, err := loadConfig(s.cfg.path)
		if err == nil {
			err = s.apply(ctx, cfg)
		}
		wanted = nil
		if err != nil {
			if cfg != nil {
				wanted = cfg.watched() // what is missing may come
				seen = digest(s.watched(wanted))
			}
			s.reloads.refused.Inc()
			s.reloads.success.Set(0)
			s.log.Error("configuration refused, the one before stays", "error", err)
			continue
		}
		s.reloads.applied.Inc()
		s.reloads.success.Set(1)
		s.log.Info("configuration applied", "clouds", len(cfg.Clouds))
	}
}

// watched are the files that make up the configuration, and others.
func (s *server) watched(others []string) []string {
	files := append(s.current.Load().watched(), others...)
	slices.Sort(files)
	return slices.Compact(files)
}

// watched are the files that make up the configuration.
func (cfg *config) watched() []string {
	files := append([]string{cfg.path}, cfg.files...)
	files = append(files, authFiles(cfg.Auth)...)
	if cfg.TLS != nil {
		files = append(files, cfg.TLS.Cert, cfg.TLS.Key, cfg.TLS.ClientCA)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// digest stands for what is in files. Looking at them now and then finds changes
// wherever they are mounted from, and however they are replaced.
func digest(files []string) [sha256.Size]byte {
	hash := sha256.New()
	for _, name := range files {
		if name == "" {
			continue
		}
		file, err := os.Open(name)
		if err != nil {
			_, _ = fmt.Fprintf(hash, "%q: none\n", name)
			continue
		}
		_, _ = fmt.Fprintf(hash, "%q:\n", name)
		_, _ = io.Copy(hash, file)
		_ = file.Close()
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// apply makes the server do what another configuration says, all of it or nothing.
// What cannot change while it runs is told in the log.
func (s *server) apply(ctx context.Context, cfg *config) error {
	before := s.current.Load()
	next, err := s.prepare(before, cfg)
	if err != nil {
		return err
	}
	for _, key := range fixedKeys(s.cfg, cfg) {
		s.log.Warn("configuration: takes effect at the next start", "key", key)
	}
	if next.certificate != nil {
		s.certificates.current.Store(next.certificate)
	}
	old := s.guard.rules.Load()
	s.guard.set(ctx, next.rules)
	if old.gate != next.rules.gate {
		old.gate.Close()
	}
	s.setLimits()
	s.service.SetWatchLimits(service.WatchLimits(cfg.Watch))
	if s.level != nil {
		s.level.Set(levelNamed(cfg.Log.Level))
	}
	for _, configure := range next.configure {
		configure()
	}
	s.replicas.SetWork(sourceNames(next.sources))
	s.inventory.SetSources(next.sources)
	for _, source := range s.sources {
		if !slices.ContainsFunc(next.sources, func(n inventory.Source) bool { return n.Client == source.Client }) {
			source.Client.Close()
		}
	}
	s.sources = next.sources
	s.current.Store(cfg)
	s.tellCertificates()
	return nil
}

// prepared is what is needed to apply a configuration.
type prepared struct {
	certificate *certificate // nil without TLS
	rules       *rules
	sources     []inventory.Source
	configure   []func() // of clients that go on
}

// prepare makes everything that may fail. before is nil at the start.
func (s *server) prepare(before, cfg *config) (*prepared, error) {
	out := &prepared{}
	var err error
	if cfg.TLS != nil && s.certificates != nil {
		if out.certificate, err = readCertificate(*cfg.TLS); err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
	}
	if out.rules, err = s.newRules(before, cfg); err != nil {
		return nil, err
	}
	if out.sources, out.configure, err = makeSources(cfg, before, s.sources, s.cloudMetrics, s.log); err != nil {
		if before != nil && out.rules.gate != s.guard.rules.Load().gate {
			out.rules.gate.Close()
		}
		return nil, err
	}
	return out, nil
}

// newRules makes the rules of a configuration. A gate whose configuration and files
// are as they were stays: it knows the keys of its issuers.
func (s *server) newRules(before, cfg *config) (*rules, error) {
	var gate *access.Gate
	files, now := digest(authFiles(cfg.Auth)), s.guard.rules.Load()
	if before != nil && files == now.files && reflect.DeepEqual(before.Auth, cfg.Auth) {
		gate = now.gate
	} else {
		var err error
		options := access.Options{Logger: s.log}
		if now != nil {
			options.Former = now.gate
		}
		if gate, err = access.New(cfg.Auth, options); err != nil {
			return nil, fmt.Errorf("auth: %w", err)
		}
	}
	if before != nil && gate.Open() && !cfg.Auth.Insecure && !s.onlyHere() {
		return nil, errors.New("auth: is needed: others can reach the doors, which stay where they are until the next start")
	}
	out := &rules{gate: gate, files: files, limits: cfg.Limits.withDefaults(!gate.Open())}
	for _, text := range cfg.HTTP.TrustedProxies {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("http.trusted_proxies: %w", err)
		}
		out.proxies = append(out.proxies, network.Masked())
	}
	return out, nil
}

// onlyHere reports whether nobody but this host itself can reach the doors.
func (s *server) onlyHere() bool {
	return isLoopback(s.cfg.GRPC.Address) && isLoopback(s.cfg.HTTP.Address) && isLoopback(s.cfg.Debug.Address)
}

func authFiles(cfg access.Config) []string {
	files := []string{cfg.TokensFile}
	for _, issuer := range cfg.OIDC {
		files = append(files, issuer.CA)
	}
	return files
}

// setLimits replaces the limits that can be replaced.
func (s *server) setLimits() {
	limits := s.guard.rules.Load().limits
	s.connections.total.Store(int64(limits.Connections))
	s.connections.perAddress.Store(int64(limits.ConnectionsPerAddress))
	s.streams.perAddress.Store(int64(limits.StreamsPerAddress))
	s.streams.requestTime.Store(int64(limits.RequestTime))
}

// tellCertificates says until when the certificates are good.
func (s *server) tellCertificates() {
	if s.certificates == nil {
		return
	}
	until := float64(s.certificates.current.Load().expires.Unix())
	for _, door := range []string{"grpc", "http"} {
		s.reloads.expiries.WithLabelValues(door).Set(until)
	}
}

// fixedKeys are the keys of what differs and does not change while the server runs.
func fixedKeys(started, cfg *config) []string {
	var out []string
	for _, part := range []struct {
		key           string
		before, after any
	}{
		{"grpc.address", started.GRPC.Address, cfg.GRPC.Address},
		{"http.address", started.HTTP.Address, cfg.HTTP.Address},
		{"tls", started.TLS == nil, cfg.TLS == nil},
		{"store", started.Store, cfg.Store},
		{"log.format", started.Log.Format, cfg.Log.Format},
		{"debug", started.Debug, cfg.Debug},
		{"tracing", started.Tracing, cfg.Tracing},
		{"drain", started.Drain, cfg.Drain},
		{"reload", started.Reload, cfg.Reload},
		{"limits.streams_per_connection", started.Limits.StreamsPerConnection, cfg.Limits.StreamsPerConnection},
		{"limits.message_bytes", started.Limits.MessageBytes, cfg.Limits.MessageBytes},
		{"limits.header_bytes", started.Limits.HeaderBytes, cfg.Limits.HeaderBytes},
		{"limits.url_bytes", started.Limits.URLBytes, cfg.Limits.URLBytes},
	} {
		if !reflect.DeepEqual(part.before, part.after) {
			out = append(out, part.key)
		}
	}
	return out
}

func levelNamed(name string) slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(strings.ToUpper(name))) // checked with the configuration
	return level
}

func sourceNames(sources []inventory.Source) []string {
	out := make([]string, 0, len(sources))
	for _, source := range sources {
		out = append(out, source.Name)
	}
	return out
}
