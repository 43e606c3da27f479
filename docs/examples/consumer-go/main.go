// Command consumer prints what changes in MarchProxy's configuration. It is a durable consumer: what
// happens while it is away is printed at its next start.
//
//	go run . -nats nats://USER:PASSWORD@127.0.0.1:4222 -state /var/lib/consumer.json route
package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// patience is how long the state may differ from what the commits say before everything is read again.
const patience = 5 * time.Second

// event is the payload of marchproxy.config.v1.resource.KIND.NAME.
type event struct {
	Kind     string          `json:"kind"`
	Name     string          `json:"name"`
	Revision int64           `json:"revision"`
	Deleted  bool            `json:"deleted"`
	Spec     json.RawMessage `json:"spec"`
}

// kindState is the count and hash of one kind.
type kindState struct {
	Count int    `json:"count"`
	Hash  string `json:"hash"`
}

// commit is the payload of marchproxy.config.v1.revision.
type commit struct {
	Epoch    string               `json:"epoch"`
	Revision int64                `json:"revision"`
	State    map[string]kindState `json:"state"`
}

// table holds payloads exactly as they came, by kind and name: their bytes are hashed.
type table map[string]map[string]string

func (t table) put(payload []byte) error {
	var e event
	if err := json.Unmarshal(payload, &e); err != nil {
		return err
	}
	if t[e.Kind] == nil {
		t[e.Kind] = map[string]string{}
	}
	if t[e.Kind][e.Name] = string(payload); e.Deleted {
		delete(t[e.Kind], e.Name)
	}
	return nil
}

// state is the count and hash of a kind's objects: the sum, in four lanes modulo 2^64, of their digests.
func (t table) state(kind string) kindState {
	var sum [4]uint64
	for name, payload := range t[kind] {
		var e event
		_ = json.Unmarshal([]byte(payload), &e) // put has read it
		d := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%s", kind, name, e.Revision, payload))
		for i := range sum {
			sum[i] += binary.BigEndian.Uint64(d[8*i:])
		}
	}
	return kindState{len(t[kind]), fmt.Sprintf("%016x%016x%016x%016x", sum[0], sum[1], sum[2], sum[3])}
}

// follower is what is kept between runs: the state that was acted upon, and what has come since.
type follower struct {
	Commit  commit
	Applied table
	Next    table
	path    string
	kinds   []string  // as in events: Route
	pending uint64    // messages that are still to come
	amiss   time.Time // since when the state has been another than the stream's
}

// matches says whether the messages so far amount to the state that a commit speaks of.
func (f *follower) matches(c commit) bool {
	for _, k := range f.kinds {
		if want, got := c.State[k], f.Next.state(k); want.Count != got.Count || (want.Count > 0 && want.Hash != got.Hash) {
			return false
		}
	}
	return true
}

// apply acts on what differs between two states that the database had. This one prints it.
func (f *follower) apply(c commit) {
	for _, k := range f.kinds {
		for name, payload := range f.Next[k] {
			if f.Applied[k][name] != payload {
				fmt.Printf("revision %d: %s %s is now %s\n", c.Revision, k, name, payload)
			}
		}
		for name := range f.Applied[k] {
			if _, there := f.Next[k][name]; !there {
				fmt.Printf("revision %d: %s %s was deleted\n", c.Revision, k, name)
			}
		}
	}
	f.Commit, f.Applied = c, table{}
	for k, objects := range f.Next {
		f.Applied[k] = map[string]string{}
		for name, payload := range objects {
			f.Applied[k][name] = payload
		}
	}
}

// message takes one message; done says that everything up to it is done.
func (f *follower) message(m jetstream.Msg) (done bool, err error) {
	if meta, err := m.Metadata(); err == nil {
		f.pending = meta.NumPending
	}
	if !strings.HasSuffix(m.Subject(), ".revision") {
		if err := f.Next.put(m.Data()); err != nil {
			log.Printf("%s cannot be read: %v", m.Subject(), err) // the hash will not be equal
		}
		return false, nil
	}
	var c commit
	if err := json.Unmarshal(m.Data(), &c); err != nil || !f.matches(c) {
		return false, nil // wait for the next commit
	}
	if c.Epoch == f.Commit.Epoch && c.Revision < f.Commit.Revision {
		return false, nil // the stream was set back; it will be repaired
	}
	f.apply(c)
	return true, f.save()
}

func (f *follower) save() error {
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.path+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(f.path+".new", f.path)
}

// follow reads messages until something is amiss. fresh reads everything again.
func (f *follower) follow(
	ctx context.Context, js jetstream.JetStream, durable string, filters []string, fresh bool,
) error {
	s, err := js.Stream(ctx, "MARCHPROXY_CONFIG")
	if err != nil {
		return err
	}
	if fresh {
		f.Next, f.pending = table{}, 0
		if err := s.DeleteConsumer(ctx, durable); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return err
		}
	}
	// Acknowledging a commit acknowledges all before it. A transaction may have any number of messages, so
	// that the number of unacknowledged ones must not be limited.
	c, err := s.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: durable, FilterSubjects: filters, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
		AckPolicy: jetstream.AckAllPolicy, MaxAckPending: -1, AckWait: time.Minute,
	})
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		batch, err := c.Fetch(500, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			return err
		}
		for m := range batch.Messages() {
			done, err := f.message(m)
			if err != nil {
				return err
			}
			if done {
				if err := m.Ack(); err != nil {
					return err
				}
			}
		}
		if err := batch.Error(); err != nil {
			return err
		}
		if err := f.look(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// look compares with the stream's last commit: a consumer can die quietly.
func (f *follower) look(ctx context.Context, s jetstream.Stream) error {
	var last commit
	m, err := s.GetLastMsgForSubject(ctx, "marchproxy.config.v1.revision")
	if err == nil {
		err = json.Unmarshal(m.Data, &last)
	}
	if err != nil || f.pending > 0 || (last.Epoch == f.Commit.Epoch && last.Revision == f.Commit.Revision) {
		f.amiss = time.Time{}
		return nil // a stream that was purged has nothing to compare with yet
	}
	if f.amiss.IsZero() {
		f.amiss = time.Now()
	}
	if time.Since(f.amiss) > patience {
		f.amiss = time.Time{}
		return errors.New("the state has stayed another than the stream's")
	}
	return nil
}

func main() {
	url := flag.String("nats", "nats://127.0.0.1:4222", "where NATS is")
	path := flag.String("state", "consumer.json", "what is kept between runs")
	durable := flag.String("name", "example-go", "of the durable consumer")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	f := &follower{Next: table{}, path: *path}
	raw, err := os.ReadFile(*path)
	if err == nil {
		err = json.Unmarshal(raw, f)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Fatal(err)
	}
	filters := []string{"marchproxy.config.v1.revision"}
	for _, token := range flag.Args() { // rate_limit_policy in subjects is RateLimitPolicy in events
		filters = append(filters, "marchproxy.config.v1.resource."+token+".*")
		kind := ""
		for word := range strings.SplitSeq(token, "_") {
			kind += strings.ToUpper(word[:1]) + word[1:]
		}
		f.kinds = append(f.kinds, kind)
	}
	nc, err := nats.Connect(*url, nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	for fresh := len(raw) == 0; ctx.Err() == nil; fresh = true {
		if err := f.follow(ctx, js, *durable, filters, fresh); err != nil && ctx.Err() == nil {
			log.Printf("reading everything again: %v", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
	}
}
