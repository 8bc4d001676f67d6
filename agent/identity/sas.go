package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Token makes a SAS token for the hub at host, valid from now for ttl (to the second, as the token counts).
//
// The signature covers the sr value as it stands in the token. Each id is escaped once and joined by escaped slashes;
// the hub checks the signature over the raw text and decodes afterwards.
func (c Credential) Token(host string, now time.Time, ttl time.Duration) (Token, error) {
	if len(c.key) == 0 {
		return Token{}, fmt.Errorf("token of %s: %w", c.ID, ErrNoKey)
	}
	expires := now.Add(ttl).Truncate(time.Second)
	se := strconv.FormatInt(expires.Unix(), 10)
	sr := c.resource(host)
	sig := base64.StdEncoding.EncodeToString(c.sign(sr + "\n" + se))
	return Token{
		Text:    "SharedAccessSignature sr=" + sr + "&sig=" + escape(sig) + "&se=" + se,
		Expires: expires,
	}, nil
}

// SignMQTT5 makes the Authentication Data of the MQTT 5 API: the raw HMAC over host, client id, policy, at and expiry,
// with a line feed after each. at and expiry are milliseconds since 1970 in decimal; what is not sent is "".
func (c Credential) SignMQTT5(host, policy, at, expiry string) ([]byte, error) {
	if len(c.key) == 0 {
		return nil, fmt.Errorf("signature of %s: %w", c.ID, ErrNoKey)
	}
	return c.sign(strings.Join([]string{host, c.ID.String(), policy, at, expiry, ""}, "\n")), nil
}

func (c Credential) sign(text string) []byte {
	mac := hmac.New(sha256.New, c.key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func (c Credential) resource(host string) string {
	sr := escape(host) + "%2Fdevices%2F" + escape(c.ID.Device)
	if c.ID.Module != "" {
		sr += "%2Fmodules%2F" + escape(c.ID.Module)
	}
	return sr
}

// escape percent-encodes everything but the unreserved characters of RFC 3986, section 2.3. The escapes of net/url
// leave some of the characters that an id may hold as they are, or turn a space into "+".
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		ch := s[i]
		switch {
		case 'a' <= ch && ch <= 'z', 'A' <= ch && ch <= 'Z', '0' <= ch && ch <= '9', strings.IndexByte("-._~", ch) >= 0:
			b.WriteByte(ch)
		default:
			b.Write([]byte{'%', hex[ch>>4], hex[ch&15]})
		}
	}
	return b.String()
}
