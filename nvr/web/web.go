// Package web is the recorder on HTTP: the API of nvr/design/api.md, recorded
// video as files with ranges, live video over WebSocket, and the page that
// uses them. It translates between requests and the store and decides nothing
// itself: what exists, what is kept and what is durable is the store's word,
// bytes of MP4 are package mp4's, the page is webui's.
//
// The way of a request:
//
//	cross-origin check ─► headers, time limits ─► route ─► may (the one decision who may do what) ─► handler
//
// A handler returns an error and fail makes it the answer: text for people,
// with the status of api.md rule 3. Live video alone says its errors inside
// the socket, because browsers hide what comes before it.
package web

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"holdfast/nvr/store"
)

// Config says what to serve, and to whom.
type Config struct {
	Store *store.Store
	Log   *slog.Logger // nil: no log

	// Anonymous is what callers may do without signing in: "" nothing, "view"
	// see everything, "admin" change cameras too.
	Anonymous string

	// UI answers what is not the API; nil answers 404.
	UI http.Handler

	// Version is that of the program.
	Version string

	// Machine is the appliance around the recorder; nil on any other machine.
	Machine *Machine

	// Now is the wall clock; nil is time.Now. Nothing waits by it.
	Now func() time.Time
}

// Limits of one request.
const (
	answerTime = 30 * time.Second // to take in an answer that is not video
	bodyTime   = 10 * time.Second // to send a body
	maxBody    = 64 << 10         // bytes of a body
)

type server struct {
	Config
	log      *slog.Logger
	versions versions
}

// New returns the handler of everything the recorder serves. It panics when
// cfg.Anonymous is none of its values.
func New(cfg Config) http.Handler {
	switch cfg.Anonymous {
	case "", "view", "admin":
	default:
		panic("web: Anonymous is " + cfg.Anonymous)
	}
	s := &server{Config: cfg, log: cfg.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.Now == nil {
		s.Now = time.Now
	}

	mux := http.NewServeMux()
	mux.Handle("/healthz", methods{"GET": http.HandlerFunc(s.health)})
	mux.Handle("/metrics", methods{"GET": s.metrics()})
	mux.Handle("/api/{$}", methods{"GET": s.handle(lookAround, s.top)})
	mux.Handle("/api/cameras/{$}", methods{"POST": s.handle(adminCameras, s.addCamera)})
	mux.Handle("/api/cameras/{uuid}/{$}", methods{
		"GET":    s.handle(lookAround, s.camera),
		"DELETE": s.handle(adminCameras, s.deleteCamera),
	})
	mux.Handle("/api/cameras/{uuid}/{stream}/recordings", methods{"GET": s.handle(viewVideo, s.recordings)})
	mux.Handle("/api/cameras/{uuid}/{stream}/gaps", methods{"GET": s.handle(viewVideo, s.gaps)})
	mux.Handle("/api/cameras/{uuid}/{stream}/view.mp4", methods{"GET": s.view(view{})})
	mux.Handle("/api/cameras/{uuid}/{stream}/view.mp4.txt", methods{"GET": s.view(view{text: true})})
	mux.Handle("/api/cameras/{uuid}/{stream}/view.m4s", methods{"GET": s.view(view{segment: true})})
	mux.Handle("/api/cameras/{uuid}/{stream}/view.m4s.txt", methods{"GET": s.view(view{segment: true, text: true})})
	mux.Handle("/api/cameras/{uuid}/{stream}/live.m4s", methods{"GET": http.HandlerFunc(s.live)})
	mux.Handle("/api/init/{file}", methods{"GET": s.handle(viewVideo, s.initSegment)})
	mux.Handle("/api/", s.handle(lookAround, func(http.ResponseWriter, *http.Request) error {
		return &httpError{http.StatusNotFound, "the API has no such path"}
	}))
	ui := cfg.UI
	if ui == nil {
		ui = http.NotFoundHandler()
	}
	mux.Handle("/", ui)

	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		// The page sets a policy of its own; nothing else is a document.
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		rc := http.NewResponseController(w)
		// Each request sets it anew. A ResponseRecorder of a test has none.
		_ = rc.SetWriteDeadline(time.Now().Add(answerTime))
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	}))
}

// Server returns a server with the limits that strangers on the network call
// for. It has no limit on the time of a whole answer, which may be a download
// of hours; the handlers of New set theirs. Requests, live video among them,
// end when ctx does.
func Server(ctx context.Context, h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
}

// action is what a caller wants to do.
type action int

