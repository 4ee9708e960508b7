package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var malformed = flag.Int("malformed", 10_000, "malformed requests that TestMalformedRequestsDoNoHarm sends")

// mess makes malformed requests: right ones with a few things wrong. {u} stands
// for the uuid of a camera that records, {t} for the token of its owner.
type mess struct{ *rand.Rand }

func (m mess) one(of ...string) string { return of[m.IntN(len(of))] }

// Pieces that have been the end of parsers.
var pieces = []string{
	"", "0", "-1", "1", "00", "2147483647", "2147483648", "-2147483649", "9223372036854775807", "9223372036854775808", "1e309", "-0", "0x1", "1.5", "NaN", "null", "true",
	"%", "%00", "%zz", "%2e%2e", "%2f", "..", "/", "//", "\\", "\x00", "\xff\xfe", "\xc0\xaf", "\u202e", "😀", "'", `"`, ";", "&", "=", "#", "?", "+", " ", "\t", "{", "}", "[", "]", "[[[[[[[[", ",",
	"*", "$", "`id`", "<b>", "a=b", "2026-02-30", "2026-10-24T23:00:00:00000Z", "-", "@", ".", "main", "{u}", strings.Repeat("9", 400), strings.Repeat("é", 200), strings.Repeat("(", 1000),
}

// mutate changes text in a few places.
func (m mess) mutate(text string) string {
	b := []byte(text)
	for range 1 + m.IntN(3) {
		at := m.IntN(len(b) + 1)
		switch end := min(len(b), at+m.IntN(12)); m.IntN(6) {
		case 0:
			b = slices.Delete(b, at, end)
		case 1:
			if at < len(b) {
				b[at] = byte(m.IntN(256))
			}
		case 2: // once more
			b = slices.Insert(b, at, slices.Clone(b[at:end])...)
		default:
			b = slices.Replace(b, at, end, []byte(m.one(pieces...))...)
		}
	}
	return string(b)
}

// sometimes mutates text, mostly not.
func (m mess) sometimes(text string) string {
	if m.IntN(4) == 0 {
		return m.mutate(text)
	}
	return text
}

var messPaths = []string{
	"/", "/healthz", "/metrics", "/api/", "/api/?cameraConfigs=true", "/api/cameras/{u}/", "/api/cameras/{u}/main/recordings?startTime90k=0&endTime90k=2026-01-01T00:00Z&split90k=1",
	"/api/cameras/{u}/main/gaps?startTime90k=1&endTime90k=9", "/api/cameras/{u}/main/view.mp4?s=0.0-90000&s=0&ts=true&gaps=keep", "/api/cameras/{u}/sub/view.mp4.txt?s=0@1.5-",
	"/api/cameras/{u}/main/view.m4s?s=0.10-20&audio=true", "/api/cameras/{u}/main/view.mp4?s=0-0@1.0-90", "/api/cameras/{u}/main/view.m4s.txt?s=0-0", "/api/cameras/{u}/main/live.m4s", "/api/init/1.mp4?audio=1",
	"/api/login", "/api/logout", "/api/claim", "/api/request", "/login", "/logout", "/claim", "/api/users/", "/api/users/7", "/api/users/7/sessions", "/api/users/7/sessions/3",
	"/api/users/7/tokens", "/api/cameras/", "/api/signals", "/assets/main.js",
}

var messHeaders = []string{
	"Range: bytes=0-1", "Range: bytes=5-4,-0,9999999999-,0-,1-1", "If-Range: \"x\"", "If-None-Match: *, W/\"a\",\"", "If-Match: \"\"", "If-Modified-Since: Mon, 99 Foo 2026", "Accept-Encoding: gzip;q=x",
	"Content-Type: application/json", "Content-Type: multipart/form-data; boundary=", "Content-Type: application/json; charset=\"", "Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Cookie: s=x; s=; =; s",
	"Authorization: Bearer", "Authorization: Basic Og==", "X-Forwarded-For: 1.2.3.4, , ::1, x", "X-Forwarded-Proto: https, http", "Forwarded: for=_x;", "Expect: 100-continue", "Expect: x", "Upgrade: websocket", "Upgrade: h2c",
	"Connection: Upgrade, HTTP2-Settings", "Connection: close, keep-alive", "Sec-WebSocket-Version: 99", "Sec-WebSocket-Key: x", "TE: trailers", "Trailer: Content-Length", "User-Agent: " + strings.Repeat("x", 3000),
}

