package agent

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var reliabilityWrite = flag.Bool("reliability.write", false, "TestReliabilityPage writes the last column of docs/reliability.md")

// due are the scenarios that have no test yet, and what they wait for.
var due = map[int]string{
	9: "checksums of modules", 25: "X.509 in the agent", 36: "updates of modules",
	30: "the hardware", 31: "the hardware", 32: "the hardware", 33: "the hardware",
}

// scenarioTests are the tests of the repository that are named after a scenario: where each stands, by its number.
func scenarioTests(t *testing.T) map[int]string {
	t.Helper()
	name := regexp.MustCompile(`^TestR([0-9]{2})_`)
	found := map[int]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil {
				continue
			}
			m := name.FindStringSubmatch(f.Name.Name)
			if m == nil {
				continue
			}
			n, err := strconv.Atoi(m[1])
			if err != nil {
				return err
			}
			where := fmt.Sprintf("`%s` in [%[2]s](../%[2]s)", f.Name.Name, filepath.ToSlash(strings.TrimPrefix(path, "../")))
			if found[n] != "" {
				t.Errorf("R%d has two tests: %s and %s", n, found[n], where)
			}
			found[n] = where
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestReliabilityPage holds docs/reliability.md true: each scenario has one test, or waits for something and has none.
func TestReliabilityPage(t *testing.T) {
	const page, last = "../docs/reliability.md", 40
	found := scenarioTests(t)
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`^(\| R([0-9]+) \| [^|]+ \|([^|]*)\|)[^|]*\|$`)
	var out []string
	seen := 0
	for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
		m := row.FindStringSubmatch(line)
		if m == nil {
			if strings.HasPrefix(line, "| R") {
				t.Errorf("not a row of four columns: %s", line)
			}
			out = append(out, line)
			continue
		}
		seen++
		if m[2] != strconv.Itoa(seen) {
			t.Errorf("R%s stands where R%d should", m[2], seen)
		}
		cell, reason := found[seen], due[seen]
		switch {
		case cell == "" && reason == "":
			t.Errorf("R%d has no test", seen)
		case cell != "" && reason != "":
			t.Errorf("R%d has a test: take it out of due in agent/reliability_test.go", seen)
		case cell == "":
			cell = "not yet: it waits for " + reason
		case strings.TrimSpace(m[3]) == "":
			t.Errorf("R%d has a test, and %s does not say what the agent does", seen, page)
		}
		out = append(out, m[1]+" "+cell+" |")
		delete(found, seen)
	}
	if seen != last {
		t.Errorf("%d rows, %d scenarios", seen, last)
	}
	for n, where := range found {
		t.Errorf("R%d is no scenario: %s", n, where)
	}
	want := strings.Join(out, "\n") + "\n"
	if *reliabilityWrite {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("%s is stale: go test ./agent -run TestReliabilityPage -reliability.write", page)
	}
}
