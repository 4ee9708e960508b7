// Package web is the recorder on HTTP: the API of nvr/design/api.md, recorded
// video as files with ranges, live video over WebSocket or in parts, what changes as events, and the page that
// uses them. It translates between requests and the store and decides nothing
// itself: what exists, what is kept and what is durable is the store's word,
// bytes of MP4 are package mp4's, the page is webui's.
//
// The way of a request:
//
//	headers, time limits ─► cross-origin check ─► Host ─► caller ─► row of routes ─► decide (who may do what) ─► handler
//
// A handler returns an error and fail makes it the answer: text for people,
// with the status of api.md rule 3. Live video alone says its errors inside
// the socket, because browsers hide what comes before it.
package web

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"holdfast/nvr/access"
	"holdfast/nvr/design"
	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// Config says what to serve, and to whom.
type Config struct {
	Store *store.Store
	Log   *slog.Logger // nil: no log

	// Access knows the users, and what callers may who have not signed in; nil:
	// nobody can sign in, and Anonymous says what callers may.
	Access *access.Access

	// Anonymous is what callers may do where there is no Access: "" nothing,
	// "view" see everything, "admin" change cameras too.
	Anonymous string

	// Hosts are names that the recorder goes by beside its addresses, localhost
	// and the name of the machine.
	Hosts []string

	// Proxies are whose X-Forwarded-For and X-Forwarded-Proto are believed.
	Proxies []netip.Prefix

	// TLS is the listener for it; nil: there is none.
	TLS *TLS

	// TryStream plays a stream for a few seconds and measures it; an error says
	// what is wrong and what to do, without passwords, and the cause is that of the
	// gap which it would make. It ends with ctx. nil: streams cannot be tried.
	TryStream func(ctx context.Context, src store.Source) (media.Measured, store.Cause, error)

	// UI answers what is not the API; nil answers 404.
	UI http.Handler

	// Version is that of the program.
	Version string

	// Machine is the appliance around the recorder; nil on any other machine.
	Machine *Machine

	// Now is the wall clock; nil is time.Now. Nothing waits by it.
	Now func() time.Time
}

// contentPolicy is that of what is no page: nothing may be loaded by it.
const contentPolicy = "default-src 'none'; frame-ancestors 'none'"

// Limits of one request.
const (
	answerTime = 30 * time.Second // to take in an answer that is not video
	bodyTime   = 10 * time.Second // to send a body
	maxBody    = 64 << 10         // bytes of a body
)

type server struct {
	Config
	log      *slog.Logger
	hostName string   // of the machine
	names    []string // that the recorder goes by
	versions versions
	films    share         // recordings in files that are sent
	lists    share         // rows
	tails    share         // bytes of samples in memory, in files that are sent
	sending  sending       // groups of pictures
	trying   chan struct{} // holds one for each stream that is tried

	lookEvery time.Duration // how often a viewer to whom nothing comes is looked for

	followers followers
	boundary  string       // of parts of live video
	encoded   atomic.Int64 // messages of live video that were made

	someMetrics, allMetrics http.Handler // without those of streams, and with them
}

// New returns the handler of everything the recorder serves. It panics when
// cfg.Anonymous is none of its values.
func New(cfg Config) http.Handler { return newServer(cfg).handler() }

func newServer(cfg Config) *server {
	switch cfg.Anonymous {
	case "", "view", "admin":
	default:
		panic("web: Anonymous is " + cfg.Anonymous)
	}
	s := &server{
		Config: cfg, log: cfg.Log, trying: make(chan struct{}, mostTried), lookEvery: stillEvery,
		films: newShare(mostServed, alwaysTaken), lists: newShare(mostListed, alwaysRows),
		tails:   newShare(mostInMemory, alwaysInMemory),
		sending: sending{most: mostLate, mostOne: mostLateOne},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.Now == nil {
		s.Now = time.Now
	}

	if m := cfg.Machine; m != nil {
		shown := *m // with lists that JSON shows as lists when they are empty
		shown.Resets, shown.Restarts = append([]Ended{}, m.Resets...), append([]Ended{}, m.Restarts...)
		s.Machine = &shown
	}
	s.someMetrics, s.allMetrics = metricsHandler(s.Store, false), metricsHandler(s.Store, true)
	s.boundary = rand.Text()
	s.hostName, _ = os.Hostname()
	s.names = Names(s.Hosts)
	return s
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	rows := make(map[string]methods)
	for _, row := range routes {
		if row.users && s.Access == nil {
			continue
		}
		if rows[row.pattern] == nil {
			rows[row.pattern] = make(methods)
			mux.Handle(row.pattern, rows[row.pattern])
		}
		rows[row.pattern][row.method] = s.handle(row)
	}
	mux.Handle("/api/", s.handle(route{action: access.LookAround, serve: func(*server, http.ResponseWriter, *http.Request) error {
		return &httpError{http.StatusNotFound, "the API has no such path"}
	}}))
	ui := s.UI
	if ui == nil {
		ui = http.NotFoundHandler()
	}
	mux.Handle("/", s.page(ui))
	guarded := http.NewCrossOriginProtection().Handler(s.guard(s.exact(mux)))

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if s.TLS != nil {
			s.TLS.promise(h, r)
		}
		// The page sets a policy of its own; nothing else is a document.
		h.Set("Content-Security-Policy", contentPolicy)
		rc := http.NewResponseController(w)
		// Each request sets it anew. A ResponseRecorder of a test has none.
		_ = rc.SetWriteDeadline(time.Now().Add(answerTime))
		limitBody(w, r)
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		defer s.tellPanic(r)
		guarded.ServeHTTP(w, r)
	})
}

