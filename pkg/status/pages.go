package status

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
)

const (
	// pageRoom is how many bytes a page has before what is new goes to another one: a change of one Envoy says a page
	// again, and with 5,000 of them there are three hundred pages.
	pageRoom = 4 << 10
	// pageFull is how large a page may become by what is in it already.
	pageFull = 64 << 10
)

// XdsPage is a part of what an xDS server reports: the last message of its subject is the page as it is.
type XdsPage struct {
	// ID of the server, and when it was started.
	ID        string `json:"id"`
	StartedAt string `json:"started_at"`
	// Page is its number, and Seq that of the server's change that made it what it is.
	Page int32 `json:"page"`
	Seq  int64 `json:"seq"`
	// Proxies are without what they have applied, which the [XdsStatus] says.
	Proxies    []ProxyStatus      `json:"proxies,omitempty"`
	Rejected   []RejectedResource `json:"rejected,omitempty"`
	Absent     []AbsentProxy      `json:"absent,omitempty"`
	Unresolved []string           `json:"unresolved,omitempty"`
}

func (p XdsPage) empty() bool {
	return len(p.Proxies)+len(p.Rejected)+len(p.Absent)+len(p.Unresolved) == 0
}

// mark is what a page adds to the digest of all. The sum of weaker hashes, such as FNV's, is the same for pages whose
// numbers are exchanged.
func mark(page int32, seq int64) uint64 {
	h := sha256.Sum256(fmt.Appendf(nil, "%d/%d", page, seq))
	return binary.BigEndian.Uint64(h[:])
}

func digest(sum uint64) string { return fmt.Sprintf("%016x", sum) }

// Pages are what an xDS server has to report, in parts, so that a change costs what it changes and no message is larger
// than NATS takes. It is for one goroutine.
type Pages struct {
	id, started string
	where       map[string]int32 // by key
	pages       []*sheet
	room        map[int32]struct{} // those that have some
	changed     map[int32]struct{} // since they were said
	seq         int64
	sum         uint64
	next        int // of those that are said again
}

type sheet struct {
	items map[string]any
	sizes map[string]int
	size  int
	seq   int64
	said  []byte // as it was said last; nil where it is empty
}

// NewPages returns the pages of a server without anything; id and started are as in its reports.
func NewPages(id, started string) *Pages {
	return &Pages{
		id: id, started: started, where: map[string]int32{}, room: map[int32]struct{}{}, changed: map[int32]struct{}{},
	}
}

// Put adds an item, or replaces the one of the same key: a [ProxyStatus], [RejectedResource], [AbsentProxy] or string.
// It says whether that is another one than before.
func (p *Pages) Put(key string, item any) bool {
	at, there := p.where[key]
	if there && reflect.DeepEqual(p.pages[at].items[key], item) {
		return false
	}
	raw, err := json.Marshal(item)
	if err != nil {
		return false // none of these types fails
	}
	if there {
		s := p.pages[at]
		if s.size+len(raw)-s.sizes[key] <= pageFull {
			s.size += len(raw) - s.sizes[key]
			s.items[key], s.sizes[key] = item, len(raw)
			p.touch(at)
			return true
		}
		p.Delete(key)
	}
	at = p.free()
	s := p.pages[at]
	s.items[key], s.sizes[key] = item, len(raw)
	s.size += len(raw)
	p.where[key] = at
	p.touch(at)
	return true
}

// Delete takes an item out.
func (p *Pages) Delete(key string) {
	at, there := p.where[key]
	if !there {
		return
	}
	delete(p.where, key)
	s := p.pages[at]
	s.size -= s.sizes[key]
	delete(s.items, key)
	delete(s.sizes, key)
	p.touch(at)
}

func (p *Pages) touch(at int32) {
	p.changed[at] = struct{}{}
	if p.pages[at].size < pageRoom {
		p.room[at] = struct{}{}
	} else {
		delete(p.room, at)
	}
}

// free is a page with room, one that will be said anyway where there is one.
func (p *Pages) free() int32 {
	for at := range p.changed {
		if _, room := p.room[at]; room {
			return at
		}
	}
	for at := range p.room {
		return at
	}
	p.pages = append(p.pages, &sheet{items: map[string]any{}, sizes: map[string]int{}})
	return int32(len(p.pages) - 1)
}

// Changed says whether there is something to be said.
func (p *Pages) Changed() bool { return len(p.changed) > 0 }

// Digest is that of all pages as they were said last.
func (p *Pages) Digest() string { return digest(p.sum) }

// Message is a page to be published.
type Message struct {
	subject string
	// Data is an [XdsPage] as JSON.
	Data []byte
}

// Say returns the pages that have changed, and takes them for said.
func (p *Pages) Say() ([]Message, error) {
	var out []Message
	for _, at := range slices.Sorted(maps.Keys(p.changed)) {
		s := p.pages[at]
		if s.said != nil {
			p.sum -= mark(at, s.seq)
		}
		p.seq++
		s.seq = p.seq
		page := XdsPage{ID: p.id, StartedAt: p.started, Page: at, Seq: s.seq}
		for _, key := range slices.Sorted(maps.Keys(s.items)) {
			switch x := s.items[key].(type) {
			case ProxyStatus:
				page.Proxies = append(page.Proxies, x)
			case RejectedResource:
				page.Rejected = append(page.Rejected, x)
			case AbsentProxy:
				page.Absent = append(page.Absent, x)
			case string:
				page.Unresolved = append(page.Unresolved, x)
			}
		}
		raw, err := json.Marshal(page)
		if err != nil {
			return nil, fmt.Errorf("report status: %w", err)
		}
		if s.said = nil; !page.empty() {
			s.said = raw
			p.sum += mark(at, s.seq)
		}
		out = append(out, Message{pageSubject(p.id, at), raw})
	}
	clear(p.changed)
	return out, nil
}

// Again returns some pages as they were said last, others at each call: within so many calls it was all of them.
func (p *Pages) Again(calls int) []Message {
	var out []Message
	for range (len(p.pages) + calls - 1) / calls {
		if p.next >= len(p.pages) {
			p.next = 0
		}
		if s := p.pages[p.next]; s.said != nil {
			out = append(out, Message{pageSubject(p.id, int32(p.next)), s.said})
		}
		p.next++
	}
	return out
}

// pageSubject is where a page is published.
func pageSubject(id string, page int32) string { return xdsPrefix + id + "." + strconv.Itoa(int(page)) }
