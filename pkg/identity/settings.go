package identity

import (
	"crypto/tls"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/process"
)

// Settings are what every program reads of its identity.
type Settings struct {
	Files
	// Plain lets what is not encrypted leave the machine (ALLOW_PLAINTEXT).
	Plain bool
	// Seed is that of the part's NKey, by which NATS knows it (NATS_NKEY, a secret).
	Seed string
}

// Read reads them from MARCHPROXY_TLS_CERT, _KEY, _CA and _CRL, ALLOW_PLAINTEXT and NATS_NKEY.
func Read(e *process.Env) Settings {
	s := Settings{
		Files: Files{
			Cert: e.String("MARCHPROXY_TLS_CERT", ""), Key: e.String("MARCHPROXY_TLS_KEY", ""),
			CA: e.String("MARCHPROXY_TLS_CA", ""), CRL: e.String("MARCHPROXY_TLS_CRL", ""),
		},
		Plain: e.Bool("ALLOW_PLAINTEXT", false), Seed: e.Secret("NATS_NKEY"),
	}
	if (s.Cert == "") != (s.Key == "") {
		e.Fail("MARCHPROXY_TLS_CERT", "and MARCHPROXY_TLS_KEY must be set together")
	}
	if s.CRL != "" && s.CA == "" {
		e.Fail("MARCHPROXY_TLS_CRL", "is set without MARCHPROXY_TLS_CA; name the file of the authorities whose list it is")
	}
	return s
}

const remedy = "; marchproxy pki makes certificates, and ALLOW_PLAINTEXT=true says that what is sent may " +
	"be read on the way"

// Listener refuses a listener that other machines reach, where it has no certificate.
func (s Settings) Listener(e *process.Env, setting, addr string) {
	if host, _, err := net.SplitHostPort(addr); err == nil && !s.Plain && s.Cert == "" && !Loopback(host) {
		e.Fail(setting, "is %q, which other machines reach, and there is no certificate: set MARCHPROXY_TLS_CERT and "+
			"MARCHPROXY_TLS_KEY, or listen on 127.0.0.1"+remedy, addr)
	}
}

// Server refuses the address, host:port, of a server on another machine where no authority is set: nothing would tell
// that server from somebody who answers in its place.
func (s Settings) Server(e *process.Env, setting, addr string) {
	if host, _, err := net.SplitHostPort(addr); err == nil && !s.Plain && s.CA == "" && !Loopback(host) {
		e.Fail(setting, "is %q, on another machine, and there is no TLS to it: set MARCHPROXY_TLS_CA"+remedy, addr)
	}
}

// NATS refuses URLs of NATS on other machines that are not encrypted.
func (s Settings) NATS(e *process.Env, setting, urls string) {
	for one := range strings.SplitSeq(urls, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		if err != nil || s.Plain || s.CA != "" || u.Scheme == "tls" || u.Scheme == "wss" || Loopback(u.Hostname()) {
			continue
		}
		e.Fail(setting, "names %s, on another machine, and there is no TLS to it: set MARCHPROXY_TLS_CA, or use tls://"+
			remedy, u.Host)
	}
}

// Encrypts says whether the parts speak TLS to each other.
func (s Settings) Encrypts() bool { return s.CA != "" }

// Wrap puts TLS on a listener where there is a certificate. Clients says that who connects must show one, if there are
// authorities; their connections end with those.
func (i *Identity) Wrap(lis net.Listener, clients bool, log *zap.Logger) net.Listener {
	if !i.HasCert() {
		return lis
	}
	return tls.NewListener(Lasting(lis, log), i.Server(clients, "http/1.1"))
}

// Loopback says whether a host is this machine, without asking anybody: a name may be anything tomorrow.
func Loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// LoopbackAddr says of host:port whether only this machine can reach it.
func LoopbackAddr(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && Loopback(host)
}
