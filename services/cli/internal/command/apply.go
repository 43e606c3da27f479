package command

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/cli/internal/client"
	"github.com/marchproxy/marchproxy/services/cli/internal/manifest"
)

// files are the flags of commands that read resources from files.
type files struct {
	paths    []string
	owner    string
	prune    bool
	empty    bool
	takeOver bool
	secrets  string

	ownerGiven func() bool
}

// transaction is an api.ApplyRequest whose resources tell what they say from what they leave out.
type transaction struct {
	api.ApplyRequest
	Resources []manifest.File `json:"resources"`
}

const fileUsage = "file or directory (all .yaml, .yml and .json below it, by name) of resources; - for standard " +
	"input; may be repeated"

func (f *files) flags(set *pflag.FlagSet) {
	set.StringArrayVarP(&f.paths, "file", "f", nil, fileUsage)
	set.StringVar(&f.owner, "owner", "", "becomes the owner of the resources; without it the files say, and what they "+
		"do not say stays")
	set.StringVar(&f.secrets, "secrets", "",
		"file that holds what exports leave out: private keys, secrets of policies, keys of licenses (docs/operations.md)")
	f.ownerGiven = func() bool { return set.Changed("owner") }
	set.BoolVar(&f.takeOver, "take-over", false, "also change what belongs to another owner, which is refused otherwise")
	set.BoolVar(&f.prune, "prune", false, "delete what --owner has and the files lack")
	set.BoolVar(&f.empty, "allow-empty", false, "let --prune delete everything that the owner has, where the "+
		"files hold nothing")
}

// read reads the files; it has the whole list of what is wrong with them as its error.
func (c *cli) read(p *progress, paths []string) ([]*manifest.Document, error) {
	if len(paths) == 0 {
		return nil, errors.New("-f is missing: a file or directory, or - for standard input")
	}
	defer p.done()
	return manifest.Read(paths, c.in, func(n int) {
		if n > 1 {
			p.say("reading: %d files", n)
		}
	})
}

// errEmpty refuses files that ask for nothing: more likely than a wish for nothing is a wrong path, or a
// template that came out empty.
var errEmpty = errors.New("the files hold no resource; give files with kind, name and spec")

// request makes the one transaction of the files.
func (c *cli) request(p *progress, f files) ([]*manifest.Document, transaction, error) {
	r := transaction{
		api.ApplyRequest{Owner: f.owner, Prune: f.prune, TakeOver: f.takeOver, AllowEmpty: f.empty},
		[]manifest.File{},
	}
	docs, err := c.read(p, f.paths)
	switch {
	case err != nil:
		return nil, r, err
	case f.owner == "" && f.ownerGiven():
		return nil, r, errors.New("--owner is empty; leave it out to leave owners as they are. " +
			`A file that says owner: "" gives its resource up`)
	case f.prune && f.owner == "":
		return nil, r, errors.New("--prune needs --owner: only what an owner has is deleted")
	case len(docs) == 0 && f.prune && !f.empty:
		return nil, r, fmt.Errorf("the files hold no resource, and --prune would delete all that %q has; --allow-empty "+
			"says that this is meant", f.owner)
	case len(docs) == 0 && !f.prune:
		return nil, r, errEmpty
	}
	if f.secrets != "" {
		c.warnOpen("the secrets", f.secrets)
		if err := manifest.AddSecrets(f.secrets, docs); err != nil {
			return nil, r, err
		}
	}
	for _, d := range docs {
		r.Resources = append(r.Resources, d.Content())
	}
	return docs, r, nil
}

func (c *cli) applyCommand() *cobra.Command {
	var f files
	var w waiting
	var dry bool
	var message string
	cmd := &cobra.Command{
		Use: "apply -f FILE|DIR...", Short: "Make the resources of files real, all in one revision or none",
		Args: cobra.NoArgs,
		Long: "Apply sends everything that the files hold as one transaction: all of it becomes one revision, or " +
			"nothing changes and\n" +
			"every mistake is named with file, document and line. Sending again what was not answered acts only once.\n" +
			"Secrets that the files lack stay as they are stored; where none is stored, all that are missing are named, and\n" +
			"nothing is done: --secrets gives them.",
		Example: "  marchproxy apply -f routes/ --owner team-a --prune --wait\n  helm template . | marchproxy apply -f -",
		RunE: c.use(func(ctx context.Context, a *client.Client, _ []string) error {
			p := c.progress()
			docs, body, err := c.request(p, f)
			if err != nil {
				return err
			}
			body.DryRun, body.Message = dry, message
			return c.send(ctx, a, p, w, docs, body)
		}),
	}
	f.flags(cmd.Flags())
	w.flags(cmd.Flags())
	cmd.Flags().BoolVar(&dry, "dry-run", false, "check everything and say what would change, but change nothing")
	cmd.Flags().StringVarP(&message, "message", "m", "", "why, for the history")
	return cmd
}

// send applies documents, and prints what came of it.
func (c *cli) send(
	ctx context.Context, a *client.Client, p *progress, w waiting, docs []*manifest.Document, body transaction,
) error {
	q, err := w.query()
	if err != nil {
		return err
	}
	p.say("sending %s", plural(len(docs), "resource"))
	var res api.ApplyResult
	r := client.Request{Method: http.MethodPost, Path: "/v1/apply", Query: q, Body: body, Once: !body.DryRun}
	if err := c.write(ctx, a, p, w, r, &res); err != nil {
		return placed(err, docs)
	}
	return c.result(res)
}

// placed says where in the files the api's violations are.
func placed(err error, docs []*manifest.Document) error {
	var p *client.Problem
	if !errors.As(err, &p) || len(p.Errors) == 0 {
		return err
	}
	lines, wanted := []string{p.Detail}, map[string][]string{}
	for _, v := range p.Errors {
		line := strings.TrimPrefix(v.Path+" "+v.Message, "$ ")
		var i int
		rest, found := strings.CutPrefix(v.Path, "$.resources[")
		number, below, closed := strings.Cut(rest, "]")
		if _, scan := fmt.Sscan(number, &i); found && closed && scan == nil && i >= 0 && i < len(docs) {
			line = docs[i].Says("$"+below, v.Message)
			if field := docs[i].SecretField("$" + below); field != "" && slices.Contains(secretRules, v.Rule) {
				wanted[docs[i].Ref().String()] = append(wanted[docs[i].Ref().String()], field)
			}
		}
		lines = append(lines, line)
	}
	if p.Hint != "" {
		lines = append(lines, p.Hint)
	}
	text := strings.Join(lines, "\n  ")
	if len(wanted) > 0 {
		text += "\nGive secrets in a file of your own (chmod 600), with --secrets FILE:\n" + template(wanted)
	}
	return errors.New(text)
}

// secretRules are those that are broken where a secret is missing.
var secretRules = []string{resource.MissingSecret, "certificate.key"}

// template is a secrets file to be filled in.
func template(wanted map[string][]string) string {
	var b strings.Builder
	for _, ref := range slices.Sorted(maps.Keys(wanted)) {
		fmt.Fprintf(&b, "\n    %s:", ref)
		for _, field := range wanted[ref] {
			fmt.Fprintf(&b, "\n      %s: ...", field)
		}
	}
	return b.String()
}
