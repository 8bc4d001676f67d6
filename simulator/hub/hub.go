package hub

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	defaultHostName    = "twinbay-hub.local" // dotted: the C# SDK takes the hub's name up to the first dot
	defaultModuleLimit = 20                  // Microsoft Learn, "Understand and use module twins", until 2020; 50 since
	maxIdentities      = 1_000_000           // devices and modules: Microsoft Learn, "IoT Hub quotas and throttling"
)

// Options says what hub to make. The zero value is a hub that works.
type Options struct {
	HostName    string   // name in connection strings and tokens; "" means twinbay-hub.local
	ModuleLimit int      // module identities per device; 0 means 20
	Policies    []Policy // shared access policies; nil means the five that every hub starts with, with fresh keys

	// DeviceCAs are the authorities whose certificates devices and modules may show that prove themselves by one
	// (authentication type certificateAuthority). An authority may be one in the middle of a chain.
	DeviceCAs *x509.CertPool

	TimeToLive    time.Duration // of cloud-to-device messages that don't say, 1 min to 2 days; 0 means 1 h
	MaxDeliveries int           // how often a cloud-to-device message may be abandoned, 1 to 100; 0 means 10
	Files         Files         // for uploads by devices; nil means that there is none
	Storage       Storage       // for import and export; nil means that there is none

	Seed        uint64        // makes faults with a probability repeatable; 0 means 1
	Tier        string        // F1, S1, S2 or S3: its throttles and its quota hold; "" means no limits. See CheckTier
	Units       int           // of the tier; 0 means 1
	ClockOffset time.Duration // how far ahead of the true time the hub believes to be when it checks tokens

	MaxJobs           int // scheduled jobs that run or wait for their time; 0 means the tier's limit, any number without one
	MaxConfigurations int // 0 means the tier's limit, 100 without one

	// Choices are what to do where the sources about IoT Hub differ, by the names that func Choices lists; what is not
	// here is done as most of them have it. See CheckChoices.
	Choices map[string]string
}

// Hub is one IoT hub. Make it with New; its methods may be called from any goroutine, and every error is an *Error.
type Hub struct {
	host        string
	moduleLimit int
	policies    []Policy
	deviceCAs   *x509.CertPool
	ttl         time.Duration
	deliveries  int
	storage     Storage
	files       Files
	throttles   *throttles // nil: no tier
	offset      time.Duration
	dice        *rand.Rand // for faults
	maxJobs     int

	maxConfigurations int
	choices           map[string]string
	since             time.Time // it was made or opened

	ctx    context.Context // of what the hub does by itself: see Close
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu       sync.Mutex
	later    []func() // what to do after unlocking
	devices  map[string]*device
	order    idOrder // of their ids
	modules  int     // in all devices
	etags    uint64  // last identity etag given
	made     uint64  // last generation id given
	rids     uint64  // last method request id given
	sequence uint64  // last sequence number given to a message
	faults   []*faultRule
	faultIDs uint64         // last number given to a fault rule
	attempts map[string]int // at what this hub does not have
	watchers map[*watcher]struct{}
	watched  atomic.Int32 // len(watchers), to be read without the lock
	feedback feedback
	uploaded notices // files

	importExports importExports
	jobs          map[string]*job // scheduled

	configurations map[string]*configuration
	revision       uint64          // of all that a query can see
	stale          map[ID]struct{} // who has changed since the configurations were looked at
	staleAll       bool            // the configurations themselves have
	reconciler     *time.Timer     // nil: nobody has
	configuring    bool            // by the section that holds the lock

	journal Journal      // nil: nothing outlives the process
	dirty   []changedKey // by the section that holds the lock
}

