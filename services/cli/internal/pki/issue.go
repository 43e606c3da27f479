package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/process"
)

// Issued is a certificate, and the user of NATS that belongs to it.
type Issued struct {
	Role string `json:"role"`
	Name string `json:"name"`
	// Hosts are the DNS names and addresses at which it is reached; without any it is a client alone.
	Hosts []string `json:"hosts,omitempty"`
	// Gateways are those whose configuration an agent's Envoy may have; any where empty.
	Gateways []string `json:"gateways,omitempty"`
	// User is that of PostgreSQL that an api is.
	User string `json:"database_user,omitempty"`
	Days int    `json:"days"`
	// Authority that signed it, its serial number and its end.
	Authority int       `json:"authority"`
	Serial    string    `json:"serial"`
	Ends      time.Time `json:"ends"`
	// NKey is the public key of its user of NATS.
	NKey string `json:"nkey,omitempty"`
}

var partName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$`)

// Issue makes a certificate, anew where there is one, and returns the directory that the part's machine needs. A
// part's user of NATS stays what it is.
func (p *PKI) Issue(i Issued) (dir string, err error) {
	if err := isRole(i.Role); err != nil {
		return "", err
	}
	if !partName.MatchString(i.Name) {
		return "", fmt.Errorf("%q is no name: letters, digits, _ and -, at most 63; give the part's XDS_ID or AGENT_ID",
			i.Name)
	}
	if len(i.Hosts) == 0 && slices.Contains([]string{API, XDS, NATS, Postgres}, i.Role) {
		return "", fmt.Errorf("a %s is connected to: say by which names and addresses with --host", i.Role)
	}
	if len(i.Gateways) > 0 && i.Role != Agent {
		return "", fmt.Errorf("--gateway is for an agent, not for a %s", i.Role)
	}
	if i.Days < 1 || i.Days > 3650 {
		return "", fmt.Errorf("--days is %d; it must be from 1 to 3650", i.Days)
	}
	dir = p.home(i.Role, i.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := p.user(dir, &i); err != nil {
		return "", err
	}
	if err := p.sign(dir, &i); err != nil {
		return "", err
	}
	return dir, p.save()
}

// Renew makes every certificate anew.
func (p *PKI) Renew() (dirs []string, err error) {
	all, err := p.all()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		dir := p.home(i.Role, i.Name)
		if err := p.sign(dir, &i); err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	return dirs, p.save()
}

// Revoke takes a part's certificate back, and its user of NATS.
func (p *PKI) Revoke(role, name string) error {
	if err := isRole(role); err != nil {
		return err
	}
	i, err := p.read(role, name)
	if err != nil {
		return err
	}
	p.Revoked = append(p.Revoked, revoked{i.Authority, i.Serial, p.now()})
	if err := os.RemoveAll(p.home(role, name)); err != nil {
		return err
	}
	return p.save()
}

// sign makes the key and the certificate.
func (p *PKI) sign(dir string, i *Issued) error {
	m := p.Members[len(p.Members)-1]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{
			Organization: []string{"MarchProxy"}, OrganizationalUnit: []string{i.Role},
			CommonName: i.Name,
		},
		NotBefore: p.now().Add(-time.Hour), NotAfter: p.now().AddDate(0, 0, i.Days),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if i.Role == API {
		t.Subject.CommonName = i.User // by which PostgreSQL knows it
	}
	t.URIs = append(t.URIs, identity.RoleURI(i.Role))
	for _, g := range i.Gateways {
		t.URIs = append(t.URIs, identity.GatewayURI(g))
	}
	for _, h := range i.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, strings.ToLower(h))
		}
	}
	if len(i.Hosts) > 0 {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, m.cert, &key.PublicKey, m.key)
	if err != nil {
		return err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	i.Authority, i.Serial, i.Ends = m.Number, t.SerialNumber.Text(16), t.NotAfter
	about, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	// The key first: a part that reads both in between finds that they do not belong together, and waits.
	if err := process.Replace(filepath.Join(dir, "key.pem"), pemOf("PRIVATE KEY", raw), 0o600); err != nil {
		return err
	}
	if err := process.Replace(filepath.Join(dir, "cert.pem"), pemOf("CERTIFICATE", der), 0o644); err != nil {
		return err
	}
	return process.Replace(filepath.Join(dir, "issued.json"), about, 0o600)
}

// user makes the part's user of NATS, where it has none yet.
func (p *PKI) user(dir string, i *Issued) error {
	if permissions(*i) == nil {
		return nil
	}
	path := filepath.Join(dir, "nats.nkey")
	if seed, err := os.ReadFile(path); err == nil {
		pair, err := nkeys.FromSeed([]byte(strings.TrimSpace(string(seed))))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		i.NKey, err = pair.PublicKey()
		return err
	}
	seed, public, err := NewNKey()
	if err != nil {
		return err
	}
	i.NKey = public
	return process.Replace(path, append(seed, '\n'), 0o600)
}

// NewNKey makes a user's key of NATS: its seed, which is the secret, and by what the server knows it.
func NewNKey() (seed []byte, public string, err error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, "", err
	}
	if seed, err = pair.Seed(); err != nil {
		return nil, "", err
	}
	public, err = pair.PublicKey()
	return seed, public, err
}

func (p *PKI) read(role, name string) (i Issued, err error) {
	raw, err := os.ReadFile(filepath.Join(p.home(role, name), "issued.json"))
	if err != nil {
		return i, fmt.Errorf("no certificate of a %s %s is issued here", role, name)
	}
	return i, json.Unmarshal(raw, &i)
}

// all are the certificates that are issued, in the order of their directories.
func (p *PKI) all() ([]Issued, error) {
	entries, err := os.ReadDir(filepath.Join(p.dir, "issued"))
	if err != nil {
		return nil, err
	}
	var out []Issued
	for _, e := range entries {
		role, name, _ := strings.Cut(e.Name(), "-")
		i, err := p.read(role, name)
		if err != nil {
			continue // it was begun, or is somebody else's
		}
		out = append(out, i)
	}
	return out, nil
}

// Find is what was issued to a part, and whether the authority that signs now has signed it.
func (p *PKI) Find(role, name string) (i Issued, current bool) {
	i, err := p.read(role, name)
	return i, err == nil && i.Authority == p.Members[len(p.Members)-1].Number
}
