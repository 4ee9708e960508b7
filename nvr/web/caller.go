package web

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"holdfast/nvr/access"
	"holdfast/nvr/store"
)

// caller is who sent a request, and from where.
type caller struct {
	access.Subject
	peer   access.Peer
	secure bool   // over TLS, as far as the browser is concerned
	secret string // of the session's cookie

	// refused is why the caller is not who it says: what is not for everybody is
	// refused then, all else is answered as to nobody.
	refused error
}

type callerKey struct{}

// callerOf returns the caller of a request.
func callerOf(r *http.Request) *caller {
	return r.Context().Value(callerKey{}).(*caller)
}

// identify finds out who sends a request. A cookie that lets nobody in is as
// none, a token that does not is refused. Authorization of another scheme is
// meant for a proxy before us, which passes it on, and is as none.
func (s *server) identify(r *http.Request) *caller {
	c := &caller{Subject: s.nobody()}
	c.peer, c.secure = s.peer(r)
	if s.Access == nil {
		return c
	}
	if scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		subject, ok := s.Access.Token(strings.TrimSpace(token), c.peer)
		if !ok {
			c.refused = &httpError{http.StatusUnauthorized, "Authorization has no token that lets anybody in"}
			return c
		}
		c.Subject = subject
		return c
	}
	// What else runs on this host, on whatever port, may have set one of this name.
	for _, cookie := range r.CookiesNamed(cookieName(c.secure)) {
		if subject, ok := s.Access.Session(cookie.Value, c.peer); ok {
			c.Subject, c.secret = subject, cookie.Value
			break
		}
	}
	return c
}

// nobody is the subject of a caller who has not signed in.
func (s *server) nobody() access.Subject {
	if s.Access == nil {
		return access.Nobody(Everybody(s.Anonymous))
	}
	return s.Access.Nobody()
}

// peer is where a request comes from. What a proxy says of that counts only when
// it is one of ours.
func (s *server) peer(r *http.Request) (p access.Peer, secure bool) {
	p.Agent, secure = r.UserAgent(), r.TLS != nil
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	p.Address = host
	if !s.isProxy(host) {
		return p, secure
	}
	// Each proxy adds where its request came from; the first that is none of ours
	// is the caller, and what stands before it may be the caller's invention.
	for _, v := range slices.Backward(strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")) {
		a, err := netip.ParseAddr(strings.TrimSpace(v))
		if err != nil {
			break
		}
		if p.Address = a.Unmap().String(); !s.isProxy(p.Address) {
			break
		}
	}
	if v := r.Header.Values("X-Forwarded-Proto"); len(v) > 0 {
		last := v[len(v)-1]
		secure = strings.EqualFold(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:]), "https")
	}
	return p, secure
}

func (s *server) isProxy(address string) bool {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	return contains(s.Proxies, a.Unmap().WithZone(""))
}

func contains(blocks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(blocks, func(p netip.Prefix) bool { return p.Contains(a) })
}

// privateDomains cannot be had by anybody on the Internet (RFC 6762, RFC 8375,
// and names that were set aside or withheld), so no page of a stranger has such
// a name. fritz.box is that of the router's vendor, and of every network behind one.
var privateDomains = []string{"local", "lan", "home", "internal", "home.arpa", "localdomain", "fritz.box"}

// ours reports whether a request means this recorder by its Host. A page of a
// stranger may have its own name lead here (DNS rebinding): then its scripts are
// of the same origin as our answers, and only the name tells.
func (s *server) ours(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" {
		return true // HTTP/1.0 has none; browsers always send one
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return slices.ContainsFunc(s.names, func(n string) bool { return strings.EqualFold(n, host) })
}

// Names are those that a recorder goes by beside its addresses: localhost, those
// of the machine, and hosts.
func Names(hosts []string) []string {
	machine, _ := os.Hostname() // without a name it goes by its addresses
	return names(machine, hosts)
}

func names(machine string, hosts []string) []string {
	list := append([]string{"localhost"}, hosts...)
	own := firstLabel(machine)
	if own == "" {
		return list
	}
	list = append(list, machine, own) // with its domain, where the machine is called so
	for _, domain := range privateDomains {
		list = append(list, own+"."+domain)
	}
	return list
}

func firstLabel(name string) string {
	first, _, _ := strings.Cut(name, ".")
	return first
}

