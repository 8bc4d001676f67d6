package twin

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Step is what has to be done about a patch of desired properties.
type Step int

const (
	Skip    Step = iota // already known: an old or repeated notification
	Fetch               // a version is missing, or the patch is unreadable: get the whole twin
	Changed             // Doc and Version are new: apply them
)

// String is for logs.
func (s Step) String() string {
	switch s {
	case Skip:
		return "skip"
	case Fetch:
		return "fetch"
	case Changed:
		return "changed"
	}
	return "unknown"
}

// Desired is the desired properties of one identity. The zero value knows nothing yet. It belongs to one goroutine.
type Desired struct {
	Version int64          // $version of Doc; 0 means that the hub was never reached
	Doc     map[string]any // without members whose names begin with $

	since map[string]int64 // per top-level member, also removed ones: the version that last named it
	anew  bool             // the identity was made again: the numbers mean nothing any more
}

// savedDesired is a Desired as it is kept: {"version", "doc", "since"}.
type savedDesired struct {
	Version int64            `json:"version"`
	Doc     json.RawMessage  `json:"doc"`
	Since   map[string]int64 `json:"since,omitempty"`
}

// MarshalJSON is for keeping it on disk.
func (d Desired) MarshalJSON() ([]byte, error) {
	doc := json.RawMessage("{}")
	if d.Doc != nil {
		var err error
		if doc, err = json.Marshal(d.Doc); err != nil {
			return nil, err
		}
	}
	return json.Marshal(savedDesired{Version: d.Version, Doc: doc, Since: d.since})
}

// UnmarshalJSON reads what MarshalJSON wrote; numbers keep their spelling.
func (d *Desired) UnmarshalJSON(raw []byte) error {
	var s savedDesired
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("twin: read desired properties: %w", err)
	}
	doc, err := parseSection(s.Doc)
	if err != nil {
		return err
	}
	if s.Version < 0 {
		return fmt.Errorf("twin: read desired properties: version %d", s.Version)
	}
	*d = Desired{Version: s.Version, Doc: Merge(nil, doc), since: s.Since}
	return nil
}

// Anew says that the identity was deleted and created again, so that version numbers have begun anew even where the next
// one is not smaller: the next Replace counts every member as new.
func (d *Desired) Anew() { d.anew = true }

// Merge takes a notification. Only the next version changes the document; an older one is skipped, a later one means
// that something was missed. As long as nothing is known (Version 0) every patch asks for a Fetch, because a patch
// alone is not a document. An unreadable patch is an error, with Fetch and everything left as it was.
func (d *Desired) Merge(version int64, patch json.RawMessage) (Step, error) {
	switch {
	case d.Version == 0:
		return Fetch, nil
	case version <= d.Version:
		return Skip, nil
	case version > d.Version+1:
		return Fetch, nil
	}
	p, err := parseSection(patch)
	if err != nil {
		return Fetch, err
	}
	d.Doc = Merge(d.Doc, p)
	d.Version = version
	for k := range p {
		d.touch(k)
	}
	return Changed, nil
}

// Replace takes the whole document, as a twin GET answers it, and says whether it differs from what was known, by
// version or content. A smaller version is accepted: the identity was deleted and created again, and its numbers
// began anew. On an error everything is left as it was.
func (d *Desired) Replace(version int64, doc json.RawMessage) (changed bool, err error) {
	next, err := parseSection(doc)
	if err != nil {
		return false, err
	}
	next = Merge(nil, next) // a stored null means absent
	diff := Diff(d.Doc, next)
	changed = d.Version != version || len(diff) > 0 || d.anew
	if version < d.Version || d.anew {
		d.anew = false
		d.since = nil // the old numbers mean nothing any more
		for k := range d.Doc {
			diff[k] = nil
		}
		for k := range next {
			diff[k] = nil
		}
	}
	d.Version, d.Doc = version, next
	for k := range diff {
		d.touch(k)
	}
	return changed, nil
}

// Since is the version that last named a top-level member, removals included; it is the version to acknowledge. It is
// 0 for a member that desired properties never named.
func (d *Desired) Since(name string) int64 { return d.since[name] }

func (d *Desired) touch(name string) {
	if d.since == nil {
		d.since = map[string]int64{}
	}
	d.since[name] = d.Version
}

// parseSection reads desired properties and leaves out the hub's own members ($version, $metadata).
func parseSection(raw json.RawMessage) (map[string]any, error) {
	doc, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	for k := range doc {
		if strings.HasPrefix(k, "$") {
			delete(doc, k)
		}
	}
	return doc, nil
}
