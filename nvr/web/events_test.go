package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/access"
	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// event is one server-sent event.
type event struct {
	name, id string
	data     map[string]any
	text     string
}

// follower reads /api/events.
type follower struct {
	testing.TB
	rd *bufio.Reader
}

func (r *recorder) follow(headers ...string) *follower {
	r.Helper()
	resp := r.open("/api/events", headers...)
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		r.Errorf("Content-Type %s", got)
	}
	return &follower{r.TB, bufio.NewReader(resp.Body)}
}

// next reads an event; io.EOF is its name at the end.
func (f *follower) next() (e event) {
	f.Helper()
	for {
		line, err := f.rd.ReadString('\n')
		if err != nil {
			return event{name: io.EOF.Error(), text: err.Error()}
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			e.text = value
			if err := json.Unmarshal([]byte(value), &e.data); err != nil {
				f.Fatalf("event %s: %v in %s", e.name, err, value)
			}
		case "":
			if e.name != "" {
				return e
			}
		}
	}
}

// until reads up to an event that fits.
func (f *follower) until(name string, fits func(event) bool) event {
	f.Helper()
	var seen []string
	for {
		e := f.next()
		if e.name == name && (fits == nil || fits(e)) {
			return e
		}
		if seen = append(seen, e.name+" "+e.text); e.name == io.EOF.Error() {
			f.Fatalf("no event %s that fits, but:\n%s", name, strings.Join(seen, "\n"))
		}
	}
}

// from converts what an event says to what the API says.
func (e event) as(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(e.text), into); err != nil {
		t.Fatal(err)
	}
}

func TestEventsBeginWithTheState(t *testing.T) {
	r := newRecorder(t, "admin")
	f := r.follow()
	e := f.next()
	var told, asked topLevel
	e.as(t, &told)
	r.json("/api/", &asked)
	if e.name != "state" || len(told.Cameras) != 1 || told.Cameras[0].UUID != r.uuid || len(told.Directories) != 1 ||
		!reflect.DeepEqual(told.Directories, asked.Directories) {
		t.Errorf("%s %s", e.name, e.text)
	}
}

// What a page would ask again and again for comes by itself, in the words of the API.
func TestEventsTellWhatChanges(t *testing.T) {
	r := newRecorder(t, "admin")
	f := r.follow()
	f.until("state", nil)
	st := r.stream("main")

	st.SetState(store.Connecting, "", nil)
	st.Wait(store.CameraUnreachable, "rtsp://192.0.2.7/main: no answer")
	waits := f.until("stream", func(e event) bool {
		var s streamEvent
		e.as(t, &s)
		return s.Stream == "main" && s.State.Phase == store.Waiting
	})
	f.until("gaps", func(e event) bool {
		var g gapsEvent
		e.as(t, &g)
		return g.Camera == r.uuid && g.Stream == "main" && g.Gaps[0].Cause == store.CameraUnreachable && g.Gaps[0].Growing
	})
	if waits.data["camera"] != r.uuid || waits.data["totalSampleFileBytes"] != 0.0 {
		t.Errorf("%s", waits.text)
	}

	cam := r.camera("main")
	cam.send(1)
	st.SetState(store.Recording, "", []string{"audio: PCMA is not recorded"})
	f.until("stream", func(e event) bool {
		var s streamEvent
		e.as(t, &s)
		return s.State.Phase == store.Recording && len(s.State.Skipped) == 1
	})
	cam.send(30)
	rows := func(fits func(row) bool) recordingsEvent {
		t.Helper()
		var out recordingsEvent
		f.until("recordings", func(e event) bool {
			out = recordingsEvent{}
			e.as(t, &out)
			return fits(out.Recordings[0])
		})
		if out.Camera != r.uuid || out.Stream != "main" || len(out.VideoEntries) != 1 {
			t.Errorf("%+v", out)
		}
		return out
	}
	rows(func(a row) bool { return a.StartID == 0 && a.Growing && a.VideoSamples == 1 })
	cam.run.End("the camera closed the connection")
	ended := rows(func(a row) bool { return !a.Growing })
	var list recordingsJSON
	r.json(r.path("main/recordings"), &list)
	if got, want := fmt.Sprintf("%+v", ended.Recordings[0]), fmt.Sprintf("%+v", list.Recordings[0]); jsonOf(t, ended.Recordings[0]) != jsonOf(t, list.Recordings[0]) {
		t.Errorf("told of %s, listed %s", got, want)
	}

	a := r.ask("POST", "/api/cameras/", `{"shortName":"gate","streams":{"main":{"url":"rtsp://u:geheim@192.0.2.9/"}}}`, "Content-Type", "application/json")
	var made struct{ UUID string }
	if err := json.Unmarshal(a.body, &made); err != nil {
		t.Fatal(err)
	}
	added := f.until("camera", func(e event) bool { return e.data["uuid"] == made.UUID })
	if added.data["shortName"] != "gate" || strings.Contains(added.text, "geheim") || strings.Contains(added.text, "rtsp") {
		t.Errorf("%s", added.text)
	}
	flush := 60
	if err := r.store.Import(t.Context(), store.Settings{Cameras: []store.CameraConfig{{ShortName: "gate", Description: "the north one",
		Streams: map[string]store.StreamConfig{"main": {URL: "rtsp://192.0.2.9/", RTSPTransport: "tcp", FlushIfSec: &flush}}}}}); err != nil {
		t.Fatal(err)
	}
	f.until("camera", func(e event) bool { return e.data["description"] == "the north one" })
	if a := r.ask("DELETE", "/api/cameras/"+made.UUID+"/", ""); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	f.until("cameraDeleted", func(e event) bool { return e.data["uuid"] == made.UUID })
}

