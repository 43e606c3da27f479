package enforce

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// A lastGood is the file with the last good state: records, each of which leads from the state before to the
// next. So a change costs what changed. When what is outdated is as much as what counts it is written anew.
type lastGood struct {
	path string
	// size of the file as far as it is whole, and how large it was when it was written anew; 0: it must be now.
	size, fresh int64
}

// record is the first line of a record; the other lines are policies as they were published, since their bytes
// are hashed, and tombstones. Policies hold no secrets.
type record struct {
	Commit resource.Commit `json:"commit"`
	// Numbers in the kernel of the policies that follow.
	Numbers ids `json:"numbers"`
	// Policies is how many lines follow.
	Policies int `json:"policies"`
}

// outdatedAtLeast is how many bytes of outdated records a file may have, however small it is: only with more of them is
// it written anew.
const outdatedAtLeast = 1 << 20

func newLastGood(dir string) *lastGood { return &lastGood{path: filepath.Join(dir, "policies.jsonl")} }

// load reads the last good state, each policy once; found is false where there is none. A record that is not whole
// is what an agent was killed over.
func (f *lastGood) load() (last record, objects []*resource.Object, found bool, err error) {
	raw, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return last, nil, false, nil
	}
	if err != nil {
		return last, nil, false, fmt.Errorf("read the last good state: %w", err)
	}
	state, numbers := map[string]*resource.Object{}, ids{}
	rest := raw
	line := func() (out []byte, whole bool) {
		out, rest, whole = bytes.Cut(rest, []byte("\n"))
		return out, whole
	}
	for len(rest) > 0 {
		head, whole := line()
		if !whole {
			break
		}
		var r record
		if err := json.Unmarshal(head, &r); err != nil || r.Commit.Epoch == "" {
			return record{}, nil, false, fmt.Errorf("%s is damaged at byte %d", f.path, len(raw)-len(rest)-len(head)-1)
		}
		var changed []*resource.Object
		for len(changed) < r.Policies && whole {
			var payload []byte
			if payload, whole = line(); !whole {
				break
			}
			o, err := resource.ParsePayload(payload)
			if err != nil {
				return record{}, nil, false, fmt.Errorf("read %s: %w", f.path, err)
			}
			changed = append(changed, o)
		}
		if !whole {
			break
		}
		for _, o := range changed {
			if state[o.Name] = o; o.Deleted {
				delete(state, o.Name)
				delete(numbers, o.Name)
			}
		}
		maps.Copy(numbers, r.Numbers)
		last, found = r, true
	}
	last.Numbers, last.Policies = numbers, len(state)
	return last, slices.Collect(maps.Values(state)), found, nil
}

// save adds a change to the file, or writes all of it anew, so that a killed agent leaves the state before or
// this one. It does not wait for the disk: that is [lastGood.durable]'s part. After a crash of the machine the
// kernel's maps are gone as well, and what comes first is what NATS says.
func (f *lastGood) save(
	c resource.Commit, numbers ids, changed []*resource.Object, all map[string]*resource.Object,
) error {
	if f.fresh == 0 || f.size > 2*f.fresh+outdatedAtLeast {
		return f.rewrite(c, numbers, all)
	}
	raw, err := encode(c, numbers, changed)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|syscall.O_NOFOLLOW, 0)
	if err == nil {
		_, err = file.Write(raw)
		err = errors.Join(err, file.Close())
	}
	if f.size += int64(len(raw)); err != nil {
		return errors.Join(err, f.rewrite(c, numbers, all)) // it may end in half a record, or be gone
	}
	return nil
}

func (f *lastGood) rewrite(c resource.Commit, numbers ids, all map[string]*resource.Object) error {
	f.fresh = 0
	raw, err := encode(c, numbers, slices.Collect(maps.Values(all)))
	if err != nil {
		return err
	}
	if err := process.PrivateDir(filepath.Dir(f.path)); err != nil {
		return fmt.Errorf("MARCHPROXY_STATE_DIR: %w", err)
	}
	if err := process.WritePrivate(f.path, raw); err != nil {
		return err
	}
	f.size, f.fresh = int64(len(raw)), int64(len(raw))
	return nil
}

// encode makes a record.
func encode(c resource.Commit, numbers ids, objects []*resource.Object) ([]byte, error) {
	r := record{Commit: c, Numbers: ids{}, Policies: len(objects)}
	for _, o := range objects {
		if n, ok := numbers[o.Name]; ok {
			r.Numbers[o.Name] = n
		}
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		raw = append(append(raw, '\n'), o.Payload()...)
	}
	return append(raw, '\n'), nil
}

// durable waits until what was saved last is on the disk.
func (f *lastGood) durable() error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
