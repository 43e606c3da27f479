package laststate

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// load reads the file and goes on with it, or writes it anew where its tail is torn.
func (f *File) load() (Saved, bool, error) {
	file, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Saved{}, false, nil
	}
	if err != nil {
		return Saved{}, false, fmt.Errorf("last state: %w", err)
	}
	saved, found, whole, err := f.read(file)
	if err == nil && found && whole {
		_, err = file.Seek(f.size, io.SeekStart)
	}
	switch {
	case err != nil:
		_ = file.Close() // only read
		return Saved{}, false, fmt.Errorf("last state: %w", err)
	case !found:
		_ = file.Close() // only read
		if err := os.Rename(f.path, f.path+".unreadable"); err != nil {
			return Saved{}, false, fmt.Errorf("last state: %w", err)
		}
		return Saved{}, false, nil
	}
	f.notes, f.commit = saved.Notes, saved.Commit
	maps.Copy(f.names, saved.Names)
	if f.f = file; !whole {
		// If the disk has no room for the new file, the old one stays.
		_ = f.rewrite(saved.Commit, saved.Objects) // [File.Behind] says so
	}
	return saved, true, nil
}

// read reads as far as frames are good; whole says that there is nothing else.
func (f *File) read(file *os.File) (saved Saved, found, whole bool, err error) {
	info, err := file.Stat()
	if err != nil {
		return saved, false, false, err
	}
	in, left := bufio.NewReaderSize(file, 1<<20), info.Size()
	take := func(n int64, into []byte) ([]byte, error) {
		if n > left {
			return nil, io.ErrUnexpectedEOF
		}
		left -= n
		into = slices.Grow(into[:0], int(n))[:n]
		_, err := io.ReadFull(in, into)
		return into, err
	}
	objects := map[resource.Ref]*resource.Object{}
	saved.Names = map[string][]netip.Addr{}
	raw, err := take(int64(len(magic)), nil)
	begun := err == nil && bytes.Equal(raw, magic) // and no snapshot is in pieces
	var plain []byte
	for size := int64(len(magic)); begun; {
		if raw, err = take(4, raw); err != nil {
			break
		}
		n := int64(binary.BigEndian.Uint32(raw))
		if raw, err = take(n, raw); err != nil {
			break
		}
		if plain, err = f.aead.Open(plain[:0], nil, raw, position(f.count)); err != nil {
			break
		}
		fr, err := parse(plain)
		if err != nil {
			break
		}
		if err = fr.replay(objects, &saved); err != nil {
			break
		}
		f.count++
		size += 4 + n
		if found = !fr.More; found {
			f.size = size
		}
		if found && f.snapshot == 0 {
			f.snapshot = size
		}
	}
	for _, o := range objects {
		saved.Objects = append(saved.Objects, o)
	}
	return saved, found, f.size == info.Size(), nil // what was wrong with the rest is no matter
}

// Compact takes a new snapshot when it is time, or when something could not be written before. objects lists the whole
// configuration.
func (f *File) Compact(c resource.Commit, objects func() []*resource.Object) error {
	if f.next != nil || (f.f != nil && f.behind == nil && !f.Grown()) {
		return f.behind
	}
	return f.rewrite(c, objects())
}

// Grown says whether it is time for a new snapshot.
func (f *File) Grown() bool {
	return f.f != nil && f.next == nil && f.size > max(minimum, growth*f.snapshot)
}

// Snapshot is a file that is to take another one's place.
type Snapshot struct {
	to      File
	commit  resource.Commit
	objects []*resource.Object
	// since are the frames that have been added to the other one; lacks says that one could not be.
	since [][]byte
	lacks bool
}

// Begin begins a snapshot of a configuration that has every commit which the file holds; there is one at a time.
// [Snapshot.Write] may take its time, beside everything that is done with the file; [File.Finish] ends it.
func (f *File) Begin(c resource.Commit, objects []*resource.Object) *Snapshot {
	f.next = &Snapshot{
		to:     File{path: f.path + ".new", aead: f.aead, notes: f.notes, names: maps.Clone(f.names)},
		commit: c, objects: objects,
	}
	return f.next
}

// Write writes it.
func (s *Snapshot) Write() (err error) {
	f := &s.to
	if f.f, err = os.OpenFile(f.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	if _, err := f.f.Write(magic); err != nil {
		return err
	}
	f.size = int64(len(magic))
	for begin := 0; begin == 0 || begin < len(s.objects); begin += part {
		end := min(begin+part, len(s.objects))
		fr := frame{Reset: begin == 0, More: end < len(s.objects), Notes: f.notes}
		if fr.Reset {
			fr.Names = f.names
		}
		if err := fr.fill(s.commit, s.objects[begin:end]); err != nil {
			return err
		}
		if err := f.add(fr.plain()); err != nil {
			return err
		}
	}
	return f.f.Sync()
}

// Finish puts a snapshot in the file's place, with what was added meanwhile; err is what came of writing it. After an
// error the file is what it was, and what was begun is removed: it takes the room that is missing.
func (f *File) Finish(s *Snapshot, err error) error {
	f.next = nil
	if err == nil && s.lacks {
		err = f.behind
	}
	next := &s.to
	snapshot := next.size
	for _, plain := range s.since {
		if err == nil {
			err = next.add(plain)
		}
	}
	if err == nil {
		err = os.Rename(next.path, f.path)
	}
	if err != nil {
		if next.f != nil {
			_ = next.f.Close() // it is removed
		}
		if gone := os.Remove(next.path); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return fmt.Errorf("last state: %w", err)
	}
	old := f.f
	f.f, f.size, f.count, f.snapshot, f.behind = next.f, next.size, next.count, snapshot, nil
	if old != nil {
		return old.Close()
	}
	return nil
}

// rewrite takes a snapshot at once.
func (f *File) rewrite(c resource.Commit, objects []*resource.Object) error {
	s := f.Begin(c, objects)
	if err := f.Finish(s, s.Write()); err != nil {
		f.behind = err
		return err
	}
	f.commit = c
	return nil
}
