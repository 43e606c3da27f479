package porttest

import (
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestTake: no port is given twice, neither here nor in another process, and none is one of the kernel's.
func TestTake(t *testing.T) {
	if os.Getenv("PORTTEST_CHILD") != "" {
		ports, err := Take(400)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ports {
			t.Log("port", p)
		}
		return
	}
	above, err := ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 8 {
		ports, err := Take(50)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ports {
			if seen[strconv.Itoa(p)] || p < lowest || p >= above {
				t.Errorf("port %d is given, twice or outside of %d to %d", p, lowest, above)
			}
			seen[strconv.Itoa(p)] = true
			l, err := net.Listen("tcp4", ":"+strconv.Itoa(p))
			if err != nil {
				t.Error(err)
				continue
			}
			_ = l.Close()
		}
	}
	child := exec.Command(os.Args[0], "-test.v", "-test.run=^TestTake$")
	child.Env = append(os.Environ(), "PORTTEST_CHILD=1")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := 0
	for line := range strings.Lines(string(out)) {
		_, port, ok := strings.Cut(strings.TrimSpace(line), " port ")
		if !ok {
			continue
		}
		found++
		if seen[port] {
			t.Errorf("port %s is given to two processes", port)
		}
	}
	if found != 400 {
		t.Errorf("the other process took %d ports, want 400\n%s", found, out)
	}
}
