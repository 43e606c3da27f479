package server

import (
	"slices"
	"strings"
	"testing"
)

// TestDNSServers: addresses with or without a port; what is none is refused at the start, with the setting's name.
func TestDNSServers(t *testing.T) {
	for set, want := range map[string][]string{
		"":                                      nil,
		"10.0.0.53":                             {"10.0.0.53:53"},
		" 10.0.0.53:5353, [2001:db8::53]:5354 ": {"10.0.0.53:5353", "[2001:db8::53]:5354"},
		"2001:db8::53,":                         {"[2001:db8::53]:53"},
		"dns.example.com":                       {"refused"},
		"10.0.0.53:0":                           {"refused"},
		"10.0.0.53:99999":                       {"refused"},
	} {
		settings := map[string]string{
			"NATS_URL": "nats://127.0.0.1:4222", "SECRET_KEY": "a secret of the test's own", "XDS_DNS_SERVERS": set,
			"ALLOW_PLAINTEXT": "true",
		}
		c, err := readConfig(func(name string) (string, bool) { v, ok := settings[name]; return v, ok })
		got := c.DNSServers
		if err != nil {
			got = []string{"refused"}
			if !strings.Contains(err.Error(), "XDS_DNS_SERVERS has") {
				t.Errorf("%q: %v", set, err)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v (%v)", set, got, want, err)
		}
	}
}
