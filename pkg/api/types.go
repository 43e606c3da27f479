// Package api is the HTTP API's vocabulary in Go, for the api and for those who talk to it. The source
// is proto/marchproxy/api/v1; a test compares the two.
package api

import (
	"encoding/json"
	"fmt"
)

// Object is a resource as HTTP, files and events write it.
type Object struct {
	Kind      string            `json:"kind"`
	Name      string            `json:"name"`
	Spec      json.RawMessage   `json:"spec"`
	Owner     string            `json:"owner,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	UID       string            `json:"uid,omitempty"`
	Revision  int64             `json:"revision,omitempty"`
	CreatedAt string            `json:"created_at,omitempty"`
	UpdatedAt string            `json:"updated_at,omitempty"`
	Status    *ObjectStatus     `json:"status,omitempty"`
	Live      *Live             `json:"live,omitempty"`
	Warnings  []Warning         `json:"warnings,omitempty"`
}

// ObjectStatus is what the Envoys make of an object.
type ObjectStatus struct {
	// State is pending, live, rejected or no_proxies.
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	// Issuance is how far the issuer of a Certificate is; nil of what has none.
	Issuance *CertificateIssuance `json:"issuance,omitempty"`
}

// CertificateIssuance is how far a certificate is that comes from an authority.
type CertificateIssuance struct {
	// Step is waiting, ordering, answering, validating, finalizing, issued or failed.
	Step string `json:"step"`
	Note string `json:"note,omitempty"`
	// Problem and Reason are of the last attempt; "" where it succeeded.
	Problem  string `json:"problem,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Failures int32  `json:"failures,omitempty"`
	// Dates are RFC 3339's.
	NextAt      string `json:"next_at,omitempty"`
	IssuedAt    string `json:"issued_at,omitempty"`
	RenewAt     string `json:"renew_at,omitempty"`
	Explanation string `json:"explanation,omitempty"`
}

// Live is how far a revision has come.
type Live struct {
	Live bool `json:"live"`
	// State is live, rejected, timeout, no_proxies or no_agents.
	State    string  `json:"state"`
	Reason   string  `json:"reason,omitempty"`
	Proxies  int32   `json:"proxies"`
	WaitedMS float64 `json:"waited_ms"`
	Agents   int32   `json:"agents,omitempty"`
	// Absent are Envoys of the gateways concerned that were connected and are not any more.
	Absent []AbsentProxy `json:"absent,omitempty"`
	// WaitingFor are connected Envoys that have lacked something longest.
	WaitingFor []LaggingProxy `json:"waiting_for,omitempty"`
}

// LaggingProxy is a connected Envoy that has not confirmed everything.
type LaggingProxy struct {
	ID              string `json:"id"`
	Gateway         string `json:"gateway"`
	Xds             string `json:"xds"`
	Address         string `json:"address,omitempty"`
	AppliedRevision int64  `json:"applied_revision"`
	// Since when it lacks something of a later revision, RFC 3339.
	Since string `json:"since"`
	// Resource is the type and name of what it lacks first.
	Resource string `json:"resource,omitempty"`
	// Sent says that this was sent, and that the Envoy has not answered.
	Sent bool `json:"sent,omitempty"`
}

// AbsentProxy is an Envoy that was connected and is not any more.
type AbsentProxy struct {
	ID              string `json:"id"`
	Gateway         string `json:"gateway"`
	Address         string `json:"address,omitempty"`
	AppliedRevision int64  `json:"applied_revision"`
	LastSeenAt      string `json:"last_seen_at"`
}

// ObjectList is a page of objects.
type ObjectList struct {
	Items      []Object `json:"items"`
	NextCursor string   `json:"next_cursor,omitempty"`
	Revision   int64    `json:"revision"`
}

// ApplyRequest is many resources, one transaction, one revision.
type ApplyRequest struct {
	Owner      string   `json:"owner,omitempty"`
	Prune      bool     `json:"prune,omitempty"`
	TakeOver   bool     `json:"take_over,omitempty"`
	AllowEmpty bool     `json:"allow_empty,omitempty"`
	DryRun     bool     `json:"dry_run,omitempty"`
	Message    string   `json:"message,omitempty"`
	Resources  []Object `json:"resources"`
}

