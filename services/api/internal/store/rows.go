package store

import (
	"github.com/jackc/pgx/v5"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// rows are objects as columns of the table resources.
type rows struct {
	revisions                       []int64
	kinds, names, payloads          []string
	owners, labels, hosts, services []string
}

// queueResources brings the table of objects to what the last record makes of each.
func queueResources(b *pgx.Batch, records []Record) {
	type fate struct {
		now *resource.Object
		was bool // there was one before the first record
	}
	fates := map[resource.Ref]fate{}
	for _, r := range records {
		for _, c := range r.Changes {
			f, known := fates[c.Ref()]
			fates[c.Ref()] = fate{c.After, f.was || !known && c.Before != nil}
		}
	}
	var fresh, there, gone rows
	for _, r := range records {
		for _, c := range r.Changes {
			f, left := fates[c.Ref()]
			delete(fates, c.Ref())
			switch {
			case !left: // taken already
			case f.now == nil:
				gone.name(c.Ref())
			case f.was:
				there.add(f.now)
			default:
				fresh.add(f.now)
			}
		}
	}
	const insert = `INSERT INTO resources (kind, name, revision, payload, columns_of, owner, labels, hosts, services)
		SELECT kind, name, revision, payload::json, revision,
			nullif(owner, ''), nullif(labels, '')::jsonb, nullif(hosts, '')::jsonb, nullif(services, '')::jsonb
		FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
			AS r (revision, kind, name, payload, owner, labels, hosts, services)`
	// What is new is no conflict. To look for one costs as much again as the INSERT.
	fresh.queue(b, insert)
	there.queue(b, insert+` ON CONFLICT (kind, name) DO UPDATE SET
		revision = excluded.revision, payload = excluded.payload, columns_of = excluded.columns_of,
		owner = excluded.owner, labels = excluded.labels, hosts = excluded.hosts, services = excluded.services`)
	if len(gone.names) > 0 {
		b.Queue(`DELETE FROM resources r USING unnest($1::text[], $2::text[]) AS d (kind, name)
			WHERE r.kind = d.kind AND r.name = d.name`, gone.kinds, gone.names)
	}
}

func (r *rows) name(ref resource.Ref) {
	r.kinds, r.names = append(r.kinds, ref.Kind), append(r.names, ref.Name)
}

// add adds an object. What lists are filtered by is as the trigger resources_columns makes it of rows that others
// write.
func (r *rows) add(o *resource.Object) {
	r.name(o.Ref())
	r.revisions, r.payloads = append(r.revisions, o.Revision), append(r.payloads, string(o.Payload()))
	labels, hosts, services := "", "", ""
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
	r.owners, r.labels = append(r.owners, o.Owner), append(r.labels, labels)
	r.hosts, r.services = append(r.hosts, hosts), append(r.services, services)
}

func (r *rows) queue(b *pgx.Batch, sql string) {
	if len(r.names) > 0 {
		b.Queue(sql, r.revisions, r.kinds, r.names, r.payloads, r.owners, r.labels, r.hosts, r.services)
	}
}