func jsonOf(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A client that comes back misses nothing, or gets everything.
func TestEventsGoOnWhereTheyWereBrokenOff(t *testing.T) {
	r := newRecorder(t, "view")
	st := r.stream("main")
	f := r.follow()
	f.until("state", nil)
	say := func(reason string) { st.SetState(store.Connecting, reason, nil) }
	say("one")
	one := f.until("stream", nil)
	say("two")
	say("three")
	again := r.follow("Last-Event-ID", one.id)
	if e := again.next(); e.name != "stream" {
		t.Errorf("after %s: %s %s %s", one.id, e.name, e.id, e.text)
	}
	for _, id := range []string{"x", "", "1", "0.1", fmt.Sprintf("%d.99999", r.store.OpenID()), "1.-1", fmt.Sprintf("%d.0", r.store.OpenID()+1)} {
		if e := r.follow("Last-Event-ID", id).next(); e.name != "state" {
			t.Errorf("after %q: %s", id, e.name)
		}
	}
	for n := range 2000 { // more than are kept
		say(fmt.Sprint(n))
	}
	if e := r.follow("Last-Event-ID", one.id).next(); e.name != "state" || !strings.Contains(e.text, `"reason":"1999"`) {
		t.Errorf("after more than is kept: %s %s", e.name, e.text)
	}
}

// stuckWriter is a client that takes nothing until it is let.
type stuckWriter struct {
	http.ResponseWriter
	let   chan struct{}
	stuck chan struct{}
	n     int
	lost  bool   // it was told to ask anew
	again func() // it is told something behind that
}

func (w *stuckWriter) Write(b []byte) (int, error) {
	if w.n++; w.n == 2 {
		close(w.stuck)
		<-w.let
	}
	if w.lost = w.lost || bytes.Contains(b, []byte("event: resync\n")); w.lost && bytes.Contains(b, []byte(`"reason":"again `)) {
		w.again()
	}
	return w.ResponseWriter.Write(b)
}

func (w *stuckWriter) Flush() {}

// A client that is too slow is told to ask anew, and nobody waits for it.
func TestSlowFollowerIsToldToAskAnew(t *testing.T) {
	r := newRecorder(t, "view")
	h := held(t, Config{Store: r.store, Anonymous: "view"})
	st := r.stream("main")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	rec := httptest.NewRecorder()
	w := &stuckWriter{ResponseWriter: rec, let: make(chan struct{}), stuck: make(chan struct{}), again: cancel}
	done := make(chan struct{})
	r.follow().until("state", nil)
	go func() {
		defer close(done)
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/api/events", nil).WithContext(ctx))
	}()
	for n := 0; ; n++ {
		st.SetState(store.Connecting, fmt.Sprint(n), nil) // until it has begun to follow
		select {
		case <-w.stuck:
		default:
			continue
		}
		break
	}
	cam := r.camera("main")
	for n := range 2000 {
		st.SetState(store.Waiting, fmt.Sprint(n), nil)
	}
	cam.send(25)
	cam.run.End("test over")
	if _, err := r.store.AddCamera(t.Context(), store.CameraConfig{ShortName: "gate", Streams: map[string]store.StreamConfig{
		"main": {URL: "rtsp://192.0.2.9/"}}}); err != nil { // which flushes
		t.Fatal(err)
	}
	// It goes on behind what was told before it was let.
	f := r.follow()
	f.until("state", nil)
	close(w.let)
	end := make(chan struct{})
	go func() {
		defer close(end)
		for n := 0; ctx.Err() == nil; n++ {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				st.SetState(store.Connecting, fmt.Sprint("again ", n), nil)
				if n == 60_000 {
					cancel()
				}
			}
		}
	}()
	<-done
	<-end
	b := rec.Body.String()
	if i := strings.LastIndex(b, "event: resync\nid: "); i < 0 || !strings.Contains(b[i:], `"reason":"again `) {
		t.Errorf("%.3000s", b)
	}
}