// ApplyResult is the answer to a write of many resources, or of a rollback.
type ApplyResult struct {
	Revision int64 `json:"revision"`
	// Epoch is the life of the database that the revision is counted in: another one begins where it is restored.
	Epoch     string   `json:"epoch"`
	DryRun    bool     `json:"dry_run,omitempty"`
	Changes   []Change `json:"changes"`
	Unchanged int32    `json:"unchanged"`
	Live      *Live    `json:"live,omitempty"`
	// Warnings are about what was accepted, or would be.
	Warnings []Warning `json:"warnings,omitempty"`
}

// Warning is about something that is accepted and should be looked at.
type Warning struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Path is below the object's spec.
	Path    string `json:"path"`
	Message string `json:"message"`
	Rule    string `json:"rule"`
}

// Change is what a revision did to one resource.
type Change struct {
	// Action is create, update or delete.
	Action string          `json:"action"`
	Kind   string          `json:"kind"`
	Name   string          `json:"name"`
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`

	OwnerBefore  string            `json:"owner_before,omitempty"`
	OwnerAfter   string            `json:"owner_after,omitempty"`
	LabelsBefore map[string]string `json:"labels_before,omitempty"`
	LabelsAfter  map[string]string `json:"labels_after,omitempty"`
}

// Revision is one transaction of the history.
type Revision struct {
	Revision    int64    `json:"revision"`
	At          string   `json:"at"`
	Actor       string   `json:"actor"`
	Message     string   `json:"message,omitempty"`
	RequestID   string   `json:"request_id,omitempty"`
	ChangeCount int32    `json:"change_count"`
	Changes     []Change `json:"changes,omitempty"`
}

// RevisionList is a page of revisions, the newest first.
type RevisionList struct {
	Items      []Revision `json:"items"`
	NextCursor string     `json:"next_cursor,omitempty"`
}

// Diff is what differs between two revisions.
type Diff struct {
	Revision int64    `json:"revision"`
	Against  int64    `json:"against"`
	Changes  []Change `json:"changes"`
}

// AuditEntry is one accepted change of one resource.
type AuditEntry struct {
	Revision  int64  `json:"revision"`
	At        string `json:"at"`
	Actor     string `json:"actor"`
	RequestID string `json:"request_id,omitempty"`
	Message   string `json:"message,omitempty"`
	Action    string `json:"action"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	// ActorID is the id of the actor's token.
	ActorID string `json:"actor_id,omitempty"`
}

// AuditList is a page of the audit, the newest first.
type AuditList struct {
	Items      []AuditEntry `json:"items"`
	NextCursor string       `json:"next_cursor,omitempty"`
}

// AuditPoint is a record of the audit.
type AuditPoint struct {
	N    int64  `json:"n"`
	Hash string `json:"hash"`
}

// AuditBroken is a record of the audit that does not fit.
type AuditBroken struct {
	N        int64  `json:"n"`
	Revision int64  `json:"revision,omitempty"`
	At       string `json:"at,omitempty"`
	Reason   string `json:"reason"`
}

// AuditVerification is how far the audit was verified, and what was found.
type AuditVerification struct {
	// OK says that everything fits until the end of the audit.
	OK      bool       `json:"ok"`
	Last    AuditPoint `json:"last"`
	Records int64      `json:"records"`
	Entries int64      `json:"entries"`
	// Adopted are the records that were chained later than they were written, the last of them at AdoptedAt.
	Adopted   int64  `json:"adopted,omitempty"`
	AdoptedAt string `json:"adopted_at,omitempty"`
	// Unproven are the records that were signed with a SECRET_KEY that the api has not.
	Unproven int64 `json:"unproven,omitempty"`
	// Unchained are the records that the next write chains.
	Unchained int64 `json:"unchained,omitempty"`
	// Found is the record with the hash that was asked for.
	Found      *AuditPoint  `json:"found,omitempty"`
	Broken     *AuditBroken `json:"broken,omitempty"`
	NextCursor string       `json:"next_cursor,omitempty"`
}

