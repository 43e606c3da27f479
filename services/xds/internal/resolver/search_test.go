package resolver_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/marchproxy/marchproxy/pkg/dnstest"
	"github.com/marchproxy/marchproxy/services/xds/internal/resolver"
)

// askIn makes the test's program one that looks names up in an /etc of its own, at this DNS server.
const askIn = "RESOLVER_TEST_DNS"

func TestMain(m *testing.M) {
	if dns := os.Getenv(askIn); dns != "" {
		if err := elsewhere(dns, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// elsewhere says what comes of looking up each name where resolv.conf has a search list.
func elsewhere(dns string, names []string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := syscall.Mount("tmpfs", "/etc", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount an empty /etc: %w", err)
	}
	if err := os.WriteFile("/etc/resolv.conf", []byte("nameserver 127.0.0.1\nsearch corp.test\noptions ndots:1 "+
		"attempts:1\n"), 0o644); err != nil {
		return err
	}
	lookup := resolver.System(dns)
	for _, name := range names {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		addrs, err := lookup(ctx, name)
		cancel()
		fmt.Println(name, addrs, err)
	}
	return nil
}

// TestSearchList: what is wrong with one name of resolv.conf's search list is not taken for a word about the name:
// neither for its absence nor for its addresses.
func TestSearchList(t *testing.T) {
	dns := server(t)
	fails := dnstest.Answer{Code: dnsmessage.RCodeServerFailure}
	found := dnstest.Answer{Addresses: []string{"192.0.2.1"}}
	other := dnstest.Answer{Addresses: []string{"192.0.2.66"}}
	dns.Set("db.corp.test", fails) // the search domain's server is away
	dns.Set("db", found)
	dns.Set("app", found)
	dns.Set("web.example", fails)
	dns.Set("web.example.corp.test", other) // a wildcard, perhaps
	dns.Set("gone.example.corp.test", fails)
	dns.Set("in", dnstest.Answer{Code: dnsmessage.RCodeNameError})
	dns.Set("in.corp.test", found)
	cmd := exec.Command(os.Args[0], "db", "app", "web.example", "gone.example", "nobody.example", "in")
	cmd.Env = append(os.Environ(), askIn+"="+dns.Addr)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	failed := "[] DNS server " + dns.Addr + " answers SERVFAIL"
	want := strings.Join([]string{
		"db [192.0.2.1] <nil>", "app [192.0.2.1] <nil>", "web.example " + failed, "gone.example " + failed,
		"nobody.example [] does not exist (NXDOMAIN)", "in [192.0.2.1] <nil>", "",
	}, "\n")
	if string(out) != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}
