// Package backup is `marchproxy-api backup` and `restore`: all that PostgreSQL holds in one file, and back. The file is
// text in gzip: a header, each table as PostgreSQL's COPY writes it, and a signature over all of it. No program of
// PostgreSQL's is needed (docs/adr/0049).
package backup

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// format is what the header says of the file.
const format = "marchproxy backup v1"

// purpose is what the signature is for.
const purpose = "backup"

// header is the first line.
type header struct {
	Format string    `json:"format"`
	MadeAt time.Time `json:"made_at"`
	store.Origin
}

// footer is the last line: what was before it, signed.
type footer struct {
	Rows      int64  `json:"rows"`
	SHA256    []byte `json:"sha256"`
	Key       string `json:"key"`
	Signature []byte `json:"signature"`
}

// end is the line after a table's last row, as in psql.
const end = `\.` + "\n"

// fileWriter writes a file; it is a [store.Sink].
type fileWriter struct {
	box      *seal.Box
	packed   *gzip.Writer
	to       io.Writer // packed, and summed up
	sum      hash.Hash
	progress *progress
	rows     int64
}

func newWriter(w io.Writer, box *seal.Box, p *progress) (*fileWriter, error) {
	packed, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	return &fileWriter{box: box, packed: packed, sum: sum, to: io.MultiWriter(packed, sum), progress: p}, nil
}

func (w *fileWriter) line(v any) error { return line(w.to, v) }

func line(to io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = to.Write(append(raw, '\n'))
	return err
}

// Begin implements [store.Sink].
func (w *fileWriter) Begin(o store.Origin) error {
	return w.line(header{Format: format, MadeAt: time.Now().UTC().Truncate(time.Second), Origin: o})
}

// Table implements [store.Sink].
func (w *fileWriter) Table(t store.Table) (io.Writer, error) {
	w.progress.begin("writing " + t.Name)
	return io.MultiWriter(w.to, w.progress), w.line(t)
}

// End implements [store.Sink].
func (w *fileWriter) End(rows int64) error {
	w.rows += rows
	_, err := io.WriteString(w.to, end)
	return err
}

// close signs the file.
func (w *fileWriter) close() error {
	f := footer{Rows: w.rows, SHA256: w.sum.Sum(nil)}
	f.Key, f.Signature = w.box.Sign(purpose, f.SHA256)
	if err := line(w.packed, f); err != nil {
		return err
	}
	return w.packed.Close()
}

// fileReader reads a file; it is a [store.Source].
type fileReader struct {
	box      *seal.Box
	in       *bufio.Reader
	packed   *gzip.Reader
	sum      hash.Hash
	progress *progress
	header   header
	rows     int64
	table    *rows // that is being read
}

// errDamaged is what is said of a file that is not whole.
var errDamaged = errors.New("the file is damaged, or was cut off: nothing was restored. Take another backup")

// damaged adds what gzip or JSON say, in words alone: an end of the file in the wrong place must not look as one in the
// right place.
func damaged(err error) error { return fmt.Errorf("%w (%s)", errDamaged, err.Error()) }

func newReader(r io.Reader, box *seal.Box, p *progress) (*fileReader, error) {
	packed, err := gzip.NewReader(io.TeeReader(r, p))
	if err != nil {
		return nil, fmt.Errorf("this is no backup of marchproxy: %w", err)
	}
	out := &fileReader{
		box: box, packed: packed, in: bufio.NewReaderSize(packed, 1<<20), sum: sha256.New(), progress: p,
	}
	raw, err := out.in.ReadBytes('\n')
	if err != nil {
		return nil, damaged(err)
	}
	out.sum.Write(raw)
	if err := json.Unmarshal(raw, &out.header); err != nil || out.header.Format != format {
		return nil, fmt.Errorf("this is no backup that this version can read: it says %.60q, not %q", out.header.Format,
			format)
	}
	return out, nil
}

// Origin implements [store.Source].
func (r *fileReader) Origin() store.Origin { return r.header.Origin }

// Next implements [store.Source].
func (r *fileReader) Next() (store.Table, io.Reader, error) {
	var t struct {
		store.Table
		footer
	}
	if r.table != nil && !r.table.done {
		return t.Table, nil, errors.New("a table was not read to its end")
	}
	raw, err := r.in.ReadBytes('\n')
	if err != nil {
		return t.Table, nil, damaged(err)
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return t.Table, nil, damaged(err)
	}
	if t.Name == "" {
		return t.Table, nil, r.close(t.footer)
	}
	r.sum.Write(raw)
	r.progress.begin("restoring " + t.Name)
	r.table = &rows{of: r, first: true}
	return t.Table, r.table, nil
}

// close says io.EOF where the file is what was signed.
func (r *fileReader) close(f footer) error {
	if _, err := r.in.ReadByte(); !errors.Is(err, io.EOF) { // gzip compares its own sum here
		return damaged(errors.Join(errors.New("the file does not end after the signature"), err))
	}
	if !bytes.Equal(f.SHA256, r.sum.Sum(nil)) || f.Rows != r.rows {
		return damaged(errors.New("its hash is another one"))
	}
	switch signed, known := r.box.Signed(f.Key, purpose, f.SHA256, f.Signature); {
	case !known:
		return fmt.Errorf("the backup was signed with another SECRET_KEY (key %s), and nothing was restored: set it to the "+
			"one of the time of the backup; several with commas: the first seals, all open", f.Key)
	case !signed:
		return damaged(errors.New("its signature is not that of SECRET_KEY: somebody else has written it"))
	}
	return io.EOF
}

// rows are a table's, up to the line that ends it.
type rows struct {
	of    *fileReader
	rest  []byte // of a line that was longer than what was asked for
	first bool   // the rest of the file is at the beginning of a line
	done  bool
}

// Read implements [io.Reader].
func (r *rows) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.done {
			return 0, io.EOF
		}
		part, err := r.of.in.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return 0, damaged(err)
		}
		r.of.sum.Write(part)
		begins, whole := r.first, err == nil
		if r.first = whole; begins && string(part) == end {
			r.done = true
			continue
		}
		if whole {
			r.of.rows++
		}
		r.rest = part
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
