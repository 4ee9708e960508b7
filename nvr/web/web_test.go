package web

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
	"holdfast/nvr/mp4/mp4test"
	"holdfast/nvr/store"
)

// recorder is a store with one camera, and the API over it.
type recorder struct {
	testing.TB
	dir       string
	anonymous string
	store     *store.Store
	server    *httptest.Server
	uuid      string
	log       *bytes.Buffer // of the handlers
	ahead     atomic.Int64  // of the wall clock since start, ns
	frozen    bool          // it does not go on by itself
	born      time.Time
	end       func() // as the process ends: requests are given up
}

// start is when the recordings of tests begin: a wall time in a zone that has
// summer time.
var start = time.Date(2026, 10, 24, 21, 0, 30, 5e8, time.UTC)

func newRecorder(t testing.TB, anonymous string) *recorder {
	t.Helper()
	return (&recorder{TB: t, anonymous: anonymous}).setUp()
}

// newFrozenRecorder is for short tests of exact times.
func newFrozenRecorder(t testing.TB, anonymous string) *recorder {
	t.Helper()
	return (&recorder{TB: t, anonymous: anonymous, frozen: true}).setUp()
}

func (r *recorder) setUp() *recorder {
	r.Helper()
	r.dir, r.log, r.born = r.TempDir(), new(bytes.Buffer), time.Now()
	r.Cleanup(func() { r.stop() })
	r.start()
	var err error
	r.uuid, err = r.store.AddCamera(r.Context(), store.CameraConfig{ShortName: "Küche 1", Streams: map[string]store.StreamConfig{
		"main": {URL: "rtsp://admin:geheim@192.0.2.7/main", Record: true, RetainBytes: 1 << 30},
		"sub":  {URL: "rtsp://192.0.2.7/sub", Record: true, RetainBytes: 1 << 30},
	}})
	if err != nil {
		r.Fatal(err)
	}
	return r
}

func (r *recorder) start() {
	r.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		r.Fatal(err)
	}
	r.store, err = store.Open(r.Context(), store.Config{
		Dir: r.dir, TimeZone: zone, Now: r.now,
	})
	if err != nil {
		r.Fatal(err)
	}
	var ctx context.Context
	ctx, r.end = context.WithCancel(context.Background())
	log := slog.New(slog.NewTextHandler(r.log, nil))
	h := held(r, Config{
		Store: r.store, Log: log, Anonymous: r.anonymous, Version: "v1-test",
		UI: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") }),
	})
	r.server = httptest.NewUnstartedServer(h)
	r.server.Config = Server(ctx, h, log)
	r.server.Listener = Limit([]net.Listener{r.server.Listener})[0]
	r.server.Start()
}

// now is the wall clock. It goes on: one that stood still would be a step of the
// clock, which splits runs, for a test that takes a second and more.
func (r *recorder) now() time.Time {
	now := start.Add(time.Duration(r.ahead.Load()))
	if !r.frozen {
		now = now.Add(time.Since(r.born))
	}
	return now
}

func (r *recorder) stop() {
	r.Helper()
	r.end()
	r.server.Close()
	if err := r.store.Close(context.Background()); err != nil {
		r.Errorf("close store: %v", err)
	}
}

// restart ends the recorder in good order and starts it again.
func (r *recorder) restart() {
	r.Helper()
	r.stop()
	r.start()
}

func (r *recorder) stream(typ string) *store.Stream {
	c, ok := r.store.Camera(r.uuid)
	if !ok {
		r.Fatal("the camera is gone")
	}
	return c.Stream(typ)
}

// feed is a camera session under way: 25 frames a second, a key frame every
// ten. Its clock runs as fast as it is asked to.
type feed struct {
	testing.TB
	run   *store.Run
	n     int // frames sent
	size  int // bytes of each
	gop   int // frames of each group of pictures; 0: 10
	entry *media.SampleEntry
	began time.Time

	sound  *media.SampleEntry // nil: silent
	sounds int                // sent
}

const frame = media.Second / 25

func (r *recorder) camera(typ string) *feed {
	f := &feed{TB: r.TB, run: r.stream(typ).Begin(nil), size: 100, entry: videoEntry(640, 360), began: time.Now()}
	return f
}

// cameraAt is one whose first picture comes so long after start, however long the
// machine takes. Nothing sets the clock for it, which would split the run.
func (r *recorder) cameraAt(typ string, after time.Duration) *feed {
	f := r.camera(typ)
	f.began = r.born.Add(after)
	return f
}

