package resource

// forms says in a sentence, with examples, what each regular expression of the schema asks for: a person
// who is shown the expression has to work that out. TestForms holds the two together.
var forms = map[string]string{
	`^(\*|(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*|\[[0-9a-f:.]+\])$`: `must be a ` +
		`host in lower case, without scheme, port and path: a name such as "shop.example.com", ` +
		`a wildcard such as "*.example.com", "*" for every other host, an address such as "192.0.2.1" or "[2001:db8::1]"`,
	`^(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`: `must be a server name in lower ` +
		`case, without port: a name such as "shop.example.com" or a wildcard such as "*.example.com"`,
	`^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]{1,5})?)?$`: `must be a host, with a port ` +
		`where it is needed: "id.example.com" or "id.example.com:8443"`,
	`^[^\x00-\x20\x7f/]*$`: `must be a host such as "shop.internal", without scheme, path and spaces`,
	`^[A-Za-z0-9_-]*=*$`:   `must be base64url, as the authority shows it: letters, digits, "-" and "_"`,
	`^[A-Za-z0-9+/]*=*$`:   `must be base64, as tsig-keygen prints it: "c2VjcmV0LWtleQ=="`,
	`^[A-Za-z0-9_-]+$`:     `must be letters, digits, "-" and "_"`,
	`^[A-Za-z0-9_.-]+$`:    `must be letters, digits, "-", "_" and "."`,
	`^[0-9a-fA-F:.]*$`: `must be an IP address: "127.0.0.1", "::1", or "0.0.0.0" for all ` +
		`of the machine's`,
	`^[0-9A-Fa-f:.]{2,39}(/[0-9]{1,3})?$`: `must be a network or an address: "203.0.113.0/24", "203.0.113.7" ` +
		`or "2001:db8::/32"`,
	`^(|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2}))$`: `must be a ` +
		`date with its time and zone (RFC 3339): "2027-01-31T00:00:00Z" or "2027-01-31T01:00:00+01:00"`,
	`^/[^?#\x00-\x20\x7f]*$`:    `must be a path that begins with /, without query, fragment and spaces: "/" or "/api/v1"`,
	`^(/[^?#\x00-\x20\x7f]*)?$`: `must be a path that begins with /, without query, fragment and spaces: "/" or "/api/v1"`,
	`^(/[^\x00-\x20\x7f]*)?$`:   `must be a path that begins with /, without spaces: "/" or "/healthz?full=1"`,
	`^/[!-~]*$`:                 `must be a path that begins with /, without spaces: "/.well-known/jwks.json"`,
	`^/([A-Za-z0-9._~!$&'()*+,=:@-]+(/[A-Za-z0-9._~!$&'()*+,=:@-]+)*/?)?$`: `must be a plain path that begins with /,` +
		` without %, // and spaces: "/public" or "/assets/css"`,
	`^[A-Z][A-Z0-9_-]*$`:      `must be a method in capitals: "GET" or "POST"`,
	`^(\*|[A-Z][A-Z0-9_-]*)$`: `must be a method in capitals: "GET" or "POST", or "*" for all`,
	"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$": `must be a name of letters, digits and hyphens, as HTTP has them,` +
		` without spaces and colons: "x-request-id"`,
	`^[a-z0-9][a-z0-9-]*$`:         `must be a header's name in lower case, of letters, digits and hyphens: "x-user"`,
	`^[^\x00-\x08\x0a-\x1f\x7f]*$`: `must be one line without control characters, such as "max-age=600"`,
	`^[^\x00-\x20\x7f]*$`:          `must be a part of a path without spaces and control characters, such as "/v2/\1"`,
	`^[^\x00-\x1f\x7f]*$`:          `must be one line without control characters, such as "text/html; charset=utf-8"`,
	`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`: `must be an RFC 1123 label, 1 to 63 of a-z, 0-9 and -, not starting or ending ` +
		`with -: "edge-1"`,
	`^[a-z0-9]([a-z0-9_.-]*[a-z0-9])?$`: `must be a feature's name, of a-z, 0-9 and _ . - inside: "multi-cloud"`,
	`^[A-Za-z0-9._:/+=@-]+$`:            `must be a key's id, of letters, digits and . _ : / + = @ -: "2026-11"`,
	`^[ -~]+$`:                          `must be printable ASCII characters: "realm_access"`,
	`^[ -~]*$`:                          `must be printable ASCII characters: "build-server"`,
	`^(|[A-Za-z0-9+/_~-]{16,}=*)$`: `must be at least 16 letters of Base64 (A-Z, a-z, 0-9 and + / _ ~ -,` +
		` then =); openssl rand -base64 32 makes one`,
	`^(|[!-~]{16,})$`: `must be at least 16 printable ASCII characters without spaces; openssl rand ` +
		`-hex 32 makes one`,
	`^(|[0-9a-f]{64})$`:         `must be a SHA-256 in hexadecimal: 64 of 0-9 and a-f, in lower case`,
	`^[A-Za-z_][A-Za-z0-9_.]*$`: `must be a field's name, of letters, digits, _ and .: "duration_ms"`,
	`^[A-Za-z0-9._/-]+$`:        `must be a label's name, of letters, digits and . _ / -: "zone"`,
	`^[A-Za-z0-9._/-]*$`:        `must be a label's value, of letters, digits and . _ / -: "eu-west-1"`,
}