// Status is the system in one answer.
type Status struct {
	Revision          int64       `json:"revision"`
	Epoch             string      `json:"epoch"`
	PublishedRevision int64       `json:"published_revision"`
	LiveRevision      int64       `json:"live_revision"`
	Proxies           int32       `json:"proxies"`
	Rejected          []Rejection `json:"rejected"`
	Xds               []XdsServer `json:"xds"`
	// State is count and hash of the state in the database, by kind.
	State map[string]KindState `json:"state"`
	// Licenses are in the order of their names.
	Licenses []LicenseStatus `json:"licenses,omitempty"`
	// Warnings are about certificates that have ended or end soon, the first to end first.
	Warnings []Warning `json:"warnings,omitempty"`
	// Troubles are what does not work of the system's own parts.
	Troubles []Trouble `json:"troubles,omitempty"`
	// Names are the DNS names that do not resolve, a hundred at most, of UnresolvedNames.
	Names           []UnresolvedName `json:"names,omitempty"`
	UnresolvedNames int32            `json:"unresolved_names,omitempty"`
	// Progress is what is under way for longer than a moment.
	Progress []Progress `json:"progress,omitempty"`
	// Lagging are the Envoys that have lacked something for more than five seconds, twenty at most, of LaggingProxies.
	Lagging        []LaggingProxy `json:"lagging,omitempty"`
	LaggingProxies int32          `json:"lagging_proxies,omitempty"`
	// RejectedObjects counts what Rejected lists a hundred of.
	RejectedObjects int32 `json:"rejected_objects,omitempty"`
	// OldestRevision is the oldest one that is kept.
	OldestRevision int64 `json:"oldest_revision,omitempty"`
	// Audit is the last record of the audit.
	Audit AuditPoint `json:"audit"`
	// Drained are the places that take no new requests, a hundred at most.
	Drained []DrainedLocality `json:"drained,omitempty"`
}

// DrainedLocality is a cloud, region or zone that takes no new requests; what is empty may be any.
type DrainedLocality struct {
	// Name is that of the LocalityDrain.
	Name   string `json:"name"`
	Cloud  string `json:"cloud,omitempty"`
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Since when, RFC 3339.
	Since string `json:"since"`
}

// Progress is what a part of the system is busy with.
type Progress struct {
	// Who is stream or xds NAME.
	Who  string `json:"who"`
	What string `json:"what"`
	// Done of Total; both are 0 where nobody can say.
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
	// Since when it has been behind, RFC 3339.
	Since string `json:"since,omitempty"`
}

// String is what a part does, and how far it is.
func (p Progress) String() string {
	if p.Total == 0 {
		return p.What
	}
	return fmt.Sprintf("%s, %d of %d", p.What, p.Done, p.Total)
}

// Trouble is what is wrong with a part of the system.
type Trouble struct {
	// Part is stream, database, xds NAME or node NAME.
	Part   string `json:"part"`
	Reason string `json:"reason"`
	Since  string `json:"since,omitempty"`
}

// UnresolvedName is a DNS name whose last lookup, by an xDS server, brought no addresses.
type UnresolvedName struct {
	Host     string   `json:"host"`
	Services []string `json:"services,omitempty"`
	// Problem is pending, not_found, no_addresses, timeout, failed or refused.
	Problem string `json:"problem"`
	Reason  string `json:"reason"`
	// Addresses that it had last, which are served.
	Addresses int32  `json:"addresses"`
	Since     string `json:"since"`
	Xds       string `json:"xds"`
}

// LicenseStatus is what a license is worth now.
type LicenseStatus struct {
	Name string `json:"name"`
	// State is valid, grace, expired or no_key.
	State string `json:"state"`
	// Warning is what should be done; empty where nothing.
	Warning    string `json:"warning,omitempty"`
	ExpiresAt  string `json:"expires_at,omitempty"`
	WorksUntil string `json:"works_until,omitempty"`
	Proxies    int32  `json:"proxies"`
	MaxProxies int32  `json:"max_proxies,omitempty"`
	Surplus    int32  `json:"surplus,omitempty"`
}

// LiveStatus is the data of a status event of GET /v1/events.
type LiveStatus struct {
	LiveRevision int64       `json:"live_revision"`
	Proxies      int32       `json:"proxies"`
	Rejected     []Rejection `json:"rejected,omitempty"`
	Troubles     []Trouble   `json:"troubles,omitempty"`
	// UnresolvedNames counts the DNS names that do not resolve.
	UnresolvedNames int32 `json:"unresolved_names,omitempty"`
	// Progress is what is under way for longer than a moment.
	Progress []Progress `json:"progress,omitempty"`
	// LaggingProxies counts the Envoys that have lacked something for more than five seconds.
	LaggingProxies int32 `json:"lagging_proxies,omitempty"`
	// RejectedObjects counts what Rejected lists a hundred of.
	RejectedObjects int32 `json:"rejected_objects,omitempty"`
}

