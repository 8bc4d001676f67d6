// Package simulator puts a local IoT Hub together: the hub's truth (simulator/hub), its doors (mqttd, restd) behind one
// TLS certificate, and fake hardware (rig). `twinbay-sim serve` is this package with flags.
package simulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinbay/twinbay/simulator/blobs"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/journal"
	"github.com/twinbay/twinbay/simulator/mqttd"
	"github.com/twinbay/twinbay/simulator/restd"
	"github.com/twinbay/twinbay/simulator/rig"
	"github.com/twinbay/twinbay/simulator/websocketd"
)

// Config is what `twinbay-sim serve` can be told. Dir is required; the rest has defaults.
type Config struct {
	Dir         string // the certificate authority, and the rig's sockets
	Listen      string // IP address; "" means 127.0.0.1
	HostName    string // the hub's name in connection strings and tokens; "" means localhost
	MQTTPort    int    // 0 picks a free one
	HTTPSPort   int    // 0 picks a free one
	SeedFile    string // identities to start with
	KeysDir     string // where each seeded identity's credential is written; "" writes none
	EnvFile     string // written once the hub serves; "" writes none
	NoRig       bool   // no fake hardware
	Still       bool   // fake hardware in which nothing happens by itself
	RigSeed     uint64 // makes the rig's world repeatable; 0 means 1
	ModuleLimit int    // module identities per device; 0 means 20
	Storage     string // connection string of the account that devices upload files to; "" means that they can't
	Container   string // of it
	DeviceCA    string // PEM file of the authorities that devices' certificates may be of; "" means none

	StateFile   string        // keeps what the hub knows from run to run; "" keeps it in memory alone
	FaultSeed   uint64        // makes faults with a probability repeatable; 0 means 1
	Tier        string        // F1, S1, S2 or S3; "" means neither throttles nor quota
	Units       int           // of the tier; 0 means 1
	ClockOffset time.Duration // how far ahead of the true time the hub believes to be when it checks tokens
	Choices     []string      // what to do where the sources about IoT Hub differ, like "twin-arrays=refuse"; see hub.Choices

	Log *slog.Logger
}

// Simulator is a running hub. Make it with Start.
type Simulator struct {
	Hub  *hub.Hub
	Env  Env      // where it is
	Seed []hub.ID // the seeded identities, devices before their modules

	conf  Config
	state *journal.Journal // nil without a state file
	mqtt  net.Listener
	https net.Listener
	rig   *rig.Rig
}

