package stream

import (
	"bytes"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// TestReadOnce: an event that the consumer has already is the same object, not parsed again and not there twice.
func TestReadOnce(t *testing.T) {
	ref := resource.Ref{Kind: resource.KindRoute, Name: "a.b"}
	payload := func(revision string) []byte {
		return []byte(`{"kind":"Route","name":"a.b","revision":` + revision + `,"spec":{"direct_response":{"status":200}}}`)
	}
	s := &session{replay: &replay{table: newTable()}}
	first, err := s.entry(Subject(ref), payload("1"))
	if err != nil {
		t.Fatal(err)
	}
	s.table.put(ref, first)
	if again, err := s.entry(Subject(ref), payload("1")); again != first || err != nil {
		t.Errorf("what is there already is read again: %v", err)
	}
	if next, err := s.entry(Subject(ref), payload("2")); err != nil || next == first || next.Revision != 2 ||
		next.sum == first.sum {
		t.Errorf("another revision is not read: %+v %v", next, err)
	}
	if _, err := s.entry(Subject(resource.Ref{Kind: resource.KindRoute, Name: "other"}), payload("1")); err == nil {
		t.Error("an event of another subject is taken")
	}
	if !bytes.HasSuffix(first.Payload(), append(first.Spec, '}')) ||
		&first.Spec[0] != &first.Payload()[len(first.Payload())-1-len(first.Spec)] {
		t.Error("the spec is there twice")
	}
}
