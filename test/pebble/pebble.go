// Package pebble runs Let's Encrypt's Pebble for tests, a real authority that speaks ACME, with the DNS that it asks.
package pebble

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/test/authority"
	"github.com/marchproxy/marchproxy/test/harness"
)

// Options are what differs from authority to authority.
type Options struct {
	// HTTPPort is where it looks for answers in place of port 80.
	HTTPPort int
	// Lasts is how long its certificates do; 90 days where 0.
	Lasts time.Duration
	// Refused are names that it does not issue for.
	Refused []string
	// Accounts are keys (base64url) by their ids, one of which an account has to be bound to; none where empty.
	Accounts map[string]string
	// NonceReject is how many of a hundred requests it refuses for their nonce, which have to be sent again.
	NonceReject int
	// Sleep is the longest time that it takes to look for an answer, in whole seconds; none where 0.
	Sleep time.Duration
	// DNS is the name server (host:port) that it asks; one of its own where empty.
	DNS string
}

// Pebble is an authority.
type Pebble struct {
	// Directory is the URL of its directory, and CA the authority of its own HTTPS server, PEM.
	Directory, CA string

	dir     string
	roots   *x509.CertPool
	manage  string // URL
	dns     string // URL
	dnsAddr string
	options Options
	server  *exec.Cmd
	names   *exec.Cmd
	log     output
}

// output is what a program says.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// tool is one of tools/acme, built where it is not there.
func tool(ctx context.Context, name string) (string, error) {
	root, err := harness.Root()
	if err != nil {
		return "", err
	}
	raw, err := exec.CommandContext(ctx, filepath.Join(root, "scripts", "tool"), name, "--path").Output()
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// Start runs an authority, for which every name is 127.0.0.1 at first.
func Start(ctx context.Context, o Options) (*Pebble, error) {
	ports, err := porttest.Take(4)
	if err != nil {
		return nil, err
	}
	local := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])) }
	dir, err := os.MkdirTemp("", "marchproxy-pebble-")
	if err != nil {
		return nil, err
	}
	p := &Pebble{
		Directory: "https://" + local(0) + "/dir", manage: "https://" + local(1), dnsAddr: local(2), dns: "http://" + local(3),
		dir: dir, options: o,
	}
	if err := p.configure(local(0), local(1)); err != nil {
		return nil, err
	}
	program, err := tool(ctx, "pebble-challtestsrv")
	if err != nil {
		return nil, err
	}
	p.names = exec.Command(program, "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-dnsserver", p.dnsAddr,
		"-management", local(3), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "")
	p.names.Stdout, p.names.Stderr = &p.log, &p.log
	if err := p.names.Start(); err != nil {
		return nil, err
	}
	if o.DNS != "" {
		p.dnsAddr = o.DNS
	}
	return p, p.Run(ctx)
}

// configure writes what the authority reads.
func (p *Pebble) configure(listen, manage string) error {
	own, err := authority.New("pebble", 24*time.Hour)
	if err != nil {
		return err
	}
	p.CA, p.roots = own.PEM, x509.NewCertPool()
	p.roots.AddCert(own.Cert)
	leaf := authority.Server(24*time.Hour, "localhost")
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	chain, key, err := own.Issue(leaf)
	if err != nil {
		return err
	}
	lasts := p.options.Lasts
	if lasts == 0 {
		lasts = 90 * 24 * time.Hour
	}
	type object = map[string]any
	raw, err := json.Marshal(object{"pebble": object{
		"listenAddress": listen, "managementListenAddress": manage,
		"certificate": filepath.Join(p.dir, "cert.pem"), "privateKey": filepath.Join(p.dir, "key.pem"),
		"httpPort": p.options.HTTPPort, "tlsPort": 1, "domainBlocklist": p.options.Refused, "keyAlgorithm": "ecdsa",
		"externalAccountBindingRequired": len(p.options.Accounts) > 0, "externalAccountMACKeys": p.options.Accounts,
		"retryAfter": object{"authz": 1, "order": 1},
		"profiles":   object{"default": object{"description": "as asked", "validityPeriod": int(lasts / time.Second)}},
	}})
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(p.dir, "cert.pem"), []byte(chain), 0o600),
		os.WriteFile(filepath.Join(p.dir, "key.pem"), []byte(key), 0o600),
		os.WriteFile(filepath.Join(p.dir, "pebble.json"), raw, 0o600),
	)
}

