package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The kinds that every hub has.
const (
	counters = "counters" // key ""
	policies = "policies" // key ""
	devices  = "device"   // key: device id
	modules  = "module"   // key: device id, slash, module id
)

// changedIdentity notes that a device or a module, or its twin, was made, changed or removed.
func (h *Hub) changedIdentity(id ID) {
	h.touched(id)
	if id.Module == "" {
		h.changed(devices, id.Device)
	} else {
		h.changed(modules, id.String())
	}
}

func onlyKey(*Hub) []string { return []string{""} }

// savedCounters are the numbers that no identity, and no message, may get twice.
type savedCounters struct {
	ETags      uint64 `json:"etags"`
	Generation uint64 `json:"generation"`
	Sequence   uint64 `json:"sequence,omitempty"`
}

var countersKind = kind{
	name: counters,
	save: func(h *Hub, _ string) any {
		return savedCounters{ETags: h.etags, Generation: h.made, Sequence: h.sequence}
	},
	keys: onlyKey,
	load: func(h *Hub, _ string, data []byte) error {
		var s savedCounters
		if err := decodeSaved(data, &s); err != nil {
			return err
		}
		h.etags, h.made, h.sequence = s.ETags, s.Generation, s.Sequence
		return nil
	},
}

type savedPolicy struct {
	Name         string     `json:"name"`
	Permissions  Permission `json:"permissions"`
	PrimaryKey   string     `json:"primary"`
	SecondaryKey string     `json:"secondary"`
}

var policiesKind = kind{
	name: policies,
	save: func(h *Hub, _ string) any {
		all := make([]savedPolicy, len(h.policies))
		for i, p := range h.policies {
			all[i] = savedPolicy(p)
		}
		return all
	},
	keys: onlyKey,
	load: func(h *Hub, _ string, data []byte) error {
		var all []savedPolicy
		if err := decodeSaved(data, &all); err != nil {
			return err
		}
		h.policies = nil
		for _, p := range all {
			h.policies = append(h.policies, Policy(p))
		}
		return nil
	},
}

// savedIdentity is what devices and modules have in common.
type savedIdentity struct {
	Generation string    `json:"generation"`
	ETag       uint64    `json:"etag"`
	Auth       savedAuth `json:"auth"`
	ManagedBy  string    `json:"managedBy,omitempty"`
	ModelID    string    `json:"modelId,omitempty"`
	Twin       savedTwin `json:"twin"`

	Attributes json.RawMessage `json:"attributes,omitempty"`

	Configurations []savedApplied         `json:"configurations,omitempty"`
	Uploads        map[string]savedUpload `json:"uploads,omitempty"` // by correlation id

	LinkTime *time.Time `json:"linkTime,omitempty"`
	Activity *time.Time `json:"activity,omitempty"`
}

type savedAuth struct {
	Kind        string  `json:"kind"`
	Primary     string  `json:"primary,omitempty"`
	Secondary   string  `json:"secondary,omitempty"`
	Thumbprint1 *string `json:"thumbprint1,omitempty"`
	Thumbprint2 *string `json:"thumbprint2,omitempty"`
}

type savedTwin struct {
	Writes   uint64         `json:"writes"`
	Tags     map[string]any `json:"tags,omitempty"`
	Desired  savedSection   `json:"desired"`
	Reported savedSection   `json:"reported"`
}

type savedSection struct {
	Tree    map[string]any `json:"tree"`
	Meta    *savedMeta     `json:"meta"`
	Version int64          `json:"version"`
}

type savedMeta struct {
	At      time.Time             `json:"t"`
	Version int64                 `json:"v,omitempty"`
	Below   map[string]*savedMeta `json:"b,omitempty"`
}

type savedDevice struct {
	savedIdentity
	Disabled     bool       `json:"disabled,omitempty"`
	StatusReason *string    `json:"statusReason,omitempty"`
	StatusTime   *time.Time `json:"statusTime,omitempty"`
	Edge         bool       `json:"edge,omitempty"`
	Scope        string     `json:"scope,omitempty"`
	Parents      []string   `json:"parents,omitempty"`
}

var deviceKind = kind{
	name: devices,
	save: func(h *Hub, key string) any {
		d, ok := h.devices[key]
		if !ok {
			return nil
		}
		return savedDevice{
			savedIdentity: d.identity.save(),
			Disabled:      d.disabled,
			StatusReason:  d.statusReason,
			StatusTime:    savedTime(d.statusTime),
			Edge:          d.edge,
			Scope:         d.scope,
			Parents:       d.parents,
		}
	},
	keys: func(h *Hub) []string { return slices.Collect(maps.Keys(h.devices)) },
	load: func(h *Hub, key string, data []byte) error {
		var s savedDevice
		if err := decodeSaved(data, &s); err != nil {
			return err
		}
		id := ID{Device: key}
		n, err := s.savedIdentity.load(id)
		if err != nil {
			return err
		}
		h.order.add(key)
		h.devices[key] = &device{
			identity:     n,
			place:        place{s.Edge, s.Scope, s.Parents},
			disabled:     s.Disabled,
			statusReason: s.StatusReason,
			statusTime:   loadedTime(s.StatusTime),
			modules:      map[string]*identity{},
		}
		return nil
	},
}

