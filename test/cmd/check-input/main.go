// Command check-input sends a running system what Schemathesis makes of its OpenAPI document: valid and
// invalid values of every parameter and field. Nothing may answer with a 5xx, take what the document
// forbids, or leave the configuration stuck: afterwards a change must go live at once, and the doctor
// must find nothing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/marchproxy/marchproxy/test/harness"
)

func main() {
	examples := flag.Int("examples", 20, "examples an operation")
	seed := flag.Int("seed", 1, "seed of the examples")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *examples, *seed); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, examples, seed int) (err error) {
	s, err := harness.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	status, raw, err := s.Call(ctx, http.MethodPost, s.API+"/v1/tokens", `{"name":"schemathesis","role":"admin"}`)
	if err != nil || status != http.StatusCreated {
		return errors.Join(fmt.Errorf("make a token: status %d", status), err)
	}
	var token struct{ Token string }
	if err := json.Unmarshal(raw, &token); err != nil {
		return err
	}
	root, err := harness.Root()
	if err != nil {
		return err
	}
	// Not checked: that valid data is taken (references between objects are beyond a schema), that a token
	// is asked for (TestContract has it). Left out: the streams of events and of the access log, which never end, and the
	// deletion of tokens, whose names it reads from the list: those with which it and what comes after it ask are among them.
	cmd := exec.CommandContext(ctx, filepath.Join(root, "scripts", "schemathesis"), "run", s.API+"/v1/openapi.json",
		"--header", "Authorization: Bearer "+token.Token, "--exclude-operation-id", "events",
		"--exclude-operation-id", "accessLog", "--exclude-operation-id", "deleteToken",
		"--checks", "all", "--exclude-checks", "positive_data_acceptance,ignored_auth,missing_required_header",
		"--max-examples", fmt.Sprint(examples), "--seed", fmt.Sprint(seed), "--continue-on-failure", "--no-color",
		"--warnings", "off")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("schemathesis: %w", err)
	}
	if err := after(ctx, s); err != nil {
		return err
	}
	fmt.Println("afterwards a change goes live, no request was answered with a 5xx, and the doctor finds nothing")
	return nil
}

// after proves that the system has come through unharmed.
func after(ctx context.Context, s *harness.System) error {
	status, raw, err := s.Call(ctx, http.MethodPut, s.API+"/v1/routes/after?wait=live&timeout=20s",
		`{"spec":{"hosts":["after.test"],"direct_response":{"status":200}}}`)
	if err != nil {
		return err
	}
	if status != http.StatusCreated {
		return fmt.Errorf("a change afterwards: status %d: %s", status, raw)
	}
	_, raw, err = s.Call(ctx, http.MethodGet, s.API+"/metrics", nil)
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		if strings.HasPrefix(line, `marchproxy_api_requests_total{code="5`) {
			return fmt.Errorf("a request was answered with a 5xx: %s", line)
		}
	}
	return s.Doctor(ctx, 20*time.Second)
}
