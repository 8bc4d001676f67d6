package hub

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	sasScheme = "SharedAccessSignature"
	maxToken  = 8 << 10 // bytes; two ids of 128 characters, escaped twice, stay below 2 KiB

	// clockSkew is how long after its expiry a token is still taken. Source: Azure/iotedge, edge-util,
	// SharedAccessSignature.cs, MaxClockSkew.
	clockSkew = 5 * time.Minute
)

// sasToken is a SAS token's parts.
type sasToken struct {
	resource  string // sr as it stands in the token
	signature []byte
	expiry    string // se as it stands in the token
	expires   time.Time
	policy    string // skn
}

// keyPrint is a hash that names a key. The zero value names none.
type keyPrint [sha256.Size]byte

// parseSAS reads a token. Its fields come in any order; what the hub does not know is ignored.
func parseSAS(token string) (sasToken, *Error) {
	var s sasToken
	if len(token) > maxToken {
		return s, badToken("the SAS token is longer than %d bytes", maxToken)
	}
	scheme, fields, _ := strings.Cut(strings.TrimSpace(token), " ")
	if !strings.EqualFold(scheme, sasScheme) {
		return s, badToken("the credential does not begin with %s", sasScheme)
	}
	var sig, skn string
	for field := range strings.SplitSeq(strings.TrimSpace(fields), "&") {
		name, value, _ := strings.Cut(field, "=")
		into := map[string]*string{"sr": &s.resource, "sig": &sig, "se": &s.expiry, "skn": &skn}[name]
		if into == nil {
			continue
		}
		if *into != "" {
			return s, badToken("the SAS token has two fields %s", name)
		}
		*into = value
	}
	var err error
	if s.policy, err = url.PathUnescape(skn); err != nil {
		return s, badToken("skn of the SAS token is not percent-encoded")
	}
	if s.resource == "" || sig == "" || s.expiry == "" {
		return s, badToken("the SAS token lacks sr, sig or se")
	}
	// A plus sign stands for itself: some clients leave it unescaped in base64.
	if sig, err = url.PathUnescape(sig); err != nil {
		return s, badToken("sig of the SAS token is not percent-encoded")
	}
	if s.signature, err = base64.StdEncoding.DecodeString(sig); err != nil || len(s.signature) == 0 {
		return s, badToken("sig of the SAS token is not base64")
	}
	s.expires, err = parseSeconds(s.expiry)
	if err != nil {
		return s, badToken("se of the SAS token is not a number of seconds")
	}
	return s, nil
}

// parseSeconds reads a Unix time, at most the year 9999.
func parseSeconds(text string) (time.Time, error) {
	const last = 253_402_300_799
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(int64(min(n, last)), 0), nil
}

func (s *sasToken) expired(now time.Time) bool { return now.After(s.expires.Add(clockSkew)) }

// signer tells which of the keys, base64, has signed the token. What is signed is sr exactly as it stands in the token:
// encoders differ in what they escape, and in upper and lower case. Some clients escape once more after signing
// (github.com/amenzhinsky/iothub for modules), so the text unescaped once is tried next.
func (s *sasToken) signer(keys ...string) keyPrint {
	var found keyPrint
	for _, text := range s.spellings(1) {
		for _, key := range keys {
			raw, err := base64.StdEncoding.DecodeString(key)
			if err != nil || len(raw) == 0 {
				continue
			}
			if signs(raw, text+"\n"+s.expiry, s.signature) && found == (keyPrint{}) {
				found = printKey(raw)
			}
		}
	}
	return found
}

func signs(key []byte, text string, signature []byte) bool {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return subtle.ConstantTimeCompare(mac.Sum(nil), signature) == 1
}

func printKey(raw []byte) keyPrint { return sha256.Sum256(raw) }

// spellings are sr as it stands, unescaped once, and so on, as long as something changes.
func (s *sasToken) spellings(unescapes int) []string {
	all := []string{s.resource}
	for range unescapes {
		last := all[len(all)-1]
		next, err := url.PathUnescape(last)
		if err != nil || next == last {
			break
		}
		all = append(all, next)
	}
	return all
}

// covers tells whether the token's resource is the hub's path or a prefix of it, segment by segment. Upper and lower
// case are the same here (Azure/iot-identity-service lower-cases the audience); whose key must have signed was decided
// with case. A resource comes unescaped (C SDK), escaped (most), or with the ids escaped once more (C# through an edge).
func (s *sasToken) covers(host string, path []string) bool {
	unescapes := 2
	if s.policy != "" {
		unescapes = 1 // what a policy has signed for the device "a%2Fb" is not for "a", whatever is below it
	}
	for _, text := range s.spellings(unescapes) {
		segments := strings.Split(strings.TrimSuffix(text, "/"), "/")
		if sameHost(segments[0], host) && isPrefix(segments[1:], path) {
			return true
		}
	}
	return false
}

// sameHost also takes a name with a port behind it, which clients with a hub on an odd port put there.
func sameHost(text, host string) bool {
	name, port, found := strings.Cut(text, ":")
	if found {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
	}
	return strings.EqualFold(name, host)
}

func isPrefix(short, long []string) bool {
	if len(short) > len(long) {
		return false
	}
	for i, segment := range short {
		if !strings.EqualFold(segment, long[i]) {
			return false
		}
	}
	return true
}

// resourcePath is an identity's path below the hub, in segments.
func (id ID) resourcePath() []string {
	if id.Module == "" {
		return []string{"devices", id.Device}
	}
	return []string{"devices", id.Device, "modules", id.Module}
}
