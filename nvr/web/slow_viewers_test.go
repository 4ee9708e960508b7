package web

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// Groups that are there for a slow viewer alone are bounded, of one user and of all;
// who is late for longest goes, and nobody who takes the newest.
func TestWhatSlowViewersHoldIsBounded(t *testing.T) {
	group := func(n int) []byte { return make([]byte, n) }
	shared := group(6)
	type viewer struct {
		name, who string
		group     []byte
		newest    bool
	}
	for name, c := range map[string]struct {
		viewers []viewer
		cut     []string
	}{
		"none is late":             {[]viewer{{"a", "anna", group(30), true}, {"b", "anna", group(30), true}}, nil},
		"within":                   {[]viewer{{"a", "anna", group(5), false}, {"b", "anna", group(5), false}}, nil},
		"too much of one":          {[]viewer{{"a", "anna", group(5), false}, {"b", "anna", group(5), false}, {"c", "anna", group(1), false}}, []string{"a"}},
		"the newest stays":         {[]viewer{{"a", "anna", group(30), true}, {"b", "anna", group(6), false}, {"c", "anna", group(6), false}}, []string{"b"}},
		"one group of many":        {[]viewer{{"a", "anna", shared, false}, {"b", "anna", shared, false}, {"c", "ben", shared, false}, {"d", "ben", shared, false}}, nil},
		"of all, who has the most": {[]viewer{{"a", "anna", group(7), false}, {"b", "ben", group(9), false}, {"c", "carl", group(7), false}}, []string{"b"}},
		"of all, until there is room": {[]viewer{{"a", "anna", group(10), false}, {"b", "ben", group(10), false}, {"c", "carl", group(10), false}, {"d", "dora", group(10), false}},
			[]string{"a", "b"}},
		"longer than there may be": {[]viewer{{"a", "anna", group(11), false}, {"b", "ben", group(5), false}}, []string{"a"}},
	} {
		s := sending{most: 20, mostOne: 10}
		var cut []string
		var done []func()
		for _, v := range c.viewers {
			done = append(done, s.begin(&sent{v.who, v.group, func() bool { return !v.newest }, func() { cut = append(cut, v.name) }}))
		}
		if !slices.Equal(cut, c.cut) {
			t.Errorf("%s: %q are cut off, want %q", name, cut, c.cut)
		}
		for _, done := range done {
			done()
		}
		if len(s.all) != 0 || s.sum != 0 {
			t.Errorf("%s: %d are left, %d bytes", name, len(s.all), s.sum)
		}
	}
}

// Viewers who came a group apart and take nothing do not each hold another one.
func TestSlowViewersOfGroupsDoNotFillTheMemory(t *testing.T) {
	r := newRecorder(t, "view")
	s := newServer(Config{Store: r.store, Anonymous: "view"})
	cam := r.camera("main")
	cam.size = 512 << 10 // a group is ten times that, more than a socket holds that nobody reads
	s.sending.most, s.sending.mostOne = 22<<20, 22<<20
	h := s.handler()
	var ended atomic.Int64
	r.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		ended.Add(1)
	})
	cam.send(1)
	held := func() (n int, bytes int64) {
		s.sending.mu.Lock()
		defer s.sending.mu.Unlock()
		return len(s.sending.all), s.sending.sum
	}
	const viewers = 8
	for i := range viewers {
		conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.(*net.TCPConn).SetReadBuffer(4096)
		_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", r.path("main/live.m4s"))
		in := bufio.NewReaderSize(conn, 16)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v %v", resp, err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, len(s.boundary)+4)); err != nil { // it follows
			t.Fatal(err)
		}
		cam.send(10)
		want := min(i+1, 5) // four that are late, and the newest
		for limit := time.Now().Add(time.Minute); ; <-time.After(time.Millisecond) {
			n, bytes := held()
			if n == want && bytes <= int64(want)*6<<20 && s.encoded.Load() == int64(i+1) && ended.Load() == int64(i+1-want) {
				break // who is cut off is gone
			}
			if time.Now().After(limit) {
				t.Fatalf("after %d viewers %d hold %d bytes, want %d; %d were cut off", i+1, n, bytes, want, ended.Load())
			}
		}
	}
	cam.run.End("test over")
}