// A viewer is told of its cameras, and of nothing that it may not ask for.
func TestEventsShowOnlyWhatTheCallerMaySee(t *testing.T) {
	g := newGuarded(t, nil)
	if a := g.send("", "GET", "/api/events", ""); a.status != 401 {
		t.Errorf("nobody: %d %s", a.status, a.body)
	}
	// One who sees A live and nothing that was recorded.
	if a := g.send("admin", "POST", "/api/users/", fmt.Sprintf(`{"user":{"username":"live","password":"only live of A","permissions":{"cameras":{%q:["live"]}}}}`, g.uuids["A"])); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	g.who["live"] = g.cookie(g.send("", "POST", "/api/login", `{"username":"live","password":"only live of A"}`))
	followers := make(map[string]*follower)
	for _, who := range []string{"A", "B", "live", "admin"} {
		followers[who] = g.follow("Cookie", g.who[who])
		var top topLevel
		followers[who].until("state", nil).as(t, &top)
		if n := len(top.Cameras); n != map[string]int{"A": 1, "B": 1, "live": 1, "admin": 2}[who] || (len(top.Directories) > 0) != (who == "admin") {
			t.Errorf("%s: %d cameras, %d directories", who, n, len(top.Directories))
		}
	}
	for _, name := range []string{"B", "A"} {
		c, _ := g.store.Camera(g.uuids[name])
		st := c.Stream("main")
		st.Wait(store.CameraUnreachable, "no answer")
		run := st.Begin(nil)
		if err := (&feed{run: run, size: 100, entry: videoEntry(640, 360), began: time.Now()}).fill(50); err != nil {
			t.Fatal(err)
		}
		run.End("test over")
	}
	// Last, an end that all see.
	flush := 60
	if err := g.store.Import(t.Context(), store.Settings{Cameras: []store.CameraConfig{
		{ShortName: "Küche 1", Description: "end", Streams: map[string]store.StreamConfig{"main": {URL: "rtsp://192.0.2.7/main", FlushIfSec: &flush}}},
		{ShortName: "back", Description: "end", Streams: map[string]store.StreamConfig{"main": {URL: "rtsp://192.0.2.8/main", FlushIfSec: &flush}}},
	}}); err != nil {
		t.Fatal(err)
	}
	for who, f := range followers {
		seen := make(map[string]bool)
		for ends := 0; ends < map[string]int{"A": 1, "B": 1, "live": 1, "admin": 2}[who]; {
			e := f.next()
			camera := ""
			for name, uuid := range g.uuids {
				if strings.Contains(e.text, uuid) {
					camera = name
				}
			}
			seen[e.name+" "+camera] = true
			if e.name == "camera" && e.data["description"] == "end" {
				ends++
			}
			if e.name == io.EOF.Error() {
				t.Fatalf("%s: %s", who, e.text)
			}
		}
		for _, kind := range []string{"stream", "recordings", "gaps"} {
			for _, camera := range []string{"A", "B"} {
				want := who == "admin" || who == camera || who == "live" && camera == "A" && kind == "stream"
				if got := seen[kind+" "+camera]; got != want {
					t.Errorf("%s is told of %s of %s: %t", who, kind, camera, got)
				}
			}
		}
	}
}

