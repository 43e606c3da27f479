package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEmptyFiles: validate says of files without resources what apply and diff say; none of them asks an
// api first.
func TestEmptyFiles(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "a comment": "# later\n", "empty documents": "---\n---\n",
		"an empty list": "items: []\n", "empty JSON": "[]",
	} {
		path := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"validate", "apply", "diff"} {
			root := Root()
			root.SetArgs([]string{command, "-f", path, "--api", "http://127.0.0.1:1"})
			var out strings.Builder
			root.SetOut(&out)
			root.SetErr(&out)
			err := root.ExecuteContext(t.Context())
			if err == nil || !strings.HasPrefix(err.Error(), "the files hold no resource; ") || ExitCode(err) != exitError ||
				out.Len() > 0 {
				t.Errorf("%s of %s: %v (%s)", command, name, err, out.String())
			}
		}
	}
}
