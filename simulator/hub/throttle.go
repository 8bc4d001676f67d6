package hub

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Operation is what a throttle counts. Source of names, rates and quotas: Microsoft Learn, "IoT Hub quotas and
// throttling".
type Operation string

// The operations with a throttle of their own.
const (
	OpRegistry      Operation = "registry"      // identities and statistics
	OpConnect       Operation = "connect"       // new device connections
	OpSend          Operation = "d2c"           // telemetry
	OpUpload        Operation = "upload"        // file upload initiations
	OpTwinRead      Operation = "twin-read"     // by device or service
	OpTwinUpdate    Operation = "twin-update"   // by device or service
	OpC2DSend       Operation = "c2d"           // by the service
	OpC2DReceive    Operation = "c2d-receive"   // over HTTPS
	OpMethod        Operation = "method"        // counted in bytes, by MethodMeter
	OpQuery         Operation = "query"         //
	OpConfiguration Operation = "configuration" //
	OpJob           Operation = "job"           // operations on scheduled jobs
	OpJobDevice     Operation = "job-device"    // what scheduled jobs do to devices
)

// MethodMeter is what the throttle of direct methods counts in: 4 KB.
const MethodMeter = 4 << 10

// rate is tokens per period and unit, and what the hub has in any case.
type rate struct {
	perUnit, least float64
	per            time.Duration
}

// tier is a row of presets.
type tier struct {
	name           string
	maxUnits       int
	column         int   // of rates
	messages       int64 // per day and unit
	meter          int64 // bytes of a message
	jobs           int   // scheduled jobs at a time
	configurations int
}

// rates is the documentation's table, with its columns.
var rates = map[Operation][columns]rate{
	OpRegistry:      {{100, 0, time.Minute}, {100, 0, time.Minute}, {5000, 0, time.Minute}},
	OpConnect:       {{12, 100, time.Second}, {120, 0, time.Second}, {6000, 0, time.Second}},
	OpSend:          {{12, 100, time.Second}, {120, 0, time.Second}, {6000, 0, time.Second}},
	OpUpload:        {{100, 0, time.Minute}, {100, 0, time.Minute}, {5000, 0, time.Minute}},
	OpTwinRead:      {{0, 100, time.Second}, {10, 100, time.Second}, {500, 0, time.Second}},
	OpTwinUpdate:    {{0, 50, time.Second}, {5, 50, time.Second}, {250, 0, time.Second}},
	OpC2DSend:       {{100, 0, time.Minute}, {100, 0, time.Minute}, {5000, 0, time.Minute}},
	OpC2DReceive:    {{1000, 0, time.Minute}, {1000, 0, time.Minute}, {50_000, 0, time.Minute}},
	OpMethod:        {{160 << 10, 0, time.Second}, {480 << 10, 0, time.Second}, {24 << 20, 0, time.Second}},
	OpQuery:         {{20, 0, time.Minute}, {20, 0, time.Minute}, {1000, 0, time.Minute}},
	OpConfiguration: {{20, 0, time.Minute}, {20, 0, time.Minute}, {20, 0, time.Minute}},
	OpJob:           {{100, 0, time.Minute}, {100, 0, time.Minute}, {5000, 0, time.Minute}},
	OpJobDevice:     {{0, 10, time.Second}, {1, 10, time.Second}, {50, 0, time.Second}},
}

const (
	column1 = iota // F1, B1 and S1
	column2        // B2 and S2
	column3        // B3 and S3
	columns
)

var tiers = []tier{
	{"F1", 1, column1, 8000, 512, 1, 10},
	{"S1", 200, column1, 400_000, 4 << 10, 1, 100},
	{"S2", 200, column2, 6_000_000, 4 << 10, 5, 100},
	{"S3", 10, column3, 300_000_000, 4 << 10, 10, 100},
}

// Limits are a tier's and its units': what the hub throttles and counts.
type Limits struct {
	Tier           string // F1, S1, S2 or S3
	Units          int
	Messages       int64 // per UTC day
	Jobs           int   // scheduled jobs at a time
	Configurations int
}

// maxHeld is how long the hub holds a request back (traffic shaping) before it refuses instead. The documentation gives
// no number; a hub's refusals say "wait 10 seconds" (mwalser/terraform-provider-iothub, CONCEPT.md, section 6).
const maxHeld = 10 * time.Second

// throttles are the state of a hub with a tier.
type throttles struct {
	tier    tier
	units   int
	buckets map[Operation]*bucket

	day   time.Time // UTC, whose messages are counted
	spent int64
}