// AccessLogEntry is one request at its end, as GET /v1/access-log tells of it. What the gateway's access log leaves out
// is absent, and so is what the request does not have. Of headers there are host, user agent and request id alone, and
// there is no query.
type AccessLogEntry struct {
	// Time of the request's first byte, RFC 3339.
	Time       string `json:"time,omitempty"`
	Method     string `json:"method,omitempty"`
	Scheme     string `json:"scheme,omitempty"`
	Host       string `json:"host,omitempty"`
	Path       string `json:"path,omitempty"`
	Protocol   string `json:"protocol,omitempty"`
	ServerName string `json:"server_name,omitempty"`
	// Status of the answer, 0 where the client had gone before there was one.
	Status int32 `json:"status"`
	// Flags and Details are Envoy's words for how the answer came about.
	Flags   string `json:"flags,omitempty"`
	Details string `json:"details,omitempty"`
	// Listener, Route and Service are names, Upstream is the endpoint's address.
	Listener string `json:"listener,omitempty"`
	Route    string `json:"route,omitempty"`
	Service  string `json:"service,omitempty"`
	Upstream string `json:"upstream,omitempty"`
	// Client is the address that the request came from, with its port.
	Client    string `json:"client,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	// Of the bodies, in bytes.
	BytesReceived int64 `json:"bytes_received"`
	BytesSent     int64 `json:"bytes_sent"`
	// In milliseconds: from the request's first byte to the answer's last one, and until the endpoint's answer began.
	DurationMS int64 `json:"duration_ms"`
	UpstreamMS int64 `json:"upstream_ms,omitempty"`
	// Share of the requests that were told of: with 0.05 this one stands for twenty.
	Share float64 `json:"share"`
	// Proxy is the Envoy's node id, and Gateway the gateway that it belongs to.
	Proxy   string `json:"proxy,omitempty"`
	Gateway string `json:"gateway,omitempty"`
}

// AccessLogState is the data of a state event of GET /v1/access-log: whether Envoys tell.
type AccessLogState struct {
	// Proxies are the Envoys that tell, and Silent those that are connected and do not.
	Proxies int32 `json:"proxies"`
	Silent  int32 `json:"silent"`
	// Share is the least share of requests that an Envoy tells of, 1 for all of them.
	Share float64 `json:"share"`
	// Dropped counts the entries that were not read fast enough, since the stream began.
	Dropped int64 `json:"dropped"`
	// Reason why an Envoy tells nothing, in a sentence.
	Reason string `json:"reason,omitempty"`
}

// KindState is the count and hash of one kind.
type KindState struct {
	Count int64  `json:"count"`
	Hash  string `json:"hash"`
}

// Rejection is an object that an Envoy refused.
type Rejection struct {
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Gateway  string `json:"gateway"`
	Resource string `json:"resource,omitempty"`
	Reason   string `json:"reason"`
	Revision int64  `json:"revision,omitempty"`
}

// XdsServer is an xDS server that reports.
type XdsServer struct {
	ID       string `json:"id"`
	Revision int64  `json:"revision"`
	Proxies  int32  `json:"proxies"`
	At       string `json:"at"`
	// LiveRevision is the one that all of its Envoys serve; 0 without any.
	LiveRevision int64 `json:"live_revision,omitempty"`
	// LaggingProxies counts its Envoys that have lacked something for more than five seconds.
	LaggingProxies int32 `json:"lagging_proxies,omitempty"`
}

// Proxy is one Envoy.
type Proxy struct {
	ID              string      `json:"id"`
	Gateway         string      `json:"gateway"`
	Xds             string      `json:"xds"`
	Connected       bool        `json:"connected"`
	Address         string      `json:"address,omitempty"`
	AppliedRevision int64       `json:"applied_revision"`
	Version         string      `json:"version,omitempty"`
	ConnectedAt     string      `json:"connected_at,omitempty"`
	Rejected        []Rejection `json:"rejected,omitempty"`
	// Surplus says that it has no seat under its gateway's license.
	Surplus bool `json:"surplus,omitempty"`
	// LastSeenAt is when it was last known to be connected; "" while it is.
	LastSeenAt string `json:"last_seen_at,omitempty"`
	// DrainTimeSeconds is after how many seconds it cuts connections that came through what a change has replaced; 0
	// where it does not say.
	DrainTimeSeconds int32 `json:"drain_time_seconds,omitempty"`
	// LaggingSince is since when it lacks something; Lacks is the type and name of what it lacks first.
	LaggingSince string `json:"lagging_since,omitempty"`
	Lacks        string `json:"lacks,omitempty"`
}

// ProxyList is a page of the Envoys that are known; Total counts those of all pages.
type ProxyList struct {
	Items      []Proxy `json:"items"`
	NextCursor string  `json:"next_cursor,omitempty"`
	Total      int32   `json:"total"`
}

// Token is a token; its secret is shown once.
type Token struct {
	Name string `json:"name"`
	// Role is viewer, editor, operator or admin.
	Role       string `json:"role"`
	CreatedAt  string `json:"created_at,omitempty"`
	Token      string `json:"token,omitempty"`
	ID         string `json:"id,omitempty"`
	ExpiresAt  string `json:"expires_at,omitempty"`
	LastUsedAt string `json:"last_used_at,omitempty"`
	// Bounds within which it writes, nil for none.
	Bounds *TokenBounds `json:"bounds,omitempty"`
}

// SignIn is what the web UI signs in with.
type SignIn struct {
	Token string `json:"token"`
}

// Session is who asks, and what they may do.
type Session struct {
	Name string `json:"name"`
	// Role is viewer, editor, operator or admin.
	Role   string       `json:"role"`
	Bounds *TokenBounds `json:"bounds,omitempty"`
	// User says that it is a user and not a token; Password that he has one here.
	User     bool `json:"user,omitempty"`
	Password bool `json:"password,omitempty"`
}

// PasswordSignIn is who signs in with a password.
type PasswordSignIn struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

// SignInWays is how one can sign in.
type SignInWays struct {
	// Password says that there is a user with one, and Provider what the button for the provider is called.
	Password bool   `json:"password"`
	Provider string `json:"provider,omitempty"`
}

// User is a user, without the password but when he is made.
type User struct {
	Name string `json:"name"`
	// Role is viewer, editor, operator or admin.
	Role       string       `json:"role,omitempty"`
	Bounds     *TokenBounds `json:"bounds,omitempty"`
	Disabled   bool         `json:"disabled,omitempty"`
	Password   string       `json:"password,omitempty"`
	ID         string       `json:"id,omitempty"`
	CreatedAt  string       `json:"created_at,omitempty"`
	ChangedAt  string       `json:"changed_at,omitempty"`
	SignedInAt string       `json:"signed_in_at,omitempty"`
	// Issuer is the provider that the user comes from, "" for who has a password.
	Issuer   string `json:"issuer,omitempty"`
	Sessions int32  `json:"sessions,omitempty"`
	Tokens   int32  `json:"tokens,omitempty"`
}

// UserList is the users, by name.
type UserList struct {
	Items []User `json:"items"`
}

// UserPatch is what is to be changed of a user; what is nil stays.
type UserPatch struct {
	Role     *string      `json:"role,omitempty"`
	Bounds   *TokenBounds `json:"bounds,omitempty"`
	Disabled *bool        `json:"disabled,omitempty"`
	Password *string      `json:"password,omitempty"`
}

// PasswordChange is another password of one's own.
type PasswordChange struct {
	Current  string `json:"current"`
	Password string `json:"password"`
}

// BrowserSession is a browser in which one is signed in.
type BrowserSession struct {
	ID        string `json:"id"`
	CreatedAt string `json:"created_at"`
	ExpiresAt string `json:"expires_at"`
	Address   string `json:"address,omitempty"`
	Agent     string `json:"agent,omitempty"`
	Current   bool   `json:"current,omitempty"`
}

// BrowserSessionList is one's own sessions, the newest first.
type BrowserSessionList struct {
	Items []BrowserSession `json:"items"`
}

// TokenBounds are what a token may write: only what is within all of these that are not empty.
type TokenBounds struct {
	// Owners are prefixes of owners, and Hosts ends of hosts.
	Owners   []string `json:"owners,omitempty"`
	Gateways []string `json:"gateways,omitempty"`
	Kinds    []string `json:"kinds,omitempty"`
	Hosts    []string `json:"hosts,omitempty"`
}

// TokenList is the tokens, by name.
type TokenList struct {
	Items []Token `json:"items"`
}

// Problem is an error, as RFC 9457 has it.
type Problem struct {
	Type        string      `json:"type"`
	Title       string      `json:"title"`
	Status      int32       `json:"status"`
	Detail      string      `json:"detail,omitempty"`
	RequestID   string      `json:"request_id,omitempty"`
	Errors      []Violation `json:"errors,omitempty"`
	CurrentETag string      `json:"current_etag,omitempty"`
}

// Violation is one thing that is wrong with the input.
type Violation struct {
	Path    string `json:"path"`
	Message string `json:"message"`
	Rule    string `json:"rule,omitempty"`
}

// RateLimitStatus is what the nodes make of a rate limit policy.
type RateLimitStatus struct {
	Name     string          `json:"name"`
	Revision int64           `json:"revision"`
	Nodes    []RateLimitNode `json:"nodes"`
}

// RateLimitNode is one node that a policy selects.
type RateLimitNode struct {
	ID              string           `json:"id"`
	Live            bool             `json:"live"`
	Interface       string           `json:"interface,omitempty"`
	Mode            string           `json:"mode,omitempty"`
	Reason          string           `json:"reason,omitempty"`
	AppliedRevision int64            `json:"applied_revision,omitempty"`
	Passed          int64            `json:"passed"`
	Limited         int64            `json:"limited"`
	Dropped         map[string]int64 `json:"dropped,omitempty"`
	Sources         []LimitedSource  `json:"sources,omitempty"`
	Warnings        []string         `json:"warnings,omitempty"`
	At              string           `json:"at"`
}

// Node is a machine whose agent reports, or did within the hour.
type Node struct {
	ID        string            `json:"id"`
	Connected bool              `json:"connected"`
	Labels    map[string]string `json:"labels,omitempty"`
	// Interface that is guarded; "" where there is none to guard.
	Interface string `json:"interface,omitempty"`
	// Mode is native, skb or hw; "" while nothing is enforced.
	Mode     string `json:"mode,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Revision int64  `json:"revision"`
	// Passed and Dropped are packets by reason.
	Passed   map[string]int64 `json:"passed,omitempty"`
	Dropped  map[string]int64 `json:"dropped,omitempty"`
	Policies []string         `json:"policies,omitempty"`
	Sources  []LimitedSource  `json:"sources,omitempty"`
	Warnings []string         `json:"warnings,omitempty"`
	// Proxy is the Envoy that the node's agent runs, of Gateway; "" where it runs none.
	Proxy   string `json:"proxy,omitempty"`
	Gateway string `json:"gateway,omitempty"`
	At      string `json:"at"`
}

