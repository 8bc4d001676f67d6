package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// errNoBroker means that there is nothing to compare with.
var errNoBroker = errors.New("mosquitto is not installed (Debian: apt-get install mosquitto)")

// startBroker runs mosquitto on a free port of the loopback, without persistence, with a certificate of the kind that
// twinbay-sim has (ECDSA P-256) and the cipher that Go's TLS chooses.
func startBroker(ctx context.Context, dir string) (*process, *target, error) {
	program, err := findBroker()
	if err != nil {
		return nil, nil, err
	}
	certificate, key, pool, err := brokerCertificate()
	if err != nil {
		return nil, nil, err
	}
	certFile, keyFile := filepath.Join(dir, "mosquitto-cert.pem"), filepath.Join(dir, "mosquitto-key.pem")
	if err := errors.Join(os.WriteFile(certFile, certificate, 0o600), os.WriteFile(keyFile, key, 0o600)); err != nil {
		return nil, nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	conf := fmt.Sprintf("listener %d 127.0.0.1\ncertfile %s\nkeyfile %s\nciphers_tls1.3 TLS_AES_128_GCM_SHA256\n"+
		"allow_anonymous true\npersistence false\nset_tcp_nodelay true\nlog_dest stderr\nlog_type error\nlog_type warning\n", port, certFile, keyFile)
	if os.Geteuid() == 0 {
		conf += "user root\n" // else it gives up root, and can't read its files
	}
	confFile := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(confFile, []byte(conf), 0o600); err != nil {
		return nil, nil, err
	}
	p, err := start(nil, program, "-c", confFile)
	if err != nil {
		return nil, nil, err
	}
	t := &target{
		name: "mosquitto " + brokerVersion(ctx, program), address: fmt.Sprintf("127.0.0.1:%d", port), pid: p.cmd.Process.Pid,
		tls: &tls.Config{RootCAs: pool, ServerName: "localhost"},
	}
	if err := t.awaited(ctx, p); err != nil {
		p.kill()
		return nil, nil, fmt.Errorf("%w\n%s", err, p.log)
	}
	return p, t, nil
}

func findBroker() (string, error) {
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto"} { // a user's PATH lacks sbin on Debian
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errNoBroker
}

// brokerVersion is the number that mosquitto -h begins with.
func brokerVersion(ctx context.Context, program string) string {
	text, _ := exec.CommandContext(ctx, program, "-h").Output() // it ends with a status of its own
	var version string
	_, _ = fmt.Fscanf(bytes.NewReader(text), "mosquitto version %s", &version)
	return version
}

// awaited returns once the broker takes connections, which only trying can tell.
func (t *target) awaited(ctx context.Context, p *process) error {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	limit := time.After(patient)
	for {
		nc, err := t.dial(ctx, "first")
		if err == nil {
			return nc.Close()
		}
		select {
		case <-again.C:
		case <-p.done:
			return fmt.Errorf("%s ended: %w", t.name, p.err)
		case <-limit:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func brokerCertificate() (certificate, key []byte, pool *x509.CertPool, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, nil, err
	}
	certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), pool, nil
}