// New returns an empty hub.
func New(o Options) *Hub {
	if o.HostName == "" {
		o.HostName = defaultHostName
	}
	if o.ModuleLimit == 0 {
		o.ModuleLimit = defaultModuleLimit
	}
	if o.TimeToLive == 0 {
		o.TimeToLive = defaultTTL
	}
	if o.MaxDeliveries == 0 {
		o.MaxDeliveries = defaultDeliveries
	}
	if o.Policies == nil {
		o.Policies = defaultPolicies()
	}
	limits, err := newThrottles(o.Tier, o.Units)
	if err != nil {
		panic(err) // a program's mistake: CheckTier tells about a person's
	}
	if err := CheckChoices(o.Choices); err != nil {
		panic("hub: " + err.Error()) // likewise
	}
	if limits != nil {
		o.MaxJobs = cmp.Or(o.MaxJobs, limits.tier.jobs)
		o.MaxConfigurations = cmp.Or(o.MaxConfigurations, limits.tier.configurations)
	}
	if o.MaxConfigurations == 0 {
		o.MaxConfigurations = defaultMaxConfigurations
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Hub{
		ctx:         ctx,
		cancel:      cancel,
		host:        o.HostName,
		throttles:   limits,
		offset:      o.ClockOffset,
		dice:        rand.New(rand.NewPCG(cmp.Or(o.Seed, 1), 0)),
		moduleLimit: o.ModuleLimit,
		policies:    slices.Clone(o.Policies),
		deviceCAs:   o.DeviceCAs,
		ttl:         min(max(o.TimeToLive, minTTL), maxTTL),
		deliveries:  min(max(o.MaxDeliveries, 1), 100),
		storage:     o.Storage,
		files:       o.Files,
		devices:     map[string]*device{},
		watchers:    map[*watcher]struct{}{},
		attempts:    map[string]int{},
		maxJobs:     o.MaxJobs,
		jobs:        map[string]*job{},

		maxConfigurations: o.MaxConfigurations,
		choices:           maps.Clone(o.Choices),
		since:             time.Now(),
		configurations:    map[string]*configuration{},
	}
}

// Now is what time the hub believes it is when it checks tokens: the true time, unless Options.ClockOffset says otherwise.
func (h *Hub) Now() time.Time { return time.Now().Add(h.offset) }

// HostName is the hub's name in connection strings and tokens.
func (h *Hub) HostName() string { return h.host }

// OwnerConnectionString is the connection string of the policy iothubowner, or of the first policy when there is none.
func (h *Hub) OwnerConnectionString() string {
	all := h.PolicyConnectionStrings()
	if text, ok := all[ownerPolicy]; ok || len(h.policies) == 0 {
		return text
	}
	return all[h.policies[0].Name]
}

// PolicyConnectionStrings are the connection strings of all shared access policies, by the policies' names.
func (h *Hub) PolicyConnectionStrings() map[string]string {
	all := map[string]string{}
	for _, p := range h.policies {
		all[p.Name] = "HostName=" + h.host + ";SharedAccessKeyName=" + p.Name + ";SharedAccessKey=" + p.PrimaryKey
	}
	return all
}

// ConnectionString is what an identity connects with: host, ids and primary key.
func (h *Hub) ConnectionString(id ID) (string, error) {
	h.mu.Lock()
	defer h.unlock()
	n, err := h.find(id)
	if err != nil {
		return "", err
	}
	if n.auth.primary == "" {
		return "", argument("%s has no key: it proves itself by a certificate", id)
	}
	text := "HostName=" + h.host + ";DeviceId=" + id.Device
	if id.Module != "" {
		text += ";ModuleId=" + id.Module
	}
	return text + ";SharedAccessKey=" + n.auth.primary, nil
}

// unlock ends a section under Hub.mu, has the journal keep what the section changed, and then does what the section has
// left to do.
func (h *Hub) unlock() {
	later := h.later
	h.later = nil
	changed := h.record()
	h.mu.Unlock()
	if changed {
		h.journal.Sync()
	}
	for _, do := range later {
		do()
	}
}

// nextGeneration is a generation id: the time in ticks of 100 ns since the year 1, as the hub's look, and never one that
// was there before.
func (h *Hub) nextGeneration(now time.Time) string {
	const unixEpoch = 621_355_968_000_000_000 // in ticks
	h.made = max(h.made+1, uint64(unixEpoch+now.UnixNano()/100))
	h.changed(counters, "")
	return strconv.FormatUint(h.made, 10)
}

// nextETag is an identity's etag: base64 of a decimal number. Numbers are the hub's, so that an identity made anew has
// none of its old etags.
func (h *Hub) nextETag() uint64 {
	h.etags++
	h.changed(counters, "")
	return h.etags
}

// nextSequence is a message's sequence number.
func (h *Hub) nextSequence() uint64 {
	h.sequence++
	h.changed(counters, "")
	return h.sequence
}

func identityETag(n uint64) string {
	return base64.StdEncoding.EncodeToString(strconv.AppendUint(nil, n, 10))
}

func newKey() string {
	var key [32]byte
	crand.Read(key[:]) // never fails: package crypto/rand
	return base64.StdEncoding.EncodeToString(key[:])
}

// hubTime is a time as in identities: UTC without zone, seven digits of fraction, the year 1 for never.
func hubTime(t time.Time) string {
	if t.IsZero() {
		return "0001-01-01T00:00:00"
	}
	return t.UTC().Format("2006-01-02T15:04:05.0000000")
}

// twinTime is the same in twins: with a Z.
func twinTime(t time.Time) string { return hubTime(t) + "Z" }

// staleETag compares an If-Match value, quoted or not, with an etag.
func staleETag(ifMatch, etag string) *Error {
	if m := unquote(ifMatch); m != "*" && m != etag {
		return preconditionFailed("existingVersion:%s newVersion:%s", etagNumber(etag), etagNumber(m))
	}
	return nil
}

// unquote takes the quotes off an entity tag. Clients send "etag", etag, "*" and *.
func unquote(tag string) string {
	if len(tag) >= 2 && tag[0] == '"' && tag[len(tag)-1] == '"' {
		return tag[1 : len(tag)-1]
	}
	return tag
}

// etagNumber shows what is in an etag of ours: the decimal text of an identity's, the eight bytes of a twin's.
func etagNumber(tag string) string {
	raw, err := base64.StdEncoding.DecodeString(tag)
	switch {
	case err != nil || len(raw) == 0:
		return strconv.Quote(tag)
	case len(raw) == 8 && raw[0] == 0:
		return strconv.FormatUint(binary.BigEndian.Uint64(raw), 10)
	case slices.ContainsFunc(raw, func(b byte) bool { return b < '0' || b > '9' }):
		return strconv.Quote(tag)
	}
	return string(raw)
}