// cameraWithSound has a microphone, too: 1024 samples each time.
func (r *recorder) cameraWithSound(typ string) *feed {
	sound := &media.SampleEntry{
		Kind: media.Audio, Format: "mp4a", Codec: "mp4a.40.2", Timescale: 48000, Channels: 1, SampleRate: 48000, Config: []byte{0x11, 0x88},
	}
	f := r.camera(typ)
	f.run.End("camera has a microphone")
	f.run, f.sound = r.stream(typ).Begin(sound), sound
	return f
}

func videoEntry(w, h uint16) *media.SampleEntry {
	return &media.SampleEntry{
		Kind: media.Video, Format: "avc1", Codec: "avc1.4d401e", Timescale: 90000, Width: w, Height: h, PaspH: 1, PaspV: 1,
		Config: []byte{1, 0x4d, 0x40, 0x1e, 0xff, 0xe1, 0, 4, 0x67, 0x4d, 0x40, 0x1e, 1, 0, 2, 0x68, 0xee},
	}
}

// payload is the n-th frame: it tells its number.
func payload(n, size int) []byte {
	b := bytes.Repeat([]byte{byte(n)}, size)
	binary.BigEndian.PutUint32(b, uint32(size-4))
	binary.BigEndian.PutUint32(b[4:], uint32(n))
	return b
}

func (f *feed) send(frames int) {
	f.Helper()
	if err := f.fill(frames); err != nil {
		f.Fatal(err)
	}
}

// group is how many frames are in a group of pictures.
func (f *feed) group() int {
	if f.gop == 0 {
		return 10
	}
	return f.gop
}

func (f *feed) fill(frames int) error {
	for range frames {
		at := media.Duration(f.n) * frame
		err := f.run.Append(media.AccessUnit{
			DTS: int64(at), PTS: int64(at), Key: f.n%f.group() == 0, Data: payload(f.n, f.size), Entry: f.entry,
			Received: f.began.Add(at.Std()),
		})
		if err != nil {
			return fmt.Errorf("frame %d: %w", f.n, err)
		}
		f.n++
		for f.sound != nil && int64(f.sounds)*1024*90000 <= int64(at)*48000 {
			err := f.run.Append(media.AccessUnit{
				Kind: media.Audio, DTS: int64(f.sounds) * 1024, PTS: int64(f.sounds) * 1024, Key: true,
				Data: payload(f.sounds, 40), Entry: f.sound, Received: f.began.Add(at.Std()),
			})
			if err != nil {
				return fmt.Errorf("sound %d: %w", f.sounds, err)
			}
			f.sounds++
		}
	}
	return nil
}

