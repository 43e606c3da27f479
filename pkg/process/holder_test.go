package process_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/process"
)

// TestListen: a port that is taken is named with its holder and the setting, in one line.
func TestListen(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0", "[::1]"} {
		first, err := process.Listen(t.Context(), host+":0", "A_ADDR")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = first.Close() }) // nobody has connected
		addr := first.Addr().String()
		_, err = process.Listen(t.Context(), addr, "A_ADDR")
		want := fmt.Sprintf("cannot listen on %s, which process.test (process %d) holds (address already in use); stop "+
			"that, or change A_ADDR", addr, os.Getpid())
		if err == nil || err.Error() != want || !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v, want %s", err, want)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		if who := process.Holder(first.Addr().(*net.TCPAddr).Port); who != "" {
			t.Errorf("%s is free, and held by %s", addr, who)
		}
	}
	if _, err := process.Listen(t.Context(), "192.0.2.1:80", "A_ADDR"); err == nil ||
		!strings.HasSuffix(err.Error(), "; change it with A_ADDR") {
		t.Errorf("an address of another machine: %v", err)
	}
}
