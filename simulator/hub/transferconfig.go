package hub

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

// matchMode is the only import mode of a configuration. Source: Azure/azure-iot-sdk-csharp, ConfigurationImportMode.cs.
const matchMode = "createOrUpdateIfMatchETag"

// configurationLine is a configuration in an export. Its names begin with capitals: measured (github.com/mwalser/
// terraform-provider-iothub, CONCEPT.md).
type configurationLine struct {
	ID                 string `json:"Id"`
	SchemaVersion      *string
	Labels             map[string]string
	Content            map[string]any
	TargetCondition    string
	CreatedTimeUTC     string `json:"CreatedTimeUtc"`
	LastUpdatedTimeUTC string `json:"LastUpdatedTimeUtc"`
	Priority           int64
	SystemMetrics      metricsLine
	Metrics            metricsLine
	ETag               string
	ImportMode         string
}

type metricsLine struct {
	Results map[string]int
	Queries map[string]string
}

func (h *Hub) writeConfigurations(blob io.Writer) error {
	out := bufio.NewWriter(blob)
	for _, c := range h.Configurations() {
		line := configurationLine{
			ID: c.ID, SchemaVersion: c.SchemaVersion, Labels: c.Labels, Content: map[string]any{},
			TargetCondition: c.TargetCondition, CreatedTimeUTC: c.CreatedTimeUTC, LastUpdatedTimeUTC: c.LastUpdatedTimeUTC,
			Priority: c.Priority, SystemMetrics: metricsLine(c.SystemMetrics), Metrics: metricsLine(c.Metrics),
			ETag: c.ETag, ImportMode: matchMode,
		}
		for name, content := range c.Content {
			line.Content[strings.ToUpper(name[:1])+name[1:]] = content
		}
		if _, err := out.Write(append(encode(line), '\n')); err != nil {
			return err
		}
	}
	return out.Flush()
}

// importConfigurations does what the lines of the configurations' blob ask for. There are few, so that progress is not
// told of.
func (h *Hub) importConfigurations(ctx context.Context, j *importExport, log *importLog) error {
	blob, _, err := j.input.Open(ctx, j.ConfigurationsBlobName)
	if err != nil {
		return err
	}
	lines := newLineReader(blob)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, err := lines.next()
		var why *Error
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, errLongLine):
			why = badFormat("line %d of the configurations is longer than %d bytes", lines.number, maxLine)
		case err != nil:
			return err
		case len(line) > 0:
			why = h.importConfiguration(line, lines.number)
		}
		if err := log.add("", why); err != nil {
			return err
		}
	}
}

// importConfiguration creates a configuration, or changes the one that is there if its etag is that of the line.
func (h *Hub) importConfiguration(line []byte, number int) *Error {
	var in struct {
		ConfigurationRequest
		ETag, ImportMode string
	}
	if !utf8.Valid(line) {
		return badFormat("line %d of the configurations is not UTF-8", number)
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return badFormat("line %d of the configurations is not the JSON object of one: %v", number, err)
	}
	if in.ImportMode != "" && !strings.EqualFold(in.ImportMode, matchMode) {
		return argument("configuration %s: importMode %q: want %s", in.ID, in.ImportMode, matchMode)
	}
	ifMatch := ""
	if _, err := h.Configuration(in.ID); err == nil {
		if ifMatch = `"` + unquote(in.ETag) + `"`; in.ETag == "" {
			return preconditionFailed("configuration %s is there, and the line has no ETag", in.ID)
		}
	}
	if _, err := h.PutConfiguration(in.ConfigurationRequest, ifMatch); err != nil {
		e, _ := errors.AsType[*Error](err)
		return &Error{Code: e.Code, Name: e.Name, Text: "configuration " + in.ID + ": " + e.Text}
	}
	return nil
}