// ask sends a request. headers are pairs of name and value.
func (r *recorder) ask(method, path, body string, headers ...string) *answer {
	r.Helper()
	req, err := http.NewRequest(method, r.server.URL+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	if body == "" {
		req.Body = nil
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.server.Client().Do(req)
	if err != nil {
		r.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatalf("%s %s: %v", method, path, err)
	}
	// Every film that is served can be read by others.
	if where, _, _ := strings.Cut(path, "?"); method == "GET" && resp.StatusCode == 200 && strings.HasSuffix(where, "/view.mp4") {
		if _, err := mp4test.Read(b); err != nil {
			r.Errorf("GET %s: %v", path, err)
		}
	}
	return &answer{resp.StatusCode, resp.Header, b}
}

func (r *recorder) get(path string, headers ...string) *answer {
	r.Helper()
	return r.ask("GET", path, "", headers...)
}

// path is an address below the camera's.
func (r *recorder) path(format string, args ...any) string {
	return "/api/cameras/" + r.uuid + "/" + fmt.Sprintf(format, args...)
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// decode reads the JSON of an answer.
func (a *answer) decode(t testing.TB, into any) {
	t.Helper()
	if a.status >= 300 || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s: %s", a.status, a.header.Get("Content-Type"), a.body)
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

func (r *recorder) json(path string, into any) {
	r.Helper()
	a := r.get(path)
	if a.status != 200 || a.header.Get("Content-Type") != "application/json" {
		r.Fatalf("GET %s: %d %s: %s", path, a.status, a.header.Get("Content-Type"), a.body)
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		r.Fatalf("GET %s: %v in %s", path, err, a.body)
	}
}

// Every route, and who gets what. A route that is not here fails the test.
func TestEveryRouteAsksWhoMay(t *testing.T) {
	routes := []struct {
		method, path, body string
		allowed            [3]int // status for "", view, admin
	}{
		{"GET", "/", "", [3]int{200, 200, 200}},
		{"GET", "/healthz", "", [3]int{200, 200, 200}},
		{"GET", "/metrics", "", [3]int{200, 200, 200}},
		{"GET", "/ca.pem", "", [3]int{404, 404, 404}},
		{"GET", "/api/", "", [3]int{401, 200, 200}},
		{"GET", "/api/?cameraConfigs=true", "", [3]int{401, 403, 200}},
		{"GET", "/api/openapi.yaml", "", [3]int{401, 200, 200}},
		{"GET", "/api/nothing", "", [3]int{401, 404, 404}},
		{"GET", "/api/events?x=1", "", [3]int{401, 400, 400}},
		{"GET", "/api/cameras/UUID/main/live.m4s?x=1", "", [3]int{401, 400, 400}},
		{"GET", "/api/cameras/UUID/", "", [3]int{401, 200, 200}},
		{"GET", "/api/cameras/UUID/?cameraConfigs=true", "", [3]int{401, 403, 200}},
		{"GET", "/api/cameras/UUID/main/recordings", "", [3]int{401, 200, 200}},
		{"GET", "/api/cameras/UUID/main/gaps", "", [3]int{401, 200, 200}},
		{"GET", "/api/cameras/UUID/main/view.mp4?s=0", "", [3]int{401, 200, 200}},
		{"GET", "/api/cameras/UUID/main/view.mp4.txt?s=0", "", [3]int{401, 200, 200}},
		{"GET", "/api/cameras/UUID/main/view.m4s?s=0", "", [3]int{401, 200, 200}},
		{"GET", "/api/cameras/UUID/main/view.m4s.txt?s=0", "", [3]int{401, 200, 200}},
		{"GET", "/api/init/1.mp4", "", [3]int{401, 200, 200}},
		{"POST", "/api/cameras/", `{"shortName":"x","streams":{"main":{"url":"rtsp://192.0.2.1/"}}}`, [3]int{401, 403, 201}},
		{"DELETE", "/api/cameras/UUID/", "", [3]int{401, 403, 204}},
		{"PUT", "/api/", "", [3]int{405, 405, 405}},
	}
	for i, anonymous := range []string{"", "view", "admin"} {
		r := newRecorder(t, anonymous)
		cam := r.camera("main")
		cam.send(25)
		for _, route := range routes {
			a := r.ask(route.method, strings.ReplaceAll(route.path, "UUID", r.uuid), route.body, "Content-Type", "application/json")
			if a.status != route.allowed[i] {
				t.Errorf("-allow-anonymous %q: %s %s: %d %s, want %d", anonymous, route.method, route.path, a.status, a.body, route.allowed[i])
			}
			if a.status == 401 && !strings.Contains(string(a.body), "-allow-anonymous") {
				t.Errorf("%s %s: 401 does not say what to do: %s", route.method, route.path, a.body)
			}
			if a.status >= 400 && !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
				t.Errorf("%s %s: error is %s", route.method, route.path, a.header.Get("Content-Type"))
			}
			if a.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %s: answer may be sniffed", route.method, route.path)
			}
		}
		cam.run.End("test over")
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	r := newRecorder(t, "admin")
	for _, path := range []string{"/api/", "/api/init/1.mp4", r.path("main/recordings"), r.path("main/view.mp4"), r.path("main/live.m4s"), "/healthz", "/metrics"} {
		if a := r.ask("PUT", path, "x"); a.status != 405 || !strings.Contains(a.header.Get("Allow"), "GET, HEAD") {
			t.Errorf("PUT %s: %d, Allow %q", path, a.status, a.header.Get("Allow"))
		}
	}
}

// A fault of ours is in the log, however quiet that is kept.
func TestPanicOfAHandlerIsLogged(t *testing.T) {
	var log bytes.Buffer
	for text, why := range map[string]any{"a promise was broken": "a promise was broken", "": http.ErrAbortHandler} {
		log.Reset()
		s := newRecorder(t, "view")
		h := held(t, Config{Store: s.store, Log: slog.New(slog.NewTextHandler(&log, nil)), Anonymous: "view",
			UI: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(why) })})
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler {
					t.Errorf("the server is told %v", p)
				}
			}()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://localhost/page", nil))
		}()
		got := log.String()
		if text == "" && got != "" || !strings.Contains(got, text) || text != "" && !strings.Contains(got, "level=ERROR") {
			t.Errorf("panic %v: logged %q", why, got)
		}
	}
}

