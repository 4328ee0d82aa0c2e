// Package contexts is where notebookctl calls and who it says that it is: the file
// of contexts, and the connection that is made of one. It holds no secret: a
// context names the file or the variable that a token is in.
package contexts

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/notebookd/notebookd/cmd/notebookctl/internal/words"
)

// Default is where a server runs that was started without a configuration.
const Default = "127.0.0.1:9090"

// defaultPort is that of a server that is named without one.
const defaultPort = "9090"

// Context is one server and how to call it. Zero fields are left to the defaults.
type Context struct {
	// Server is its address, host:port.
	Server string `yaml:"server,omitempty"`
	// Plaintext says whether to speak without TLS. Default: only with an address of
	// this host itself, and without any of the fields that are about TLS.
	Plaintext *bool `yaml:"plaintext,omitempty"`
	// CA is a file with the certificates of the authorities that the server may be
	// proven by. Default: those of the system.
	CA string `yaml:"ca,omitempty"`
	// ServerName is the name that the server's certificate has to have. Default: the
	// host of Server.
	ServerName string `yaml:"server_name,omitempty"`
	// TokenFile is a file with a token. It is read for each call, so that it may be
	// replaced.
	TokenFile string `yaml:"token_file,omitempty"`
	// TokenEnv is a variable of the environment with a token.
	TokenEnv string `yaml:"token_env,omitempty"`
	// Cert and Key are files with a client certificate and its key.
	Cert string `yaml:"cert,omitempty"`
	Key  string `yaml:"key,omitempty"`
}

// File is the file of contexts.
type File struct {
	// Current is the name of the context that is used when none is named.
	Current  string             `yaml:"current,omitempty"`
	Contexts map[string]Context `yaml:"contexts,omitempty"`
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// ValidName reports whether a context can have this name: it is a part of the name
// of a file.
func ValidName(name string) bool { return nameForm.MatchString(name) }

// Path returns where the file is.
func Path(env func(string) string) string {
	dir := env("XDG_CONFIG_HOME")
	if dir == "" {
		home := env("HOME")
		if home == "" {
			home, _ = os.UserHomeDir() // empty: the file is looked for in the working directory
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "notebookctl", "config.yaml")
}

// Load reads the file. One that does not exist is empty.
func Load(path string, l words.Language) (File, error) {
	var f File
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return f, errors.New(l.T("%s cannot be understood: %v", path, err))
	}
	return f, nil
}

// Save writes the file, whole or not at all, for nobody else to read.
func (f File) Save(path string) error {
	data, err := yaml.Marshal(f)
	if err != nil {
		return err
	}
	return WriteSecret(path, data)
}

// WriteSecret writes a file, whole or not at all, that only its owner can read.
func WriteSecret(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".notebookctl-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // it is of no use, and says nothing that err does not
	}
	return err
}

// Address returns the address of the server, with a port.
func (c Context) Address() string {
	address := c.Server
	if address == "" {
		address = Default
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), defaultPort)
	}
	return address
}

// loopback reports whether the server is on this host.
func (c Context) loopback() bool {
	host, _, err := net.SplitHostPort(c.Address())
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Plain reports whether the server is spoken to without TLS.
func (c Context) Plain() bool {
	if c.Plaintext != nil {
		return *c.Plaintext
	}
	return c.loopback() && c.CA == "" && c.ServerName == "" && c.Cert == ""
}

// Credentials says in words what is sent to prove who calls. It never holds what is
// secret.
func (c Context) Credentials(l words.Language) string {
	var parts []string
	switch {
	case c.TokenFile != "":
		parts = append(parts, l.T("the token in %s", c.TokenFile))
	case c.TokenEnv != "":
		parts = append(parts, l.T("the token in %s", "$"+c.TokenEnv))
	}
	if c.Cert != "" {
		parts = append(parts, l.T("the certificate in %s", c.Cert))
	}
	return strings.Join(parts, l.Pick(" and ", "和"))
}

// Dial makes the connection. Whether the server can be reached is seen at the first
// call.
func (c Context) Dial(env func(string) string, l words.Language) (*grpc.ClientConn, error) {
	address := c.Address()
	if strings.Contains(address, "/") {
		return nil, errors.New(l.T("%q is no address of a server: it is host:port, without a scheme", c.Server))
	}
	options := []grpc.DialOption{
		grpc.WithUserAgent("notebookctl"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64 << 20)), // a page of 1000 rows with many attributes
		// A watch outlives the server's restart: it should not wait two minutes for it.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
	}
	if c.Plain() {
		if c.Cert != "" || c.CA != "" || c.ServerName != "" {
			return nil, errors.New(l.T("plain text and certificates exclude each other: leave --plaintext out, or --ca, --cert, --key and the server name"))
		}
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	} else {
		config, err := c.tls(l)
		if err != nil {
			return nil, err
		}
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	}
	if c.TokenFile != "" || c.TokenEnv != "" {
		if c.Plain() && !c.loopback() {
			return nil, errors.New(l.T("a token is not sent in plain text to another host, where everybody on the way could read it: use TLS"))
		}
		b := bearer{ctx: c, env: env, l: l}
		if _, err := b.token(); err != nil {
			return nil, err
		}
		options = append(options, grpc.WithPerRPCCredentials(b))
	}
	return grpc.NewClient(address, options...)
}

func (c Context) tls(l words.Language) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CA != "" {
		data, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, errors.New(l.T("%s holds no certificate in PEM", c.CA))
		}
	}
	if (c.Cert == "") != (c.Key == "") {
		return nil, errors.New(l.T("a client certificate needs both --cert and --key"))
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, errors.New(l.T("the client certificate in %s and %s cannot be used: %v", c.Cert, c.Key, err))
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// bearer sends a token with each call.
type bearer struct {
	ctx Context
	env func(string) string
	l   words.Language
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := b.token()
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. Dial has seen
// to it already.
func (b bearer) RequireTransportSecurity() bool { return !b.ctx.Plain() }

func (b bearer) token() (string, error) {
	var token string
	from := b.ctx.TokenFile
	if from != "" {
		data, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		token = strings.TrimSpace(string(data))
	} else {
		from = "$" + b.ctx.TokenEnv
		token = strings.TrimSpace(b.env(b.ctx.TokenEnv))
	}
	if token == "" {
		return "", errors.New(b.l.T("there is no token in %s", from))
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New(b.l.T("what is in %s is no token: it has to be one word", from))
	}
	return token, nil
}

// In says where a context goes, for messages.
func (c Context) In(l words.Language) string {
	if c.Plain() {
		return c.Address() + l.Pick(" (plaintext)", "（明文）")
	}
	return c.Address() + l.Pick(" (TLS)", "（TLS）")
}
