package simulator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// authority is the simulator's own certificate authority. It lives in two files of the simulator's folder, so that a
// client that trusts it once trusts it after a restart too.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // the certificate, PEM: what clients are given to trust
}

const (
	caFile    = "ca.pem"
	caKeyFile = "ca-key.pem"
	caYears   = 10
)

// openAuthority reads the authority in dir, or makes one on first start and when the old one is about to expire.
func openAuthority(dir string) (*authority, error) {
	a, err := readAuthority(dir)
	if err == nil && time.Now().AddDate(0, 1, 0).Before(a.cert.NotAfter) {
		return a, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("simulator: read the certificate authority: %w; remove %s to get a new one",
			err, filepath.Join(dir, caFile))
	}
	return makeAuthority(dir)
}

func readAuthority(dir string) (*authority, error) {
	file := filepath.Join(dir, caFile)
	pair, err := tls.LoadX509KeyPair(file, filepath.Join(dir, caKeyFile))
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: not an ECDSA key", caKeyFile)
	}
	return &authority{cert: pair.Leaf, key: key, file: file}, nil
}

func makeAuthority(dir string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "twinbay-sim test CA " + now.UTC().Format("2006-01-02 15:04:05")},
		NotBefore:             now.Add(-24 * time.Hour), // a device whose clock runs late trusts it too
		NotAfter:              now.AddDate(caYears, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("simulator: make the certificate authority: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := writePEM(filepath.Join(dir, caKeyFile), 0o600, "PRIVATE KEY", private); err != nil {
		return nil, err
	}
	if err := writePEM(filepath.Join(dir, caFile), 0o644, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return readAuthority(dir)
}

// server makes the choice of the certificate that the doors show, good for all names a client may use: one with an ECDSA key,
// which costs the least, and for clients that take none of those one with an RSA key, which hubs in the cloud have
// (Microsoft Learn, "TLS support in IoT Hub": the cipher suites are ECDHE_RSA). That one takes longer to make than all else at the
// start, and is made when the first such client comes.
func (a *authority) server(names []string) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	fast, err := a.issue(key, names)
	if err != nil {
		return nil, err
	}
	usual := sync.OnceValues(func() (*tls.Certificate, error) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		return a.issue(key, names)
	})
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		kind := *hello
		kind.ServerName = "" // a client that knows the hub by another name is to see that it is another one
		if kind.SupportsCertificate(fast) == nil {
			return fast, nil
		}
		return usual()
	}, nil
}

// issue makes a server's certificate.
func (a *authority) issue(key crypto.Signer, names []string) (*tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: names[0]},
		NotBefore:    a.cert.NotBefore,
		NotAfter:     a.cert.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("simulator: issue the server certificate for %q: %w", names, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}, nil
}

// readAuthorities reads the certificates that devices' own may be of. No file, no authorities.
func readAuthorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("simulator: device authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("simulator: device authorities: %s holds no PEM certificate; give --device-ca the CA's certificate, not its key", file)
	}
	return pool, nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail on Linux
	}
	return n
}

func writePEM(path string, mode fs.FileMode, kind string, der []byte) error {
	return writeFile(path, mode, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// writeFile puts data at path in one step: whoever waits for the file sees all of it or nothing.
func writeFile(path string, mode fs.FileMode, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails, as it should, once the file has its name
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(mode); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
