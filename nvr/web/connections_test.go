package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener to whom connections are given.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn, 16), closed: make(chan struct{})}
}

// dial returns the client's end of a new connection.
func (l *pipes) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error   { close(l.closed); return nil }
func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// servePipes has a server answer connections in the bubble of the test.
func servePipes(t *testing.T, h http.Handler) *pipes {
	l := newPipes()
	server := Server(t.Context(), h, slog.New(slog.DiscardHandler))
	done := make(chan error)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
	return l
}

// Whoever promises a body and does not send it is not waited for, whatever the
// answer is (api.md rule 6).
func TestBodyThatDoesNotComeEndsTheConnection(t *testing.T) {
	g := newGuarded(t, nil)
	h := g.server.Config.Handler
	for _, c := range []struct {
		name, request string
		status        int
		reads         bool // the answer waits for the body
	}{
		{"of GET", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10", 400, false},
		{"of GET in pieces", "GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked", 400, false},
		{"in pieces", "POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked", 405, false},
		{"method refused", "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10", 405, false},
		{"host refused", "POST /api/users/ HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 10", 421, false},
		{"caller refused", "POST /api/users/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10", 401, false},
		{"site refused", "POST /api/users/ HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 10", 403, false},
		{"type refused", "POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 10", 400, false},
		{"JSON", "POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10", 400, true},
		{"form", "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 10", 400, true},
		{"form read by nobody", "POST /logout HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10", 303, false},
		{"of the server", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10", 400, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := servePipes(t, h).dial()
			defer conn.Close()
			began := time.Now() // of a clock that only waiting moves
			_ = conn.SetDeadline(began.Add(time.Hour))
			fmt.Fprint(conn, c.request, "\r\n\r\n")
			in := bufio.NewReader(conn)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if took := time.Since(began); took > 0 && !c.reads {
				t.Errorf("%s: the answer came after %v", c.name, took)
			}
			_, err = io.Copy(io.Discard, resp.Body)
			if resp.StatusCode != c.status || err != nil {
				t.Errorf("%s: %d %v, want %d", c.name, resp.StatusCode, err, c.status)
			}
			if _, err := in.ReadByte(); err != io.EOF {
				t.Errorf("%s: the connection is open after the answer: %v", c.name, err)
			}
			if took := time.Since(began); took > bodyTime+time.Second {
				t.Errorf("%s: it was held for %v", c.name, took)
			}
		})
	}
}

// A header that is too long is refused, and one that comes too slowly ends the
// connection.
func TestHeaderIsLimited(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		status int // 0: none comes
	}{
		"at the limit": {"X: " + strings.Repeat("x", 8<<10) + "\r\n\r\n", 200},
		"too long":     {"X: " + strings.Repeat("x", 32<<10) + "\r\n\r\n", 431},
		"half":         {"X: x", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := servePipes(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).dial()
			defer conn.Close()
			began := time.Now() // of a clock that only waiting moves
			_ = conn.SetDeadline(began.Add(time.Hour))
			go func() { _, _ = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\n", c.header) }()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if c.status == 0 && err == nil || c.status != 0 && (err != nil || resp.StatusCode != c.status) {
				t.Errorf("%s: %v, %v", name, resp, err)
			}
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("%s: it was held for %v", name, took)
			}
			conn.Close()
			time.Sleep(time.Second) // the server lingers
		})
	}
}

// A connection whose bodies come is used again, and a handler has time to work
// when it has read one.
func TestBodyThatComesLeavesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := servePipes(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			limitBody(w, r)
			if _, err := io.ReadAll(r.Body); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * bodyTime)
			if err := r.Context().Err(); err != nil {
				t.Errorf("given up while it is answered: %v", err)
			}
		})).dial()
		defer conn.Close()
		in := bufio.NewReader(conn)
		for _, body := range []string{"Content-Length: 2\r\n\r\n{}", "\r\n", "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "\r\n"} {
			fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: localhost\r\n", body)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("%q: %v", body, err)
			}
			if resp.StatusCode != 200 || resp.Close {
				t.Errorf("%q: %d; the connection is closed: %v", body, resp.StatusCode, resp.Close)
			}
		}
	})
}