// tellPanic logs that a handler panicked. net/http would keep the recorder going
// and tell only the log of what clients do wrong.
func (s *server) tellPanic(r *http.Request) {
	switch p := recover(); p {
	case nil:
	case http.ErrAbortHandler: // the connection is to be cut
		panic(p)
	default:
		s.log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
		panic(http.ErrAbortHandler)
	}
}

// Server returns a server with the limits that strangers on the network call
// for; that on their number is of its listener, see Limit. It has no limit on the time of a whole answer, which may be a download
// of hours; the handlers of New set theirs. Requests, live video among them,
// end when ctx does. It speaks HTTP/1.1 alone: of HTTP/2 each connection is
// hundreds of requests, which nothing would limit.
func Server(ctx context.Context, h http.Handler, log *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },

		// It would read the body of OPTIONS * with no limit of time.
		DisableGeneralOptionsHandler: true,

		Protocols: protocols,
	}
}

// route is one row of the table below: what is served, and what a caller must
// be allowed to do before it is. A pattern with {uuid} is of the camera of that
// uuid, any other of the recorder as a whole.
type route struct {
	method, pattern string
	action          access.Action

	// public rows answer everybody; what they say to whom is their own concern.
	// inside says that the handler asks decide itself, so as to answer in its own
	// way. users rows are there only where there can be users.
	public, inside, users bool

	serve func(*server, http.ResponseWriter, *http.Request) error
}

