package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/notebookd/notebookd/web/sentences"
)

// healthcheckTimeout bounds one question, from the connection to the answer.
const healthcheckTimeout = 3 * time.Second

// healthcheck asks the server that runs with the same configuration whether it is
// ready. It is for images without a shell and without curl. The exit code is 0 or
// 1, and never 2, which Docker keeps for itself.
func healthcheck(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	chinese := sentences.Wanted(os.Getenv)
	ofConfig, ofLive := "configuration `file` of the server that is asked", "ask whether it is alive, not whether it is ready"
	if chinese {
		ofConfig, ofLive = "所询问的服务器的配置`文件`", "询问它是否存活，而不是是否就绪"
	}
	flags := flag.NewFlagSet("server healthcheck", flag.ContinueOnError)
	flags.SetOutput(flagsOutput(stderr, chinese))
	file := flags.String("config", "", ofConfig)
	live := flags.Bool("live", false, ofLive)
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 1
	}
	target, err := healthTarget(*file, *live)
	if err == nil {
		err = ask(ctx, target)
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "healthcheck:", saidOf(err, chinese))
		return 1
	}
	_, _ = fmt.Fprintln(stdout, "ok")
	return 0
}

// healthTarget is the URL to ask. It reads no more of the configuration than the
// door: a server that runs keeps its old configuration when a new one is bad, and
// is healthy then, and what checks its health needs none of its secrets.
func healthTarget(file string, live bool) (*url.URL, error) {
	defaults, err := loadConfig("")
	if err != nil {
		return nil, err
	}
	door := struct {
		HTTP httpConfig `yaml:"http"`
		TLS  *tlsConfig `yaml:"tls"`
	}{}
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
		if err := yaml.Unmarshal(data, &door); err != nil {
			return nil, fmt.Errorf("configuration: %w", err)
		}
	}
	setDefault(&door.HTTP.Address, defaults.HTTP.Address)
	host, port, err := net.SplitHostPort(door.HTTP.Address)
	if err != nil {
		return nil, fmt.Errorf("http.address: %w", err)
	}
	switch host { // what listens everywhere listens here
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	}
	target := &url.URL{Scheme: "http", Host: net.JoinHostPort(host, port), Path: "/readyz"}
	if door.TLS != nil {
		target.Scheme = "https"
	}
	if live {
		target.Path = "/healthz"
	}
	return target, nil
}

// ask returns why a URL does not answer 200.
func ask(ctx context.Context, target *url.URL) error {
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	transport := &http.Transport{
		Proxy:             nil, // not even when the environment names one for the clouds
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			// The certificate is for the name by which callers know the server, not
			// for 127.0.0.1, and who signed it need not be known here. Nothing secret
			// is sent, and whoever could answer in the server's place on its own host
			// could as well end it.
			InsecureSkipVerify: true, //nolint:gosec // see above
		},
	}
	client := &http.Client{
		Transport: transport,
		// An answer from elsewhere says nothing about this server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		line, _, _ := strings.Cut(string(text), "\n")
		return fmt.Errorf("%s: %s: %q", target, resp.Status, line)
	}
	return nil
}