// No more connections are open than are allowed, whatever ends them.
func TestConnectionsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := newPipes()
		l := limit(2, 2, nil, inner)[0]
		accepted := make(chan net.Conn, 10)
		ended := make(chan error)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					ended <- err
					return
				}
				accepted <- c
			}
		}()
		for range 5 {
			defer inner.dial().Close()
		}
		open := func(want int) {
			t.Helper()
			synctest.Wait()
			if got := len(accepted); got != want {
				t.Fatalf("%d connections are accepted, want %d", got, want)
			}
		}
		open(2)
		first := <-accepted
		first.Close()
		first.Close() // counts once
		open(2)
		(<-accepted).Close()
		(<-accepted).Close()
		open(2)
		(<-accepted).Close()
		open(1)
		l.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
		(<-accepted).Close()
	})
	synctest.Test(t, func(t *testing.T) { // who waits for a connection to end is let go
		inner := newPipes()
		l := limit(1, 1, nil, inner)[0]
		defer inner.dial().Close()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ended := make(chan error)
		go func() { _, err := l.Accept(); ended <- err }()
		synctest.Wait()
		l.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
	})
	if l := Limit([]net.Listener{newPipes()})[0].(*limited); cap(l.open) != mostConnections || l.most != mostOfOne {
		t.Errorf("limits of %d and %d, want %d and %d", cap(l.open), l.most, mostConnections, mostOfOne)
	}
	synctest.Test(t, func(t *testing.T) { // one limit for all
		plain, secure := newPipes(), newPipes()
		accepted := make(chan net.Conn, 10)
		var ended sync.WaitGroup
		defer ended.Wait()
		for _, l := range limit(3, 3, nil, plain, secure) {
			defer l.Close()
			ended.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					accepted <- c
				}
			})
		}
		for range 5 {
			defer plain.dial().Close()
			defer secure.dial().Close()
		}
		synctest.Wait()
		if n := len(accepted); n != 3 {
			t.Errorf("%d connections are accepted of two listeners, want 3", n)
		}
		(<-accepted).Close()
		synctest.Wait()
		if n := len(accepted); n != 3 {
			t.Errorf("%d connections are accepted after one ended, want 3", n)
		}
	})
}

// addressed is a connection from somewhere.
type addressed struct {
	net.Conn
	from string
}

func (c addressed) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.from), 1234))
}

// One address has a part of the connections, and what it has more of is hung up
// on without holding up the others; this host and proxies have all.
func TestConnectionsOfOneAddressAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plain, secure := newPipes(), newPipes()
		accepted := make(chan net.Conn, 100)
		for _, l := range limit(100, 3, []netip.Prefix{netip.MustParsePrefix("192.0.2.128/25")}, plain, secure) {
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					accepted <- c
				}
			}()
			defer l.Close()
		}
		var all []net.Conn
		// dial connects n times, to one listener and the other, and returns how many
		// of them are not hung up on.
		dial := func(n int, from ...string) (kept int) {
			t.Helper()
			for i := range n {
				client, server := net.Pipe()
				[]*pipes{plain, secure}[i%2].conns <- addressed{server, from[i%len(from)]}
				all = append(all, client)
			}
			synctest.Wait()
			return len(accepted)
		}
		take := func() (cs []net.Conn) {
			for len(accepted) > 0 {
				cs = append(cs, <-accepted)
			}
			return cs
		}
		if n := dial(5, "192.0.2.7"); n != 3 {
			t.Errorf("%d of one address", n)
		}
		first := take()
		if n := dial(5, "192.0.2.8"); n != 3 {
			t.Errorf("%d of another", n)
		}
		take()
		if n := dial(6, "2001:db8::1", "2001:db8::2", "2001:db8::ffff:1"); n != 3 {
			t.Errorf("%d of one IPv6 network", n)
		}
		take()
		if n := dial(2, "2001:db8:0:1::1"); n != 2 {
			t.Errorf("%d of another IPv6 network", n)
		}
		take()
		if n := dial(3, "::ffff:192.0.2.7", "192.0.2.7"); n != 0 {
			t.Errorf("%d more of the first", n)
		}
		for _, from := range []string{"127.0.0.1", "::1", "192.0.2.200"} {
			if n := dial(8, from); n != 8 {
				t.Errorf("%d from %s", n, from)
			}
			take()
		}
		for _, c := range first {
			c.Close()
			c.Close() // counts once
		}
		if n := dial(5, "192.0.2.7"); n != 3 {
			t.Errorf("%d after the first were closed", n)
		}
		for _, c := range append(take(), all...) {
			c.Close()
		}
	})
}