// routes are all of them, but for the user interface.
var routes = []route{
	{method: "GET", pattern: "/healthz", public: true, serve: (*server).health},
	{method: "GET", pattern: "/metrics", public: true, serve: (*server).metrics},
	{method: "GET", pattern: "/ca.pem", public: true, serve: (*server).authority},

	{method: "GET", pattern: "/api/openapi.yaml", action: access.LookAround, serve: (*server).description},
	{method: "GET", pattern: "/api/{$}", action: access.LookAround, serve: (*server).top},
	{method: "GET", pattern: "/api/timeline", action: access.LookAround, serve: (*server).timeline},
	{method: "GET", pattern: "/api/events", action: access.LookAround, serve: (*server).events},
	{method: "POST", pattern: "/api/cameras/{$}", action: access.Administer, serve: (*server).addCamera},
	{method: "GET", pattern: "/api/cameras/{uuid}/{$}", action: access.LookAround, serve: (*server).camera},
	{method: "PATCH", pattern: "/api/cameras/{uuid}/{$}", action: access.Administer, serve: (*server).changeCamera},
	{method: "DELETE", pattern: "/api/cameras/{uuid}/{$}", action: access.Administer, serve: (*server).deleteCamera},
	{method: "DELETE", pattern: "/api/cameras/{uuid}/{stream}/{$}", action: access.Administer, serve: (*server).deleteStream},
	{method: "GET", pattern: "/api/cameras/{uuid}/{stream}/recordings", action: access.ViewRecorded, serve: (*server).recordings},
	{method: "GET", pattern: "/api/cameras/{uuid}/{stream}/gaps", action: access.ViewRecorded, serve: (*server).gaps},
	{method: "GET", pattern: "/api/cameras/{uuid}/{stream}/view.mp4", action: access.ViewRecorded, serve: view{}.serve},
	{method: "GET", pattern: "/api/cameras/{uuid}/{stream}/view.mp4.txt", action: access.ViewRecorded, serve: view{text: true}.serve},
	{method: "GET", pattern: "/api/cameras/{uuid}/{stream}/view.m4s", action: access.ViewRecorded, serve: view{segment: true}.serve},
	{method: "GET", pattern: "/api/cameras/{uuid}/{stream}/view.m4s.txt", action: access.ViewRecorded, serve: view{segment: true, text: true}.serve},
	{method: "GET", pattern: "/api/cameras/{uuid}/{stream}/live.m4s", action: access.ViewLive, inside: true, serve: (*server).live},
	{method: "POST", pattern: "/api/cameras/{uuid}/{stream}/live-ticket", action: access.ViewLive, users: true, serve: (*server).liveTicket},
	{method: "GET", pattern: "/api/dirs/{$}", action: access.Administer, serve: (*server).listDirs},
	{method: "POST", pattern: "/api/dirs/{$}", action: access.Administer, serve: (*server).addDir},
	{method: "DELETE", pattern: "/api/dirs/{dir}", action: access.Administer, serve: (*server).deleteDir},
	{method: "GET", pattern: "/api/signals", action: access.LookAround, serve: (*server).signals},
	{method: "POST", pattern: "/api/signals", action: access.Administer, serve: (*server).updateSignals},
	{method: "POST", pattern: "/api/test-stream", action: access.Administer, serve: (*server).testStream},
	{method: "GET", pattern: "/api/init/{file}", action: access.ViewVideo, serve: (*server).initSegment},

	{method: "POST", pattern: "/api/login", public: true, users: true, serve: (*server).login},
	{method: "POST", pattern: "/api/logout", public: true, users: true, serve: (*server).logout},
	{method: "GET", pattern: "/api/claim", public: true, users: true, serve: (*server).claimState},
	{method: "POST", pattern: "/api/claim", public: true, users: true, serve: (*server).claimIt},
	{method: "GET", pattern: "/api/request", action: access.LookAround, users: true, serve: (*server).request},
	{method: "GET", pattern: "/login", public: true, users: true, serve: (*server).loginPage},
	{method: "POST", pattern: "/login", public: true, users: true, serve: (*server).loginForm},
	{method: "POST", pattern: "/logout", public: true, users: true, serve: (*server).logoutForm},
	{method: "GET", pattern: "/claim", public: true, users: true, serve: (*server).claimPage},
	{method: "POST", pattern: "/claim", public: true, users: true, serve: (*server).claimForm},

	// Users may see to themselves: package access decides by the user loaded.
	{method: "GET", pattern: "/api/users/{$}", action: access.Administer, users: true, serve: (*server).listUsers},
	{method: "POST", pattern: "/api/users/{$}", action: access.Administer, users: true, serve: (*server).addUser},
	{method: "GET", pattern: "/api/users/{user}", action: access.LookAround, users: true, serve: (*server).oneUser},
	{method: "PATCH", pattern: "/api/users/{user}", action: access.LookAround, users: true, serve: (*server).changeUser},
	{method: "DELETE", pattern: "/api/users/{user}", action: access.Administer, users: true, serve: (*server).deleteUser},
	{method: "GET", pattern: "/api/users/{user}/sessions", action: access.LookAround, users: true, serve: (*server).listSessions},
	{method: "DELETE", pattern: "/api/users/{user}/sessions", action: access.LookAround, users: true, serve: (*server).revoke},
	{method: "DELETE", pattern: "/api/users/{user}/sessions/{session}", action: access.LookAround, users: true, serve: (*server).revoke},
	{method: "POST", pattern: "/api/users/{user}/tokens", action: access.LookAround, users: true, serve: (*server).addToken},
}

// permissions are those of the caller, as GET /api/ shows them.
type permissions struct {
	ViewVideo         bool `json:"viewVideo"`
	ReadCameraConfigs bool `json:"readCameraConfigs"`
	AdminCameras      bool `json:"adminCameras"`
	AdminUsers        bool `json:"adminUsers"`
}

func (s *server) permissions(r *http.Request) permissions {
	c := callerOf(r)
	admin := c.May(access.Administer, 0)
	return permissions{
		ViewVideo: c.May(access.ViewVideo, 0), ReadCameraConfigs: admin, AdminCameras: admin, AdminUsers: admin && s.Access != nil,
	}
}

// httpError is an answer that refuses. text is for people.
type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return e.text }

func badRequest(format string, args ...any) error {
	return &httpError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// methods answers a path by the method of the request. GET answers HEAD too.
type methods map[string]http.Handler

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h, ok := m[method]; ok {
		h.ServeHTTP(w, r)
		return
	}
	allow := slices.Collect(maps.Keys(m))
	if _, ok := m[http.MethodGet]; ok {
		allow = append(allow, http.MethodHead)
	}
	slices.Sort(allow)
	w.Header().Set("Allow", strings.Join(allow, ", "))
	http.Error(w, r.URL.Path+" does not take "+r.Method, http.StatusMethodNotAllowed)
}

// handle makes a handler of a row.
func (s *server) handle(row route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private, no-cache")
		w.Header().Set("Vary", "Cookie, Authorization") // another user of a browser does not get what it kept
		var err error
		if !row.public {
			err = callerOf(r).refused
		}
		if err == nil && !row.public && !row.inside {
			var c *store.Camera
			if c, err = s.decide(r, row.action); err == nil && c != nil {
				r = r.WithContext(context.WithValue(r.Context(), cameraKey{}, c))
			}
		}
		if err == nil && row.method == http.MethodDelete {
			err = readBodyOfDelete(r)
		}
		if err == nil {
			err = row.serve(s, w, r)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	})
}

