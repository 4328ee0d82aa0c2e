package telemetry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/notebookd/notebookd/internal/upstream"
)

// Config says where traces go. Without an endpoint there are none. Other zero
// fields have the documented default.
type Config struct {
	// Endpoint is host:port of an OpenTelemetry collector. Default: none, there are no
	// traces.
	Endpoint string `yaml:"endpoint"`
	// Protocol is that of OTLP: grpc or http. Default: grpc.
	Protocol string `yaml:"protocol"`
	// Insecure sends without TLS. Default: false.
	Insecure bool `yaml:"insecure"`
	// CA is a file of certificates to trust. Default: those of the system.
	CA string `yaml:"ca"`
	// SampleRatio is the share of the traces that begin here that is recorded; what a
	// caller has begun is recorded when the caller says so. Default: all.
	SampleRatio *float64 `yaml:"sample_ratio"`
	// Headers are sent with everything, such as a token of the collector's. Default:
	// none.
	Headers map[string]upstream.Secret `yaml:"headers"`
}

// Validate returns all problems joined; the text of each begins with its key and
// ": ".
func (c Config) Validate() error {
	var problems []error
	problem := func(key, format string, v ...any) {
		problems = append(problems, fmt.Errorf("%s: "+format, append([]any{key}, v...)...))
	}
	if c.Endpoint == "" {
		if c.Protocol != "" || c.Insecure || c.CA != "" || c.SampleRatio != nil || len(c.Headers) > 0 {
			problem("endpoint", "is needed")
		}
		return errors.Join(problems...)
	}
	host, port, err := net.SplitHostPort(c.Endpoint)
	if _, notNumber := strconv.ParseUint(port, 10, 16); err != nil || host == "" || notNumber != nil {
		problem("endpoint", "must be host:port")
	}
	if c.Protocol != "" && c.Protocol != "grpc" && c.Protocol != "http" {
		problem("protocol", "must be one of grpc, http")
	}
	if r := c.SampleRatio; r != nil && (*r < 0 || *r > 1) {
		problem("sample_ratio", "must be from 0 to 1")
	}
	if c.CA != "" {
		if c.Insecure {
			problem("ca", "does not go with insecure")
		} else if _, err := c.tls(); err != nil {
			problem("ca", "%w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if text := c.Headers[name].Problem(); text != "" {
			problem("headers."+name, "%s", text)
		} else if !headerName(name) {
			problem("headers."+name, "is no name of a header")
		}
	}
	return errors.Join(problems...)
}

// headerName reports whether text can be the name of a header in both protocols.
func headerName(text string) bool {
	return text != "" && strings.Trim(strings.ToLower(text), "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

func (c Config) ratio() float64 {
	if c.SampleRatio == nil {
		return 1
	}
	return *c.SampleRatio
}

func (c Config) headers() map[string]string {
	out := map[string]string{}
	for name, value := range c.Headers {
		out[strings.ToLower(name)] = value.Reveal()
	}
	return out
}

func (c Config) tls() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA == "" {
		return out, nil
	}
	data, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, errors.New("the file cannot be read")
	}
	out.RootCAs = x509.NewCertPool()
	if !out.RootCAs.AppendCertsFromPEM(data) {
		return nil, errors.New("the file holds no certificate")
	}
	return out, nil
}
