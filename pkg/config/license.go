package config

import (
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/license"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

var licenseKind = Kind{
	Name: resource.KindLicense,
	Example: `{"spec": {"key": "PENG-ABCD-EFGH-IJKL-MNOP-XJG5", "features": ["multi-cloud"], "gates": [{"feature": ` +
		`"multi-cloud", "paths": ["/api/v1/multi-cloud"]}], "max_proxies": 2}}`,
	Secret: func(holder proto.Message) (can bool, needed string) {
		if holder.(*configv1.License).GetFacts().GetHasKey() {
			needed = ": the license had one where it comes from, and none is stored here; give it"
		}
		return true, needed
	},
	Secrets: licenseSecrets,
}

// licenseSecrets checks the key, and notes what may be seen of it.
func licenseSecrets(w *SecretWrite) {
	l := w.Spec.(*configv1.License)
	l.Facts = nil
	key := l.GetKey()
	if key == "" {
		return
	}
	if err := license.CheckKey(key); err != nil {
		w.Fail("$.key", "license.key", err.Error())
		return
	}
	l.Facts = &configv1.LicenseFacts{HasKey: true, Checksum: key[len(key)-4:]}
}
