// Package facade is the xDS server's HTTP door: POST /v1/config takes a whole configuration in a few
// words, as the integration guide has it, and makes it real through the api, so that it is stored,
// versioned and published like any other write. It replaces what this door has written before, and
// nothing else.
package facade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/guide"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/tracing"
)

// Owner is the owner of what this door writes.
const Owner = "xds-config"

// MaxBody is the largest document, in bytes.
const MaxBody = 64 << 20

// defaultWait is how long a POST waits for the Envoys where it does not say; ?timeout= does.
const defaultWait = 10 * time.Second

// patience is how long the api may take beside the wait for the Envoys.
const patience = 20 * time.Second

// Api is the api's POST /v1/apply.
type Api interface {
	// Ask says whether a caller may apply something: a status below 300, or the refusal.
	Ask(ctx context.Context, authorization, remote string) (status int, reply []byte, err error)
	// Apply sends a body there with the caller's Authorization header, for the api to judge, and address; wait 0 asks not
	// to wait. The reply is its HTTP status and body.
	Apply(
		ctx context.Context, body []byte, authorization, remote string, wait time.Duration,
	) (status int, reply []byte, err error)
}

// View is what this server knows by itself.
type View interface {
	// Head is the revision served and the one that every connected Envoy has applied; not ok before the
	// configuration has been read.
	Head() (revision, live int64, ok bool)
	// Proxies counts the connected Envoys.
	Proxies() int
}

// Memory keeps the last accepted document.
type Memory interface {
	Version() string
	// Accepted takes a document that became a revision. It may come after a later one: of documents that were posted
	// together the api's answers come in any order.
	Accepted(status.Document)
}

// Handler serves the door.
type Handler struct {
	api    Api
	view   View
	memory Memory
	log    *zap.Logger
	mux    *http.ServeMux
}

// New returns the handler of /v1/config, /v1/version and /healthz.
func New(api Api, view View, memory Memory, log *zap.Logger) *Handler {
	h := &Handler{api: api, view: view, memory: memory, log: log, mux: http.NewServeMux()}
	h.mux.HandleFunc("POST /v1/config", traced(h.config))
	h.mux.HandleFunc("GET /v1/version", h.version)
	h.mux.HandleFunc("GET /healthz", h.health)
	return h
}

// traced makes a span of a document, of which what the api does with it is a part.
func traced(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r, span := tracing.Serve(r, "POST /v1/config")
		defer span.End()
		next(w, r)
	}
}

// ServeHTTP serves the door.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// answer is the reply to an accepted document.
type answer struct {
	Status   string `json:"status"`
	Version  string `json:"version"`
	Revision int64  `json:"revision"`
	Live     bool   `json:"live"`
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	Proxies  int32  `json:"proxies"`
	Changes  int    `json:"changes"`
}

// applied is what is read of the api's reply.
type applied struct {
	Epoch    string            `json:"epoch"`
	Revision int64             `json:"revision"`
	Changes  []json.RawMessage `json:"changes"`
	Live     struct {
		Live    bool   `json:"live"`
		State   string `json:"state"`
		Reason  string `json:"reason"`
		Proxies int32  `json:"proxies"`
	} `json:"live"`
}

type problem struct {
	Type   string              `json:"type"`
	Title  string              `json:"title"`
	Status int                 `json:"status"`
	Detail string              `json:"detail,omitempty"`
	Errors resource.Violations `json:"errors,omitempty"`
}

func (h *Handler) config(w http.ResponseWriter, r *http.Request) {
	wait, query := defaultWait, r.URL.Query()
	if t := query.Get("timeout"); t != "" {
		d, err := time.ParseDuration(t)
		if err != nil || d < 0 || d > time.Minute {
			fail(w, http.StatusBadRequest, `timeout must be a duration from 0s to 60s, such as "5s"`, nil)
			return
		}
		wait = d
	}
	// The caller's right is asked for before the document is read: reading it takes many times its size in memory, which
	// nobody is to take up without a right.
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	switch status, reply, err := h.api.Ask(ctx, r.Header.Get("Authorization"), r.RemoteAddr); {
	case err != nil:
		h.away(w, err, "so nothing can be stored; what is live stays live. Nothing has changed")
		return
	case status >= 300:
		h.refused(w, status, reply, &guide.Document{})
		return
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			fail(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the document is larger than %d MiB", MaxBody>>20), nil)
			return
		}
		fail(w, http.StatusBadRequest, "the body could not be read", nil)
		return
	}
	const refused = "the document was not applied; nothing has changed"
	doc, found := guide.Parse(raw)
	if len(found) > 0 {
		fail(w, http.StatusBadRequest, refused, found)
		return
	}
	for name, set := range map[string]*bool{"allow_empty": &doc.AllowEmpty, "take_over": &doc.TakeOver} {
		switch query.Get(name) {
		case "true":
			*set = true
		case "", "false":
		default:
			fail(w, http.StatusBadRequest, name+" must be true or false", nil)
			return
		}
	}
	if found := doc.Check(); len(found) > 0 {
		fail(w, http.StatusUnprocessableEntity, refused, found)
		return
	}
	raw, err = body(&doc)
	if err != nil {
		fail(w, http.StatusUnprocessableEntity, err.Error(), nil)
		return
	}
	h.apply(w, r, &doc, raw, wait)
}

