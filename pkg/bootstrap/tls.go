package bootstrap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/marchproxy/marchproxy/pkg/identity"
	"github.com/marchproxy/marchproxy/pkg/process"
)

// TLS is how an Envoy speaks to the xDS server: by the certificate and the authorities of an [identity.Identity], which
// it reads from files in a directory that it watches. [TLS.Write] makes them anew when the identity has changed, so
// that Envoy takes neither half of a file nor a certificate with the key of another.
type TLS struct {
	Identity *identity.Identity
	Dir      string
}

const (
	ownResource, caResource = "marchproxy-identity", "marchproxy-authorities"
	tlsTypes                = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
)

func (t *TLS) file(secret string) string { return filepath.Join(t.Dir, secret+".json") }

func (t *TLS) source(secret string) object {
	return object{"name": secret, "sds_config": object{"resource_api_version": "V3", "path_config_source": object{
		"path": t.file(secret), "watched_directory": object{"path": t.Dir},
	}}}
}

// socket is the transport socket of the cluster of the xDS server, whose certificate must have the name or the address
// that XDS_SERVER says.
func (t *TLS) socket(server string) object {
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		host = server
	}
	name := object{"san_type": "DNS", "matcher": object{"exact": host}}
	tls := object{"@type": tlsTypes + "UpstreamTlsContext", "sni": host, "max_session_keys": 0}
	if ip, err := netip.ParseAddr(host); err == nil {
		name = object{"san_type": "IP_ADDRESS", "matcher": object{"exact": ip.String()}}
		delete(tls, "sni") // which has names alone
	}
	common := object{
		"tls_params": object{"tls_minimum_protocol_version": "TLSv1_2"}, "alpn_protocols": []string{"h2"},
		"combined_validation_context": object{
			"default_validation_context":           object{"match_typed_subject_alt_names": []object{name}},
			"validation_context_sds_secret_config": t.source(caResource),
		},
	}
	if t.Identity.HasCert() {
		common["tls_certificate_sds_secret_configs"] = []object{t.source(ownResource)}
	}
	tls["common_tls_context"] = common
	return object{"name": "envoy.transport_sockets.tls", "typed_config": tls}
}

// Write writes what the identity is now.
func (t *TLS) Write() error {
	cert, key, ca := t.Identity.PEM()
	if err := t.write(caResource,
		object{"validation_context": object{"trusted_ca": object{"inline_string": string(ca)}}}); err != nil {
		return err
	}
	if !t.Identity.HasCert() {
		return nil
	}
	return t.write(ownResource, object{"tls_certificate": object{
		"certificate_chain": object{"inline_string": string(cert)}, "private_key": object{"inline_string": string(key)},
	}})
}

// write replaces a file by rename, which is what Envoy waits for.
func (t *TLS) write(secret string, content object) error {
	content["@type"], content["name"] = tlsTypes+"Secret", secret
	var out bytes.Buffer
	if err := json.NewEncoder(&out).Encode(object{"resources": []object{content}}); err != nil {
		return fmt.Errorf("write Envoy's certificates: %w", err)
	}
	if err := process.WritePrivate(t.file(secret), out.Bytes()); err != nil {
		return fmt.Errorf("write Envoy's certificates: %w", err)
	}
	return nil
}
