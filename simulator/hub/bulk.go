package hub

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strings"
)

// maxBulk is how many identities one bulk operation may name. Source: Microsoft Learn, "Bulk Registry - Update
// Registry".
const maxBulk = 100

// ExportImportDevice is one identity in a bulk operation, in an import and in an export: devices.txt has one a line.
// Sources: Azure/azure-iot-hub-node, src/service.json; Microsoft Learn, "Import and export IoT Hub device identities in
// bulk".
type ExportImportDevice struct {
	ID             string           `json:"id"`
	ModuleID       *string          `json:"moduleId"` // nil or "" for the device itself
	ETag           string           `json:"eTag"`
	ImportMode     string           `json:"importMode,omitempty"` // "" means createOrUpdate; upper and lower case are the same
	Status         string           `json:"status"`
	StatusReason   *string          `json:"statusReason"`
	ManagedBy      *string          `json:"managedBy,omitempty"`
	Authentication *Authentication  `json:"authentication"`
	TwinETag       string           `json:"twinETag"`
	Tags           json.RawMessage  `json:"tags,omitempty"`
	Properties     ExportProperties `json:"properties"`
	Capabilities   *Capabilities    `json:"capabilities,omitempty"`
	DeviceScope    string           `json:"deviceScope,omitempty"`
	ParentScopes   []string         `json:"parentScopes,omitempty"`
}

// ExportProperties are the twin's sections of an ExportImportDevice. They may hold $metadata and $version.
type ExportProperties struct {
	Desired  json.RawMessage `json:"desired,omitempty"`
	Reported json.RawMessage `json:"reported,omitempty"`
}

// Identity is the identity that the line is about.
func (e *ExportImportDevice) Identity() ID { return ID{e.ID, text(e.ModuleID)} }

// BulkRegistryOperationResult says what became of a bulk operation. Each identity stands for itself: those without an
// error are done.
type BulkRegistryOperationResult struct {
	IsSuccessful bool                             `json:"isSuccessful"`
	Errors       []DeviceRegistryOperationError   `json:"errors"`
	Warnings     []DeviceRegistryOperationWarning `json:"warnings"`
}

// DeviceRegistryOperationError is why one identity was left as it was. Its code is the error's name, or its number: see
// BulkErrorCode.
type DeviceRegistryOperationError struct {
	DeviceID    string  `json:"deviceId"`
	ModuleID    *string `json:"moduleId"`
	ErrorCode   any     `json:"errorCode"` // string or int
	ErrorStatus string  `json:"errorStatus"`
	Operation   string  `json:"operation"` // the import mode
}

// DeviceRegistryOperationWarning is what went wrong beside an identity that is there now.
type DeviceRegistryOperationWarning struct {
	DeviceID      string `json:"deviceId"`
	WarningCode   string `json:"warningCode"` // DeviceRegisteredWithoutTwin
	WarningStatus string `json:"warningStatus"`
}

// importMode is what a line asks for.
type importMode struct {
	name    string
	create  bool // what is not there
	update  bool // what is there
	delete  bool
	twin    bool // only the twin
	ifMatch bool
}

// importModes by their names in lower case. Source: Azure/azure-iot-sdk-csharp, ImportMode.cs.
var importModes = func() map[string]importMode {
	all := map[string]importMode{}
	for _, m := range []importMode{
		{name: "createOrUpdate", create: true, update: true},
		{name: "create", create: true},
		{name: "update", update: true},
		{name: "updateIfMatchETag", update: true, ifMatch: true},
		{name: "createOrUpdateIfMatchETag", create: true, update: true, ifMatch: true},
		{name: "delete", delete: true},
		{name: "deleteIfMatchETag", delete: true, ifMatch: true},
		{name: "updateTwin", twin: true},
		{name: "updateTwinIfMatchETag", twin: true, ifMatch: true},
	} {
		all[strings.ToLower(m.name)] = m
	}
	all[""] = all["createorupdate"]
	return all
}()

