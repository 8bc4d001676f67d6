package simulator

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Env says where a running simulator is, as name and value pairs for a shell: HUB_HOST, HUB_IP, MQTT_PORT, HTTPS_PORT,
// CA_FILE, HUB_CS (the owner's connection string), HUB_CS_SERVICE and the like (those of the shared access policies),
// HUB_CLOCK_OFFSET where the hub's clock is ahead of this machine's (2h0m0s) or behind it, and RIG_DIR where fake hardware runs.
type Env map[string]string

// PolicyVariable names the variable that has a shared access policy's connection string.
func PolicyVariable(policy string) string { return "HUB_CS_" + strings.ToUpper(policy) }

const clockOffset = "HUB_CLOCK_OFFSET"

// ClockOffset is how far the hub's clock is ahead of this machine's.
func (e Env) ClockOffset() (time.Duration, error) {
	if e[clockOffset] == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(e[clockOffset])
	if err != nil {
		return 0, fmt.Errorf("%s is %q: want a duration, like 2h or -30m", clockOffset, e[clockOffset])
	}
	return d, nil
}

// Format writes one NAME='value' a line, to be sourced by any POSIX shell.
func (e Env) Format() []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(e)) {
		fmt.Fprintf(&b, "%s='%s'\n", name, strings.ReplaceAll(e[name], "'", `'\''`))
	}
	return b.Bytes()
}

// ParseEnv reads what Format wrote.
func ParseEnv(text []byte) (Env, error) {
	e := Env{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		name, quoted, ok := strings.Cut(lines.Text(), "='")
		value, closed := strings.CutSuffix(quoted, "'")
		if !ok || !closed || name == "" {
			return nil, fmt.Errorf("simulator: env file line %d: want NAME='value', as written by --env-file", n)
		}
		e[name] = strings.ReplaceAll(value, `'\''`, "'")
	}
	return e, lines.Err()
}
