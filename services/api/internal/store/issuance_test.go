package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/services/api/internal/pgtest"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// TestIssuanceLease: what is due is taken by one holder, who alone writes it while it lasts; another one gets it when it
// has ended, and what is wanted anew takes the work from whoever is at it.
func TestIssuanceLease(t *testing.T) {
	st := opened(t, pgtest.Database(t), secret)
	ctx := t.Context()
	want := func(x store.Issuance) {
		t.Helper()
		if err := st.WantIssuance(ctx, x); err != nil {
			t.Fatal(err)
		}
	}
	take := func(holder string, lease time.Duration) []store.Issuance {
		t.Helper()
		got, err := st.TakeIssuances(ctx, holder, 10, lease)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	due := time.Now().Add(-time.Second)
	want(store.Issuance{Certificate: "a", UID: "1", Issuer: "ca", Wanted: "w", NextAt: due})
	want(store.Issuance{Certificate: "later", UID: "2", Issuer: "ca", Wanted: "w", NextAt: time.Now().Add(time.Hour)})
	mine := take("one", time.Hour)
	if len(mine) != 1 || mine[0].Certificate != "a" || len(take("two", time.Hour)) != 0 {
		t.Fatalf("taken: %+v", mine)
	}
	if still, err := st.HoldIssuances(ctx, "one", time.Millisecond); err != nil || !still["a"] {
		t.Errorf("%v %v", still, err)
	}
	x := mine[0]
	x.OrderURL, x.Step = "https://ca.test/order/1", "validating"
	if err := st.SaveIssuance(ctx, "one", x, false); err != nil {
		t.Error(err)
	}
	var next []store.Issuance
	for deadline := time.Now().Add(10 * time.Second); len(next) == 0 && time.Now().Before(deadline); {
		next = take("two", time.Hour) // the first one's lease ends
	}
	if len(next) != 1 || next[0].OrderURL != x.OrderURL {
		t.Fatalf("the next holder gets %+v", next)
	}
	if err := st.SaveIssuance(ctx, "one", x, false); !errors.Is(err, store.ErrTaken) {
		t.Errorf("who has lost it writes it: %v", err)
	}
	want(store.Issuance{Certificate: "a", UID: "1", Issuer: "ca", Wanted: "other", NextAt: due})
	if err := st.SaveIssuance(ctx, "two", next[0], true); !errors.Is(err, store.ErrTaken) {
		t.Errorf("what is not wanted any more is written: %v", err)
	}
	if err := st.ReleaseIssuance(ctx, "two", "a"); err != nil || len(take("one", time.Hour)) != 1 {
		t.Errorf("what was released is not taken: %v", err)
	}
	counts, overdue, err := st.CountIssuances(ctx)
	if err != nil || overdue != 0 || counts[[2]string{"ca", "pending"}] != 2 {
		t.Errorf("%v %d %v", counts, overdue, err)
	}
	if err := st.DropIssuances(ctx, []string{"a", "later"}); err != nil {
		t.Error(err)
	}
	if rows, err := st.Issuances(ctx); err != nil || len(rows) != 0 {
		t.Errorf("%+v %v", rows, err)
	}
}

// TestOrderLimit: an issuer makes no more orders than it may, and it is said when the next one may be made.
func TestOrderLimit(t *testing.T) {
	st := opened(t, pgtest.Database(t), secret)
	for n := range 3 {
		if ok, _, err := st.CountOrder(t.Context(), "ca", 3, time.Hour); err != nil || !ok {
			t.Fatalf("order %d: %v %v", n, ok, err)
		}
	}
	ok, free, err := st.CountOrder(t.Context(), "ca", 3, time.Hour)
	if err != nil || ok || time.Until(free) < 59*time.Minute || time.Until(free) > time.Hour {
		t.Errorf("a fourth: %v, free at %s, %v", ok, free, err)
	}
	if ok, _, err := st.CountOrder(t.Context(), "other", 3, time.Hour); err != nil || !ok {
		t.Errorf("another issuer's: %v %v", ok, err)
	}
}
