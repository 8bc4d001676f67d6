//go:build linux

package host

import (
	"bytes"
	"io"
)

// maxHandshake is more than a module's handshake may have: "1|1|unix|PATH|grpc||true", with a path of at most 107 bytes.
const maxHandshake = 4 << 10

// handshake is the standard output of a module: go-plugin reads its first line, and no more. Whatever follows is taken for
// something that the module prints. (go-plugin would read on for ever, and stop for ever at a line of more than 64 KiB;
// the module would then block in its next print.)
type handshake struct {
	io.ReadCloser
	rest io.Writer

	passed int
	over   bool
}

// Read answers the first line, or as much of it as a handshake can have with a line feed behind it. Then it reads the
// pipe to its end.
func (h *handshake) Read(b []byte) (int, error) {
	if h.over {
		_, err := io.Copy(h.rest, h.ReadCloser)
		if err == nil {
			err = io.EOF
		}
		return 0, err
	}
	n, err := h.ReadCloser.Read(b[:min(len(b), maxHandshake-h.passed)])
	if i := bytes.IndexByte(b[:n], '\n'); i >= 0 {
		h.over = true
		h.rest.Write(b[i+1 : n])
		return i + 1, err
	}
	if h.passed += n; h.passed == maxHandshake {
		h.over = true
		b[n-1] = '\n'
	}
	return n, err
}
