package api

// ExplainRequest is a request of a client to a gateway, as it is asked about.
type ExplainRequest struct {
	// Gateway is default where empty, Listener the first that speaks Scheme.
	Gateway  string `json:"gateway,omitempty"`
	Listener string `json:"listener,omitempty"`
	// Method is GET and Path / where empty, Scheme the listener's.
	Method string `json:"method,omitempty"`
	Scheme string `json:"scheme,omitempty"`
	Host   string `json:"host"`
	Path   string `json:"path,omitempty"`
	// Headers are those beside Host.
	Headers []HeaderField `json:"headers,omitempty"`
	// Source is the client's address.
	Source string `json:"source,omitempty"`
	// ServerName is what the client names in the TLS handshake (SNI): the host where empty.
	ServerName string `json:"server_name,omitempty"`
}

// HeaderField is a header.
type HeaderField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Explanation is what an Envoy of the gateway does with a request.
type Explanation struct {
	// Revision is that of the configuration which was looked at.
	Revision int64 `json:"revision"`
	// Outcome is forwarded, redirected, answered or refused; Status is 0 where a service answers.
	Outcome string `json:"outcome"`
	Status  int32  `json:"status,omitempty"`
	// GrpcStatus is what a gRPC client is told in place of Status.
	GrpcStatus int32 `json:"grpc_status,omitempty"`
	// Reason is a word for programs, Summary the whole in a sentence.
	Reason   string `json:"reason"`
	Summary  string `json:"summary"`
	Location string `json:"location,omitempty"`
	Body     string `json:"body,omitempty"`
	// Provided is what the outcome depends on that is not known here.
	Provided string `json:"provided,omitempty"`
	// Gateway, Listener and Host are those whose routes were looked at, a wildcard as it is written.
	Gateway  string `json:"gateway"`
	Listener string `json:"listener"`
	Host     string `json:"host,omitempty"`
	Route    string `json:"route,omitempty"`
	// Services are those that may get it, by weight.
	Services   []ExplainedService `json:"services,omitempty"`
	AuthPolicy string             `json:"auth_policy,omitempty"`
	License    string             `json:"license,omitempty"`
	Limits     []ExplainedLimit   `json:"limits,omitempty"`
	Steps      []ExplainedStep    `json:"steps"`
	// Candidates are the routes of the host, in the order in which they are tried; More are those left out.
	Candidates []ExplainedRoute `json:"candidates,omitempty"`
	More       int32            `json:"more,omitempty"`
}

// ExplainedService is a service that gets a request, and how it gets it.
type ExplainedService struct {
	Name string `json:"name"`
	// Percent is its share of such requests.
	Percent float64 `json:"percent"`
	// Path and Host are those that it sees.
	Path string `json:"path"`
	Host string `json:"host"`
}

// ExplainedLimit is a limit that a request is counted by.
type ExplainedLimit struct {
	// Kind is policy, listener or route, and Name the object's.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Requests come back within Per, and Burst is how many there may be at once.
	Requests int64  `json:"requests"`
	Per      string `json:"per"`
	Burst    int64  `json:"burst"`
	// Counted is whose requests are counted together: an address or network, or all.
	Counted string `json:"counted"`
}

// ExplainedStep is one thing that happens to a request.
type ExplainedStep struct {
	// Step is listener, connection, request, path, host, route, cors, limits, license, auth or answer.
	Step string `json:"step"`
	Says string `json:"says"`
}

// ExplainedRoute is a route of the host.
type ExplainedRoute struct {
	Route   string `json:"route"`
	Matches bool   `json:"matches"`
	// Reason is why it does not match.
	Reason string `json:"reason,omitempty"`
}
