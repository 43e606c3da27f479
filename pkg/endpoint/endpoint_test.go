package endpoint_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/endpoint"
)

// TestRefused: what is refused, in every form that reaches the same, is refused unless its class or it is allowed.
func TestRefused(t *testing.T) {
	for class, hosts := range map[string][]string{
		"loopback": {
			"127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "64:ff9b::127.0.0.1",
			"64:ff9b::7f00:1",
			"64:ff9b:1:7f00:0:1::", "64:ff9b:1::7f00:1", "2002:7f00:1::1", "2001:0:7f00:1::", "2001:0:a00:1::80ff:fffe",
			"fd00::5efe:127.0.0.1",
			"2001:db8::200:5efe:7f00:1", "localhost", "LOCALHOST.", "a.localhost",
		},
		"unspecified": {"0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "64:ff9b::", "2002::1"},
		"link-local": {
			"169.254.1.1", "fe80::1", "fe80::1%eth0", "febf::1", "::ffff:169.254.1.1", "64:ff9b::169.254.1.1",
			"2002:a9fe:101::",
		},
		"metadata": {
			"169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fd00:ec2::254",
			"fd00:ec2::23", "fd20:ce::254",
			"168.63.129.16", "100.100.100.200", "192.0.0.192", "169.254.170.2",
		},
		"multicast": {"224.0.0.1", "239.255.255.250", "255.255.255.255", "ff02::1", "ff05::1%3"},
	} {
		byClass, err := endpoint.Parse("10.0.0.0/8, " + class)
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range hosts {
			var none endpoint.Allowed
			if why := none.HostRefusal(host); !strings.Contains(why, endpoint.Setting+"="+class) {
				t.Errorf("%s: %q, want the class %s named", host, why, class)
			}
			if why := byClass.HostRefusal(host); why != "" {
				t.Errorf("%s with %s allowed: %s", host, class, why)
			}
		}
	}
}

// TestOrdinary: addresses of networks, private ones too, and names that only look like something are not refused.
func TestOrdinary(t *testing.T) {
	for _, host := range []string{
		"10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "203.0.113.1", "2001:db8::1", "fd00::1",
		"64:ff9b::10.0.0.1", "2002:a00:1::1",
		"::ffff:10.0.0.1", "example.com", "localhost.example.com", "notlocalhost", "128.0.0.1", "126.255.255.255", "fec0::1",
	} {
		if why := (endpoint.Allowed{}).HostRefusal(host); why != "" {
			t.Errorf("%s: %s", host, why)
		}
	}
}

// TestAllowed: an address or a prefix allows what is in it, whichever form it is written in, and no more.
func TestAllowed(t *testing.T) {
	a, err := endpoint.Parse("169.254.10.0/24,::1,::ffff:127.0.0.9,link-local")
	if err != nil {
		t.Fatal(err)
	}
	for host, allowed := range map[string]bool{
		"169.254.10.7": true, "::ffff:169.254.10.7": true, "fe80::1": true, "::1": true, "127.0.0.9": true,
		"127.0.0.1":       false,
		"169.254.169.254": false, "0.0.0.0": false,
	} {
		if why := a.Refusal(netip.MustParseAddr(host)); (why == "") != allowed {
			t.Errorf("%s: %q, want allowed: %t", host, why, allowed)
		}
	}
	for _, wrong := range []string{"localhost", "127.0.0.0/33", "fe80::1%eth0", "all"} {
		if _, err := endpoint.Parse(wrong); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