// exact refuses what is to change something by a path without the slash at its
// end. A mux sends that elsewhere, where programs that do not follow would
// believe that it was done.
func (s *server) exact(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !strings.HasSuffix(r.URL.Path, "/") {
			if _, pattern := mux.Handler(r); strings.HasSuffix(pattern, "/{$}") {
				s.fail(w, r, &httpError{http.StatusNotFound, fmt.Sprintf("there is no such path: write %s/", r.URL.Path)})
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}

// fail answers with an error. Handlers call it through handle, before they
// have written anything.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, text := s.refusal(r, err)
	withoutVideo(w.Header())
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	retryAfter(w, err)
	http.Error(w, text, status)
}

// withoutVideo takes back what a handler had said of an answer before it came to
// refuse.
func withoutVideo(h http.Header) {
	for _, name := range []string{"ETag", "Last-Modified", "Content-Disposition", "Content-Length", "Accept-Ranges",
		"X-Prev-Media-Duration", "X-Media-Start", "X-Leading-Media-Duration", "X-Runs", "X-Video-Sample-Entry-Id", "X-Audio-Sample-Entry-Id"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Content-Security-Policy", contentPolicy)
}

// refusal is the status and the text of an error (api.md rule 3).
func (s *server) refusal(r *http.Request, err error) (int, string) {
	var refused *httpError
	var config *store.ConfigError
	var large *http.MaxBytesError
	var used *store.InUseError
	if status, text, ok := accessError(err); ok {
		return status, text
	}
	switch {
	case errors.As(err, &refused):
		return refused.status, refused.text
	case errors.As(err, &config):
		return http.StatusBadRequest, config.Error()
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", large.Limit)
	case errors.Is(err, store.ErrNotFound):
		return http.StatusNotFound, err.Error()
	case errors.As(err, &used):
		return http.StatusConflict, used.Error()
	case errors.Is(err, store.ErrPrecondition):
		return http.StatusPreconditionFailed, err.Error()
	case r.Context().Err() != nil:
		return http.StatusServiceUnavailable, "the request was given up"
	}
	// What went wrong in here may name files and is for the log.
	s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	return http.StatusInternalServerError, "the recorder could not answer; its log says why"
}

// Machine is what the appliance says of itself at the recorder's start. The
// recorder shows it and does nothing about it.
type Machine struct {
	Board    string  `json:"board"`
	Version  string  `json:"version"`  // of the image
	Watchdog string  `json:"watchdog"` // the hardware that resets a machine that hangs, or "none: why"
	Resets   []Ended `json:"resets"`   // that nobody ordered, newest first
	Restarts []Ended `json:"restarts"` // of the recorder since the machine's start, newest first
}

// Ended is one end of the machine or of the recorder.
type Ended struct {
	Time   string `json:"time,omitempty"` // RFC 3339; absent when the clock was not set
	Reason string `json:"reason"`
}

// description serves the page that says what the API is, to programs.
func (s *server) description(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = io.WriteString(w, design.OpenAPI()) // the caller has gone: nobody to tell
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the caller has gone: nobody to tell
	return nil
}

// writeList writes {"name": [rows]} row by row: as one text, a long list would take
// as much memory again. rest is an object with the fields beside it; nil: none.
func writeList[T any](w http.ResponseWriter, r *http.Request, name string, rows []T, rest any) error {
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(newPatient(w, r), patientPiece)
	fmt.Fprintf(out, `{%q:[`, name)
	for i := range rows {
		if i > 0 {
			out.WriteByte(',')
		}
		b, err := json.Marshal(&rows[i])
		if err != nil {
			return err
		}
		if _, err := out.Write(b); err != nil {
			return nil // the caller has gone: nobody to tell
		}
	}
	out.WriteByte(']')
	if rest != nil {
		b, err := json.Marshal(rest)
		if err != nil {
			return err
		}
		out.WriteByte(',')
		out.Write(bytes.TrimSuffix(b[1:], []byte("}")))
	}
	out.WriteString("}\n")
	_ = out.Flush()
	return nil
}

// parameters returns the query of a request, which must hold no other names
// than those, each of single at most once.
func parameters(r *http.Request, single []string, many ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("query: %v", err)
	}
	for name, values := range q {
		switch {
		case slices.Contains(many, name):
		case !slices.Contains(single, name):
			return nil, badRequest("unknown parameter %q", name)
		case len(values) > 1:
			return nil, badRequest("parameter %s is given %d times", name, len(values))
		}
	}
	return q, nil
}
