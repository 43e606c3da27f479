package openapi

// Parameter describes one parameter, the same wherever it appears.
type Parameter struct {
	Description string
	Schema      map[string]any
}

func (p Parameter) object(in, name string) object {
	o := object{"in": in, "name": name, "description": p.Description, "schema": p.Schema}
	if in == "path" {
		o["required"] = true
	}
	return o
}

func text(maxLength int) object { return object{"type": "string", "maxLength": maxLength} }

var revision = object{"type": "integer", "format": "int64", "minimum": 0, "maximum": int64(1) << 53}

// Parameters are all parameters by name.
var Parameters = map[string]Parameter{
	"name":     {"The object's name, an RFC 1123 label.", object{"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"}},
	"revision": {"A revision.", revision},
	"wait":     {"`live`: answer when every connected Envoy of the gateways concerned serves the change.", object{"type": "string", "enum": []string{"live", "false"}}},
	"timeout":  {"How long to wait at most, from 1ms to 60s; 10s where absent. After it the answer is 202.", object{"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s|m))+$", "examples": []string{"10s"}}},
	"dry_run":  {"`true`: check everything, change nothing, answer with what would change.", object{"type": "boolean"}},
	"message":  {"Why, for the history.", text(1024)},
	"limit":    {"Items a page, 100 where absent.", object{"type": "integer", "minimum": 1, "maximum": 1000}},
	"cursor":   {"`next_cursor` of the page before.", text(1024)},
	"owner":    {"Only what this owner has.", text(63)},
	"label":    {"Only what has this label: name=value.", object{"type": "string", "maxLength": 320, "pattern": "^[^=]+=.*$"}},
	"q":        {"Only names that begin with it.", text(63)},
	"host":     {"Only routes that list this host.", text(253)},
	"service":  {"Only routes that send requests to this service.", text(63)},
	"against":  {"The revision to compare with; the one before where absent.", revision},
	"kind":     {"Only this kind: Gateway, Service, Route, Certificate or Token.", text(63)},
	"object":   {"Only what has this name.", text(63)},
	"actor":    {"Only what this token did.", text(63)},

	"If-Match":        {"Write only if the object's ETag is this one (`*`: if it exists); 412 otherwise.", text(256)},
	"If-None-Match":   {"Writes: `*` writes only if it does not exist, 412 otherwise. Reads: 304 if the ETag is this one.", text(256)},
	"Idempotency-Key": {"Any string of up to 255 printable characters. A repetition within 24 hours does nothing and is answered as the first request was.", object{"type": "string", "maxLength": 255, "pattern": "^[!-~]*$"}},
	"Last-Event-ID":   {"The id of the last event received: events after it follow.", revision},
}

var answerText = map[int]string{
	200: "As asked.",
	201: "Created.",
	202: "Stored, and not live in the time given: `live` says what is being waited for.",
	304: "Unchanged.",
}

var problemText = map[int]string{
	400: "The request cannot be read; `detail` and `errors` say why.",
	401: "No token, or one that is not known.",
	403: "The token's role does not suffice.",
	404: "There is no such thing.",
	409: "It is still in use; `errors` says by what.",
	412: "The object is not what If-Match or If-None-Match expects; `current_etag` is what it is.",
	413: "The body is too large.",
	415: "The body is not JSON.",
	422: "A value is not acceptable; `errors` has every violation with its path. Nothing has been changed.",
	503: "The database does not answer.",
}
