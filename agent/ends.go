package agent

import (
	"strings"

	"github.com/twinbay/twinbay/agent/local"
)

// endKind sorts the ends of modules for those who count them: what people read says more.
func endKind(reason string, ran bool) string {
	switch {
	case !ran:
		return local.EndStart
	case strings.HasPrefix(reason, "hung:"):
		return local.EndHung
	case strings.HasPrefix(reason, "killed: it used"), strings.HasSuffix(reason, " are allowed)"):
		return local.EndLimit
	case strings.HasPrefix(reason, "killed by signal"):
		return local.EndSignal
	case strings.HasPrefix(reason, "exit status"), strings.HasPrefix(reason, "ended by itself"):
		return local.EndExit
	case strings.HasPrefix(reason, "it did not"), strings.HasPrefix(reason, "it said"), strings.HasPrefix(reason, "its run ended"):
		return local.EndMisbehaved
	}
	return local.EndOther
}

// countEnd counts an end of the module.
func (v *view) countEnd(kind string) {
	v.set(func(v *view) {
		if v.process.Ends == nil {
			v.process.Ends = map[string]int{}
		}
		v.process.Ends[kind]++
	})
}
