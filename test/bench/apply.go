package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/test/harness"
)

// patience is how long a bulk apply may take to be live before a benchmark gives up. It is far above every bar: how
// much one is missed by is worth knowing.
const patience = 5 * time.Minute

// Apply applies a document and returns how long it took until it was stored, and until it was live.
func Apply(ctx context.Context, s *harness.System, document map[string]any) (stored, live time.Duration, err error) {
	raw, err := json.Marshal(document)
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	status, body, err := s.Call(ctx, http.MethodPost, s.API+"/v1/apply?wait=live&timeout=60s", string(raw))
	if err != nil {
		return 0, 0, fmt.Errorf("apply: %w", err)
	}
	if status != http.StatusOK && status != http.StatusAccepted {
		return 0, 0, fmt.Errorf("apply: %d %.500s", status, body)
	}
	live = time.Since(begin)
	var res struct {
		Revision int64     `json:"revision"`
		Live     *api.Live `json:"live"`
	}
	if err := json.Unmarshal(body, &res); err != nil {
		return 0, 0, fmt.Errorf("apply: %w", err)
	}
	if res.Live == nil {
		return 0, 0, fmt.Errorf("apply: nothing is said of what is live: %.500s", body)
	}
	stored = live - time.Duration(res.Live.WaitedMS*float64(time.Millisecond))
	if !res.Live.Live {
		err = AwaitLive(ctx, s, res.Revision)
		live = time.Since(begin)
	}
	return stored, live, err
}

// AwaitLive waits until every Envoy serves a revision.
func AwaitLive(ctx context.Context, s *harness.System, revision int64) error {
	begin := time.Now()
	for {
		var st api.Status
		status, body, err := s.Call(ctx, http.MethodGet, s.API+"/v1/status", nil)
		if err == nil && status == http.StatusOK {
			if err := json.Unmarshal(body, &st); err != nil {
				return err
			}
			if st.Proxies > 0 && st.LiveRevision >= revision {
				return nil
			}
		}
		if time.Since(begin) > patience {
			return errors.Join(fmt.Errorf("revision %d is not live after %v: published %d, live %d, %d Envoys, troubles %v",
				revision, patience, st.PublishedRevision, st.LiveRevision, st.Proxies, st.Troubles), err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Load applies the routes from one number up to another, some thousand at a time, and says how far it is.
func Load(
	ctx context.Context, s *harness.System, routes *Routes, from, to int, say func(format string, args ...any),
) error {
	const most = 10000
	for at := from; at < to; at += most {
		end := min(at+most, to)
		stored, live, err := Apply(ctx, s, map[string]any{"owner": Owner, "resources": routes.Documents(at, end)})
		if err != nil {
			return fmt.Errorf("routes %d to %d: %w", at, end, err)
		}
		say("%d of %d routes: %d more stored in %.1f s, live in %.1f s", end, to, end-at, stored.Seconds(), live.Seconds())
	}
	return nil
}

// isLive looks into the answer of a write that waited.
func isLive(body []byte) error {
	var out struct {
		Live *api.Live `json:"live"`
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return err
	}
	if out.Live == nil || !out.Live.Live {
		return fmt.Errorf("not live: %+v", out.Live)
	}
	return nil
}
