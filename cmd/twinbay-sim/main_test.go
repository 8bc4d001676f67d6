package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/twinbay/twinbay/simulator"
	"github.com/twinbay/twinbay/simulator/rig"
)

// TestMain lets the test binary be the command that serve runs: then it is twinbay-sim with the arguments it was given.
func TestMain(m *testing.M) {
	if args := os.Getenv("TWINBAY_SIM_ARGS"); args != "" {
		os.Exit(Main(context.Background(), strings.Split(args, "\n"), os.Stdin, os.Stdout, os.Stderr))
	}
	if os.Getenv("TWINBAY_SIM_WAITS") != "" {
		os.Exit(waitForTerm())
	}
	os.Exit(m.Run())
}

// waitForTerm is a command that puts its hardware down when it is asked to end: 9 says that it was still there.
func waitForTerm() int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	os.Stdout.WriteString("the command is ready\n")
	<-term
	if _, err := (rig.Client{Dir: os.Getenv("RIG_DIR")}).Status(context.Background()); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return 8
	}
	return 9
}

// against runs twinbay-sim with args as a user of a hub that serve started, and answers what it said.
func against(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TWINBAY_SIM_ARGS", strings.Join(args, "\n"))
	var out, diag bytes.Buffer
	serve := []string{"serve", "--dir", t.TempDir(), "--mqtt-port", "0", "--https-port", "0", "--no-rig",
		"--seed", "../../firmware-configs/vending-machine/seed.toml", "--", self}
	code = Main(t.Context(), serve, strings.NewReader(""), &out, &diag)
	return code, out.String(), diag.String()
}