// Events end at once when the session does or rights change, also for a client that
// takes none.
func TestEventsEndWithTheSession(t *testing.T) {
	g := newGuarded(t, nil)
	for _, c := range []struct{ who, method, path, body string }{
		{"A", "PATCH", "/api/users/%d", `{"update":{"permissions":{"cameras":{}}}}`},
		{"B", "DELETE", "/api/users/%d/sessions", ""},
	} {
		f := g.follow("Cookie", g.who[c.who])
		f.until("state", nil)
		if a := g.send("admin", c.method, fmt.Sprintf(c.path, g.ids[c.who]), c.body); a.status != 204 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if e := f.until("session", nil); e.data["ended"] != true || !strings.Contains(e.text, "sign in again") {
			t.Errorf("%s", e.text)
		}
		if e := f.next(); e.name != io.EOF.Error() {
			t.Errorf("after the end: %s", e.name)
		}
		if a := g.send(c.who, "GET", "/api/events", ""); a.status != 401 {
			t.Errorf("again: %d", a.status)
		}
	}

	g.who["B"] = g.cookie(g.send("", "POST", "/api/login", `{"username":"of B","password":"password of B"}`))
	s := newServer(Config{Store: g.store, Access: g.users})
	ended := make(chan struct{})
	var writing atomic.Int64
	inner := s.handler()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		inner.ServeHTTP(&notingWriter{w, &writing}, r)
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /api/events HTTP/1.1\r\nHost: localhost\r\nCookie: %s\r\n\r\n", g.who["B"])
	c, _ := g.store.Camera(g.uuids["B"])
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n, began := 0, time.Now(); ; n++ {
		// Until a write waits for the client.
		if at := writing.Load(); at != 0 && time.Since(time.Unix(0, at)) > time.Second/5 {
			break
		}
		if time.Since(began) > 2*time.Minute {
			t.Fatal("the client takes everything")
		}
		<-tick.C
		c.Stream("main").SetState(store.Connecting, fmt.Sprintf("%d %s", n, strings.Repeat("x", 256<<10)), nil)
	}
	if a := g.send("admin", "DELETE", fmt.Sprintf("/api/users/%d/sessions", g.ids["B"]), ""); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	select {
	case <-ended:
	case <-time.After(answerTime / 2):
		t.Error("the client keeps its connection by taking nothing")
	}
}

// notingWriter notes since when a write goes on, 0 when none does.
type notingWriter struct {
	http.ResponseWriter
	writing *atomic.Int64
}

func (w *notingWriter) Write(b []byte) (int, error) {
	w.writing.Store(time.Now().UnixNano())
	defer w.writing.Store(0)
	return w.ResponseWriter.Write(b)
}

