package hub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// issuer makes certificates.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate of i, or a self-signed one if i is nil. change may be nil.
func (i *issuer) issue(t testing.TB, name string, change func(*x509.Certificate)) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true}
	if change != nil {
		change(template)
	}
	by := i
	if by == nil {
		by = &issuer{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{cert, key}
}

func authority(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }

// TestX509: who may connect with what certificate, devices and modules alike.
func TestX509(t *testing.T) {
	root := (*issuer)(nil).issue(t, "root", authority)
	middle := root.issue(t, "middle", authority)
	stranger := (*issuer)(nil).issue(t, "root", authority)
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	for _, id := range []ID{{"pi-01", ""}, {"pi-01", "bme280"}} {
		own := (*issuer)(nil).issue(t, "any name", nil)
		other := (*issuer)(nil).issue(t, id.String(), nil)
		old := (*issuer)(nil).issue(t, "old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
		s1, s256, sOld := sha1.Sum(own.cert.Raw), sha256.Sum256(own.cert.Raw), sha256.Sum256(old.cert.Raw)
		short, long := strings.ToUpper(hex.EncodeToString(s1[:])), hex.EncodeToString(s256[:])
		chain := func(all ...*issuer) (certs []*x509.Certificate) {
			for _, i := range all {
				certs = append(certs, i.cert)
			}
			return certs
		}
		thumbs := func(a, b string) *Authentication {
			return &Authentication{Type: authSelfSigned, X509Thumbprint: X509Thumbprint{nullable(a), nullable(b)}}
		}
		ca := &Authentication{Type: authCA}
		for _, c := range []struct {
			name  string
			auth  *Authentication
			shown []*x509.Certificate
			code  int
		}{
			{"SHA-1", thumbs(short, ""), chain(own), 0},
			{"SHA-256", thumbs(long, ""), chain(own), 0},
			{"secondary", thumbs(strings.Repeat("0", 40), long), chain(own), 0},
			{"another certificate", thumbs(long, short), chain(other), 401003},
			{"no thumbprint", thumbs("", ""), chain(own), 401003},
			{"self-signed, run out", thumbs(hex.EncodeToString(sOld[:]), ""), chain(old), 401003},
			{"none shown", thumbs(long, ""), nil, 401003},
			{"keys", &Authentication{Type: authSAS}, chain(own), 401003},
			{"of the root", ca, chain(root.issue(t, id.String(), nil)), 0},
			{"of one in the middle", ca, chain(middle.issue(t, id.String(), nil), middle), 0},
			{"the middle is not shown", ca, chain(middle.issue(t, id.String(), nil)), 401003},
			{"for clients", ca, chain(root.issue(t, id.String(), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })), 0},
			{"for servers", ca, chain(root.issue(t, id.String(), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })), 401003},
			{"another name", ca, chain(root.issue(t, id.String()+"0", nil)), 401003},
			{"a name in another case", ca, chain(root.issue(t, strings.ToUpper(id.String()), nil)), 401003},
			{"the device's name for its module", ca, chain(root.issue(t, "pi-01", nil)), map[bool]int{true: 0, false: 401003}[id.Module == ""]},
			{"of a stranger", ca, chain(stranger.issue(t, id.String(), nil)), 401003},
			{"not yet", ca, chain(root.issue(t, id.String(), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })), 401003},
		} {
			h := New(Options{DeviceCAs: pool})
			if id.Module == "" {
				must(t)(h.PutDevice(Device{DeviceID: id.Device, Authentication: c.auth}, ""))
			} else {
				must(t)(h.PutDevice(Device{DeviceID: id.Device}, ""))
				must(t)(h.PutModule(Module{DeviceID: id.Device, ModuleID: id.Module, Authentication: c.auth}, ""))
			}
			g, err := h.Auth(id, Credential{Certificates: c.shown})
			wantError(t, id.String()+": "+c.name, err, c.code)
			if err == nil && (g.ID != id || !g.Expires.IsZero() || !strings.Contains(g.Method, `"type":"x509"`)) {
				t.Errorf("%s: %s: grant %+v", id, c.name, g)
			}
		}
		h := New(Options{})
		must(t)(h.PutDevice(Device{DeviceID: "pi-01", Authentication: ca}, ""))
		_, err := h.AuthX509(ID{Device: "pi-01"}, chain(root.issue(t, "pi-01", nil)))
		wantError(t, "a hub without authorities", err, 401003)
		_, err = h.AuthX509(ID{Device: "ghost"}, chain(own))
		wantError(t, "nobody", err, 404001)
	}
}

// TestX509CutOff: a connection ends with the certificate that it was made with, and with its identity.
func TestX509CutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := (*issuer)(nil).issue(t, "root", authority)
		pool := x509.NewCertPool()
		pool.AddCert(root.cert)
		own := root.issue(t, "d", nil)
		s := sha256.Sum256(own.cert.Raw)
		print, other := hex.EncodeToString(s[:]), strings.Repeat("a", 64)
		selfSigned := func(a, b string) *Authentication {
			return &Authentication{Type: authSelfSigned, X509Thumbprint: X509Thumbprint{nullable(a), nullable(b)}}
		}
		ca := &Authentication{Type: authCA}
		for _, c := range []struct {
			name         string
			before       *Authentication
			after        Device // without DeviceID; nil Authentication means deletion
			cut          int
			disabledCode int
		}{
			{"the same", selfSigned(print, ""), Device{Authentication: selfSigned(print, "")}, 0, 0},
			{"the second of two", selfSigned(print, other), Device{Authentication: selfSigned(other, print)}, 0, 0},
			{"another thumbprint", selfSigned(print, ""), Device{Authentication: selfSigned(other, "")}, 401003, 0},
			{"keys instead", selfSigned(print, ""), Device{Authentication: &Authentication{Type: authSAS}}, 401003, 0},
			{"an authority instead", selfSigned(print, ""), Device{Authentication: ca}, 401003, 0},
			{"still of the authority", ca, Device{Authentication: ca}, 0, 0},
			{"a thumbprint instead", ca, Device{Authentication: selfSigned(print, "")}, 401003, 0},
			{"disabled", ca, Device{Authentication: ca, Status: "disabled"}, 403012, 403012},
			{"deleted", ca, Device{}, 404001, 404001},
		} {
			h := New(Options{DeviceCAs: pool})
			must(t)(h.PutDevice(Device{DeviceID: "d", Authentication: c.before}, ""))
			credential := Credential{Certificates: []*x509.Certificate{own.cert}}
			g, err := h.Auth(ID{Device: "d"}, credential)
			must(t)(g, err)
			p := &peer{}
			must(t)(h.Attach(g, p))
			if c.after.Authentication == nil {
				must(t)(nil, h.DeleteDevice("d", "*"))
			} else {
				c.after.DeviceID = "d"
				must(t)(h.PutDevice(c.after, "*"))
			}
			synctest.Wait()
			if got := p.endedBy(t); got != c.cut {
				t.Errorf("%s: ended by %d, want %d", c.name, got, c.cut)
			}
			if c.disabledCode != 0 {
				_, err := h.Auth(ID{Device: "d"}, credential)
				wantError(t, c.name+": again", err, c.disabledCode)
			}
		}
	})
}
