package hub

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/twinbay/twinbay/simulator/hub/query"
)

// Configurations: automatic device, module and IoT Edge management. Sources: Microsoft Learn, "Automatic IoT device and module
// management using the Azure CLI" and "Understand IoT Edge automatic deployments for single devices or at scale";
// Azure/azure-iot-hub-node, src/service.json, Configuration; what a hub really answers:
// github.com/mwalser/terraform-provider-iothub, CONCEPT.md, appendix D.
const (
	defaultMaxConfigurations = 100
	maxCustomMetrics         = 5
)

// ConfigurationRequest is a configuration as a service sends it. What the hub makes itself is not read.
type ConfigurationRequest struct {
	ID              string            `json:"id"`
	SchemaVersion   *string           `json:"schemaVersion"`
	Labels          map[string]string `json:"labels"`
	Content         json.RawMessage   `json:"content"`         // one of deviceContent, moduleContent, modulesContent
	TargetCondition string            `json:"targetCondition"` // "" targets nothing; see query.ParseCondition
	Priority        int64             `json:"priority"`
	Metrics         struct {
		Queries map[string]string `json:"queries"`
	} `json:"metrics"`
}

// Configuration is a configuration as the service API shows it.
type Configuration struct {
	ID                 string               `json:"id"`
	SchemaVersion      *string              `json:"schemaVersion"`
	Labels             map[string]string    `json:"labels"` // null unless set
	Content            map[string]any       `json:"content"`
	TargetCondition    string               `json:"targetCondition"`
	CreatedTimeUTC     string               `json:"createdTimeUtc"`
	LastUpdatedTimeUTC string               `json:"lastUpdatedTimeUtc"`
	Priority           int64                `json:"priority"`
	SystemMetrics      ConfigurationMetrics `json:"systemMetrics"`
	Metrics            ConfigurationMetrics `json:"metrics"`
	ETag               string               `json:"etag"`
}

// ConfigurationMetrics are queries and how many rows each has; results are empty until the hub has evaluated the
// configuration.
type ConfigurationMetrics struct {
	Results map[string]int    `json:"results"`
	Queries map[string]string `json:"queries"`
}

// ConfigurationTest is what a hub says of a target condition and metric queries; "" and nothing when they are right.
type ConfigurationTest struct {
	TargetConditionError    string            `json:"targetConditionError"`
	CustomMetricQueryErrors map[string]string `json:"customMetricQueryErrors"`
}

// configuration is one as the hub has it. content never changes; whatever else changes is under the lock.
type configuration struct {
	id        string
	schema    *string
	labels    map[string]string
	content   *content
	target    string
	condition *query.Condition // nil: nothing
	priority  int64
	metrics   map[string]string
	created   time.Time
	updated   time.Time
	etag      uint64

	evaluated bool // by the hub, since it was made
	counted   map[string]int
	countedAt uint64 // revision
}

// configurationID is what a configuration may be called: measured.
var configurationID = regexp.MustCompile(`^[a-z0-9+%_*!'-]{1,128}$`)

func configurationNotFound(id string) *Error {
	return &Error{Code: 404301, Name: "ConfigurationNotFound", Text: id}
}

// PutConfiguration creates a configuration, or, with an ifMatch in quotes or *, updates one. An ifMatch without quotes counts
// for none, so that an update with one is refused as a second creation: measured. The content of an update has to be there,
// and is ignored: it can't be changed.
func (h *Hub) PutConfiguration(in ConfigurationRequest, ifMatch string) (Configuration, error) {
	if !configurationID.MatchString(in.ID) {
		return Configuration{}, argument("configuration id %q: 1 to 128 of a-z 0-9 - + %% _ * ! '", in.ID)
	}
	c, err := parseContent(in.Content)
	if err != nil {
		return Configuration{}, err
	}
	if err := h.checkArrays(c.kind, c.shown, c.kind != deviceContent); err != nil {
		return Configuration{}, invalidContent("%s", err.Text)
	}
	if err := checkMetrics(in.Metrics.Queries); err != nil {
		return Configuration{}, err
	}
	if ifMatch != "*" && !isQuoted(ifMatch) {
		ifMatch = ""
	}
	shown, err := h.putConfiguration(in, c, ifMatch)
	if err != nil {
		return Configuration{}, err
	}
	return shown, nil
}

func isQuoted(tag string) bool { return len(tag) >= 2 && tag[0] == '"' && tag[len(tag)-1] == '"' }

