package simulator

import (
	"errors"
	"fmt"

	"github.com/twinbay/twinbay/simulator/blobs"
	"github.com/twinbay/twinbay/simulator/hub"
	"github.com/twinbay/twinbay/simulator/journal"
)

// openHub makes the hub, of the state file if there is to be one.
func (s *Simulator) openHub() error {
	files, err := s.conf.files()
	if err != nil {
		return err
	}
	c := &s.conf
	authorities, err := readAuthorities(c.DeviceCA)
	if err != nil {
		return err
	}
	choices, err := hub.ParseChoices(c.Choices)
	if err != nil {
		return fmt.Errorf("simulator: %w; see docs/choices.md", err)
	}
	options := hub.Options{
		HostName: c.HostName, ModuleLimit: c.ModuleLimit, DeviceCAs: authorities, Storage: blobs.Storage{}, Files: files,
		Seed: c.FaultSeed, Tier: c.Tier, Units: c.Units, ClockOffset: c.ClockOffset, Choices: choices,
	}
	if s.conf.StateFile == "" {
		s.Hub = hub.New(options)
		return nil
	}
	if s.state, err = journal.Open(s.conf.StateFile, s.conf.Log); err != nil {
		return err
	}
	if s.Hub, err = hub.Open(options, s.state, s.state.Saved()); err != nil {
		err = fmt.Errorf("simulator: state file %s: %w", s.conf.StateFile, err)
		return errors.Join(err, s.state.Close())
	}
	s.state.Keep(s.Hub)
	return nil
}
