// Package locality says where something is: an endpoint, or an Envoy. Envoy's localities have a region, a zone and a
// sub-zone, and no cloud; here the region of a locality is CLOUD/REGION, CLOUD where no region is known, or /REGION
// where no cloud is.
package locality

import (
	"cmp"
	"fmt"
	"strings"
)

// Place is where something is; what is not known is empty. As a pattern an empty field is anything.
type Place struct{ Cloud, Region, Zone string }

// placed is what says where it is.
type placed interface {
	GetCloud() string
	GetRegion() string
	GetZone() string
}

// Of is the place that a message of the schema names. A cloud that is written CLOUD/REGION is both, so that it is the
// same place as an Envoy's whose locality says so.
func Of(m placed) Place {
	p := Place{m.GetCloud(), m.GetRegion(), m.GetZone()}
	if p.Region == "" {
		p.Cloud, p.Region, _ = strings.Cut(p.Cloud, "/")
	}
	return p
}

// FromEnvoy is the place of one of Envoy's localities, nil for nowhere.
func FromEnvoy(l interface {
	GetRegion() string
	GetZone() string
},
) Place {
	cloud, region, _ := strings.Cut(l.GetRegion(), "/")
	return Place{cloud, region, l.GetZone()}
}

// EnvoyRegion is the region of the place's locality.
func (p Place) EnvoyRegion() string {
	if p.Region == "" {
		return p.Cloud
	}
	return p.Cloud + "/" + p.Region
}

// Has says whether a place is in this one, which is a pattern.
func (p Place) Has(o Place) bool {
	return (p.Cloud == "" || p.Cloud == o.Cloud) && (p.Region == "" || p.Region == o.Region) &&
		(p.Zone == "" || p.Zone == o.Zone)
}

// How far apart two places are.
const (
	SameZone = iota
	SameRegion
	SameCloud
	Elsewhere
)

// Distance says how far apart two places are. What is not known of one of them contradicts nothing, but shows nothing
// either: zones of one name are the same unless their regions or clouds are known to differ.
func (p Place) Distance(o Place) int {
	same := func(a, b string) bool { return a != "" && a == b }
	agree := func(a, b string) bool { return a == "" || b == "" || a == b }
	switch {
	case same(p.Zone, o.Zone) && agree(p.Region, o.Region) && agree(p.Cloud, o.Cloud):
		return SameZone
	case same(p.Region, o.Region) && agree(p.Cloud, o.Cloud):
		return SameRegion
	case same(p.Cloud, o.Cloud):
		return SameCloud
	}
	return Elsewhere
}

// Compare orders places.
func (p Place) Compare(o Place) int {
	return cmp.Or(cmp.Compare(p.Cloud, o.Cloud), cmp.Compare(p.Region, o.Region), cmp.Compare(p.Zone, o.Zone))
}

// String is the place in words: cloud aws, region eu-west-1, zone a.
func (p Place) String() string {
	var words []string
	for _, w := range [][2]string{{"cloud", p.Cloud}, {"region", p.Region}, {"zone", p.Zone}} {
		if w[1] != "" {
			words = append(words, fmt.Sprintf("%s %s", w[0], w[1]))
		}
	}
	return cmp.Or(strings.Join(words, ", "), "anywhere")
}
