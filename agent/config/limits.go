package config

import (
	"regexp"
	"slices"
	"strconv"
)

// Limits bound what a module, with all that it starts, may use of the device. 0 is no limit.
type Limits struct {
	Memory int64 // bytes
	Tasks  int   // processes and threads
	CPU    int   // per cent of one processor; 200 is two
	Files  int   // open at once, of each process
}

// DefaultLimits leave a driver plenty, and the smallest device enough for the others: a module of Twinbay's uses some
// 10 MiB, ten threads and a per cent of a processor. A fifth of a single processor stays free for everybody else.
var DefaultLimits = Limits{Memory: 128 << 20, Tasks: 64, CPU: 80, Files: 256}

// The least that a module needs to start at all.
const (
	minMemory = 16 << 20
	minTasks  = 16
	minCPU    = 1
	minFiles  = 16

	maxLimit = 1 << 20 // of a number that the kernel takes
)

// noLimit is how a limit is taken away.
const noLimit = "none"

func (d *decoder) limits(t map[string]any, at []string) Limits {
	own := d.table(t, at, "limits")
	at = append(slices.Clip(at), "limits")
	d.keys(own, at, "memory", "tasks", "cpu", "files")
	l := DefaultLimits
	if own["memory"] == noLimit {
		l.Memory = 0
	} else if n, ok := d.bytes(own, at, "memory"); ok {
		if l.Memory = n; n < minMemory {
			d.fail(append(at, "memory"), `write "16MiB" or more, or "none"`, "%d bytes, a module needs at least 16 MiB", n)
		}
	}
	d.number(own, at, "tasks", minTasks, &l.Tasks)
	d.number(own, at, "files", minFiles, &l.Files)
	d.percent(own, at, "cpu", &l.CPU)
	return l
}

// number reads a limit that is a number, or "none".
func (d *decoder) number(t map[string]any, at []string, key string, least int, to *int) {
	v, ok := t[key]
	switch n, isNumber := v.(int64); {
	case !ok:
	case v == noLimit:
		*to = 0
	case !isNumber || n < int64(least) || n > maxLimit:
		d.fail(append(slices.Clip(at), key), `write a number from `+strconv.Itoa(least)+` on, or "none"`, "%v is no limit of %s", v, key)
	default:
		*to = int(n)
	}
}

// perCent is a share of one processor.
var perCent = regexp.MustCompile(`^([0-9]{1,5})%$`)

// percent reads a limit like "80%", or "none".
func (d *decoder) percent(t map[string]any, at []string, key string, to *int) {
	v, ok := t[key]
	if !ok {
		return
	}
	s, _ := v.(string)
	if s == noLimit {
		*to = 0
		return
	}
	if m := perCent.FindStringSubmatch(s); m != nil {
		if n, _ := strconv.Atoi(m[1]); n >= minCPU { // five digits
			*to = n
			return
		}
	}
	d.fail(append(slices.Clip(at), key), `write it like "80%", of one processor, or "none"`, "%v is no share of a processor", v)
}