const (
	lookAround   action = iota // see which cameras there are and how they do
	viewVideo                  // list and see video
	adminCameras               // add and delete cameras, read their configuration
)

// may decides whether a caller may do a thing. Every route asks it; there is
// no second place. Users will be asked for here.
func (s *server) may(_ *http.Request, a action) error {
	switch {
	case s.Anonymous == "" && s.Machine != nil: // where nobody gives flags
		return &httpError{http.StatusUnauthorized, "there are no users on this device yet, so nobody can sign in: " +
			"it shows no video and takes no camera until a version with users is installed"}
	case s.Anonymous == "":
		return &httpError{http.StatusUnauthorized, "nobody can sign in yet, and this recorder was not told to serve everybody: " +
			"start it with -allow-anonymous view (see everything) or -allow-anonymous admin (change cameras too)"}
	case a == adminCameras && s.Anonymous != "admin":
		return &httpError{http.StatusForbidden, "this recorder lets everybody look and nobody change cameras: " +
			"start it with -allow-anonymous admin to change them"}
	}
	return nil
}

// permissions are those of the caller, as GET /api/ shows them.
type permissions struct {
	ViewVideo         bool `json:"viewVideo"`
	ReadCameraConfigs bool `json:"readCameraConfigs"`
	AdminCameras      bool `json:"adminCameras"`
}

func (s *server) permissions(r *http.Request) permissions {
	return permissions{
		ViewVideo:         s.may(r, viewVideo) == nil,
		ReadCameraConfigs: s.may(r, adminCameras) == nil,
		AdminCameras:      s.may(r, adminCameras) == nil,
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
	w.Header().Set("Allow", strings.Join(slices.Sorted(maps.Keys(m)), ", "))
	http.Error(w, r.URL.Path+" does not take "+r.Method, http.StatusMethodNotAllowed)
}

// handle makes a route of a handler that returns its error.
func (s *server) handle(a action, h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private, no-cache")
		err := s.may(r, a)
		if err == nil {
			err = h(w, r)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	})
}

// fail answers with an error. Handlers call it through handle, before they
// have written anything.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, text := s.refusal(r, err)
	for _, name := range []string{"ETag", "Last-Modified", "Content-Disposition", "Content-Length"} {
		w.Header().Del(name)
	}
	w.Header().Set("Cache-Control", "private, no-cache")
	http.Error(w, text, status)
}

// refusal is the status and the text of an error (api.md rule 3).
func (s *server) refusal(r *http.Request, err error) (int, string) {
	var refused *httpError
	var config *store.ConfigError
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &refused):
		return refused.status, refused.text
	case errors.As(err, &config):
		return http.StatusBadRequest, config.Error()
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", large.Limit)
	case errors.Is(err, store.ErrNotFound):
		return http.StatusNotFound, err.Error()
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

// health says whether the recorder can record, what does not, and how the
// machine fared. A camera that is away is no fault of the recorder. Which
// stream it is, is for those who may look.
func (s *server) health(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	faults := s.Store.DirFaults()
	if len(faults) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	for _, f := range faults {
		fmt.Fprintln(w, f)
	}
	var wanted, toAdopt int
	var missing []string
	for _, c := range s.Store.Cameras() {
		for _, st := range c.Streams {
			in := st.Info()
			toAdopt += in.ToAdopt
			if !in.Record {
				continue
			}
			wanted++
			if in.State.Phase != store.Recording {
				missing = append(missing, fmt.Sprintf("not recording: %s %s: %s", c.Name, in.Type, cmp.Or(in.State.Reason, in.State.Phase)))
			}
		}
	}
	fmt.Fprintf(w, "the store is open\nstreams: %d of %d record\n", wanted-len(missing), wanted)
	if toAdopt > 0 {
		fmt.Fprintf(w, "files of before the start to be adopted: %d\n", toAdopt)
	}
	if s.may(r, lookAround) == nil {
		for _, m := range missing {
			fmt.Fprintln(w, m)
		}
	}
	m := s.Machine
	if m == nil {
		return
	}
	fmt.Fprintf(w, "board: %s, image %s\nwatchdog: %s\n", m.Board, m.Version, m.Watchdog)
	for _, r := range m.Resets {
		fmt.Fprintf(w, "reset: %s\n", strings.TrimSpace(r.Time+" "+r.Reason))
	}
	for _, r := range m.Restarts {
		fmt.Fprintf(w, "recorder started again: %s\n", strings.TrimSpace(r.Time+" "+r.Reason))
	}
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
