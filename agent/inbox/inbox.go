// Package inbox keeps the device's cloud-to-device messages until somebody dismisses them.
//
// A message is on disk before the hub is told that it has come, and the hub hands it out again until it is told so. So none is
// lost, and one that comes twice is known by its message id: among those that are kept, and the last 64 that were dismissed.
//
// At most 200 messages and 4 MiB are kept. What comes beyond is not taken, so the hub keeps it: it holds 50 per device and tells
// the sender when there is no more room, or when a message has run out before it was taken. Nothing that was taken is ever
// dropped.
//
// Source: Microsoft Learn, "Understand cloud-to-device messaging from an IoT hub".
package inbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twinbay/twinbay/agent/disk"
)

// Limits of a Box.
const (
	MaxMessages = 200
	MaxBytes    = 4 << 20
	maxGone     = 64 // dismissed messages that are still known
)

// Errors of a Box.
var (
	ErrFull    = errors.New("no more cloud-to-device messages are taken until some are dismissed: twinbay messages")
	ErrUnknown = errors.New("no such message")
)

// Message is a cloud-to-device message.
type Message struct {
	Number     uint64            `json:"number"` // this device's own: rises by one, and never repeats
	ID         string            `json:"message_id,omitempty"`
	Received   time.Time         `json:"received"`
	Properties map[string]string `json:"properties,omitempty"`
	System     map[string]string `json:"system,omitempty"`
	Body       []byte            `json:"body"`
}

func (m Message) size() int {
	n := len(m.Body) + len(m.ID)
	for _, p := range []map[string]string{m.Properties, m.System} {
		for k, v := range p {
			n += len(k) + len(v)
		}
	}
	return n
}

// same says whether two messages without an id are one that has come twice.
func (m Message) same(o Message) bool {
	return m.ID == o.ID && string(m.Body) == string(o.Body) && maps.Equal(m.Properties, o.Properties) && maps.Equal(m.System, o.System)
}

// Box is the messages of one device. Its methods may be called from any goroutine.
type Box struct {
	fs  disk.FS
	dir string
	log *slog.Logger

	mu       sync.Mutex
	messages []Message // by number
	bytes    int
	gone     gone
}

// gone is what is left of messages that were dismissed.
type gone struct {
	Next uint64      `json:"next"`
	Last []goneEntry `json:"last"`
}

type goneEntry struct {
	Number uint64 `json:"number"`
	ID     string `json:"message_id,omitempty"`
}

// goneFile is beside the messages, each of which is a file by its number.
const goneFile = "dismissed"

var messageFile = regexp.MustCompile(`^[0-9]{10}$`)

func (b *Box) path(number uint64) string {
	return filepath.Join(b.dir, fmt.Sprintf("%010d", number))
}

// Open reads the box at dir. What cannot be read is said and set aside, and is no reason not to start.
func Open(fsys disk.FS, dir string, log *slog.Logger) *Box {
	b := &Box{fs: fsys, dir: dir, log: log, gone: gone{Next: 1}}
	b.read(filepath.Join(dir, goneFile), func(text []byte) error { return json.Unmarshal(text, &b.gone) })
	names, err := fsys.Names(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("the cloud-to-device messages of before cannot be read", "error", err)
	}
	for _, name := range names {
		if !messageFile.MatchString(name) {
			continue
		}
		var m Message
		if !b.read(filepath.Join(dir, name), func(text []byte) error { m = Message{}; return json.Unmarshal(text, &m) }) {
			continue
		}
		m.Number, _ = strconv.ParseUint(name, 10, 64) // ten digits fit
		b.gone.Next = max(b.gone.Next, m.Number+1)
		if slices.ContainsFunc(b.gone.Last, func(g goneEntry) bool { return g.Number == m.Number }) {
			b.remove(m.Number) // the power went while it was being dismissed
			continue
		}
		b.messages = append(b.messages, m)
		b.bytes += m.size()
	}
	return b
}

func (b *Box) read(path string, take func([]byte) error) bool {
	text, damage := disk.Load(b.fs, path, take)
	if damage != nil {
		b.log.Error("a file of cloud-to-device messages is damaged", "error", damage)
	}
	return text != nil
}

func (b *Box) remove(number uint64) {
	err := b.fs.Remove(b.path(number))
	if err == nil {
		err = b.fs.SyncDir(b.dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Warn("a dismissed message could not be removed from the disk; it stays dismissed", "number", number, "error", err)
	}
}

// Put takes a message. When it answers nil the message is on disk, or has come before, and the hub may forget it. again
// says that the hub itself thinks it may have come before. Its number is Put's business.
func (b *Box) Put(m Message, again bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known(m, again) {
		return nil
	}
	if len(b.messages) >= MaxMessages || b.bytes+m.size() > MaxBytes {
		return ErrFull
	}
	m.Number = b.gone.Next
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("keep a cloud-to-device message: %w", err)
	}
	if err := disk.Save(b.fs, b.path(m.Number), text); err != nil {
		return fmt.Errorf("keep a cloud-to-device message: %w", err)
	}
	b.gone.Next++
	b.messages = append(b.messages, m)
	b.bytes += m.size()
	return nil
}

func (b *Box) known(m Message, again bool) bool {
	if m.ID == "" {
		return again && slices.ContainsFunc(b.messages, m.same)
	}
	return slices.ContainsFunc(b.messages, func(o Message) bool { return o.ID == m.ID }) ||
		slices.ContainsFunc(b.gone.Last, func(g goneEntry) bool { return g.ID == m.ID })
}

// List is what is kept, oldest first.
func (b *Box) List() []Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.messages)
}

// Len is how many are kept.
func (b *Box) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.messages)
}

// Dismiss removes a message, by its number or its message id. It answers ErrUnknown when there is none.
func (b *Box) Dismiss(which string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.messages, func(m Message) bool { return strconv.FormatUint(m.Number, 10) == which })
	if i < 0 {
		i = slices.IndexFunc(b.messages, func(m Message) bool { return m.ID != "" && m.ID == which })
	}
	if i < 0 {
		return fmt.Errorf("%w: %.200q", ErrUnknown, which)
	}
	m := b.messages[i]
	next := gone{Next: b.gone.Next, Last: append(slices.Clone(b.gone.Last), goneEntry{m.Number, m.ID})}
	if n := len(next.Last) - maxGone; n > 0 {
		next.Last = next.Last[n:]
	}
	text, err := json.Marshal(next)
	if err == nil {
		err = disk.Save(b.fs, filepath.Join(b.dir, goneFile), text)
	}
	if err != nil {
		return fmt.Errorf("dismiss message %d: %w", m.Number, err)
	}
	b.gone = next
	b.messages = slices.Delete(b.messages, i, i+1)
	b.bytes -= m.size()
	b.remove(m.Number)
	return nil
}
