package clock

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

// issued makes a CA and a certificate of its for localhost that was valid in the year 2001 only.
func issued(t *testing.T) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:  x509.KeyUsageCertSign,
		NotBefore: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"localhost"},
		NotBefore: time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2001, 12, 31, 0, 0, 0, 0, time.UTC),
	}
	if raw, err = x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), key); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return pool, tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: leafKey}
}

func TestDateOf(t *testing.T) {
	roots, certificate := issued(t)
	date := []string{time.Now().Add(-3 * time.Hour).UTC().Format(http.TimeFormat)}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = date
		w.WriteHeader(http.StatusUnauthorized)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	at := func(host string) *url.URL { return &url.URL{Scheme: "https", Host: host + ":" + port, Path: "/"} }
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	got, err := DateOf(at("localhost"), roots)(ctx)
	if off := time.Until(got) + 3*time.Hour; err != nil || off > time.Minute || off < -time.Minute {
		t.Errorf("a certificate that has run out, and a date of three hours ago: %v, %v", got, err)
	}
	if _, err := DateOf(at("127.0.0.1"), roots)(ctx); err == nil {
		t.Error("another name was believed")
	}
	if _, err := DateOf(at("localhost"), x509.NewCertPool())(ctx); err == nil {
		t.Error("an unknown CA was believed")
	}
	for _, bad := range []string{"", "yesterday", "Mon, 99 Jan 2024 00:00:00 GMT"} {
		date = []string{bad}
		if got, err := DateOf(at("localhost"), roots)(ctx); err == nil {
			t.Errorf("Date %q was read as %v", bad, got)
		}
	}
	server.Close()
	if _, err := DateOf(at("localhost"), roots)(ctx); err == nil {
		t.Error("a server that is gone has told the time")
	}
}