// BulkRegistry does a bulk operation on at most 100 identities, one after the other. It is an error, and nothing is done,
// if there are none, too many, or one twice.
func (h *Hub) BulkRegistry(all []ExportImportDevice) (BulkRegistryOperationResult, error) {
	switch {
	case len(all) == 0:
		return BulkRegistryOperationResult{}, argument("no identity is named")
	case len(all) > maxBulk:
		return BulkRegistryOperationResult{}, tooManyInBulk()
	}
	seen := map[ID]bool{}
	for _, in := range all {
		if id := in.Identity(); seen[id] {
			return BulkRegistryOperationResult{}, &Error{Code: 400011, Name: "DeviceDefinedMultipleTimes", Text: id.String() + " is named twice"}
		}
		seen[in.Identity()] = true
	}
	out := BulkRegistryOperationResult{Errors: []DeviceRegistryOperationError{}, Warnings: []DeviceRegistryOperationWarning{}}
	h.mu.Lock()
	defer h.unlock()
	for _, in := range all {
		withoutTwin, err := h.apply(in)
		switch {
		case err == nil:
		case withoutTwin:
			out.Warnings = append(out.Warnings, DeviceRegistryOperationWarning{in.ID, "DeviceRegisteredWithoutTwin", err.Text})
		default:
			out.Errors = append(out.Errors, DeviceRegistryOperationError{in.ID, nullable(text(in.ModuleID)), h.bulkCode(err), err.Text, in.operation()})
		}
	}
	out.IsSuccessful = len(out.Errors) == 0
	return out, nil
}

func (h *Hub) bulkCode(err *Error) any {
	if h.Chose(BulkErrorCode, "number") {
		return err.Code
	}
	return err.Name
}

// operation is the import mode in the hub's spelling.
func (e *ExportImportDevice) operation() string {
	if m, known := importModes[strings.ToLower(e.ImportMode)]; known {
		return m.name
	}
	return e.ImportMode
}

// Import does what one line of an import asks for. An import wants a status on each line, even if the line deletes
// (measured: github.com/mwalser/terraform-provider-iothub, CONCEPT.md). After an error the identity may be there
// without the twin of the line, if the twin was what was wrong.
func (h *Hub) Import(line ExportImportDevice) error {
	h.mu.Lock()
	defer h.unlock()
	if err := h.importOne(line); err != nil {
		return err
	}
	return nil
}

// importOne is Import under the lock.
func (h *Hub) importOne(line ExportImportDevice) *Error {
	if line.Status == "" {
		return argument("%s: status is missing; an import wants it on each line", line.ID)
	}
	_, err := h.apply(line)
	return err
}

// apply does one line. withoutTwin says that an identity has been created and that err is about its twin alone.
func (h *Hub) apply(in ExportImportDevice) (withoutTwin bool, err *Error) {
	mode, known := importModes[strings.ToLower(in.ImportMode)]
	if !known {
		return false, argument("importMode %q: want one of create, update, updateIfMatchETag, createOrUpdate, createOrUpdateIfMatchETag, "+
			"delete, deleteIfMatchETag, updateTwin, updateTwinIfMatchETag", in.ImportMode)
	}
	id := in.Identity()
	if err := checkAnyID(id); err != nil {
		return false, err
	}
	d, exists := h.devices[id.Device]
	if id.Module != "" {
		if !exists {
			return false, deviceNotFound(id)
		}
		_, exists = d.modules[id.Module]
	}
	ifMatch, err := in.condition(mode, exists)
	if err != nil {
		return false, err
	}
	switch {
	case mode.delete && id.Module == "":
		return false, h.deleteDevice(id.Device, ifMatch)
	case mode.delete && d.isSystems(id.Module):
		return false, systemModule(id)
	case mode.delete:
		return false, h.deleteModule(d, id, ifMatch)
	case !mode.twin:
		if err := h.applyIdentity(in, d, exists, mode, ifMatch); err != nil {
			return false, err
		}
	}
	n, err := h.find(id)
	if err != nil {
		return false, err
	}
	// The twin's etag is looked at apart from the identity's: "Import and export IoT Hub device identities in bulk".
	if mode.ifMatch && exists && in.TwinETag != "" {
		if err := staleETag(in.TwinETag, n.twin.etag()); err != nil {
			return false, err
		}
	}
	return !exists, h.applyTwin(n, in, !exists)
}

// condition is the If-Match of a line: "" to create, else an etag or *.
func (e *ExportImportDevice) condition(mode importMode, exists bool) (string, *Error) {
	etag, name := e.ETag, "eTag"
	if mode.twin {
		etag, name = e.TwinETag, "twinETag"
	}
	switch {
	case mode.create && (!exists || !mode.update):
		return "", nil
	case mode.ifMatch && etag == "":
		return "", preconditionFailed("the etag is missing: %s wants %s", mode.name, name)
	case mode.ifMatch:
		return etag, nil
	}
	return "*", nil
}

