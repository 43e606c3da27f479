package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// MaxNews is how many changes are read at most to follow what others have written; whoever lacks more reads the whole
// configuration, which then is about as cheap.
const MaxNews = 20000

// News is what others have written after a revision.
type News struct {
	Head Head
	// Objects are the last versions of what has changed, tombstones included, by kind and name.
	Objects []*resource.Object
	// Whole says that every change is there. It is not where there are more than [MaxNews], or where revisions
	// after the one that was asked for are not kept any more.
	Whole bool
}

// News reads what was written after a revision, as of one moment. It costs what was changed.
func (s *Store) News(ctx context.Context, after int64) (News, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return News{}, s.noted(fmt.Errorf("read news: %w", err))
	}
	defer conn.Release()
	n, err := readNews(ctx, conn.Conn(), after, `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`, `COMMIT`)
	return n, s.noted(err)
}

// readNews reads in one round trip, between begin and end where they are not "".
func readNews(ctx context.Context, conn *pgx.Conn, after int64, begin, end string) (n News, err error) {
	var b pgx.Batch
	if begin != "" {
		b.Queue(begin)
	}
	b.Queue(selectHead).QueryRow(n.Head.scan)
	revisions := int64(0)
	b.Queue(`SELECT count(*) FROM (SELECT FROM revisions WHERE revision > $1 LIMIT $2) AS r`, after, MaxNews).
		QueryRow(func(row pgx.Row) error {
			return row.Scan(&revisions)
		})
	rows := 0
	b.Queue(`SELECT revision, kind, name, after::text FROM changes WHERE revision > $1 ORDER BY revision DESC LIMIT $2`,
		after, MaxNews+1).Query(func(found pgx.Rows) error {
		seen := map[resource.Ref]bool{}
		var revision int64
		var r resource.Ref
		var payload *string
		_, err := pgx.ForEachRow(found, []any{&revision, &r.Kind, &r.Name, &payload}, func() error {
			if rows++; seen[r] || rows > MaxNews {
				return nil
			}
			seen[r] = true
			o, err := parse(payload)
			if o == nil && err == nil {
				o = resource.Tombstone(r, revision)
			}
			n.Objects = append(n.Objects, o)
			return err
		})
		return err
	})
	if end != "" {
		b.Queue(end)
	}
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		return News{}, fmt.Errorf("read news: %w", err)
	}
	n.Whole = rows <= MaxNews && revisions == n.Head.Revision-after
	return n, nil
}

// maxAnnouncement is how long an announcement may be: PostgreSQL takes less than 8000 bytes.
const maxAnnouncement = 7900

// announcement is what a commit says on [NotifyChannel]: which api, the revision, and all of it where that is little:
// other apis then know it without having to ask for it. An api of the version before looks at the database instead.
func announcement(instance string, revision int64, whole *Committed) string {
	short := instance + " " + strconv.FormatInt(revision, 10)
	if whole == nil {
		return short
	}
	size := 0
	for _, o := range whole.Objects {
		size += len(o.Payload())
	}
	if size > maxAnnouncement {
		return short
	}
	x := announced{Commit: whole.Commit, Follows: whole.Follows}
	for _, o := range whole.Objects {
		x.Objects = append(x.Objects, o.Payload())
	}
	if long := short + " " + mustJSON(x); len(long) <= maxAnnouncement {
		return long
	}
	return short
}

// announced is a whole revision in an announcement.
type announced struct {
	Commit  resource.Commit   `json:"commit"`
	Objects []json.RawMessage `json:"objects"`
	Follows string            `json:"follows"`
}

// readAnnouncement reads an [announcement]: revision 0 where none is said, as for a new epoch, and no whole where
// there is none that can be read.
func readAnnouncement(payload string) (instance string, revision int64, whole func() *Committed) {
	instance, said, _ := strings.Cut(payload, " ")
	said, long, _ := strings.Cut(said, " ")
	revision, _ = strconv.ParseInt(said, 10, 64) // "" is 0
	return instance, revision, func() *Committed {
		var x announced
		if long == "" || json.Unmarshal([]byte(long), &x) != nil || x.Commit.Revision != revision {
			return nil
		}
		c := &Committed{Commit: x.Commit, Follows: x.Follows}
		for _, payload := range x.Objects {
			o, err := resource.ParsePayload(payload)
			if err != nil {
				return nil
			}
			c.Objects = append(c.Objects, o)
		}
		return c
	}
}
