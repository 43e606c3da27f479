package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/audit"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
)

func (c *cli) auditCommand() *cobra.Command {
	var kind, object, actor string
	var limit int
	cmd := &cobra.Command{
		Use: "audit", Short: "Who changed which resource or token, the newest first", Args: cobra.NoArgs,
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			q := url.Values{"limit": {strconv.Itoa(page(limit))}}
			if k, err := kindOf(kind); err == nil && kind != "" {
				kind = k.Name
			}
			for name, value := range map[string]string{"kind": kind, "object": object, "actor": actor} {
				if value != "" {
					q.Set(name, value)
				}
			}
			rows := []api.AuditEntry{}
			err := client.Pages(ctx, a, "/v1/audit", q, func(items []api.AuditEntry, _ int64) (bool, error) {
				rows = append(rows, items...)
				return limit == 0 || len(rows) < limit, nil
			})
			if err != nil {
				return err
			}
			if limit > 0 {
				rows = rows[:min(len(rows), limit)]
			}
			return c.print(api.AuditList{Items: rows}, func(w io.Writer) {
				row(w, "AT (UTC)", "BY", "DID", "WHAT", "REVISION", "MESSAGE")
				for _, r := range rows {
					n := "-"
					if r.Revision > 0 {
						n = strconv.FormatInt(r.Revision, 10)
					}
					row(w, date(r.At), r.Actor, r.Action, r.Kind+"/"+r.Name, n, short(r.Message, 50))
				}
			})
		}),
	}
	cmd.Flags().StringVar(&kind, "kind", "", "only this kind; Token for tokens")
	cmd.Flags().StringVar(&object, "name", "", "only the object of this name")
	cmd.Flags().StringVar(&actor, "actor", "", "only what this token did")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many; 0 for all")
	cmd.AddCommand(c.auditExportCommand(), c.auditVerifyCommand())
	return cmd
}

