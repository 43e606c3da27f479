// Package pki is a private authority in a directory: it makes the certificates and the NATS users by which the parts
// know each other, without anything that runs. The directory holds the authority's key: keep it off the machines that
// serve. What a machine needs is in one directory below issued/, to be copied there.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/pkg/process"
)

// Roles of parts. What each may do at NATS is in [permissions]; a postgres and a nats are servers alone.
const (
	API      = "api"
	XDS      = "xds"
	Agent    = "agent"
	Reader   = "reader"
	Operator = "operator"
	NATS     = "nats"
	Postgres = "postgres"
)

// Roles are all of them.
var Roles = []string{API, XDS, Agent, Reader, Operator, NATS, Postgres}

// Lifetimes: that of an authority, and that of a certificate where nothing is said.
const (
	authorityYears = 10
	DefaultDays    = 90
)

// PKI is a directory.
type PKI struct {
	dir string
	now func() time.Time
	// Members are the authorities that are trusted, the one that signs last.
	Members []member `json:"authorities"`
	// Revoked are the certificates that were taken back.
	Revoked []revoked `json:"revoked"`
}

type member struct {
	Number int `json:"number"`
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
}

type revoked struct {
	Authority int       `json:"authority"`
	Serial    string    `json:"serial"`
	At        time.Time `json:"at"`
}

const stateFile = "authority.json"

// Init makes an authority in a directory that has none.
func Init(dir string) (*PKI, error) {
	if _, err := os.Stat(filepath.Join(dir, stateFile)); err == nil {
		return nil, fmt.Errorf("%s has an authority already; marchproxy pki rotate replaces it", dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, "issued"), 0o700); err != nil {
		return nil, err
	}
	p := &PKI{dir: dir, now: time.Now}
	if err := p.add(); err != nil {
		return nil, err
	}
	return p, p.save()
}

// Open reads a directory that [Init] made.
func Open(dir string) (*PKI, error) {
	raw, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no authority; marchproxy pki init makes one", dir)
	}
	if err != nil {
		return nil, err
	}
	p := &PKI{dir: dir, now: time.Now}
	if err := json.Unmarshal(raw, p); err != nil || len(p.Members) == 0 {
		return nil, fmt.Errorf("%s cannot be read; restore it from a backup", filepath.Join(dir, stateFile))
	}
	for i := range p.Members {
		m := &p.Members[i]
		cert, err := readPEM(p.path(m.Number, "pem"))
		if err != nil {
			return nil, err
		}
		if m.cert, err = x509.ParseCertificate(cert); err != nil {
			return nil, err
		}
		key, err := readPEM(p.path(m.Number, "key"))
		if err != nil {
			return nil, err
		}
		any, err := x509.ParsePKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		var ok bool
		if m.key, ok = any.(*ecdsa.PrivateKey); !ok {
			return nil, fmt.Errorf("%s is not the key that pki init made", p.path(m.Number, "key"))
		}
	}
	return p, nil
}

func (p *PKI) path(number int, ext string) string {
	return filepath.Join(p.dir, "ca-"+strconv.Itoa(number)+"."+ext)
}

// add makes another authority, which signs from now on.
func (p *PKI) add() error {
	n := 1
	if len(p.Members) > 0 {
		n = p.Members[len(p.Members)-1].Number + 1
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "MarchProxy authority " + strconv.Itoa(n)},
		NotBefore: p.now().Add(-time.Hour), NotAfter: p.now().AddDate(authorityYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := process.Replace(p.path(n, "key"), pemOf("PRIVATE KEY", raw), 0o600); err != nil {
		return err
	}
	p.Members = append(p.Members, member{n, cert, key})
	return process.Replace(p.path(n, "pem"), pemOf("CERTIFICATE", der), 0o644)
}

// Rotate begins to replace the authority: the new one signs, and both are trusted.
func (p *PKI) Rotate() error {
	if len(p.Members) > 1 {
		return errors.New("a rotation has begun already; when every part has the new certificates, end it with --finish")
	}
	if err := p.add(); err != nil {
		return err
	}
	return p.save()
}

// Finish ends it: only the new authority is trusted.
func (p *PKI) Finish() error {
	if len(p.Members) == 1 {
		return errors.New("no rotation has begun; marchproxy pki rotate begins one")
	}
	all, err := p.all()
	if err != nil {
		return err
	}
	signer := p.Members[len(p.Members)-1]
	for _, i := range all {
		if i.Authority != signer.Number {
			return fmt.Errorf("the certificate of %s %s is the old authority's; marchproxy pki renew makes it anew",
				i.Role, i.Name)
		}
	}
	for _, m := range p.Members[:len(p.Members)-1] {
		if err := errors.Join(os.Remove(p.path(m.Number, "key")), os.Remove(p.path(m.Number, "pem"))); err != nil {
			return err
		}
	}
	p.Members = p.Members[len(p.Members)-1:]
	p.Revoked = slices.DeleteFunc(p.Revoked, func(r revoked) bool { return r.Authority != signer.Number })
	return p.save()
}

// save writes what everybody shares: the authorities, their lists, and the users of NATS.
func (p *PKI) save() error {
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := process.Replace(filepath.Join(p.dir, stateFile), raw, 0o600); err != nil {
		return err
	}
	var bundle, lists []byte
	for _, m := range slices.Backward(p.Members) {
		bundle = append(bundle, pemOf("CERTIFICATE", m.cert.Raw)...)
		list := &x509.RevocationList{
			Number: big.NewInt(p.now().UnixNano()), ThisUpdate: p.now().Add(-time.Hour),
			NextUpdate: m.cert.NotAfter,
		}
		for _, r := range p.Revoked {
			if n, ok := new(big.Int).SetString(r.Serial, 16); ok && r.Authority == m.Number {
				list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
					SerialNumber:   n,
					RevocationTime: r.At,
				})
			}
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, m.cert, m.key)
		if err != nil {
			return err
		}
		lists = append(lists, pemOf("X509 CRL", der)...)
	}
	all, err := p.all()
	if err != nil {
		return err
	}
	users, err := NATSUsers(all, "", "")
	if err != nil {
		return err
	}
	dirs := []string{p.dir}
	for _, i := range all {
		dirs = append(dirs, p.home(i.Role, i.Name))
		if i.Role != NATS {
			continue
		}
		home := p.home(i.Role, i.Name)
		if err := process.Replace(filepath.Join(home, "users.conf"), append([]byte(aboutUsers), users...),
			0o600); err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(home, "nats.conf")); err == nil {
			continue // it may have been edited
		}
		if err := process.Replace(filepath.Join(home, "nats.conf"), []byte(natsConf), 0o600); err != nil {
			return err
		}
	}
	for _, dir := range dirs {
		err := errors.Join(process.Replace(filepath.Join(dir, "ca.pem"), bundle, 0o644),
			process.Replace(filepath.Join(dir, "crl.pem"), lists, 0o644))
		if err != nil {
			return err
		}
	}
	return nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // it never fails
	}
	return n
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func readPEM(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b, _ := pem.Decode(raw)
	if b == nil {
		return nil, fmt.Errorf("%s is not PEM", path)
	}
	return b.Bytes, nil
}

// home is what a part's machine needs.
func (p *PKI) home(role, name string) string { return filepath.Join(p.dir, "issued", role+"-"+name) }

func isRole(role string) error {
	if !slices.Contains(Roles, role) {
		return fmt.Errorf("%q is no role; it must be one of %s", role, strings.Join(Roles, ", "))
	}
	return nil
}