// applyIdentity does the part of a line that is not the twin's.
func (h *Hub) applyIdentity(in ExportImportDevice, d *device, exists bool, mode importMode, ifMatch string) *Error {
	id := in.Identity()
	if id.Module == "" {
		_, err := h.putDevice(Device{
			DeviceID: id.Device, Status: in.Status, StatusReason: in.StatusReason, Authentication: in.Authentication,
			Capabilities: in.Capabilities, DeviceScope: in.DeviceScope, ParentScopes: in.ParentScopes,
		}, ifMatch, true)
		return err
	}
	if d.isSystems(id.Module) && mode.create && mode.update {
		return nil // exports have lines for the system's modules; with an import, only their twins can be written
	}
	module := Module{DeviceID: id.Device, ModuleID: id.Module, ManagedBy: in.ManagedBy, Authentication: in.Authentication}
	if err := checkModule(d, module, false); err != nil {
		return err
	}
	_, err := h.putModule(d, module, ifMatch)
	return err
}

// applyTwin puts the sections that a line has in the place of the twin's. What was written before the twin was there is
// its first version.
func (h *Hub) applyTwin(n *identity, in ExportImportDevice, fresh bool) *Error {
	tags, err := importSection("tags", in.Tags, maxTags)
	if err != nil {
		return err
	}
	desired, err := importSection("properties.desired", in.Properties.Desired, maxSection)
	if err != nil {
		return err
	}
	reported, err := importSection("properties.reported", in.Properties.Reported, maxSection)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		where string
		in    imported
	}{{"tags", tags}, {"properties.desired", desired}, {"properties.reported", reported}} {
		if err := h.checkArrays(part.where, part.in.tree, n.id.Module != ""); err != nil {
			return err
		}
	}
	h.changedIdentity(n.id)
	t := &n.twin
	if (tags.tree != nil || desired.tree != nil) && !fresh {
		t.writes++
	}
	if tags.tree != nil {
		t.tags = tags.tree
		if !fresh {
			h.emitTags(n, tags.tree)
		}
	}
	if desired.tree != nil {
		h.importDesired(n, desired, fresh)
	}
	if reported.tree != nil {
		h.importReported(n, reported, fresh)
	}
	return nil
}

// Export yields a line for each identity, in the order of ids, a device before its modules; without their keys if so
// wanted. Each device is as it was at one moment between the beginning of the loop and its line.
func (h *Hub) Export(excludeKeys bool) iter.Seq[ExportImportDevice] {
	return func(yield func(ExportImportDevice) bool) {
		h.mu.Lock()
		ids := h.deviceIDs()
		h.unlock()
		for _, id := range ids {
			for _, line := range h.exportDevice(id, excludeKeys) {
				if !yield(line) {
					return
				}
			}
		}
	}
}

// exportDevice answers the lines of a device and its modules, none if it is gone.
func (h *Hub) exportDevice(id string, excludeKeys bool) []ExportImportDevice {
	h.mu.Lock()
	defer h.unlock()
	d, ok := h.devices[id]
	if !ok {
		return nil
	}
	shown := d.show()
	first := d.identity.export(d, excludeKeys)
	first.Capabilities, first.DeviceScope, first.ParentScopes = shown.Capabilities, shown.DeviceScope, shown.ParentScopes
	lines := []ExportImportDevice{first}
	for _, name := range slices.Sorted(maps.Keys(d.modules)) {
		lines = append(lines, d.modules[name].export(d, excludeKeys))
	}
	return lines
}

func (n *identity) export(d *device, excludeKeys bool) ExportImportDevice {
	auth := n.auth.show()
	if excludeKeys {
		auth.SymmetricKey = SymmetricKey{}
	}
	out := ExportImportDevice{
		ID:             n.id.Device,
		ModuleID:       nullable(n.id.Module),
		ETag:           identityETag(n.etag),
		ImportMode:     importModes[""].name,
		Status:         d.status(),
		StatusReason:   d.statusReason,
		ManagedBy:      nullable(n.managedBy),
		Authentication: auth,
		TwinETag:       n.twin.etag(),
		Properties:     ExportProperties{Desired: encode(n.twin.desired.show()), Reported: encode(n.twin.reported.show())},
	}
	if len(n.twin.tags) > 0 {
		out.Tags = encode(n.twin.tags)
	}
	return out
}
