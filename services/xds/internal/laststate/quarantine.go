package laststate

import (
	"bytes"
	"crypto/sha256"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Quarantined is a part of the quarantine snapshot: something that a gateway's Envoys are served although the
// configuration says otherwise. The names of the fields are those of the file: gob finds them by name.
type Quarantined struct {
	Gateway string
	// Kind says what it is about:
	//   - "": an Envoy resource that was rejected, for a Reason; without one it is held back by another's rejection. Good
	//     and Pinned are what is served in its place.
	//   - AuthPolicy: a policy that is gone, while routes that are served in place of rejected ones still name it. Good is
	//     the policy itself.
	//   - Service: Pinned are the clusters and endpoints of services that are served as they were, because their names
	//     have no address.
	Kind string
	// Type is the type URL of the Envoy resource, "" of the other kinds.
	Type, Name      string
	Version, Reason string
	Revision        int64
	GoodRevision    int64
	Good            *Body
	Pinned          []Body
	// Closed are the policies of a rejected filter config that refuse every request, where the others of it are served.
	Closed []string
}

// Body is an Envoy resource.
type Body struct {
	Type, Name, Version string
	Bytes               []byte
	Clusters            []string
	Secrets, Policies   []string
	// Needs are type and name, in turn.
	Needs []string
	// Objects are kind and name, in turn.
	Objects []string
}

// The snapshot's file, and what binds the sealed bytes to it, are called what they were called first, so that a server
// reads what the version before has written.
const quarantineSuffix = ".verdicts"

var quarantineFile = []byte("verdicts")

// SaveQuarantine writes the quarantine snapshot, sealed, where it is not what was written last.
func (f *File) SaveQuarantine(all []Quarantined) error {
	if len(all) == 0 && f.nothingQuarantined {
		return nil // as at nearly every change
	}
	var plain bytes.Buffer
	if err := gob.NewEncoder(&plain).Encode(all); err != nil {
		return fmt.Errorf("quarantine snapshot: %w", err)
	}
	sum := sha256.Sum256(plain.Bytes())
	if sum == f.quarantine {
		return nil
	}
	f.nothingQuarantined = false
	if err := f.writeBeside(quarantineSuffix, quarantineFile, plain.Bytes()); err != nil {
		return fmt.Errorf("quarantine snapshot: %w", err)
	}
	f.quarantine, f.nothingQuarantined = sum, len(all) == 0
	return nil
}

// Quarantine reads the quarantine snapshot; nothing where nothing was quarantined, or where this key does not open it.
func (f *File) Quarantine() ([]Quarantined, error) {
	plain, err := f.readBeside(quarantineSuffix, quarantineFile)
	if err != nil {
		return nil, fmt.Errorf("quarantine snapshot: %w", err)
	}
	if plain == nil {
		return nil, nil // the Envoys will judge again
	}
	var all []Quarantined
	if err := gob.NewDecoder(bytes.NewReader(plain)).Decode(&all); err != nil {
		return nil, nil //nolint:nilerr // of another version of this program
	}
	for i := range all { // a server from before Kind has said it in the place of the type
		if q := &all[i]; q.Type == resource.KindAuthPolicy || q.Type == resource.KindService {
			q.Kind, q.Type = q.Type, ""
		}
	}
	return all, nil
}

// writeBeside replaces a file of its own beside the journal, sealed; what says what is bound to the sealed bytes.
func (f *File) writeBeside(suffix string, what, plain []byte) error {
	tmp := f.path + suffix + ".new"
	err := os.WriteFile(tmp, f.aead.Seal(nil, nil, plain, what), 0o600)
	if err == nil {
		err = os.Rename(tmp, f.path+suffix)
	}
	if err != nil {
		_ = os.Remove(tmp) // it takes the room that is missing
	}
	return err
}

// readBeside reads such a file; nil where there is none, or where it is another key's, or torn.
func (f *File) readBeside(suffix string, what []byte) ([]byte, error) {
	raw, err := os.ReadFile(f.path + suffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	plain, err := f.aead.Open(nil, nil, raw, what)
	if err != nil {
		return nil, nil //nolint:nilerr // as the comment says
	}
	return plain, nil
}
