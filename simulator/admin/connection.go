package admin

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// connectionString is an owner's or a service policy's way to prove itself. Source: Microsoft Learn, "Control access to
// IoT Hub by using shared access signatures".
type connectionString struct {
	host, policy string
	key          []byte
}

// hostLetters is what a host name is made of.
const hostLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"

func parseConnectionString(text string) (connectionString, error) {
	var c connectionString
	for part := range strings.SplitSeq(strings.TrimSpace(text), ";") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "HostName":
			c.host = value
		case "SharedAccessKeyName":
			c.policy = value
		case "SharedAccessKey":
			key, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				return c, errors.New("connection string: SharedAccessKey is not base64: copy it whole, with the = at its end")
			}
			c.key = key
		case "DeviceId", "ModuleId":
			return c, fmt.Errorf("connection string: it is a device's or module's (%s); this needs a hub policy's, as of iothubowner", name)
		}
	}
	switch {
	case c.host == "":
		return c, errors.New("connection string: HostName is missing")
	case strings.Trim(c.host, hostLetters) != "":
		return c, errors.New("connection string: HostName is no host name; a port does not belong there, give it with the address to dial")
	case c.policy == "":
		return c, errors.New("connection string: SharedAccessKeyName is missing; take one of a hub policy, as of iothubowner")
	case len(c.key) == 0:
		return c, errors.New("connection string: SharedAccessKey is missing")
	}
	return c, nil
}

// token signs a SAS token for the whole hub.
func (c connectionString) token(expires time.Time) string {
	sr := url.QueryEscape(c.host)
	se := fmt.Sprint(expires.Unix())
	mac := hmac.New(sha256.New, c.key)
	mac.Write([]byte(sr + "\n" + se))
	return "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))) +
		"&se=" + se + "&skn=" + url.QueryEscape(c.policy)
}

// ConnectionString answers what a device or module needs to connect: its host, ids and primary key.
func (c *Client) ConnectionString(ctx context.Context, id ID) (string, error) {
	answer, err := c.Show(ctx, id)
	if err != nil {
		return "", err
	}
	var identity struct {
		Authentication struct {
			SymmetricKey struct{ PrimaryKey string }
		}
	}
	if err := json.Unmarshal(answer, &identity); err != nil {
		return "", fmt.Errorf("admin: read identity %s: %w", id, err)
	}
	key := identity.Authentication.SymmetricKey.PrimaryKey
	if key == "" {
		return "", fmt.Errorf("%s has no key: it proves itself by a certificate", id)
	}
	text := "HostName=" + c.conn.host + ";DeviceId=" + id.Device
	if id.Module != "" {
		text += ";ModuleId=" + id.Module
	}
	return text + ";SharedAccessKey=" + key, nil
}
