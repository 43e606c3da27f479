// Package laststate keeps the last good configuration on disk, sealed, so that the xDS server starts
// and serves while NATS, the api and PostgreSQL are all down.
//
// The file is a journal: a snapshot of every object, then one frame for each commit applied since.
// A frame is written before its commit is served, without fsync: what has been written survives the
// process being killed, and a machine that loses power replays the event stream anyway. A torn or
// altered tail is cut off. The journal is written anew when it has grown to several times its snapshot, beside what is
// added meanwhile.
//
// The addresses that DNS names of services had last belong to it: nobody else knows them while DNS is away.
//
// # States of the file
//
//	Open: no file, or one of another key, which is set aside
//	 │
//	 │    ┌──────────────────────────────────────────────┐
//	 ├───►│                    none                      │
//	 │    └──────────────────────┬───────────────────────┘
//	 │                           │ Compact: the first snapshot
//	 │ Open: a file is read      ▼
//	 │    ┌──────────────────────────────────────────────┐  Append, Resolved, Note:
//	 └───►│                   current                    │  a frame is added
//	      │ has every commit that is served              ├───────────────────┐
//	      │                                              │◄──────────────────┘
//	      └──┬──────────▲─────────────────┬───────────▲──┘
//	         │ Begin,   │ Finish: it      │ a frame   │ Compact: a snapshot
//	         │ when it  │ takes the       │ cannot    │ is written
//	         │ has      │ file's place,   │ be        │
//	         │ grown    │ or is removed   │ written   │
//	      ┌──▼──────────┴─────────┐   ┌───▼───────────┴──────┐
//	      │ current, and a        │   │        behind        │
//	      │ snapshot is written   │   │ nothing is added, as │
//	      │ beside; frames go to  │   │ a commit is missing; │
//	      │ both                  │   │ its state is good    │
//	      └───────────────────────┘   └──────────────────────┘
//
// The quarantine snapshot is a file of its own, written anew where it changes: see quarantine.go.
package laststate

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Growth is how many times its snapshot's size, and at least minimum bytes, a journal may be.
const (
	growth  = 4
	minimum = 4 << 20
)

// part is how many objects a frame of a snapshot has at most: neither writing it nor reading it again takes memory for
// all of them at once.
const part = 1000

// magic starts the file; the last digit is the format's version.
var magic = []byte("MPXSTATE1")

// Notes is what the server wants to remember beside the configuration.
type Notes struct {
	// ConfigVersion is the version of the document last accepted at POST /v1/config.
	ConfigVersion string
	// Document is that document as it is reported, in JSON; "" of a server of an older version.
	Document string
}

// File is the journal. It is not safe for concurrent use.
type File struct {
	path     string
	aead     cipher.AEAD
	f        *os.File
	size     int64
	snapshot int64
	count    uint64
	notes    Notes
	names    map[string][]netip.Addr
	commit   resource.Commit
	// quarantine is the digest of the quarantine snapshot last written, and nothingQuarantined says that it was empty.
	quarantine         [sha256.Size]byte
	nothingQuarantined bool
	// behind is why the file lacks what came last; nil where it lacks nothing. Nothing is appended then: a state
	// without one of its commits is none that there ever was. It has to be written anew, see [File.Compact].
	behind error
	// next is the snapshot that is being written, if one is.
	next *Snapshot
}

// Saved is the content of a file.
type Saved struct {
	Commit  resource.Commit
	Objects []*resource.Object
	Notes   Notes
	// Names are the last addresses of DNS names.
	Names map[string][]netip.Addr
}

// Open reads the journal in a directory, or starts one; found is false where there was none that this
// key opens. A file of another key is set aside, not overwritten.
func Open(dir, secret string) (file *File, saved Saved, found bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, saved, false, fmt.Errorf("last state: %w", err)
	}
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "marchproxy xds last state", 32)
	if err != nil {
		return nil, saved, false, fmt.Errorf("last state: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, saved, false, fmt.Errorf("last state: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, saved, false, fmt.Errorf("last state: %w", err)
	}
	file = &File{path: filepath.Join(dir, "last-state"), aead: aead, names: map[string][]netip.Addr{}}
	saved, found, err = file.load()
	if err != nil {
		return nil, saved, false, err
	}
	return file, saved, found, nil
}

// Behind is why the file lacks what came last; nil where it lacks nothing. What it has is good.
func (f *File) Behind() error { return f.behind }

// note keeps why something could not be written.
func (f *File) note(err error) error {
	if f.behind = nil; err != nil {
		f.behind = fmt.Errorf("last state: %w", err)
		if f.next != nil {
			f.next.lacks = true
		}
	}
	return f.behind
}

// Append writes an update down, before it is served. After an error the file keeps the state before, until
// [File.Compact] succeeds.
func (f *File) Append(u resource.Update) error {
	if f.f == nil || f.behind != nil {
		return f.behind // the next snapshot comes with Compact
	}
	return f.note(f.write(u.Commit, u.Changed, nil))
}

// Resolved writes down the addresses that names have now; none for names that nobody has any more. It costs what
// has changed.
func (f *File) Resolved(names map[string][]netip.Addr) error {
	if len(names) == 0 {
		return f.behind
	}
	enter(f.names, names)
	if f.f == nil || f.behind != nil {
		return f.behind // they go with the next snapshot
	}
	return f.note(f.write(f.commit, nil, names))
}

func enter(into, names map[string][]netip.Addr) {
	for host, addrs := range names {
		if len(addrs) == 0 {
			delete(into, host)
		} else {
			into[host] = addrs
		}
	}
}

// Note writes down notes that changed without a commit.
func (f *File) Note(notes Notes) error {
	f.notes = notes
	if f.f == nil || f.behind != nil {
		return f.behind // they go with the next snapshot
	}
	return f.note(f.write(f.commit, nil, nil))
}

// Notes are those last written.
func (f *File) Notes() Notes { return f.notes }

// write adds a frame.
func (f *File) write(c resource.Commit, objects []*resource.Object, names map[string][]netip.Addr) error {
	fr := frame{Notes: f.notes, Names: names}
	if err := fr.fill(c, objects); err != nil {
		return err
	}
	plain := fr.plain()
	if err := f.add(plain); err != nil {
		return err
	}
	f.commit = c
	if f.next != nil {
		f.next.since = append(f.next.since, plain)
	}
	return nil
}

// add seals a frame, and writes it.
func (f *File) add(plain []byte) error {
	out := f.aead.Seal(make([]byte, 4, 4+len(plain)+f.aead.Overhead()), nil, plain, position(f.count))
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	if _, err := f.f.Write(out); err != nil {
		return err
	}
	f.count++
	f.size += int64(len(out))
	return nil
}

// position binds a frame to its position in the file, so that frames cannot be left out or reordered.
func position(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte("frame "), n) }

// Close makes the file durable.
func (f *File) Close() error {
	if f.f == nil {
		return nil
	}
	return errors.Join(f.f.Sync(), f.f.Close())
}

var _ io.Closer = (*File)(nil)
