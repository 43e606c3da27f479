package servername

import "container/heap"

// byAge is a heap of the certificates that name a listener, the oldest on top, from which any can be taken.
type byAge struct {
	list []*Certificate
	at   map[string]int
}

func (h *byAge) Len() int           { return len(h.list) }
func (h *byAge) Less(i, j int) bool { return h.list[i].before(h.list[j]) }
func (h *byAge) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.at[h.list[i].Name], h.at[h.list[j].Name] = i, j
}

// Push and Pop are for package heap.
func (h *byAge) Push(x any) {
	c := x.(*Certificate)
	h.at[c.Name] = len(h.list)
	h.list = append(h.list, c)
}

// Pop takes the last one.
func (h *byAge) Pop() any {
	c := h.list[len(h.list)-1]
	h.list[len(h.list)-1] = nil
	h.list = h.list[:len(h.list)-1]
	delete(h.at, c.Name)
	return c
}

func (h *byAge) add(c *Certificate) { heap.Push(h, c) }

func (h *byAge) remove(name string) {
	if i, has := h.at[name]; has {
		heap.Remove(h, i)
	}
}

func (h *byAge) has(name string) bool {
	_, has := h.at[name]
	return has
}

// oldest is nil where there is none.
func (h *byAge) oldest() *Certificate {
	if len(h.list) == 0 {
		return nil
	}
	return h.list[0]
}
