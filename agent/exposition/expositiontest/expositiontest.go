// Package expositiontest reads the Prometheus text format, version 0.0.4, strictly: what the format allows and nothing says
// (metrics without a type, families that are spread) is an error.
package expositiontest

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Family is one metric.
type Family struct {
	Name, Kind, Help string
	Samples          []Sample
}

// Sample is one line.
type Sample struct {
	Name   string // with _bucket, _sum or _count of a histogram
	Labels map[string]string
	Value  float64
}

// Value is the sample's of a family with exactly these labels, in pairs; false when there is none.
func (f Family) Value(labels ...string) (float64, bool) {
	for _, s := range f.Samples {
		if s.Name != f.Name || len(s.Labels) != len(labels)/2 {
			continue
		}
		same := true
		for n := 0; n+1 < len(labels); n += 2 {
			v, ok := s.Labels[labels[n]]
			same = same && ok && v == labels[n+1]
		}
		if same {
			return s.Value, true
		}
	}
	return 0, false
}

var (
	metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	labelName  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

// Parse reads a whole exposition: families by name.
func Parse(text []byte) (map[string]Family, error) {
	families := map[string]Family{}
	seen := map[string]bool{} // samples, by name and labels
	var now Family
	if len(text) > 0 && text[len(text)-1] != '\n' {
		return nil, errors.New("the last line has no end")
	}
	finish := func() error {
		if now.Name == "" {
			return nil
		}
		if err := now.check(); err != nil {
			return fmt.Errorf("%s: %w", now.Name, err)
		}
		families[now.Name] = now
		return nil
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSuffix(line, "\n")
		fail := func(err error) error { return fmt.Errorf("line %d, %.100q: %w", number, line, err) }
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			if err := finish(); err != nil {
				return nil, fail(err)
			}
			name, help, _ := strings.Cut(rest, " ")
			if _, twice := families[name]; twice || !metricName.MatchString(name) || help == "" {
				return nil, fail(errors.New("not the first help of a metric"))
			}
			now = Family{Name: name, Help: help}
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			if name != now.Name || now.Kind != "" || !slices.Contains([]string{"counter", "gauge", "histogram"}, kind) {
				return nil, fail(errors.New("not the type of the metric that the help is of"))
			}
			now.Kind = kind
			continue
		}
		s, id, err := parseSample(line)
		if err != nil {
			return nil, fail(err)
		}
		if now.Kind == "" || !now.has(s.Name) {
			return nil, fail(errors.New("a sample outside its metric"))
		}
		if seen[id] {
			return nil, fail(errors.New("the same sample twice"))
		}
		seen[id] = true
		now.Samples = append(now.Samples, s)
	}
	return families, finish()
}

func (f Family) has(sample string) bool {
	suffix, ok := strings.CutPrefix(sample, f.Name)
	if f.Kind == "histogram" {
		return ok && slices.Contains([]string{"_bucket", "_sum", "_count"}, suffix)
	}
	return ok && suffix == ""
}

// check holds a whole family against its kind.
func (f Family) check() error {
	if len(f.Samples) == 0 {
		return errors.New("no sample")
	}
	if total := strings.HasSuffix(f.Name, "_total"); total != (f.Kind == "counter") {
		return fmt.Errorf("a %s of this name: counters, and nothing else, end in _total", f.Kind)
	}
	buckets := map[string][]Sample{} // by the other labels
	counts := map[string]float64{}
	for _, s := range f.Samples {
		if f.Kind == "counter" && !(s.Value >= 0) {
			return fmt.Errorf("a counter of %v", s.Value)
		}
		key := ""
		for _, name := range sortedNames(s.Labels) {
			if name != "le" {
				key += name + "=" + strconv.Quote(s.Labels[name])
			}
		}
		switch {
		case f.Kind == "histogram" && s.Name == f.Name+"_bucket":
			buckets[key] = append(buckets[key], s)
		case f.Kind == "histogram" && s.Name == f.Name+"_count":
			counts[key] = s.Value
		}
	}
	for key, all := range buckets {
		below, last := -1.0, 0.0
		for n, s := range all {
			le, err := strconv.ParseFloat(s.Labels["le"], 64)
			if err != nil || n > 0 && le <= below || s.Value < last {
				return fmt.Errorf("bucket %s of %s is not above the one before", s.Labels["le"], key)
			}
			below, last = le, s.Value
		}
		if end := all[len(all)-1]; end.Labels["le"] != "+Inf" || end.Value != counts[key] {
			return fmt.Errorf("the last bucket of %s is not all of %v", key, counts[key])
		}
	}
	if f.Kind == "histogram" && len(buckets) != len(counts) {
		return errors.New("a histogram without a count, or without buckets")
	}
	return nil
}

func sortedNames(labels map[string]string) []string {
	var names []string
	for name := range labels {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// parseSample reads NAME{LABEL="VALUE",…} NUMBER. id names the sample among all.
func parseSample(line string) (s Sample, id string, err error) {
	end := strings.IndexAny(line, "{ ")
	if end < 0 || !metricName.MatchString(line[:end]) {
		return s, "", errors.New("no metric's name")
	}
	s.Name, s.Labels = line[:end], map[string]string{}
	rest := line[end:]
	if rest[0] == '{' {
		if rest, err = s.labels(rest[1:]); err != nil {
			return s, "", err
		}
	}
	text, ok := strings.CutPrefix(rest, " ")
	if !ok || strings.ContainsAny(text, " \t_xX") {
		return s, "", errors.New("no value after one space")
	}
	if s.Value, err = strconv.ParseFloat(text, 64); err != nil {
		return s, "", errors.New("the value is no number")
	}
	id = s.Name
	for _, name := range sortedNames(s.Labels) {
		id += "," + name + "=" + strconv.Quote(s.Labels[name])
	}
	return s, id, nil
}

// labels reads what is between the braces, and answers what comes behind them.
func (s *Sample) labels(text string) (rest string, err error) {
	for {
		name, after, ok := strings.Cut(text, `="`)
		if !ok || !labelName.MatchString(name) {
			return "", errors.New("no label's name")
		}
		if _, twice := s.Labels[name]; twice {
			return "", fmt.Errorf("label %s twice", name)
		}
		var value strings.Builder
		for {
			n := strings.IndexAny(after, `\"`)
			if n < 0 {
				return "", errors.New("a label's value has no end")
			}
			value.WriteString(after[:n])
			if after[n] == '"' {
				after = after[n+1:]
				break
			}
			if n+1 == len(after) || !strings.Contains(`\"n`, after[n+1:n+2]) {
				return "", errors.New("an unknown escape in a label's value")
			}
			value.WriteString(strings.Replace(after[n+1:n+2], "n", "\n", 1))
			after = after[n+2:]
		}
		s.Labels[name] = value.String()
		switch {
		case strings.HasPrefix(after, ","):
			text = after[1:]
		case strings.HasPrefix(after, "}"):
			return after[1:], nil
		default:
			return "", errors.New("neither a comma nor a brace after a label")
		}
	}
}
