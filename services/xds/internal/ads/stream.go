package ads

import (
	"context"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/translate"
	"github.com/marchproxy/marchproxy/services/xds/internal/seats"
)

// deltaConn is the gRPC stream, as far as it is needed here.
type deltaConn interface {
	Send(*discoveryv3.DeltaDiscoveryResponse) error
	SendMsg(any) error
	Recv() (*discoveryv3.DeltaDiscoveryRequest, error)
	Context() context.Context
}

// deltaStream is one Envoy's connection: it hands the Envoy's requests to the plan, and sends what that says. Only its
// own goroutine sends; what is not said here belongs to the gateway's lock.
type deltaStream struct {
	g       *Gateway
	plan    *plan
	conn    deltaConn
	cancel  context.CancelFunc
	log     *zap.Logger
	number  uint64
	id      string
	address string
	version string
	since   time.Time
	// drain is the Envoy's drain time, 0 where it is not known.
	drain time.Duration
	// lagged is since when it has been seen to lack something.
	lagged time.Time
	// seniority is since when the Envoy has been there, short absences aside: who comes last is over the limit first.
	seniority time.Time
	// reported is the applied revision that others were last told of.
	reported int64
	wakes    chan struct{}
	// admitted says that it has had its turn to catch up, which ends when the Envoy serves goal.
	admitted bool
	goal     int64
	// queued says that it waits for a turn.
	queued bool
	// raw says that the stream takes what is marshalled already.
	raw bool
	// pushed are the responses that spans are made of, by nonce, until the Envoy answers.
	pushed map[string]pushed
}

func newStream(g *Gateway, conn deltaConn, cancel context.CancelFunc, now time.Time) *deltaStream {
	return &deltaStream{
		g: g, plan: newPlan(g.table, g.opt.Linger, g.opt.Retry), conn: conn, cancel: cancel, log: g.opt.Log,
		since: now, number: numbers.Add(1), reported: -1, wakes: make(chan struct{}, 1),
	}
}

// join makes the stream one of the gateway's; until it has everything it has applied revision 0.
func (s *deltaStream) join() {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	s.plan.at = s.g.table.tail
	s.g.streams[s] = struct{}{}
	s.g.proxyChanged(s)
}

func (s *deltaStream) leave() {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	delete(s.g.streams, s)
	s.g.proxyGone(s)
	s.g.levels.move(s.reported, -1)
	s.g.catchUp.leave(s)
	s.plan.leave()
}

// wake has the stream look for something to send.
func (s *deltaStream) wake() {
	select {
	case s.wakes <- struct{}{}:
	default:
	}
}

// handle takes one request of the Envoy. It says whether what is known of the resources is another now.
func (s *deltaStream) handle(r *discoveryv3.DeltaDiscoveryRequest) bool {
	s.answered(r)
	tp := s.plan.types[translate.Type(r.GetTypeUrl())]
	if tp == nil {
		s.log.Warn("envoy asks for a type that is not served", zap.String("type", r.GetTypeUrl()))
		return false
	}
	if tp.hasVariants && len(r.GetInitialResourceVersions()) > 0 && s.cameOverLimit(tp, r) {
		s.g.opt.Seats.CameWithoutSeat(s) // without the gateway's lock, which is taken after that of the seats
	}
	s.g.mu.Lock()
	defer s.g.unlock()
	now := time.Now()
	s.g.catchUp.heard(s, now)
	generation := s.g.table.generation
	if err := s.plan.handle(tp, r, now); err != nil {
		s.log.Error(err.Error(), zap.String("reason", r.GetErrorDetail().GetMessage()))
	}
	return s.g.table.generation != generation
}

func (s *deltaStream) cameOverLimit(tp *typePlan, r *discoveryv3.DeltaDiscoveryRequest) bool {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	return s.plan.cameOverLimit(tp, r)
}

// run serves the stream until it ends.
func (s *deltaStream) run(first *discoveryv3.DeltaDiscoveryRequest) error {
	defer s.cancel()
	s.join()
	s.g.opt.Seats.Join(seats.Proxy{Gateway: s.g.name, ID: s.id, Address: s.address, Connected: s.since}, s)
	s.g.notify(false)
	defer s.g.notify(false)
	defer s.leave()
	defer s.g.opt.Seats.Leave(s)
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	failed := make(chan error, 1)
	ctx := s.conn.Context()
	read := func() {
		for {
			r, err := s.conn.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}
	reading := false
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	judged := false
	take := func(r *discoveryv3.DeltaDiscoveryRequest) { judged = s.handle(r) }
	take(first)
	for {
		next, err := s.pump(judged)
		if err != nil {
			return err
		}
		judged = false
		timer.Reset(next)
		if !reading && s.admitted { // what an Envoy says that it has is much: it is read when its turn comes
			reading = true
			go read()
		}
		select {
		case r := <-requests:
			take(r)
		case <-s.wakes:
		case <-timer.C:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pump sends everything that may be sent now, and says when to look again at the latest. Judged says that what is
// known of the resources is another now, which is told with what the Envoy has applied by that.
func (s *deltaStream) pump(judged bool) (time.Duration, error) {
	for {
		now := time.Now()
		s.g.mu.Lock()
		var msg *response
		wait, mine := s.g.catchUp.admit(s, now)
		if mine {
			s.plan.sync()
			msg = s.plan.next(now)
			wait = min(wait, s.plan.nextTimer(now))
		}
		parents := s.g.traces.of(msg)
		applied, was := s.plan.applied(), s.reported
		s.g.catchUp.settle(s, applied)
		s.reported = applied
		urgent := applied != was && s.g.levels.move(was, applied)
		s.g.mu.Unlock()
		if applied != was || judged {
			s.g.notify(urgent || judged)
			judged = false
		}
		if msg == nil {
			return wait, nil
		}
		if err := s.send(msg); err != nil {
			return 0, err
		}
		s.push(msg, parents, now)
	}
}

// send sends nothing to an Envoy whose stream was ended here: one that reads slowly would get what is waiting for it.
func (s *deltaStream) send(r *response) error {
	if err := s.conn.Context().Err(); err != nil {
		return err
	}
	if s.raw {
		return s.conn.SendMsg(r.encoded(&s.g.responses))
	}
	return s.conn.Send(r.message())
}
