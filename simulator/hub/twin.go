package hub

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"maps"
	"time"
)

// twin is an identity's twin. Reported writes move its version, but not its etag: github.com/mwalser/
// terraform-provider-iothub, CONCEPT.md, and the samples in "Monitor module twins" of Microsoft Learn, whose version is
// always the number in the etag plus reported's $version.
type twin struct {
	writes   uint64 // of tags and desired; starts at 1; the etag
	tags     map[string]any
	desired  section
	reported section
}

// section is desired or reported.
type section struct {
	tree    map[string]any
	meta    *meta
	version int64
}

func newTwin(now time.Time) twin {
	fresh := section{tree: map[string]any{}, meta: &meta{at: now}, version: 1}
	return twin{writes: 1, desired: fresh, reported: fresh}
}

func (t *twin) version() int64 { return int64(t.writes) + t.reported.version }

func (t *twin) etag() string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, t.writes))
}

// show is the section as the service API shows it.
func (s section) show() map[string]any {
	out := make(map[string]any, len(s.tree)+2)
	maps.Copy(out, s.tree)
	out["$metadata"] = s.meta.show()
	out["$version"] = s.version
	return out
}

// withVersion is a tree as a device sees it.
func withVersion(tree map[string]any, version int64) map[string]any {
	out := make(map[string]any, len(tree)+1)
	maps.Copy(out, tree)
	out["$version"] = version
	return out
}

// Twin is a twin as the service API shows it.
type Twin struct {
	DeviceID                  string         `json:"deviceId"`
	ModuleID                  string         `json:"moduleId,omitempty"`
	ETag                      string         `json:"etag"`
	DeviceETag                string         `json:"deviceEtag"` // the identity's; a module's own
	Status                    string         `json:"status"`     // a module's is its device's
	StatusReason              *string        `json:"statusReason,omitempty"`
	StatusUpdateTime          string         `json:"statusUpdateTime"`
	ConnectionState           string         `json:"connectionState"`
	LastActivityTime          string         `json:"lastActivityTime"`
	CloudToDeviceMessageCount int            `json:"cloudToDeviceMessageCount"`
	AuthenticationType        string         `json:"authenticationType"`
	X509Thumbprint            TwinThumbprint `json:"x509Thumbprint"`
	ModelID                   string         `json:"modelId"`
	Version                   int64          `json:"version"`
	Tags                      map[string]any `json:"tags,omitempty"`
	Properties                Properties     `json:"properties"`
	Capabilities              *Capabilities  `json:"capabilities,omitempty"`

	Configurations map[string]ConfigurationState `json:"configurations,omitempty"` // that hold for it
	DeviceScope    string                        `json:"deviceScope,omitempty"`
	ParentScopes   []string                      `json:"parentScopes,omitempty"`
}

// Properties are the sections of a twin, each with its $metadata and $version.
type Properties struct {
	Desired  map[string]any `json:"desired"`
	Reported map[string]any `json:"reported"`
}

// TwinThumbprint holds an identity's thumbprints as its twin has them: named in upper case, unless there are none.
// Measured: github.com/mwalser/terraform-provider-iothub, CONCEPT.md, appendix D; without one,
// Azure/azure-iot-cli-extension, recorded twins.
type TwinThumbprint X509Thumbprint

// MarshalJSON implements json.Marshaler.
func (t TwinThumbprint) MarshalJSON() ([]byte, error) {
	if t.PrimaryThumbprint == nil && t.SecondaryThumbprint == nil {
		return json.Marshal(X509Thumbprint(t))
	}
	return json.Marshal(struct{ PrimaryThumbprint, SecondaryThumbprint *string }(t))
}

// Twin answers the twin of a device or a module.
func (h *Hub) Twin(id ID) (Twin, error) {
	h.mu.Lock()
	defer h.unlock()
	n, err := h.find(id)
	if err != nil {
		return Twin{}, err
	}
	return h.showTwin(n), nil
}

func (h *Hub) showTwin(n *identity) Twin { return showTwin(n, h.devices[n.id.Device]) }