func TestTopLevelTellsOfCameras(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(26)
	defer cam.run.End("test over")
	r.stream("main").SetState(store.Recording, "", []string{"audio: PCMA is not recorded"})
	r.stream("sub").SetState(store.Waiting, "connection refused", nil)

	var top topLevel
	r.json("/api/", &top)
	if top.ServerVersion != "v1-test" || top.TimeZoneName != "Europe/Berlin" || !top.Permissions.ViewVideo || top.Permissions.AdminCameras {
		t.Errorf("top level: %+v", top)
	}
	if len(top.Cameras) != 1 || top.Cameras[0].ShortName != "Küche 1" || top.Cameras[0].UUID != r.uuid {
		t.Fatalf("cameras: %+v", top.Cameras)
	}
	main, sub := top.Cameras[0].Streams["main"], top.Cameras[0].Streams["sub"]
	if main.Recordings != 1 || main.TotalDuration != 25*frame || main.MinStart == nil || *main.MaxEnd-*main.MinStart != media.Time(25*frame) {
		t.Errorf("totals of main: %+v", main)
	}
	if main.State.Phase != "recording" || len(main.State.Skipped) != 1 || main.State.Since == 0 {
		t.Errorf("state of main: %+v", main.State)
	}
	if sub.Recordings != 0 || sub.MinStart != nil || sub.State.Phase != "waiting" || sub.State.Reason != "connection refused" {
		t.Errorf("sub, which never recorded: %+v", sub)
	}

	var one cameraJSON
	r.json(r.path(""), &one)
	if one.UUID != r.uuid || len(one.Streams) != 2 {
		t.Errorf("one camera: %+v", one)
	}
	if a := r.get("/api/cameras/00000000-0000-0000-0000-000000000000/"); a.status != 404 {
		t.Errorf("a camera that does not exist: %d", a.status)
	}
}

func TestPasswordsAreNeverRead(t *testing.T) {
	r := newRecorder(t, "admin")
	for _, path := range []string{"/api/", "/api/?cameraConfigs=true", r.path("?cameraConfigs=true")} {
		a := r.get(path)
		if a.status != 200 || bytes.Contains(a.body, []byte("geheim")) {
			t.Errorf("GET %s: %d %s", path, a.status, a.body)
		}
	}
	var top topLevel
	r.json("/api/?cameraConfigs=true", &top)
	if c := top.Cameras[0].Streams["main"].Config; c == nil || c.URL != "rtsp://192.0.2.7/main" || c.Username != "admin" {
		t.Errorf("configuration: %+v", c)
	}
}

func TestCameraIsAddedAndDeleted(t *testing.T) {
	r := newRecorder(t, "admin")
	a := r.ask("POST", "/api/cameras/", `{"shortName":"front","description":"gate","streams":{"main":{"url":"rtsp://u:p@192.0.2.9/x","record":true,"rtspTransport":"udp","retainBytes":100000000,"flushIfSec":60}}}
`, "Content-Type", "application/json; charset=UTF-8")
	var made struct{ UUID string }
	if err := json.Unmarshal(a.body, &made); a.status != 201 || err != nil || made.UUID == "" {
		t.Fatalf("POST: %d %s", a.status, a.body)
	}
	if got, want := a.header.Get("Location"), "/api/cameras/"+made.UUID+"/"; got != want {
		t.Errorf("Location %s, want %s", got, want)
	}
	var one cameraJSON
	r.json("/api/cameras/"+made.UUID+"/?cameraConfigs=true", &one)
	if st := one.Streams["main"]; one.ShortName != "front" || one.Description != "gate" || st.RetainBytes != 100000000 || st.Config.RTSPTransport != "udp" || st.Config.FlushIfSec != 60 {
		t.Errorf("made: %+v", one)
	}
	if a := r.ask("DELETE", "/api/cameras/"+made.UUID+"/", ""); a.status != 204 {
		t.Fatalf("DELETE: %d %s", a.status, a.body)
	}
	if a := r.get("/api/cameras/" + made.UUID + "/"); a.status != 404 {
		t.Errorf("after DELETE: %d", a.status)
	}
	if a := r.ask("DELETE", "/api/cameras/"+made.UUID+"/", ""); a.status != 404 {
		t.Errorf("second DELETE: %d", a.status)
	}
}

