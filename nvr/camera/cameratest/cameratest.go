// Package cameratest is an emulated camera: an RTSP server that plays fixtures
// in real time for ever, and goes wrong when told to.
//
// It is for the tests of everything that records, for the demo, and for
// `nvr camera`. It knows nothing of the recorder but package media, and it does
// not judge: what a recorder has to make of a fault stands in the recorder's
// tests. It belongs here when a real camera does it on the wire.
//
// A server has one or more cameras, each with a main and a sub stream:
//
//	rtsp://host:port/main  /sub          the first camera
//	rtsp://host:port/1/main  /1/sub      the same
//	rtsp://host:port/2/main  /2/sub  …   the others
//
// A stream runs from the start of the server whether or not anyone watches, so
// its pictures are numbered by the clock. Before each picture stands a Mark
// with that number, before each key picture the parameter sets as well. A
// viewer joins at a key picture:
//
//	[delimiter] [VPS] SPS PPS  mark  slice …      a key picture
//	[delimiter]                mark  slice …      another
//
// Pictures go out in decode order, RTP timestamps are those of presentation.
// The audio is a loop of its own. Both tracks begin again when their loop ends
// and their timestamps go on evenly.
//
// From the marks, Fixture.Verify proves that a recording holds what was sent.
// Over a Pipe the whole camera runs in a testing/synctest bubble; Close leaves
// no goroutine.
package cameratest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/auth"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/liberrors"
)

// AuthMethod is a way to prove a password.
type AuthMethod uint8

// The methods of RTSP.
const (
	Basic AuthMethod = iota
	Digest
	DigestSHA256
)

// Config says what a server serves. The zero value is one camera on a free
// port of 127.0.0.1 that asks for no password.
type Config struct {
	// Listen is host:port. Port 0, or an empty string, takes a free one.
	Listen string
	// Cameras is how many; 0 means 1.
	Cameras int
	// Fixture is the name of a built-in fixture or the path of an MP4 file. A
	// built-in name plays NAME as main and NAME-sub as sub stream, a file as
	// both. Empty gives each camera the next of harbour, orchard and dunes.
	Fixture string
	// User and Password are asked for when User is not empty, by Auth (empty:
	// Basic and Digest).
	User, Password string
	Auth           []AuthMethod
	// Script is when what goes wrong; nil: nothing.
	Script *Script
	// Seed chooses everything that is random: the same seed and script do the
	// same. Timestamps and sequence numbers begin at random values.
	Seed uint64
	// UDP offers UDP beside TCP, on two free ports of the host in Listen.
	UDP bool
	// ListenFunc replaces net.Listen; (*Pipe).Listen fits.
	ListenFunc func(network, address string) (net.Listener, error)
	// Log gets a line for each fault and each viewer; nil: nothing.
	Log *slog.Logger
}

// Server is a running emulated camera, or several. Any goroutine may call it.
type Server struct {
	cfg     Config
	log     *slog.Logger
	started time.Time
	nonce   uint32
	rtsp    *gortsplib.Server
	gate    *gate
	methods []auth.VerifyMethod
	streams []*stream
	byPath  map[string]*stream
	plan    *plan
	wake    chan struct{}
	// oneSetup is held from OnSetup to the answer. Two viewers that set up the
	// same stream at once, one by UDP, would race in the library: it looks for
	// the ports in use in the other session while that one makes itself.
	oneSetup chan struct{}
	cancel   context.CancelFunc
	running  sync.WaitGroup
	closing  sync.Once

	mu      sync.Mutex
	inject  []Fault
	conns   map[*gortsplib.ServerConn]struct{}
	viewing map[*gortsplib.ServerSession]*stream
	setup   *gortsplib.ServerConn // whose SETUP holds oneSetup
	events  []Event
}

// Event is something that happened to a server.
type Event struct {
	Time   time.Time
	Path   string // of the stream, as "1/main"; empty: the whole server
	What   What
	Detail string
}

// What is the kind of an event.
type What string

