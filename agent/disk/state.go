package disk

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"strings"
	"time"
)

// A state file is one line, "twinbay-state 1 <CRC32C of the rest, hex> <bytes of the rest>", and the rest.
const stateMagic = "twinbay-state 1 "

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Endings of the files beside a state file.
const (
	nextSuffix    = ".new"      // being written
	previousName  = ".previous" // what was there before
	corruptSuffix = ".corrupt-" // and the time: what could not be read, for whoever wants to look into it
)

// Save puts data into the state file at path: whatever happens, and the power may go at any moment, Load finds either
// data or what was there before. When Save has returned nil, Load finds data. The copy of before is kept beside it.
func Save(fsys FS, path string, data []byte) error {
	if err := fsys.MkdirAll(folder(path)); err != nil {
		return err
	}
	next := path + nextSuffix
	if err := remove(fsys, next); err != nil {
		return err
	}
	if err := write(fsys, next, encodeState(data)); err != nil {
		remove(fsys, next) // what is left of it takes room, when there may be none; the next Save tries again
		return err
	}
	if err := fsys.Rename(path, path+previousName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := fsys.Rename(next, path); err != nil {
		return err
	}
	return fsys.SyncDir(folder(path))
}

func write(fsys FS, path string, data []byte) (err error) {
	f, err := fsys.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return f.Sync()
}

func encodeState(data []byte) []byte {
	return fmt.Appendf(nil, "%s%08x %d\n%s", stateMagic, crc32.Checksum(data, castagnoli), len(data), data)
}

// Errors of a state file.
var (
	errNoState  = errors.New("it is not a state file")
	errChecksum = errors.New("its checksum does not fit")
	errLength   = errors.New("it does not have the length that it names")
)

func decodeState(text []byte) ([]byte, error) {
	line, rest, ok := bytes.Cut(text, []byte("\n"))
	if !ok || !bytes.HasPrefix(line, []byte(stateMagic)) {
		return nil, errNoState
	}
	var sum uint32
	var size int
	if n, err := fmt.Sscanf(string(line[len(stateMagic):]), "%08x %d", &sum, &size); n != 2 || err != nil {
		return nil, errNoState
	}
	// A line that reads the same but is written otherwise has been tampered with by the disk as well.
	if string(line) != fmt.Sprintf("%s%08x %d", stateMagic, sum, size) {
		return nil, errNoState
	}
	if len(rest) != size {
		return nil, errLength
	}
	if crc32.Checksum(rest, castagnoli) != sum {
		return nil, errChecksum
	}
	return rest, nil
}

// Damage is a state file that Load could not use.
type Damage struct {
	File     string // as it was named
	Kept     string // where it is now, "" when it could not be moved
	Previous bool   // the copy of before is used instead
	Err      error
}

func (d *Damage) Error() string {
	text := fmt.Sprintf("state file %s cannot be used: %v", d.File, d.Err)
	if d.Kept != "" {
		text += "; it is kept as " + d.Kept
	}
	if d.Previous {
		return text + "; the copy of before is used"
	}
	return text + "; starting without it"
}

func (d *Damage) Unwrap() error { return d.Err }

// Load answers what Save has put into the state file at path; nil when there is nothing, or nothing that can be used. A
// file that is damaged, or that check (unless nil) refuses, is moved aside as PATH.corrupt-TIME, and the copy of before
// is used. Damage says so; it is no reason not to go on, and of each path at most two such files are kept.
func Load(fsys FS, path string, check func([]byte) error) ([]byte, *Damage) {
	data, err := load(fsys, path, check)
	if err == nil {
		return data, nil
	}
	previous, prevErr := load(fsys, path+previousName, check)
	if errors.Is(err, fs.ErrNotExist) {
		switch {
		case prevErr == nil:
			return previous, nil // the power went between two renames
		case errors.Is(prevErr, fs.ErrNotExist):
			return nil, nil
		}
		d := &Damage{File: path + previousName, Err: prevErr}
		d.Kept = Quarantine(fsys, path+previousName)
		return nil, d
	}
	d := &Damage{File: path, Err: err, Previous: prevErr == nil}
	if readable(err) {
		d.Kept = Quarantine(fsys, path)
	}
	return previous, d
}

// readable says whether a file was read and its content is what is wrong: a disk that cannot be read now may be read
// later, so such a file stays where it is.
func readable(err error) bool {
	var p *fs.PathError
	return !errors.As(err, &p)
}

func load(fsys FS, path string, check func([]byte) error) ([]byte, error) {
	text, err := Read(fsys, path)
	if err != nil {
		return nil, err
	}
	data, err := decodeState(text)
	if err != nil {
		return nil, err
	}
	if check != nil {
		if err := check(data); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// Quarantine moves a file aside, as PATH.corrupt-TIME, and answers its new name; "" when it could not be moved. Of the
// files that were moved aside so before, the newest is kept.
func Quarantine(fsys FS, path string) string {
	prefix := path + corruptSuffix
	names, err := fsys.Names(folder(path))
	if err != nil {
		return ""
	}
	var before []string
	for _, name := range names {
		if full := join(folder(path), name); strings.HasPrefix(full, prefix) {
			before = append(before, full)
		}
	}
	to := prefix + time.Now().UTC().Format("20060102T150405.000000000")
	if err := fsys.Rename(path, to); err != nil {
		return ""
	}
	for len(before) > 1 {
		if err := fsys.Remove(before[0]); err != nil {
			break
		}
		before = before[1:]
	}
	return to
}
