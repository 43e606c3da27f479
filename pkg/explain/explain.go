package explain

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/filterconfig"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// Request is what is asked about.
type Request struct {
	Gateway, Listener, Method, Scheme, Host, Path, ServerName string
	Headers                                                   []filterconfig.Header
	// Source is the client's address, the zero one where it is not known.
	Source netip.Addr
	// Now is the moment at which it comes.
	Now time.Time
}

// Outcomes of a request.
const (
	Forwarded  = "forwarded"
	Redirected = "redirected"
	Answered   = "answered"
	Refused    = "refused"
)

// maxCandidates is how many routes an explanation names.
const maxCandidates = 100

// request is one on its way.
type request struct {
	Request
	ctx   context.Context
	built *translate.Built
	out   api.Explanation
	// path is the target as Envoy has it.
	path     string
	host     string
	clientCA string
	headers  fields
	route    *routev3.Route
	// answered says that no filter after this one sees the request.
	answered bool
}

func (q *request) step(name, format string, args ...any) {
	q.out.Steps = append(q.out.Steps, api.ExplainedStep{Step: name, Says: fmt.Sprintf(format, args...)})
}

// refuse ends the request with an answer of Envoy's or of a filter.
func (q *request) refuse(status int, reason, format string, args ...any) {
	q.answer(Refused, status, reason, format, args...)
}

// plain ends the request with an answer that is the same whatever the client speaks.
func (q *request) plain(outcome string, status int, reason, format string, args ...any) {
	q.answered = true
	q.out.Outcome, q.out.Status, q.out.Reason = outcome, int32(status), reason
	q.out.Summary = fmt.Sprintf("%d: ", status) + fmt.Sprintf(format, args...)
}

// answer ends it with one that tells a gRPC client by a gRPC status.
func (q *request) answer(outcome string, status int, reason, format string, args ...any) {
	q.plain(outcome, status, reason, format, args...)
	if q.headers.isGRPC() {
		q.out.GrpcStatus, q.out.Status = grpcStatus(status), 200
	}
}

// malformed ends the request where it is read: nobody knows yet what the client speaks.
func (q *request) malformed(status int, reason, format string, args ...any) {
	q.plain(Refused, status, reason, format, args...)
}

// Explain says what becomes of a request. Violations are what is asked for that the gateway does not have.
func Explain(
	ctx context.Context, a *translate.Around, opt translate.Options, r Request,
) (api.Explanation, resource.Violations, error) {
	if a == nil {
		return api.Explanation{}, resource.Violations{{
			Path: "$.gateway", Rule: "explain.gateway", Message: fmt.Sprintf("%q does not exist", r.Gateway),
		}}, nil
	}
	built, err := a.Build(opt)
	if err != nil {
		return api.Explanation{}, nil, err
	}
	if _, wrong := choose(built.Gateway(), &r); wrong != nil {
		return api.Explanation{}, wrong, nil
	}
	q := &request{Request: r, ctx: ctx, built: built, out: api.Explanation{Gateway: r.Gateway, Listener: r.Listener}}
	if err := q.run(); err != nil {
		return api.Explanation{}, nil, fmt.Errorf("explain: %w", err)
	}
	return q.out, nil, nil
}

func (q *request) run() error {
	l, err := q.built.Listener(q.Listener)
	if err != nil {
		return err
	}
	if l == nil {
		q.step("listener", "%s is not open: it waits for its first certificate", q.Listener)
		q.out.Outcome, q.out.Reason = Refused, "no_certificate"
		q.out.Summary = "no connection: the listener waits for its first certificate"
		return nil
	}
	q.step("listener", "%s of gateway %s, which speaks %s", q.Listener, q.Gateway, q.Scheme)
	name := q.ServerName
	if name == "" {
		name = strings.ToLower(Host(q.Host))
	}
	chain := chainOf(l, name)
	ca, manager, err := connection(chain)
	if err != nil {
		return err
	}
	if manager == nil {
		return fmt.Errorf("listener %s has no connection manager for %q", q.Listener, name)
	}
	if q.clientCA = ca; ca != "" {
		q.step("connection", "server name %s demands a client certificate of %s; one is taken for shown", name, ca)
		q.out.Provided = fmt.Sprintf("the client shows a certificate of %s; without one the handshake fails", ca)
	} else if q.Scheme == "https" {
		q.step("connection", "server name %s demands no client certificate", name)
	}
	if q.begin(int(manager.GetCommonHttpProtocolOptions().GetMaxHeadersCount().GetValue())); q.answered {
		return nil
	}
	if err := q.find(); err != nil {
		return err
	}
	for _, f := range manager.GetHttpFilters() {
		if q.answered {
			return nil
		}
		if f.GetConfigDiscovery() == nil || f.GetName() == translate.HostFilter {
			continue // the router, which comes last; and what find has done
		}
		content, err := q.built.Filter(f.GetName())
		if err != nil {
			return err
		}
		if err := q.filter(f.GetName(), content); err != nil {
			return err
		}
	}
	if q.answered {
		return nil
	}
	return q.act()
}

