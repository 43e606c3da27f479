package pki

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Settings are what a part is told, where its directory is at home.
func Settings(i Issued, home string) string {
	at := func(name string) string { return filepath.Join(home, name) }
	var out strings.Builder
	set := func(name, value string) { fmt.Fprintf(&out, "%s=%s\n", name, value) }
	switch i.Role {
	case NATS:
		fmt.Fprintf(&out, "# in %s: nats-server -c nats.conf\n", home)
		return out.String()
	case Postgres:
		fmt.Fprintf(&out, "# postgresql.conf; PostgreSQL wants key.pem to be its own user's, of mode 0600\nssl = on\n"+
			"ssl_cert_file = '%s'\n"+
			"ssl_key_file = '%s'\nssl_ca_file = '%s'\nssl_crl_file = '%s'\n"+
			"# pg_hba.conf, in the place of other lines for this user\nhostssl marchproxy marchproxy all cert\n",
			at("cert.pem"), at("key.pem"), at("ca.pem"), at("crl.pem"))
		return out.String()
	}
	set("MARCHPROXY_TLS_CERT", at("cert.pem"))
	set("MARCHPROXY_TLS_KEY", at("key.pem"))
	set("MARCHPROXY_TLS_CA", at("ca.pem"))
	set("MARCHPROXY_TLS_CRL", at("crl.pem"))
	set("NATS_NKEY_FILE", at("nats.nkey"))
	switch i.Role {
	case API:
		fmt.Fprintf(&out,
			"# DATABASE_URL=postgresql://%s@HOST:5432/marchproxy?sslmode=verify-full&sslrootcert=%s&sslcert=%s&sslkey=%s\n",
			i.User, at("ca.pem"), at("cert.pem"), at("key.pem"))
	case XDS:
		set("XDS_ID", i.Name)
	case Agent:
		set("AGENT_ID", i.Name)
	}
	return out.String()
}