var moduleKind = kind{
	name: modules,
	save: func(h *Hub, key string) any {
		device, module, _ := strings.Cut(key, "/")
		d, ok := h.devices[device]
		if !ok {
			return nil
		}
		m, ok := d.modules[module]
		if !ok {
			return nil
		}
		return m.save()
	},
	keys: func(h *Hub) []string {
		keys := make([]string, 0, h.modules)
		for _, d := range h.devices {
			for _, m := range d.modules {
				keys = append(keys, m.id.String())
			}
		}
		return keys
	},
	load: func(h *Hub, key string, data []byte) error {
		device, module, _ := strings.Cut(key, "/")
		id := ID{device, module}
		var s savedIdentity
		if err := decodeSaved(data, &s); err != nil {
			return err
		}
		d, ok := h.devices[device]
		if !ok || module == "" {
			return errors.New("its device is not there")
		}
		n, err := s.load(id)
		if err != nil {
			return err
		}
		d.modules[module] = &n
		h.modules++
		return nil
	},
}

func (n *identity) save() savedIdentity {
	return savedIdentity{
		Generation: n.generation,
		ETag:       n.etag,
		Auth:       savedAuth{n.auth.kind, n.auth.primary, n.auth.secondary, n.auth.thumbprint1, n.auth.thumbprint2},
		ManagedBy:  n.managedBy,
		ModelID:    n.modelID,
		Attributes: n.attributes,

		Configurations: saveApplied(n.applied),
		Uploads:        saveUploads(n.uploads),

		LinkTime: savedTime(n.linkTime),
		Activity: savedTime(n.activity),
		Twin: savedTwin{
			Writes:   n.twin.writes,
			Tags:     n.twin.tags,
			Desired:  n.twin.desired.save(),
			Reported: n.twin.reported.save(),
		},
	}
}

func (s *savedIdentity) load(id ID) (identity, error) {
	if err := checkAnyID(id); err != nil {
		return identity{}, err
	}
	if s.Generation == "" || s.Twin.Writes == 0 {
		return identity{}, errors.New("the record is not whole")
	}
	desired, err := s.Twin.Desired.load("desired")
	if err != nil {
		return identity{}, err
	}
	reported, err := s.Twin.Reported.load("reported")
	if err != nil {
		return identity{}, err
	}
	return identity{
		id:         id,
		generation: s.Generation,
		etag:       s.ETag,
		auth:       authentication{s.Auth.Kind, s.Auth.Primary, s.Auth.Secondary, s.Auth.Thumbprint1, s.Auth.Thumbprint2},
		managedBy:  s.ManagedBy,
		applied:    loadApplied(s.Configurations),
		uploads:    loadUploads(s.Uploads),
		modelID:    s.ModelID,
		attributes: s.Attributes,
		linkTime:   loadedTime(s.LinkTime),
		activity:   loadedTime(s.Activity),
		twin:       twin{writes: s.Twin.Writes, tags: s.Twin.Tags, desired: desired, reported: reported},
	}, nil
}

func (s section) save() savedSection {
	return savedSection{Tree: s.tree, Meta: s.meta.save(), Version: s.version}
}

func (s savedSection) load(where string) (section, error) {
	if s.Tree == nil || s.Meta == nil || s.Version == 0 {
		return section{}, fmt.Errorf("%s is not whole", where)
	}
	m, err := s.Meta.load()
	return section{tree: s.Tree, meta: m, version: s.Version}, err
}

func (m *meta) save() *savedMeta {
	s := &savedMeta{At: m.at.UTC(), Version: m.version}
	if m.below != nil {
		s.Below = make(map[string]*savedMeta, len(m.below))
		for k, b := range m.below {
			s.Below[k] = b.save()
		}
	}
	return s
}

func (s *savedMeta) load() (*meta, error) {
	m := &meta{at: s.At, version: s.Version}
	if s.Below != nil {
		m.below = make(map[string]*meta, len(s.Below))
	}
	for k, b := range s.Below {
		if b == nil {
			return nil, fmt.Errorf("metadata of %q is missing", k)
		}
		below, err := b.load()
		if err != nil {
			return nil, err
		}
		m.below[k] = below
	}
	return m, nil
}

type savedUpload struct {
	Blob    string    `json:"blob"`
	Expires time.Time `json:"expires"`
}

func saveUploads(all map[string]fileUpload) map[string]savedUpload {
	if len(all) == 0 {
		return nil
	}
	out := make(map[string]savedUpload, len(all))
	for id, u := range all {
		out[id] = savedUpload{u.blob, u.expires.UTC()}
	}
	return out
}

func loadUploads(all map[string]savedUpload) map[string]fileUpload {
	if len(all) == 0 {
		return nil
	}
	out := make(map[string]fileUpload, len(all))
	for id, u := range all {
		out[id] = fileUpload{u.Blob, u.Expires}
	}
	return out
}

// savedTime and loadedTime leave out the zero time.
func savedTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func loadedTime(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// decodeSaved reads a record. Numbers of twins keep their spelling.
func decodeSaved(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(v)
}
