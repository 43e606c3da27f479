package enforce

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/stream"
)

// saved is the first line of the last good state; each other line is a policy as it was published, since
// its bytes are hashed. Policies hold no secrets.
type saved struct {
	Commit stream.Commit `json:"commit"`
	// Numbers of the policies in the kernel.
	Numbers ids `json:"numbers"`
}

func statePath(dir string) string { return filepath.Join(dir, "policies.jsonl") }

// load reads the last good state; found is false where there is none.
func load(dir string) (s saved, objects []*resource.Object, found bool, err error) {
	raw, err := os.ReadFile(statePath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil, false, nil
	}
	head, rest, _ := bytes.Cut(raw, []byte("\n"))
	if err == nil {
		err = json.Unmarshal(head, &s)
	}
	for line := range bytes.SplitSeq(bytes.TrimSpace(rest), []byte("\n")) {
		if err != nil || len(line) == 0 {
			break
		}
		var o *resource.Object
		o, err = resource.ParsePayload(line)
		objects = append(objects, o)
	}
	if err != nil {
		return s, nil, false, fmt.Errorf("read %s: %w", statePath(dir), err)
	}
	return s, objects, true, nil
}

// save writes the state so that a killed agent leaves the old file or the new one. It does not wait for the
// disk: that is [durable]'s part. After a crash of the machine the kernel's maps are gone as well, and what
// comes first is what NATS says.
func save(dir string, s saved, objects []*resource.Object) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	for _, o := range objects {
		raw = append(append(raw, '\n'), o.Payload()...)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	next := statePath(dir) + ".new"
	if err := os.WriteFile(next, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(next, statePath(dir))
}

// durable waits until what was saved last is on the disk.
func durable(dir string) error {
	f, err := os.Open(statePath(dir))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