// showTwin reads nothing but values and what does not change behind pointers, so that it can show copies without the lock.
func showTwin(n *identity, d *device) Twin {
	out := Twin{
		DeviceID:           n.id.Device,
		ModuleID:           n.id.Module,
		ETag:               n.twin.etag(),
		DeviceETag:         identityETag(n.etag),
		Status:             d.status(),
		StatusReason:       d.statusReason,
		StatusUpdateTime:   twinTime(d.statusTime),
		ConnectionState:    n.connectionState(),
		LastActivityTime:   twinTime(n.activity),
		AuthenticationType: n.auth.kind,
		X509Thumbprint:     TwinThumbprint{n.auth.thumbprint1, n.auth.thumbprint2},
		ModelID:            n.modelID,
		Version:            n.twin.version(),
		Tags:               n.twin.tags,
		Properties:         Properties{Desired: n.twin.desired.show(), Reported: n.twin.reported.show()},
	}
	out.Configurations = showApplied(n.applied)
	out.CloudToDeviceMessageCount = len(n.mail.all)
	if n.id.Module == "" {
		out.Capabilities = &Capabilities{IoTEdge: d.edge}
		out.DeviceScope, out.ParentScopes = d.scope, d.parents
	}
	return out
}

// PatchTwin merges patch, an object with tags and properties.desired, into a twin; null removes. Its other members are
// ignored, because clients send back the whole twin that they have read. ifMatch "" and "*" are unconditional.
func (h *Hub) PatchTwin(id ID, patch json.RawMessage, ifMatch string) (Twin, error) {
	w, err := parseTwinWrite(patch, true)
	if err != nil {
		return Twin{}, err
	}
	return h.writeTwin(id, ifMatch, w)
}

// ReplaceTwin puts tags and properties.desired of doc in the place of the twin's; what doc leaves out becomes empty, unless
// TwinReplace says otherwise.
func (h *Hub) ReplaceTwin(id ID, doc json.RawMessage, ifMatch string) (Twin, error) {
	w, err := parseTwinWrite(doc, false)
	if err != nil {
		return Twin{}, err
	}
	if !h.Chose(TwinReplace, "keep") {
		w.emptyRest()
	}
	return h.writeTwin(id, ifMatch, w)
}

// twinWrite is what a service wants written. A nil tree is left as it is.
type twinWrite struct {
	tags, desired map[string]any
	merge         bool
}

func parseTwinWrite(raw json.RawMessage, merge bool) (twinWrite, *Error) {
	w := twinWrite{merge: merge}
	if _, err := parseTree("the twin", raw); err != nil {
		return w, err
	}
	var doc struct {
		Tags       json.RawMessage
		Properties struct{ Desired json.RawMessage }
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return w, argument("properties is not a JSON object")
	}
	var err *Error
	if w.tags, err = w.part("tags", doc.Tags); err != nil {
		return w, err
	}
	if w.desired, err = w.part("properties.desired", doc.Properties.Desired); err != nil {
		return w, err
	}
	return w, nil
}

// part reads one section. null for a whole section of a patch leaves it as it is
// (github.com/MicrosoftDocs/azure-docs issue 32289).
func (w *twinWrite) part(where string, raw json.RawMessage) (map[string]any, *Error) {
	if len(raw) == 0 || w.merge && string(raw) == "null" {
		return nil, nil
	}
	tree, err := parseTree(where, raw)
	if err != nil {
		return nil, err
	}
	// What the hub shows of a section and nobody can write comes back from clients that send what they have read.
	delete(tree, "$metadata")
	delete(tree, "$version")
	return tree, checkTree(where, tree, w.merge)
}

// emptyRest has the write empty what it would leave as it is.
func (w *twinWrite) emptyRest() {
	for _, tree := range []*map[string]any{&w.tags, &w.desired} {
		if *tree == nil {
			*tree = map[string]any{}
		}
	}
}