func body(d *guide.Document) ([]byte, error) {
	resources, err := d.Resources()
	if err != nil {
		return nil, err
	}
	message := "configuration document"
	if d.Version != "" {
		message += ", version " + strconv.Quote(d.Version)
	}
	if len(message) > 1024 {
		return nil, errors.New("version is longer than 1000 characters")
	}
	return json.Marshal(map[string]any{
		"owner": Owner, "prune": true, "take_over": d.TakeOver, "allow_empty": d.AllowEmpty, "message": message,
		"resources": resources,
	})
}

func (h *Handler) apply(w http.ResponseWriter, r *http.Request, doc *guide.Document, body []byte, wait time.Duration) {
	ctx, cancel := context.WithTimeout(r.Context(), wait+patience)
	defer cancel()
	code, reply, err := h.api.Apply(ctx, body, r.Header.Get("Authorization"), r.RemoteAddr, wait)
	if err != nil {
		h.away(w, err, "so nothing can be stored; what is live stays live. Whether this document was stored is unknown: "+
			"post it again")
		return
	}
	if code >= 300 {
		h.refused(w, code, reply, doc)
		return
	}
	var a applied
	if err := json.Unmarshal(reply, &a); err != nil {
		h.log.Error("the api's answer cannot be read", zap.Error(err))
		fail(w, http.StatusBadGateway, "the api's answer cannot be read", nil)
		return
	}
	version := doc.Version
	if version == "" {
		version = strconv.FormatInt(a.Revision, 10)
	}
	h.memory.Accepted(status.Document{
		Version: version, Epoch: a.Epoch, Revision: a.Revision, At: resource.Time(time.Now()),
	})
	write(w, code, "application/json", answer{
		Status: "success", Version: version, Revision: a.Revision, Live: a.Live.Live, State: a.Live.State,
		Reason: a.Live.Reason, Proxies: a.Live.Proxies, Changes: len(a.Changes),
	})
}

// away says that the api does not answer.
func (h *Handler) away(w http.ResponseWriter, err error, so string) {
	h.log.Warn("the api does not answer", zap.Error(err))
	w.Header().Set("Retry-After", "1")
	fail(w, http.StatusServiceUnavailable, "the api does not answer, "+so, nil)
}

// refused hands the api's refusal on, in the document's words.
func (h *Handler) refused(w http.ResponseWriter, status int, reply []byte, doc *guide.Document) {
	var p problem
	if err := json.Unmarshal(reply, &p); err != nil || p.Status == 0 {
		p = problem{Detail: "the api refused the document"}
	}
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	for i := range p.Errors {
		p.Errors[i].Path = doc.Back(p.Errors[i].Path)
	}
	fail(w, status, p.Detail, p.Errors)
}

func (h *Handler) version(w http.ResponseWriter, _ *http.Request) {
	revision, live, ok := h.view.Head()
	if !ok {
		fail(w, http.StatusServiceUnavailable, "the configuration has not been read yet", nil)
		return
	}
	version := h.memory.Version()
	if version == "" {
		version = strconv.FormatInt(revision, 10)
	}
	write(w, http.StatusOK, "application/json", map[string]any{
		"version": version, "revision": revision, "live_revision": live, "live": live >= revision,
		"proxies": h.view.Proxies(),
	})
}

func (h *Handler) health(w http.ResponseWriter, _ *http.Request) {
	if _, _, ok := h.view.Head(); !ok {
		fail(w, http.StatusServiceUnavailable, "the configuration has not been read yet", nil)
		return
	}
	write(w, http.StatusOK, "application/json", map[string]string{"status": "healthy"})
}

func fail(w http.ResponseWriter, status int, detail string, found resource.Violations) {
	write(w, status, "application/problem+json", problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Errors: found.First(),
	})
}

func write(w http.ResponseWriter, status int, contentType string, v any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody is left to tell
}
