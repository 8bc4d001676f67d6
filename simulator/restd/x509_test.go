package restd_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/hubtest"
	"github.com/twinbay/twinbay/simulator/restd"
)

// TestClientCertificate: a device with a certificate manages its modules by it, over real TLS, where no Authorization
// header is; and reaches nothing of a service's by it.
func TestClientCertificate(t *testing.T) {
	h := hubtest.New(t)
	own, other := h.Certificate("pi-01"), h.Certificate("pi-02")
	sum := sha256.Sum256(other.Leaf.Raw)
	print := strings.ToUpper(hex.EncodeToString(sum[:]))
	for id, auth := range map[string]*hub.Authentication{
		"pi-01": {Type: "certificateAuthority"},
		"pi-02": {Type: "selfSigned", X509Thumbprint: hub.X509Thumbprint{SecondaryThumbprint: &print}},
	} {
		if _, err := h.PutDevice(hub.Device{DeviceID: id, Authentication: auth}, ""); err != nil {
			t.Fatal(err)
		}
	}
	web := httptest.NewUnstartedServer(restd.New(h.Hub, nil))
	web.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	web.StartTLS()
	t.Cleanup(web.Close)
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	ask := func(line, token string, certs ...tls.Certificate) int {
		t.Helper()
		method, path, _ := strings.Cut(line, " ")
		r, err := http.NewRequest(method, web.URL+path+"?api-version=2021-04-12", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", token)
		}
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs}}
		defer tr.CloseIdleConnections()
		res, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for _, c := range []struct {
		line, token string
		certs       []tls.Certificate
		status      int
	}{
		{"PUT /devices/pi-01/modules/m", "", []tls.Certificate{own}, 200},
		{"GET /devices/pi-01/modules", "", []tls.Certificate{own}, 200},
		{"PUT /devices/pi-02/modules/m", "", []tls.Certificate{other}, 200},
		{"GET /devices/pi-01/modules", "", []tls.Certificate{other}, 401},
		{"GET /devices/pi-01/modules", "", nil, 401},
		{"GET /devices/pi-01/modules", "SharedAccessSignature sr=x&sig=eA==&se=99999999999", []tls.Certificate{own}, 401},
		{"GET /devices/pi-01", "", []tls.Certificate{own}, 401},
		{"GET /twins/pi-01", "", []tls.Certificate{own}, 401},
	} {
		if got := ask(c.line, c.token, c.certs...); got != c.status {
			t.Errorf("%s, token %q, %d certificates: %d, want %d", c.line, c.token, len(c.certs), got, c.status)
		}
	}
}
