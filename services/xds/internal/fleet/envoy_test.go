package fleet_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/cryptobyte"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
	_ "github.com/marchproxy/marchproxy/pkg/hermetic" // what the user has set is for other programs
	"github.com/marchproxy/marchproxy/pkg/porttest"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/xds/internal/ads"
	"github.com/marchproxy/marchproxy/services/xds/internal/fleet"
	filters "github.com/marchproxy/marchproxy/wasm-filters"
)

// rig is a fleet, fed with objects that no api has looked at, and a real Envoy.
type rig struct {
	t        *testing.T
	fleet    *fleet.Fleet
	grpc     *grpc.Server
	xds      string
	admin    string
	ports    []int // plain, https, a second https
	envoy    *exec.Cmd
	log      string
	revision int64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	modules := t.TempDir()
	if err := filters.Install(modules); err != nil {
		t.Fatal(err)
	}
	files, err := filters.Files()
	if err != nil {
		t.Fatal(err)
	}
	ports, err := porttest.Take(5)
	if err != nil {
		t.Fatal(err)
	}
	local := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	w := &rig{
		t: t, xds: local(ports[0]), admin: local(ports[1]), ports: ports[2:], log: filepath.Join(t.TempDir(), "envoy.log"),
		fleet: fleet.New(fleet.Options{
			ID: "x", Open: true, Log: zap.NewNop(),
			Module: func(name string) string { return filepath.Join(modules, files[name]) },
		}),
	}
	t.Cleanup(func() {
		w.kill()
		w.down()
		if raw, err := os.ReadFile(w.log); err == nil && t.Failed() {
			t.Logf("Envoy said:\n%s", raw)
		}
	})
	w.up()
	return w
}

// up has the xDS server listen, and down ends it.
func (w *rig) up() {
	w.t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", w.xds)
	if err != nil {
		w.t.Fatal(err)
	}
	w.grpc = grpc.NewServer()
	ads.NewServer(w.fleet).Register(w.grpc)
	go func() { _ = w.grpc.Serve(lis) }() // ends with down
}

func (w *rig) down() { w.grpc.Stop() }

