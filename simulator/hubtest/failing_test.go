package hubtest_test

import (
	"fmt"
	"runtime"
	"testing"
)

// failing is a test that keeps what it fails with.
type failing struct {
	testing.TB
	text string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
	runtime.Goexit()
}
