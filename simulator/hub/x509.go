package hub

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"strings"
	"time"
)

// proof is by what a connection has proved itself: one of the identity's own credentials, or, as its zero value, a hub
// policy's key, which no change of the identity takes away.
type proof struct {
	kind         string // authSAS, authSelfSigned, authCA
	key          keyPrint
	sha1, sha256 string // thumbprints of the certificate, in lower case
	devices      bool   // the key is one of a module's device: see DeviceKeyForModules
}

// Credential is what a connection or a request has to prove itself with.
type Credential struct {
	Token        string              // a SAS token
	Certificates []*x509.Certificate // of the TLS connection, the client's own first; they count where there is no token
}

// Auth checks the credential of a connection or a request that wants to be id.
func (h *Hub) Auth(id ID, c Credential) (Grant, error) {
	if c.Token == "" && len(c.Certificates) > 0 {
		return h.AuthX509(id, c.Certificates)
	}
	return h.AuthSAS(id, c.Token)
}

// AuthX509 checks the certificates of a connection that wants to be id, as TLS has them: the client's own first, then
// those between it and an authority. That the client has the private key is TLS's business and done. A self-signed
// identity is known by the thumbprint of the certificate, SHA-1 or SHA-256; one of an authority by a chain to one of the
// hub's device authorities, and by its common name, "device" or "device/module". Either has to be valid now. Sources:
// Microsoft Learn, "Authenticate identities with X.509 certificates", and the tutorials for modules; for thumbprints,
// github.com/Azure/iotedge, pull request 621: no other check than these two.
func (h *Hub) AuthX509(id ID, certificates []*x509.Certificate) (Grant, error) {
	h.mu.Lock()
	defer h.unlock()
	g, err := h.authX509(id, certificates, h.Now())
	if err != nil {
		return Grant{}, h.refuse(id, err)
	}
	return g, nil
}

func (h *Hub) auth(id ID, c Credential, now time.Time) (Grant, *Error) {
	if c.Token == "" && len(c.Certificates) > 0 {
		return h.authX509(id, c.Certificates, now)
	}
	return h.authSAS(id, c.Token, now)
}

func (h *Hub) authX509(id ID, certificates []*x509.Certificate, now time.Time) (Grant, *Error) {
	n, err := h.admissible(id)
	if err != nil {
		return Grant{}, err
	}
	if len(certificates) == 0 {
		return Grant{}, badToken("%s has shown neither a token nor a certificate", id)
	}
	leaf := certificates[0]
	s1, s256 := sha1.Sum(leaf.Raw), sha256.Sum256(leaf.Raw) // SHA-1 because identities may name it; an identity with care has SHA-256
	p := proof{kind: n.auth.kind, sha1: hex.EncodeToString(s1[:]), sha256: hex.EncodeToString(s256[:])}
	switch {
	case n.auth.kind != authSelfSigned && n.auth.kind != authCA:
		return Grant{}, badToken("%s proves itself by a key (%s), not by a certificate", id, n.auth.kind)
	case now.Before(leaf.NotBefore) || now.After(leaf.NotAfter):
		return Grant{}, badToken("the certificate of %s holds from %s to %s; look at the device's and this machine's clock", id,
			leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	case n.auth.kind == authSelfSigned && !n.auth.accepts(p):
		return Grant{}, badToken("the certificate's thumbprint %s (SHA-256 %s) is none of %s", p.sha1, p.sha256, id)
	case n.auth.kind == authCA:
		if err := h.checkChain(id, leaf, certificates[1:], now); err != nil {
			return Grant{}, err
		}
	}
	scope := "device"
	if id.Module != "" {
		scope = "module"
	}
	method := authMethod(scope, "x509", "iothub")
	if h.Chose(CertificateAuthMethod, "x509Certificate") {
		method = authMethod(scope, "x509Certificate", "external")
	}
	return Grant{ID: id, Method: method, proof: p}, nil
}

// checkChain holds a certificate to the hub's device authorities, and its name to the identity's.
func (h *Hub) checkChain(id ID, leaf *x509.Certificate, between []*x509.Certificate, now time.Time) *Error {
	if h.deviceCAs == nil {
		return badToken("%s proves itself by a device authority's certificate, and this hub has no such authority; start twinbay-sim with --device-ca FILE", id)
	}
	if leaf.Subject.CommonName != id.String() {
		return badToken("the certificate's common name is %q, not %q", leaf.Subject.CommonName, id)
	}
	middle := x509.NewCertPool()
	for _, c := range between {
		middle.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: h.deviceCAs, Intermediates: middle, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return badToken("the certificate of %s: %v", id, err)
	}
	return nil
}

// accepts tells whether a proof is still one of the identity's credentials.
func (a *authentication) accepts(p proof) bool {
	switch p.kind {
	case "":
		return true // a hub policy's
	case authSAS:
		return a.kind == authSAS && a.holds(p.key)
	case authSelfSigned:
		return a.kind == authSelfSigned && (a.isThumbprint(p.sha1) || a.isThumbprint(p.sha256))
	}
	return a.kind == p.kind
}

// isThumbprint compares without case, in which thumbprints come as their makers like.
func (a *authentication) isThumbprint(digest string) bool {
	return strings.EqualFold(text(a.thumbprint1), digest) || strings.EqualFold(text(a.thumbprint2), digest)
}

func authMethod(scope, kind, issuer string) string {
	return `{"scope":"` + scope + `","type":"` + kind + `","issuer":"` + issuer + `","acceptingIpFilterRule":null}`
}