// bucket is a token bucket whose level may fall below 0: that is the queue of those that wait.
type bucket struct {
	rate, size, level float64 // per second; tokens
	at                time.Time
}

// newThrottles answers nil for no tier.
func newThrottles(name string, units int) (*throttles, error) {
	if name == "" {
		return nil, nil
	}
	i := slices.IndexFunc(tiers, func(t tier) bool { return strings.EqualFold(t.name, name) })
	if i < 0 {
		return nil, fmt.Errorf("hub: tier %q: want F1, S1, S2 or S3", name)
	}
	units = max(units, 1)
	if units > tiers[i].maxUnits {
		return nil, fmt.Errorf("hub: %d units: tier %s has at most %d", units, tiers[i].name, tiers[i].maxUnits)
	}
	t := &throttles{tier: tiers[i], units: units, buckets: map[Operation]*bucket{}}
	for op, row := range rates {
		r := row[t.tier.column]
		n := max(r.perUnit*float64(units), r.least)
		t.buckets[op] = &bucket{rate: n / r.per.Seconds(), size: n, level: n}
	}
	return t, nil
}

// CheckTier tells whether there is such a tier with so many units; "" and 0 are no tier and one unit.
func CheckTier(name string, units int) error {
	_, err := newThrottles(name, units)
	return err
}

// Limits are those of the hub's tier; false means that this hub has none.
func (h *Hub) Limits() (Limits, bool) {
	t := h.throttles
	if t == nil {
		return Limits{}, false
	}
	return Limits{
		Tier: t.tier.name, Units: t.units, Messages: t.tier.messages * int64(t.units),
		Jobs: t.tier.jobs, Configurations: t.tier.configurations,
	}, true
}

// Throttle takes n tokens of an operation: 1, or bytes of a direct method. It answers how long the caller has to hold the
// operation back, or an error where the queue is too long. Without a tier it answers 0.
func (h *Hub) Throttle(op Operation, id ID, n int) (time.Duration, error) {
	if h.throttles == nil {
		return 0, nil
	}
	h.mu.Lock()
	defer h.unlock()
	b := h.throttles.buckets[op]
	if b == nil {
		return 0, nil
	}
	if wait, ok := b.take(time.Now(), float64(n)); ok {
		return wait, nil
	}
	err := &Error{Code: 429002, Name: "ThrottleBacklogLimitExceeded", Text: fmt.Sprintf(
		"hub %s is throttled: wait 10 seconds; operation type %s", h.host, op)}
	h.emit(Event{Kind: "throttled", DeviceID: id.Device, ModuleID: id.Module, Detail: string(op) + ": " + err.Error()})
	return 0, err
}

// take answers how long to wait for n tokens, and takes none where that is too long.
func (b *bucket) take(now time.Time, n float64) (time.Duration, bool) {
	if !b.at.IsZero() {
		b.level = min(b.size, b.level+b.rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	left := b.level - n
	if left >= 0 {
		b.level = left
		return 0, true
	}
	wait := time.Duration(math.Ceil(-left / b.rate * float64(time.Second)))
	if wait > maxHeld {
		return 0, false
	}
	b.level = left
	return wait, true
}

// spend counts a message of so many bytes against the daily quota, which begins anew at midnight UTC. Counted are telemetry,
// cloud-to-device messages, and what a device's twin operations and direct methods move, a message per meter begun.
func (h *Hub) spend(id ID, bytes int) *Error {
	t := h.throttles
	if t == nil {
		return nil
	}
	if day := time.Now().UTC().Truncate(24 * time.Hour); !day.Equal(t.day) {
		t.day, t.spent = day, 0
	}
	limit := t.tier.messages * int64(t.units)
	meters := max(1, (int64(bytes)+t.tier.meter-1)/t.tier.meter)
	if t.spent+meters > limit {
		err := &Error{Code: 403002, Name: "IotHubQuotaExceeded", Text: fmt.Sprintf(
			"hub %s has had its %d messages of this day; it takes more from midnight UTC on", h.host, limit)}
		h.emit(Event{Kind: "throttled", DeviceID: id.Device, ModuleID: id.Module, Detail: err.Error()})
		return err
	}
	t.spent += meters
	return nil
}

// spendOpen is spend for a caller that does not hold the lock.
func (h *Hub) spendOpen(id ID, bytes int) error {
	if h.throttles == nil {
		return nil
	}
	h.mu.Lock()
	defer h.unlock()
	if err := h.spend(id, bytes); err != nil {
		return err
	}
	return nil
}
