// Command gen writes the support table, docs/support.md. Run it by go generate ./simulator/conformance.
package main

import (
	"fmt"
	"os"

	"github.com/twinbay/twinbay/simulator/conformance"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen FILE")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], conformance.Page(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}