// The events.
const (
	Connected    What = "connected"
	Disconnected What = "disconnected"
	LoginFailed  What = "login failed" // credentials came and were wrong
	Playing      What = "playing"
	Stopped      What = "stopped"
	Faulty       What = "fault"
)

// maxEvents is how many are kept.
const maxEvents = 20_000

// Start begins to serve. Fixtures are read first, so a wrong one opens no port.
func Start(cfg Config) (*Server, error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Cameras == 0 {
		cfg.Cameras = 1
	}
	if cfg.Cameras < 0 || cfg.Cameras > 1000 {
		return nil, fmt.Errorf("%d cameras: between 1 and 1000", cfg.Cameras)
	}
	if cfg.ListenFunc == nil {
		cfg.ListenFunc = net.Listen
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg, log: log,
		byPath:   make(map[string]*stream),
		wake:     make(chan struct{}, 1),
		oneSetup: make(chan struct{}, 1),
		conns:    make(map[*gortsplib.ServerConn]struct{}),
		viewing:  make(map[*gortsplib.ServerSession]*stream),
	}
	if err := s.addStreams(); err != nil {
		return nil, err
	}
	if err := s.checkScript(); err != nil {
		return nil, err
	}
	for _, m := range cfg.Auth {
		s.methods = append(s.methods, auth.VerifyMethod(m))
	}
	if s.methods == nil {
		s.methods = []auth.VerifyMethod{auth.VerifyMethodBasic, auth.VerifyMethodDigestMD5}
	}

	s.started = time.Now()
	s.nonce = uint32(s.started.UnixNano()) ^ uint32(s.started.UnixNano()>>32)
	s.plan = newPlan(cfg.Script, s.rng(0), func(l *Line) bool { return l.Fault.Kind == Refuse })

	s.rtsp = &gortsplib.Server{
		Handler:        (*handler)(s),
		RTSPAddress:    cfg.Listen,
		AuthMethods:    s.methods,
		WriteQueueSize: 4096, // packets: a picture of 5 MB at once
		Listen: func(network, address string) (net.Listener, error) {
			g, err := openGate(cfg.ListenFunc, network, address)
			s.gate = g
			return g, err
		},
	}
	if cfg.UDP {
		if err := s.offerUDP(); err != nil {
			return nil, err
		}
	}
	if err := s.rtsp.Start(); err != nil {
		return nil, fmt.Errorf("emulated camera: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	for _, st := range s.streams {
		if err := st.open(); err != nil {
			cancel()
			s.rtsp.Close()
			return nil, fmt.Errorf("emulated camera: %w", err)
		}
	}
	close(s.gate.ready) // a request that came before would find no stream
	for _, st := range s.streams {
		s.running.Go(func() { st.run(ctx) })
	}
	s.running.Go(func() { s.run(ctx) })
	return s, nil
}

func (s *Server) rng(stream uint32) *mathrand.Rand {
	return mathrand.New(mathrand.NewPCG(s.cfg.Seed, uint64(stream)))
}

// addStreams loads the fixtures, each once.
func (s *Server) addStreams() error {
	loaded := make(map[string]*Fixture)
	load := func(name string) (*Fixture, error) {
		if f := loaded[name]; f != nil {
			return f, nil
		}
		f, err := LoadFixture(name)
		if err != nil {
			return nil, err
		}
		loaded[name] = f
		return f, nil
	}
	for c := 1; c <= s.cfg.Cameras; c++ {
		name := s.cfg.Fixture
		if name == "" {
			name = []string{"harbour", "orchard", "dunes"}[(c-1)%3]
		}
		main, err := load(name)
		if err != nil {
			return err
		}
		sub := main
		if slices.Contains(Names(), name) {
			// The twin, made to stand for itself: the way back is the main stream.
			t := *main.twin
			t.twin = main
			if loaded[t.Name] == nil {
				loaded[t.Name] = &t
			}
			sub = loaded[t.Name]
		}
		for i, f := range []*Fixture{main, sub} {
			kind := []string{"main", "sub"}[i]
			st := newStream(s, uint32(2*c-1+i), fmt.Sprintf("%d/%s", c, kind), f)
			s.streams = append(s.streams, st)
			s.byPath[st.path] = st
			if c == 1 {
				s.byPath[kind] = st
			}
		}
	}
	return nil
}

func (s *Server) checkScript() error {
	if s.cfg.Script == nil {
		return nil
	}
	for _, l := range s.cfg.Script.Lines {
		for _, p := range l.Paths {
			if s.byPath[cleanPath(p)] == nil {
				return fmt.Errorf("script: %s: no stream %q", l.Fault, p)
			}
		}
	}
	return nil
}

// offerUDP opens the pair of ports itself, since the library takes no port 0
// and wants an even one with the next beside it.
func (s *Server) offerUDP() error {
	host, _, err := net.SplitHostPort(s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen address %s: %w", s.cfg.Listen, err)
	}
	for range 100 {
		rtp, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
		if err != nil {
			return fmt.Errorf("emulated camera: %w", err)
		}
		port := rtp.LocalAddr().(*net.UDPAddr).Port
		address := func(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
		if port%2 == 0 {
			if rtcp, err := net.ListenPacket("udp", address(port+1)); err == nil {
				s.rtsp.UDPRTPAddress, s.rtsp.UDPRTCPAddress = address(port), address(port+1)
				s.rtsp.ListenPacket = func(_, a string) (net.PacketConn, error) {
					if a == address(port) {
						return rtp, nil
					}
					return rtcp, nil
				}
				return nil
			}
		}
		rtp.Close()
	}
	return errors.New("emulated camera: no two UDP ports in a row are free")
}

// Close ends everything and waits for it. Viewers see their connections closed.
func (s *Server) Close() {
	s.closing.Do(func() {
		s.cancel()
		s.running.Wait()
		s.rtsp.Close()
		for _, st := range s.streams {
			st.rtsp.Close()
		}
	})
}

// Addr is the host:port it listens on.
func (s *Server) Addr() string { return s.gate.Addr().String() }

// URL returns the address of a stream, such as "main" or "2/sub", without
// credentials. A server that listens on every address is named by loopback.
func (s *Server) URL(path string) string {
	host := s.Addr()
	if a, ok := s.gate.Addr().(*net.TCPAddr); ok && a.IP.IsUnspecified() {
		host = net.JoinHostPort("127.0.0.1", strconv.Itoa(a.Port))
	}
	return "rtsp://" + host + "/" + cleanPath(path)
}

// Paths returns the streams as they are numbered: "1/main", "1/sub", "2/main" …
func (s *Server) Paths() []string {
	var out []string
	for _, st := range s.streams {
		out = append(out, st.path)
	}
	return out
}

// Fixture returns what a path plays, for Verify; nil when there is no such path.
func (s *Server) Fixture(path string) *Fixture {
	if st := s.byPath[cleanPath(path)]; st != nil {
		return st.home
	}
	return nil
}

// Stream returns the number by which marks name a path; 0: no such path.
func (s *Server) Stream(path string) uint32 {
	if st := s.byPath[cleanPath(path)]; st != nil {
		return st.id
	}
	return 0
}

// Frame returns the number that the next picture of a path will have.
func (s *Server) Frame(path string) uint64 {
	st := s.byPath[cleanPath(path)]
	if st == nil {
		return 0
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.frame
}

// Inject lets a fault happen now, on the named paths or on all. It panics on a
// path that does not exist.
func (s *Server) Inject(f Fault, paths ...string) {
	if f.Kind == Refuse {
		s.mu.Lock()
		s.inject = append(s.inject, f)
		s.mu.Unlock()
		nudge(s.wake)
		return
	}
	streams := s.streams
	if len(paths) > 0 {
		streams = nil
		for _, p := range paths {
			st := s.byPath[cleanPath(p)]
			if st == nil {
				panic("cameratest: no stream " + p)
			}
			streams = append(streams, st)
		}
	}
	for _, st := range streams {
		st.mu.Lock()
		st.inject = append(st.inject, f)
		st.mu.Unlock()
		nudge(st.wake)
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Events returns what happened so far, oldest first. Only the newest 20,000
// are kept.
func (s *Server) Events() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

func (s *Server) note(path string, what What, detail string) {
	s.mu.Lock()
	if len(s.events) >= maxEvents {
		s.events = slices.Delete(s.events, 0, maxEvents/2)
	}
	s.events = append(s.events, Event{Time: time.Now(), Path: path, What: what, Detail: detail})
	s.mu.Unlock()
	log := s.log
	if path != "" { // else it is of the whole camera
		log = log.With("path", path)
	}
	log.Info(string(what), "detail", detail)
}

// run refuses connections when it is time to.
func (s *Server) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var until time.Time // refusing until; zero: not
	for {
		now := time.Now()
		s.mu.Lock()
		faults := s.inject
		s.inject = nil
		s.mu.Unlock()
		for {
			at, ok := s.plan.next()
			if !ok || s.started.Add(at).After(now) {
				break
			}
			faults = append(faults, s.plan.take())
		}
		for _, f := range faults {
			s.note("", Faulty, f.String())
			if end := now.Add(f.For); end.After(until) {
				until = end
			}
			s.gate.shut()
			s.cutAll()
		}
		if !until.IsZero() && !until.After(now) {
			if err := s.gate.reopen(); err != nil {
				s.log.Warn("open the port again", "err", err)
				until = now.Add(100 * time.Millisecond) // another process may hold it for a moment
			} else {
				until = time.Time{}
			}
		}
		wait := time.Duration(1<<63 - 1)
		if at, ok := s.plan.next(); ok {
			wait = s.started.Add(at).Sub(now)
		}
		if !until.IsZero() {
			wait = min(wait, until.Sub(now))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// cutAll closes every connection, as a camera that loses its power.
func (s *Server) cutAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ss := range s.viewing {
		ss.Close()
	}
	for c := range s.conns {
		c.NetConn().Close()
	}
}

// handler is the Server as the RTSP library calls it.
type handler Server

func (h *handler) OnConnOpen(ctx *gortsplib.ServerHandlerOnConnOpenCtx) {
	s := (*Server)(h)
	s.mu.Lock()
	s.conns[ctx.Conn] = struct{}{}
	s.mu.Unlock()
	s.note("", Connected, ctx.Conn.NetConn().RemoteAddr().String())
}

func (h *handler) OnConnClose(ctx *gortsplib.ServerHandlerOnConnCloseCtx) {
	s := (*Server)(h)
	s.mu.Lock()
	delete(s.conns, ctx.Conn)
	s.mu.Unlock()
	s.note("", Disconnected, fmt.Sprint(ctx.Error))
}

func (h *handler) OnSessionClose(ctx *gortsplib.ServerHandlerOnSessionCloseCtx) {
	s := (*Server)(h)
	s.mu.Lock()
	st := s.viewing[ctx.Session]
	delete(s.viewing, ctx.Session)
	s.mu.Unlock()
	if st != nil {
		st.leave(ctx.Session)
		s.note(st.path, Stopped, fmt.Sprint(ctx.Error))
	}
}

// find answers for a request: the stream, or why not.
func (h *handler) find(conn *gortsplib.ServerConn, req *base.Request, path string) (*stream, *base.Response, error) {
	s := (*Server)(h)
	st := s.byPath[cleanPath(path)]
	if st == nil {
		return nil, &base.Response{StatusCode: base.StatusNotFound}, nil
	}
	user, password := s.cfg.User, s.cfg.Password
	if st.lockedOut() {
		if user == "" {
			user = "nobody"
		}
		password = rand.Text()
	}
	if user != "" && !conn.VerifyCredentials(req, user, password) {
		if len(req.Header["Authorization"]) > 0 {
			s.note(st.path, LoginFailed, string(req.Method))
		}
		return nil, &base.Response{StatusCode: base.StatusUnauthorized}, liberrors.ErrServerAuth{}
	}
	return st, &base.Response{StatusCode: base.StatusOK}, nil
}

func (h *handler) OnDescribe(ctx *gortsplib.ServerHandlerOnDescribeCtx) (*base.Response, *gortsplib.ServerStream, error) {
	st, res, err := h.find(ctx.Conn, ctx.Request, ctx.Path)
	if st == nil {
		return res, nil, err
	}
	return res, st.rtsp, nil
}

func (h *handler) OnSetup(ctx *gortsplib.ServerHandlerOnSetupCtx) (*base.Response, *gortsplib.ServerStream, error) {
	st, res, err := h.find(ctx.Conn, ctx.Request, ctx.Path)
	if st == nil {
		return res, nil, err
	}
	if ctx.Transport.Protocol == gortsplib.ProtocolUDPMulticast {
		return &base.Response{StatusCode: base.StatusUnsupportedTransport}, nil, nil
	}
	s := (*Server)(h)
	s.oneSetup <- struct{}{}
	s.mu.Lock()
	s.setup = ctx.Conn
	s.mu.Unlock()
	return res, st.rtsp, nil
}

func (h *handler) OnPlay(ctx *gortsplib.ServerHandlerOnPlayCtx) (*base.Response, error) {
	s := (*Server)(h)
	st, res, err := h.find(ctx.Conn, ctx.Request, ctx.Path)
	if st == nil {
		return res, err
	}
	s.mu.Lock()
	_, again := s.viewing[ctx.Session]
	s.viewing[ctx.Session] = st
	s.mu.Unlock()
	if !again {
		st.join(ctx.Session)
		s.note(st.path, Playing, ctx.Session.Transport().Protocol.String())
	}
	return res, nil
}

// OnResponse ends a SETUP and starts the session whose PLAY is being answered:
// while OnPlay runs, the library is still making it. It also takes away the
// RTP-Info that the library leaves empty, because each viewer has sequence
// numbers of its own here.
func (h *handler) OnResponse(conn *gortsplib.ServerConn, res *base.Response) {
	s := (*Server)(h)
	ss := conn.Session()
	s.mu.Lock()
	if s.setup == conn {
		s.setup = nil
		<-s.oneSetup
	}
	st := s.viewing[ss]
	s.mu.Unlock()
	if st != nil && res.StatusCode == base.StatusOK {
		st.start(ss)
	}
	if v, ok := res.Header["RTP-Info"]; ok && strings.TrimSpace(strings.Join(v, "")) == "" {
		delete(res.Header, "RTP-Info")
	}
}

// gate is a listener that can be shut, so that the port refuses, and opened
// again, without the RTSP library noticing.
type gate struct {
	listen  func(network, address string) (net.Listener, error)
	network string
	addr    net.Addr
	ready   chan struct{} // closed when connections may come

	mu      sync.Mutex
	ln      net.Listener  // nil while shut
	changed chan struct{} // closed at each change
	closed  bool
}

func openGate(listen func(network, address string) (net.Listener, error), network, address string) (*gate, error) {
	ln, err := listen(network, address)
	if err != nil {
		return nil, err
	}
	return &gate{
		listen: listen, network: network, addr: ln.Addr(), ln: ln,
		ready: make(chan struct{}), changed: make(chan struct{}),
	}, nil
}

func (g *gate) Addr() net.Addr { return g.addr }

func (g *gate) Accept() (net.Conn, error) {
	<-g.ready
	for {
		g.mu.Lock()
		ln, changed, closed := g.ln, g.changed, g.closed
		g.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
		if ln == nil {
			<-changed
			continue
		}
		c, err := ln.Accept()
		if err == nil {
			return c, nil
		}
		g.mu.Lock()
		same := g.ln == ln
		g.mu.Unlock()
		if same {
			return nil, err
		}
	}
}

func (g *gate) set(ln net.Listener) {
	g.ln = ln
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ln := g.ln; ln != nil {
		g.set(nil)
		ln.Close()
	}
}

func (g *gate) reopen() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ln != nil || g.closed {
		return nil
	}
	ln, err := g.listen(g.network, g.addr.String())
	if err != nil {
		return err
	}
	g.set(ln)
	return nil
}

func (g *gate) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	select {
	case <-g.ready:
	default:
		close(g.ready)
	}
	ln := g.ln
	g.set(nil)
	if ln != nil {
		return ln.Close()
	}
	return nil
}
