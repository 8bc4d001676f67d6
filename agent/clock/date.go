package clock

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// DateOf answers a function that asks an HTTPS server for its time: the Date header (RFC 9110, section 6.6.1) of its
// answer to HEAD, whatever that answer is. roots nil means the system's.
//
// The time is what is in doubt, so the server's certificate is checked as of the time it was issued, not as of now: its name
// and the chain to a root that the device trusts count, its validity today does not. Whoever answers has once been the hub,
// or is somebody with a certificate of the hub's that may have run out since. That is why the answer is a hint, and counts
// only when a connection stands that was made with it and checks everything.
func DateOf(server *url.URL, roots *x509.CertPool) func(context.Context) (time.Time, error) {
	name := server.Hostname()
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			ServerName:         name,
			InsecureSkipVerify: true, // in favour of VerifyConnection
			VerifyConnection:   func(s tls.ConnectionState) error { return verify(s, name, roots) },
		},
		DisableKeepAlives: true, // it is asked once in a long while
	}
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) (time.Time, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, server.String(), nil)
		if err != nil {
			return time.Time{}, fmt.Errorf("ask %s for the time: %w", server, err)
		}
		sent := time.Now()
		res, err := client.Do(req)
		if err != nil {
			return time.Time{}, fmt.Errorf("ask for the time: %w", err)
		}
		_ = res.Body.Close()
		t, err := http.ParseTime(res.Header.Get("Date"))
		if err != nil {
			return time.Time{}, fmt.Errorf("ask %s for the time: its answer has no Date that can be read: %w", server, err)
		}
		// The header has whole seconds, and the answer took its time.
		return t.Add(time.Second/2 + time.Since(sent)/2), nil
	}
}

// verify checks a chain as of when the certificate was issued.
func verify(s tls.ConnectionState, name string, roots *x509.CertPool) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	leaf := s.PeerCertificates[0]
	pool := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		pool.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: pool, CurrentTime: leaf.NotBefore.Add(time.Second)})
	return err
}
