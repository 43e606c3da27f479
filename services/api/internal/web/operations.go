package web

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/marchproxy/marchproxy/services/api/internal/auth"
	"github.com/marchproxy/marchproxy/services/api/internal/openapi"
)

// operation is an entry of the API with its handler.
type operation struct {
	openapi.Operation
	handle echo.HandlerFunc
}

// operations is the whole API: the handlers are added from it, and the OpenAPI document is made from it.
func (a *API) operations() []operation {
	type op = openapi.Operation
	write := []string{"wait", "timeout", "dry_run", "message"}
	object := append(write[:len(write):len(write)], "take_over")
	page := []string{"limit", "cursor"}
	guard := []string{"If-Match", "If-None-Match", "Idempotency-Key"}
	once := []string{"Idempotency-Key"}
	return []operation{
		{op{
			ID: "health", Method: "GET", Path: "/healthz", Tag: "System", Summary: "Whether the process answers",
			Answers: map[int]string{200: "Health"},
		}, func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]string{"status": "healthy"}) }},
		{op{
			ID: "ready", Method: "GET", Path: "/readyz", Tag: "System", Summary: "Whether the database stores, and what is " +
				"stored is published; with 503 why not",
			Answers: map[int]string{200: "Health"},
		}, a.ready},
		{op{
			ID: "metrics", Method: "GET", Path: "/metrics", Tag: "System", Summary: "Metrics in Prometheus's text format",
			Answers: map[int]string{200: "text/plain"},
		}, a.metrics.handler()},
		{op{
			ID: "openapi", Method: "GET", Path: "/v1/openapi.json", Tag: "System", Summary: "This document",
			Answers: map[int]string{200: "OpenAPI"},
		}, func(c echo.Context) error { return c.Blob(http.StatusOK, "application/json", a.openAPI) }},

		{
			op{
				ID:      "apply",
				Method:  "POST",
				Path:    "/v1/apply",
				Role:    auth.Editor,
				Tag:     "Apply",
				Summary: "Write many resources in one transaction, one revision",
				Description: "All or nothing; each resource must be one that the token may write. Owner and labels of what is " +
					"there stay where they are not given; empty ones take them away. " +
					"What belongs to another owner than the one given is refused with 409, unless it is taken over. With `owner` " +
					"and `prune`, what the owner has and the list lacks is deleted.",
				Query:   append(object[:len(object):len(object)], "allow_empty"),
				Headers: once,
				Request: "ApplyRequest",
				Answers: map[int]string{200: "ApplyResult", 202: "ApplyResult"},
			},
			a.apply,
		},

		{op{
			ID: "status", Method: "GET", Path: "/v1/status", Role: auth.Viewer, Tag: "Status",
			Summary: "The system in one answer",
			Answers: map[int]string{200: "Status"},
		}, a.status},
		{op{
			ID: "proxies", Method: "GET", Path: "/v1/proxies", Role: auth.Viewer, Tag: "Status",
			Summary: "The Envoys that are connected or were lately, and what they serve",
			Query:   append([]string{"gateway", "state"}, page...),
			Answers: map[int]string{200: "ProxyList"},
		}, a.proxies},
		{op{
			ID: "nodes", Method: "GET", Path: "/v1/nodes", Role: auth.Viewer, Tag: "Status",
			Summary: "The machines whose agents report, and what their kernels do",
			Answers: map[int]string{200: "NodeList"},
		}, a.nodes},
		{op{
			ID: "serviceHealth", Method: "GET", Path: "/v1/services/:name/health", Role: auth.Viewer, Tag: "Status",
			Summary: "Which endpoints of a service get requests",
			Description: "Each endpoint as each Envoy sees it that has routes to the service. The agents look at their Envoys every " +
				"ten seconds and tell of what fails; `proxies` says how old that is. What is old or missing makes an endpoint " +
				"`unknown`, and never healthy.",
			Answers: map[int]string{200: "ServiceHealth"},
		}, a.serviceHealth},
		{op{
			ID: "metricsSummary", Method: "GET", Path: "/v1/metrics/summary", Role: auth.Viewer, Tag: "Status",
			Summary: "What the Envoys and the kernels have done in the last ten minutes",
			Description: "Requests, answers by class and latency, of each gateway and of all together, in intervals of ten seconds; " +
				"services with endpoints that fail; packets that the kernels dropped. The agents tell of it: an Envoy that no agent " +
				"runs, or that does not answer its agent, is in `silent`, and in none of the figures. An api that was started a " +
				"moment ago knows of what came since.",
			Answers: map[int]string{200: "MetricsSummary"},
		}, a.metricsSummary},
		{
			op{
				ID:      "rateLimitStatus",
				Method:  "GET",
				Path:    "/v1/rate-limit-policies/:name/status",
				Role:    auth.Viewer,
				Tag:     "Status",
				Summary: "What each node makes of a rate limit policy",
				Description: "The connected nodes that the policy selects: how their program runs, the revision that they " +
					"enforce, packets, and the sources that lost most. " +
					"Counters are at most five seconds old.",
				Answers: map[int]string{200: "RateLimitStatus"},
			},
			a.limitStatus,
		},
		{
			op{
				ID:      "explain",
				Method:  "POST",
				Path:    "/v1/explain",
				Role:    auth.Viewer,
				Tag:     "Status",
				Summary: "What an Envoy would do with a request",
				Description: "Which listener, route, AuthPolicy, limits, License and Service a request would take, why the other " +
					"routes of the host do not match, and how it would be answered. No request is sent. It is computed from the " +
					"configuration at the head, as Envoys get it and by Envoy's rules; a token is judged by the filter's own code. " +
					"Nothing of the request is stored or logged, and no header's value is in the answer.",
				Request: "ExplainRequest",
				Answers: map[int]string{200: "Explanation"},
			},
			a.explainRequest,
		},
		{
			op{
				ID:      "renewCertificate",
				Method:  "POST",
				Path:    "/v1/certificates/:name/renew",
				Role:    auth.Operator,
				Tag:     "Status",
				Summary: "Order a certificate from its issuer now",
				Description: "Whether its renewal is due or the pause after a failure over; what the issuer's order_limit and the " +
					"authority allow holds all the same. It answers when that is noted: `status.issuance` of the certificate says " +
					"how far it is.",
				Answers: map[int]string{202: "Certificate"},
			},
			a.renew,
		},
		{op{
			ID: "events", Method: "GET", Path: "/v1/events", Role: auth.Viewer, Tag: "Status",
			Summary: "Follow every change (server-sent events)",
			Description: "`event: revision`, with the revision as id and the commit (as on NATS, docs/events.md) as data: " +
				"every one of them, gapless; " +
				"a client that comes back with Last-Event-ID gets what it missed, without it what comes from now on. " +
				"`event: status`, without an id, with live_revision, proxies, lagging_proxies, rejected, unresolved_names, " +
				"progress and troubles, whenever they change. A comment every 15 seconds keeps the connection open.",
			Headers: []string{"Last-Event-ID"}, Answers: map[int]string{200: "text/event-stream"},
		}, a.events},
		{op{
			ID: "accessLog", Method: "GET", Path: "/v1/access-log", Role: auth.Viewer, Tag: "Status",
			Summary: "Watch the requests that Envoys answer (server-sent events)",
			Description: "`event: entry`, with one request as data, as soon as it is answered; docs/access-logs.md has its " +
				"members. Envoys with much to do tell of a share of their requests, which is in the entry. `event: state`, with " +
				"proxies (Envoys that tell), silent (those that do not), share and dropped, whenever they change. " +
				"Nothing is kept: what came before is in the access log's sinks. A token with bounds gets what is within them.",
			Query:   []string{"gateway", "proxy", "host", "route", "status", "method", "path"},
			Answers: map[int]string{200: "text/event-stream"},
		}, a.accessLog},

		{op{
			ID: "listRevisions", Method: "GET", Path: "/v1/revisions", Role: auth.Viewer, Tag: "Revisions",
			Summary: "The history, the newest first",
			Query:   page, Answers: map[int]string{200: "RevisionList"},
		}, a.revisions},
		{op{
			ID: "getRevision", Method: "GET", Path: "/v1/revisions/:revision", Role: auth.Viewer, Tag: "Revisions",
			Summary: "One revision with its changes",
			Answers: map[int]string{200: "Revision"},
		}, a.revision},
		{op{
			ID: "diffRevisions", Method: "GET", Path: "/v1/revisions/:revision/diff", Role: auth.Viewer, Tag: "Revisions",
			Summary: "What differs between two revisions",
			Query:   []string{"against"}, Answers: map[int]string{200: "Diff"},
		}, a.diff},
		{
			op{
				ID:      "rollback",
				Method:  "POST",
				Path:    "/v1/revisions/:revision/rollback",
				Role:    auth.Editor,
				Tag:     "Revisions",
				Summary: "Make the configuration what it was at a revision",
				Description: "As a new revision: nothing of the history is rewritten, and a rollback can be rolled back. " +
					"What it changes must be what the token may write. Credentials that were taken away since then (keys of " +
					"gateways, keys and tokens of policies, certificates) " +
					"come back only with `revive_credentials`; 409 names them, and a dry run warns of them.",
				Query:   append(write[:len(write):len(write)], "revive_credentials"),
				Headers: once,
				Answers: map[int]string{200: "ApplyResult", 202: "ApplyResult"},
			},
			a.rollback,
		},
		{op{
			ID: "audit", Method: "GET", Path: "/v1/audit", Role: auth.Viewer, Tag: "Revisions",
			Summary:     "Who changed what, the newest first",
			Description: "One entry for each object that a revision changed, and for what was done to each token and user.",
			Query:       append([]string{"kind", "object", "actor"}, page...), Answers: map[int]string{200: "AuditList"},
		}, a.audit},
		{op{
			ID: "exportAudit", Method: "GET", Path: "/v1/audit/export", Role: auth.Viewer, Tag: "Revisions",
			Summary: "The audit as a file, with its hashes, the oldest first",
			Description: "A line of JSON a record, which is an accepted write with all its entries, or a token made or " +
				"deleted: a file that can be verified without the api " +
				"(docs/operations.md has how). The first line has the record before it, and the last one. A connection that " +
				"breaks off is no end.",
			Query: []string{"since", "until"}, Answers: map[int]string{200: "text/plain"},
		}, a.exportAudit},
		{
			op{
				ID:      "verifyAudit",
				Method:  "GET",
				Path:    "/v1/audit/verify",
				Role:    auth.Admin,
				Tag:     "Revisions",
				Summary: "Whether the audit was changed",
				Description: "Makes every record's hash anew, from the oldest to the newest, and looks whether it is as it was " +
					"and signed with this system's SECRET_KEY; the first one that is not is named. " +
					"It works for some seconds, and goes on where `next_cursor` is sent. With `head` it says which record has that " +
					"hash: where none has, the audit was made anew, or restored from an older backup.",
				Query:   []string{"head", "cursor"},
				Answers: map[int]string{200: "AuditVerification"},
			},
			a.verifyAudit,
		},

		{op{
			ID: "signIn", Method: "POST", Path: "/v1/session", Tag: "Session",
			Summary: "Sign in with a token, as the web UI does",
			Description: "The answer sets a cookie that stands for the token for twelve hours, or until the token ends, " +
				"is deleted, or somebody signs out. Programs send the token itself.",
			Request: "SignIn", Answers: map[int]string{201: "Session"},
		}, a.signIn},
		{op{
			ID: "signInPassword", Method: "POST", Path: "/v1/session/password", Tag: "Session",
			Summary: "Sign in as a user, as the web UI does",
			Description: "As signIn, with a user's name and password. Wrong ones are slowed down by account and by address: 429 " +
				"says when to try again.",
			Request: "PasswordSignIn", Answers: map[int]string{201: "Session"},
		}, a.signInPassword},
		{op{
			ID: "signInWays", Method: "GET", Path: "/v1/session/ways", Tag: "Session",
			Summary: "How one can sign in here",
			Answers: map[int]string{200: "SignInWays"},
		}, a.signInWays},
		{op{
			ID: "session", Method: "GET", Path: "/v1/session", Role: auth.Viewer, Tag: "Session",
			Summary: "Who asks, and what they may do",
			Answers: map[int]string{200: "Session"},
		}, a.session},
		{op{
			ID: "signOut", Method: "DELETE", Path: "/v1/session", Role: auth.Viewer, Tag: "Session", Summary: "Sign out",
			Description: "Ends the session that the request's cookie is of.",
			Answers:     map[int]string{204: ""},
		}, a.signOut},

		{op{
			ID: "listTokens", Method: "GET", Path: "/v1/tokens", Role: auth.Admin, Tag: "Tokens",
			Summary: "The tokens, without their secrets",
			Answers: map[int]string{200: "TokenList"},
		}, a.listTokens},
		{op{
			ID: "createToken", Method: "POST", Path: "/v1/tokens", Role: auth.Admin, Tag: "Tokens", Summary: "Make a token",
			Description: "Name, role, expires_at and bounds are read. The answer holds the secret, this once; only " +
				"its hash is stored.",
			Request: "Token", Answers: map[int]string{201: "Token"},
		}, a.createToken},
		{op{
			ID: "deleteToken", Method: "DELETE", Path: "/v1/tokens/:name", Role: auth.Admin, Tag: "Tokens",
			Summary:     "Delete a token, at once",
			Description: "The last token with the role admin that does not end stays.",
			Answers:     map[int]string{200: "Token"},
		}, a.deleteToken},

		{op{
			ID: "listUsers", Method: "GET", Path: "/v1/users", Role: auth.Admin, Tag: "Users",
			Summary: "The users",
			Answers: map[int]string{200: "UserList"},
		}, a.listUsers},
		{op{
			ID: "createUser", Method: "POST", Path: "/v1/users", Role: auth.Admin, Tag: "Users", Summary: "Make a user",
			Description: "Name, password, role, bounds and disabled are read.",
			Request:     "User", Answers: map[int]string{201: "User"},
		}, a.createUser},
		{op{
			ID: "updateUser", Method: "PATCH", Path: "/v1/users/:user", Role: auth.Admin, Tag: "Users",
			Summary: "Change a user's role, bounds or password, disable or enable",
			Description: "It holds from the next request on. Another password, or being disabled, ends all of the user's " +
				"sessions. Role and password of who comes from a provider are the provider's. The last admin stays one.",
			Request: "UserPatch", Answers: map[int]string{200: "User"},
		}, a.updateUser},
		{op{
			ID: "deleteUser", Method: "DELETE", Path: "/v1/users/:user", Role: auth.Admin, Tag: "Users",
			Summary:     "Delete a user with all sessions and own tokens, at once",
			Description: "The last admin stays.",
			Answers:     map[int]string{200: "User"},
		}, a.deleteUser},

		{op{
			ID: "changePassword", Method: "POST", Path: "/v1/account/password", Role: auth.Viewer, Tag: "Account",
			Summary: "Change one's own password",
			Description: "All other sessions end, and this one goes on with another cookie. One's own tokens stay. 409 for " +
				"tokens, and for who has no password here.",
			Request: "PasswordChange", Answers: map[int]string{200: "Session"},
		}, a.changePassword},
		{op{
			ID: "listSessions", Method: "GET", Path: "/v1/account/sessions", Role: auth.Viewer, Tag: "Account",
			Summary: "One's own sessions, the newest first",
			Answers: map[int]string{200: "BrowserSessionList"},
		}, a.listSessions},
		{op{
			ID: "endSession", Method: "DELETE", Path: "/v1/account/sessions/:session", Role: auth.Viewer, Tag: "Account",
			Summary: "End one of one's own sessions",
			Answers: map[int]string{204: ""},
		}, a.endSession},
		{op{
			ID: "listOwnTokens", Method: "GET", Path: "/v1/account/tokens", Role: auth.Viewer, Tag: "Account",
			Summary: "One's own tokens, without their secrets",
			Answers: map[int]string{200: "TokenList"},
		}, a.listOwnTokens},
		{op{
			ID: "createOwnToken", Method: "POST", Path: "/v1/account/tokens", Role: auth.Viewer, Tag: "Account",
			Summary: "Make a token of one's own",
			Description: "As createToken, with no more than one may oneself, and an end within a year. It never does more than " +
				"its user may at that moment, and is gone with him. The audit calls it user/name.",
			Request: "Token", Answers: map[int]string{201: "Token"},
		}, a.createOwnToken},
		{op{
			ID: "deleteOwnToken", Method: "DELETE", Path: "/v1/account/tokens/:name", Role: auth.Viewer, Tag: "Account",
			Summary: "Delete a token of one's own, at once",
			Answers: map[int]string{200: "Token"},
		}, a.deleteOwnToken},

		{op{
			ID: "list{Kinds}", Method: "GET", Path: "/v1/:kind", Role: auth.Viewer, Tag: "{Kinds}",
			Summary: "List {kinds} by name",
			Query:   append([]string{"owner", "label", "q", "host", "service"}, page...),
			Answers: map[int]string{200: "{Kind}List"},
		}, a.list},
		{op{
			ID: "get{Kind}", Method: "GET", Path: "/v1/:kind/:name", Role: auth.Viewer, Tag: "{Kinds}",
			Summary: "Read one {kind}",
			Headers: []string{"If-None-Match"}, Answers: map[int]string{200: "{Kind}", 304: ""},
		}, a.get},
		{
			op{
				ID:      "put{Kind}",
				Method:  "PUT",
				Path:    "/v1/:kind/:name",
				Role:    auth.Editor,
				Writes:  true,
				Tag:     "{Kinds}",
				Summary: "Make a {kind} what the body says",
				Description: "Only `spec` is needed; owner and labels stay where they are not given, and empty ones take them " +
					"away. What the server sets may be there and is ignored, " +
					"so that what was read can be written. Another owner than the present one is refused with 409, unless it takes " +
					"over. With dry_run the answer is an ApplyResult.",
				Query:   object,
				Headers: guard,
				Request: "{Kind}",
				Answers: map[int]string{200: "{Kind}|ApplyResult", 201: "{Kind}", 202: "{Kind}"},
			},
			a.put,
		},
		{op{
			ID: "patch{Kind}", Method: "PATCH", Path: "/v1/:kind/:name", Role: auth.Editor, Writes: true, Tag: "{Kinds}",
			Summary: "Change parts of a {kind}",
			Query:   object, Headers: guard, Request: "{Kind}Patch", Answers: map[int]string{
				200: "{Kind}|ApplyResult",
				202: "{Kind}",
			},
		}, a.patch},
		{op{
			ID: "delete{Kind}", Method: "DELETE", Path: "/v1/:kind/:name", Role: auth.Editor, Writes: true, Tag: "{Kinds}",
			Summary:     "Delete a {kind}",
			Description: "Refused with 409 while something refers to it; with `owner` also where it belongs to another one.",
			Query:       append(object[:len(object):len(object)], "owner"), Headers: guard,
			Answers: map[int]string{200: "ApplyResult", 202: "ApplyResult"},
		}, a.remove},
	}
}
