package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/disktest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/seal"
	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

func TestMain(m *testing.M) {
	os.Exit(disktest.Main(func() int { return pgtest.Main(m) }))
}

// TestFullDisk: a write that the database has no room for is refused in its own words, and known not to be stored; the
// trouble is known until there is room, without anybody writing, and then writes go on where they were.
func TestFullDisk(t *testing.T) {
	disk := disktest.New(t, 64<<20)
	s := opened(t, pgtest.DatabaseIn(t, disk.Dir), secret)
	box, err := seal.New("a secret of the test's own")
	if err != nil {
		t.Fatal(err)
	}
	w, err := writer.New(t.Context(), s, box, "", zap.NewNop(), func(store.Committed) {})
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string) error {
		_, err := w.Write(t.Context(), writer.Meta{
			Who: auth.Identity{Name: "test", Role: auth.Admin},
		}, func(*config.State) (writer.Plan, error) {
			spec := &configv1.Service{}
			for k := range 200 {
				spec.Endpoints = append(spec.Endpoints, &configv1.Endpoint{
					Host: fmt.Sprintf("192.0.2.%d", k),
					Port: uint32(1 + len(name)*k), Zone: fmt.Sprint(name, k),
				})
			}
			return writer.Plan{Upserts: []writer.Desired{{
				Ref: resource.Ref{Kind: resource.KindService, Name: name}, Spec: spec,
				Path: "$", SpecPath: "$",
			}}}, nil
		})
		return err
	}
	if err := write("before"); err != nil {
		t.Fatal(err)
	}
	changed := make(chan struct{}, 16)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, zap.NewNop(), func() { changed <- struct{}{} })
	}()
	defer func() { stop(); <-done }()
	if err := disk.Fill(); err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for k := 0; err == nil; k++ {
		if k == 1000 {
			t.Fatal("a full disk takes a thousand writes")
		}
		last = w.Revision()
		err = write(fmt.Sprint("full", k))
	}
	// A table that cannot grow, or, for who has a new connection, the catalog's file that each new server process may write.
	const want = "the database's disk is full: could not "
	if why := store.Why(err); !strings.HasPrefix(why, want) || !store.NotStored(err) || errors.Is(err, writer.ErrUnknown) {
		t.Errorf("%q of %v", why, err)
	}
	if got, bad := s.Trouble(); !bad || !strings.HasPrefix(got.Reason, want) {
		t.Errorf("%v %+v", bad, got)
	}
	if head, err := s.Head(t.Context()); err != nil || head.Revision != last {
		t.Errorf("revision %d, %v; %d was written last", head.Revision, err, last)
	}
	<-changed
	if err := disk.Empty(); err != nil {
		t.Fatal(err)
	}
	limit := time.After(30 * time.Second)
	for bad := true; bad; {
		select {
		case <-changed:
			_, bad = s.Trouble()
		case <-limit:
			got, _ := s.Trouble()
			t.Fatalf("the trouble stays: %+v", got)
		}
	}
	if err := write("after"); err != nil || w.Revision() != last+1 {
		t.Errorf("with room: revision %d after %d, %v", w.Revision(), last, err)
	}
}
