// Live lists the notebooks of real clouds, once and read-only, and tells which
// of the questions that the vendors' documentation leaves open the answers
// settle. It prints counts, words of a status and names of fields, never a value
// that belongs to somebody.
//
// The credentials come from the environment:
//
//	CORESHUB_ACCESS_KEY_ID, CORESHUB_SECRET_ACCESS_KEY, CORESHUB_USER_ID
//	CORESHUB_ZONES (xb3,xb2,hb2), CORESHUB_ENDPOINT
//	SCNET_USER, SCNET_ACCESS_KEY, SCNET_SECRET_KEY, SCNET_LOGIN_ENDPOINT, SCNET_PLATFORM_ENDPOINT
//
// Without those of a cloud, that cloud is skipped.
package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/notebookd/notebookd/internal/upstream"
	"github.com/notebookd/notebookd/internal/upstream/coreshub"
	"github.com/notebookd/notebookd/internal/upstream/scnet"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ok := run(ctx, os.Getenv, os.Stdout)
	stop()
	if !ok {
		os.Exit(1)
	}
}

// run looks at every cloud whose credentials are there. It reports whether all
// of them could be listed.
func run(ctx context.Context, env func(string) string, out io.Writer) bool {
	ok := true
	for _, cloud := range []struct {
		name   string
		needed []string
		open   func(env func(string) string, client *upstream.Client) (upstream.Provider, error)
		settle func(taped []exchange, out io.Writer)
	}{
		{"CoresHub", []string{"CORESHUB_ACCESS_KEY_ID", "CORESHUB_SECRET_ACCESS_KEY", "CORESHUB_USER_ID"}, openCoresHub, settleCoresHub},
		{"SCNet", []string{"SCNET_USER", "SCNET_ACCESS_KEY", "SCNET_SECRET_KEY"}, openSCNet, settleSCNet},
	} {
		var missing []string
		for _, name := range cloud.needed {
			if env(name) == "" {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			say(out, "%s: skipped, %s not set", cloud.name, strings.Join(missing, ", "))
			continue
		}
		tape := &tape{}
		client := upstream.NewClient(upstream.ClientConfig{Cloud: strings.ToLower(cloud.name), Timeout: 30 * time.Second, Transport: tape})
		provider, err := cloud.open(env, client)
		if err != nil {
			say(out, "%s: %v", cloud.name, err)
			ok = false
			continue
		}
		ok = list(ctx, cloud.name, provider, out) && ok
		cloud.settle(tape.exchanges(), out)
		tape.transport.CloseIdleConnections()
	}
	return ok
}

func openCoresHub(env func(string) string, client *upstream.Client) (upstream.Provider, error) {
	return coreshub.New(coreshub.Config{
		Endpoint: env("CORESHUB_ENDPOINT"), UserID: env("CORESHUB_USER_ID"), Zones: strings.Split(cmp.Or(env("CORESHUB_ZONES"), "xb3,xb2,hb2"), ","),
		AccessKeyID: upstream.NewSecret(env("CORESHUB_ACCESS_KEY_ID")), SecretAccessKey: upstream.NewSecret(env("CORESHUB_SECRET_ACCESS_KEY")),
	}, client)
}

func openSCNet(env func(string) string, client *upstream.Client) (upstream.Provider, error) {
	return scnet.New(scnet.Config{
		LoginEndpoint: env("SCNET_LOGIN_ENDPOINT"), PlatformEndpoint: env("SCNET_PLATFORM_ENDPOINT"), User: env("SCNET_USER"),
		AccessKey: upstream.NewSecret(env("SCNET_ACCESS_KEY")), SecretKey: upstream.NewSecret(env("SCNET_SECRET_KEY")),
	}, client)
}

// list lists every location and says how it went.
func list(ctx context.Context, cloud string, provider upstream.Provider, out io.Writer) bool {
	locations, err := provider.Locations(ctx)
	if err != nil {
		say(out, "%s: locations: %v", cloud, err)
		return false
	}
	ok := true
	for _, l := range locations {
		if l.Disabled != "" {
			say(out, "%s %s: disabled: %s", cloud, l.ID, l.Disabled)
			continue
		}
		notebooks, err := provider.List(ctx, l.ID)
		if err != nil {
			say(out, "%s %s: %v", cloud, l.ID, err)
			ok = ok && upstream.KindOf(err) == upstream.KindDisabled
			continue
		}
		states := tally{}
		for _, n := range notebooks {
			states.add(n.CloudState)
			if n.State == upstream.StateUnspecified {
				states.add(n.CloudState + " (not documented)")
			}
		}
		say(out, "%s %s: %d notebooks; status words: %s", cloud, l.ID, len(notebooks), states)
	}
	return ok
}

// exchange is one call as it went over the wire.
type exchange struct {
	path   string
	query  map[string][]string
	status int
	header http.Header
	body   []byte
}

// tape is a transport that keeps a copy of every answer.
type tape struct {
	transport http.Transport

	mu   sync.Mutex // guards list
	list []exchange
}

// RoundTrip implements http.RoundTripper.
func (t *tape) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, upstream.MaxBody+1))
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, exchange{req.URL.Path, req.URL.Query(), resp.StatusCode, resp.Header, body})
	return resp, nil
}

func (t *tape) exchanges() []exchange {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.list
}

func say(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, format+"\n", args...)
}