// start runs Envoy, and returns how long it took until the plain listener was open.
func (w *rig) start() time.Duration {
	w.t.Helper()
	raw, err := bootstrap.Render(bootstrap.Config{XDSServer: w.xds, AdminAddr: w.admin})
	if err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(w.t.TempDir(), "envoy.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		w.t.Fatal(err)
	}
	log, err := os.Create(w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	w.envoy = exec.Command(envoyPath(w.t), "-c", path, "--concurrency", "2", "--log-level", "warning",
		"--disable-hot-restart", "--drain-time-s", "1")
	w.envoy.Stdout, w.envoy.Stderr = log, log
	w.envoy.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	if err := w.envoy.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.until("the plain listener is open", func() bool {
		c, err := net.DialTimeout("tcp", w.at(0), time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return time.Since(begin)
}

func (w *rig) kill() {
	if w.envoy != nil {
		_ = w.envoy.Process.Kill() // it may have ended
		_ = w.envoy.Wait()         // killed
		w.envoy = nil
	}
}

func (w *rig) at(listener int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(w.ports[listener]))
}

// until waits for something that is about to happen.
func (w *rig) until(what string, ok func() bool) {
	w.t.Helper()
	limit := time.NewTimer(60 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			w.t.Fatalf("after a minute, still not: %s", what)
		}
	}
}

// apply makes objects the configuration's; a nil message is a removal.
func (w *rig) apply(objects map[resource.Ref]proto.Message) {
	w.t.Helper()
	w.revision++
	u := resource.Update{Commit: resource.Commit{Revision: w.revision}}
	for ref, m := range objects {
		o := &resource.Object{Kind: ref.Kind, Name: ref.Name, Deleted: true}
		if m != nil {
			var err error
			if o, err = resource.New(ref, m); err != nil {
				w.t.Fatal(err)
			}
		}
		o.Revision = w.revision
		u.Changed = append(u.Changed, o)
	}
	w.fleet.Apply(u)
}

// live waits until the Envoy serves what was applied last, and returns how long that took.
func (w *rig) live() time.Duration {
	w.t.Helper()
	begin := time.Now()
	w.until("live", func() bool {
		return w.fleet.Proxies() == 1 && w.fleet.Live() == w.revision
	})
	return time.Since(begin)
}

// refused are the certificates that are reported.
func (w *rig) refused() map[string]string {
	out := map[string]string{}
	for _, r := range w.fleet.Rejected() {
		for _, o := range r.Objects {
			out[o.Name] = r.Reason
		}
	}
	return out
}

// handshake makes a connection and says by the certificate's first name what was presented.
func (w *rig) handshake(listener int, name string) (string, error) {
	cert, err := w.leaf(listener, name)
	if err != nil {
		return "", err
	}
	return cert.Subject.CommonName, nil
}

func (w *rig) leaf(listener int, name string) (*x509.Certificate, error) {
	c, err := w.dial(listener, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	return c.ConnectionState().PeerCertificates[0], nil
}

func (w *rig) dial(listener int, name string) (*tls.Conn, error) {
	limit, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	plain, err := (&net.Dialer{}).DialContext(limit, "tcp", w.at(listener))
	if err != nil {
		return nil, err
	}
	c := tls.Client(plain, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := c.HandshakeContext(limit); err != nil {
		return nil, errors.Join(err, plain.Close())
	}
	return c, nil
}

// presents fails unless a certificate is presented.
func (w *rig) presents(listener int, name, want string) {
	w.t.Helper()
	if got, err := w.handshake(listener, name); got != want {
		w.t.Errorf("listener %d, server name %q: the certificate of %q is presented (%v), want %q", listener, name,
			got, err, want)
	}
}

// fails fails unless a handshake ends at once.
func (w *rig) fails(listener int, name string) {
	w.t.Helper()
	begin := time.Now()
	if got, err := w.handshake(listener, name); err == nil || time.Since(begin) > 5*time.Second {
		w.t.Errorf("listener %d, server name %q: the certificate of %q is presented, or the failure took %v (%v)", listener,
			name, got, time.Since(begin), err)
	}
}

// stat is one of Envoy's counters.
func (w *rig) stat(name string) int {
	w.t.Helper()
	resp, err := http.Get("http://" + w.admin + "/stats?format=json&filter=^" + name + "$")
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	var out struct {
		Stats []struct {
			Value int `json:"value"`
		} `json:"stats"`
	}
	if err := json.Unmarshal(raw, &out); err != nil || len(out.Stats) != 1 {
		w.t.Fatalf("%s: %v %s", name, err, raw)
	}
	return out.Stats[0].Value
}

// updates counts the changes of listeners that Envoy has taken.
func (w *rig) updates() int {
	return w.stat("listener_manager.lds.update_success") + w.stat("listener_manager.listener_modified") +
		w.stat("listener_manager.listener_in_place_updated")
}

var gatewayRef = resource.Ref{Kind: resource.KindGateway, Name: resource.DefaultGateway}

// gateway has a plain listener and one or more https listeners with certificates of these names.
func (w *rig) gateway(https ...*configv1.Listener) *configv1.Gateway {
	g := &configv1.Gateway{Listeners: []*configv1.Listener{{
		Name: "plain", Address: "127.0.0.1",
		Port: uint32(w.ports[0]),
	}}}
	for i, l := range https {
		l.Name, l.Address, l.Port, l.Protocol = fmt.Sprint("https", i+1), "127.0.0.1", uint32(w.ports[i+1]),
			configv1.Listener_https
		g.Listeners = append(g.Listeners, proto.CloneOf(l)) // what was applied is not changed any more
	}
	return g
}

func certificateRef(name string) resource.Ref {
	return resource.Ref{Kind: resource.KindCertificate, Name: name}
}

// keys of all kinds, made once.
func newKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	curves := map[string]elliptic.Curve{"P-224": elliptic.P224(), "P-256": elliptic.P256(), "P-384": elliptic.P384()}
	var key crypto.Signer
	var err error
	switch {
	case curves[kind] != nil:
		key, err = ecdsa.GenerateKey(curves[kind], rand.Reader)
	case kind == "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		var bits int
		if bits, err = strconv.Atoi(strings.TrimPrefix(kind, "RSA-")); err == nil {
			key, err = rsa.GenerateKey(rand.Reader, bits)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate of its own signature; change may damage it.
func issue(t testing.TB, key crypto.Signer, change func(*x509.Certificate), names ...string) *configv1.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := func(block string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: block, Bytes: b}))
	}
	return &configv1.Certificate{Chain: text("CERTIFICATE", der), PrivateKey: text("PRIVATE KEY", raw)}
}

func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("not inside the repository")
	return ""
}

// envoyPath is the pinned Envoy; bin/marchproxy, which make build makes, fetches it where it is missing.
func envoyPath(t testing.TB) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(root(t), "bin", "marchproxy"), "dev", "envoy-path", "--fetched")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("find Envoy (make build comes first): %v", err)
	}
	return strings.TrimSpace(string(out))
}

