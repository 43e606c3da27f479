package issuance

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/marchproxy/marchproxy/proto/marchproxy/config/v1"

	"github.com/marchproxy/marchproxy/pkg/certificate"
	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
	"github.com/marchproxy/marchproxy/services/api/internal/writer"
)

// Steps of a certificate, as its status has them.
const (
	stepWaiting    = "waiting"
	stepOrdering   = "ordering"
	stepAnswering  = "answering"
	stepValidating = "validating"
	stepFinalizing = "finalizing"
	stepIssued     = "issued"
	stepFailed     = "failed"
)

// job is the work on one certificate.
type job struct {
	*Manager
	row    store.Issuance
	spec   *configv1.Certificate
	issuer *configv1.CertificateIssuer
	// at are the gateways whose Envoys answer the authority.
	at      []string
	client  *acme.Client
	account acme.Account
	stored  store.Account
	log     *zap.Logger
	// told says whether answers are there that have to be taken away.
	told bool
}

// work does what there is to do for a certificate, and notes when there will be more.
func (m *Manager) work(ctx context.Context, x store.Issuance) {
	j := &job{Manager: m, row: x, log: m.log.With(zap.String("certificate", x.Certificate), zap.String("issuer", x.Issuer))}
	heard, said := listen(ctx)
	err := j.run(heard)
	if ctx.Err() != nil { // this api ends, or another one is at it: what is stored says how far it is
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = m.store.ReleaseIssuance(limit, m.holder, x.Certificate) // or the lease ends
		return
	}
	var later *later
	switch {
	case errors.Is(err, store.ErrTaken):
		_ = m.store.ReleaseIssuance(ctx, m.holder, x.Certificate) // or the lease ends
		return
	case errors.As(err, &later):
		j.row.Note, j.row.NextAt = later.note, later.at
	case err != nil:
		j.failed(ctx, err, *said)
	}
	if err := m.store.SaveIssuance(ctx, m.holder, j.row, true); err != nil && !errors.Is(err, store.ErrTaken) {
		j.log.Warn("how far a certificate is cannot be stored", zap.Error(err))
	}
}

// later is no failure: something has to be waited for.
type later struct {
	at   time.Time
	note string
}

// Error is the note.
func (l *later) Error() string { return l.note }

// save notes how far it is, and that this api goes on.
func (j *job) save(ctx context.Context, step string) error {
	j.row.Step, j.row.Note = step, ""
	return j.store.SaveIssuance(ctx, j.holder, j.row, false)
}

func (j *job) ref() resource.Ref {
	return resource.Ref{Kind: resource.KindCertificate, Name: j.row.Certificate}
}

func (j *job) challenge() resource.Ref {
	return resource.Ref{Kind: resource.KindChallenge, Name: j.row.Certificate}
}

// load reads what is wanted.
func (j *job) load(ctx context.Context) error {
	there := false
	if err := j.writer.Read(ctx, func(st *config.State) {
		o := st.Get(j.ref())
		if o == nil || o.UID != j.row.UID {
			return
		}
		j.spec, j.issuer = proto.CloneOf(certificateOf(o)), proto.CloneOf(st.Issuer(j.row.Issuer))
		there = j.issuer != nil && wanted(j.spec, j.issuer) == j.row.Wanted
		if j.at = j.issuer.GetHttp01().GetGateways(); len(j.at) == 0 {
			for g := range st.Presenters(config.Change{After: o}) {
				j.at = append(j.at, g)
			}
			slices.Sort(j.at)
		}
		j.told = st.Get(j.challenge()) != nil
	}); err != nil {
		return err
	}
	if !there {
		return store.ErrTaken // what is wanted by now is noted soon
	}
	return nil
}