func (w *notingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestFollowersAreCounted(t *testing.T) {
	var f followers
	var gone []func()
	in := func(who string) error {
		g, err := f.take(who)
		if err == nil {
			gone = append(gone, g)
		}
		return err
	}
	status := func(err error) int {
		if err, ok := err.(*httpError); ok {
			return err.status
		}
		return 200
	}
	for range mostFollowersOne {
		if err := in("1"); err != nil {
			t.Fatal(err)
		}
	}
	if got := status(in("1")); got != 429 {
		t.Errorf("one more of the same: %d", got)
	}
	for i := mostFollowersOne; i < mostFollowers; i++ {
		if err := in(fmt.Sprint("other ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := status(in("2")); got != 503 {
		t.Errorf("one more of all: %d", got)
	}
	for _, g := range gone {
		g()
	}
	if f.n != 0 || len(f.one) != 0 {
		t.Errorf("all gone, and %d are counted, %v", f.n, f.one)
	}
	if a, b := followerOf(&caller{peer: access.Peer{Address: "192.0.2.1"}}), followerOf(&caller{Subject: access.Subject{UserID: 1}}); a == b {
		t.Errorf("nobody and a user count as %s", a)
	}
}

// Who goes is counted out, and leaves nothing running.
func TestFollowersLeave(t *testing.T) {
	r := newRecorder(t, "view")
	s := newServer(Config{Store: r.store, Anonymous: "view"})
	h := s.handler()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := httptest.NewRecorder()
		go h.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/api/events", nil).WithContext(ctx))
		synctest.Wait()
		time.Sleep(3*heartbeat + time.Second)
		synctest.Wait()
		if n := strings.Count(w.Body.String(), ":\n\n"); n != 3 {
			t.Errorf("%d heartbeats in %v:\n%s", n, 3*heartbeat, w.Body)
		}
		if s.followers.n != 1 {
			t.Errorf("%d followers", s.followers.n)
		}
		cancel()
		synctest.Wait()
		if s.followers.n != 0 {
			t.Errorf("%d followers after it has gone", s.followers.n)
		}
	})
	if a := r.ask("HEAD", "/api/events", ""); a.status != 200 {
		t.Errorf("HEAD: %d", a.status)
	}
}

func TestFollowersEndWithTheServer(t *testing.T) {
	r := newRecorder(t, "view")
	f := r.follow()
	f.until("state", nil)
	r.end()
	if e := f.next(); e.name != io.EOF.Error() {
		t.Errorf("%s %s", e.name, e.text)
	}
}

// The clock of a machine without a battery is told of when it is set: what was
// recorded before is elsewhere then.
func TestClockIsTold(t *testing.T) {
	r := newRecorder(t, "view")
	f := r.follow()
	f.until("state", nil)
	r.ahead.Add(int64(time.Hour))
	e := f.until("clock", nil)
	var c clockEvent
	e.as(t, &c)
	if !c.Set || c.Now < media.TimeOf(start.Add(time.Hour)) {
		t.Errorf("%s", e.text)
	}
}

// Cameras, streams and directories that are changed, deleted and added over the API
// are told of, in its words; directories to administrators alone.
func TestEventsTellOfTheConfiguration(t *testing.T) {
	g := newGuarded(t, nil)
	f, viewer := g.follow("Cookie", g.who["admin"]), g.follow("Cookie", g.who["A"])
	f.until("state", nil)
	viewer.until("state", nil)
	a := "/api/cameras/" + g.uuids["A"]
	ask := func(want int, method, path, body string) *answer {
		t.Helper()
		got := g.send("admin", method, path, body)
		if got.status != want {
			t.Fatalf("%s %s: %d %s, want %d", method, path, got.status, got.body, want)
		}
		return got
	}
	ask(204, "PATCH", a+"/", `{"update":{"description":"over the gate","streams":{"ext":{"url":"rtsp://192.0.2.7/ext"}}}}`)
	var ext int32
	for _, f := range []*follower{f, viewer} {
		var c cameraJSON
		f.until("camera", nil).as(t, &c)
		if ext = c.Streams["ext"].ID; c.UUID != g.uuids["A"] || c.Description != "over the gate" || ext == 0 {
			t.Errorf("camera %+v", c)
		}
	}
	ask(204, "DELETE", a+"/ext/", "")
	for _, f := range []*follower{f, viewer} {
		var gone streamDeletedJSON
		f.until("streamDeleted", nil).as(t, &gone)
		if want := (streamDeletedJSON{g.uuids["A"], "ext", ext}); gone != want {
			t.Errorf("streamDeleted %+v, want %+v", gone, want)
		}
		var c cameraJSON
		if f.until("camera", nil).as(t, &c); c.Streams["ext"].ID != 0 {
			t.Errorf("camera %+v", c)
		}
	}
	path := filepath.Join(t.TempDir(), "second")
	where := ask(201, "POST", "/api/dirs/", fmt.Sprintf(`{"path":%q}`, path)).header.Get("Location")
	var d dirJSON
	f.until("directory", func(e event) bool { d = dirJSON{}; e.as(t, &d); return d.Path == path })
	var list struct{ Dirs []dirJSON }
	ask(200, "GET", "/api/dirs/", "").decode(t, &list)
	if got := list.Dirs[1]; d.ID != got.ID || d.State != "ok" || got.State != d.State || got.Path != d.Path {
		t.Errorf("directory %+v, listed %+v", d, got)
	}
	ask(204, "DELETE", where, "")
	var gone dirDeletedJSON
	f.until("directoryDeleted", nil).as(t, &gone)
	if want := (dirDeletedJSON{d.ID, path}); gone != want {
		t.Errorf("directoryDeleted %+v, want %+v", gone, want)
	}
	ask(204, "PATCH", a+"/", `{"update":{"description":""}}`)
	for {
		e := viewer.next()
		if strings.HasPrefix(e.name, "directory") {
			t.Errorf("a viewer is told %s %s", e.name, e.text)
		}
		if e.name == "camera" && e.data["description"] == "" || e.name == io.EOF.Error() {
			break
		}
	}
}
