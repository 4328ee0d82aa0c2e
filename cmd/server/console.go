package main

import (
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/notebookd/notebookd/internal/access"
	"github.com/notebookd/notebookd/web"
)

// consoleFacts is what the sign-in page of the web console has to know. Everybody is
// told, so it has nothing that a caller could not find out by trying.
type consoleFacts struct {
	Version string      `json:"version"`
	Auth    signInFacts `json:"auth"`
}

// signInFacts are the ways in which somebody at a browser can say who they are.
type signInFacts struct {
	// Required says that callers are asked who they are.
	Required bool `json:"required"`
	// Token says that a token can be typed in: a static one or, where an issuer has no
	// client for the console, one of its own.
	Token bool `json:"token"`
	// Certificate says that a browser may have a client certificate, which it offers by
	// itself.
	Certificate bool `json:"certificate"`
	// OIDC are the issuers where the console may send people. Never null.
	OIDC []oidcFacts `json:"oidc"`
}

type oidcFacts struct {
	Issuer   string   `json:"issuer"`
	ClientID string   `json:"clientId"`
	Scopes   []string `json:"scopes"`
}

func consoleFactsOf(cfg *config, version string) consoleFacts {
	out := consoleFacts{Version: version, Auth: signInFacts{
		Required: cfg.asks(), Token: cfg.Auth.TokensFile != "", Certificate: cfg.Auth.Certificates != nil, OIDC: []oidcFacts{},
	}}
	for _, issuer := range cfg.Auth.OIDC {
		if issuer.Console == nil {
			out.Auth.Token = true
			continue
		}
		out.Auth.OIDC = append(out.Auth.OIDC, oidcFacts{issuer.Issuer, issuer.Console.ClientID, issuer.Console.ScopesOrDefault()})
	}
	return out
}

// consoleOrigins are those that the console calls to sign people in.
func consoleOrigins(cfg *config) []string {
	var out []string
	seen := map[string]bool{}
	add := func(origin string) {
		if !seen[origin] {
			seen[origin] = true
			out = append(out, origin)
		}
	}
	for _, issuer := range cfg.Auth.OIDC {
		if issuer.Console == nil {
			continue
		}
		if u, err := url.Parse(issuer.Issuer); err == nil { // checked with the configuration
			add(access.Origin(u))
		}
		for _, origin := range issuer.Console.Origins {
			add(origin)
		}
	}
	return out
}

// handleConsole makes a mux serve the web console, for as long as it is not switched
// off. What it has not is answered by otherwise.
func (s *server) handleConsole(mux *http.ServeMux, otherwise http.Handler) error {
	files, err := web.New(web.Config{
		Connect: func() []string { return consoleOrigins(s.current.Load()) }, Otherwise: otherwise,
	})
	if err != nil {
		return err
	}
	switched := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.current.Load().HTTP.Console.on() {
				next.ServeHTTP(w, r)
			} else {
				otherwise.ServeHTTP(w, r)
			}
		})
	}
	mux.Handle("GET /{$}", switched(files))
	mux.Handle("GET /assets/", switched(files))
	mux.Handle("GET /console.json", switched(s.stranger(http.HandlerFunc(s.consoleJSON))))
	return nil
}

// consoleJSON tells strangers how they can say who they are.
func (s *server) consoleJSON(w http.ResponseWriter, _ *http.Request) {
	text, err := json.Marshal(consoleFactsOf(s.current.Load(), buildInfo().Version))
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n'))
}