// pemDecode is the content of a text's first block.
func pemDecode(text string) (der []byte, rest string) {
	block, left := pem.Decode([]byte(text))
	return block.Bytes, string(left)
}

// oneConn makes requests on a connection that is there.
type oneConn struct{ conn net.Conn }

// RoundTrip is one request.
func (o *oneConn) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Write(o.conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(o.conn), r)
}

// old is the certificate that a client gets which speaks TLS 1.2 as it was, with one cipher suite: Go's own is taken
// for one that knows ECDSA, whatever its suites are. In TLS 1.2 the certificate is readable.
func (w *rig) old(listener int, name string, suite uint16) (*x509.Certificate, error) {
	var hello cryptobyte.Builder
	hello.AddUint8(1)
	hello.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(tls.VersionTLS12)
		b.AddBytes(make([]byte, 32))
		b.AddUint8(0)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint16(suite) })
		b.AddBytes([]byte{1, 0})
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			extension := func(id uint16, content func(b *cryptobyte.Builder)) {
				b.AddUint16(id)
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint16LengthPrefixed(content) })
			}
			extension(0, func(b *cryptobyte.Builder) {
				b.AddUint8(0)
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) })
			})
			extension(10, func(b *cryptobyte.Builder) { b.AddUint16(uint16(tls.CurveP256)) })
			extension(13, func(b *cryptobyte.Builder) {
				b.AddUint16(uint16(tls.PKCS1WithSHA256))
				b.AddUint16(uint16(tls.ECDSAWithP256AndSHA256))
			})
		})
	})
	var record cryptobyte.Builder
	record.AddUint8(22)
	record.AddUint16(tls.VersionTLS10)
	record.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(hello.BytesOrPanic()) })
	c, err := (&net.Dialer{}).DialContext(w.t.Context(), "tcp", w.at(listener))
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write(record.BytesOrPanic()); err != nil {
		return nil, err
	}
	var handshake []byte
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(c, head); err != nil {
			return nil, err
		}
		part := make([]byte, int(head[3])<<8|int(head[4]))
		if _, err := io.ReadFull(c, part); err != nil {
			return nil, err
		}
		if head[0] != 22 {
			return nil, fmt.Errorf("a record of type %d: %x", head[0], part)
		}
		handshake = append(handshake, part...)
		for len(handshake) >= 4 {
			n := 4 + (int(handshake[1])<<16 | int(handshake[2])<<8 | int(handshake[3]))
			if len(handshake) < n {
				break
			}
			if handshake[0] == 11 { // Certificate: the list's length, the first one's length, the first one
				list := cryptobyte.String(handshake[7:n])
				var der cryptobyte.String
				if !list.ReadUint24LengthPrefixed(&der) {
					return nil, errors.New("no certificate")
				}
				return x509.ParseCertificate(der)
			}
			handshake = handshake[n:]
		}
	}
}
