package bpf

import (
	"errors"
	"net/netip"
)

// networks are a ruleset's policies' networks and lists, put together to what packets are looked up in. They are
// brought from one ruleset to the next by what differs. The zero value is that of the empty ruleset.
type networks struct {
	trie4, trie6 trie
	policies     map[uint32][]netip.Prefix
	allow, deny  []netip.Prefix
}

// edit is one prefix that says something else than before; 0 stands for nothing.
type edit struct {
	prefix   netip.Prefix
	kind     kind
	from, to uint32
}

// set makes n those of r, or leaves n as it was where r contradicts itself; the error is that of [Ruleset.Validate].
// It keeps r's lists, by which it knows next time that they are the same.
func (n *networks) set(r *Ruleset) error {
	edits, ok := n.edits(r)
	for i, e := range edits {
		if ok = ok && n.family(e.prefix).change(e.prefix, e.kind, e.from, e.to); !ok {
			n.undo(edits[:i])
			break
		}
	}
	if ok && max(n.trie4.prefixes, n.trie6.prefixes) > MaxPrefixes {
		n.undo(edits)
		ok = false
	}
	if !ok {
		if err := r.Validate(); err != nil {
			return err
		}
		return errors.New("networks: a ruleset that is valid contradicts itself") // a bug
	}
	n.allow, n.deny = r.Allow, r.Deny
	n.policies = make(map[uint32][]netip.Prefix, len(r.Policies))
	for i := range r.Policies {
		n.policies[r.Policies[i].ID] = r.Policies[i].CIDRs
	}
	return nil
}

func (n *networks) undo(done []edit) {
	for i := len(done) - 1; i >= 0; i-- {
		e := done[i]
		n.family(e.prefix).change(e.prefix, e.kind, e.to, e.from)
	}
}

func (n *networks) family(p netip.Prefix) *trie {
	if p.Addr().Is4() {
		return &n.trie4
	}
	return &n.trie6
}

// edits lead from n to r: what goes first, so that a prefix can move from one policy to another. ok is false
// where r has something that is no prefix.
func (n *networks) edits(r *Ruleset) (edits []edit, ok bool) {
	var added []edit
	ok = true
	list := func(k kind, v uint32, have, want []netip.Prefix) {
		gone, fresh := differing(have, want)
		for _, p := range gone {
			edits = append(edits, edit{p.Masked(), k, v, 0})
		}
		for _, p := range fresh {
			ok = ok && p.IsValid() && !p.Addr().Is4In6()
			added = append(added, edit{p.Masked(), k, 0, v})
		}
	}
	there := make(map[uint32]bool, len(r.Policies))
	for i := range r.Policies {
		p := &r.Policies[i]
		there[p.ID] = true
		list(ofPolicy, p.ID+triePolicy, n.policies[p.ID], p.CIDRs)
	}
	for id, have := range n.policies {
		if !there[id] {
			list(ofPolicy, id+triePolicy, have, nil)
		}
	}
	list(ofList, trieAllow, n.allow, r.Allow)
	list(ofList, trieDeny, n.deny, r.Deny)
	return append(edits, added...), ok
}

// differing gives what only one of two lists has. What they share at either end, which is mostly all, is not looked
// up.
func differing(have, want []netip.Prefix) (gone, fresh []netip.Prefix) {
	if len(have) == len(want) && (len(have) == 0 || &have[0] == &want[0]) {
		return nil, nil
	}
	for len(have) > 0 && len(want) > 0 && have[0] == want[0] {
		have, want = have[1:], want[1:]
	}
	for len(have) > 0 && len(want) > 0 && have[len(have)-1] == want[len(want)-1] {
		have, want = have[:len(have)-1], want[:len(want)-1]
	}
	old := make(map[netip.Prefix]bool, len(have))
	for _, p := range have {
		old[p.Masked()] = true
	}
	for _, p := range want {
		// One that stands twice in want is found missing the second time, and so reported.
		if m := p.Masked(); old[m] {
			delete(old, m)
		} else {
			fresh = append(fresh, p)
		}
	}
	for p := range old {
		gone = append(gone, p)
	}
	return gone, fresh
}
