package config

import "github.com/marchproxy/marchproxy/pkg/resource"

var licenseKind = Kind{Name: resource.KindLicense}