var messBodies = []string{
	`{"username":"a","password":"b"}`, `{"code":"BNWCA-8VSK3","username":"a","password":"long enough"}`, `{}`, `{"csrf":"x"}`, "username=a&password=b",
	`{"shortName":"a","streams":{"main":{"url":"http://192.0.2.1/","record":false,"retainBytes":-1,"retainDays":1e3,"flushIfSec":120,"rtspTransport":"tcp"}}}`,
	`{"user":{"username":"","permissions":{"administrator":false,"allCameras":["live"],"cameras":{"{u}":["recorded","export"]}}}}`,
	`{"update":{"disabled":true,"permissions":{"allCameras":null}},"precondition":{"password":"x"}}`, `{"name":"x","scope":["live","x"],"days":-1}`,
	strings.Repeat("[", 60_000), `{"username":` + strings.Repeat(`{"a":`, 10_000), strings.Repeat("x", 70_000),
}

// request is a whole request, on a connection of its own.
func (m mess) request() string {
	method, path := m.one("GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "PATCH", "OPTIONS", "TRACE", "G\xff", ""), m.one(messPaths...)
	if i := strings.LastIndexByte(path, '='); i > 0 && m.IntN(2) == 0 {
		path = path[:i+1] + m.sometimes(m.one(pieces...)) // the last parameter
	} else {
		path = m.sometimes(path)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", method, path, m.sometimes("localhost"))
	if m.IntN(4) > 0 {
		b.WriteString("Authorization: Bearer {t}\r\n")
	}
	for range m.IntN(3) {
		b.WriteString(m.sometimes(m.one(messHeaders...)) + "\r\n")
	}
	if method == "GET" || method == "HEAD" {
		// Now and then with a body that does not come, or the beginning of another request.
		return b.String() + m.one("", "", "", "", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n") + "\r\n" + m.one("", "", "", "G")
	}
	body := m.sometimes(m.one(messBodies...))
	if m.IntN(4) > 0 {
		b.WriteString("Content-Type: " + m.one("application/json", "application/x-www-form-urlencoded") + "\r\n")
	}
	if m.IntN(3) > 0 {
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
		return b.String()
	}
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	for len(body) > 0 {
		n := min(len(body), 1+m.IntN(5000))
		fmt.Fprintf(&b, "%s\r\n%s\r\n", m.sometimes(fmt.Sprintf("%x;ext=1", n)), body[:n])
		body = body[n:]
	}
	b.WriteString(m.sometimes("0\r\nX-Trailer: 1\r\n\r\n"))
	return b.String()
}

// framing is a request that HTTP itself has to refuse, or to read with care.
func (m mess) framing() string {
	const to = "POST /api/login HTTP/1.1\r\nHost: localhost\r\n"
	switch m.IntN(12) {
	case 0:
		return m.mutate(m.mutate(m.request()))
	case 1:
		return to + "Content-Length: " + m.one("-1", "+2", "2, 2", "2\r\nContent-Length: 3", "99999999999999999999", "0x2", "") + "\r\n\r\n{}"
	case 2:
		return to + "Content-Length: 2\r\nTransfer-Encoding: " + m.one("chunked", "Chunked, identity", "xchunked", "\vchunked", "gzip, chunked") + "\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
	case 3:
		return to + "Transfer-Encoding: chunked\r\n\r\n" + m.one("ffffffffffffffff\r\n", "-1\r\n{}\r\n", "2\r\n{}x\r\n", "2\n{}\n0\n\n", ";\r\n", strings.Repeat("0", 5000)+"\r\n", "2;"+strings.Repeat("x", 5000)+"\r\n{}\r\n0\r\n\r\n")
	case 4:
		return "GET /" + strings.Repeat("a", 20_000) + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
	case 5:
		return "GET / HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X: "+strings.Repeat("y", 100)+"\r\n", 200) + "\r\n"
	case 6:
		return "GET / " + m.one("HTTP/9.9", "HTTP/1", "HTTP/0.9", "http/1.1", "", "HTTP/1.1 x", "HTTP/2.0") + "\r\nHost: localhost\r\n\r\n"
	case 7:
		return "GET / HTTP/1.1\r\n" + m.one("Host: a\r\nHost: b", "Host", ": x", " Host: x", "Host : x", "Host: x\r\n folded", "Host: a b", "Host: \x00", "No-Host: x") + "\r\n\r\n"
	case 8: // several at once, the last one cut short
		s := strings.Repeat("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 1+m.IntN(20))
		return s[:len(s)-m.IntN(30)]
	case 9:
		return m.one("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CONNECT localhost:22 HTTP/1.1\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET http://evil.example/ HTTP/1.1\r\n\r\n", "GET http://[::1%25x]:x/ HTTP/1.1\r\n\r\n",
			"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "DESCRIBE rtsp://x RTSP/1.0\r\nCSeq: 1\r\n\r\n", "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	case 10: // promised and not sent
		return to + "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
	}
	b := make([]byte, m.IntN(3000))
	for i := range b {
		b[i] = byte(m.IntN(256))
	}
	return string(b) + "\r\n\r\n"
}

// frames are what a client may send behind the handshake of a WebSocket.
func (m mess) frames() []byte {
	var b []byte
	for range 1 + m.IntN(4) {
		payload := []byte(m.sometimes(m.one("", "\x03\xe8bye", "\x00\x01", "\xff\xff\xff", "ping", strings.Repeat("x", 200), strings.Repeat("x", 70_000))))
		b = append(b, byte(m.IntN(256))) // fin, reserved bits, opcode
		mask := byte(m.IntN(8)/7) ^ 1    // without, now and then
		switch n := len(payload); {
		case m.IntN(10) == 0: // far more than comes
			b = binary.BigEndian.AppendUint64(append(b, mask<<7|127), m.Uint64())
		case n < 126:
			b = append(b, mask<<7|byte(n))
		case n < 1<<16:
			b = binary.BigEndian.AppendUint16(append(b, mask<<7|126), uint16(n))
		default:
			b = binary.BigEndian.AppendUint64(append(b, mask<<7|127), uint64(n))
		}
		b = append(append(b, 0, 0, 0, 0), payload...)
	}
	return b[:len(b)-m.IntN(min(len(b), 5))]
}

// send sends a request of some kind, reads what comes, and says what is wrong
// with that: an answer that blames the recorder.
func (y *yard) send(m mess) (what string, wrong error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(y.url, "http://"))
	if err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	fill := strings.NewReplacer("{u}", y.uuid, "{t}", y.token)
	live := false
	var text string
	switch n := m.IntN(10); {
	case n < 6:
		text = fill.Replace(m.request())
	case n < 9:
		text = fill.Replace(m.framing())
	default:
		live = true
		text = fill.Replace("GET /api/cameras/{u}/" + m.one("main", "sub") + "/live.m4s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {t}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + m.sometimes("AAAAAAAAAAAAAAAAAAAAAA==") + "\r\n\r\n")
	}
	_, _ = io.WriteString(c, text) // an answer may come before it is all sent
	if live {
		_, _ = c.Write(m.frames())
	}
	if !live || m.IntN(2) == 0 { // nothing more comes: nothing is waited for
		_ = c.(*net.TCPConn).CloseWrite()
	}
	in := bufio.NewReader(c)
	method := "GET"
	if strings.HasPrefix(text, "HEAD ") {
		method = "HEAD"
	}
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		return "no answer", nil // it is cut off
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if live && resp.StatusCode == http.StatusSwitchingProtocols {
		_, _ = io.CopyN(io.Discard, in, 4096)
	}
	// Of HTTP itself: a version or a way to send bodies that is not known
	// (api.md rule 3).
	ofHTTP := resp.StatusCode == http.StatusNotImplemented && strings.Contains(strings.ToLower(text), "transfer-encoding") || resp.StatusCode == http.StatusHTTPVersionNotSupported
	if resp.StatusCode >= 500 && resp.StatusCode != http.StatusServiceUnavailable && !ofHTTP {
		return "", fmt.Errorf("%d %s to %.600q", resp.StatusCode, body, text)
	}
	return fmt.Sprint(resp.StatusCode), nil
}

// Ten thousand requests with something wrong about them: no answer blames the
// recorder, nothing of them stays, and recording does not notice.
func TestMalformedRequestsDoNoHarm(t *testing.T) {
	rng := seeded(t)
	y := newYard(t, 1)
	answers := new(tally)
	send := func(n int) {
		jobs := make(chan mess)
		var work sync.WaitGroup
		for range 8 {
			work.Go(func() {
				for m := range jobs {
					what, err := y.send(m)
					if err != nil {
						t.Error(err)
						continue
					}
					answers.add(what)
				}
			})
		}
		for range n {
			jobs <- mess{rand.New(rand.NewPCG(rng.Uint64(), 0))}
		}
		close(jobs)
		work.Wait()
	}
	send(min(500, *malformed/10)) // what is made at first use is there
	before := y.metrics()
	send(*malformed)

	// What is left over goes within the limits of a request.
	const goroutines, files, memory = "go_goroutines", "process_open_fds", "process_resident_memory_bytes"
	after := y.metrics()
	for limit := time.Now().Add(2 * time.Minute); after[goroutines] > before[goroutines]+5 || after[files] > before[files]+5; after = y.metrics() {
		if time.Now().After(limit) {
			t.Errorf("goroutines %.0f, then %.0f; open files %.0f, then %.0f", before[goroutines], after[goroutines], before[files], after[files])
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	if before[goroutines] == 0 || before[files] == 0 || after[memory] > before[memory]+96<<20 {
		t.Errorf("memory %.0f, then %.0f", before[memory], after[memory])
	}
	lost, frames := y.whole()
	t.Logf("%d requests, answered: %v", *malformed, answers)
	t.Logf("goroutines %.0f, then %.0f; open files %.0f, then %.0f; memory %.0f MiB, then %.0f; %d frames recorded, %d lost", before[goroutines], after[goroutines],
		before[files], after[files], before[memory]/(1<<20), after[memory]/(1<<20), frames, lost)
}