func (h *Hub) putConfiguration(in ConfigurationRequest, content *content, ifMatch string) (Configuration, *Error) {
	h.mu.Lock()
	defer h.unlock()
	now := time.Now()
	c, exists := h.configurations[in.ID]
	switch {
	case ifMatch == "" && exists:
		return Configuration{}, &Error{Code: 409401, Name: "ConfigurationAlreadyExists", Text: "A configuration with ID '" + in.ID + "' exists already."}
	case ifMatch == "":
		if n := len(h.configurations); n >= h.maxConfigurations {
			return Configuration{}, &Error{Code: 413101, Name: "ConfigurationCountLimitExceeded", Text: fmt.Sprintf("the hub has %d configurations and allows %d", n, h.maxConfigurations)}
		}
		c = &configuration{id: in.ID, content: content, created: now}
	case !exists:
		return Configuration{}, configurationNotFound(in.ID)
	default:
		if err := staleETag(ifMatch, identityETag(c.etag)); err != nil {
			return Configuration{}, err
		}
	}
	condition, err := parseTarget(in.TargetCondition, c.content.kind)
	if err != nil {
		return Configuration{}, err
	}
	c.schema, c.labels, c.priority, c.metrics = in.SchemaVersion, in.Labels, in.Priority, maps.Clone(in.Metrics.Queries)
	c.target, c.condition, c.updated, c.etag = in.TargetCondition, condition, now, h.nextETag()
	c.counted = nil
	h.configurations[in.ID] = c
	h.changed(configurations, c.id)
	h.reevaluate()
	return c.show(), nil
}

// parseTarget reads a target condition. A hub lets it read ids, tags and reported properties: measured.
func parseTarget(text, kind string) (*query.Condition, *Error) {
	invalid := func(format string, args ...any) *Error {
		return &Error{Code: 400401, Name: "InvalidConfigurationTargetCondition", Text: "targetCondition: " + fmt.Sprintf(format, args...)}
	}
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	c, err := query.ParseCondition(text)
	switch {
	case err != nil:
		return nil, invalid("%v", err)
	case kind == moduleContent && c.Source != query.Modules:
		return nil, invalid("the condition of moduleContent begins with FROM devices.modules WHERE")
	case kind != moduleContent && c.Source != query.Devices:
		return nil, invalid("the condition of %s is on devices", kind)
	}
	for _, p := range c.Paths() {
		known := p == "deviceId" || p == "moduleId" && c.Source == query.Modules
		for _, section := range []string{"tags", "properties.reported"} {
			known = known || p == section || strings.HasPrefix(p, section+".")
		}
		if !known {
			return nil, invalid("%s: a condition reads deviceId, tags and properties.reported only", p)
		}
	}
	return c, nil
}

func checkMetrics(queries map[string]string) *Error {
	if len(queries) > maxCustomMetrics {
		return &Error{Code: 400404, Name: "InvalidConfigurationCustomMetricsQuery", Text: fmt.Sprintf("%d metrics; %d are allowed", len(queries), maxCustomMetrics)}
	}
	for _, name := range slices.Sorted(maps.Keys(queries)) {
		if why := metricError(queries[name]); why != "" {
			return &Error{Code: 400404, Name: "InvalidConfigurationCustomMetricsQuery", Text: "metric " + name + ": " + why}
		}
	}
	return nil
}

func metricError(text string) string {
	q, err := query.Parse(text)
	switch {
	case err != nil:
		return err.Error()
	case q.Source == query.Jobs:
		return "a metric is of devices or devices.modules"
	}
	return ""
}

// TestConfiguration checks a target condition and metric queries. "*" is refused here, though a configuration may have it:
// measured.
func (h *Hub) TestConfiguration(target string, queries map[string]string) ConfigurationTest {
	t := ConfigurationTest{CustomMetricQueryErrors: map[string]string{}}
	kind := deviceContent
	if c, err := query.ParseCondition(target); err == nil && c.Source == query.Modules {
		kind = moduleContent
	}
	if _, err := parseTarget(target, kind); err != nil {
		t.TargetConditionError = err.Text
	} else if s := strings.TrimSpace(target); s == "*" || s == "" {
		t.TargetConditionError = "targetCondition: at character 1: want a condition"
	}
	for name, text := range queries {
		if why := metricError(text); why != "" {
			t.CustomMetricQueryErrors[name] = why
		}
	}
	return t
}

// Configuration answers a configuration.
func (h *Hub) Configuration(id string) (Configuration, error) {
	h.countMetrics(id)
	h.mu.Lock()
	defer h.unlock()
	c, ok := h.configurations[id]
	if !ok {
		return Configuration{}, configurationNotFound(id)
	}
	return c.show(), nil
}

// Configurations lists all configurations in the order of their ids.
func (h *Hub) Configurations() []Configuration {
	h.mu.Lock()
	ids := slices.Sorted(maps.Keys(h.configurations))
	h.unlock()
	all := make([]Configuration, 0, len(ids))
	for _, id := range ids {
		if c, err := h.Configuration(id); err == nil { // else it has gone meanwhile
			all = append(all, c)
		}
	}
	return all
}

