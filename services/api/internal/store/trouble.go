package store

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"
)

const (
	// look is the time between two looks at whether the database does what it is asked.
	look = 2 * time.Second
	// lookTimeout is how long one may take: a pool that is busy is no trouble.
	lookTimeout = 4 * time.Second
)

// Trouble is why the database does not store what it is asked to.
type Trouble struct {
	// Reason in the database's words where it has said any.
	Reason string
	Since  time.Time
}

// Trouble says why nothing can be stored; not ok where nothing is known to be wrong.
func (s *Store) Trouble() (Trouble, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble, s.trouble.Reason != ""
}

// Why says in words why the database did not do what it was asked; "" where that is not the database's fault.
func Why(err error) string {
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, ErrNotFound):
		return ""
	case errors.As(err, &pg):
		return whyCode(pg)
	case errors.As(err, &connect), errors.As(err, &network), pgconn.Timeout(err), errors.Is(err, context.DeadlineExceeded):
		return "the database does not answer"
	case strings.Contains(err.Error(), "unexpected EOF"), strings.Contains(err.Error(), "conn closed"):
		return "the database has ended the connection"
	}
	return ""
}

// whyCode speaks of what an operator has to do something about:
// https://www.postgresql.org/docs/17/errcodes-appendix.html
func whyCode(e *pgconn.PgError) string {
	switch {
	case e.Code == "53100":
		return "the database's disk is full: " + e.Message
	case e.Code == "57P03":
		return "the database is not ready: " + e.Message
	case e.Code == "25006":
		return "the database is read-only: " + e.Message
	case strings.HasPrefix(e.Code, "53"):
		return "the database has run out of something: " + e.Message
	case strings.HasPrefix(e.Code, "57P"):
		return "the database has ended the connection: " + e.Message
	case strings.HasPrefix(e.Code, "58"), strings.HasPrefix(e.Code, "XX"):
		return "the database has trouble with its files: " + e.Message
	case strings.HasPrefix(e.Code, "28"), e.Code == "3D000":
		return "the database lets the api not in: " + e.Message
	}
	return ""
}

// NotStored says of an error of [Tx.Commit] that the database has refused the revision, so that it is known not to be
// stored: an ERROR ends the transaction, unlike a connection that is lost while it commits.
func NotStored(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.SeverityUnlocalized == "ERROR"
}

// noted takes note of an error that is the database's fault, and hands it back.
func (s *Store) noted(err error) error {
	reason := Why(err)
	if reason == "" {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.trouble
	s.trouble = Trouble{Reason: reason, Since: was.Since}
	switch {
	case was.Reason == "":
		s.trouble.Since = time.Now()
		select {
		case s.raised <- struct{}{}:
		default: // raised already
		}
	case isFull(was.Reason) && !isFull(reason):
		// What the disk brought about; while the server recovers, or cannot, it does not say so any more.
		first, _, _ := strings.Cut(was.Reason, "; now ")
		s.trouble.Reason = first + "; now " + reason
	}
	return err
}

func isFull(reason string) bool { return strings.HasPrefix(reason, "the database's disk is full") }

// well forgets the trouble.
func (s *Store) well() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = Trouble{}
}

// Watch looks now and then whether the database answers, and in trouble whether it stores again, and says so, until
// the context ends. changed is called when [Store.Trouble] has another answer.
func (s *Store) Watch(ctx context.Context, log *zap.Logger, changed func()) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	said := Trouble{}
	for {
		now, bad := s.Trouble()
		switch {
		case bad:
			log.Error("nothing can be stored: " + now.Reason)
		case said.Reason != "":
			log.Info("the database stores again", zap.Duration("after", time.Since(said.Since).Round(time.Millisecond)))
		}
		if now.Reason != said.Reason {
			changed()
		}
		said = now
		select {
		case <-s.raised:
		case <-tick.C:
			s.look(ctx, bad)
		case <-ctx.Done():
			return
		}
	}
}

// look asks the database for an answer, or in trouble for a write: a table of some pages, which goes again at once.
func (s *Store) look(ctx context.Context, bad bool) {
	limit, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var err error
	if bad {
		_, err = s.pool.Exec(limit, `CREATE TEMPORARY TABLE marchproxy_room ON COMMIT DROP AS SELECT repeat(md5(n::text),`+
			` 200) AS x FROM generate_series(1, 20) AS n`)
	} else {
		err = s.pool.Ping(limit)
	}
	if ctx.Err() != nil {
		return
	}
	if bad && Why(err) == "" { // without the right to make one it has at least answered
		s.well()
	}
	_ = s.noted(err) // [Store.Watch] says so
}
