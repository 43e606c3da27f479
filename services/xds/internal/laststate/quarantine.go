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

// Record is something that a gateway's Envoys are served although the configuration says otherwise.
type Record struct {
	Gateway string
	// Kind says what the record is about:
	//   - "": an Envoy resource that was refused, for a Reason; without one it is held back by another's refusal. Good
	//     and Pinned are what is served in its place.
	//   - AuthPolicy: a policy that is gone, while routes that are served in the place of refused ones still name it.
	//     Good is the policy itself.
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
	// Closed are the policies of a refused slot that refuse every request, where the others of it are served.
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

// verdictsPlace binds the sealed bytes to their file.
var verdictsPlace = []byte("verdicts")

// SaveVerdicts writes down what is refused, sealed, where it is not what was written last.
func (f *File) SaveVerdicts(records []Record) error {
	if len(records) == 0 && f.unblamed {
		return nil // as at nearly every change
	}
	var plain bytes.Buffer
	if err := gob.NewEncoder(&plain).Encode(records); err != nil {
		return fmt.Errorf("verdicts: %w", err)
	}
	sum := sha256.Sum256(plain.Bytes())
	if sum == f.verdicts {
		return nil
	}
	f.unblamed = false
	tmp := f.path + ".verdicts.new"
	err := os.WriteFile(tmp, f.aead.Seal(nil, nil, plain.Bytes(), verdictsPlace), 0o600)
	if err == nil {
		err = os.Rename(tmp, f.path+".verdicts")
	}
	if err != nil {
		_ = os.Remove(tmp) // it takes the room that is missing
		return fmt.Errorf("verdicts: %w", err)
	}
	f.verdicts, f.unblamed = sum, len(records) == 0
	return nil
}

// Verdicts reads what was refused; none where nothing was, or where this key does not open it.
func (f *File) Verdicts() ([]Record, error) {
	raw, err := os.ReadFile(f.path + ".verdicts")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("verdicts: %w", err)
	}
	plain, err := f.aead.Open(nil, nil, raw, verdictsPlace)
	if err != nil {
		return nil, nil //nolint:nilerr // another key's, or torn: the Envoys will judge again
	}
	var records []Record
	if err := gob.NewDecoder(bytes.NewReader(plain)).Decode(&records); err != nil {
		return nil, nil //nolint:nilerr // of another version of this program
	}
	for i := range records { // a server from before Kind has said it in the place of the type
		if r := &records[i]; r.Type == resource.KindAuthPolicy || r.Type == resource.KindService {
			r.Kind, r.Type = r.Type, ""
		}
	}
	return records, nil
}
