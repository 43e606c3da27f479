package openapi

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/marchproxy/marchproxy/pkg/resource"
)

// Parameter describes one parameter, the same wherever it appears. What the document says of it is what
// [Parameter.Check] enforces.
type Parameter struct {
	Description string
	// Type is string, integer or boolean.
	Type string
	// MaxLength, in characters, Pattern and Enum are for strings; Min and Max for integers.
	MaxLength int
	Pattern   string
	Enum      []string
	Min, Max  int64
	Example   string
}

func (p Parameter) object(in, name string) object {
	schema := object{"type": p.Type}
	if p.MaxLength > 0 {
		schema["maxLength"] = p.MaxLength
	}
	if p.Pattern != "" {
		schema["pattern"] = p.Pattern
	}
	if p.Enum != nil {
		schema["enum"] = p.Enum
	}
	if p.Type == "integer" {
		schema["format"], schema["minimum"], schema["maximum"] = "int64", p.Min, p.Max
	}
	if p.Example != "" {
		schema["examples"] = []string{p.Example}
	}
	o := object{"in": in, "name": name, "description": p.Description, "schema": schema}
	if in == "path" {
		o["required"] = true
	}
	return o
}

// Check says in a sentence what is wrong with a value, or nothing.
func (p Parameter) Check(value string) string {
	switch {
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		return "is not valid UTF-8, or has a zero character"
	case p.Type == "integer":
		if n, err := strconv.ParseInt(value, 10, 64); err != nil || n < p.Min || n > p.Max {
			return fmt.Sprintf("must be a whole number from %d to %d", p.Min, p.Max)
		}
	case p.Type == "boolean":
		if value != "true" && value != "false" {
			return "must be true or false"
		}
	case p.Enum != nil && !slices.Contains(p.Enum, value):
		return "must be " + strings.Join(p.Enum, " or ")
	case p.MaxLength > 0 && utf8.RuneCountInString(value) > p.MaxLength:
		return fmt.Sprintf("must be at most %d characters", p.MaxLength)
	case p.Pattern != "" && !regexp.MustCompile(p.Pattern).MatchString(value):
		return "must look like " + p.Example
	}
	return ""
}

func text(description string, maxLength int) Parameter {
	return Parameter{Description: description, Type: "string", MaxLength: maxLength}
}

func number(description string, least, most int64) Parameter {
	return Parameter{Description: description, Type: "integer", Min: least, Max: most}
}

// pattern adds a regular expression, and the example that a person is shown in its place.
func pattern(p Parameter, expression, example string) Parameter {
	p.Pattern, p.Example = expression, example
	return p
}

// maxRevision is what readers of JSON can be trusted with.
const maxRevision = 1 << 53

