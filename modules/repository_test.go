// Package modules_test holds each module's folder to its shape.
package modules_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/twinbay/twinbay/modules/all"
)

// kit are the folders that are no modules.
var kit = []string{"all", "modkit", "modtest"}

func TestEachModuleHasItsFiles(t *testing.T) {
	folders, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range folders {
		name := f.Name()
		if !f.IsDir() || slices.Contains(kit, name) {
			continue
		}
		found = append(found, name)
		for _, file := range []string{name + ".go", name + "_test.go", "sample.toml", "settings.schema.json", "wiring.schema.json", "README.md"} {
			if _, err := os.Stat(filepath.Join(name, file)); err != nil {
				t.Errorf("modules/%s has no %s: copy it from another module", name, file)
			}
		}
	}
	if got := all.Names(); !slices.Equal(got, found) {
		t.Errorf("modules/all lists %q, the folders are %q: add a line to modules/all", got, found)
	}
}
