// Command check-auth proves that a revoked credential stops working when the write that revokes it
// returns: it puts a policy with wait=live, uses its tokens until they are in the filter's cache on every
// worker, takes the key away with wait=live, and asks again at once on old connections and a new one. No
// request may pass with what was revoked, and none may fail with what was not.
//
// With -bad it does so beside policies that an engine refuses and that are in the configuration all the same.
//
// Policy changes and route changes alternate in the same run, so that their times can be compared.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/marchproxy/marchproxy/test/badpolicy"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

func main() {
	trials := flag.Int("trials", 2000, "revocations")
	bad := flag.Int("bad", 0, "instead: revocations, each right after a bad policy was forced past every check")
	flag.Parse()
	check := func(ctx context.Context) error { return run(ctx, *trials) }
	if *bad > 0 {
		check = func(ctx context.Context) error { return beside(ctx, *bad) }
	}
	if err := check(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "check-auth:", err)
		os.Exit(1)
	}
}

// beside revokes keys beside bad policies.
func beside(ctx context.Context, trials int) (err error) {
	s, err := harness.Start(ctx, "--no-demo", "--concurrency", "2")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	report, err := badpolicy.Run(ctx, s, trials)
	if err == nil {
		fmt.Println(report)
	}
	return err
}

type checker struct {
	s        *harness.System
	old      []*probe.Conn
	wrong    int
	policies []time.Duration
	routes   []time.Duration
}

func run(ctx context.Context, trials int) (err error) {
	s, err := harness.Start(ctx, "--no-demo", "--concurrency", "2")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c := &checker{s: s}
	defer func() {
		for _, p := range c.old {
			p.Close()
		}
	}()
	if _, err := c.s.PutLive(ctx, "auth-policies/staff", policy(0)); err != nil {
		return err
	}
	if _, err := c.s.PutLive(ctx, "routes/private", `{"spec":{"hosts":["auth.test"],"auth_policy":"staff",`+
		`"direct_response":{"status":200,"body":"ok"}}}`); err != nil {
		return err
	}
	for range 6 { // on both workers, most likely
		c.old = append(c.old, probe.New(s.Proxy))
	}
	for k := 1; k <= trials; k++ {
		if err := c.trial(ctx, k); err != nil {
			return fmt.Errorf("trial %d: %w", k, err)
		}
	}
	fmt.Printf("%d revocations, %d requests, %d exceptions\n", trials, trials*(3*len(c.old)+2), c.wrong)
	fmt.Printf("wait=live returns, p50 and p99: policy %s, route %s\n", quantiles(c.policies), quantiles(c.routes))
	if c.wrong > 0 {
		return errors.New("wait=live returned before a policy was live")
	}
	return nil
}

func quantiles(in []time.Duration) string {
	slices.Sort(in)
	at := func(q float64) float64 { return float64(in[int(q*float64(len(in)-1))].Microseconds()) / 1000 }
	return fmt.Sprintf("%.1f and %.1f ms", at(0.5), at(0.99))
}

func secret(k int) string { return fmt.Sprintf("secret number %018d", k) }

// policy k takes the tokens of key k, and those of the key that stays.
func policy(k int) string {
	return fmt.Sprintf(`{"spec":{"jwt":{"keys":[{"kid":"stays","algorithm":"HS256","secret":%q},{"kid":"goes",`+
		`"algorithm":"HS256","secret":%q}]}}}`, secret(-1), secret(k))
}

func token(kid string, k int) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"exp": time.Now().Add(time.Hour).Unix()})
	t.Header["kid"] = kid
	return t.SignedString([]byte(secret(k)))
}

// trial has key k-1 in force, uses it, and revokes it.
func (c *checker) trial(ctx context.Context, k int) error {
	going, err := token("goes", k-1)
	if err != nil {
		return err
	}
	staying, err := token("stays", -1)
	if err != nil {
		return err
	}
	fresh := probe.New(c.s.Proxy)
	defer fresh.Close()
	if err := c.ask(append(c.old, fresh), k, going, 200); err != nil {
		return err
	}
	took, err := c.s.PutLive(ctx, "auth-policies/staff", policy(k))
	if err != nil {
		return err
	}
	c.policies = append(c.policies, took)
	if err := c.ask(append(c.old, fresh), k, going, 401); err != nil {
		return err
	}
	if err := c.ask(c.old, k, staying, 200); err != nil {
		return err
	}
	took, err = c.s.PutLive(ctx, "routes/other",
		fmt.Sprintf(`{"spec":{"hosts":["other.test"],"direct_response":{"status":200,"body":"%d"}}}`, k))
	c.routes = append(c.routes, took)
	return err
}

func (c *checker) ask(conns []*probe.Conn, k int, token string, want int) error {
	for _, p := range conns {
		a, _, err := p.Get("auth.test", "/", "Authorization: Bearer "+token)
		if err != nil {
			return err
		}
		if a.Status != want {
			c.wrong++
			fmt.Printf("exception: trial %d: %d %q, want %d\n", k, a.Status, a.Body, want)
		}
	}
	return nil
}
