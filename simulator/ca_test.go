package simulator

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A client that trusts the authority's file is served by any of the names, before and after a restart.
func TestAuthorityStaysAcrossRestarts(t *testing.T) {
	dir := t.TempDir()
	first, err := openAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(first.file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatal("ca.pem holds no certificate")
	}
	second, err := openAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	choose, err := second.server([]string{"hub.example", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := choose(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hub.example", "127.0.0.1"} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("as %s: %v", name, err)
		}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "other.example"}); err == nil {
		t.Error("the certificate is good for a name it was not asked for")
	}
}

// TestServersKey: who takes ECDSA gets it, and who does not is served as by a hub in the cloud, whose certificates have RSA keys.
func TestServersKey(t *testing.T) {
	ca, err := makeAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	choose, err := ca.server([]string{"hub.example"})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for _, c := range []struct {
		name   string
		client *tls.Config
		key    x509.PublicKeyAlgorithm
	}{
		{"TLS 1.3", &tls.Config{MinVersion: tls.VersionTLS13}, x509.ECDSA},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, x509.ECDSA},
		{"an embedded device", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}, x509.RSA},
		{"another", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}}, x509.RSA},
	} {
		for _, name := range []string{"hub.example", "other.example"} {
			near, far := net.Pipe()
			server := tls.Server(far, &tls.Config{GetCertificate: choose, MinVersion: tls.VersionTLS12})
			go func() {
				_ = server.HandshakeContext(t.Context()) // the client has the same error
				_ = far.Close()
			}()
			conf := c.client.Clone()
			conf.RootCAs, conf.ServerName = roots, name
			client := tls.Client(near, conf)
			err := client.HandshakeContext(t.Context())
			_ = near.Close()
			if name != "hub.example" {
				if wrong, ok := errors.AsType[x509.HostnameError](err); !ok || wrong.Certificate.PublicKeyAlgorithm != c.key {
					t.Errorf("%s, as %s: %v, want a certificate with %s of another name", c.name, name, err, c.key)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			} else if got := client.ConnectionState().PeerCertificates[0].PublicKeyAlgorithm; got != c.key {
				t.Errorf("%s: a key of %s, want %s", c.name, got, c.key)
			}
		}
	}
}

func TestAuthorityKeyIsPrivate(t *testing.T) {
	dir := t.TempDir()
	if _, err := openAuthority(dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, caKeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestDamagedAuthorityIsAnError(t *testing.T) {
	dir := t.TempDir()
	if _, err := openAuthority(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, caKeyFile), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openAuthority(dir); err == nil {
		t.Error("a damaged key goes unnoticed")
	}
}

// The file of device authorities is read at the start, and a wrong one is said then.
func TestDeviceAuthorities(t *testing.T) {
	dir := t.TempDir()
	if _, err := makeAuthority(dir); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, file, says string
		pool             bool
	}{
		{"none", "", "", false},
		{"a certificate", filepath.Join(dir, caFile), "", true},
		{"a key", filepath.Join(dir, caKeyFile), "not its key", false},
		{"no file", filepath.Join(dir, "nowhere"), "device authorities", false},
	} {
		pool, err := readAuthorities(c.file)
		if (pool != nil) != c.pool || (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v; want %q", c.name, pool != nil, err, c.says)
		}
	}
}