// What is not named stays, and what is refused changes nothing.
func TestCameraIsChanged(t *testing.T) {
	r := newRecorder(t, "admin")
	patch := func(body string, status int, says string) {
		t.Helper()
		a := r.ask("PATCH", r.path(""), body, "Content-Type", "application/json")
		if a.status != status || !strings.Contains(string(a.body), says) {
			t.Errorf("%s: %d %s, want %d naming %q", body, a.status, a.body, status, says)
		}
	}
	patch(`{"update":{"shortName":"gate","description":"over it","streams":{"main":{"retainDays":7,"flushIfSec":60,"record":false}}},
		"precondition":{"shortName":"Küche 1","streams":{"main":{"retainDays":0,"record":true,"username":"admin"}}}}`, 204, "")
	var one cameraJSON
	check := func() {
		t.Helper()
		r.json(r.path("?cameraConfigs=true"), &one)
		if m := one.Streams["main"]; one.ShortName != "gate" || one.Description != "over it" || m.RetainDays != 7 || m.RetainBytes != 1<<30 || m.Record ||
			m.Config.FlushIfSec != 60 || m.Config.URL != "rtsp://192.0.2.7/main" || m.Config.Username != "admin" || len(one.Streams) != 2 {
			t.Errorf("the camera is %+v", one)
		}
	}
	check()
	if c := r.store.Export().Cameras[0].Streams["main"]; c.Password != "geheim" {
		t.Errorf("the password is %q", c.Password)
	}
	patch(`{"update":{"shortName":"x"},"precondition":{"shortName":"Küche 1"}}`, 412, "meanwhile")
	patch(`{"update":{"streams":{"main":{"url":"rtsp://192.0.2.66/main"}}}}`, 400, "streams.main.password: is to be given again")
	patch(`{"update":{"streams":{"main":{"retainBytes":-1}}}}`, 400, "streams.main.retainBytes")
	patch(`{"update":{"streams":{"main":{"retain":1}}}}`, 400, "update.streams.main.retain: is not a field")
	patch(`{"update":{"streams":{"main":{"record":"yes"}}}}`, 400, "update.streams.main.record")
	patch(`{"update":[]}`, 400, "update")
	patch(`{"precondition":{"x":1}}`, 400, "precondition.x")
	patch(`{"csrf":"x","update":{"shortName":"y"}}`, 400, "csrf")
	patch(`{"change":{}}`, 400, "change")
	patch(`{}`, 204, "")
	check()
	if strings.Contains(r.log.String(), "geheim") {
		t.Errorf("the log has the password: %s", r.log)
	}

	if a := r.ask("DELETE", r.path("sub/"), ""); a.status != 204 {
		t.Errorf("DELETE: %d %s", a.status, a.body)
	}
	if a := r.ask("DELETE", r.path("sub/"), ""); a.status != 404 {
		t.Errorf("second DELETE: %d %s", a.status, a.body)
	}
	if a := r.ask("DELETE", r.path("main/"), ""); a.status != 400 || !strings.Contains(string(a.body), "delete the camera") {
		t.Errorf("DELETE of the last stream: %d %s", a.status, a.body)
	}
}

func TestWrongCameraIsRefusedByField(t *testing.T) {
	r := newRecorder(t, "admin")
	good := `{"shortName":"x","streams":{"main":{"url":"rtsp://192.0.2.1/","record":true,"retainBytes":100000000}}}`
	for _, c := range []struct {
		name, body, contentType string
		status                  int
		says                    string
	}{
		{"no type", good, "", 400, "Content-Type"},
		{"a form", good, "text/plain", 400, "Content-Type"},
		{"unknown field", `{"shortName":"x","colour":"red","streams":{}}`, "application/json", 400, "colour"},
		{"unknown field of a stream", strings.Replace(good, "record", "rekord", 1), "application/json", 400, "rekord"},
		{"not JSON", `{"shortName":`, "application/json", 400, "camera"},
		{"empty", ` `, "application/json", 400, "camera"},
		{"more behind it", good + `{}`, "application/json", 400, "after its end"},
		{"garbage behind it", good + `x`, "application/json", 400, "after its end"},
		{"wrong URL", strings.Replace(good, "rtsp:", "file:", 1), "application/json", 400, "streams.main.url"},
		{"a name twice", strings.Replace(good, `"x"`, `"Küche 1"`, 1), "application/json", 400, "shortName"},
		{"too large", `{"shortName":"` + strings.Repeat("x", maxBody) + `"}`, "application/json", 413, "longer"},
		{"too large behind it", good + strings.Repeat(" ", maxBody), "application/json", 413, "longer"},
	} {
		a := r.ask("POST", "/api/cameras/", c.body, "Content-Type", c.contentType)
		if a.status != c.status || !strings.Contains(string(a.body), c.says) {
			t.Errorf("%s: %d %s, want %d naming %q", c.name, a.status, a.body, c.status, c.says)
		}
	}
	if n := len(r.store.Cameras()); n != 1 {
		t.Errorf("%d cameras after refusals, want 1", n)
	}
}

