package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// certificates is what the doors prove themselves with. It is safe for concurrent
// use, and may be replaced while connections come.
type certificates struct {
	current atomic.Pointer[certificate]
}

// certificate is one state of the files. It is immutable.
type certificate struct {
	pair     tls.Certificate
	clientCA *x509.CertPool // nil: client certificates are not asked for
	expires  time.Time
	believed *lru.Cache[[sha256.Size]byte, bool] // client certificates that were looked at, by their digest
}

// maxBelieved bounds how many client certificates are remembered.
const maxBelieved = 4096

// believes reports whether a client certificate leads to an authority. chains are what
// it led to when its connection came.
func (c *certificate) believes(chains [][]*x509.Certificate) bool {
	return c.clientCA != nil && slices.ContainsFunc(chains, c.believesChain)
}

func (c *certificate) believesChain(chain []*x509.Certificate) bool {
	hash := sha256.New()
	for _, cert := range chain {
		hash.Write(cert.Raw)
	}
	digest := [sha256.Size]byte(hash.Sum(nil))
	if yes, known := c.believed.Get(digest); known {
		return yes // until when it is good is looked at elsewhere
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: c.clientCA, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	c.believed.Add(digest, err == nil)
	return err == nil
}

// newCertificates reads the files of a configuration.
func newCertificates(cfg tlsConfig) (*certificates, error) {
	next, err := readCertificate(cfg)
	if err != nil {
		return nil, err
	}
	c := &certificates{}
	c.current.Store(next)
	return c, nil
}

// readCertificate reads the files. The text of its error holds no part of them.
func readCertificate(cfg tlsConfig) (*certificate, error) {
	pair, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("cert and key: %w", err)
	}
	out := &certificate{pair: pair, expires: pair.Leaf.NotAfter}
	if out.believed, err = lru.New[[sha256.Size]byte, bool](maxBelieved); err != nil {
		return nil, err
	}
	if cfg.ClientCA != "" {
		data, err := os.ReadFile(cfg.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("client_ca: %w", err)
		}
		out.clientCA = x509.NewCertPool()
		if !out.clientCA.AppendCertsFromPEM(data) {
			return nil, errors.New("client_ca: holds no certificate in PEM")
		}
	}
	return out, nil
}

// config is the TLS configuration of a door that speaks some protocols.
func (c *certificates) config(protocols ...string) *tls.Config {
	var last atomic.Pointer[madeConfig]
	base := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols}
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := c.current.Load()
		if made := last.Load(); made != nil && made.of == now {
			return made.config, nil
		}
		next := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, Certificates: []tls.Certificate{now.pair}}
		if now.clientCA != nil {
			next.ClientAuth, next.ClientCAs = tls.VerifyClientCertIfGiven, now.clientCA
		}
		last.Store(&madeConfig{now, next}) // kept, since the keys of session tickets are part of it
		return next, nil
	}
	return base
}

type madeConfig struct {
	of     *certificate
	config *tls.Config
}
