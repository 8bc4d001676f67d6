//go:build race

package host_test

// raced says that the race detector is in this program, and so in the modules that it starts: it maps more than a module may
// have.
const raced = true
