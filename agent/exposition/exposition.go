// Package exposition writes metrics in the Prometheus text format, version 0.0.4.
//
// Source: https://prometheus.io/docs/instrumenting/exposition_formats/ ("Text-based format"), and for names
// https://prometheus.io/docs/practices/naming/: base units, counters end in _total.
package exposition

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// ContentType is the format's, for the answer's header.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Kinds of metrics.
const (
	Counter   = "counter"
	Gauge     = "gauge"
	Histogram = "histogram"
)

// Text is an exposition that is being written. The zero value is empty.
type Text struct {
	out  []byte
	name string
	head string // of the family, not yet written: one without samples is left out
}

// Family begins a metric: what Add adds belongs to it until the next one.
func (t *Text) Family(name, kind, help string) {
	t.name = name
	t.head = "# HELP " + name + " " + helpText.Replace(help) + "\n# TYPE " + name + " " + kind + "\n"
}

// Add adds a sample with pairs of label names and values.
func (t *Text) Add(value float64, labels ...string) { t.sample("", value, labels) }

// Bucket is how many observations were at most Le.
type Bucket struct {
	Le    float64
	Count uint64
}

// AddHistogram adds a histogram: buckets by ascending Le, which count those below them too, and all observations.
func (t *Text) AddHistogram(buckets []Bucket, sum float64, count uint64, labels ...string) {
	for _, b := range buckets {
		t.sample("_bucket", float64(b.Count), append(slices.Clip(labels), "le", number(b.Le)))
	}
	t.sample("_bucket", float64(count), append(slices.Clip(labels), "le", "+Inf"))
	t.sample("_sum", sum, labels)
	t.sample("_count", float64(count), labels)
}

// Bytes is the text so far.
func (t *Text) Bytes() []byte { return t.out }

func (t *Text) sample(suffix string, value float64, labels []string) {
	t.out = append(t.out, t.head...)
	t.head = ""
	t.out = append(append(t.out, t.name...), suffix...)
	for n := 0; n+1 < len(labels); n += 2 {
		t.out = append(t.out, ",{"[b2i(n == 0)])
		t.out = append(append(t.out, labels[n]...), `="`...)
		t.out = append(append(t.out, labelText.Replace(strings.ToValidUTF8(labels[n+1], "\ufffd"))...), '"')
	}
	if len(labels) > 1 {
		t.out = append(t.out, '}')
	}
	t.out = append(append(append(t.out, ' '), number(value)...), '\n')
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// What is escaped in a help text and in a label's value.
var (
	helpText  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelText = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// number is a value: without an exponent where that is readable, since people look at it, too.
func number(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	case v == 0 || math.Abs(v) >= 1e-6 && math.Abs(v) < 1<<53:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64) // NaN is "NaN"
}
