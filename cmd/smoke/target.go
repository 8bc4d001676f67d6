package main

import "fmt"

// figure is something measured, beside what the project wants of it.
type figure struct {
	what  string
	value float64
	unit  string
	least float64 // 0: no such target
	most  float64 // 0: no such target
	note  string  // how it was taken, if that does not go without saying
}

// print writes a line: the figure, its target, and whether that is met. A machine's bad day is no failure of the run.
func (f figure) print() {
	line := fmt.Sprintf("%-58s %9s %-10s", f.what, number(f.value), f.unit)
	switch {
	case f.most > 0:
		line += fmt.Sprintf(" target ≤ %-6s %-4s", number(f.most), met(f.value <= f.most))
	case f.least > 0:
		line += fmt.Sprintf(" target ≥ %-6s %-4s", number(f.least), met(f.value >= f.least))
	}
	if f.note != "" {
		line += "  " + f.note
	}
	fmt.Println(line)
}

func met(ok bool) string {
	if ok {
		return "ok"
	}
	return "MISS"
}

// number shows three digits or so: more would be of this run alone.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