func (h *Hub) writeTwin(id ID, ifMatch string, w twinWrite) (Twin, error) {
	h.mu.Lock()
	defer h.unlock()
	n, err := h.find(id)
	if err != nil {
		return Twin{}, err
	}
	if ifMatch != "" {
		if err := staleETag(ifMatch, n.twin.etag()); err != nil {
			return Twin{}, err
		}
	}
	for where, tree := range map[string]map[string]any{"tags": w.tags, "properties.desired": w.desired} {
		if err := h.checkArrays(where, tree, id.Module != ""); err != nil {
			return Twin{}, err
		}
	}
	tags, desired := w.apply(&n.twin)
	if err := checkSize("tags", tags, maxTags); err != nil {
		return Twin{}, err
	}
	if err := checkSize("properties.desired", desired, maxSection); err != nil {
		return Twin{}, err
	}
	if w.tags != nil || w.desired != nil {
		h.changedIdentity(n.id)
		n.twin.writes++
	}
	n.twin.tags = tags
	if w.tags != nil {
		h.emitTags(n, w.tags)
	}
	switch {
	case w.desired == nil:
	case w.merge:
		h.writeDesired(n, desired, w.desired, w.desired)
	default:
		h.replaceDesired(n, desired)
	}
	return h.showTwin(n), nil
}

// emitTags tells the watchers of tags as they were written; devices never see them.
func (h *Hub) emitTags(n *identity, written map[string]any) {
	h.emit(Event{Kind: "tags", DeviceID: n.id.Device, ModuleID: n.id.Module, Body: encode(written)})
}

// apply answers tags and desired as they will be.
func (w *twinWrite) apply(t *twin) (tags, desired map[string]any) {
	return w.section(t.tags, w.tags), w.section(t.desired.tree, w.desired)
}

func (w *twinWrite) section(before, written map[string]any) map[string]any {
	switch {
	case written == nil:
		return before
	case w.merge:
		return merge(before, written)
	}
	return written
}

// replaceDesired puts tree in the place of the desired properties.
func (h *Hub) replaceDesired(n *identity, tree map[string]any) {
	patch := replacing(n.twin.desired.tree, tree)
	news := patch
	if h.Chose(ReplacedDesired, "document") {
		news = tree
	}
	h.writeDesired(n, tree, patch, news)
}

// writeDesired has tree be the desired properties, which patch has changed, and tells the device news of it.
func (h *Hub) writeDesired(n *identity, tree, patch, news map[string]any) {
	s := &n.twin.desired
	s.version++
	s.meta = s.meta.stamp(patch, time.Now(), s.version)
	s.tree = tree
	told := encode(withVersion(news, s.version))
	h.emit(Event{Kind: "desired", DeviceID: n.id.Device, ModuleID: n.id.Module, Body: told})
	if l := n.link; l != nil && l.wants[Desired] {
		version := s.version
		h.tell(l, func(p Peer) { p.Desired(told, version) })
	}
}

// deviceTwin is the twin as its device gets it: no tags, no metadata.
func (t *twin) deviceTwin() json.RawMessage {
	return encode(struct {
		Desired  map[string]any `json:"desired"`
		Reported map[string]any `json:"reported"`
	}{
		withVersion(t.desired.tree, t.desired.version),
		withVersion(t.reported.tree, t.reported.version),
	})
}

// parseReported reads a patch of reported properties.
func parseReported(raw json.RawMessage) (map[string]any, *Error) {
	patch, err := parseTree("the patch of properties.reported", raw)
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"$version", "$metadata"} {
		if _, there := patch[key]; there {
			return nil, argument("properties.reported: %s is the hub's and can't be reported", key)
		}
	}
	return patch, checkTree("properties.reported", patch, true)
}

// report merges a checked patch into reported.
func (h *Hub) report(n *identity, patch map[string]any, ifVersion int64) (int64, *Error) {
	if err := h.checkArrays("properties.reported", patch, n.id.Module != ""); err != nil {
		return 0, err
	}
	s := &n.twin.reported
	if ifVersion != 0 && ifVersion != s.version {
		return 0, preconditionFailed("properties.reported is at version %d, not %d", s.version, ifVersion)
	}
	tree := merge(s.tree, patch)
	if err := checkSize("properties.reported", tree, maxSection); err != nil {
		return 0, err
	}
	now := time.Now()
	s.version++
	s.tree = tree
	s.meta = s.meta.stamp(patch, now, 0)
	n.activity = now
	h.changedIdentity(n.id)
	h.emit(Event{Kind: "reported", DeviceID: n.id.Device, ModuleID: n.id.Module, Body: encode(withVersion(patch, s.version))})
	return s.version, nil
}
