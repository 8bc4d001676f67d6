package journal

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/twinbay/twinbay/simulator/hub"
)

// together is how many bytes of records a frame of a new file has.
const together = 256 << 10

// rotateBeside writes a new file while the old one is written on.
func (j *Journal) rotateBeside(source Source) {
	err := j.rotate(source)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.fail(err)
	}
	j.rotating = false
	j.moved.Broadcast()
}

// rotate puts a new file in the place of the old one: what the source knows, and behind it the frames that the old one
// got meanwhile. Until the name is exchanged the old file is the one that counts.
func (j *Journal) rotate(source Source) error {
	temp := j.path + ".new"
	f, err := createLocked(temp)
	if err != nil {
		return err
	}
	exchanged := false
	defer func() {
		if !exchanged {
			f.Close()
			os.Remove(temp)
		}
	}()
	j.files.Lock()
	from := j.size
	j.files.Unlock()

	// What was changed up to here is known to the source, and what is changed from here on is in the old file.
	w := &counter{w: bufio.NewWriterSize(f, 1<<20)}
	if _, err := io.WriteString(w, header); err != nil {
		return err
	}
	if err := writeAll(w, source); err != nil {
		return err
	}
	base := w.n
	j.files.Lock()
	defer j.files.Unlock()
	if _, err := io.Copy(w, io.NewSectionReader(j.file, from, j.size-from)); err != nil {
		return err
	}
	if err := w.w.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(temp, j.path); err != nil {
		return err
	}
	exchanged = true
	old := j.file
	j.file, j.size, j.base = f, w.n, base
	if err := syncFolder(j.path); err != nil {
		return err
	}
	return old.Close()
}

// writeAll writes everything that the source knows.
func writeAll(w io.Writer, source Source) error {
	var some []hub.Record
	size := 0
	flush := func() error {
		if len(some) == 0 {
			return nil
		}
		_, err := w.Write(frame(some))
		some, size = some[:0], 0
		return err
	}
	err := source.Records(func(r hub.Record) error {
		some = append(some, r)
		if size += len(r.Data); size < together {
			return nil
		}
		return flush()
	})
	if err != nil {
		return fmt.Errorf("write a new file: %w", err)
	}
	return flush()
}

// counter counts what is written.
type counter struct {
	w *bufio.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