func (c *cli) auditExportCommand() *cobra.Command {
	var since, until string
	cmd := &cobra.Command{
		Use: "export", Short: "The audit as lines of JSON with its hashes, the oldest first", Args: cobra.NoArgs,
		Long: "A line is a record: a write with all that it changed, or a token made or deleted. Its hash is over it " +
			"and the record\n" +
			"before. Each is checked against its hash while it is written; audit verify FILE does so again, without the api.",
		Example: "  marchproxy audit export > audit.ndjson\n  marchproxy audit export --since 2026-01-01 --until " +
			"2026-02-01 > january.ndjson",
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			q := url.Values{}
			for name, value := range map[string]string{"since": since, "until": until} {
				if value != "" {
					t, err := instant(value)
					if err != nil {
						return fmt.Errorf("--%s %q is no time; it is a date such as 2026-01-31, or as RFC 3339 has it", name, value)
					}
					q.Set(name, t)
				}
			}
			body, err := a.Stream(ctx, client.Request{Method: http.MethodGet, Path: "/v1/audit/export", Query: q})
			if err != nil {
				return err
			}
			defer func() { _ = body.Close() }()
			p := c.progress()
			defer p.done()
			written := io.TeeReader(body, c.out)
			res, unfit := audit.Check(written, "", checking(p))
			if _, err := io.Copy(io.Discard, written); err != nil {
				return fmt.Errorf("the export broke off after record %d, and what is written is not all: %w", res.Last.N, err)
			}
			if unfit != nil {
				return &codeError{exitDrift, "everything was written, and it does not fit: " + unfit.Error()}
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&since, "since", "", "only what was done from this time on: a date, or RFC 3339")
	cmd.Flags().StringVar(&until, "until", "", "only what was done before this time")
	return cmd
}

// instant is a time as RFC 3339 has it; a date is its beginning in UTC.
func instant(text string) (string, error) {
	if t, err := time.Parse(time.DateOnly, text); err == nil {
		return t.Format(time.RFC3339), nil
	}
	_, err := time.Parse(time.RFC3339Nano, text)
	return text, err
}

// checking says how far a file has been read, from time to time.
func checking(p *progress) func(audit.Result) {
	last := time.Now()
	return func(r audit.Result) {
		if time.Since(last) > time.Second {
			last = time.Now()
			p.say("%d records until %s", r.Records, date(r.To))
		}
	}
}

func (c *cli) auditVerifyCommand() *cobra.Command {
	var head string
	cmd := &cobra.Command{
		Use: "verify [FILE]", Short: "Say whether the audit was changed, or a file of it", Args: cobra.MaximumNArgs(1),
		Long: "Without a file the api looks at all of it: that each record's hash is that of what it says and of the " +
			"record before,\n" +
			"that it is signed with this system's SECRET_KEY, and that none is missing; it wants a token of an admin. " +
			"A file, - for\n" +
			"standard input, is one that audit export has written; its hashes are looked at here, without an api, and " +
			"its signatures\n" +
			"are not in it. Who has the database and SECRET_KEY can make all of it anew: --head is what such a one " +
			"cannot change, a\n" +
			"hash that was noted elsewhere before (audit.hash of status -o json). It says which record has it. The " +
			"exit status is 2\n" +
			"where something was changed, or no record has that hash.",
		Example: "  marchproxy audit verify --head 3f7a...\n  marchproxy audit verify audit.ndjson",
		RunE: func(cmd *cobra.Command, args []string) error {
			if head != "" && !hash64.MatchString(head) {
				return errors.New("--head must be the 64 hexadecimal digits of a record's hash, as status -o json has " +
					"it in audit.hash")
			}
			if len(args) == 1 {
				return c.verifyFile(args[0], head)
			}
			a, err := c.api()
			if err != nil {
				return err
			}
			v, err := c.verifyAudit(cmd.Context(), a, head)
			if err != nil {
				return err
			}
			return c.verified(v, head)
		},
	}
	cmd.Flags().StringVar(&head, "head", "", "a hash that was noted before, and must still be that of a record")
	return cmd
}

var hash64 = regexp.MustCompile(`^[0-9a-f]{64}$`)

// verifyAudit has the api verify the audit, page by page.
func (c *cli) verifyAudit(ctx context.Context, a *client.Client, head string) (v api.AuditVerification, err error) {
	p := c.progress()
	defer p.done()
	q := url.Values{}
	if head != "" {
		q.Set("head", head)
	}
	for {
		v = api.AuditVerification{}
		if _, err := a.Do(ctx, client.Request{Method: http.MethodGet, Path: "/v1/audit/verify", Query: q}, &v); err != nil {
			return v, err
		}
		if v.NextCursor == "" {
			return v, nil
		}
		p.say("verified %d records, until record %d", v.Records, v.Last.N)
		q.Set("cursor", v.NextCursor)
	}
}

func (c *cli) verifyFile(name, head string) error {
	in := c.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	p := c.progress()
	res, err := audit.Check(in, head, checking(p))
	p.done()
	v := api.AuditVerification{
		OK: err == nil, Last: api.AuditPoint(res.Last), Records: res.Records, Entries: res.Entries,
		Adopted: res.Adopted,
	}
	if res.Found != nil {
		v.Found = &api.AuditPoint{N: *res.Found, Hash: head}
	}
	var broken *audit.BrokenError
	if err != nil && !errors.As(err, &broken) {
		return fmt.Errorf("%s: %w", name, err)
	}
	if broken != nil {
		v.Broken = &api.AuditBroken{N: broken.Record, At: broken.At, Reason: fmt.Sprintf("line %d: %s", broken.Line,
			broken.Reason)}
	}
	return c.verified(v, head)
}

// verified prints what was found, and fails where something was changed.
func (c *cli) verified(v api.AuditVerification, head string) error {
	err := c.print(v, func(w io.Writer) {
		row(w, "records that fit", plural(int(v.Records), "record")+", "+entries(v.Entries))
		row(w, "the last one", v.Last.N)
		row(w, "its hash", v.Last.Hash)
		if v.Adopted > 0 {
			row(w, "chained later", strings.TrimSpace(plural(int(v.Adopted), "record")+" "+date(v.AdoptedAt)))
		}
		if v.Unproven > 0 {
			row(w, "earlier SECRET_KEY", plural(int(v.Unproven), "record"))
		}
		if v.Unchained > 0 {
			row(w, "not chained yet", plural(int(v.Unchained), "record"))
		}
		if v.Found != nil {
			row(w, "the given hash", fmt.Sprintf("is that of record %d", v.Found.N))
		}
	})
	switch {
	case err != nil:
		return err
	case v.Broken != nil:
		return &codeError{exitDrift, unfit(v.Broken)}
	case head != "" && v.Found == nil:
		return &codeError{
			exitDrift,
			"no record has the hash that was given: the audit was made anew, or restored from a backup that is older than the " +
				"hash, or that record is not kept any more",
		}
	}
	return nil
}

// unfit says which record of the audit does not fit, and why.
func unfit(b *api.AuditBroken) string {
	what := fmt.Sprintf("record %d", b.N)
	if b.Revision > 0 {
		what += fmt.Sprintf(", revision %d", b.Revision)
	}
	if b.At != "" {
		what += " of " + date(b.At) + " UTC"
	}
	return "the audit was changed: " + what + ": " + b.Reason
}

func entries(n int64) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}
