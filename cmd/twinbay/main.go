// Command twinbay is the agent of a device and the technician's tool beside it.
//
//	twinbay run --config FILE      the agent
//	twinbay check --config FILE    what is wrong with a device file
//	twinbay status | twin | method | messages | logs | reload | resume
//
// The exit code is 0 when it did as asked, 1 when not, and 2 for a command line that makes no sense.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
