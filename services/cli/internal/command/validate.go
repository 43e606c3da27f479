package command

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/services/cli/internal/offline"
)

// finding is a line of validate's output for programs.
type finding struct {
	Where   string `json:"where"`
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Path    string `json:"path"`
	Message string `json:"message"`
	Rule    string `json:"rule"`
}

func (c *cli) validateCommand() *cobra.Command {
	var paths []string
	var partial bool
	cmd := &cobra.Command{
		Use: "validate -f FILE|DIR...", Short: "Check files without an api: schema, references, conflicts, and what Envoy " +
			"would refuse", Args: cobra.NoArgs,
		Long: "Every mistake is said with file, line and path; exit code 1 where there is one. It needs no api and no " +
			"token, so it fits\n" +
			"a pre-commit hook. Assumed to be there is the gateway default as the first boot makes it, and nothing else.",
		Example: "  marchproxy validate -f routes/\n  marchproxy validate -f changed.yaml --partial",
		RunE: func(*cobra.Command, []string) error {
			docs, err := c.read(c.progress(), paths)
			if err != nil {
				return err
			}
			if len(docs) == 0 { // apply and diff refuse them too
				return errEmpty
			}
			found := offline.Check(docs, partial)
			out := []finding{}
			for _, f := range found {
				out = append(out, finding{f.Document.Where(f.Path), f.Document.Kind, f.Document.Name, f.Path, f.Message, f.Rule})
			}
			err = c.print(map[string]any{"violations": out}, func(w io.Writer) {
				for _, f := range found {
					row(w, f.Document.Says(f.Path, f.Message))
				}
				if len(found) == 0 {
					row(w, "all is well: "+offline.Count(docs))
				}
			})
			if err == nil && len(found) > 0 {
				err = &codeError{exitError, plural(len(found), "violation")}
			}
			return err
		},
	}
	cmd.Flags().StringArrayVarP(&paths, "file", "f", nil, fileUsage)
	cmd.Flags().BoolVar(&partial, "partial", false, "the files are a part of the configuration: what they refer "+
		"to may be elsewhere")
	return cmd
}