func TestOtherSitesChangeNothing(t *testing.T) {
	r := newRecorder(t, "admin")
	body := `{"shortName":"evil","streams":{"main":{"url":"rtsp://192.0.2.1/"}}}`
	for _, h := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Origin", "http://evil.example"},
	} {
		headers := append(h, "Content-Type", "application/json")
		if a := r.ask("POST", "/api/cameras/", body, headers...); a.status != 403 {
			t.Errorf("POST with %s: %d, want 403", h, a.status)
		}
		if a := r.ask("DELETE", r.path(""), "", headers...); a.status != 403 {
			t.Errorf("DELETE with %s: %d, want 403", h, a.status)
		}
	}
	if len(r.store.Cameras()) != 1 {
		t.Error("the cameras were changed")
	}
}

func TestListingMergesTheRecordingsOfARun(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(25*150 + 1) // two and a half minutes: three or four recordings
	cam.run.End("camera closed the connection")
	again := r.camera("main")
	again.entry = videoEntry(1280, 720)
	again.began = cam.began.Add(10 * time.Minute)
	again.send(51)
	defer again.run.End("test over")

	var all recordingsJSON
	r.json(r.path("main/recordings"), &all)
	if len(all.Recordings) != 2 {
		t.Fatalf("%d rows, want one for each run: %+v", len(all.Recordings), all.Recordings)
	}
	first, second := all.Recordings[0], all.Recordings[1]
	if first.EndID == nil || *first.EndID-first.StartID < 2 || first.RunStartID != first.StartID {
		t.Errorf("ids of the first run: %+v", first)
	}
	if first.VideoSamples != 25*150+1 || !first.HasTrailingZero || first.EndReason != "camera closed the connection" || first.Growing {
		t.Errorf("first run: %+v", first)
	}
	if d := first.End.Sub(first.Start) - 150*media.Second; d < -media.Second/10 || d > media.Second/10 {
		t.Errorf("first run lasts %v", first.End.Sub(first.Start))
	}
	if first.FirstUncommitted == nil || *first.FirstUncommitted != first.StartID {
		t.Errorf("nothing was flushed, but firstUncommitted is %v", first.FirstUncommitted)
	}
	if !second.Growing || second.EndID != nil || second.StartID != *first.EndID+1 || second.VideoSamples != 50 || second.HasTrailingZero || second.EndReason != "" {
		t.Errorf("second run: %+v", second)
	}
	if second.VideoEntryID == first.VideoEntryID || len(all.VideoEntries) != 2 {
		t.Errorf("sample entries: %+v", all.VideoEntries)
	}
	if e := all.VideoEntries[fmt.Sprint(second.VideoEntryID)]; e != (entryJSON{1280, 720, 1, 1, 16, 9}) {
		t.Errorf("sample entry of the second run: %+v", e)
	}

	// Cut into pieces of a minute, nothing is lost.
	var cut recordingsJSON
	r.json(r.path("main/recordings?split90k=%d", media.Minute), &cut)
	var samples int64
	for i, row := range cut.Recordings {
		samples += row.VideoSamples
		if row.EndID != nil && row.End.Sub(row.Start) > media.Minute {
			t.Errorf("row %d lasts %v, split at a minute", i, row.End.Sub(row.Start))
		}
	}
	if len(cut.Recordings) < 4 || samples != first.VideoSamples+second.VideoSamples {
		t.Errorf("split: %d rows with %d samples", len(cut.Recordings), samples)
	}

	// A range is half open, and rows may stand out of it.
	var some recordingsJSON
	r.json(r.path("main/recordings?startTime90k=%d&endTime90k=%d", first.Start+1, first.Start+2), &some)
	if len(some.Recordings) != 1 || some.Recordings[0].StartID != first.StartID || some.Recordings[0].EndID != nil {
		t.Errorf("a moment of the first recording: %+v", some.Recordings)
	}
	r.json(r.path("main/recordings?endTime90k=%d", first.Start), &some)
	if len(some.Recordings) != 0 {
		t.Errorf("before everything: %+v", some.Recordings)
	}
	r.json(r.path("main/recordings?startTime90k=2026-10-24&endTime90k=2026-10-25"), &some)
	if len(some.Recordings) != 2 {
		t.Errorf("by the day in the recorder's zone: %d rows", len(some.Recordings))
	}
	r.json(r.path("sub/recordings"), &some)
	if some.Recordings == nil || len(some.Recordings) != 0 {
		t.Errorf("a stream without recordings: %+v", some.Recordings)
	}
}

