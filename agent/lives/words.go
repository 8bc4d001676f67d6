package lives

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
)

// maxWords bounds what is read of the last words.
const maxWords = 1 << 20

// LastWords answers in a line what the life before left in the file at path when it broke down, and has this one leave its
// last words there: Go's runtime writes them, with all stacks, after it has written them to standard error. The whole text of
// before is kept beside it, as PATH.previous.
func LastWords(path string) (before string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("last words: %w", err)
	}
	f, err := os.Open(path)
	switch {
	case err == nil:
		text, err := io.ReadAll(io.LimitReader(f, maxWords))
		f.Close()
		if err == nil && len(text) > 0 {
			before = Headline(text)
			if err := os.Rename(path, path+".previous"); err != nil {
				return before, fmt.Errorf("last words: %w", err)
			}
		}
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("last words: %w", err)
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return before, fmt.Errorf("last words: %w", err)
	}
	defer out.Close() // the runtime has a copy
	if err := debug.SetCrashOutput(out, debug.CrashOptions{}); err != nil {
		return before, fmt.Errorf("last words: %w", err)
	}
	return before, nil
}

// Headline is the line of a Go program's last words that says why. What is no such text is its first line.
func Headline(text []byte) string {
	first := ""
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line := strings.TrimSpace(strings.ToValidUTF8(lines.Text(), ""))
		switch {
		case strings.HasPrefix(line, "SIGABRT"):
			return "ended by SIGABRT: it did not get on, and the watchdog ended it"
		case strings.HasPrefix(line, "panic:"), strings.HasPrefix(line, "fatal error:"), strings.HasPrefix(line, "SIG"):
			return clip(line)
		case first == "":
			first = line
		}
	}
	return clip(first)
}