// NodeList is the nodes, by name.
type NodeList struct {
	Items []Node `json:"items"`
}

// ServiceHealth is which endpoints of a service get requests.
type ServiceHealth struct {
	Name     string `json:"name"`
	Revision int64  `json:"revision"`
	// Checked says that somebody looks whether its endpoints answer: health_check or outlier_detection is set.
	Checked   bool             `json:"checked"`
	Endpoints []EndpointHealth `json:"endpoints"`
	Proxies   []HealthReport   `json:"proxies"`
	// Orders are those of the places, for each place with an Envoy that measures how soon they answer.
	Orders []PlaceOrder `json:"orders,omitempty"`
}

// PlaceOrder is the order in which Envoys at a place use the places of a service's endpoints.
type PlaceOrder struct {
	Cloud  string `json:"cloud,omitempty"`
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	// Proxies counts the Envoys there that have measured.
	Proxies int32          `json:"proxies"`
	Places  []OrderedPlace `json:"places"`
}

// OrderedPlace is a place of endpoints as Envoys at a place see it.
type OrderedPlace struct {
	Cloud  string `json:"cloud,omitempty"`
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	// Priority is Envoy's: 0 comes first.
	Priority int32 `json:"priority"`
	// Measured says whether the latencies are known, which are in milliseconds: what is measured now, and what the order
	// is made by.
	Measured        bool    `json:"measured"`
	LatencyMS       float64 `json:"latency_ms,omitempty"`
	SteadyLatencyMS float64 `json:"steady_ms,omitempty"`
}

