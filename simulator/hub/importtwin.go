package hub

import (
	"encoding/json"
	"time"
)

// imported is a twin's section as a line of an import has it. A nil tree is none.
type imported struct {
	tree map[string]any
	meta any // $metadata as it came
}

// importSection reads a section. What the hub shows in it, $metadata and $version, may be there: exports have it.
func importSection(where string, raw json.RawMessage, limit int) (imported, *Error) {
	if len(raw) == 0 || string(raw) == "null" {
		return imported{}, nil
	}
	tree, err := parseTree(where, raw)
	if err != nil {
		return imported{}, err
	}
	meta := tree["$metadata"]
	delete(tree, "$metadata")
	delete(tree, "$version")
	if err := checkTree(where, tree, false); err != nil {
		return imported{}, err
	}
	return imported{tree, meta}, checkSize(where, tree, limit)
}

// importDesired puts desired properties in the place of the twin's, and tells the device unless the twin is fresh.
func (h *Hub) importDesired(n *identity, in imported, fresh bool) {
	s := &n.twin.desired
	switch {
	case fresh && len(in.tree) == 0: // $metadata of a section that was never written names no version
		*s = in.section(s.version, 0)
		return
	case fresh:
		*s = in.section(s.version, s.version)
		return
	}
	h.replaceDesired(n, in.tree)
	s.meta = importMeta(in.tree, in.meta, s.meta)
}

// importReported puts reported properties in the place of the twin's. Only an import does that for a device.
func (h *Hub) importReported(n *identity, in imported, fresh bool) {
	s := &n.twin.reported
	if fresh {
		*s = in.section(s.version, 0)
		return
	}
	patch := replacing(s.tree, in.tree)
	*s = in.section(s.version+1, 0)
	h.emit(Event{Kind: "reported", DeviceID: n.id.Device, ModuleID: n.id.Module, Body: encode(withVersion(patch, s.version))})
}

// section is the section as it is from now on; written says which version $metadata names, 0 none.
func (in imported) section(version, written int64) section {
	var fresh *meta
	return section{
		tree:    in.tree,
		meta:    importMeta(in.tree, in.meta, fresh.stamp(in.tree, time.Now(), written)),
		version: version,
	}
}

// importMeta takes over what an import says of when its properties were written, key by key; what it leaves out, or
// says in no way the hub knows, stays as stamped. Source: Microsoft Learn, "Import and export IoT Hub device identities
// in bulk": metadata that is given overwrites, else the times alone are set.
func importMeta(tree map[string]any, given any, stamped *meta) *meta {
	o, isObject := given.(map[string]any)
	if !isObject || stamped == nil {
		return stamped
	}
	out := &meta{at: stamped.at, version: stamped.version, below: map[string]*meta{}}
	if at, ok := parseHubTime(o["$lastUpdated"]); ok {
		out.at = at
	}
	if v, isNumber := o["$lastUpdatedVersion"].(json.Number); isNumber && stamped.version > 0 {
		if n, err := v.Int64(); err == nil && n > 0 {
			out.version = n
		}
	}
	for k, v := range tree {
		below, _ := v.(map[string]any)
		out.below[k] = importMeta(below, o[k], stamped.below[k])
	}
	return out
}

// parseHubTime reads a time as twins have it, with or without a Z.
func parseHubTime(v any) (time.Time, bool) {
	s, _ := v.(string)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}
