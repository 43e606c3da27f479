package config_test

import (
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
)

func policy(t *testing.T, name, spec string) *resource.Object {
	t.Helper()
	k, _ := resource.KindByName(resource.KindRateLimit)
	m, v := resource.DecodeSpec(k, []byte(spec))
	if len(v) == 0 {
		v = resource.Validate(m)
	}
	if len(v) > 0 {
		t.Fatalf("%s: %v", spec, v)
	}
	o, err := resource.New(resource.Ref{Kind: resource.KindRateLimit, Name: name}, m)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestRateLimitPolicy(t *testing.T) {
	const others = `{"cidrs":["10.0.0.0/8","2001:db8::/32"],"packets_per_second":1,"node_selector":{"zone":"a"},` +
		`"ipv6_prefix_length":56}`
	for _, c := range []struct{ spec, path, says string }{
		{`{"packets_per_second":100}`, "", ""},
		{`{"cidrs":["10.1.0.0/16"],"packets_per_second":100}`, "", ""}, // within another: the longer one counts
		{`{"cidrs":["10.0.0.0/8"],"packets_per_second":1,"node_selector":{"zone":"b"}}`, "", ""},
		{`{"cidrs":["10.0.0.0/8"],"requests_per_second":1}`, "", ""}, // the other one limits packets
		{
			`{"cidrs":["10.0.0.0/8"],"packets_per_second":1,"node_selector":{"tier":"x"}}`, "$.cidrs[0]",
			`already limited by policy "other"`,
		},
		{`{"cidrs":["10.0.0.1/8"],"packets_per_second":1}`, "$.cidrs[0]", "write 10.0.0.0/8"},
		{`{"cidrs":["1.2.3.4","1.2.3.4/32"],"packets_per_second":1}`, "$.cidrs[1]", "same network as cidrs[0]"},
		{`{"cidrs":["::ffff:1.2.3.4"],"packets_per_second":1}`, "$.cidrs[0]", "write it as IPv4"},
		{`{"cidrs":["1.2.3.4.5"],"packets_per_second":1}`, "$.cidrs[0]", "neither an IP address"},
		{`{"deny":["0.0.0.0/0"]}`, "$.deny[0]", "is everyone"},
		{`{"deny":["1.2.3.4"],"allow":["1.2.3.4"]}`, "$.deny[0]", "stands under allow"},
		{`{}`, "$", "does nothing"},
		{`{"cidrs":["1.2.3.4"],"deny":["5.6.7.8"]}`, "$.cidrs", "have no effect"},
		{`{"burst":5,"requests_per_second":1}`, "$.burst", "packets_per_second"},
		{`{"burst":86401,"packets_per_second":1}`, "$.burst", "day's worth"},
		{`{"requests_burst":5,"packets_per_second":1}`, "$.requests_burst", "requests_per_second"},
		{`{"packets_per_second":1,"max_clients":5}`, "$.max_clients", "requests_per_second"},
		{`{"requests_per_second":1,"gateways":["none"]}`, "$.gateways[0]", "does not exist"},
		{`{"packets_per_second":1,"ipv6_prefix_length":64}`, "$.ipv6_prefix_length", "has one length"},
	} {
		st := config.New()
		st.Apply([]*resource.Object{policy(t, "other", others)})
		changes, undo := st.Apply([]*resource.Object{policy(t, "mine", c.spec)})
		found := st.Check(changes)
		switch {
		case c.says == "" && len(found) > 0:
			t.Errorf("%s is refused: %s %s", c.spec, found[0].Path, found[0].Message)
		case c.says != "" && (len(found) != 1 || found[0].Path != c.path || !strings.Contains(found[0].Message, c.says)):
			t.Errorf("%s: found %v, want %s …%s…", c.spec, found, c.path, c.says)
		}
		undo()
		if again, _ := st.Apply([]*resource.Object{policy(t, "mine", `{"packets_per_second":1}`)}); len(st.Check(again)) > 0 {
			t.Errorf("after %s and its undoing a policy is refused that was taken before: %v", c.spec, st.Check(again))
		}
	}
}

func TestEveryoneIsLimitedOnce(t *testing.T) {
	st := config.New()
	st.Apply([]*resource.Object{policy(t, "one", `{"packets_per_second":1}`)})
	changes, _ := st.Apply([]*resource.Object{policy(t, "two", `{"packets_per_second":2}`)})
	if found := st.Check(changes); len(found) != 1 || found[0].Path != "$.cidrs" {
		t.Errorf("two policies for everyone: %v", found)
	}
}