func TestWrongListingsAreRefused(t *testing.T) {
	r := newRecorder(t, "view")
	for path, want := range map[string]int{
		"main/recordings?startTime90k=x":                   400,
		"main/recordings?startTime90k=1&startTime90k=2":    400,
		"main/recordings?startTime90k=2&endTime90k=1":      400,
		"main/recordings?split90k=0":                       400,
		"main/recordings?split90k=-5":                      400,
		"main/recordings?days=true":                        400,
		"main/recordings?startTime90k=%zz":                 400,
		"main/recordings?startTime90k=9223372036854775807": 400,
		"ext/recordings":                                   404,
		"main/gaps?split90k=1":                             400,
		"main/gaps?startTime90k=2&endTime90k=1":            400,
		"ext/gaps":                                         404,
		"third/recordings":                                 404,
		"/recordings":                                      405, // as of a stream that can be deleted
	} {
		if a := r.get(r.path("") + path); a.status != want {
			t.Errorf("GET %s: %d %s, want %d", path, a.status, a.body, want)
		}
	}
}

// A camera that is away is no fault of the recorder, a disk is. Who may not
// look is not told of cameras.
func TestHealthIsHonest(t *testing.T) {
	r := newRecorder(t, "view")
	for _, st := range []string{"main", "sub"} {
		r.stream(st).SetState(store.Recording, "", nil)
	}
	shed := t.TempDir()
	uuid, err := r.store.AddCamera(t.Context(), store.CameraConfig{ShortName: "shed", Streams: map[string]store.StreamConfig{
		"main": {URL: "rtsp://192.0.2.1/", Record: true, RetainBytes: 1 << 30, SampleFileDir: shed}}})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := r.store.Camera(uuid)
	c.Stream("main").SetState(store.Waiting, "rtsp://192.0.2.1/: connection refused", nil)
	// check asks for the status, the cause of the check of the second directory, and
	// what does not record.
	check := func(status int, cause string, recording int, not ...notRecordingJSON) {
		t.Helper()
		a := r.get("/healthz")
		var h healthJSON
		if err := json.Unmarshal(a.body, &h); err != nil {
			t.Fatalf("%v: %s", err, a.body)
		}
		if a.status != status || h.OK != (status == 200) || h.Streams.Wanted != 3 || h.Streams.Recording != recording || !slices.Equal(h.NotRecording, not) {
			t.Errorf("%d %s, want %d", a.status, a.body, status)
		}
		if len(h.Checks) != 3 || h.Checks[0] != (checkJSON{"database", true, ""}) || h.Checks[1] != (checkJSON{"directory 1", true, ""}) {
			t.Fatalf("checks: %s", a.body)
		}
		if c := h.Checks[2]; c.Name != "directory 2" || c.OK != (cause == "") || !strings.HasPrefix(c.Cause, cause) {
			t.Errorf("%+v, want cause %q", c, cause)
		}
	}
	check(200, "", 2, notRecordingJSON{"shed", "main", "rtsp://192.0.2.1/: connection refused"})

	r.stop()
	if err := os.Remove(filepath.Join(shed, "meta")); err != nil {
		t.Fatal(err)
	}
	r.start()
	refused := "sample directory " + shed + " has no meta file"
	check(503, refused, 0, notRecordingJSON{"Küche 1", "main", "off"}, notRecordingJSON{"Küche 1", "sub", "off"}, notRecordingJSON{"shed", "main", "off"})
	r.anonymous = ""
	r.restart()
	check(503, refused, 0)
}

// On an appliance the recorder shows how the machine fared.
func TestMachineIsShown(t *testing.T) {
	r := newRecorder(t, "view")
	m := &Machine{Board: "amd64", Version: "v7", Watchdog: "none: no driver",
		Resets:   []Ended{{Time: "2026-11-23T14:00:00Z", Reason: "nvr cannot be killed"}},
		Restarts: []Ended{{Reason: "silent for 20s"}}}
	h := held(t, Config{Store: r.store, Machine: m, Anonymous: "view"})
	get := func(path string) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost"+path, nil))
		return w.Body.String()
	}
	var health healthJSON
	if err := json.Unmarshal([]byte(get("/healthz")), &health); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, health.Machine); diff != "" || !health.OK {
		t.Errorf("/healthz is %t; machine (-want +got)\n%s", health.OK, diff)
	}
	var top struct{ Machine *Machine }
	if err := json.Unmarshal([]byte(get("/api/")), &top); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, top.Machine); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	m.Resets, m.Restarts = nil, nil
	h = held(t, Config{Store: r.store, Machine: m, Anonymous: "view"})
	if top := get("/api/"); !strings.Contains(top, `"resets":[],"restarts":[]`) {
		t.Errorf("a machine that never ended: %s", top)
	}
	if a := r.get("/api/"); strings.Contains(string(a.body), "machine") {
		t.Errorf("a recorder without an appliance speaks of a machine: %s", a.body)
	}
}

