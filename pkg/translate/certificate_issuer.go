package translate

import (
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

// issuerKind is nothing to an Envoy: what comes of an issuer is in its certificates.
var issuerKind = kind{
	changed: func(*work, config.Change) {},
	alone:   func(*checker, *resource.Object) {},
}