func TestOperatorsCommands(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{[]string{"device", "list"}, 0, "vending-1  enabled", ""},
		{[]string{"device", "list"}, 0, "Disconnected  never\n", ""},
		{[]string{"module", "list", "vending-1"}, 0, "climate  Disconnected", ""},
		{[]string{"module", "create", "vending-1/spare"}, 0, `"moduleId": "spare"`, ""},
		{[]string{"device", "create", "gateway", "--edge"}, 0, `"deviceScope": "ms-azure-iot-edge://gateway-`, ""},
		{[]string{"device", "create", "x", "--x509-ca"}, 0, `"type": "certificateAuthority"`, ""},
		{[]string{"module", "create", "vending-1/x", "--thumbprint", strings.Repeat("aB:", 19) + "aB"}, 0, `"primaryThumbprint": "` + strings.Repeat("aB", 20) + `"`, ""},
		{[]string{"module", "create", "vending-1/x", "--thumbprint", "zz"}, 1, "", "StringIsNotThumbprint"},
		{[]string{"device", "create", "x", "--x509-ca", "--thumbprint", "ab"}, 2, "", "the one or the other"},
		{[]string{"device", "create", "x", "--thumbprint", "a,b,c"}, 2, "", "3 thumbprints"},
		{[]string{"module", "create", "vending-1/door"}, 1, "", "ModuleAlreadyExistsOnDevice"},
		{[]string{"module", "connection-string", "vending-1/door"}, 0, "HostName=localhost;DeviceId=vending-1;ModuleId=door;SharedAccessKey=", ""},
		{[]string{"device", "update", "vending-1", "--disable", "--reason", "stolen"}, 0, `"statusReason": "stolen"`, ""},
		{[]string{"device", "delete", "vending-1"}, 0, "", ""},
		{[]string{"device", "show", "nobody"}, 1, "", "DeviceNotFound"},
		{[]string{"twin", "set", "vending-1/climate", `{"interval_ms": 700}`}, 0, `"interval_ms": 700`, ""},
		{[]string{"twin", "set", "vending-1/climate", `{"interval_ms"`}, 2, "", "no JSON object"},
		{[]string{"twin", "show", "vending-1"}, 0, `"site": "lobby"`, ""},
		{[]string{"method", "vending-1/door", "readState"}, 1, "", "DeviceNotOnline"},
		{[]string{"sas-token", "--policy", "service", "--resource", "twins/vending-1/modules/coins", "--for", "24h"}, 0,
			"SharedAccessSignature sr=localhost%2Ftwins%2Fvending-1%2Fmodules%2Fcoins&sig=", ""},
		{[]string{"sas-token", "--connection-string"}, 0, "HostName=localhost;SharedAccessSignature=SharedAccessSignature sr=localhost&sig=", ""},
		{[]string{"sas-token", "--policy", "nobody"}, 2, "", "no policy"},
		{[]string{"sas-token", "--for", "0s"}, 2, "", "time to come"},
		{[]string{"sas-token", "--policy", "service", "--hub", "HostName=h;SharedAccessKeyName=x;SharedAccessKey=a2V5"}, 1, "", `of policy "x"`},
		{[]string{"c2d", "send", "vending-1", "hello", "--property", "k=v", "--ack", "full", "--ttl", "5m", "--id", "1"}, 0, "", ""},
		{[]string{"c2d", "send", "vending-1", "hello", "--property", "k"}, 2, "", "want NAME=VALUE"},
		{[]string{"c2d", "send", "vending-1", "hello", "--ack", "some"}, 1, "", "ArgumentInvalid"},
		{[]string{"c2d", "send", "vending-1", "hello", "--ttl", "72h"}, 1, "", "InvalidMessageExpiryTime"},
		{[]string{"c2d", "send", "vending-1"}, 2, "", "usage: twinbay-sim c2d send DEVICE[/MODULE] BODY"},
		{[]string{"c2d", "purge", "vending-1/door"}, 0, "0 messages purged", ""},
		{[]string{"c2d", "purge", "nobody"}, 1, "", "DeviceNotFound"},
		{[]string{"c2d", "feedback"}, 0, "", ""},
		{[]string{"fault", "add", "--on", "publish", "--do", "drop", "--who", "vending-1/*", "--probability", "0.1", "--for", "1m"}, 0, "", ""},
		{[]string{"fault", "add", "--on", "connect", "--do", "refuse", "--connack", "4"}, 0, "", ""},
		{[]string{"fault", "add", "--on", "connect", "--do", "refuse", "--connack", "6"}, 1, "", "connack"},
		{[]string{"fault", "add", "--on", "publish", "--do", "explode"}, 1, "", "explode"},
		{[]string{"fault", "add", "--on", "publish"}, 2, "", "--do"},
		{[]string{"fault", "list"}, 0, "ID  ON  WHO  DO  WHEN  PASSED  ACTED", ""},
		{[]string{"fault", "clear", "nobody"}, 1, "", "FaultNotFound"},
		{[]string{"fault", "clear"}, 0, "", ""},
		{[]string{"device", "show", "vending-1/door"}, 2, "", "want DEVICE"},
		{[]string{"module", "show"}, 2, "", "usage: twinbay-sim module show DEVICE/MODULE"},
		{[]string{"device", "create", "x", "--nonsense"}, 2, "", "--nonsense"},
		{[]string{"rig", "--dir", "nowhere", "status"}, 1, "", "no rig runs in nowhere"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			code, stdout, stderr := against(t, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit code %d, want %d\n%s\n%s", code, tt.code, stdout, stderr)
			}
			if strings.Contains(stderr, "SharedAccessKey=") {
				t.Error("an error shows a key")
			}
		})
	}
}

// A department has a connection string with a token, which reaches its component and nothing else.
func TestDepartmentsToken(t *testing.T) {
	dir := t.TempDir()
	run := func(what string) string {
		var out, diag bytes.Buffer
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		script := `sim() { TWINBAY_SIM_ARGS=$(printf '%s\n' "$@" | sed '$!b;s/$//') "$0"; }
			unset HUB_CS HUB_HOST HUB_IP HTTPS_PORT CA_FILE TWINBAY_SIM_ARGS
			coins=$(sim sas-token --env-file ` + dir + `/hub.env --policy service --resource twins/vending-1/modules/coins --connection-string)
			sim ` + what + ` --env-file ` + dir + `/hub.env --hub "$coins" 2>&1`
		Main(t.Context(), []string{"serve", "--dir", dir, "--mqtt-port", "0", "--https-port", "0", "--no-rig",
			"--seed", "../../firmware-configs/vending-machine/seed.toml", "--", "sh", "-c", script, self}, strings.NewReader(""), &out, &diag)
		return out.String()
	}
	for _, c := range []struct{ what, says string }{
		{"twin show vending-1/coins", `"moduleId": "coins"`},
		{"method vending-1/coins readCoins", "DeviceNotOnline"},
		{"twin show vending-1/climate", "401 IotHubUnauthorizedAccess"},
		{"twin show vending-1", "401 IotHubUnauthorizedAccess"},
		{"module show vending-1/coins", "401 IotHubUnauthorizedAccess"},
		{"device list", "401 IotHubUnauthorizedAccess"},
		{"sas-token", "only a policy's key"},
	} {
		if got := run(c.what); !strings.Contains(got, c.says) {
			t.Errorf("%s: %s\nwant %s", c.what, got, c.says)
		}
	}
}

