// Package stack makes what deployments/compose wants to find before it is started: an authority, a certificate and a
// NATS user for each part, and the secrets, as files of which each container gets its own and no others.
package stack

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/marchproxy/marchproxy/services/cli/internal/pki"
)

// Users of the containers, by number, because the files are theirs before the images are there.
const (
	root     = 0
	ours     = 65532 // api, xds and the command line
	postgres = 999   // that of the official image
	nobody   = 65534 // that of Prometheus' image
)

// Replicas is how many of each part have a certificate: as many as the compose files start.
const (
	Replicas     = 2
	NATSReplicas = 3
)

// renewBefore is how long before its end a certificate is made anew.
const renewBefore = 30 * 24 * time.Hour

// Made says what [Init] did.
type Made struct {
	// New are the secrets, and Certificates the parts, that were made now.
	New, Certificates []string
	// Owned is false where the files could not be given to the containers' users, which takes root.
	Owned bool
}

// secrets are files with random content.
var secrets = []struct {
	name string
	// uid owns it; gid reads it, where it is not the person's who has the directory.
	uid, gid int
}{
	{"secret-key", ours, ours},
	{"cluster-key", ours, root}, // the api makes it a key of the gateway default, the proxies show it
	{"admin-token", ours, person},
	{"postgres-password", postgres, postgres},
}

// person stands for the group that has the directory: whoever runs this.
const person = -1

// part is a certificate, and whose files it is.
type part struct {
	pki.Issued
	uid, gid int
}

// parts are all of them. Each server has the name that is the same for all of its kind, by which others connect to it,
// its own, and those of this machine, where its port is published.
func parts(hosts []string) (out []part) {
	add := func(role, service string, n, uid, gid int) {
		for k := range n {
			name := fmt.Sprintf("%s-%d", service, k+1)
			i := pki.Issued{Role: role, Name: name, Days: pki.DefaultDays}
			switch role {
			case pki.Agent:
				i.Gateways, i.Hosts = []string{"default"}, []string{service, name} // Prometheus connects to it
			case pki.API:
				i.User = "marchproxy"
				fallthrough
			default:
				i.Hosts = append([]string{service, name, "localhost", "127.0.0.1"}, hosts...)
			}
			out = append(out, part{i, uid, gid})
		}
	}
	add(pki.API, "api", Replicas, ours, ours)
	add(pki.XDS, "xds", Replicas, ours, ours)
	add(pki.Agent, "proxy", Replicas, root, root)
	add(pki.NATS, "nats", NATSReplicas, root, root)
	out = append(
		out,
		part{
			pki.Issued{Role: pki.Postgres, Name: "postgres", Hosts: []string{"postgres"}, Days: pki.DefaultDays},
			postgres, postgres,
		},
		part{pki.Issued{Role: pki.Reader, Name: "prometheus", Days: pki.DefaultDays}, nobody, nobody},
		part{pki.Issued{Role: pki.Operator, Name: "admin", Days: pki.DefaultDays}, ours, person},
	)
	return out
}

// Init makes what is missing in dir, makes certificates anew that end within 30 days, or all with renew, and gives each
// file to its container's user. What is there stays: it may be run again at any time. Hosts are names beside those of
// this machine by which others reach api and xds.
func Init(dir string, hosts []string, renew bool, now time.Time) (m Made, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return m, err
	}
	about, err := os.Stat(dir)
	if err != nil {
		return m, err
	}
	home, ok := about.Sys().(*syscall.Stat_t)
	if !ok {
		return m, errors.New("the owner of the directory is not known on this system")
	}
	m.Owned = os.Geteuid() == root
	for _, s := range secrets {
		made, err := secret(filepath.Join(dir, s.name))
		if err != nil {
			return m, err
		}
		if made {
			m.New = append(m.New, s.name)
		}
	}
	authority := filepath.Join(dir, "pki")
	p, err := pki.Open(authority)
	if _, missing := os.Stat(authority); errors.Is(missing, fs.ErrNotExist) {
		m.New = append(m.New, "pki")
		p, err = pki.Init(authority)
	}
	if err != nil {
		return m, err
	}
	for _, i := range parts(hosts) {
		was, current := p.Find(i.Role, i.Name)
		for _, h := range was.Hosts { // those that were asked for earlier stay
			if !slices.Contains(i.Hosts, h) {
				i.Hosts = append(i.Hosts, h)
			}
		}
		if !renew && current && was.Ends.After(now.Add(renewBefore)) && len(was.Hosts) == len(i.Hosts) {
			continue
		}
		if _, err := p.Issue(i.Issued); err != nil {
			return m, err
		}
		m.Certificates = append(m.Certificates, i.Name)
	}
	if !m.Owned {
		return m, nil
	}
	return m, own(dir, int(home.Uid), int(home.Gid), hosts)
}

// secret makes a file with a random content where there is none.
func secret(path string) (made bool, err error) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o400)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = f.WriteString(hex.EncodeToString(b[:]) + "\n")
	return true, errors.Join(err, f.Sync(), f.Close())
}

// own gives everything to whom it is for. The authority, and whatever else is there, is the person's.
func own(dir string, uid, gid int, hosts []string) error {
	group := func(g int) int {
		if g == person {
			return gid
		}
		return g
	}
	give := func(path string, u, g int, mode fs.FileMode) error {
		return errors.Join(os.Chown(path, u, g), os.Chmod(path, mode))
	}
	tree, err := os.OpenRoot(filepath.Join(dir, "pki"))
	if err != nil {
		return err
	}
	err = fs.WalkDir(tree.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return tree.Lchown(path, uid, gid)
	})
	if err := errors.Join(err, tree.Close()); err != nil {
		return err
	}
	for _, s := range secrets {
		if err := give(filepath.Join(dir, s.name), s.uid, group(s.gid), 0o440); err != nil {
			return err
		}
	}
	for _, i := range parts(hosts) {
		home := filepath.Join(dir, "pki", "issued", i.Role+"-"+i.Name)
		files, err := os.ReadDir(home)
		if err != nil {
			return err
		}
		directory, file := fs.FileMode(0o700), fs.FileMode(0o600) // PostgreSQL takes no key that others can read
		if i.gid == person {
			directory, file = 0o750, 0o640
		}
		if err := give(home, i.uid, group(i.gid), directory); err != nil {
			return err
		}
		for _, f := range files {
			if err := give(filepath.Join(home, f.Name()), i.uid, group(i.gid), file); err != nil {
				return err
			}
		}
	}
	return nil
}
