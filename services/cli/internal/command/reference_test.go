package command

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/cli.md anew")

const (
	reference = "../../../../docs/cli.md"
	begin     = "<!-- from here on: made from the commands themselves, by go test ./services/cli/internal/command -run " +
		"TestReference -update -->\n"
)

// TestReference: docs/cli.md says of every command and flag what the program itself says.
func TestReference(t *testing.T) {
	raw, err := os.ReadFile(filepath.FromSlash(reference))
	if err != nil {
		t.Fatal(err)
	}
	head, have, ok := strings.Cut(string(raw), begin)
	if !ok {
		t.Fatalf("%s lacks the line\n%s", reference, begin)
	}
	var b strings.Builder
	describe(&b, Root())
	if *update {
		if err := os.WriteFile(filepath.FromSlash(reference), []byte(head+begin+b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != b.String() {
		t.Errorf("%s is not what the commands say; write it anew:\ngo test ./services/cli/internal/command -run "+
			"TestReference -update", reference)
	}
}

func describe(b *strings.Builder, cmd *cobra.Command) {
	cmd.InitDefaultHelpFlag()
	if cmd.Runnable() || !cmd.HasParent() {
		fmt.Fprintf(b, "\n## %s\n\n%s.\n", cmd.CommandPath(), cmd.Short)
		if cmd.Long != "" {
			fmt.Fprintf(b, "\n%s\n", cmd.Long)
		}
		if cmd.Runnable() {
			fmt.Fprintf(b, "\n    %s\n", cmd.UseLine())
		}
		if cmd.Example != "" {
			fmt.Fprintf(b, "\nFor example:\n\n%s\n", indent(cmd.Example))
		}
		if flags := cmd.LocalFlags().FlagUsages(); strings.Count(flags, "\n") > 1 { // more than --help
			fmt.Fprintf(b, "\nFlags:\n\n%s", indent(flags))
		}
	}
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "completion" && c.Name() != "help" {
			describe(b, c)
		}
	}
}

func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("  " + line)
	}
	return b.String()
}

// TestNoSecretIsAnArgument: what is given on a command line, every user of the machine can read. A secret comes in a
// file, in the environment or on standard input.
func TestNoSecretIsAnArgument(t *testing.T) {
	flags := 0
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			flags++
			for _, word := range []string{"token", "secret", "password", "key", "credential", "seed"} {
				if strings.Contains(f.Name, word) && f.Value.Type() == "string" && !strings.HasPrefix(f.Usage, "file ") {
					t.Errorf("%s --%s takes a secret as an argument: have it take a file", cmd.CommandPath(), f.Name)
				}
			}
		})
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(Root())
	if flags < 50 {
		t.Errorf("only %d flags are found", flags)
	}
}
