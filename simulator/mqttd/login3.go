package mqttd

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/twinbay/twinbay/simulator/hub"
)

// login is what a CONNECT packet of MQTT 3.1.1 says about who connects.
type login struct {
	host       string
	id         hub.ID
	apiVersion string
	modelID    string // the DTMI that an IoT Plug and Play device announces
}

// parseLogin reads the user name {host}/{device}[/{module}]/?api-version=…; the ? may be missing. Ids stand there as
// they are. Unknown parameters are ignored, the first of two equal ones counts (iotedge, MqttUsernameParser.cs), and
// the client id must repeat the ids.
func parseLogin(clientID, user string) (login, error) {
	parts := strings.Split(user, "/")
	if len(parts) != 3 && len(parts) != 4 {
		return login{}, errors.New("user name is not {host}/{device}[/{module}]/?api-version=…")
	}
	l := login{host: parts[0], id: hub.ID{Device: parts[1]}}
	if len(parts) == 4 {
		l.id.Module = parts[2]
	}
	if l.host == "" || l.id.Device == "" || (len(parts) == 4 && l.id.Module == "") {
		return login{}, errors.New("user name has an empty host or id")
	}
	if err := l.query(strings.TrimPrefix(parts[len(parts)-1], "?")); err != nil {
		return login{}, err
	}
	if want := strings.Join(parts[1:len(parts)-1], "/"); clientID != want {
		return login{}, fmt.Errorf("client id %q is not %q as in the user name", clientID, want)
	}
	return l, nil
}

func (l *login) query(text string) error {
	for pair := range strings.SplitSeq(text, "&") {
		key, value, _ := strings.Cut(pair, "=")
		switch {
		case key == "api-version" && l.apiVersion == "":
			l.apiVersion = value
		case key == "model-id" && l.modelID == "":
			l.modelID = value // as Node sends it: not escaped
			if plain, err := url.PathUnescape(value); err == nil {
				l.modelID = plain
			}
		}
	}
	if l.apiVersion == "" {
		return errors.New("user name lacks api-version")
	}
	return nil
}
