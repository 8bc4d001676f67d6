package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/twinbay/twinbay/simulator/admin"
)

// errRefused is the hub's CONNACK 5.
var errRefused = errors.New("refused")

// knock connects as an identity with a token for audience, signed with key, the way any MQTT client would, and hangs
// up again.
func (m *machine) knock(as admin.ID, audience admin.ID, key string) error {
	ca, err := os.ReadFile(m.env["CA_FILE"])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	token, err := sas(m.env["HUB_HOST"], audience, key)
	if err != nil {
		return err
	}
	options := mqtt.NewClientOptions().
		AddBroker("ssl://" + m.env["HUB_IP"] + ":" + m.env["MQTT_PORT"]).
		SetTLSConfig(&tls.Config{RootCAs: roots, ServerName: m.env["HUB_HOST"]}).
		SetProtocolVersion(4).
		SetClientID(as.String()).
		SetUsername(m.env["HUB_HOST"] + "/" + as.String() + "/?api-version=2021-04-12").
		SetPassword(token).
		SetAutoReconnect(false).
		SetConnectTimeout(patient)
	client := mqtt.NewClient(options)
	t := client.Connect().(*mqtt.ConnectToken)
	if !t.WaitTimeout(patient) {
		return fmt.Errorf("no CONNACK for %s within %s", as, patient)
	}
	defer client.Disconnect(0)
	if t.ReturnCode() == 5 {
		return errRefused
	}
	return t.Error()
}

// sas signs a device or module token.
func sas(host string, id admin.ID, key string) (string, error) {
	secret, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return "", err
	}
	audience := host + "/devices/" + id.Device
	if id.Module != "" {
		audience += "/modules/" + id.Module
	}
	sr := url.QueryEscape(audience)
	se := fmt.Sprint(time.Now().Add(time.Hour).Unix())
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(sr + "\n" + se))
	return "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))) + "&se=" + se, nil
}

// keyOf reads the key out of an identity's credential file.
func (m *machine) keyOf(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	_, key, ok := strings.Cut(strings.TrimSpace(string(text)), "SharedAccessKey=")
	if !ok {
		return "", fmt.Errorf("%s holds no key", path)
	}
	return key, nil
}
