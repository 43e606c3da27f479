package security

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

// TestPlainText: no program listens for other machines, or connects to one, without TLS, nor to a database that has not
// shown who it is, unless it is told so in so many words; on loopback none of this is asked.
func TestPlainText(t *testing.T) {
	const away = "198.51.100.7" // nobody's (RFC 5737)
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, []byte(newCA(t, "own").PEM), 0o600); err != nil {
		t.Fatal(err)
	}
	local := map[string][]string{
		"api": {
			"DATABASE_URL=postgresql://u@127.0.0.1:1/x", "NATS_URL=nats://127.0.0.1:1", "SECRET_KEY=sixteen letters!",
			"API_ADDR=127.0.0.1:0",
		},
		"xds": {
			"NATS_URL=nats://127.0.0.1:1", "SECRET_KEY=sixteen letters!", "XDS_GRPC_ADDR=127.0.0.1:0",
			"XDS_HTTP_ADDR=localhost:0",
			"MARCHPROXY_STATE_DIR=" + t.TempDir(),
		},
		"agent": {
			"NATS_URL=nats://[::1]:1", "AGENT_HTTP_ADDR=127.0.0.1:0", "MARCHPROXY_STATE_DIR=" + t.TempDir(),
			"XDS_SERVER=127.0.0.1:1", "ENVOY_PATH=/bin/true", "MARCHPROXY_RUN_DIR=" + t.TempDir(),
		},
	}
	// One that is refused ends by itself, however busy the machine is; the others are given some time.
	const ends, some = time.Minute, 3 * time.Second
	say := func(limit time.Duration, program string, more ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		cmd := exec.CommandContext(ctx, harness.ProgramForTest(t, "marchproxy-"+program))
		cmd.Env = append(append([]string{"PATH=" + os.Getenv("PATH")}, local[program]...), more...)
		out, _ := cmd.CombinedOutput() // that it ends is no failure here, and what it says is looked at
		return string(out)
	}
	for _, c := range []struct{ program, setting, says string }{
		{"api", "API_ADDR=:0", "API_ADDR is \":0\", which other machines reach"},
		{"api", "API_ADDR=" + away + ":0", "API_ADDR is"},
		{"api", "NATS_URL=nats://" + away + ":4222", "NATS_URL names " + away + ":4222, on another machine"},
		{"api", "NATS_URL=nats://127.0.0.1:1,nats.internal", "NATS_URL names nats.internal, on another machine"},
		{"api", "DATABASE_URL=postgresql://u@" + away + "/x", "DATABASE_URL lets what is said to " + away},
		{
			"api", "DATABASE_URL=postgresql://u@127.0.0.1," + away + "/x?sslmode=disable",
			"DATABASE_URL lets what is said to " + away,
		},
		{"api", "DATABASE_URL=postgresql://u@" + away + "/x?sslmode=require", "DATABASE_URL lets whoever answers as " + away},
		{
			"api", "DATABASE_URL=postgresql://u@" + away + "/x?sslnegotiation=direct",
			"DATABASE_URL lets whoever answers as " + away,
		},
		{"xds", "XDS_GRPC_ADDR=0.0.0.0:0", "XDS_GRPC_ADDR is \"0.0.0.0:0\", which other machines reach"},
		{"xds", "XDS_HTTP_ADDR=[::]:0", "XDS_HTTP_ADDR is"},
		{"xds", "NATS_URL=nats://nats.internal:4222", "NATS_URL names nats.internal:4222"},
		{"agent", "XDS_SERVER=xds.internal:18000", "XDS_SERVER is \"xds.internal:18000\", on another machine"},
		{"agent", "NATS_URL=" + away, "NATS_URL names " + away},
		{"agent", "AGENT_HTTP_ADDR=:0", "AGENT_HTTP_ADDR is"},
		{"agent", "CLUSTER_API_KEY=fifteen-letters", "CLUSTER_API_KEY has 15 characters"},
		{"api", "CLUSTER_API_KEY=fifteen-letters", "CLUSTER_API_KEY has 15 characters"},
	} {
		if said := say(ends, c.program, c.setting); !strings.Contains(said, c.says) {
			t.Errorf("%s with %s says %q, not %q", c.program, c.setting, said, c.says)
		}
		if strings.HasPrefix(c.setting, "CLUSTER_API_KEY") {
			continue
		}
		name, _, _ := strings.Cut(c.setting, "=")
		if said := say(some, c.program, c.setting, "ALLOW_PLAINTEXT=true"); strings.Contains(said, name+" is ") ||
			strings.Contains(said, name+" names ") || strings.Contains(said, name+" lets ") {
			t.Errorf("%s with %s and ALLOW_PLAINTEXT says %q", c.program, c.setting, said)
		}
	}
	for _, proven := range []string{
		"sslmode=verify-full", "sslmode=verify-ca&sslrootcert=" + authority, "sslmode=require&sslrootcert=" + authority,
		"sslrootcert=system",
	} {
		if said := say(some, "api", "DATABASE_URL=postgresql://u@"+away+"/x?"+
			proven); strings.Contains(said, "DATABASE_URL lets ") {
			t.Errorf("api with %s says %q", proven, said)
		}
	}
	for program := range local {
		if said := say(some, program); strings.Contains(said, "other machine") || strings.Contains(said, "another machine") {
			t.Errorf("%s on loopback says %q", program, said)
		}
	}
	cmd := exec.Command(harness.ProgramForTest(t, "marchproxy"), "status", "--api", "http://"+away+":8000")
	cmd.Env = []string{"MARCHPROXY_TOKEN=mp_secret"}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "another machine") {
		t.Errorf("the command line sends a token in plain text: %v %s", err, out)
	}
}
