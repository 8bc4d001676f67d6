package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/agent"
	"github.com/twinbay/twinbay/agent/config"
	"github.com/twinbay/twinbay/agent/identity"
	"github.com/twinbay/twinbay/modules/modkit"
)

func (a *app) checkCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "check --config FILE",
		Short: "say what is wrong with a device file and the files it names",
		Args:  exactly(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := loadFile(c.Context(), file)
			if cfg != nil {
				err = checkAll(c.Context(), cfg, err)
			}
			if a.json {
				return errors.Join(printJSON(c.OutOrStdout(), checkResult(err)), err)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: ok, %d components\n", file, len(cfg.Modules))
			return err
		},
	}
	configFlag(c, &file)
	return c
}

// problem is one line of `check --json`.
type problem struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Key    string `json:"key,omitempty"`
	Text   string `json:"text"`
	Hint   string `json:"hint,omitempty"`
}

func checkResult(err error) any {
	problems := []problem{}
	if all, ok := errors.AsType[config.Errors](err); ok {
		for _, e := range all {
			problems = append(problems, problem(*e))
		}
	} else if err != nil {
		problems = append(problems, problem{Text: err.Error()})
	}
	return map[string]any{"ok": err == nil, "problems": problems}
}

// checkAll adds to the file's own errors what is wrong with the files that it names, and with what it asks of the
// modules.
func checkAll(ctx context.Context, cfg *config.Config, known error) error {
	all, _ := errors.AsType[config.Errors](known)
	all = append(all, checkFiles(cfg)...)
	all = append(all, agent.Check(cfg, func(m config.Module) (modkit.Description, bool) {
		if m.Path != "" || len(m.Problems) > 0 {
			return modkit.Description{}, false // another's program is not run for a check
		}
		return describe(ctx, cfg.Agent.Modules, m.Use)
	})...)
	if len(all) == 0 {
		return nil
	}
	return all.Sorted()
}

// checkFiles looks at what the device file names: it opens nothing that a running agent holds.
func checkFiles(cfg *config.Config) config.Errors {
	var all config.Errors
	fail := func(key []string, hint, format string, args ...any) {
		all = append(all, cfg.Error(key, fmt.Sprintf(format, args...), hint))
	}
	if cfg.Hub.CAFile != "" {
		if pem, err := os.ReadFile(cfg.Hub.CAFile); err != nil {
			fail([]string{"hub", "ca_file"}, "name the hub's CA, or leave the key out for Azure", "%v", err)
		} else if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			fail([]string{"hub", "ca_file"}, "it begins with -----BEGIN CERTIFICATE-----", "%s holds no certificate", cfg.Hub.CAFile)
		}
	}
	owners := map[identity.ID]string{}
	credential := func(key []string, ref string, module bool) identity.ID {
		cred, err := identity.Load(ref)
		switch {
		case err != nil:
			fail(key, "", "%v", err)
			return identity.ID{}
		case cred.Host != cfg.Hub.Host:
			fail(key, "the two have to agree", "the credential is for hub %s, hub.host is %s", cred.Host, cfg.Hub.Host)
		case module && cred.ID.Module == "":
			fail(key, "give the component a module identity of its own", "the credential of device %s, not of a module", cred.ID)
		case !module && cred.ID.Module != "":
			fail(key, "name the device's own credential", "the credential of module %s, not of the device", cred.ID)
		case owners[cred.ID] != "":
			fail(key, "give each component a module identity of its own", "%s is the identity of %s already", cred.ID, owners[cred.ID])
		}
		owners[cred.ID] = key[len(key)-2]
		return cred.ID
	}
	device := credential([]string{"device", "credential"}, cfg.Device.Credential, false)
	bundled := false
	for _, m := range cfg.Modules {
		if m.Credential == "" {
			continue // said already
		}
		key := []string{"modules", m.Name, "credential"}
		id := credential(key, m.Credential, true)
		if id.Device != "" && device.Device != "" && id.Device != device.Device {
			fail(key, "all identities of a device file belong to one device", "a module of device %s, not of %s", id.Device, device.Device)
		}
		if m.Path == "" {
			bundled = true
		} else if _, err := exec.LookPath(m.Path); err != nil {
			fail([]string{"modules", m.Name, "path"}, "name the module's program", "%v", err)
		}
	}
	if _, err := exec.LookPath(cfg.Agent.Modules); bundled && err != nil {
		fail([]string{"agent", "modules"}, "name the program twinbay-modules in agent.modules", "%v", err)
	}
	return all
}

// loadFile reads a device file and holds its modules against those that the modules program has. It answers as
// config.Load does: with both a file and an error where only single components are wrong.
func loadFile(ctx context.Context, path string) (*config.Config, error) {
	if path == "" {
		return nil, fmt.Errorf("no device file is named; add --config FILE; %w", errUsage)
	}
	cfg, err := config.Load(path, nil)
	if cfg == nil {
		return nil, err
	}
	return config.Load(path, bundledModules(ctx, cfg.Agent.Modules))
}
