package conformance

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestSupportPage(t *testing.T) {
	got, err := os.ReadFile("../../docs/support.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, Page()) {
		t.Error("docs/support.md is stale: go generate ./simulator/conformance")
	}
}

// Every row names a source, and what is supported names proofs that exist.
func TestSupportIsProved(t *testing.T) {
	tests := map[string]map[string]bool{} // folder: its tests
	seen := map[string]bool{}
	for _, a := range Table() {
		for _, o := range a.Operations {
			where := a.Name + ": " + o.Name
			if seen[where] || o.Source == "" {
				t.Errorf("%s: there twice, or without a source", where)
			}
			seen[where] = true
			switch o.Status {
			case Yes, Partly:
				if len(o.Go)+len(o.Node) == 0 {
					t.Errorf("%s: nothing proves it", where)
				}
			case No:
			default:
				t.Errorf("%s: status %q", where, o.Status)
			}
			if o.Status == Partly && o.Note == "" {
				t.Errorf("%s: partly, and no note tells the difference", where)
			}
			for _, name := range o.Go {
				folder, test, _ := strings.Cut(name, " ")
				if tests[folder] == nil {
					tests[folder] = testsIn(t, folder)
				}
				if !tests[folder][test] {
					t.Errorf("%s: there is no test %s in %s", where, test, folder)
				}
			}
			for _, name := range o.Node {
				one := Operation{Node: []string{name}}
				if len(one.cases()) == 0 {
					t.Errorf("%s: node/cases.txt has no case %q", where, name)
				}
			}
		}
	}
}

// A case that no row names proves something that the table does not say.
func TestEveryCaseIsInTheTable(t *testing.T) {
	named := map[string]bool{}
	for _, a := range Table() {
		for _, o := range a.Operations {
			for _, c := range o.cases() {
				named[c] = true
			}
		}
	}
	for _, c := range Cases() {
		if !named[c] {
			t.Errorf("no row names the case %q", c)
		}
	}
}

var testName = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)

// testsIn are the names of the tests in a folder of the repository.
func testsIn(t *testing.T, folder string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(folder), "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("folder %s has no tests (%v)", folder, err)
	}
	found := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testName.FindAllSubmatch(text, -1) {
			found[string(m[1])] = true
		}
	}
	return found
}
