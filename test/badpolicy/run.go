package badpolicy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/test/harness"
	"github.com/marchproxy/marchproxy/test/probe"
)

// Report says how long revocations took.
type Report struct {
	// Quiet are those with nothing else going on, Beside those right after a bad policy.
	Quiet, Beside []time.Duration
}

// String is the report in a line.
func (r Report) String() string {
	return fmt.Sprintf("%d revocations beside a bad policy, p50 and p99 %s; %d without one, %s",
		len(r.Beside), quantiles(r.Beside), len(r.Quiet), quantiles(r.Quiet))
}

func at(in []time.Duration, q float64) time.Duration {
	in = slices.Sorted(slices.Values(in))
	return in[int(q*float64(len(in)-1))]
}

func quantiles(in []time.Duration) string {
	ms := func(q float64) float64 { return float64(at(in, q).Microseconds()) / 1000 }
	return fmt.Sprintf("%.1f and %.1f ms", ms(0.5), ms(0.99))
}

// goodToken is one of the policy that becomes bad, while it is good.
const goodToken = "c2VjcmV0LXRva2VuLW9mLWEtbWFjaGluZQ=="

const goodPolicy = `{"tokens":[{"name":"ci","value":"` + goodToken + `"}]}`

type run struct {
	s      *harness.System
	force  *harness.Forcer
	conns  []*probe.Conn
	signed [2]*ecdsa.PrivateKey
	public [2]string
}

// Run revokes a key of a policy so many times, in turn a shared secret and a public key, each right after another
// policy has been made bad past every check. The revocation must hold when its write returns, what was not revoked must
// pass, and the bad policy must refuse everybody until it is corrected. Half as often it revokes without a bad policy.
func Run(ctx context.Context, s *harness.System, trials int) (report Report, err error) {
	r := &run{s: s}
	if r.force, err = s.Forcer(ctx); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, r.force.Close(ctx)) }()
	if err := r.begin(ctx); err != nil {
		return report, err
	}
	defer func() {
		for _, c := range r.conns {
			c.Close()
		}
	}()
	kinds := Kinds()
	for k := 1; k <= trials; k++ {
		if k%2 == 0 {
			took, err := r.revoke(ctx, k/2)
			if err != nil {
				return report, fmt.Errorf("trial %d, without a bad policy: %w", k, err)
			}
			report.Quiet = append(report.Quiet, took)
		}
		kind := kinds[k%len(kinds)]
		took, err := r.beside(ctx, k, kind)
		if err != nil {
			return report, fmt.Errorf("trial %d, beside %s: %w", k, kind.Name, err)
		}
		report.Beside = append(report.Beside, took)
	}
	// A refusal by Envoy takes a message more each way.
	if beside, quiet := at(report.Beside, 0.5), at(report.Quiet, 0.5); beside > 4*quiet+100*time.Millisecond {
		return report, fmt.Errorf("beside a bad policy a revocation takes %v, %v without one", beside, quiet)
	}
	return report, nil
}

func (r *run) begin(ctx context.Context) error {
	for i := range r.signed {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return err
		}
		text, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
		if err != nil {
			return err
		}
		r.signed[i], r.public[i] = key, string(text)
	}
	// The kind that only Envoy refuses: a program that is larger than this Envoy takes.
	const strict = "/runtime_modify?re2.max_program_size.error_level=100"
	status, body, err := r.s.AdminSocket().Do(ctx, http.MethodPost, strict)
	if err != nil || status != http.StatusOK {
		return errors.Join(fmt.Errorf("runtime_modify: %d %s", status, body), err)
	}
	puts := [][2]string{
		{"services/idp", `{"endpoints":[{"host":"127.0.0.1","port":9}]}`},
		{"auth-policies/ours", r.ours(0)},
		{"auth-policies/theirs", r.theirs(true)},
		{"auth-policies/bad", goodPolicy},
	}
	for _, name := range []string{"ours", "theirs", "bad"} {
		route := `{"hosts":["` + name + `.test"],"auth_policy":"` + name + `","direct_response":{"status":200,"body":"ok"}}`
		puts = append(puts, [2]string{"routes/" + name, route})
	}
	for _, p := range puts {
		if _, err := r.put(ctx, p[0], p[1]); err != nil {
			return err
		}
	}
	for range 6 { // on both workers, most likely
		r.conns = append(r.conns, probe.New(r.s.Proxy))
	}
	return nil
}

