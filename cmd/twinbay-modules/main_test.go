package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/twinbay/twinbay/modules/all"
)

// The test binary re-executes itself as the program.
func TestMain(m *testing.M) {
	if os.Getenv("TWINBAY_MODULES_TEST") != "" {
		main()
	}
	os.Exit(m.Run())
}

func run(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = answer(args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestCommands(t *testing.T) {
	for _, row := range []struct {
		args   string
		code   int
		stdout string // contained in it
		stderr string
	}{
		{"list", 0, "bme280 0.1.0\ncctalk 0.1.0\ndoor 0.1.0\npower 0.1.0\nvend 0.1.0\n", ""},
		{"version", 0, "twinbay-modules ", ""},
		{"sample cctalk", 0, "[modules.coins]", ""},
		{"describe door", 0, `"name": "readState"`, ""},
		{"describe nothing", 2, "", `no module "nothing"; there are bme280, cctalk, door, power, vend`},
		{"nothing", 2, "", "usage: twinbay-modules list"},
		{"", 2, "", "usage: twinbay-modules list"},
	} {
		code, stdout, stderr := run(strings.Fields(row.args)...)
		if code != row.code || !strings.Contains(stdout, row.stdout) || !strings.Contains(stderr, row.stderr) {
			t.Errorf("%q: code %d, want %d\nstdout %q\nstderr %q", row.args, code, row.code, stdout, stderr)
		}
	}
}

func TestEachModuleDescribesItselfAsJSON(t *testing.T) {
	for _, name := range all.Names() {
		code, stdout, _ := run("describe", name)
		var d described
		if err := json.Unmarshal([]byte(stdout), &d); code != 0 || err != nil || d.Name != name {
			t.Errorf("describe %s: code %d, %v, name %q", name, code, err, d.Name)
		}
		for _, m := range d.Methods {
			if m.DeadlineS <= 0 {
				t.Errorf("describe %s: method %s has no deadline", name, m.Name)
			}
		}
	}
}

// A person who starts a module by hand is told who does.
func TestAModuleStartedByHand(t *testing.T) {
	c := exec.Command(os.Args[0], "bme280")
	c.Env = append(os.Environ(), "TWINBAY_MODULES_TEST=1", "TWINBAY_MODULE=")
	out, err := c.CombinedOutput()
	if c.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), `use = "bme280"`) || !strings.Contains(string(out), "twinbay run") {
		t.Errorf("%v: %s", err, out)
	}
}

// Each component is a process of this program: what it imports is paid for by each.
func TestNothingHeavyIsInTheProgram(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	for _, heavy := range []string{
		"github.com/spf13/", "github.com/eclipse/", "github.com/pelletier/", "github.com/google/jsonschema-go/",
		"periph.io/x/host/", "google.golang.org/grpc/test/",
		"github.com/twinbay/twinbay/agent", "github.com/twinbay/twinbay/simulator", "github.com/twinbay/twinbay/hal/haltest",
		"github.com/twinbay/twinbay/modules/modtest",
	} {
		if i := slices.IndexFunc(deps, func(p string) bool { return strings.HasPrefix(p, heavy) }); i >= 0 {
			t.Errorf("the modules' program imports %s", deps[i])
		}
	}
}