// Parameters are all parameters by name.
var Parameters = map[string]Parameter{
	"user":     pattern(text("The user's name.", 63), "^[a-z0-9]([a-z0-9._@-]*[a-z0-9])?$", "alice"),
	"session":  pattern(text("The session's id.", 36), "^[0-9a-f-]{36}$", "0b8f3f1e-6d0c-4f9e-8d3b-5a2f6c1d7e90"),
	"name":     pattern(text("The object's name, an RFC 1123 label.", 63), "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "web"),
	"revision": number("A revision.", 0, maxRevision),
	"wait": {
		Description: "`live`: answer when every connected Envoy of the gateways concerned serves the change.",
		Type:        "string", Enum: []string{"live", "false"},
	},
	"timeout": pattern(
		text("How long to wait at most, from 1ms to 60s; 10s where absent. After it the answer is 202, as for all that "+
			"is not live.", 32),
		"^([0-9]+(\\.[0-9]+)?(ms|s|m))+$",
		"10s",
	),
	"dry_run": {
		Description: "`true`: check everything, change nothing, answer with what would change.",
		Type:        "boolean",
	},
	"message": text("Why, for the history.", 1024),
	"take_over": {
		Description: "`true`: change, or delete, also what another owner has; 409 otherwise.",
		Type:        "boolean",
	},
	"revive_credentials": {Description: "`true`: credentials that were taken away since then may open something again; " +
		"409 with their names otherwise.", Type: "boolean"},
	"allow_empty": {Description: "`true`: an empty list means what it says; with prune, everything of the owner " +
		"is deleted.", Type: "boolean"},
	"limit":  number("Items a page, 100 where absent.", 1, 1000),
	"cursor": text("`next_cursor` of the page before.", 1024),
	"owner":  text("Only what this owner has.", 63),
	"label":  pattern(text("Only what has this label: name=value.", 320), "^[^=]+=", "team=web"),
	"q":      text("Only names that begin with it.", 63),
	"host": text("Only routes that list this host; of requests, those for this host, or for all below example.com with "+
		"*.example.com.", 255),
	"proxy": text("Only the Envoy with this node id.", 253),
	"route": pattern(text("Only requests that this route took.", 63), "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "shop"),
	"status": pattern(text("Only answers with one of these statuses.", 64),
		"^[1-5](xx|[0-9][0-9])(,[1-5](xx|[0-9][0-9]))*$", "404,5xx"),
	"method":  pattern(text("Only requests with this method.", 32), "^[A-Za-z]+$", "POST"),
	"path":    pattern(text("Only paths that begin so.", 1024), "^/", "/cart"),
	"service": text("Only routes that send requests to this service.", 63),
	"gateway": text("Only Envoys of this gateway.", 63),
	"state": {
		Description: "Only Envoys that are connected, absent (not any more), lagging (they lack something) or surplus " +
			"(without a seat under their license).",
		Type: "string",
		Enum: []string{"connected", "absent", "lagging", "surplus"},
	},
	"against": number("The revision to compare with; the one before where absent.", 0, maxRevision),
	"kind": {
		Description: "Only this kind, or tokens, or users.", Type: "string",
		Enum: append(strings.Split(resource.KindNames(), ", "), "Token", "User"),
	},
	"object": text("Only what has this name.", 127),
	"actor":  text("Only what this token or user did.", 127),

	"since": pattern(text("Only what was done from this time on, RFC 3339.", 40), "^[0-9]{4}-[0-9]{2}-[0-9]{2}T",
		"2026-01-31T00:00:00Z"),
	"until": pattern(text("Only what was done before this time, RFC 3339.", 40), "^[0-9]{4}-[0-9]{2}-[0-9]{2}T",
		"2026-02-28T00:00:00Z"),
	"head": pattern(text("The hash of a record, as a status or an export had it.", 64), "^[0-9a-f]{64}$",
		strings.Repeat("3f", 32)),

	"If-Match": text("Write only if the object's ETag is this one (`*`: if it exists); 412 otherwise.", 256),
	"If-None-Match": text("Writes: `*` writes only if it does not exist, 412 otherwise. Reads: 304 if the ETag "+
		"is this one.", 256),
	"Idempotency-Key": pattern(
		text("Any printable characters without spaces. A repetition within 24 hours does nothing and is answered as the "+
			"first request was.", 255),
		"^[!-~]*$",
		"4f9d7a1c-deploy-17",
	),
	"Last-Event-ID": number("The id of the last event received: events after it follow.", 0, maxRevision),
}

var answerText = map[int]string{
	200: "As asked.",
	201: "Created.",
	202: "Stored, and not live: not in the time given, or refused, or nobody is connected; `live` says which and why.",
	204: "Done.",
	304: "Unchanged.",
}

var problemText = map[int]string{
	400: "The request cannot be read; `detail` and `errors` say why.",
	401: "No token, or one that is not known or has ended.",
	403: "The token's role does not suffice, or something is outside of what the token is bound to; `errors` says what.",
	404: "There is no such thing.",
	409: "Something that is there stands in the way: what uses it, or whose it is; `errors` says what.",
	412: "The object is not what If-Match or If-None-Match expects; `current_etag` is what it is.",
	413: "The body is too large.",
	415: "The body is not JSON.",
	422: "A value is not acceptable; `errors` has every violation with its path. Nothing has been changed.",
	429: "Too many wrong tokens or passwords; `Retry-After` says in how many seconds to try again. Or too many streams or " +
		"exports are open.",
	503: "The database does not do what it is asked, or, at `/readyz`, NATS; `detail` says why.",
}