// Rows of all lists have a bound together, and those of one by itself; a short list
// is answered whatever the others are.
func TestListsAreBounded(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(25 * 60 * 4)
	defer cam.run.End("test over")
	s := &server{Config: Config{Store: r.store, Now: time.Now}, log: slog.New(slog.DiscardHandler), lists: share{most: rowsAtOnce, always: 2}}
	c, _ := r.store.Camera(r.uuid)
	ask := func(query string) (int, string) {
		t.Helper()
		req := httptest.NewRequest("GET", r.path("main/recordings%s", query), nil)
		req.SetPathValue("stream", "main")
		req = req.WithContext(context.WithValue(context.WithValue(t.Context(), cameraKey{}, c), callerKey{}, anyone("")))
		w := httptest.NewRecorder()
		if err := s.recordings(w, req); err != nil {
			return s.refusal(req, err)
		}
		return w.Code, w.Body.String()
	}
	done, ok := s.lists.take(anyone(""), 3)
	if !ok {
		t.Fatal("no room at the beginning")
	}
	if status, text := ask("?split90k=1"); status != 503 || !strings.Contains(text, "rows are listed") {
		t.Errorf("a long list: %d %s", status, text)
	}
	if status, _ := ask(""); status != 200 {
		t.Errorf("a short list: %d", status)
	}
	done()
	for range 3 { // what was listed is counted no more
		status, text := ask("?split90k=1")
		var list recordingsJSON
		if err := json.Unmarshal([]byte(text), &list); status != 200 || err != nil || len(list.Recordings) < 4 || len(list.VideoEntries) != 1 || s.lists.held != 0 {
			t.Errorf("%d %s, %v; %d are held", status, text, err, s.lists.held)
		}
	}

	l := list{share: &share{most: mostListed, always: alwaysRows}, of: anyone("")}
	for n := range mostRows {
		if err := l.grow(n); err != nil {
			t.Fatalf("row %d: %v", n, err)
		}
	}
	if err, ok := errors.AsType[*httpError](l.grow(mostRows)); !ok || err.status != 400 {
		t.Errorf("one more: %v", err)
	}
	if l.share.held < mostRows-alwaysRows-rowsAtOnce || l.share.held > mostRows+rowsAtOnce {
		t.Errorf("%d are held", l.share.held)
	}
	if l.end(); l.share.held != 0 {
		t.Errorf("%d are held in the end", l.share.held)
	}
}

// A row goes on where the one before ended, or it is a row of its own.
func TestRowsMergeOnlyWhatAdjoins(t *testing.T) {
	base := store.RecordingInfo{No: 5, RunOffset: 2, OpenID: 1, VideoEntryID: 1, Start: 1000, WallDuration: 100}
	next := store.RecordingInfo{No: 6, RunOffset: 3, OpenID: 1, VideoEntryID: 1, Start: 1100, WallDuration: 100}
	for name, c := range map[string]struct {
		change func(*store.RecordingInfo)
		split  media.Duration
		want   bool
	}{
		"the next":             {func(*store.RecordingInfo) {}, 200, true},
		"longer than split":    {func(*store.RecordingInfo) {}, 199, false},
		"another run":          {func(r *store.RecordingInfo) { r.RunOffset = 0 }, 200, false},
		"another open":         {func(r *store.RecordingInfo) { r.OpenID = 2 }, 200, false},
		"another sample entry": {func(r *store.RecordingInfo) { r.VideoEntryID = 2 }, 200, false},
		"one between deleted":  {func(r *store.RecordingInfo) { r.No, r.RunOffset = 7, 4 }, 200, false},
	} {
		first, b := store.SpanOf(&base), next
		c.change(&b)
		a, second := newRow(&first), store.SpanOf(&b)
		if got := a.merge(&second, c.split); got != c.want {
			t.Errorf("%s: merged %v, want %v", name, got, c.want)
		}
	}
}
