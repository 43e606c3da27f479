package supervisor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/supervisor"
)

// TestLog: all that a child says is passed on, and the end of what it has said since it was started last is remembered.
func TestLog(t *testing.T) {
	for _, to := range []string{"file", "through"} {
		t.Run(to, func(t *testing.T) {
			// The first child says what fits nowhere; the second has two lines; the third says nothing.
			count := filepath.Join(t.TempDir(), "count")
			t.Setenv("COUNT", count)
			c := shell(`echo x >>"$COUNT"
				case $(wc -l <"$COUNT") in
				1) yes "a line of forty characters and no more.." | head -n 5000 >&2; echo "the end" >&2; echo >&2; exit 1;;
				2) echo "to standard output"; echo first >&2; echo second >&2; exit 1;;
				esac
				exec sleep 1000`)
			out := &lines{}
			path := filepath.Join(t.TempDir(), "log")
			all := func() string { return out.String() }
			if c.Log = supervisor.Through(out); to == "file" {
				c.Log = supervisor.ToFile(path)
				all = func() string { raw, _ := os.ReadFile(path); return string(raw) }
			}
			last, tails := []string{}, []string{}
			c.Ended = func(supervisor.Death) {
				last, tails = append(last, c.Log.LastLine()), append(tails, string(c.Log.Tail()))
			}
			stop := run(t, c)
			await(t, "the third child", func() bool { raw, _ := os.ReadFile(count); return len(raw) == 6 && c.Pid() != 0 })
			if got := c.Log.LastLine(); got != "" {
				t.Errorf("a child that says nothing has said %q", got)
			}
			if err := stop(); err == nil || err.Error() != "signal: terminated" {
				t.Error(err)
			}
			if fmt.Sprint(last) != "[the end second]" {
				t.Errorf("the last lines are %q", last)
			}
			if n := len(tails[0]); n != 64<<10 {
				t.Errorf("of the first, %d bytes are remembered", n)
			}
			if strings.Contains(tails[1], "forty") || !strings.Contains(tails[1], "first\nsecond\n") {
				t.Errorf("of the second, %q is remembered", tails[1])
			}
			if n := strings.Count(all(), "forty"); n != 5000 || !strings.Contains(all(), "to standard output\n") {
				t.Errorf("%d lines are passed on, and %q", n, all()[max(0, len(all())-100):])
			}
		})
	}
}