// Run starts the authority, again after [Pebble.Stop]: it has forgotten everything then, as no other one would.
func (p *Pebble) Run(ctx context.Context) error {
	program, err := tool(ctx, "pebble")
	if err != nil {
		return err
	}
	p.server = exec.Command(program, "-config", filepath.Join(p.dir, "pebble.json"), "-strict", "-dnsserver", p.dnsAddr)
	p.server.Env = append(os.Environ(), "PEBBLE_WFE_NONCEREJECT="+strconv.Itoa(p.options.NonceReject), "PEBBLE_AUTHZREUSE=0")
	if p.options.Sleep == 0 {
		p.server.Env = append(p.server.Env, "PEBBLE_VA_NOSLEEP=1")
	} else {
		p.server.Env = append(p.server.Env, "PEBBLE_VA_SLEEPTIME="+strconv.Itoa(int(p.options.Sleep/time.Second)))
	}
	p.server.Stdout, p.server.Stderr = &p.log, &p.log
	if err := p.server.Start(); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := harness.Await(limit, func() bool { _, err := p.get(limit, p.Directory); return err == nil }); err != nil {
		return fmt.Errorf("pebble is not ready: %w\n%s", err, p.Log())
	}
	return nil
}

// Stop ends the authority, and leaves the DNS.
func (p *Pebble) Stop() {
	_ = p.server.Process.Kill() // it may have ended
	_ = p.server.Wait()         // killed
}

// Close ends both.
func (p *Pebble) Close() {
	p.Stop()
	_ = p.names.Process.Kill() // it may have ended
	_ = p.names.Wait()         // killed
	_ = os.RemoveAll(p.dir)    // a leftover in the temporary directory does no harm
}

// Log is what both have said.
func (p *Pebble) Log() string { return p.log.String() }

// Requests counts the requests to the authority whose lines have some words: "new-order", for instance.
func (p *Pebble) Requests(words string) int { return strings.Count(p.Log(), words) }

func (p *Pebble) client() *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS12},
	}}
}

func (p *Pebble) get(ctx context.Context, url string) ([]byte, error) {
	return p.do(ctx, http.MethodGet, url, nil)
}

func (p *Pebble) do(ctx context.Context, method, url string, body any) ([]byte, error) {
	var in io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, in)
	if err != nil {
		return nil, err
	}
	resp, err := p.client().Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s %s", method, url, resp.Status, raw)
	}
	return raw, err
}

// Roots is what clients of the certificates trust. It is another one after each [Pebble.Run].
func (p *Pebble) Roots(ctx context.Context) (*x509.CertPool, error) {
	raw, err := p.get(ctx, p.manage+"/roots/0")
	if err != nil {
		return nil, err
	}
	out := x509.NewCertPool()
	if !out.AppendCertsFromPEM(raw) {
		return nil, errors.New("pebble's root cannot be read")
	}
	return out, nil
}

// Resolve has a name be an address for the authority.
func (p *Pebble) Resolve(ctx context.Context, name, address string) error {
	_, err := p.do(ctx, http.MethodPost, p.dns+"/clear-a", map[string]any{"host": name})
	if err != nil {
		return err
	}
	_, err = p.do(ctx, http.MethodPost, p.dns+"/add-a", map[string]any{"host": name, "addresses": []string{address}})
	return err
}

// RenewalInfo has the authority say so of when to renew a certificate (PEM), as JSON of RFC 9773.
func (p *Pebble) RenewalInfo(ctx context.Context, certificate, info string) error {
	_, err := p.do(ctx, http.MethodPost, p.manage+"/set-renewal-info/", map[string]any{
		"Certificate": certificate,
		"ARIResponse": info,
	})
	return err
}
