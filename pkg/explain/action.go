package explain

import (
	"fmt"
	"net/http"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/translate"
)

// act is what the router does with a request that no filter has answered.
func (q *request) act() error {
	name := q.out.Route
	switch r := q.route; {
	case r == nil:
		q.refuse(404, "no_route", "no route serves %s", q.host)
	case r.GetRedirect() != nil:
		location := q.location(r.GetRedirect())
		q.out.Location = location
		q.answer(Redirected, redirectStatus(r.GetRedirect()), "redirect", "route %s redirects to %s", name, location)
	case r.GetDirectResponse() != nil:
		status := int(r.GetDirectResponse().GetStatus())
		if q.out.Body = r.GetDirectResponse().GetBody().GetInlineString(); q.Method == http.MethodHead {
			q.out.Body = ""
		}
		if (status >= 300 && status < 400) || status == 201 { // Envoy says where it is
			q.out.Location = q.Scheme + "://" + q.host + q.path
		}
		switch {
		case translate.ObjectOf(r) == "", translate.IsMisdirected(r):
			q.noObject(status)
		default:
			q.answer(Answered, status, "direct_response", "route %s answers", name)
		}
	default:
		return q.forward(r)
	}
	return nil
}

// noObject is an answer that no object of the configuration is behind.
func (q *request) noObject(status int) {
	switch status {
	case 405:
		q.refuse(status, "trace", "TRACE is not allowed")
	case 421:
		q.refuse(status, "misdirected", "host %s demands a client certificate, on a connection of its own", q.host)
	default:
		q.refuse(status, "no_route", "host %s has no route that matches", q.out.Host)
	}
}

func redirectStatus(r *routev3.RedirectAction) int {
	switch r.GetResponseCode() {
	case routev3.RedirectAction_FOUND:
		return 302
	case routev3.RedirectAction_SEE_OTHER:
		return 303
	case routev3.RedirectAction_TEMPORARY_REDIRECT:
		return 307
	case routev3.RedirectAction_PERMANENT_REDIRECT:
		return 308
	}
	return 301
}

// location is where a redirect leads.
func (q *request) location(r *routev3.RedirectAction) string {
	scheme, host, port, path := q.Scheme, q.host, "", q.path
	if s := r.GetSchemeRedirect(); s != "" {
		scheme = s
	}
	if r.GetHostRedirect() != "" {
		host = r.GetHostRedirect()
	}
	if r.GetPortRedirect() != 0 {
		port = fmt.Sprintf(":%d", r.GetPortRedirect())
	}
	kept := false // a query of the redirect's own is not stripped
	switch {
	case r.GetPathRedirect() != "":
		_, query := cutQuery(path)
		if kept = strings.Contains(r.GetPathRedirect(), "?"); kept {
			query = ""
		}
		path = r.GetPathRedirect() + query
	case r.GetPrefixRewrite() != "":
		path = q.replacePrefix(r.GetPrefixRewrite())
	}
	if r.GetStripQuery() && !kept {
		path, _ = cutQuery(path)
	}
	return scheme + "://" + host + port + path
}

// replacePrefix puts something into the place of what the route has matched of the path.
func (q *request) replacePrefix(by string) string {
	matched := withoutQuery(q.path)
	switch p := q.route.GetMatch().GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		matched = p.Prefix
	case *routev3.RouteMatch_PathSeparatedPrefix:
		matched = p.PathSeparatedPrefix
	}
	return by + q.path[len(matched):]
}

// forward sends the request to a service.
func (q *request) forward(r *routev3.Route) error {
	a := r.GetRoute()
	path, host := q.path, q.host
	switch {
	case a.GetRegexRewrite() != nil:
		before, query := cutQuery(path)
		after, err := replaceAll(a.GetRegexRewrite().GetPattern().GetRegex(), before, a.GetRegexRewrite().GetSubstitution())
		if err != nil {
			return err
		}
		if after != "" { // Envoy sends no empty path
			path = after + query
		}
	case a.GetPrefixRewrite() != "":
		path = q.replacePrefix(a.GetPrefixRewrite())
	}
	if a.GetHostRewriteLiteral() != "" {
		host = a.GetHostRewriteLiteral()
	}
	add := func(name string, weight, total uint32) {
		if weight > 0 {
			q.out.Services = append(q.out.Services, api.ExplainedService{
				Name: name, Percent: 100 * float64(weight) / float64(total), Path: path, Host: host,
			})
		}
	}
	if a.GetCluster() != "" {
		add(a.GetCluster(), 1, 1)
	}
	total := uint32(0)
	for _, c := range a.GetWeightedClusters().GetClusters() {
		total += c.GetWeight().GetValue()
	}
	for _, c := range a.GetWeightedClusters().GetClusters() {
		add(c.GetName(), c.GetWeight().GetValue(), total)
	}
	var names []string
	for _, s := range q.out.Services {
		names = append(names, s.Name)
	}
	for _, m := range a.GetRequestMirrorPolicies() {
		q.step("answer", "a copy goes to service %s", m.GetCluster())
	}
	q.out.Outcome, q.out.Reason = Forwarded, Forwarded
	q.out.Summary = fmt.Sprintf("forwarded by route %s to service %s with path %s", q.out.Route,
		strings.Join(names, " or "), path)
	q.step("answer", "service %s, with path %s and host %s", strings.Join(names, " or "), path, host)
	return nil
}
