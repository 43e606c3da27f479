package status

const namesPrefix = SubjectPrefix + "names."

// Problem is why the last lookup of a name brought no addresses.
type Problem string

// The problems.
const (
	// NamePending: nobody has answered yet; the name is new.
	NamePending Problem = "pending"
	// NameNotFound: a DNS server says that the name does not exist (NXDOMAIN).
	NameNotFound Problem = "not_found"
	// NameNoAddresses: it exists, and has neither A nor AAAA records.
	NameNoAddresses Problem = "no_addresses"
	// NameTimeout: no DNS server answers in time.
	NameTimeout Problem = "timeout"
	// NameFailed: a DNS server answers with a failure (SERVFAIL, REFUSED), or cannot be reached.
	NameFailed Problem = "failed"
	// NameRefused: it has addresses that a service may not have (package endpoint); they are not served.
	NameRefused Problem = "refused"
)

// NamesStatus is one xDS server's report of the names of services' endpoints that do not resolve.
type NamesStatus struct {
	// ID of the server, a NATS token.
	ID string `json:"id"`
	// At in RFC 3339.
	At string `json:"at"`
	// Names in their order.
	Names []NameStatus `json:"names,omitempty"`
	// Stopping is true in a server's last report.
	Stopping bool `json:"stopping,omitempty"`
}

// NameStatus is a name whose last lookup brought no addresses.
type NameStatus struct {
	Host    string  `json:"host"`
	Problem Problem `json:"problem"`
	// Reason in words, without the name.
	Reason string `json:"reason"`
	// Addresses that it had last, which are served.
	Addresses int32 `json:"addresses,omitempty"`
	// Since when, RFC 3339.
	Since string `json:"since"`
	// Services that have it, in order; ten of them at most.
	Services []string `json:"services,omitempty"`
}

func (NamesStatus) prefix() string { return namesPrefix }
func (s NamesStatus) id() string   { return s.ID }

func (s NamesStatus) last() NamesStatus {
	s.Stopping = true
	return s
}

// urgent: nobody waits for words; what wait=live waits for is in [XdsStatus.Unresolved].
func (NamesStatus) urgent(NamesStatus) bool { return false }

// String is a sentence about the name.
func (n NameStatus) String() string {
	s := n.Host + " " + n.Reason
	if n.Problem != NamePending && n.Since != "" {
		s += ", since " + n.Since
	}
	switch {
	case n.Addresses == 1:
		s += "; its last address is served"
	case n.Addresses > 1:
		s += "; its last addresses are served"
	}
	return s
}