// The operator's commands, and the tokens that they make, hold at a hub whose clock is another one, whatever tells them of it: the
// environment, the env file, or a refusal.
func TestCommandsOfAHubWithAnotherClock(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, offset := range []string{"2h", "-20000h"} {
		for name, prepare := range map[string]string{
			"environment": "",
			"env file":    `unset HUB_CS HUB_HOST HUB_IP HTTPS_PORT CA_FILE HUB_CLOCK_OFFSET;`,
			"refusal":     `unset HUB_CLOCK_OFFSET;`,
		} {
			t.Run(offset+" "+name, func(t *testing.T) {
				dir := t.TempDir()
				script := `sim() { TWINBAY_SIM_ARGS=$(printf '%s\n' "$@" "--env-file" "` + dir + `/hub.env") "$0"; }
					` + prepare + `
					sim device list && sim device create x && sim c2d send x hello && sim query "SELECT deviceId FROM devices"`
				if name != "refusal" { // a token is made without a question
					script += ` && token=$(sim sas-token --policy service --for 5m --connection-string) && sim twin show x --hub "$token"`
				}
				var out, diag bytes.Buffer
				code := Main(t.Context(), []string{"serve", "--dir", dir, "--mqtt-port", "0", "--https-port", "0", "--no-rig", "--clock-offset", offset,
					"--", "sh", "-c", script, self}, strings.NewReader(""), &out, &diag)
				if code != 0 || !strings.Contains(out.String(), `"deviceId": "x"`) {
					t.Errorf("exit code %d\n%s\n%s", code, &out, &diag)
				}
			})
		}
	}
}

// A script finds the hub by the env file, which is there as long as the hub serves.
func TestEnvFileIsThereWhileTheHubServes(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/hub.env"
	code := Main(t.Context(), []string{"serve", "--dir", dir, "--mqtt-port", "0", "--https-port", "0", "--no-rig",
		"--env-file", path, "--", "cp", path, dir + "/copy"}, strings.NewReader(""), io.Discard, io.Discard)
	if code != 0 {
		t.Fatalf("exit code %d", code)
	}
	env, err := os.ReadFile(dir + "/copy")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := simulator.ParseEnv(env)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"HUB_HOST", "HUB_IP", "MQTT_PORT", "HTTPS_PORT", "CA_FILE", "HUB_CS"} {
		if parsed[name] == "" {
			t.Errorf("the env file has no %s", name)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the env file outlives the hub")
	}
}

// At Ctrl-C an agent still closes its coin acceptor: the hardware is there until the command has ended.
func TestHardwareOutlivesTheCommand(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TWINBAY_SIM_WAITS", "1")
	dir, err := os.MkdirTemp("", "rig") // a unix socket's path is at most 107 bytes long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	said, out := io.Pipe()
	go func() {
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "the command is ready") {
				interrupt()
			}
		}
	}()
	var diag bytes.Buffer
	code := Main(ctx, []string{"serve", "--dir", dir, "--mqtt-port", "0", "--https-port", "0", "--", self}, strings.NewReader(""), out, &diag)
	out.Close()
	if code != 9 {
		t.Errorf("exit code %d, want 9\n%s", code, diag.String())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.sock")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestExitCodeIsTheCommands(t *testing.T) {
	code := Main(t.Context(), []string{"serve", "--dir", t.TempDir(), "--mqtt-port", "0", "--https-port", "0", "--no-rig",
		"--", "sh", "-c", "exit 7"}, strings.NewReader(""), io.Discard, io.Discard)
	if code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
}