func (j *job) run(ctx context.Context) error {
	if err := j.load(ctx); err != nil {
		return err
	}
	var err error
	if j.client, err = j.Manager.client(j.row.Issuer, j.issuer); err != nil {
		return err
	}
	now := time.Now()
	if j.row.OrderURL == "" {
		if due, err := j.due(ctx, now); err != nil || !due {
			return err
		}
	}
	if j.account, j.stored, err = j.Manager.account(ctx, j.client, j.row.Issuer, j.issuer); err != nil {
		return err
	}
	if p := j.stored.PausedUntil; p != nil && p.After(now) {
		return &later{*p, j.stored.PausedFor}
	}
	order, err := j.order(ctx)
	if err != nil {
		return err
	}
	if order.Status == acme.StatusPending {
		if err := j.prove(ctx, order); err != nil {
			return err
		}
		if order, err = j.client.GetOrder(ctx, j.account, order); err != nil {
			return err
		}
	}
	if err := j.save(ctx, stepFinalizing); err != nil {
		return err
	}
	if order, err = j.finalize(ctx, order); err != nil {
		return err
	}
	return j.fetch(ctx, order)
}

// order is the one that is under way, or a new one, whose URL is stored before anything is done with it.
func (j *job) order(ctx context.Context) (acme.Order, error) {
	x := &j.row
	if x.OrderURL != "" && x.OrderWanted == x.Wanted && x.OrderAccount == j.account.Location {
		order, err := j.client.GetOrder(ctx, j.account, acme.Order{Location: x.OrderURL})
		var p acme.Problem
		switch {
		case err == nil && order.Status == acme.StatusInvalid:
			if order.Error != nil {
				return order, *order.Error
			}
			return order, errors.New("the authority has ended the order without saying why")
		case err == nil:
			j.log.Info("goes on with an order", zap.String("status", order.Status))
			return order, nil
		case !errors.As(err, &p) || p.Status >= 500 || p.Status == 429:
			return order, err
		}
		j.log.Info("the order is not there any more", zap.Error(err))
	}
	x.OrderURL = ""
	limit, per := 250, 3*time.Hour
	if l := j.issuer.GetOrderLimit(); l != nil {
		if limit = int(l.GetOrders()); l.GetPer() != nil {
			per = l.GetPer().AsDuration()
		}
	}
	ok, free, err := j.store.CountOrder(ctx, x.Issuer, limit, per)
	if err != nil {
		return acme.Order{}, err
	}
	if !ok {
		return acme.Order{}, &later{free.Add(time.Second), fmt.Sprintf("issuer %q has made the %d orders that its order_limit "+
			"allows in %s", x.Issuer, limit, per)}
	}
	key, err := newKey(j.issuer.GetKeyType())
	if err != nil {
		return acme.Order{}, err
	}
	if err := j.save(ctx, stepOrdering); err != nil {
		return acme.Order{}, err
	}
	order, err := j.newOrder(ctx)
	if err != nil {
		return order, err
	}
	now := time.Now()
	x.OrderURL, x.OrderWanted, x.OrderAccount, x.OrderedAt = order.Location, x.Wanted, j.account.Location, &now
	x.OrderKey = j.box.Seal(key, resource.KindCertificate, x.Certificate, orderKey)
	j.log.Info("ordered", zap.Strings("names", j.spec.GetNames()), zap.String("order", order.Location))
	return order, j.save(ctx, stepOrdering)
}

// newOrder makes an order. It says which certificate it replaces, so that the authority counts it as a renewal.
func (j *job) newOrder(ctx context.Context) (acme.Order, error) {
	want := acme.Order{Profile: j.issuer.GetProfile(), Replaces: j.replaces(ctx)}
	for _, n := range j.spec.GetNames() {
		want.Identifiers = append(want.Identifiers, acme.Identifier{Type: "dns", Value: n})
	}
	order, err := j.client.NewOrder(ctx, j.account, want)
	if want.Replaces != "" && refusesReplacement(err) {
		want.Replaces = ""
		return j.client.NewOrder(ctx, j.account, want)
	}
	return order, err
}