// socket is a connection that notes what it was left to copy.
type socket struct {
	net.Conn
	copied io.Reader
	half   bool
}

func (s *socket) ReadFrom(r io.Reader) (int64, error) { s.copied = r; return io.Copy(io.Discard, r) }
func (s *socket) CloseWrite() error                   { s.half = true; return nil }
func (s *socket) RemoteAddr() net.Addr                { return &net.UnixAddr{} }

// A connection is corked for as long as recorded video is sent on it.
func TestCorkIsTakenOffAgain(t *testing.T) {
	var states []int
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := r.Context().Value(connKey{}).(*counted).Conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Error(err)
			return
		}
		look := func() {
			_ = raw.Control(func(fd uintptr) {
				on, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_CORK)
				if err != nil {
					t.Error(err)
				}
				states = append(states, on)
			})
		}
		look()
		release := cork(r)
		look()
		release()
		look()
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := Server(t.Context(), h, slog.New(slog.DiscardHandler))
	done := make(chan error)
	go func() { done <- server.Serve(Limit([]net.Listener{l})[0]) }()
	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	server.Close()
	<-done
	if !slices.Equal(states, []int{0, 1, 0}) {
		t.Errorf("corked before, while and after: %v", states)
	}
	cork(httptest.NewRequest("GET", "/", nil))() // no connection: nothing to do
}

// A counted connection leaves the copying of files to the kernel, as any does.
func TestCountedConnectionCopiesFromFiles(t *testing.T) {
	s := &socket{}
	inner := newPipes()
	inner.conns <- s
	c, err := limit(1, 1, nil, inner)[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	src := io.LimitReader(f, 10)
	if n, err := c.(io.ReaderFrom).ReadFrom(src); n != 10 || err != nil || s.copied != src {
		t.Errorf("%d bytes, %v, by %v", n, err, s.copied)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil || !s.half {
		t.Errorf("closed for writing: %v, %v", s.half, err)
	}
}

// Nothing that waits does so for somebody who has gone: a body, which would hide
// that, is refused.
func TestNothingWaitsForAClientThatHasGone(t *testing.T) {
	g := newGuarded(t, nil)
	s := newServer(Config{Store: g.store, Access: g.users})
	s.lookEvery = 10 * time.Millisecond
	h := s.handler()
	live := g.path("main/live.m4s") // the camera is away: nothing comes
	for _, path := range []string{live, "/api/events"} {
		for name, c := range map[string]struct {
			headers string
			status  int
			next    string // what comes behind it, when the answer has begun
		}{
			"no body":            {"", 200, ""},
			"empty":              {"Content-Length: 0\r\n", 200, ""},
			"that does not come": {"Content-Length: 5\r\n", 400, ""},
			"in pieces":          {"Transfer-Encoding: chunked\r\n", 400, ""},
			"next request":       {"", 200, "GET "},
		} {
			if name == "next request" && path != live {
				continue // a heartbeat finds out
			}
			t.Run(path[strings.LastIndexByte(path, '/')+1:]+" "+name, func(t *testing.T) {
				served := make(chan struct{})
				server := httptest.NewUnstartedServer(nil)
				server.Config = Server(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer close(served)
					h.ServeHTTP(w, r)
				}), slog.New(slog.DiscardHandler))
				server.Listener = Limit([]net.Listener{server.Listener})[0]
				server.Start()
				t.Cleanup(server.Close) // behind the context, which ends what waits
				conn, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nCookie: %s\r\n%s\r\n", path, g.who["admin"], c.headers)
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil || resp.StatusCode != c.status {
					t.Fatalf("%v, %v, want %d", resp, err, c.status)
				}
				fmt.Fprint(conn, c.next)
				conn.Close()
				select {
				case <-served:
				case <-time.After(time.Minute):
					t.Error("it waits, and the client has gone")
				}
			})
		}
	}
}