// guard stands before all routes: it refuses what does not mean this recorder,
// and says who calls.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.ours(r.Host) {
			text := fmt.Sprintf("this recorder does not go by the name %.100q: use its address, or %q", r.Host, firstLabel(s.hostName)+".local")
			if s.Machine == nil { // where people give flags
				text += ", or start it with -host and the name"
			}
			s.fail(w, r, &httpError{http.StatusMisdirectedRequest, text})
			return
		}
		// net/http learns that a client has gone only behind the end of the body: what
		// waits for something, live video of a camera that is away, would wait for
		// nobody.
		if (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.ContentLength != 0 {
			s.fail(w, r, badRequest("%s takes no body", r.Method))
			return
		}
		if s.TLS != nil && s.TLS.redirects(r, s) {
			s.TLS.redirect(w, r, s)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, s.identify(r))))
	})
}

// may decides whether the caller may do a thing with a camera, or with camera 0
// with the recorder as a whole. There is no second place: package access says
// yes or no, and here it gets its words.
func (s *server) may(r *http.Request, a access.Action, camera int32) error {
	c := callerOf(r)
	open := s.nobody().May(access.LookAround, 0) // to everybody
	switch {
	case c.May(a, camera):
		return nil
	case s.Access != nil && s.Access.Unclaimed():
		return &httpError{http.StatusUnauthorized, "this recorder has no owner yet: open /claim in a browser, " +
			"with the code that it shows on its console"}
	case c.UserID != 0:
		return &httpError{http.StatusForbidden, lacks(c.Subject, a)}
	case s.Access != nil && (!open || s.Access.HasUsers()):
		return &httpError{http.StatusUnauthorized, "nobody has signed in, or not lately: open /login"}
	case !open:
		return &httpError{http.StatusUnauthorized, "nobody can sign in yet, and this recorder was not told to serve everybody: " +
			"start it with -allow-anonymous view (see everything) or -allow-anonymous admin (change cameras too)"}
	}
	return &httpError{http.StatusForbidden, "this recorder lets everybody look and nobody change cameras: " +
		"start it with -allow-anonymous admin to change them"}
}

// lacks says which right a signed-in caller would need. A token may have less than
// its user.
func lacks(c access.Subject, a access.Action) string {
	right := map[access.Action]string{
		access.ViewVideo: "live or recorded", access.ViewLive: "live", access.ViewRecorded: "recorded",
		access.TakeRecorded: "export", access.Administer: "administer",
	}[a]
	switch {
	case c.Token && a == access.Administer:
		return "this token of " + c.Name + " may not do this: its scope has no " + right + ", or " + c.Name + " is no administrator"
	case c.Token:
		return "this token of " + c.Name + " may not do this: it needs the right " + right + ", in its scope and of its user"
	case a == access.Administer:
		return c.Name + " may not do this: it is for administrators"
	}
	return c.Name + " may not do this: it needs the right " + right + ", which an administrator gives"
}

// decide loads the camera that the path names, if it names one, and decides
// whether the caller may do a thing with it. Of a camera that the caller has no
// right to, it says what it says of one that is not there.
func (s *server) decide(r *http.Request, a access.Action) (*store.Camera, error) {
	uuid := r.PathValue("uuid")
	if uuid == "" {
		return nil, s.may(r, a, 0)
	}
	if err := s.may(r, access.LookAround, 0); err != nil {
		return nil, err
	}
	c, ok := s.Store.Camera(uuid)
	if !ok || !callerOf(r).May(access.LookAround, c.ID) {
		return nil, &httpError{http.StatusNotFound, fmt.Sprintf("there is no camera %q", uuid)}
	}
	return c, s.may(r, a, c.ID)
}

// Everybody is what -allow-anonymous gives to everybody.
func Everybody(anonymous string) access.Rights {
	switch anonymous {
	case "view":
		return access.Watching
	case "admin":
		return access.Watching | access.Admin
	}
	return 0
}

// stillEvery is how often somebody who watches live video is asked for anew.
const stillEvery = time.Minute

var errSignedOut error = &httpError{http.StatusUnauthorized, "the session has ended, or its user may other things now: sign in again"}

// whileSignedIn returns a context of ctx that also ends when the session of the
// caller does, or when its user may other things: at once, and then its cause is
// errSignedOut.
func whileSignedIn(ctx context.Context, r *http.Request) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(callerOf(r).Done(), func() { cancel(errSignedOut) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// still returns a function that says whether the caller is who it was; it looks
// once in stillEvery.
func (s *server) still(r *http.Request) func() error {
	c, looked := callerOf(r), time.Now()
	return func() error {
		if s.Access == nil || time.Since(looked) < stillEvery {
			return nil
		}
		looked = time.Now()
		if !s.Access.Still(c.Subject, c.peer) {
			return errSignedOut
		}
		return nil
	}
}
