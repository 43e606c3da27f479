package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// AutomaticOwner is the owner of the Certificates that the server makes for routes with `tls: auto`. It changes and
// deletes no others.
const AutomaticOwner = "marchproxy-automatic"

// Automatic is a certificate that routes ask for, which some gateways are to present.
type Automatic struct {
	Host, Issuer string
	Gateways     []string
}

// Automatics lists the certificates that routes with `tls: auto` ask for, by host. A host that another certificate of the
// gateway has is left out.
func (s *State) Automatics() []Automatic {
	type key struct{ host, issuer string }
	wanted := map[key]map[string]bool{}
	for o := range s.automatic.all() {
		for _, g := range Gateways(routeOf(o)) {
			issuer := gatewayOf(s.Get(resource.Ref{Kind: resource.KindGateway, Name: g})).GetCertificateIssuer()
			for _, h := range Hosts(routeOf(o)) {
				k := key{h, issuer}
				if wanted[k] == nil {
					wanted[k] = map[string]bool{}
				}
				wanted[k][g] = issuer != ""
			}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	has := s.presented()
	var out []Automatic
	for k, gateways := range wanted {
		a := Automatic{Host: k.host, Issuer: k.issuer}
		_, domain, _ := strings.Cut(k.host, ".")
		for g, issued := range gateways {
			if issued && !has[HostKey{g, k.host}] && !has[HostKey{g, "*." + domain}] {
				a.Gateways = append(a.Gateways, g)
			}
		}
		if slices.Sort(a.Gateways); len(a.Gateways) > 0 {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b Automatic) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Issuer, b.Issuer))
	})
	return out
}

// automaticAt is the first route of a gateway, by name, that asks for certificates; "" where none does.
func (s *State) automaticAt(gateway string) (first string) {
	for o := range s.automatic.all() {
		if slices.Contains(Gateways(routeOf(o)), gateway) && (first == "" || o.Name < first) {
			first = o.Name
		}
	}
	return first
}

// presented are the names that certificates have at each gateway, or are to have, but for those that the server makes.
func (s *State) presented() map[HostKey]bool {
	has := map[HostKey]bool{}
	for name, o := range s.objects[resource.KindCertificate] {
		if o.Owner == AutomaticOwner {
			continue
		}
		names := slices.Concat(s.certificate(name).Names(), certificateOf(o).GetNames())
		for g := range s.Presenters(Change{After: o}) {
			for _, n := range names {
				has[HostKey{g, n}] = true
			}
		}
	}
	return has
}

// checkTLS refuses a route that asks for certificates which nobody could issue.
func (s *State) checkTLS(o *resource.Object) (out []Problem) {
	r := routeOf(o)
	if r.GetTls() != configv1.Route_auto {
		return nil
	}
	for _, g := range Gateways(r) {
		at := s.Get(resource.Ref{Kind: resource.KindGateway, Name: g})
		if at == nil {
			continue // which is said already
		}
		issuer := gatewayOf(at).GetCertificateIssuer()
		if issuer == "" {
			out = append(out, problem(o, "$.tls", "route.tls", "is auto, and gateway %q has no certificate_issuer to issue "+
				"certificates; give it one", g))
			continue
		}
		if len(s.ServerNames(g).Listeners()) == 0 {
			out = append(out, problem(o, "$.tls", "route.tls", "is auto, and gateway %q has no https listener to present "+
				"certificates; give it one", g))
		}
		for i, h := range Hosts(r) {
			if why := unissuable(s.Issuer(issuer), h); why != "" {
				out = append(out, problem(o, fmt.Sprintf("$.hosts[%d]", i), "route.tls", "%s", why))
			}
		}
	}
	return out
}

// unissuable says what is wrong with a host that no certificate can be got for; "" where it can.
func unissuable(i *configv1.CertificateIssuer, host string) string {
	switch {
	case host == AnyHost:
		return "is every host, for which there is no certificate; with tls: auto, list the hosts"
	case strings.HasPrefix(host, "[") || strings.Trim(host, "0123456789.") == "":
		return "is an address, and tls: auto gets certificates for names"
	}
	if why := needsDNS(i, host); why != "" {
		return "is a wildcard, and the gateway's issuer has no dns01: " + why
	}
	return ""
}
