package hub

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

const (
	// maxLine is how many bytes a line of an import may have. A twin's 72 KiB can be a multiple of that in JSON, with
	// $metadata.
	maxLine = 1 << 20
	// together is how many lines of an import are done in one section under the lock, and so in one write of a journal.
	together = 100
)

// keysExcluded is the first line of an export without keys. That a line of plain text is there is measured (github.com/
// mwalser/terraform-provider-iothub, CONCEPT.md), its words are ours; the C# SDK's tests skip lines that do not begin
// with a brace.
const keysExcluded = "This export has no keys: excludeKeysInExport was set."

// runExport writes a line for each identity and, if so wanted, each configuration.
func (h *Hub) runExport(ctx context.Context, j *importExport) error {
	err := writeBlob(ctx, j.output, j.OutputBlobName, func(blob io.Writer) error { return h.writeExport(ctx, j, blob) })
	if err != nil || !j.IncludeConfigurations {
		return err
	}
	return writeBlob(ctx, j.output, j.ConfigurationsBlobName, h.writeConfigurations)
}

// writeBlob writes a blob, which is there only when all of it is.
func writeBlob(ctx context.Context, to Container, name string, write func(io.Writer) error) error {
	blob := to.Create(ctx, name)
	if err := write(blob); err != nil {
		blob.Abort()
		return err
	}
	return blob.Commit()
}

func (h *Hub) writeExport(ctx context.Context, j *importExport, blob io.Writer) error {
	h.mu.Lock()
	all := int64(len(h.devices) + h.modules)
	h.unlock()
	out := bufio.NewWriterSize(blob, 64<<10)
	if j.ExcludeKeysInExport {
		if _, err := out.WriteString(keysExcluded + "\n"); err != nil {
			return err
		}
	}
	done := int64(0)
	for line := range h.Export(j.ExcludeKeysInExport) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := out.Write(append(encode(line), '\n')); err != nil {
			return err
		}
		if done++; done%together == 0 {
			h.advance(j, done, all)
		}
	}
	return out.Flush()
}

// runImport does what the lines of a blob ask for. A line that can't be done is told of in importErrors.log of the
// output container, and does not fail the job.
func (h *Hub) runImport(ctx context.Context, j *importExport) error {
	if err := j.output.Remove(ctx, importErrorsBlob); err != nil { // of an earlier import
		return err
	}
	blob, size, err := j.input.Open(ctx, j.InputBlobName)
	if err != nil {
		return err
	}
	log := &importLog{ctx: ctx, output: j.output}
	err = h.importLines(ctx, j, blob, size, log)
	if err == nil && j.IncludeConfigurations {
		err = h.importConfigurations(ctx, j, log)
	}
	if err != nil {
		log.abort()
		return err
	}
	return log.commit()
}

func (h *Hub) importLines(ctx context.Context, j *importExport, blob io.Reader, size int64, log *importLog) error {
	lines := newLineReader(blob)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		batch, err := readImport(lines)
		if err != nil && err != io.EOF {
			return err
		}
		h.importBatch(batch)
		for _, line := range batch {
			if err := log.add(line.ID, line.err); err != nil {
				return err
			}
		}
		h.advance(j, lines.read, size)
		if err == io.EOF {
			return nil
		}
	}
}

// importLine is one line of an import, and what became of it.
type importLine struct {
	ExportImportDevice
	err *Error
}

// readImport reads lines to do together. With io.EOF they are the last ones.
func readImport(lines *lineReader) ([]importLine, error) {
	var batch []importLine
	for len(batch) < together {
		text, err := lines.next()
		switch {
		case errors.Is(err, errLongLine):
			batch = append(batch, importLine{err: badFormat("line %d is longer than %d bytes", lines.number, maxLine)})
		case err != nil:
			return batch, err
		case len(bytes.TrimSpace(text)) > 0:
			batch = append(batch, parseImportLine(text, lines.number))
		}
	}
	return batch, nil
}

func parseImportLine(text []byte, number int) importLine {
	var line importLine
	if !utf8.Valid(text) {
		line.err = badFormat("line %d is not UTF-8", number)
		return line
	}
	if err := json.Unmarshal(text, &line.ExportImportDevice); err != nil {
		line.err = badFormat("line %d is not the JSON object of an identity: %v", number, err)
	}
	return line
}

func (h *Hub) importBatch(batch []importLine) {
	h.mu.Lock()
	defer h.unlock()
	for i := range batch {
		if line := &batch[i]; line.err == nil {
			line.err = h.importOne(line.ExportImportDevice)
		}
	}
}

// importLog writes importErrors.log, which is there only if something went wrong.
type importLog struct {
	ctx    context.Context
	output Container
	blob   Upload
	w      *bufio.Writer
}

// add tells of a line that failed; a nil why is one that did not.
func (l *importLog) add(device string, why *Error) error {
	if why == nil {
		return nil
	}
	if l.blob == nil {
		l.blob = l.output.Create(l.ctx, importErrorsBlob)
		l.w = bufio.NewWriter(l.blob)
	}
	_, err := l.w.Write(append(encode(struct {
		DeviceID    string `json:"deviceId"`
		ErrorCode   int    `json:"errorCode"`
		ErrorStatus string `json:"errorStatus"`
	}{device, why.Code, why.Text}), '\n'))
	return err
}

func (l *importLog) commit() error {
	if l.blob == nil {
		return nil
	}
	if err := l.w.Flush(); err != nil {
		l.blob.Abort()
		return err
	}
	return l.blob.Commit()
}

func (l *importLog) abort() {
	if l.blob != nil {
		l.blob.Abort()
	}
}

// errLongLine is a line that was skipped.
var errLongLine = errors.New("hub: line too long")

// lineReader cuts a stream into lines, ended by LF or CRLF, and keeps no more than one in memory.
type lineReader struct {
	r      *bufio.Reader
	line   []byte
	number int   // of the last line, from 1
	read   int64 // bytes
}

func newLineReader(r io.Reader) *lineReader { return &lineReader{r: bufio.NewReaderSize(r, 64<<10)} }

// next answers the next line without its end, good until the call after; then io.EOF.
func (l *lineReader) next() ([]byte, error) {
	l.line = l.line[:0]
	tooLong := false
	for {
		part, err := l.r.ReadSlice('\n')
		l.read += int64(len(part))
		if len(l.line)+len(part) > maxLine+len("\r\n") {
			tooLong = true
		}
		if !tooLong {
			l.line = append(l.line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (err != io.EOF || len(l.line) == 0 && !tooLong):
			return nil, err
		}
		l.number++
		if tooLong {
			return nil, errLongLine
		}
		return l.trim(), nil
	}
}

// trim takes off the line's end, and a byte order mark of the first line, which editors on Windows write.
func (l *lineReader) trim() []byte {
	line := bytes.TrimSuffix(l.line, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if l.number == 1 {
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	return line
}