// refusesReplacement says whether an authority's answer may be about the certificate that an order replaces: it is of
// another account, was replaced already, or is not found. Some say so by an error of their own (serverInternal): Pebble
// does of each serial number that DER begins with a zero. A certificate of which that is so would never be renewed.
func refusesReplacement(err error) bool {
	var p acme.Problem
	return errors.As(err, &p) && p.Type != acme.ProblemTypeRateLimited && p.Type != acme.ProblemTypeAccountDoesNotExist
}

// finalize has the authority issue for the key of the order.
func (j *job) finalize(ctx context.Context, order acme.Order) (acme.Order, error) {
	switch order.Status {
	case acme.StatusValid:
		return order, nil
	case acme.StatusReady:
		text, err := j.box.Open(j.row.OrderKey, resource.KindCertificate, j.row.Certificate, orderKey)
		if err != nil {
			return order, fmt.Errorf("the order's key cannot be opened: %w", err)
		}
		key, err := readKey(text)
		if err != nil {
			return order, err
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: j.spec.GetNames()}, key)
		if err != nil {
			return order, fmt.Errorf("make a request for a certificate: %w", err)
		}
		return j.client.FinalizeOrder(ctx, j.account, order, csr)
	case acme.StatusProcessing:
		return order, &later{time.Now().Add(5 * time.Second), "the authority is issuing it"}
	case acme.StatusInvalid:
		if order.Error != nil {
			return order, *order.Error
		}
	}
	return order, fmt.Errorf("the authority has left the order %s", order.Status)
}

// errChanged says that a certificate was changed or deleted meanwhile.
var errChanged = errors.New("the certificate was changed meanwhile")

// fetch gets what was issued and writes it; the answers go with the same revision.
func (j *job) fetch(ctx context.Context, order acme.Order) error {
	chains, err := j.client.GetCertificateChain(ctx, j.account, order.Certificate)
	if err != nil {
		return fmt.Errorf("get the certificate: %w", err)
	}
	chain := string(chains[0].ChainPEM)
	leaf, err := certificate.Leaf(chain)
	if err != nil {
		return fmt.Errorf("what the authority has issued %w", err)
	}
	key, err := j.box.Open(j.row.OrderKey, resource.KindCertificate, j.row.Certificate, orderKey)
	if err != nil {
		return fmt.Errorf("the order's key cannot be opened: %w", err)
	}
	if _, err := j.writes.do(ctx, write{
		words: "issued " + j.row.Certificate,
		plan: func(st *config.State) ([]writer.Desired, []resource.Ref, error) {
			o := st.Get(j.ref())
			if o == nil || o.UID != j.row.UID || wanted(certificateOf(o), st.Issuer(j.row.Issuer)) != j.row.Wanted {
				return nil, nil, errChanged
			}
			spec := proto.CloneOf(certificateOf(o))
			spec.Chain, spec.PrivateKey = chain, key
			var gone []resource.Ref
			if st.Get(j.challenge()) != nil {
				gone = append(gone, j.challenge())
			}
			return []writer.Desired{{Ref: j.ref(), Spec: spec, Path: "$", SpecPath: "$"}}, gone, nil
		},
	}); err != nil {
		if errors.Is(err, errChanged) {
			return store.ErrTaken
		}
		return fmt.Errorf("store the certificate: %w", err)
	}
	j.told = false
	now := time.Now()
	x := &j.row
	x.Step, x.Note, x.Failures, x.Problem, x.Reason, x.FailedAt = stepIssued, "", 0, "", "", nil
	x.IssuedAt, x.RenewAt = &now, nil // the time was the last one's
	x.OrderURL, x.OrderKey, x.OrderWanted, x.OrderAccount, x.OrderedAt = "", "", "", "", nil
	j.plan(chains[0].RenewalInfo, leaf, now)
	j.count("issued")
	j.log.Info("issued", zap.Time("not_after", leaf.NotAfter), zap.Timep("renew_at", x.RenewAt))
	return nil
}

func (j *job) count(how string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ordered[[2]string{j.row.Issuer, how}]++
}
