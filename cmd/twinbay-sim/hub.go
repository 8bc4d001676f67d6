package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbay/twinbay/simulator"
	"github.com/twinbay/twinbay/simulator/admin"
)

// hubFlags say which hub a command speaks to.
type hubFlags struct {
	connection, envFile, address, ca string
	json                             bool
}

func (f *hubFlags) register(c *cobra.Command) {
	p := c.PersistentFlags()
	p.StringVar(&f.connection, "hub", "", "the hub's connection string (default: $HUB_CS, or the env file's)")
	p.StringVar(&f.envFile, "env-file", filepath.Join(".run", "hub.env"), "what a running simulator wrote")
	p.StringVar(&f.address, "address", "", "ip:port to dial instead of the connection string's host")
	p.StringVar(&f.ca, "ca-file", "", "PEM of the CA to trust instead of the system's (default with an env file: its CA)")
	p.BoolVar(&f.json, "json", false, "JSON")
}

// client finds the hub: by --hub, by the environment that a script sourced, or by the env file.
func (f *hubFlags) client() (*admin.Client, error) {
	conf := admin.Config{ConnectionString: f.connection, Address: f.address}
	ca := f.ca
	env, err := f.env()
	if conf.ConnectionString == "" {
		if err != nil {
			return nil, err
		}
		conf.ConnectionString = env["HUB_CS"]
	}
	// A connection string for the simulator that runs here need not say where that is. A cloud's hub has another name.
	if host, _ := admin.Parts(conf.ConnectionString); err == nil && (f.connection == "" || host == env["HUB_HOST"]) {
		if conf.Address == "" && env["HTTPS_PORT"] != "" {
			conf.Address = env["HUB_IP"] + ":" + env["HTTPS_PORT"]
		}
		if ca == "" {
			ca = env["CA_FILE"]
		}
		if conf.ClockOffset, err = env.ClockOffset(); err != nil {
			return nil, err
		}
	}
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		conf.CA = text
	}
	return admin.New(conf)
}

func (f *hubFlags) env() (simulator.Env, error) {
	if os.Getenv("HUB_CS") != "" {
		env := simulator.Env{}
		for _, pair := range os.Environ() {
			name, value, _ := strings.Cut(pair, "=")
			env[name] = value
		}
		return env, nil
	}
	return readEnv(f.envFile)
}

func readEnv(path string) (simulator.Env, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no hub: %s is not there; start one with `make run` or `twinbay-sim serve --env-file FILE`, or give --hub CONNECTION_STRING", path)
	}
	if err != nil {
		return nil, fmt.Errorf("env file: %w", err)
	}
	return simulator.ParseEnv(text)
}

func addHubCommands(root *cobra.Command) {
	f := &hubFlags{}
	device := &cobra.Command{Use: "device", Short: "device identities of a hub"}
	module := &cobra.Command{Use: "module", Short: "module identities of a device"}
	twin := &cobra.Command{Use: "twin", Short: "device and module twins"}
	device.AddCommand(registryCommands(f, "DEVICE")...)
	device.AddCommand(listDevices(f))
	module.AddCommand(registryCommands(f, "DEVICE/MODULE")...)
	module.AddCommand(listModules(f))
	twin.AddCommand(twinShow(f), twinSet(f))
	for _, c := range []*cobra.Command{
		device, module, twin, methodCommand(f), queryCommand(f), jobCommand(f), configurationCommand(f), c2dCommand(f), eventsCommand(f),
		tokenCommand(f), exportCommand(f), importCommand(f), hubFaultCommand(f),
	} {
		f.register(c)
		root.AddCommand(c)
	}
}

// on is a command about one identity.
func on(f *hubFlags, use, short string, more int, do func(context.Context, *cobra.Command, *admin.Client, admin.ID, []string) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  exactly(1, 1+more),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := admin.ParseID(args[0])
			if err != nil {
				return fmt.Errorf("%w; %w", err, errUsage)
			}
			client, err := f.client()
			if err != nil {
				return err
			}
			return do(c.Context(), c, client, id, args[1:])
		},
	}
}

// kind refuses a device where a module is asked for, and the other way round.
func kind(who string, id admin.ID) error {
	if (who == "DEVICE") != (id.Module == "") {
		return fmt.Errorf("%q: want %s; %w", id, who, errUsage)
	}
	return nil
}

