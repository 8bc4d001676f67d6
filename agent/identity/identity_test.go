package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

type vectors struct {
	Key    string `json:"key"`
	SE     int64  `json:"se"`
	Tokens []struct{ Name, SR, Sig string }
	MQTT5  struct{ Host, ClientID, Policy, At, Expiry, Data string }
}

func loadVectors(t *testing.T) vectors {
	t.Helper()
	text, err := os.ReadFile("../../simulator/conformance/sas.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func parse(t *testing.T, text string) Credential {
	t.Helper()
	c, err := ParseConnectionString(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const someKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

func TestTokenVectors(t *testing.T) {
	v := loadVectors(t)
	ids := map[string]string{
		"hub1.azure-devices.net%2Fdevices%2Fpi-01":                    "DeviceId=pi-01",
		"hub1.azure-devices.net%2Fdevices%2Fpi-01%2Fmodules%2Fbme280": "DeviceId=pi-01;ModuleId=bme280",
	}
	checked := 0
	for _, tok := range v.Tokens {
		fields, ours := ids[tok.SR]
		if !ours {
			continue // another client's spelling of the same resource
		}
		c := parse(t, "HostName=hub1.azure-devices.net;"+fields+";SharedAccessKey="+v.Key)
		end := time.Unix(v.SE, 0)
		got, err := c.Token("hub1.azure-devices.net", end.Add(-time.Hour), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		sig := strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D").Replace(tok.Sig)
		want := fmt.Sprintf("SharedAccessSignature sr=%s&sig=%s&se=%d", tok.SR, sig, v.SE)
		if got.Text != want || !got.Expires.Equal(end) {
			t.Errorf("%s: token = %s until %v, want %s", tok.Name, got.Text, got.Expires, want)
		}
		checked++
	}
	if checked != len(ids) {
		t.Errorf("%d vectors are in our spelling, want %d", checked, len(ids))
	}
}

func TestSignMQTT5Vector(t *testing.T) {
	v := loadVectors(t).MQTT5
	c := parse(t, "HostName="+v.Host+";DeviceId="+v.ClientID+";SharedAccessKey="+loadVectors(t).Key)
	got, err := c.SignMQTT5(v.Host, v.Policy, v.At, v.Expiry)
	if err != nil {
		t.Fatal(err)
	}
	if text := base64.StdEncoding.EncodeToString(got); text != v.Data {
		t.Errorf("signature = %s, want %s", text, v.Data)
	}
}

func TestResourceEscapesEachIDOnce(t *testing.T) {
	c := Credential{ID: ID{Device: "a%2Fb+c d", Module: "m:1'!*()"}}
	want := "hub%2Fdevices%2Fa%252Fb%2Bc%20d%2Fmodules%2Fm%3A1%27%21%2A%28%29"
	if got := c.resource("hub"); got != want {
		t.Errorf("resource = %s, want %s", got, want)
	}
}

func TestNoKey(t *testing.T) {
	c := Credential{ID: ID{Device: "d"}}
	if _, err := c.Token("h", time.Now(), time.Hour); !errors.Is(err, ErrNoKey) {
		t.Errorf("Token: %v, want ErrNoKey", err)
	}
	if _, err := c.SignMQTT5("h", "", "1", "2"); !errors.Is(err, ErrNoKey) {
		t.Errorf("SignMQTT5: %v, want ErrNoKey", err)
	}
}

func TestParseConnectionString(t *testing.T) {
	c := parse(t, "  DeviceId=Pi-01;hostname=hub.example;SharedAccessKey="+someKey+";moduleid=m=1;\n")
	if c.Host != "hub.example" || c.ID != (ID{Device: "Pi-01", Module: "m=1"}) || string(c.key) != "0123456789abcdef0123456789abcdef" {
		t.Errorf("parsed %v", c)
	}

	for _, test := range []struct{ name, text, want string }{
		{"empty", "", "HostName is missing"},
		{"no host", "DeviceId=d;SharedAccessKey=" + someKey, "HostName is missing"},
		{"no device", "HostName=h;SharedAccessKey=" + someKey, "DeviceId is missing"},
		{"no key", "HostName=h;DeviceId=d", "SharedAccessKey is missing"},
		{"empty module", "HostName=h;DeviceId=d;ModuleId=;SharedAccessKey=" + someKey, "ModuleId is empty"},
		{"twice", "HostName=h;hostName=i;DeviceId=d;SharedAccessKey=" + someKey, "HostName is given twice"},
		{"owner's", "HostName=h;SharedAccessKeyName=iothubowner;SharedAccessKey=" + someKey, "belongs to a hub policy"},
		{"x509", "HostName=h;DeviceId=d;x509=true", "not supported"},
		{"key alone", someKey, "part 1 has an unknown name"},
		{"no equals", "HostName=h;DeviceId=d;MDEyMzQ1Njc4", "part 3 has no"},
		{"not base64", "HostName=h;DeviceId=d;SharedAccessKey=MDEyMzQ1Njc4OWFiY2Rl*", "not base64"},
		{"short key", "HostName=h;DeviceId=d;SharedAccessKey=MDEyMw==", "has 4 bytes"},
		{"bad device", "HostName=h;DeviceId=a/b;SharedAccessKey=" + someKey, `DeviceId has the character '/'`},
		{"long module", "HostName=h;DeviceId=d;ModuleId=" + strings.Repeat("m", 129) + ";SharedAccessKey=" + someKey, "128"},
		{"URL as host", "HostName=https://h;DeviceId=d;SharedAccessKey=" + someKey, "bare host name"},
	} {
		_, err := ParseConnectionString(test.text)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an error with %q", test.name, err, test.want)
			continue
		}
		if strings.Contains(err.Error(), "MDEy") {
			t.Errorf("%s: the error shows a piece of the key: %v", test.name, err)
		}
	}
}

func FuzzParseConnectionString(f *testing.F) {
	f.Add("HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey=" + someKey)
	f.Add("HostName=h;DeviceId=d;SharedAccessKeyName=x;SharedAccessKey==")
	f.Add(";;=;==")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConnectionString(text)
		if err != nil {
			return
		}
		again := "HostName=" + c.Host + ";DeviceId=" + c.ID.Device
		if c.ID.Module != "" {
			again += ";ModuleId=" + c.ID.Module
		}
		again += ";SharedAccessKey=" + base64.StdEncoding.EncodeToString(c.key)
		d, err := ParseConnectionString(again)
		if err != nil || d.ID != c.ID || d.Host != c.Host || !bytes.Equal(d.key, c.key) {
			t.Errorf("%q: parsed as %v, again as %v, %v", text, c, d, err)
		}
		if _, err := c.Token(c.Host, time.Unix(1, 0), time.Hour); err != nil {
			t.Error(err)
		}
	})
}

func TestKeyIsNeverShown(t *testing.T) {
	c := parse(t, "HostName=h;DeviceId=d;ModuleId=m;SharedAccessKey="+someKey)
	tok, err := c.Token("h", time.Unix(0, 0), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %s %q %x %v\n", c, c, c, c, c, c, c)
	out.WriteString(fmt.Sprintf(strings.Repeat("%"+"d %"+"o ", 2), c, c, tok, tok)) // vet knows no better
	fmt.Fprintf(&out, "%v %+v %#v %s %v\n", &c, tok, tok, tok, []any{c, tok})
	for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		slog.New(h).Info("connect", "credential", c, "token", tok, "pointer", &c)
	}
	if err := json.NewEncoder(&out).Encode(map[string]any{"c": c, "p": &c, "t": tok}); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{someKey, "0123456789abcdef", fmt.Sprintf("%x", c.key), fmt.Sprint(c.key), "sig="} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is shown in:\n%s", secret, out.String())
		}
	}
	if !strings.Contains(out.String(), "d/m at h") {
		t.Errorf("the identity is not shown in:\n%s", out.String())
	}
}