// begin is what Envoy does with a request before it looks for anything.
func (q *request) begin(maxHeaders int) {
	if maxHeaders == 0 {
		maxHeaders = 100
	}
	q.host = Host(q.Host)
	path, redirect, ok := pathOf(q.Path)
	q.path, q.headers = path, headersOf(q.Request, path, q.host)
	switch {
	case !isMethod(q.Method):
		q.malformed(400, "method", "%s is no method that Envoy takes in HTTP/1.1", q.Method)
	case len(q.Headers)+1 > maxHeaders: // and Host
		q.malformed(431, "too_many_headers", "there are more than %d headers", maxHeaders)
	case !validAuthority(strings.Trim(q.Request.Host, " \t")):
		q.malformed(400, "host", "the host has characters that no host has")
	case !ok, redirect && q.headers.isGRPC():
		q.refuse(400, "path", "the path cannot be normalised")
	case redirect:
		q.step("path", "is written with escaped slashes, and the client is sent to the path without")
		q.out.Location = path
		q.answer(Redirected, 307, "escaped_slashes", "to %s, the path without escaped slashes", path)
	case path != q.Path:
		q.step("path", "is %s once it is normalised", path)
	}
}

// isMethod says whether a method is one that Envoy's parser of HTTP/1.1 knows.
func isMethod(m string) bool {
	for known := range strings.FieldsSeq("ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY " +
		"MKCALENDAR MKCOL MOVE MSEARCH NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT REBIND REPORT " +
		"SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE") {
		if m == known {
			return true
		}
	}
	return false
}

// find finds the route: in the table of the host, which is looked for by equality, or where the host filter leads.
func (q *request) find() error {
	q.headers.set(translate.ScopeHeader, translate.ScopeKey(q.Listener, q.host))
	table, err := q.tableOf(q.host)
	if err != nil || q.answered {
		return err
	}
	v := virtualHost(table, q.host)
	if v == nil {
		q.step("host", "%s has no routes of its own, nor has a wildcard above it, nor is there a default", q.host)
		return nil
	}
	if q.out.Host = v.GetName(); v.GetName() == strings.ToLower(q.host) {
		q.step("host", "%s has routes of its own", q.host)
	} else {
		q.step("host", "%s has no routes of its own; %s serves it", q.host, v.GetName())
	}
	q.pick(v)
	switch r := q.route; {
	case r == nil:
		q.step("route", "none")
	case translate.ObjectOf(r) != "":
		q.out.Route = translate.ObjectOf(r)
		q.step("route", "%s", q.out.Route)
	case r.GetDirectResponse().GetStatus() == 405:
		q.step("route", "none: TRACE is answered before any")
	case r.GetDirectResponse().GetStatus() == 421:
		q.step("route", "none: the host demands a client certificate, and what this connection has shown is not it")
	default:
		q.step("route", "none matches")
	}
	return nil
}

// tableOf is the route table for a host; the host filter refuses what is no host.
func (q *request) tableOf(host string) (*routev3.RouteConfiguration, error) {
	table, err := q.built.RoutesOf(q.Listener, host)
	if err != nil || (table != nil && host != config.AnyHost) { // no host is a wildcard's key, but by the host filter
		return table, err
	}
	filter, err := q.built.Filter(translate.HostFilter)
	if err != nil {
		return nil, err
	}
	kind, status := hostIs(filter, host)
	switch kind {
	case plainHost:
	case capitals:
		if table, err := q.built.RoutesOf(q.Listener, strings.ToLower(host)); err != nil || table != nil {
			q.headers.set(translate.ScopeHeader, translate.ScopeKey(q.Listener, strings.ToLower(host)))
			return table, err
		}
	default:
		q.refuse(status, "host", "%q is not a host's name", host)
		q.out.Body = "the request's host is not a host's name\n"
		return table, nil
	}
	q.headers.set(translate.ScopeHeader, translate.ScopeKey(q.Listener, config.AnyHost))
	return q.built.RoutesOf(q.Listener, config.AnyHost)
}

// virtualHost finds the one of a host: by the longest wildcard that the host ends with, and something before it.
func virtualHost(table *routev3.RouteConfiguration, host string) *routev3.VirtualHost {
	var out *routev3.VirtualHost
	longest := -1
	host = strings.ToLower(host)
	for _, v := range table.GetVirtualHosts() {
		for _, d := range v.GetDomains() {
			suffix, wild := strings.CutPrefix(d, "*")
			switch {
			case !wild && d == host:
				return v
			case !wild || len(suffix) <= longest:
			case suffix == "" || (strings.HasSuffix(host, suffix) && len(host) > len(suffix)):
				out, longest = v, len(suffix)
			}
		}
	}
	return out
}

// pick takes the first route that matches, and notes why those before it do not. Where there are too many to name, the
// one that matches is among them.
func (q *request) pick(v *routev3.VirtualHost) {
	for _, r := range v.GetRoutes() {
		c := api.ExplainedRoute{Route: translate.ObjectOf(r), Reason: "comes after the one that matches"}
		if q.route == nil {
			if c.Reason = q.mismatch(r.GetMatch()); c.Reason == "" {
				q.route, c.Matches = r, true
			}
		}
		switch {
		case c.Route == "":
		case len(q.out.Candidates) < maxCandidates:
			q.out.Candidates = append(q.out.Candidates, c)
		default:
			if q.out.More++; c.Matches {
				q.out.Candidates[maxCandidates-1] = c
			}
		}
	}
}

// perRoute is what the route tells a filter; nil where it tells nothing.
func (q *request) perRoute(filter string) (m proto.Message, err error) {
	if told := q.route.GetTypedPerFilterConfig()[filter]; told != nil {
		m, err = told.UnmarshalNew()
	}
	return m, err
}
