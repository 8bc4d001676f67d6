package hal

import (
	"fmt"
	"path/filepath"
	"strings"
)

// forms is what a person who wrote a bad URI needs to see.
var forms = map[string]string{
	"i2c":    "i2c:/dev/i2c-1 or i2c:<adapter name>",
	"serial": "serial:/dev/serial/by-id/<name>",
	"gpio":   "gpio:<chip label>/<line offset or name>",
	"sim":    "sim:<socket>#<wire>",
}

const allForms = "i2c:/dev/i2c-1, i2c:<adapter name>, serial:/dev/serial/by-id/<name>, gpio:<chip label>/<line>, sim:<socket>#<wire>"

// Split takes a wire's URI apart. It checks the form of the schemes that the package comment lists, and lets others
// (a test's own) through with any target. What it refuses is an ErrBadURI whose text shows the form expected.
func Split(uri string) (scheme, target string, err error) {
	scheme, target, found := strings.Cut(uri, ":")
	if !found || !validScheme(scheme) {
		return "", "", fmt.Errorf("%w: %q has no scheme; write one of %s", ErrBadURI, uri, allForms)
	}
	if target == "" {
		return "", "", fmt.Errorf("%w: %q names nothing after %q; write %s", ErrBadURI, uri, scheme+":", form(scheme))
	}
	if strings.ContainsFunc(target, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", "", fmt.Errorf("%w: %q holds a control character; write %s", ErrBadURI, uri, form(scheme))
	}
	switch scheme {
	case "sim":
		if i := strings.LastIndexByte(target, '#'); i <= 0 || i == len(target)-1 {
			return "", "", fmt.Errorf("%w: %q needs a socket and a wire; write %s", ErrBadURI, uri, form(scheme))
		}
	case "gpio":
		if label, line, ok := strings.Cut(target, "/"); !ok || label == "" || line == "" {
			return "", "", fmt.Errorf("%w: %q needs a chip label and a line (gpiodetect lists the labels; chip numbers change from kernel to kernel); write %s",
				ErrBadURI, uri, form(scheme))
		}
	}
	return scheme, target, nil
}

func form(scheme string) string {
	if f, ok := forms[scheme]; ok {
		return f
	}
	return scheme + ":<target>"
}

// validScheme accepts RFC 3986 section 3.1, in lower case.
func validScheme(s string) bool {
	for i, r := range s {
		switch {
		case r >= 'a' && r <= 'z':
		case i > 0 && (r >= '0' && r <= '9' || r == '+' || r == '-' || r == '.'):
		default:
			return false
		}
	}
	return s != ""
}

// Resolve makes a relative path in a URI absolute to dir: the socket of sim:, the path of serial:, and the path of
// i2c: where it begins with a dot (else it is an adapter's name). Any other text comes back unchanged, a bad URI too:
// opening it says what is wrong. Resolving twice changes nothing when dir is absolute.
func Resolve(uri, dir string) string {
	scheme, target, err := Split(uri)
	if err != nil {
		return uri
	}
	path, rest := target, ""
	switch scheme {
	case "sim":
		i := strings.LastIndexByte(target, '#')
		path, rest = target[:i], target[i:]
	case "serial":
	case "i2c":
		if !strings.HasPrefix(target, "./") && !strings.HasPrefix(target, "../") {
			return uri
		}
	default:
		return uri
	}
	if filepath.IsAbs(path) {
		return uri
	}
	return scheme + ":" + filepath.Join(dir, path) + rest
}
