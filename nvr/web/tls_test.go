package web

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// throwaway is the configuration of a server with a certificate of nobody.
func throwaway() *tls.Config {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}
}

// overTLS serves g over TLS, too, and returns where.
func (g *guarded) overTLS() (address string) {
	g.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.Fatal(err)
	}
	server := Server(g.Context(), g.server.Config.Handler, slog.New(slog.DiscardHandler))
	server.TLSConfig = throwaway()
	done := make(chan error)
	go func() { done <- server.ServeTLS(Limit([]net.Listener{l})[0], "", "") }()
	g.Cleanup(func() {
		server.Close()
		if err := <-done; err != http.ErrServerClosed {
			g.Error(err)
		}
	})
	return l.Addr().String()
}

// Over TLS the cookie is one that nothing else sets or reads.
func TestCookieOverTLS(t *testing.T) {
	g := newGuarded(t, nil)
	address := g.overTLS()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}}
	ask := func(method, path, body, cookie string) *http.Response {
		t.Helper()
		r, err := http.NewRequest(method, "https://"+address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Cookie", cookie)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	resp := ask("POST", "/api/login", `{"username":"of A","password":"password of A"}`, "")
	set := resp.Header.Get("Set-Cookie")
	if resp.StatusCode != 204 || !strings.HasPrefix(set, "__Host-s=") || !strings.HasSuffix(set, "; Path=/; Max-Age=2592000; HttpOnly; Secure; SameSite=Strict") {
		t.Errorf("%d, cookie %s", resp.StatusCode, set)
	}
	// Of HTTP/2 a connection is hundreds of requests, which nothing would limit.
	if resp.Proto != "HTTP/1.1" || resp.TLS.Version < tls.VersionTLS12 {
		t.Errorf("%s over %s", resp.Proto, tls.VersionName(resp.TLS.Version))
	}
	cookie, _, _ := strings.Cut(set, ";")
	for cookie, want := range map[string]int{cookie: 200, strings.TrimPrefix(cookie, "__Host-"): 401, g.who["A"]: 401} {
		if resp := ask("GET", "/api/", "", cookie); resp.StatusCode != want {
			t.Errorf("%.12s…: %d, want %d", cookie, resp.StatusCode, want)
		}
	}
}

// Nobody holds a connection by a handshake that does not come, or a header.
func TestHandshakeThatDoesNotComeEndsTheConnection(t *testing.T) {
	for name, say := range map[string]string{"nothing": "", "half a hello": "\x16\x03\x01\x02\x00\x01", "half a header": "header"} {
		cfg := throwaway()
		synctest.Test(t, func(t *testing.T) {
			l := newPipes()
			server := Server(t.Context(), http.NotFoundHandler(), slog.New(slog.DiscardHandler))
			server.TLSConfig = cfg
			done := make(chan error)
			go func() { done <- server.ServeTLS(l, "", "") }()
			conn := l.dial()
			began := time.Now() // of a clock that only waiting moves
			_ = conn.SetDeadline(began.Add(time.Hour))
			var client io.ReadWriter = conn
			if say == "header" {
				client = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
				say = "GET / HTTP/1.1\r\nHost:"
			}
			go func() { _, _ = io.WriteString(client, say) }()
			if _, err := io.Copy(io.Discard, client); err != nil && time.Since(began) >= time.Hour {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(began); took > 11*time.Second {
				t.Errorf("%s: the connection was held for %v", name, took)
			}
			conn.Close()
			server.Close()
			if err := <-done; err != http.ErrServerClosed {
				t.Error(err)
			}
		})
	}
}

func TestAuthorityIsGivenToEverybody(t *testing.T) {
	pem := []byte("-----BEGIN CERTIFICATE-----\n")
	cfg := &TLS{CA: func() []byte { return pem }, Fault: func() string { return "it ends on 2026-11-09" }}
	g := unclaimedRecorder(t, func(c *Config) { c.TLS = cfg })
	a := g.send("", "GET", "/ca.pem", "")
	if a.status != 200 || string(a.body) != string(pem) || a.header.Get("Content-Type") != "application/x-x509-ca-cert" {
		t.Errorf("%d %s %s", a.status, a.header, a.body)
	}
	if a := g.send("", "GET", "/ca.pem?x=1", ""); a.status != 400 {
		t.Errorf("%d", a.status)
	}
	if a := g.send("", "GET", "/healthz", ""); a.status != 200 || !strings.Contains(string(a.body), `"tls":"it ends on 2026-11-09"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	pem = nil
	if a := g.send("", "GET", "/ca.pem", ""); a.status != 404 {
		t.Errorf("without one: %d", a.status)
	}
}

// Plain HTTP leads to TLS where it was asked to, but for what has no secret, and
// promises browsers nothing unless they trust the certificate anyway.
func TestPlainHTTPLeadsToTLS(t *testing.T) {
	g := newGuarded(t, func(c *Config) { c.Hosts = []string{"nvr.example.org"} })
	answer := func(cfg Config, method, host, path, remote string, change func(*http.Request)) *http.Response {
		cfg.Store, cfg.Access, cfg.Hosts = g.store, g.users, []string{"nvr.example.org"}
		r := httptest.NewRequest(method, path, nil)
		r.Host, r.RemoteAddr = host, remote
		if change != nil {
			change(r)
		}
		w := httptest.NewRecorder()
		held(t, cfg).ServeHTTP(w, r)
		return w.Result()
	}
	none := func() string { return "" }
	on := Config{TLS: &TLS{Fault: none, CA: func() []byte { return []byte("x") }, Redirect: true, Port: "8443"}}
	at443 := Config{TLS: &TLS{Fault: none, Redirect: true, Port: "443"}}
	off := Config{TLS: &TLS{Fault: none, CA: func() []byte { return nil }, Port: "443"}}
	const caller = "192.0.2.1:1"
	for _, c := range []struct {
		cfg                Config
		method, host, path string
		status             int
		to                 string
	}{
		{on, "GET", "nvr.example.org", "/login?a=b%2fc", 307, "https://nvr.example.org:8443/login?a=b%2fc"},
		{on, "HEAD", "192.0.2.9:8080", "/", 307, "https://192.0.2.9:8443/"},
		{on, "GET", "[fd00::1]:8080", "/api/", 307, "https://[fd00::1]:8443/api/"},
		{at443, "GET", "[fd00::1]", "/", 307, "https://[fd00::1]/"},
		{at443, "GET", "localhost:80", "//evil.com/x", 307, "https://localhost//evil.com/x"},
		{on, "GET", "evil.com", "/login", 421, ""},
		{on, "GET", "", "/login", 403, ""},
		{on, "POST", "localhost", "/api/login", 403, ""},
		{on, "GET", "localhost", "/healthz", 200, ""},
		{on, "GET", "localhost", "/metrics", 200, ""},
		{on, "GET", "localhost", "/ca.pem", 200, ""},
		{off, "GET", "localhost", "/login", 200, ""},
		{Config{}, "GET", "localhost", "/login", 200, ""},
	} {
		resp := answer(c.cfg, c.method, c.host, c.path, caller, nil)
		if got := resp.Header.Get("Location"); resp.StatusCode != c.status || got != c.to {
			t.Errorf("%s %s%s: %d to %s, want %d to %s", c.method, c.host, c.path, resp.StatusCode, got, c.status, c.to)
		}
	}
	// What a proxy passes on is not led around it.
	on.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}
	if resp := answer(on, "GET", "localhost", "/login", caller, nil); resp.StatusCode != 200 {
		t.Errorf("by a proxy: %d", resp.StatusCode)
	}
	own := Config{TLS: &TLS{Fault: none, Own: true, Redirect: true, Port: "443"}}
	alone := Config{TLS: &TLS{Fault: none, Own: true, Port: "443"}}
	secure := func(r *http.Request) { r.TLS = &tls.ConnectionState{} }
	for _, c := range []struct {
		cfg    Config
		change func(*http.Request)
		want   string
	}{{own, secure, hsts}, {own, nil, ""}, {alone, secure, ""}, {at443, secure, ""}, {Config{}, secure, ""},
		{own, func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") }, ""}} {
		if got := answer(c.cfg, "GET", "nvr.example.org", "/login", caller, c.change).Header.Get("Strict-Transport-Security"); got != c.want {
			t.Errorf("%+v: %q, want %q", c.cfg.TLS, got, c.want)
		}
	}
}

// Over TLS a WebSocket is one, and a page of ours its Origin.
func TestLiveVideoOverTLS(t *testing.T) {
	g := newGuarded(t, nil)
	g.record()
	conn, err := tls.Dial("tcp", g.overTLS(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ticket := g.ticket("A", "A")
	fmt.Fprintf(conn, "GET /api/cameras/%s/main/live.m4s%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nOrigin: https://localhost\r\n\r\n", g.uuids["A"], ticket)
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v, %v", resp, err)
	}
	if first, err := in.ReadByte(); err != nil || first != 0x82 {
		t.Errorf("frame %x, %v; want a binary message", first, err)
	}
}
