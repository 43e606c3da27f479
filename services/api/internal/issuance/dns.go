package issuance

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/zap"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/endpoint"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// dnsKey is what the key of dynamic updates is sealed for.
const dnsKey = "dns01.rfc2136.key"

const (
	// propagation is how long a record may take to be seen where nothing is said, and seeAgain how often it is looked for.
	propagation, seeAgain = 2 * time.Minute, time.Second
	// recordTTL is for how long resolvers may keep a record, in seconds: the next order has another one.
	recordTTL = 60
)

// updater writes records by dynamic updates (RFC 2136).
type updater struct {
	server, zone, key string // with port; "" to be found; a domain name
	secret            string
	allowed           endpoint.Allowed
}

// publish writes the records that prove names, and returns when all name servers have them. What takes them away again
// is never nil.
func (j *job) publish(ctx context.Context, names []proof) (remove func(), err error) {
	way := j.issuer.GetDns01()
	nothing := func() {}
	secret, err := j.box.Open(way.GetRfc2136().GetKey(), resource.KindIssuer, j.row.Issuer, dnsKey)
	if err != nil {
		return nothing, fmt.Errorf("dns01.rfc2136.key cannot be opened: %w; write it again", err)
	}
	u := updater{
		server: withPort(way.GetRfc2136().GetServer()), zone: way.GetRfc2136().GetZone(),
		key: dns.CanonicalName(way.GetRfc2136().GetKeyName()), secret: secret, allowed: j.writer.Allowed,
	}
	records := map[string][]string{}
	for _, p := range names { // a name and its wildcard have the same record, with a value each
		at := dns.CanonicalName(p.by.DNS01TXTRecordName())
		records[at] = append(records[at], p.by.DNS01KeyAuthorization())
	}
	remove = func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		for at, values := range records {
			if err := u.update(limit, at, values, (*dns.Msg).Remove); err != nil {
				j.log.Warn("a record for the authority cannot be taken out of the DNS", zap.String("name", at), zap.Error(err))
			}
		}
	}
	for at, values := range records {
		if err := u.update(ctx, at, values, (*dns.Msg).Insert); err != nil {
			return remove, err
		}
	}
	limit, cancel := context.WithTimeout(ctx, timeoutOf(way))
	defer cancel()
	for at, values := range records {
		if err := u.await(limit, way.GetNameServers(), at, values); err != nil {
			return remove, err
		}
	}
	return remove, nil
}

func timeoutOf(way *configv1.Dns01) time.Duration {
	if t := way.GetPropagationTimeout(); t != nil {
		return t.AsDuration()
	}
	return propagation
}

func withPort(server string) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), "53")
}

func texts(at string, values []string) []dns.RR {
	out := make([]dns.RR, len(values))
	for i, v := range values {
		out[i] = &dns.TXT{
			Hdr: dns.RR_Header{Name: at, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: recordTTL}, Txt: []string{v},
		}
	}
	return out
}

// ask sends a message by TCP, which carries updates of any size, and passes where UDP is not let through.
func (u updater) ask(ctx context.Context, server string, m *dns.Msg, signed bool) (*dns.Msg, error) {
	c := &dns.Client{Net: "tcp", Dialer: dialer(u.allowed), Timeout: 10 * time.Second}
	if signed {
		c.TsigSecret = map[string]string{u.key: u.secret}
		m.SetTsig(u.key, dns.HmacSHA256, 300, time.Now().Unix())
	}
	r, _, err := c.ExchangeContext(ctx, m, server)
	if err != nil {
		return nil, fmt.Errorf("name server %s: %w", server, err)
	}
	return r, nil
}

// update changes the values of a record.
func (u updater) update(ctx context.Context, at string, values []string, how func(*dns.Msg, []dns.RR)) error {
	zone, err := u.zoneOf(ctx, at)
	if err != nil {
		return err
	}
	m := new(dns.Msg).SetUpdate(zone)
	how(m, texts(at, values))
	r, err := u.ask(ctx, u.server, m, true)
	if err != nil {
		return err
	}
	if r.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("name server %s refuses to change %s in the zone %s: %s; look at the key and what it may change",
			u.server, at, zone, dns.RcodeToString[r.Rcode])
	}
	return nil
}

// zoneOf is the zone that a name is in: what the server says is the nearest one above it.
func (u updater) zoneOf(ctx context.Context, name string) (string, error) {
	if u.zone != "" {
		return dns.CanonicalName(u.zone), nil
	}
	for at := name; at != "."; {
		r, err := u.ask(ctx, u.server, new(dns.Msg).SetQuestion(at, dns.TypeSOA), false)
		if err != nil {
			return "", err
		}
		for _, rr := range slices.Concat(r.Answer, r.Ns) {
			if soa, is := rr.(*dns.SOA); is && dns.IsSubDomain(soa.Hdr.Name, name) {
				return dns.CanonicalName(soa.Hdr.Name), nil
			}
		}
		_, rest, _ := strings.Cut(at, ".")
		if at = rest; at == "" {
			break
		}
	}
	return "", fmt.Errorf("name server %s knows no zone of %s; give dns01.rfc2136.zone", u.server, name)
}

// await returns when name servers have all values of a record: those that are to be asked, or the one that it was
// written to.
func (u updater) await(ctx context.Context, servers []string, at string, values []string) error {
	if len(servers) == 0 {
		servers = []string{u.server}
	}
	for _, s := range servers {
		s = withPort(s)
		for {
			missing, err := u.missing(ctx, s, at, values)
			if err == nil && !missing {
				break
			}
			select {
			case <-time.After(seeAgain):
			case <-ctx.Done():
				if err == nil {
					err = fmt.Errorf("name server %s does not have the record %s in time (dns01.propagation_timeout)", s, at)
				}
				return err
			}
		}
	}
	return nil
}

func (u updater) missing(ctx context.Context, server, at string, values []string) (bool, error) {
	r, err := u.ask(ctx, server, new(dns.Msg).SetQuestion(at, dns.TypeTXT), false)
	if err != nil {
		return true, err
	}
	has := map[string]bool{}
	for _, rr := range r.Answer {
		if t, is := rr.(*dns.TXT); is {
			has[strings.Join(t.Txt, "")] = true
		}
	}
	return slices.ContainsFunc(values, func(v string) bool { return !has[v] }), nil
}