// EndpointHealth is an endpoint as the Envoys see it.
type EndpointHealth struct {
	Host string `json:"host"`
	Port int32  `json:"port"`
	// Address where the host is a name, and an Envoy has spoken of the address.
	Address     string `json:"address,omitempty"`
	EndpointSet string `json:"endpoint_set,omitempty"`
	// State is healthy, unhealthy, mixed, unchecked or unknown.
	State string `json:"state"`
	// Views are those of the Envoys, in the order of proxies.
	Views []EndpointView `json:"views"`
}

// EndpointView is an endpoint as one Envoy sees it.
type EndpointView struct {
	Proxy string `json:"proxy"`
	Node  string `json:"node,omitempty"`
	// State is healthy, unhealthy, unchecked or unknown.
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// HealthReport is how old what an Envoy says is.
type HealthReport struct {
	Proxy   string `json:"proxy"`
	Gateway string `json:"gateway"`
	Node    string `json:"node,omitempty"`
	// State is current, old or missing.
	State      string  `json:"state"`
	Reason     string  `json:"reason,omitempty"`
	At         string  `json:"at,omitempty"`
	AgeSeconds float64 `json:"age_seconds,omitempty"`
}

// MetricsSummary is what the Envoys and the kernels have done in the last minutes.
type MetricsSummary struct {
	At              string           `json:"at"`
	IntervalSeconds int32            `json:"interval_seconds"`
	Total           GatewayTraffic   `json:"total"`
	Gateways        []GatewayTraffic `json:"gateways"`
	// Silent are connected Envoys of which there is no current report, some of SilentProxies.
	Silent        []HealthReport `json:"silent"`
	SilentProxies int32          `json:"silent_proxies,omitempty"`
	// Unhealthy are services with endpoints that fail, some of UnhealthyServices.
	Unhealthy         []UnhealthyService `json:"unhealthy"`
	UnhealthyServices int32              `json:"unhealthy_services,omitempty"`
	Dropped           []DroppedPackets   `json:"dropped"`
}

// GatewayTraffic is what the Envoys of a gateway have done.
type GatewayTraffic struct {
	// Gateway is "" for all of them.
	Gateway string `json:"gateway,omitempty"`
	// Proxies are connected, and of Reporting of them there is a current report.
	Proxies   int32             `json:"proxies"`
	Reporting int32             `json:"reporting"`
	Requests  int64             `json:"requests"`
	Answers   AnswerClasses     `json:"answers"`
	Latency   *LatencyQuantiles `json:"latency,omitempty"`
	Intervals []TrafficInterval `json:"intervals"`
}

// AnswerClasses counts answers by the class of their status.
type AnswerClasses struct {
	Informational int64 `json:"informational,omitempty"`
	Success       int64 `json:"success,omitempty"`
	Redirect      int64 `json:"redirect,omitempty"`
	ClientError   int64 `json:"client_error,omitempty"`
	ServerError   int64 `json:"server_error,omitempty"`
}

// LatencyQuantiles are how long requests took, in milliseconds.
type LatencyQuantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// TrafficInterval is what was done within interval_seconds.
type TrafficInterval struct {
	At       string            `json:"at"`
	Reports  int32             `json:"reports"`
	Requests int64             `json:"requests"`
	Answers  AnswerClasses     `json:"answers"`
	Latency  *LatencyQuantiles `json:"latency,omitempty"`
}

// UnhealthyService is a service with endpoints that fail.
type UnhealthyService struct {
	Service string `json:"service"`
	// Endpoints that fail at some Envoy, and the Proxies that say so.
	Endpoints []UnhealthyEndpoint `json:"endpoints"`
	Proxies   int32               `json:"proxies"`
}

// UnhealthyEndpoint is an endpoint that fails.
type UnhealthyEndpoint struct {
	Address string `json:"address"`
	Host    string `json:"host,omitempty"`
	Reason  string `json:"reason"`
	Proxies int32  `json:"proxies"`
}

// DroppedPackets are those that the kernels dropped for a reason, by interval.
type DroppedPackets struct {
	Reason    string            `json:"reason"`
	Packets   int64             `json:"packets"`
	Intervals []PacketsInterval `json:"intervals"`
}

// PacketsInterval is how many packets there were within interval_seconds.
type PacketsInterval struct {
	At      string `json:"at"`
	Packets int64  `json:"packets"`
}

// LimitedSource is a source above its limit.
type LimitedSource struct {
	Address string `json:"address"`
	Limited int64  `json:"limited"`
}
