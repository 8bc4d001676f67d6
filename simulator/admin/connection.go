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
	"strconv"
	"strings"
	"time"
	"unicode"
)

// connectionString is an owner's or a service policy's way to prove itself. Source: Microsoft Learn, "Control access to
// IoT Hub by using shared access signatures".
type connectionString struct {
	host, policy string
	key          []byte
	signature    string // a SAS token that somebody else has made, in the place of policy and key
}

// hostLetters is what a host name is made of.
const hostLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-"

// parseConnectionString reads one; now is the hub's time.
func parseConnectionString(text string, now time.Time) (connectionString, error) {
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
		case "SharedAccessSignature":
			if err := checkToken(value, now); err != nil {
				return c, err
			}
			c.signature = value
		case "DeviceId", "ModuleId":
			return c, fmt.Errorf("connection string: it is a device's or module's (%s); this needs a hub policy's, as of iothubowner", name)
		}
	}
	switch {
	case c.host == "":
		return c, errors.New("connection string: HostName is missing")
	case strings.Trim(c.host, hostLetters) != "":
		return c, errors.New("connection string: HostName is no host name; a port does not belong there, give it with the address to dial")
	case c.signature != "":
		return c, nil
	case c.policy == "":
		return c, errors.New("connection string: SharedAccessKeyName is missing; take one of a hub policy, as of iothubowner")
	case len(c.key) == 0:
		return c, errors.New("connection string: SharedAccessKey is missing")
	}
	return c, nil
}

// checkToken finds out what is wrong with a SAS token before a hub answers with nothing but "Unauthorized". It never
// says the token itself.
func checkToken(token string, now time.Time) error {
	fields, isSAS := strings.CutPrefix(token, "SharedAccessSignature ")
	if !isSAS || strings.ContainsFunc(token, unicode.IsControl) {
		return errors.New("connection string: SharedAccessSignature is no SAS token; it begins with \"SharedAccessSignature sr=\"")
	}
	for field := range strings.SplitSeq(fields, "&") {
		text, isExpiry := strings.CutPrefix(field, "se=")
		if !isExpiry {
			continue
		}
		se, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return errors.New("connection string: se of the SAS token is not a number of seconds")
		}
		if at := time.Unix(se, 0); at.Before(now) {
			return fmt.Errorf("connection string: its SAS token ran out at %s; have a new one made with `twinbay-sim sas-token`", at.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// token is a SAS token for a part of the hub, "" for the whole. A connection string with a token has that one only.
func (c connectionString) token(resource string, expires time.Time) string {
	if c.signature != "" {
		return c.signature
	}
	if resource != "" {
		resource = "/" + resource
	}
	sr := url.QueryEscape(c.host + resource)
	se := fmt.Sprint(expires.Unix())
	mac := hmac.New(sha256.New, c.key)
	mac.Write([]byte(sr + "\n" + se))
	return "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))) +
		"&se=" + se + "&skn=" + url.QueryEscape(c.policy)
}

// Parts are the hub's name and the policy's in a connection string, without a look at the rest.
func Parts(connectionString string) (host, policy string) {
	for part := range strings.SplitSeq(strings.TrimSpace(connectionString), ";") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "HostName":
			host = value
		case "SharedAccessKeyName":
			policy = value
		}
	}
	return host, policy
}

// Token makes a SAS token that reaches no more than a part of the hub: resource is a path below its host, with ids as
// they are, such as twins/vending-1/modules/coins, and "" is the whole hub. It makes no call.
func Token(connectionString, resource string, expires time.Time) (string, error) {
	c, err := parseConnectionString(connectionString, time.Now())
	switch {
	case err != nil:
		return "", err
	case c.signature != "":
		return "", errors.New("connection string: it holds a SAS token, and only a policy's key can sign another one")
	}
	return c.token(strings.Trim(resource, "/"), expires), nil
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
