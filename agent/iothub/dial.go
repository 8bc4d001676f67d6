package iothub

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// mqttPort is MQTT over TLS (Microsoft Learn, "Communicate with your IoT hub by using the MQTT protocol").
const mqttPort = "8883"

// dialTime is for TCP alone. A SYN that was lost is sent again after 1 and 3 s (tcp(7), RFC 6298): with a connect that
// is given up in time, the next one finds the network soon after it is back.
const dialTime = 6 * time.Second

// dialTLS dials TCP and speaks TLS. The host name stays in SNI whatever the address is.
func dialTLS(cfg Config) Dial {
	address := cfg.Address
	if address == "" {
		address = net.JoinHostPort(cfg.Host, mqttPort)
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         cfg.Host,
		Time:               cfg.Clock.Now,
		ClientSessionCache: tls.NewLRUClientSessionCache(1), // a reconnect costs no second key exchange on a small board
	}
	var bad error
	if cfg.CA != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(cfg.CA) {
			bad = errors.New("the CA file holds no certificate in PEM: look at hub.ca_file")
		}
	}
	return func(ctx context.Context) (net.Conn, error) {
		if bad != nil {
			return nil, bad
		}
		conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w%s", address, err, dialAdvice(err))
		}
		tlsConn := tls.Client(conn, config)
		if err := tlsConn.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("TLS with %s: %w%s", address, err, tlsAdvice(err, cfg))
		}
		return tlsConn, nil
	}
}

// dialAdvice is the next step for a person.
func dialAdvice(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return " (the name is unknown: look at hub.host and at the network's DNS)"
	case errors.Is(err, syscall.ECONNREFUSED):
		return " (nothing listens there: is the hub running, is hub.address right?)"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return " (no way to it: is the network up?)"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), timedOut(err):
		return " (no answer: does a firewall close the port?)"
	}
	return ""
}

func timedOut(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

func tlsAdvice(err error, cfg Config) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &name):
		return fmt.Sprintf(" (the certificate is for another name: is hub.host right, %s?)", cfg.Host)
	case errors.As(err, &unknown) && cfg.CA != nil:
		return " (wrong CA: hub.ca_file is not the one that signed the hub's certificate)"
	case errors.As(err, &unknown):
		return " (wrong CA: the system does not know it; name the hub's CA in hub.ca_file)"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf(" (is this device's clock right? It is taken to be %s)", cfg.Clock.Now().UTC().Format(time.RFC3339))
	case errors.As(err, &record):
		return " (that port does not speak TLS: is hub.address right?)"
	case errors.Is(err, context.DeadlineExceeded):
		return " (no answer to the handshake)"
	}
	return ""
}

// doubtsClock says whether a wrong clock would explain err.
func doubtsClock(err error) bool {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	return errors.Is(err, ErrUnauthorized) || ok && invalid.Reason == x509.Expired
}
