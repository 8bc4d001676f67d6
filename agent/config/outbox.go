package config

import (
	"math"
	"regexp"
	"strconv"
	"time"
)

// minOutbox is the least that an outbox needs: some segments of 2 MiB.
const minOutbox = 8 << 20

func (d *decoder) outbox(t map[string]any, o *Outbox) {
	at := []string{"outbox"}
	d.keys(t, at, "profile", "max_bytes", "max_age", "min_free")
	*o = Outbox{Profile: "durable", MaxBytes: DefaultMaxBytes, MaxAge: DefaultMaxAge, MinFree: DefaultMinFree}
	if p := d.str(t, at, "profile"); p != "" {
		if o.Profile = p; p != "durable" && p != "sd-card" {
			d.fail(append(at, "profile"), `write "durable", or "sd-card" to spare the flash`, "%q is no profile", p)
		}
	}
	if n, ok := d.bytes(t, at, "max_bytes"); ok {
		if o.MaxBytes = n; n < minOutbox {
			d.fail(append(at, "max_bytes"), `write "8MiB" or more`, "%d bytes, an outbox needs at least 8 MiB", n)
		}
	}
	if n, ok := d.bytes(t, at, "min_free"); ok {
		o.MinFree = n
	}
	if age, ok := d.span(t, at, "max_age"); ok {
		o.MaxAge = age
	}
}

// size is a number of bytes: "64MiB", "500 KiB", "1024".
var size = regexp.MustCompile(`^([0-9]{1,12}) ?(B|KiB|MiB|GiB)?$`)

var units = map[string]int64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

// bytes reads a number of bytes; false when it is absent or wrong.
func (d *decoder) bytes(t map[string]any, at []string, key string) (int64, bool) {
	v, ok := t[key]
	if !ok {
		return 0, false
	}
	at = append(at[:len(at):len(at)], key)
	const hint = `write it like "64MiB", or as a number of bytes`
	switch v := v.(type) {
	case int64:
		if v >= 0 {
			return v, true
		}
	case string:
		if m := size.FindStringSubmatch(v); m != nil {
			n, err := strconv.ParseInt(m[1], 10, 64)
			if err == nil && n <= math.MaxInt64/units[m[2]] {
				return n * units[m[2]], true
			}
		}
	}
	d.fail(at, hint, "%v is no number of bytes", v)
	return 0, false
}

// days is a duration in days: "7d".
var days = regexp.MustCompile(`^([0-9]{1,5})d$`)

// span reads a duration; false when it is absent or wrong.
func (d *decoder) span(t map[string]any, at []string, key string) (time.Duration, bool) {
	v, ok := t[key]
	if !ok {
		return 0, false
	}
	at = append(at[:len(at):len(at)], key)
	if s, ok := v.(string); ok {
		if m := days.FindStringSubmatch(s); m != nil {
			n, _ := strconv.Atoi(m[1]) // five digits
			return time.Duration(n) * 24 * time.Hour, true
		}
		if span, err := time.ParseDuration(s); err == nil && span >= 0 {
			return span, true
		}
	}
	d.fail(at, `write it like "7d", "12h" or "30m"; "0" is no limit`, "%v is no duration", v)
	return 0, false
}
