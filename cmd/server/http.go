package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/cors"
	"google.golang.org/grpc/codes"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/internal/service"
)

// defaultHSTS is for how long browsers are told to come with HTTPS only.
const defaultHSTS = 365 * 24 * time.Hour

// always are the headers of every answer, by canonical name. Whoever adds to a value
// gets another one, as there is no room in these.
var always = map[string][]string{
	"X-Content-Type-Options":  {"nosniff"},
	"Referrer-Policy":         {"no-referrer"},
	"Content-Security-Policy": {"default-src 'none'; frame-ancestors 'none'"},
	"Cache-Control":           {"no-store"},
}

// secure is what every request over HTTP goes through first: the bounds of what may
// be sent, and what browsers are told about the answers. cfg may be replaced while
// requests come.
func secure(cfg *atomic.Pointer[config], limits limitsConfig, next http.Handler) http.Handler {
	bounded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.RequestURI) > limits.URLBytes {
			writeBound(w, http.StatusRequestURITooLong, "path and query", fmt.Sprintf("are longer than %d bytes", limits.URLBytes))
			return
		}
		if err := sameSite(cfg.Load(), r); err != nil {
			writeStatus(w, err)
			return
		}
		if r.Body != nil && r.ContentLength != 0 {
			if !readWhole(w, r, limits) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
	// Those that may call from a web page of another origin are asked of the
	// configuration for each request.
	shared := cors.New(cors.Options{
		AllowOriginFunc: func(origin string) bool { return slices.Contains(cfg.Load().HTTP.CORS.Origins, origin) },
		AllowedMethods:  []string{http.MethodGet, http.MethodPost},
		AllowedHeaders:  []string{"Authorization", "Content-Type", "Last-Event-ID", "Traceparent", "Tracestate"},
		MaxAge:          600,
	}).Handler(bounded)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := cfg.Load()
		header := w.Header()
		for name, value := range always { // a tenth of what a List costs would go into making them anew
			header[name] = value
		}
		if r.TLS != nil {
			age := defaultHSTS
			if now.HTTP.HSTS != nil {
				age = *now.HTTP.HSTS
			}
			if age > 0 {
				header.Set("Strict-Transport-Security", "max-age="+strconv.FormatInt(int64(age/time.Second), 10))
			}
		}
		if len(now.HTTP.CORS.Origins) > 0 {
			shared.ServeHTTP(w, r)
			return
		}
		bounded.ServeHTTP(w, r)
	})
}

// crossOrigin knows the requests that a browser makes for a page of another origin,
// and that are to change something.
var crossOrigin = http.NewCrossOriginProtection()

// sameSite refuses what a web page makes a browser do without the reader's knowledge:
// a browser has a client certificate, or just a way to this host, by itself.
func sameSite(cfg *config, r *http.Request) error {
	if err := crossOrigin.Check(r); err != nil && !slices.Contains(cfg.HTTP.CORS.Origins, r.Header.Get("Origin")) {
		return service.Error(codes.PermissionDenied, notebookv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED,
			"pages of this origin may not call; name it in http.cors.origins if they are to")
	}
	// Where nobody is asked who they are, a page must not reach this host under a name
	// of its own either.
	if cfg.asks() || cfg.Auth.Insecure || !isLoopback(cfg.HTTP.Address) || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
		return nil
	}
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if _, err := netip.ParseAddr(name); err == nil || name == "" || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return nil
	}
	return service.Error(codes.PermissionDenied, notebookv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED,
		"this server knows itself as localhost only; with auth, or auth: {insecure: true}, it does not mind its name")
}

// doorLog is what a net/http server logs to. What strangers do to a connection is
// for those who look for it; a panic is for everybody.
type doorLog struct{ log *slog.Logger }

// Write implements io.Writer. net/http calls it for each line.
func (l doorLog) Write(line []byte) (int, error) {
	level := slog.LevelDebug
	if bytes.HasPrefix(line, []byte("http: panic serving")) || bytes.HasPrefix(line, []byte("http2: panic serving")) {
		level = slog.LevelError
	}
	l.log.Log(context.Background(), level, string(bytes.TrimSpace(line)))
	return len(line), nil
}

// readWhole reads a body, which has to be here soon, so that nobody who sends slowly
// has more than a connection. It answers when that fails.
func readWhole(w http.ResponseWriter, r *http.Request, limits limitsConfig) bool {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(limits.RequestTime)) // where there is none, there is no connection either
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(limits.MessageBytes)))
	var large *http.MaxBytesError
	var slow net.Error
	switch {
	case err == nil:
		_ = control.SetReadDeadline(time.Time{})
		r.Body = io.NopCloser(bytes.NewReader(data))
		return true
	case errors.As(err, &large):
		writeBound(w, http.StatusRequestEntityTooLarge, "body", fmt.Sprintf("is larger than %d bytes", limits.MessageBytes))
	case errors.As(err, &slow) && slow.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusRequestTimeout)
		_, _ = w.Write(statusJSONOf(errSlowRequest))
	default: // whoever sent it has left
		writeStatus(w, service.Error(codes.Canceled, notebookv1.ErrorReason_ERROR_REASON_CALLER_GONE, "the caller left, or its deadline passed"))
	}
	return false
}

// writeBound refuses what is too large.
func writeBound(w http.ResponseWriter, code int, what, problem string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(statusJSONOf(service.InvalidFields(service.FieldViolation{Field: what, Problem: problem})))
}
