package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Programs is the directory bin/ with the project's programs as the sources have them now: what has changed since they
// were built is built, so that nobody tests what they have changed with what was there before. MARCHPROXY_BUILD_FLAGS has flags for
// go build, such as -race. It costs half a second where nothing has changed, once a process.
var Programs = sync.OnceValues(func() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(bin, ".lock")) // tests of several packages run at the same time
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }() // nothing is written
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("wait for another build: %w", err)
	}
	args := append([]string{"build", "-buildvcs=false"}, strings.Fields(os.Getenv("MARCHPROXY_BUILD_FLAGS"))...)
	cmd := exec.Command("go", append(args, "-o", bin+"/", "./services/...")...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the programs: %w", err)
	}
	return bin, nil
})

// Program is the path of one of [Programs], such as marchproxy-xds.
func Program(name string) (string, error) {
	bin, err := Programs()
	return filepath.Join(bin, name), err
}

// ProgramForTest is [Program] for a test.
func ProgramForTest(t testing.TB, name string) string {
	t.Helper()
	path, err := Program(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