// beside makes a policy bad, and revokes a key of another one at once.
func (r *run) beside(ctx context.Context, k int, kind Kind) (time.Duration, error) {
	if err := r.ask("bad.test", goodToken, 200); err != nil {
		return 0, fmt.Errorf("before it is bad: %w", err)
	}
	if _, err := r.force.Put(ctx, resource.KindAuthPolicy, "bad", kind.Spec); err != nil {
		return 0, err
	}
	took, err := r.revoke(ctx, k)
	if err != nil {
		return 0, err
	}
	// Its revision was before that of the revocation, which is live.
	for _, token := range []string{goodToken, r.token(false, "a", -2), "x"} {
		if err := r.ask("bad.test", token, 401); err != nil {
			return 0, fmt.Errorf("the bad policy does not refuse: %w", err)
		}
	}
	_, err = r.put(ctx, "auth-policies/bad", goodPolicy)
	return took, err
}

// revoke takes a key out of a policy, and asks with tokens of it and of the one that stays.
func (r *run) revoke(ctx context.Context, k int) (time.Duration, error) {
	name, native := "ours", k%2 == 1
	with, without := r.ours(k), r.ours(k+1)
	if native {
		name, with, without = "theirs", r.theirs(true), r.theirs(false)
	}
	if _, err := r.put(ctx, "auth-policies/"+name, with); err != nil {
		return 0, err
	}
	goes, stays := r.token(native, "goes", k), r.token(native, "stays", -1)
	if err := errors.Join(r.ask(name+".test", goes, 200), r.ask(name+".test", stays, 200)); err != nil {
		return 0, fmt.Errorf("before the revocation: %w", err)
	}
	took, err := r.put(ctx, "auth-policies/"+name, without)
	if err != nil {
		return 0, err
	}
	return took, errors.Join(r.ask(name+".test", goes, 401), r.ask(name+".test", stays, 200))
}

func secretOf(k int) string { return fmt.Sprintf("secret number %018d", k) }

func (r *run) ours(k int) string {
	key := func(kid string, k int) string {
		return fmt.Sprintf(`{"kid":%q,"algorithm":"HS256","secret":%q}`, kid, secretOf(k))
	}
	return `{"jwt":{"keys":[` + key("stays", -1) + `,` + key("goes", k) + `]}}`
}

// theirs is the policy of public keys.
func (r *run) theirs(both bool) string {
	key := func(kid string, i int) string {
		return fmt.Sprintf(`{"kid":%q,"algorithm":"ES256","public_key":%s}`, kid, r.public[i])
	}
	keys := key("stays", 0)
	if both {
		keys += `,` + key("goes", 1)
	}
	return `{"jwt":{"keys":[` + keys + `],"required_claims":[{"claim":["sub"]}]}}`
}

func (r *run) token(native bool, kid string, k int) string {
	var method jwt.SigningMethod = jwt.SigningMethodHS256
	var key any = []byte(secretOf(k))
	if native {
		method, key = jwt.SigningMethodES256, r.signed[1]
		if kid == "stays" {
			key = r.signed[0]
		}
	}
	t := jwt.NewWithClaims(method, jwt.MapClaims{"sub": "ann", "exp": time.Now().Add(time.Hour).Unix()})
	t.Header["kid"] = kid
	text, err := t.SignedString(key)
	if err != nil {
		panic(err) // keys of this file's own
	}
	return text
}

func (r *run) put(ctx context.Context, path, spec string) (time.Duration, error) {
	return r.s.PutLive(ctx, path, `{"spec":`+spec+`}`)
}

func (r *run) ask(host, token string, want int) error {
	for _, c := range r.conns {
		a, _, err := c.Get(host, "/", "Authorization: Bearer "+token)
		if err != nil {
			return err
		}
		if a.Status != want {
			return fmt.Errorf("%s: %d %q, want %d", host, a.Status, a.Body, want)
		}
	}
	return nil
}
