package pebble

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/harness"
)

// Named is BIND with a zone that takes dynamic updates, signed with a key, and these for TXT records alone.
type Named struct {
	// Addr is host:port. KeyName and Key (base64, for HMAC-SHA256) are what updates are signed with.
	Addr, KeyName, Key string

	cmd *exec.Cmd
	dir string
	log output
}

// StartNamed runs it.
func StartNamed(ctx context.Context, zone string) (*Named, error) {
	ports, err := porttest.Take(1)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "marchproxy-named-")
	if err != nil {
		return nil, err
	}
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	n := &Named{
		Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0])), KeyName: "marchproxy",
		Key: base64.StdEncoding.EncodeToString(key[:]), dir: dir,
	}
	config := fmt.Sprintf(`options {
	directory %q;
	listen-on port %d { 127.0.0.1; };
	listen-on-v6 { none; };
	pid-file none;
	session-keyfile none;
	recursion no;
	dnssec-validation no;
};
controls { };
key %q { algorithm hmac-sha256; secret %q; };
zone %q { type primary; file "zone"; update-policy { grant %s zonesub TXT; }; };
`, dir, ports[0], n.KeyName, n.Key, zone, n.KeyName)
	records := fmt.Sprintf("$TTL 60\n@ SOA ns.%s. root.%s. 1 3600 600 86400 60\n@ NS ns.%s.\nns A 127.0.0.1\n", zone, zone,
		zone)
	for name, text := range map[string]string{"named.conf": config, "zone": records} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	n.cmd = exec.Command("named", "-g", "-n", "1", "-c", filepath.Join(dir, "named.conf")) // scripts/needs has it
	n.cmd.Stdout, n.cmd.Stderr = &n.log, &n.log
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = harness.Await(limit, func() bool {
		c, err := (&net.Dialer{}).DialContext(limit, "tcp", n.Addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	if err != nil {
		return nil, fmt.Errorf("named is not ready: %w\n%s", err, n.Log())
	}
	return n, nil
}

// Log is what it has said: each update, for instance.
func (n *Named) Log() string { return n.log.String() }

// Close ends it.
func (n *Named) Close() {
	_ = n.cmd.Process.Kill() // it may have ended
	_ = n.cmd.Wait()         // killed
	_ = os.RemoveAll(n.dir)  // a leftover in the temporary directory does no harm
}