func registryCommands(f *hubFlags, who string) []*cobra.Command {
	var disabled, enabled bool
	var made creation
	var etag, reason, managedBy string
	create := on(f, "create "+who, "make an identity; the hub makes its keys, unless it proves itself by a certificate", 0,
		func(ctx context.Context, c *cobra.Command, h *admin.Client, id admin.ID, _ []string) error {
			if err := kind(who, id); err != nil {
				return err
			}
			body, err := made.body()
			if err != nil {
				return err
			}
			answer, err := h.Create(ctx, id, body)
			return show(c, answer, err)
		})
	update := on(f, "update "+who, "change an identity; its keys stay", 0,
		func(ctx context.Context, c *cobra.Command, h *admin.Client, id admin.ID, _ []string) error {
			if err := kind(who, id); err != nil {
				return err
			}
			body := map[string]any{}
			set := func(flag, key string, value any) {
				if c.Flags().Changed(flag) {
					body[key] = value
				}
			}
			set("disable", "status", "disabled")
			set("enable", "status", "enabled")
			set("reason", "statusReason", reason)
			set("managed-by", "managedBy", managedBy)
			if len(body) == 0 {
				return fmt.Errorf("nothing to change; %w", errUsage)
			}
			answer, err := update(ctx, h, id, body, etag)
			return show(c, answer, err)
		})
	create.Flags().StringSliceVar(&made.thumbprints, "thumbprint", nil, "SHA-1 or SHA-256 thumbprint of the certificate that it shows; up to two")
	create.Flags().BoolVar(&made.authority, "x509-ca", false, "it shows a certificate of an authority that the hub knows, with its id as common name")
	if who == "DEVICE" {
		create.Flags().BoolVar(&made.edge, "edge", false, "it is an IoT Edge device")
		update.Flags().BoolVar(&disabled, "disable", false, "refuse the device and its modules from now on")
		update.Flags().BoolVar(&enabled, "enable", false, "let it connect again")
		update.Flags().StringVar(&reason, "reason", "", "status reason, at most 128 characters")
	} else {
		update.Flags().StringVar(&managedBy, "managed-by", "", "who manages the module")
	}
	update.Flags().StringVar(&etag, "etag", "", "only if this is still the identity's etag")
	get := on(f, "show "+who, "an identity with its keys and connection string", 0,
		func(ctx context.Context, c *cobra.Command, h *admin.Client, id admin.ID, _ []string) error {
			if err := kind(who, id); err != nil {
				return err
			}
			answer, err := h.Show(ctx, id)
			return show(c, answer, err)
		})
	credential := on(f, "connection-string "+who, "what the device file's credential = \"file:…\" holds", 0,
		func(ctx context.Context, c *cobra.Command, h *admin.Client, id admin.ID, _ []string) error {
			if err := kind(who, id); err != nil {
				return err
			}
			text, err := h.ConnectionString(ctx, id)
			if err == nil {
				fmt.Fprintln(c.OutOrStdout(), text)
			}
			return err
		})
	remove := on(f, "delete "+who, "remove an identity for good", 0,
		func(ctx context.Context, c *cobra.Command, h *admin.Client, id admin.ID, _ []string) error {
			if err := kind(who, id); err != nil {
				return err
			}
			return h.Delete(ctx, id)
		})
	return []*cobra.Command{create, update, get, credential, remove}
}

// update changes members of an identity and keeps the others: a PUT that left out the keys would mint new ones.
func update(ctx context.Context, h *admin.Client, id admin.ID, change map[string]any, etag string) (json.RawMessage, error) {
	old, err := h.Show(ctx, id)
	if err != nil {
		return nil, err
	}
	var body map[string]any
	if err := json.Unmarshal(old, &body); err != nil {
		return nil, fmt.Errorf("read identity %s: %w", id, err)
	}
	for k, v := range change {
		body[k] = v
	}
	if etag == "" {
		etag, _ = body["etag"].(string) // nobody else's change in between is lost
	}
	return h.Update(ctx, id, body, etag)
}

func twinShow(f *hubFlags) *cobra.Command {
	return on(f, "show DEVICE[/MODULE]", "a twin", 0,
		func(ctx context.Context, c *cobra.Command, h *admin.Client, id admin.ID, _ []string) error {
			answer, err := h.Twin(ctx, id)
			return show(c, answer, err)
		})
}

func twinSet(f *hubFlags) *cobra.Command {
	var tags bool
	c := on(f, "set DEVICE[/MODULE] JSON", "merge JSON into the desired properties (--tags: into the tags); null removes", 1,
		func(ctx context.Context, c *cobra.Command, h *admin.Client, id admin.ID, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("usage: %s; %w", c.UseLine(), errUsage)
			}
			var doc map[string]any
			if err := json.Unmarshal([]byte(args[0]), &doc); err != nil {
				return fmt.Errorf("%s is no JSON object: %w; %w", args[0], err, errUsage)
			}
			patch := map[string]any{"properties": map[string]any{"desired": doc}}
			if tags {
				patch = map[string]any{"tags": doc}
			}
			answer, err := h.PatchTwin(ctx, id, patch)
			return show(c, answer, err)
		})
	c.Flags().BoolVar(&tags, "tags", false, "merge into the tags")
	return c
}

func methodCommand(f *hubFlags) *cobra.Command {
	timeout := 30 * time.Second
	c := on(f, "method DEVICE[/MODULE] NAME [JSON]", "call a direct method", 2,
		func(ctx context.Context, c *cobra.Command, h *admin.Client, id admin.ID, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("usage: %s; %w", c.UseLine(), errUsage)
			}
			var payload json.RawMessage
			if len(args) == 2 {
				payload = json.RawMessage(args[1])
				if !json.Valid(payload) {
					return fmt.Errorf("%s is no JSON; %w", args[1], errUsage)
				}
			}
			r, err := h.Invoke(ctx, id, args[0], payload, timeout)
			if err != nil {
				return err
			}
			answer, err := json.Marshal(r)
			if err := show(c, answer, err); err != nil {
				return err
			}
			if r.Status/100 != 2 {
				return fmt.Errorf("%s answers %s with status %d", id, args[0], r.Status)
			}
			return nil
		})
	c.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait for the device, 5s to 5m")
	return c
}
