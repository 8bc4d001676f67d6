package hub

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"
)

// configurations is the kind of configurations; its key is a configuration's id.
const configurations = "configuration"

type savedConfiguration struct {
	Schema   *string           `json:"schema,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Content  json.RawMessage   `json:"content"`
	Target   string            `json:"target,omitempty"`
	Priority int64             `json:"priority,omitempty"`
	Metrics  map[string]string `json:"metrics,omitempty"`
	Created  time.Time         `json:"created"`
	Updated  time.Time         `json:"updated"`
	ETag     uint64            `json:"etag"`
}

func configurationKind() kind {
	return kind{
		name: configurations,
		save: func(h *Hub, key string) any {
			c, ok := h.configurations[key]
			if !ok {
				return nil
			}
			return savedConfiguration{
				Schema: c.schema, Labels: c.labels, Content: encode(c.content.shown), Target: c.target, Priority: c.priority,
				Metrics: c.metrics, Created: c.created.UTC(), Updated: c.updated.UTC(), ETag: c.etag,
			}
		},
		keys: func(h *Hub) []string { return slices.Collect(maps.Keys(h.configurations)) },
		load: func(h *Hub, key string, data []byte) error {
			var s savedConfiguration
			if err := decodeSaved(data, &s); err != nil {
				return err
			}
			c := &configuration{
				id: key, schema: s.Schema, labels: s.Labels, target: s.Target, priority: s.Priority, metrics: s.Metrics,
				created: s.Created, updated: s.Updated, etag: s.ETag,
			}
			if !configurationID.MatchString(key) {
				return errors.New("its id is none of a configuration")
			}
			var err *Error
			if c.content, err = parseContent(s.Content); err != nil {
				return err
			}
			if c.condition, err = parseTarget(s.Target, c.content.kind); err != nil {
				return err
			}
			if err := checkMetrics(s.Metrics); err != nil {
				return err
			}
			h.configurations[key] = c
			h.reevaluate()
			return nil
		},
	}
}

// savedApplied is a configuration that holds for an identity.
type savedApplied struct {
	ID    string `json:"id"`
	ETag  uint64 `json:"etag"`
	State string `json:"state"`
}

func saveApplied(all []applied) []savedApplied {
	var out []savedApplied
	for _, a := range all {
		out = append(out, savedApplied{a.id, a.etag, a.state})
	}
	return out
}

func loadApplied(all []savedApplied) []applied {
	var out []applied
	for _, a := range all {
		out = append(out, applied{a.ID, a.ETag, a.State})
	}
	return out
}
