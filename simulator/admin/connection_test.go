package admin

import (
	"strings"
	"testing"
	"time"
)

func TestParseConnectionString(t *testing.T) {
	const good = "HostName=hub1.azure-devices.net;SharedAccessKeyName=iothubowner;SharedAccessKey=a2V5="
	for _, c := range []struct{ name, text, says string }{
		{"good", strings.Replace(good, "a2V5=", "a2V5", 1), ""},
		{"in another order, with spaces around", " SharedAccessKey=a2V5;SharedAccessKeyName=p;HostName=h;\n", ""},
		{"a field of the future", "HostName=h;SharedAccessKeyName=p;SharedAccessKey=a2V5;GatewayHostName=g", ""},
		{"key cut short", good, "base64"},
		{"no host", "SharedAccessKeyName=p;SharedAccessKey=a2V5", "HostName is missing"},
		{"host with a port", "HostName=localhost:8443;SharedAccessKeyName=p;SharedAccessKey=a2V5", "port"},
		{"host is a URL", "HostName=https://h/;SharedAccessKeyName=p;SharedAccessKey=a2V5", "no host name"},
		{"no policy", "HostName=h;SharedAccessKey=a2V5", "SharedAccessKeyName is missing"},
		{"no key", "HostName=h;SharedAccessKeyName=p", "SharedAccessKey is missing"},
		{"a device's", "HostName=h;DeviceId=d;SharedAccessKey=a2V5", "hub policy"},
		{"a token", "HostName=h;SharedAccessSignature=SharedAccessSignature sr=h&sig=eA%3D%3D&se=99999999999&skn=p", ""},
		{"a token that ran out", "HostName=h;SharedAccessSignature=SharedAccessSignature sr=h&sig=eA%3D%3D&se=1&skn=p", "ran out at 1970-01-01T00:00:01Z"},
		{"a token of no time", "HostName=h;SharedAccessSignature=SharedAccessSignature sr=h&sig=eA%3D%3D&se=x&skn=p", "number of seconds"},
		{"no token", "HostName=h;SharedAccessSignature=sr=h", "no SAS token"},
		{"a token on two lines", "HostName=h;SharedAccessSignature=SharedAccessSignature sr=h\r\nX: y", "no SAS token"},
		{"empty", "", "HostName is missing"},
	} {
		_, err := parseConnectionString(c.text, time.Now())
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

func TestParseID(t *testing.T) {
	for text, want := range map[string]ID{
		"d": {"d", ""}, "d/m": {"d", "m"}, "a%2Fb/c#": {"a%2Fb", "c#"},
		"": {}, "/": {}, "/m": {}, "d/": {}, "d/m/x": {},
	} {
		id, err := ParseID(text)
		if id != want || (err == nil) == (want == ID{}) {
			t.Errorf("%q: %v, %v; want %v", text, id, err, want)
		}
		if err == nil && id.String() != text {
			t.Errorf("%q comes back as %q", text, id)
		}
	}
}

// FuzzConnectionString: no text panics, no error shows the key, and what is taken makes a token in one line.
func FuzzConnectionString(f *testing.F) {
	f.Add("HostName=h;SharedAccessKeyName=p;SharedAccessKey=a2V5")
	f.Add("HostName=h;SharedAccessKeyName=p;SharedAccessKey=TopSecretKey?")
	f.Add("HostName=h;SharedAccessSignature=SharedAccessSignature sr=h&sig=eA%3D%3D&se=99999999999&skn=p")
	f.Add("SharedAccessKey=====;;=;DeviceId")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseConnectionString(text, time.Now())
		if err != nil {
			_, after, _ := strings.Cut(text, "SharedAccessKey=")
			key, _, _ := strings.Cut(after, ";")
			if len(key) > 8 && strings.Contains(err.Error(), key) && !strings.Contains("HostName SharedAccessKeyName", key) {
				t.Errorf("the error of %q shows the key: %v", text, err)
			}
			return
		}
		if c.signature != "" {
			if token := c.token("", time.Time{}); strings.ContainsAny(token, "\r\n") {
				t.Errorf("token of %q: %q", text, token)
			}
			return
		}
		token := c.token("", time.Unix(1767225600, 0))
		if !strings.HasPrefix(token, "SharedAccessSignature sr="+c.host+"&sig=") || strings.ContainsAny(token, "\r\n") || strings.Count(token, "&") != 3 {
			t.Errorf("token of %q: %s", text, token)
		}
	})
}