// Start makes everything that can fail: certificate, seed, sockets, files. Connections that come from then on are served
// by Run.
func Start(ctx context.Context, c Config) (*Simulator, error) {
	c.defaults()
	if err := hub.CheckTier(c.Tier, c.Units); err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("simulator: folder: %w", err)
	}
	s := &Simulator{conf: c}
	if err := s.openHub(); err != nil {
		return nil, err
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// files is where devices upload files to; nil means nowhere.
func (c *Config) files() (hub.Files, error) {
	if c.Storage == "" && c.Container == "" {
		return nil, nil
	}
	files, err := blobs.OpenFiles(c.Storage, c.Container)
	if err != nil {
		return nil, fmt.Errorf("simulator: storage for file uploads: %w; give --storage CONNECTION_STRING and --storage-container NAME", err)
	}
	return files, nil
}

func (c *Config) defaults() {
	if c.Listen == "" {
		c.Listen = "127.0.0.1"
	}
	if c.HostName == "" {
		c.HostName = "localhost"
	}
	if c.RigSeed == 0 {
		c.RigSeed = 1
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func (s *Simulator) open(ctx context.Context) error {
	ca, err := openAuthority(s.conf.Dir)
	if err != nil {
		return err
	}
	certificate, err := ca.server([]string{s.conf.HostName, "localhost", "127.0.0.1", "::1", s.conf.Listen})
	if err != nil {
		return err
	}
	if err := s.plant(); err != nil {
		return err
	}
	// TLS 1.2 stays: the official Python SDK speaks nothing newer.
	// A client certificate is asked for and judged by the door, as an identity's credential.
	conf := &tls.Config{GetCertificate: certificate, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	if s.mqtt, err = s.listen(ctx, "MQTT", s.conf.MQTTPort, "--mqtt-port", conf); err != nil {
		return err
	}
	if s.https, err = s.listen(ctx, "HTTPS", s.conf.HTTPSPort, "--https-port", conf); err != nil {
		return err
	}
	if !s.conf.NoRig {
		s.rig, err = rig.Start(ctx, rig.Config{Dir: s.conf.Dir, Seed: s.conf.RigSeed, World: !s.conf.Still, Log: s.conf.Log})
		if err != nil {
			return err
		}
	}
	return s.describe(ca)
}

func (s *Simulator) listen(ctx context.Context, door string, port int, flag string, conf *tls.Config) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(s.conf.Listen, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("simulator: open the %s door: %w; choose another port with %s (0 picks a free one)", door, err, flag)
	}
	return tls.NewListener(l, conf), nil
}

// plant creates the seed's identities and writes their credentials.
func (s *Simulator) plant() error {
	if s.conf.SeedFile == "" {
		return nil
	}
	text, err := os.ReadFile(s.conf.SeedFile)
	if err != nil {
		return fmt.Errorf("simulator: seed: %w", err)
	}
	seed, err := parseSeed(s.conf.SeedFile, text)
	if err != nil {
		return err
	}
	s.Seed = seed.ids()
	if err := seed.create(s.Hub); err != nil {
		return err
	}
	if s.conf.KeysDir == "" {
		return nil
	}
	return writeCredentials(s.conf.KeysDir, s.Seed, s.Hub.ConnectionString)
}

// describe fills Env and writes the env file, which appears only when all else is there.
func (s *Simulator) describe(ca *authority) error {
	caPath, err := filepath.Abs(ca.file)
	if err != nil {
		return err
	}
	s.Env = Env{
		"HUB_HOST":   s.conf.HostName,
		"HUB_IP":     s.conf.Listen,
		"MQTT_PORT":  strconv.Itoa(s.mqtt.Addr().(*net.TCPAddr).Port),
		"HTTPS_PORT": strconv.Itoa(s.https.Addr().(*net.TCPAddr).Port),
		"CA_FILE":    caPath,
		"HUB_CS":     s.Hub.OwnerConnectionString(),
	}
	for name, text := range s.Hub.PolicyConnectionStrings() {
		s.Env[PolicyVariable(name)] = text
	}
	if s.conf.ClockOffset != 0 {
		s.Env[clockOffset] = s.conf.ClockOffset.String()
	}
	if s.rig != nil {
		if s.Env["RIG_DIR"], err = filepath.Abs(s.conf.Dir); err != nil {
			return err
		}
	}
	if s.conf.EnvFile == "" {
		return nil
	}
	// The listeners take connections already, which Run will serve.
	if err := writeFile(s.conf.EnvFile, 0o600, s.Env.Format()); err != nil {
		return fmt.Errorf("simulator: env file: %w", err)
	}
	return nil
}

// Run serves until ctx ends; then it closes every connection and removes what it made for this run.
//
// When the state file can't be written any more it ends, with an error, so that nothing is acknowledged that is not kept.
func (s *Simulator) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rest, sockets := restd.New(s.Hub, s.conf.Log), websocketd.New()
	overSockets := sockets.Listen("mqtt")
	web := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if websocketd.Wanted(r) {
				sockets.ServeHTTP(w, r)
				return
			}
			rest.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    96 << 10,                                                 // the properties of a cloud-to-device message have 64 KiB at most
		ErrorLog:          slog.NewLogLogger(s.conf.Log.Handler(), slog.LevelDebug), // strangers' handshakes
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	https := restd.KeepSpelling(web, s.https)
	g, ctx := errgroup.WithContext(ctx)
	mqtt := mqttd.New(s.Hub, s.conf.Log)
	g.Go(func() error { return mqtt.Serve(ctx, s.mqtt) })
	g.Go(func() error { return mqtt.Serve(ctx, overSockets) })
	g.Go(func() error {
		if err := web.Serve(https); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("simulator: HTTPS door: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return web.Close()
	})
	if s.state != nil {
		g.Go(func() error {
			select {
			case <-s.state.Failed(): // close tells why
				cancel()
				err := web.Close() // before those go on who wait to be answered
				s.state.Release()
				return err
			case <-ctx.Done():
				return nil
			}
		})
	}
	return g.Wait()
}

func (s *Simulator) close() error {
	s.Hub.Close()
	if s.Env != nil && s.conf.EnvFile != "" {
		os.Remove(s.conf.EnvFile)
	}
	for _, l := range []net.Listener{s.mqtt, s.https} {
		if l != nil {
			l.Close()
		}
	}
	if s.rig != nil {
		s.rig.Close()
	}
	if s.state != nil {
		return s.state.Close()
	}
	return nil
}