// DeleteConfiguration removes a configuration; what it has set in twins stays: measured. ifMatch "" is unconditional.
func (h *Hub) DeleteConfiguration(id, ifMatch string) error {
	h.mu.Lock()
	defer h.unlock()
	c, ok := h.configurations[id]
	if !ok {
		return configurationNotFound(id)
	}
	if ifMatch != "" {
		if err := staleETag(ifMatch, identityETag(c.etag)); err != nil {
			return err
		}
	}
	delete(h.configurations, id)
	h.changed(configurations, id)
	h.reevaluate()
	return nil
}

func (c *configuration) show() Configuration {
	out := Configuration{
		ID: c.id, SchemaVersion: c.schema, Labels: c.labels, Content: c.content.shown, TargetCondition: c.target, Priority: c.priority,
		CreatedTimeUTC: twinTime(c.created), LastUpdatedTimeUTC: twinTime(c.updated), ETag: identityETag(c.etag),
		SystemMetrics: ConfigurationMetrics{Results: map[string]int{}, Queries: c.systemQueries()},
		Metrics:       ConfigurationMetrics{Results: map[string]int{}, Queries: map[string]string{}},
	}
	maps.Copy(out.Metrics.Queries, c.metrics)
	for name, n := range c.counted {
		if of, system := strings.CutPrefix(name, "$"); system {
			out.SystemMetrics.Results[of] = n
		} else {
			out.Metrics.Results[name[1:]] = n
		}
	}
	return out
}

// systemQueries are the hub's own metrics, whose results are the numbers of their rows.
func (c *configuration) systemQueries() map[string]string {
	applied := "configurations.[[" + c.id + "]].status = 'Applied'"
	switch {
	case c.content.kind == moduleContent:
		return map[string]string{
			"targetedCount": c.targeted("select deviceId, moduleId "),
			"appliedCount":  "select deviceId, moduleId from devices.modules where " + applied,
		}
	case c.content.kind == deviceContent:
		return map[string]string{
			"targetedCount": c.targeted("select deviceId from devices"),
			"appliedCount":  "select deviceId from devices where " + applied,
		}
	}
	agent := "select deviceId from devices.modules where moduleId = '$edgeAgent' and " + applied
	current := agent + " and properties.desired.$version = properties.reported.lastDesiredVersion and properties.reported.lastDesiredStatus.code "
	return map[string]string{
		"targetedCount":           c.targeted("select deviceId from devices"),
		"appliedCount":            agent,
		"reportedSuccessfulCount": current + "= 200",
		"reportedFailedCount":     current + "!= 200",
	}
}

// targeted is the query of what the condition chooses; "" for nothing.
func (c *configuration) targeted(begin string) string {
	target := strings.TrimSpace(c.target)
	edge := c.content.kind == modulesContent
	switch {
	case target == "":
		return ""
	case c.content.kind == moduleContent:
		return begin + target
	}
	if len(target) > 4 && strings.EqualFold(target[:4], "FROM") {
		// The condition names its collection itself: what comes behind WHERE is left.
		if i := strings.Index(strings.ToUpper(target), "WHERE"); i >= 0 {
			target = strings.TrimSpace(target[i+len("WHERE"):])
		} else {
			target = "*"
		}
	}
	switch {
	case target == "*" && edge:
		return begin + " where capabilities.iotEdge = true"
	case target == "*":
		return begin
	case edge:
		return begin + " where capabilities.iotEdge = true and (" + target + ")"
	}
	return begin + " where " + target
}

// countMetrics runs a configuration's queries, unless nothing has changed since they ran.
func (h *Hub) countMetrics(id string) {
	h.mu.Lock()
	c, ok := h.configurations[id]
	if !ok || !c.evaluated || c.counted != nil && c.countedAt == h.revision {
		h.unlock()
		return
	}
	revision, etag := h.revision, c.etag
	queries := map[string]string{}
	for name, text := range c.systemQueries() {
		queries["$"+name] = text
	}
	for name, text := range c.metrics {
		queries["."+name] = text
	}
	h.unlock()
	counted := make(map[string]int, len(queries))
	for name, text := range queries {
		counted[name] = h.countRows(text)
	}
	h.mu.Lock()
	defer h.unlock()
	if c := h.configurations[id]; c != nil && c.etag == etag {
		c.counted, c.countedAt = counted, revision
	}
}

// countRows answers how many rows a query has; none for one that makes no sense.
func (h *Hub) countRows(text string) int {
	q, err := query.Parse(text)
	if err != nil {
		return 0
	}
	n := 0
	groups := q.NewGroups()
	h.rows(q.Source == query.Modules, ID{}, func(r *row) bool {
		if q.Meets(r) {
			n++
			if q.Aggregates() {
				groups.Add(r)
			}
		}
		return q.Aggregates() || q.Top == 0 || n < q.Top
	})
	if q.Aggregates() {
		n = len(groups.Rows())
	}
	if q.Top > 0 {
		n = min(n, q.Top)
	}
	return n
}
