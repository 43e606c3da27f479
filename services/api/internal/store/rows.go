package store

import (
	"github.com/jackc/pgx/v5"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// rows are changes as columns of the table changes, and of the table resources those that are the last of their
// object.
type rows struct {
	revisions                       []int64
	kinds, names                    []string
	before, after                   [][]byte // nil for none
	last                            []bool
	owners, labels, hosts, services []string
}

// fate is what records make of an object.
type fate struct {
	revision int64 // of the last change
	exists   bool
	was      bool // there was one before the first record
}

// queueChanges writes the changes of records into the history, and brings the table of objects to what the last one
// makes of each object. Both in one statement: a payload is sent once, and the server looks once whether it is JSON.
func queueChanges(b *pgx.Batch, records []Record) {
	n := 0
	for _, r := range records {
		n += len(r.Changes)
	}
	fates := make(map[resource.Ref]fate, n)
	for _, r := range records {
		for _, c := range r.Changes {
			f, known := fates[c.Ref()]
			fates[c.Ref()] = fate{r.Revision, c.After != nil, f.was || !known && c.Before != nil}
		}
	}
	var fresh, there, gone rows
	for _, r := range records {
		for _, c := range r.Changes {
			f := fates[c.Ref()]
			into := &fresh
			switch {
			case !f.exists:
				into = &gone
			case f.was:
				into = &there
			}
			into.add(r.Revision, c, r.Revision == f.revision, n)
		}
	}
	const these = `WITH these AS MATERIALIZED (
			SELECT revision, kind, name, before::json AS before, after::json AS after, last, owner, labels, hosts, services
			FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[],
				$7::text[], $8::text[], $9::text[], $10::text[])
				AS t (revision, kind, name, before, after, last, owner, labels, hosts, services)
		), history AS (
			INSERT INTO changes (revision, kind, name, before, after) SELECT revision, kind, name, before, after FROM these
		) `
	const insert = these +
		`INSERT INTO resources (kind, name, revision, payload, columns_of, owner, labels, hosts, services)
		SELECT kind, name, revision, after, revision,
			nullif(owner, ''), nullif(labels, '')::jsonb, nullif(hosts, '')::jsonb, nullif(services, '')::jsonb
		FROM these WHERE last`
	// What is new is no conflict. To look for one costs as much again as the INSERT.
	fresh.queue(b, insert)
	there.queue(b, insert+` ON CONFLICT (kind, name) DO UPDATE SET
		revision = excluded.revision, payload = excluded.payload, columns_of = excluded.columns_of,
		owner = excluded.owner, labels = excluded.labels, hosts = excluded.hosts, services = excluded.services`)
	gone.queue(b, these+`DELETE FROM resources r USING these t WHERE t.last AND r.kind = t.kind AND r.name = t.name`)
}

// add adds a change, one of at most so many. What lists are filtered by is as the trigger resources_columns makes it
// of rows that others write.
func (r *rows) add(revision int64, c config.Change, last bool, most int) {
	if r.names == nil {
		r.revisions, r.last = make([]int64, 0, most), make([]bool, 0, most)
		for _, column := range []*[]string{&r.kinds, &r.names, &r.owners, &r.labels, &r.hosts, &r.services} {
			*column = make([]string, 0, most)
		}
		r.before, r.after = make([][]byte, 0, most), make([][]byte, 0, most)
	}
	ref := c.Ref()
	r.revisions, r.last = append(r.revisions, revision), append(r.last, last)
	r.kinds, r.names = append(r.kinds, ref.Kind), append(r.names, ref.Name)
	r.before, r.after = append(r.before, payload(c.Before)), append(r.after, payload(c.After))
	owner, labels, hosts, services := "", "", "", ""
	if last && c.After != nil {
		owner, labels, hosts, services = columns(c.After)
	}
	r.owners, r.labels = append(r.owners, owner), append(r.labels, labels)
	r.hosts, r.services = append(r.hosts, hosts), append(r.services, services)
}

func payload(o *resource.Object) []byte {
	if o == nil {
		return nil
	}
	return o.Payload()
}

// columns are those that lists are filtered by, in JSON but for the owner; "" for none.
func columns(o *resource.Object) (owner, labels, hosts, services string) {
	if len(o.Labels) > 0 {
		labels = mustJSON(o.Labels)
	}
	if m, ok := o.Message().(*configv1.Route); ok {
		if len(m.GetHosts()) > 0 {
			hosts = mustJSON(m.GetHosts())
		}
		if len(m.GetBackends()) > 0 {
			to := make([]string, 0, len(m.GetBackends()))
			for _, b := range m.GetBackends() {
				if b.GetService() != "" {
					to = append(to, b.GetService())
				}
			}
			services = mustJSON(to)
		}
	}
	return o.Owner, labels, hosts, services
}

func (r *rows) queue(b *pgx.Batch, sql string) {
	if len(r.names) > 0 {
		b.Queue(sql, r.revisions, r.kinds, r.names, r.before, r.after, r.last, r.owners, r.labels, r.hosts, r.services)
	}
}
