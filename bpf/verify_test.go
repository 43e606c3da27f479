package bpf

import (
	"slices"
	"strings"
	"testing"
)

func TestDifferences(t *testing.T) {
	p := open(t, Options{})
	rules := Ruleset{
		Policies: []Policy{{ID: 7, Rate: 10, Burst: 10, CIDRs: prefixes("10.0.0.0/9", "192.0.2.7/32", "2001:db8::/33")}},
		Allow:    prefixes("10.1.2.0/23"), Deny: prefixes("fd00::1/128", "0.0.0.0/0"),
	}
	for range 3 { // both generations, then one written again
		apply(t, p, rules)
		if got, err := p.Differences(rules); err != nil || len(got) > 0 {
			t.Fatalf("differences right after Apply: %v %v", got, err)
		}
	}
	other := rules
	other.Deny = prefixes("fd00::1/128", "0.0.0.0/0", "10.1.2.128/28")
	got, err := p.Differences(other)
	if err != nil || len(got) != 1 || !strings.Contains(got[0], "10.1.2.128/28 leads to the allow list, not "+
		"to the deny list") {
		t.Errorf("differences: %q %v", got, err)
	}
}

// TestStatNames: every counter of the program has a name here.
func TestStatNames(t *testing.T) {
	spec, err := loadXdp()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(reasons) + len(protocols); n != int(spec.Maps[xdpMapStatsMap].MaxEntries) {
		t.Errorf("%d names for %d counters", n, spec.Maps[xdpMapStatsMap].MaxEntries)
	}
	if slices.Contains(reasons[:], "") || slices.Contains(protocols[:], "") {
		t.Errorf("a counter has no name: %q %q", reasons, protocols)
	}
	if Reason("error").Drops() || !Reason("denied").Drops() || !Reason("amplification").Drops() ||
		Reason("syn_cookie").Drops() {
		t.Error("reasons that drop are not told from those that pass")
	}
}
