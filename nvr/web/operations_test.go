package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/nvr/access"
	"holdfast/nvr/design"
	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// rightOf is what the page calls the right that a route asks for.
func rightOf(r route) string {
	if r.public {
		return "everybody"
	}
	return map[access.Action]string{
		access.LookAround: "any", access.ViewVideo: "video", access.ViewLive: "live", access.ViewRecorded: "recorded", access.Administer: "administrator",
	}[r.action]
}

// The page has every route, with the right that it asks for, and no other.
func TestRoutesAreThoseOfThePage(t *testing.T) {
	for _, b := range thePage(t).routesDiffer(routes) {
		t.Error(b)
	}
}

// driven is a recorder whose answers are taken down.
type driven struct {
	*guarded
	page *document
	seen *seen
	cfg  Config
}

func newDriven(t *testing.T, claimed bool, s *seen) *driven {
	d := &driven{page: thePage(t), seen: s}
	begin := unclaimedRecorder
	if claimed {
		begin = newGuarded
	}
	d.guarded = begin(t, func(c *Config) {
		c.Machine = &Machine{Board: "amd64", Version: "v7", Watchdog: "none: no driver",
			Resets: []Ended{{Time: "2026-11-23T14:00:00Z", Reason: "nvr cannot be killed"}}}
		c.TryStream = func(context.Context, store.Source) (media.Measured, store.Cause, error) {
			return media.Measured{}, store.CameraUnreachable, errors.New("nobody is there")
		}
		c.TLS = &TLS{Fault: func() string { return "" }, CA: func() []byte { return []byte("-----BEGIN CERTIFICATE-----\n") }, Port: "443"}
		d.cfg = *c
	})
	d.server.Config.Handler = hold(d.page, New(d.cfg), false, s, func(breach string) { t.Error(breach) })
	return d
}

// drive sends a request that has to be answered with a status.
func (d *driven) drive(want int, who, method, path, body string, headers ...string) *answer {
	d.Helper()
	if !strings.HasPrefix(path, "/api") && body != "" && !slices.Contains(headers, "Content-Type") {
		headers = append(headers, "Content-Type", "application/x-www-form-urlencoded")
	}
	var a *answer
	where, _, _ := strings.Cut(path, "?")
	if op, _ := d.page.find(method, &url.URL{Path: where}); op != nil && op.endless && method == "GET" && want == 200 {
		a = d.peek(who, path, headers...)
	} else {
		a = d.send(who, method, path, body, headers...)
	}
	if a.status != want {
		d.Errorf("%s %.120s as %q: %d %.200s, want %d", method, path, who, a.status, a.body, want)
	}
	return a
}

// peek sends a request whose answer does not end, and ends it at its first bytes.
func (d *driven) peek(who, path string, headers ...string) *answer {
	d.Helper()
	ctx, cancel := context.WithCancel(d.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", d.server.URL+path, nil)
	if err != nil {
		d.Fatal(err)
	}
	req.Header.Set("Cookie", d.who[who])
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := d.server.Client().Do(req)
	if err != nil {
		d.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 1<<10)
	n, err := io.ReadAtLeast(resp.Body, b, 2)
	if err != nil {
		d.Fatalf("GET %s: %v", path, err)
	}
	return &answer{resp.StatusCode, resp.Header, b[:n]}
}

// direct sends a request without a connection.
func (d *driven) direct(ctx context.Context, w http.ResponseWriter, who, method, path, body, from string) {
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body)).WithContext(ctx)
	r.RemoteAddr = from + ":1"
	r.Header.Set("Cookie", d.who[who])
	r.Header.Set("Content-Type", "application/json")
	if !strings.HasPrefix(path, "/api") {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	d.server.Config.Handler.ServeHTTP(w, r)
}

// address is where an operation is, with what its path needs, and its query.
func (d *driven) address(op *operation) string {
	path := strings.NewReplacer("{uuid}", d.uuids["A"], "{stream}", "main", "{file}", "1.mp4", "{user}", "1", "{session}", "1", "{dir}", "1").Replace(op.path)
	if at := op.query["s"]; at != "" {
		path += "?s=0"
	}
	return path
}

// refusals drives what each operation refuses in the same way.
func (d *driven) refusals(op *operation) {
	method, path := strings.ToUpper(op.method), d.address(op)
	has := func(status int) bool { return d.page.at(pointer(op.ptr, "responses", fmt.Sprint(status))) != nil }
	form := []string{"Content-Type", "application/json"}
	if op.pages {
		form = []string{"Content-Type", "application/x-www-form-urlencoded"}
	}
	if d.page.at(op.ptr+"/x-right") != "everybody" {
		d.drive(401, "", method, path, "", "Authorization", "Bearer x")
	}
	body := "{}"
	if method == "GET" {
		d.drive(400, "admin", method, path, body, form...)
		body = ""
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "http://stranger.example"+path, nil)
	d.server.Config.Handler.ServeHTTP(w, r)
	if w.Code != 421 {
		d.Errorf("%s of another name: %d", op, w.Code)
	}
	if method != "GET" {
		d.drive(403, "admin", method, path, "", "Sec-Fetch-Site", "cross-site")
	} else {
		head := d.send("admin", "HEAD", path, "") // as GET
		get := &answer{}
		if op.endless {
			get = d.peek("admin", path)
		} else {
			get = d.send("admin", "GET", path, "")
		}
		if head.status != get.status || len(head.body) != 0 {
			d.Errorf("HEAD %s: %d, GET: %d", path, head.status, get.status)
		}
	}
	if has(413) && (op.tag() != "claim" || d.users.Unclaimed()) {
		long := fmt.Sprintf(`{"x":%q}`, strings.Repeat("x", maxBody))
		d.drive(413, "admin", method, path, long, form...)
	}
	if has(400) && !op.pages && (op.tag() != "claim" || d.users.Unclaimed()) {
		query := "?undescribed=1"
		if strings.Contains(path, "?") {
			query = "&undescribed=1"
		}
		d.drive(400, "admin", method, path+query, body, form...)
	}
	if has(404) && strings.Contains(op.path, "{") {
		none := strings.NewReplacer(d.uuids["A"], "00000000-0000-4000-8000-000000000000", "users/1", "users/x", "dirs/1", "dirs/x", "/1.mp4", "/999.mp4").Replace(path)
		d.drive(404, "admin", method, none, body, form...)
	}
	a := d.drive(405, "admin", "PUT", path, "")
	if !strings.Contains(a.header.Get("Allow"), method) {
		d.Errorf("PUT %s: Allow %q", path, a.header.Get("Allow"))
	}
}

// tag is the last name in the path of an operation.
func (o *operation) tag() string { return o.path[strings.LastIndexByte(o.path, '/')+1:] }

// stuck is a client that takes nothing until it is let go.
type stuck struct {
	*httptest.ResponseRecorder
	begun, release chan struct{}
	once           sync.Once
}

func (s *stuck) WriteHeader(status int) {
	s.ResponseRecorder.WriteHeader(status)
	s.once.Do(func() { close(s.begun) })
	<-s.release
}

// busy asks for so many passwords to be hashed at once that some are sent away.
func (d *driven) busy(who, method, path string, body func(i int) string) {
	d.Helper()
	ctx, cancel := context.WithCancel(d.Context())
	defer cancel()
	var wg sync.WaitGroup
	var told atomic.Bool
	for i := range 80 {
		wg.Go(func() {
			w := httptest.NewRecorder()
			d.direct(ctx, w, who, method, path, body(i), fmt.Sprintf("198.51.%d.%d", len(path), i+1))
			if w.Code == 503 && strings.Contains(w.Body.String(), "too many are signing in") {
				told.Store(true)
				cancel() // those that wait need not have their turn
			}
		})
	}
	wg.Wait()
	if !told.Load() {
		d.Errorf("%s %s: nobody was sent away", method, path)
	}
}

// Every operation of the page is driven, to success and to each status that it
// has; what is in the page and was not seen fails, as does what was seen and is
// not in the page.
func TestEveryOperationIsAsDescribed(t *testing.T) {
	s := &seen{at: make(map[string]bool)}
	d := newDriven(t, true, s)
	a, b := "/api/cameras/"+d.uuids["A"], "/api/cameras/"+d.uuids["B"]

	// A camera whose disk is away, recordings of two runs, and one that grows.
	const first, last = 0, 1
	for range 2 {
		run := d.camera("main")
		run.send(51)
		run.run.End("camera closed the connection")
		d.ahead.Add(int64(5 * time.Second))
	}
	cam := d.camera("main")
	cam.send(25 * 80) // two recordings
	end := sync.OnceFunc(func() { cam.run.End("test over") })
	defer end()
	d.stream("main").SetState(store.Recording, "", []string{"audio: PCMA is not recorded"})
	d.stream("sub").SetState(store.Waiting, "connection refused", nil)
	d.stream("sub").Wait(store.CameraUnreachable, "no answer")
	d.ahead.Add(int64(10 * time.Minute))

	for _, op := range d.page.operations() {
		d.refusals(op)
	}
	film := fmt.Sprintf(a+"/main/view.mp4?s=%d-%d", first, last)
	segment := fmt.Sprintf(a+"/main/view.m4s?s=%d", first)

	// Viewers: of live video alone, and of nothing.
	for who, rights := range map[string]string{"live": `"live"`, "none": ""} {
		d.drive(201, "admin", "POST", "/api/users/", fmt.Sprintf(
			`{"csrf":"","user":{"username":%q,"password":"password","disabled":false,"permissions":{"administrator":false,"allCameras":[],"cameras":{%q:[%s]}}}}`,
			who, d.uuids["A"], rights))
		d.who[who] = d.cookie(d.drive(204, "", "POST", "/api/login", fmt.Sprintf(`{"username":%q,"password":"password"}`, who)))
	}
	ghost := "/api/users/6"
	d.drive(201, "admin", "POST", "/api/users/", `{"user":{"username":"ghost"}}`)

	type request struct {
		want                    int
		who, method, path, body string
		headers                 []string
	}
	shed := filepath.Join(t.TempDir(), "shed")
	if err := os.Mkdir(shed, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, r := range []request{
		{200, "", "GET", "/healthz", "", nil},
		{200, "admin", "GET", "/metrics", "", []string{"Accept-Encoding", "gzip"}},
		{200, "admin", "GET", "/metrics", "", []string{"Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"}},
		{200, "admin", "GET", "/api/openapi.yaml", "", nil},
		{200, "", "GET", "/ca.pem", "", nil},
		{200, "A", "GET", "/api/events", "", []string{"Last-Event-ID", "1.0"}},
		{200, "A", "GET", a + "/main/live.m4s", "", nil},
		{426, "A", "HEAD", a + "/main/live.m4s", "", []string{"Upgrade", "websocket", "Connection", "Upgrade"}},
		{401, "", "GET", "/api/", "", nil},
		{403, "A", "GET", "/api/?cameraConfigs=true", "", nil},
		{200, "A", "GET", "/api/request", "", nil},

		{201, "admin", "POST", "/api/cameras/", fmt.Sprintf(`{"shortName":"shed","description":"","streams":{"main":{"url":"rtsp://192.0.2.9/","username":"u",
			"password":"p","record":true,"rtspTransport":"udp","retainBytes":100000000,"retainDays":30,"flushIfSec":60,"sampleFileDir":%q}}}`, shed), nil},
		{400, "admin", "POST", "/api/cameras/", `{"shortName":"shed","streams":{"main":{"url":"rtsp://192.0.2.9/"}}}`, nil},
		{400, "admin", "POST", "/api/cameras/", `{"shortName":"y","streams":{"main":{"url":"rtsp://192.0.2.9/","sampleFileDir":"/nothing/there"}}}`, nil},
		{403, "A", "POST", "/api/cameras/", `{}`, nil},
		{200, "admin", "GET", "/api/?cameraConfigs=true", "", nil},
		{200, "admin", "GET", a + "/?cameraConfigs=true", "", nil},
		{403, "A", "GET", a + "/?cameraConfigs=true", "", nil},
		{404, "B", "GET", a + "/", "", nil},
		{204, "admin", "PATCH", a + "/", `{"csrf":"","update":{"description":"over the gate","streams":{"main":{"retainDays":30},"ext":{"url":"rtsp://192.0.2.7/ext"}}},"precondition":{"streams":{"main":{"record":true}}}}`, nil},
		{412, "admin", "PATCH", a + "/", `{"update":{},"precondition":{"description":"other"}}`, nil},
		{403, "A", "PATCH", a + "/", `{"update":{}}`, nil},
		{204, "admin", "DELETE", a + "/ext/", `{"csrf":""}`, nil},
		{400, "admin", "DELETE", b + "/main/", "", nil},
		{403, "A", "DELETE", a + "/sub/", "", nil},
		{204, "admin", "DELETE", b + "/", `{"csrf":""}`, nil},

		{200, "admin", "POST", "/api/test-stream", `{"csrf":"","url":"rtsp://192.0.2.9/","username":"u","password":"p","rtspTransport":"tcp"}`, nil},
		{200, "admin", "POST", "/api/test-stream", fmt.Sprintf(`{"camera":%q,"stream":"main"}`, d.uuids["A"]), nil},
		{404, "admin", "POST", "/api/test-stream", `{"camera":"00000000-0000-4000-8000-000000000000","stream":"main"}`, nil},
		{403, "A", "POST", "/api/test-stream", `{}`, nil},
		{200, "admin", "GET", "/api/dirs/", "", nil},
		{403, "A", "GET", "/api/dirs/", "", nil},
		{201, "admin", "POST", "/api/dirs/", fmt.Sprintf(`{"csrf":"","path":%q}`, shed+"s"), nil},
		{403, "A", "POST", "/api/dirs/", `{}`, nil},
		{409, "admin", "DELETE", "/api/dirs/1", "", nil},
		{403, "A", "DELETE", "/api/dirs/1", "", nil},
		{204, "admin", "DELETE", "/api/dirs/3", `{"csrf":""}`, nil},
		{200, "A", "GET", "/api/signals", "", nil},
		{200, "admin", "POST", "/api/signals", `{"csrf":"","signalIds":[],"states":[],"start":{"base":"now","rel90k":0},"end":{"base":"epoch","rel90k":161359128000000}}`, nil},
		{404, "admin", "POST", "/api/signals", `{"signalIds":[1],"states":[1],"start":{"base":"now","rel90k":0},"end":{"base":"now","rel90k":0}}`, nil},
		{403, "A", "POST", "/api/signals", `{}`, nil},

		{200, "A", "GET", a + "/main/recordings", "", nil},
		{403, "live", "GET", a + "/main/recordings", "", nil},
		{200, "A", "GET", a + "/sub/gaps", "", nil},
		{403, "live", "GET", a + "/sub/gaps", "", nil},
		{200, "A", "GET", "/api/timeline?startTime90k=2026-10-24T00:00:00&endTime90k=2026-10-26T00:00:00", "", nil},
		{400, "A", "GET", "/api/timeline?startTime90k=0", "", nil},
		{404, "live", "GET", "/api/timeline?startTime90k=0&endTime90k=9&stream=x/main", "", nil},

		{200, "A", "GET", film, "", nil},
		{206, "A", "GET", film, "", []string{"Range", "bytes=0-9"}},
		{206, "A", "GET", film, "", []string{"Range", "bytes=0-9,20-29"}},
		{304, "A", "GET", film, "", []string{"If-None-Match", "*"}},
		{412, "A", "GET", film, "", []string{"If-Match", `"other"`}},
		{416, "A", "GET", film, "", []string{"Range", "bytes=99999999-"}},
		{403, "live", "GET", film, "", nil},
		{200, "A", "GET", segment, "", nil},
		{200, "A", "GET", segment + ".90000-", "", nil},
		{206, "A", "GET", segment, "", []string{"Range", "bytes=0-9"}},
		{206, "A", "GET", segment, "", []string{"Range", "bytes=0-9,20-29"}},
		{304, "A", "GET", segment, "", []string{"If-None-Match", "*"}},
		{412, "A", "GET", segment, "", []string{"If-Match", `"other"`}},
		{416, "A", "GET", segment, "", []string{"Range", "bytes=99999999-"}},
		{403, "live", "GET", segment, "", nil},
		{403, "live", "GET", a + "/main/view.mp4.txt?s=0", "", nil},
		{403, "live", "GET", a + "/main/view.m4s.txt?s=0", "", nil},
		{200, "A", "GET", "/api/init/1.mp4", "", nil},
		{200, "A", "GET", "/api/init/1.mp4.txt", "", nil},
		{403, "none", "GET", "/api/init/1.mp4", "", nil},
		{426, "A", "HEAD", a + "/main/live.m4s", "", []string{"Upgrade", "websocket", "Connection", "Upgrade"}},
		{400, "A", "GET", a + "/main/live.m4s", "", []string{"Upgrade", "websocket", "Connection", "Upgrade"}},
		{403, "A", "GET", a + "/main/live.m4s", "", []string{"Upgrade", "websocket", "Connection", "Upgrade", "Origin", "http://stranger.example",
			"Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}},

		{401, "", "POST", "/api/login", `{"username":"x","password":"y"}`, nil},
		{400, "A", "POST", "/api/logout", `{"csrf":"x"}`, nil},
		{404, "", "GET", "/api/claim", "", nil},
		{404, "", "POST", "/api/claim", "{}", nil},
		{404, "", "GET", "/claim", "", nil},
		{404, "", "POST", "/claim", "code=x", nil},
		{200, "admin", "GET", "/login", "", nil},
		{303, "", "POST", "/login", "username=live&password=password", nil},
		{400, "", "POST", "/login", "username=%zz", nil},
		{401, "", "POST", "/login", "username=x&password=y", nil},
		{303, "", "POST", "/logout", "", nil},

		{200, "admin", "GET", "/api/users/", "", nil},
		{403, "A", "GET", "/api/users/", "", nil},
		{403, "A", "POST", "/api/users/", `{}`, nil},
		{409, "admin", "POST", "/api/users/", `{"user":{"username":"ghost"}}`, nil},
		{200, "admin", "GET", "/api/users/1", "", nil},
		{403, "A", "GET", "/api/users/1", "", nil},
		{204, "admin", "PATCH", "/api/users/1", `{"csrf":"","update":{"preferences":{"a":{}}},"precondition":{"preferences":{}}}`, nil},
		{403, "A", "PATCH", "/api/users/1", `{"update":{}}`, nil},
		{409, "admin", "PATCH", ghost, `{"update":{"username":"owner"}}`, nil},
		{412, "A", "PATCH", fmt.Sprintf("/api/users/%d", d.ids["A"]), `{"update":{"password":"another one"},"precondition":{"password":"wrong"}}`, nil},
		{204, "B", "PATCH", fmt.Sprintf("/api/users/%d", d.ids["B"]), `{"update":{"password":"another one"},"precondition":{"password":"password of B"}}`, nil},
		{204, "admin", "PATCH", ghost, `{"update":{"password":null},
			"precondition":{"username":"ghost","disabled":false,"password":null,"permissions":{"administrator":false}}}`, nil},
		{400, "admin", "DELETE", "/api/users/1", "", nil},
		{403, "A", "DELETE", "/api/users/1", "", nil},
		{204, "admin", "DELETE", ghost, `{"csrf":""}`, nil},
		{403, "A", "GET", "/api/users/1/sessions", "", nil},
		{403, "A", "DELETE", "/api/users/1/sessions", "", nil},
		{403, "A", "DELETE", "/api/users/1/sessions/1", "", nil},
		{403, "A", "POST", "/api/users/1/tokens", `{"name":"x","scope":[]}`, nil},
		{404, "admin", "DELETE", "/api/users/1/sessions/999", "", nil},
		{204, "admin", "DELETE", "/api/users/4/sessions", `{"csrf":""}`, nil},
		{204, "live", "POST", "/api/logout", `{"csrf":""}`, nil},
	} {
		d.drive(r.want, r.who, r.method, r.path, r.body, r.headers...)
	}
	var token struct{ ID int32 }
	made := d.drive(201, "admin", "POST", "/api/users/1/tokens", `{"csrf":"","name":"x","scope":["live","recorded"],"days":9}`)
	if err := json.Unmarshal(made.body, &token); err != nil {
		t.Fatal(err)
	}
	d.drive(200, "admin", "GET", "/api/users/1/sessions", "")
	d.drive(204, "admin", "DELETE", fmt.Sprintf("/api/users/1/sessions/%d", token.ID), `{"csrf":""}`)
	d.ahead.Add(int64(time.Minute)) // since what was committed with the changes of cameras
	d.drive(200, "A", "GET", a+"/sub/gaps", "")
	d.drive(200, "A", "GET", "/api/timeline?startTime90k=2026-10-24T00:00:00&endTime90k=2026-10-26T00:00:00&resolution90k=90000000&stream="+d.uuids["A"]+"/main", "")
	d.parameters()
	var ticket struct{ Ticket string }
	if err := json.Unmarshal(d.drive(200, "A", "POST", a+"/main/live-ticket", `{"csrf":""}`).body, &ticket); err != nil {
		t.Fatal(err)
	}
	if first, last := d.guarded.watch("", "A", "?ticket="+ticket.Ticket, nil); first != "picture" || last != "picture" {
		t.Errorf("live.m4s with a ticket: %.100s", first)
	}
	if first, last := d.guarded.watch("A", "A", "", nil); first != "picture" || last != "picture" {
		t.Errorf("live.m4s: %.100s", first)
	}

	d.films(a)
	d.scrapes()
	d.busy("", "POST", "/api/login", func(i int) string { return fmt.Sprintf(`{"username":"user %d","password":"x"}`, i) })
	d.busy("", "POST", "/login", func(i int) string { return fmt.Sprintf("username=form+%d&password=x", i) })
	d.busy("admin", "POST", "/api/users/", func(i int) string { return fmt.Sprintf(`{"user":{"username":"user %d","password":"password"}}`, i) })
	d.busy("admin", "PATCH", fmt.Sprintf("/api/users/%d", d.ids["B"]), func(int) string { return `{"update":{"password":"another one"}}` })
	d.tooMany("A", "PATCH", fmt.Sprintf("/api/users/%d", d.ids["A"]), `{"update":{"password":"another one"},"precondition":{"password":"wrong"}}`)
	d.tooMany("", "POST", "/api/login", `{"username":"x","password":"y"}`)
	d.tooMany("", "POST", "/login", "username=x&password=y")

	d.redirects()
	d.crowds(a)
	driveClaims(t, s)

	// What no test can wait for is at least as the page has it.
	now := media.TimeOf(start)
	number := int64(1)
	age := 1.5
	rare := streamJSON{ID: 1, Record: true, RetainBytes: 1, RetainDays: 1, MinStart: &now, MaxEnd: &now, TotalDuration: 1, TotalBytes: 1, FSBytes: 1,
		Recordings: 1, Watermark: now, DirError: "x", DirAlarm: "x", FilesToAdopt: 1,
		State:  stateJSON{Phase: store.Off, Since: now, Reason: "x", Skipped: []string{"x"}},
		Days:   map[string]dayJSON{"2026-10-24": {1, now, now}},
		Config: &configJSON{URL: "rtsp://192.0.2.1/", Username: "x", RTSPTransport: "tcp", FlushIfSec: 1, SampleFileDir: "/x"}}
	for i, v := 0, reflect.ValueOf(rare); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("%s is missing from the stream with every field", v.Type().Field(i).Name)
		}
	}
	d.fields("/components/schemas/Stream", rare)
	dir := dirJSON{1, "x", "failing", "x", "x", &number, &number, &number}
	d.fields("/components/schemas/Directory", dir)
	d.fields("/components/schemas/DirectoryReport", dirReportJSON{dir, 1, 1, 1, &age, &number, &age,
		[]dirStreamJSON{{d.uuids["A"], "x", "main", 1, &number, &age}}})
	healthy := healthJSON{OK: true, Checks: []checkJSON{{"database", false, "x"}}, NotRecording: []notRecordingJSON{{"x", "main", "x"}}, FilesToAdopt: 1, Restored: "x", TLS: "x",
		Machine: &Machine{"x", "x", "x", []Ended{{now.Std().Format(time.RFC3339), "x"}}, []Ended{}}}
	d.fields("/components/schemas/Health", healthy)
	d.fields("/components/schemas/Tried", triedJSON{true, store.OtherCause, "x",
		&triedVideo{"H.264", "x", "x", "x", 1, 1, 1, 1, 1, 1}, &triedAudio{"x", 1, 1}, []string{"x"}, "tcp", "x", 1})
	end()
	d.broken(a, shed)
	for _, b := range d.page.undriven(s) {
		t.Error(b)
	}
}

// fields takes down the fields of a value, which must be as a schema has it.
func (d *driven) fields(schema string, v any) {
	d.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		d.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		d.Fatal(err)
	}
	if err := d.page.valid(schema, value); err != nil {
		d.Errorf("%s: %v", text, err)
	}
	d.page.markFields(schema, value, d.seen)
}

// parameters drives each parameter of a query with the example of the page.
func (d *driven) parameters() {
	for _, op := range d.page.operations() {
		for name, at := range op.query {
			if d.page.node(at)["x-given"] == true {
				continue // what another answer gave
			}
			q := url.Values{}
			if op.query["s"] != "" && name != "s" {
				q.Set("s", "0")
			}
			examples, many := d.page.node(at)["example"].([]any)
			if !many {
				examples = []any{d.page.node(at)["example"]}
			}
			for _, v := range examples {
				q.Add(name, fmt.Sprint(v))
			}
			path, _, _ := strings.Cut(d.address(op), "?")
			d.drive(200, "admin", strings.ToUpper(op.method), path+"?"+q.Encode(), "")
		}
	}
}

// redirects asks over plain HTTP what is to come over TLS, and without TLS for
// what is there with it alone.
func (d *driven) redirects() {
	d.Helper()
	redirect := d.cfg
	tls := *redirect.TLS
	tls.Redirect, redirect.TLS = true, &tls
	without := d.cfg
	without.TLS = nil
	for _, c := range []struct {
		cfg        Config
		host, path string
		want       int
	}{
		{redirect, "localhost", "/login", 307},
		{redirect, "", "/login", 403},
		{without, "localhost", "/ca.pem", 404},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", c.path, nil)
		r.Host = c.host
		hold(d.page, New(c.cfg), false, d.seen, func(breach string) { d.Error(breach) }).ServeHTTP(w, r)
		if w.Code != c.want {
			d.Errorf("GET %s of %q: %d, want %d", c.path, c.host, w.Code, c.want)
		}
	}
}

// crowds asks for what others have as much of as there may be.
func (d *driven) crowds(camera string) {
	d.Helper()
	listed := func(s *server) { s.lists = share{} }
	for _, c := range []struct {
		want                    int
		who, method, path, body string
		change                  func(*server)
	}{
		{503, "A", "GET", "/api/events", "", func(s *server) { s.followers.n = mostFollowers }},
		{429, "A", "GET", "/api/events", "", func(s *server) { s.followers.one = map[string]int{fmt.Sprint(d.ids["A"]): mostFollowersOne} }},
		{503, "A", "GET", camera + "/main/recordings", "", listed},
		{503, "A", "GET", camera + "/sub/gaps", "", listed},
		{503, "A", "GET", "/api/timeline?startTime90k=2026-10-24T00:00:00&endTime90k=2026-10-26T00:00:00", "", listed},
		{503, "admin", "POST", "/api/test-stream", `{"url":"rtsp://192.0.2.9/"}`, func(s *server) { s.trying = nil }},
	} {
		s := newServer(d.cfg)
		c.change(s)
		w := httptest.NewRecorder()
		r := httptest.NewRequest(c.method, "http://localhost"+c.path, strings.NewReader(c.body))
		r.Header.Set("Cookie", d.who[c.who])
		r.Header.Set("Content-Type", "application/json")
		hold(d.page, s.handler(), false, d.seen, func(breach string) { d.Error(breach) }).ServeHTTP(w, r)
		if w.Code != c.want {
			d.Errorf("%s %s: %d %s, want %d", c.method, c.path, w.Code, w.Body, c.want)
		}
	}
}

// films asks for more recorded video than is sent at once.
func (d *driven) films(camera string) {
	d.Helper()
	// A recording more than four times would be as many as there may be.
	const parts = mostServed/4/4 + 1
	long := "?s=0-3.0-1" + strings.Repeat("&s=0-3.0-1", parts-1)
	release := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(release)
	for range 3 {
		w := &stuck{ResponseRecorder: httptest.NewRecorder(), begun: make(chan struct{}), release: release}
		wg.Go(func() { d.direct(d.Context(), w, "admin", "GET", camera+"/main/view.mp4"+long, "", "127.0.0.1") })
		select {
		case <-w.begun:
		case <-time.After(time.Minute):
			d.Fatal("a long film does not begin")
		}
		if w.Code != 200 {
			d.Errorf("a long film: %d %.200s", w.Code, w.Body)
		}
	}
	for _, file := range []string{"view.mp4", "view.mp4.txt", "view.m4s", "view.m4s.txt"} {
		w := httptest.NewRecorder()
		if d.direct(d.Context(), w, "admin", "GET", camera+"/main/"+file+long, "", "127.0.0.1"); w.Code != 503 {
			d.Errorf("%s beside others that are long: %d %.200s", file, w.Code, w.Body)
		}
	}
}

// scrapes asks for metrics, and is gone before they are there.
func (d *driven) scrapes() {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), 0)
	defer cancel()
	for range 1000 { // they may be there first
		w := httptest.NewRecorder()
		if d.direct(ctx, w, "admin", "GET", "/metrics", "", "127.0.0.1"); w.Code == 503 {
			return
		}
	}
	d.Error("metrics never take too long")
}

// tooMany tries until it is told to come back later.
func (d *driven) tooMany(who, method, path, body string) {
	d.Helper()
	for range 100 {
		w := httptest.NewRecorder()
		if d.direct(d.Context(), w, who, method, path, body, "192.0.2.99"); w.Code == 429 {
			return
		}
	}
	d.Errorf("%s %s: there is no limit", method, path)
}

// driveClaims drives what is there until a recorder is claimed.
func driveClaims(t *testing.T, s *seen) {
	d := newDriven(t, false, s)
	for _, op := range d.page.operations() {
		if op.tag() == "claim" {
			d.refusals(op)
		}
	}
	d.drive(303, "", "GET", "/login", "")
	d.drive(401, "", "GET", "/metrics", "")
	d.drive(200, "", "GET", "/claim", "")
	d.drive(200, "", "GET", "/api/claim", "")
	code, _ := d.users.ClaimCode()
	taken := "viewer"
	if _, err := d.users.AddUser(t.Context(), access.Nobody(access.Admin), access.UserChange{Name: &taken}); err != nil {
		t.Fatal(err)
	}
	body := func(code, name string) string {
		return fmt.Sprintf(`{"code":%q,"username":%q,"password":%q}`, code, name, ownerPassword)
	}
	form := func(code, name string) string {
		return url.Values{"code": {code}, "username": {name}, "password": {ownerPassword}}.Encode()
	}
	d.drive(403, "", "POST", "/api/claim", body("wrong", "owner"))
	d.drive(403, "", "POST", "/claim", form("wrong", "owner"))
	d.drive(409, "", "POST", "/api/claim", body(code, taken))
	d.drive(409, "", "POST", "/claim", form(code, taken))
	d.drive(400, "", "POST", "/claim", "username=owner&password=short&code="+code)
	// With a name that is taken it is claimed by none of them.
	d.busy("", "POST", "/api/claim", func(int) string { return body(code, taken) })
	d.busy("", "POST", "/claim", func(int) string { return form(code, taken) })
	d.tooMany("", "POST", "/api/claim", body("wrong", "owner"))
	d.tooMany("", "POST", "/claim", form("wrong", "owner"))
	d.drive(204, "", "POST", "/api/claim", body(code, "owner"))

	d = newDriven(t, false, s)
	code, _ = d.users.ClaimCode()
	d.drive(303, "", "POST", "/claim", form(code, "owner"))
}

// broken drives what a recorder answers that ends, that has ended, and one whose
// disk is away.
func (d *driven) broken(camera, shed string) {
	d.Helper()
	ctx, cancel := context.WithCancel(d.Context())
	cancel()
	w := httptest.NewRecorder()
	if d.direct(ctx, w, "admin", "GET", camera+"/?days=true", "", "127.0.0.1"); w.Code != 503 {
		d.Errorf("given up: %d %s", w.Code, w.Body)
	}
	d.stop()
	w = httptest.NewRecorder()
	if d.direct(d.Context(), w, "admin", "GET", camera+"/main/recordings", "", "127.0.0.1"); w.Code != 500 {
		d.Errorf("when the store is closed: %d %s", w.Code, w.Body)
	}
	if err := os.Remove(filepath.Join(shed, "meta")); err != nil {
		d.Fatal(err)
	}
	d.start()
	d.server.Config.Handler = hold(d.page, New(Config{Store: d.store, Anonymous: "view"}), true, d.seen, func(breach string) { d.Error(breach) })
	d.drive(503, "", "GET", "/healthz", "")
}

// Each deviation of an answer, a request or the page is told of.
func TestDeviationsFromThePageAreTold(t *testing.T) {
	page := thePage(t)
	g := newGuarded(t, nil)
	cfg := Config{Store: g.store, Access: g.users}
	recordings := "/api/cameras/" + g.uuids["A"] + "/main/recordings"
	instead := func(status int, typ, body string, headers ...string) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h := w.Header()
				for i := 0; i+1 < len(headers); i += 2 {
					h.Set(headers[i], headers[i+1])
				}
				h.Set("Content-Type", typ)
				h.Set("X-Content-Type-Options", "nosniff")
				h.Set("Referrer-Policy", "no-referrer")
				h.Set("Cross-Origin-Resource-Policy", "same-origin")
				w.WriteHeader(status)
				fmt.Fprint(w, body)
			})
		}
	}
	without := func(header string) func(http.Handler) http.Handler {
		return func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(&deaf{w, header}, r) })
		}
	}
	const text = "text/plain; charset=utf-8"
	for name, c := range map[string]struct {
		change                  func(http.Handler) http.Handler
		who, method, path, body string
		says                    string
	}{
		"as it is":                 {func(h http.Handler) http.Handler { return h }, "admin", "GET", recordings, "", ""},
		"another field":            {instead(200, "application/json", `{"recordings":[],"videoSampleEntries":{},"days":{}}`), "admin", "GET", recordings, "", "at '/days': false schema"},
		"a field less":             {instead(200, "application/json", `{"recordings":[]}`), "admin", "GET", recordings, "", "missing property 'videoSampleEntries'"},
		"a field's other type":     {instead(200, "application/json", `{"recordings":[],"videoSampleEntries":[]}`), "admin", "GET", recordings, "", "got array, want object"},
		"no JSON":                  {instead(200, "application/json", `{`), "admin", "GET", recordings, "", "EOF"},
		"another status":           {instead(418, text, "tea"), "admin", "GET", recordings, "", "418: a status that the page does not describe"},
		"a status of another":      {instead(409, text, "taken"), "admin", "GET", recordings, "", "409: a status"},
		"another type":             {instead(200, "text/html; charset=utf-8", "x"), "admin", "GET", recordings, "", `type "text/html; charset=utf-8" is not described`},
		"an error as JSON":         {instead(404, "application/json", `{}`), "admin", "GET", recordings, "", `type "application/json" is not described`},
		"an error of nothing":      {instead(404, text, ""), "admin", "GET", recordings, "", "it says nothing"},
		"another header":           {instead(404, text, "x", "X-Powered-By", "x"), "admin", "GET", recordings, "", "header X-Powered-By"},
		"a header less":            {without("X-Content-Type-Options"), "admin", "GET", recordings, "", "header X-Content-Type-Options is missing"},
		"a header of its own less": {without("Www-Authenticate"), "", "GET", recordings, "", "header WWW-Authenticate is missing"},
		"a body of none":           {instead(204, text, ""), "admin", "DELETE", "/api/users/9", "", "where the page has no body"},
		"another path":             {instead(200, text, "x"), "admin", "GET", "/api/nothing", "", "and not in the page"},
		"another parameter":        {instead(200, "application/json", `{"gaps":[]}`), "admin", "GET", strings.Replace(recordings, "recordings", "gaps?zone=x", 1), "", "parameter zone is not described"},
		"a parameter's other form": {instead(200, "application/json", `{"gaps":[]}`), "admin", "GET", strings.Replace(recordings, "recordings", "gaps?startTime90k=noon", 1), "", "parameter startTime90k"},
	} {
		var told []string
		h := hold(page, c.change(New(cfg)), false, nil, func(breach string) { told = append(told, breach) })
		r := httptest.NewRequest(c.method, "http://localhost"+c.path, strings.NewReader(c.body))
		r.Header.Set("Cookie", g.who[c.who])
		h.ServeHTTP(httptest.NewRecorder(), r)
		if c.says == "" && len(told) > 0 || c.says != "" && !strings.Contains(strings.Join(told, "\n"), c.says) {
			t.Errorf("%s: told %q, want %q", name, told, c.says)
		}
	}

	// The page itself: what it has too much, and what it lacks.
	for name, c := range map[string]struct{ old, new, says string }{
		"a path less":    {"  /api/request:\n", "  /api/requests:\n", "GET /api/request is not in the page"},
		"a path more":    {"  /api/request:\n", "  /api/requests:\n", "GET /api/requests is in the page, and not served"},
		"another method": {"  /api/login:\n    post:\n", "  /api/login:\n    put:\n", "PUT /api/login is in the page"},
		"another right":  {"operationId: recordings\n", "operationId: recordings\n      x-right: live\n", "mapping key"},
		"a right less":   {"      x-right: video\n", "", `asks for "video", the page has ""`},
		"a wrong tag":    {"operationId: logout\n      tags: [users]\n", "operationId: logout\n      tags: [state]\n", "wrong tag"},
	} {
		if n := strings.Count(design.OpenAPI(), c.old); n != 1 {
			t.Errorf("%s: %q is %d times in the page", name, c.old, n)
		}
		var told string
		if d, err := readDocument(strings.Replace(design.OpenAPI(), c.old, c.new, 1)); err != nil {
			told = err.Error()
		} else {
			told = strings.Join(d.routesDiffer(routes), "\n")
		}
		if !strings.Contains(told, c.says) {
			t.Errorf("%s: told %q, want %q", name, told, c.says)
		}
	}
	if b := page.undriven(&seen{at: make(map[string]bool)}); len(b) < 300 || !slices.Contains(b, "GET /healthz: 503 is in the page, and nothing drives it") {
		t.Errorf("nothing was driven, and %d are named", len(b))
	}
	for message, says := range map[string]string{
		`{"type":"dropped","frames":3}`: "", `{"type":"dropped","frames":0}`: "oneOf", `{"type":"error","message":"x","code":1}`: "oneOf", `x`: "invalid character",
	} {
		if b := strings.Join(page.checkMessage(true, []byte(message)), "\n"); (says == "") != (b == "") || !strings.Contains(b, says) {
			t.Errorf("message %s: told %q, want %q", message, b, says)
		}
	}
	if b := page.checkMessage(false, []byte("X-Runs: many\r\nX-Other: 1\r\n\r\nmoof")); len(b) != 8 {
		t.Errorf("a picture whose headers are wrong: told %q", b)
	}
}

// deaf loses a header of an answer.
type deaf struct {
	http.ResponseWriter
	header string
}

func (d *deaf) WriteHeader(status int) {
	d.Header().Del(d.header)
	d.ResponseWriter.WriteHeader(status)
}

func (d *deaf) Write(b []byte) (int, error) {
	d.Header().Del(d.header)
	return d.ResponseWriter.Write(b)
}

// Every test of this package passes through the page: the handler of New is
// made by held and hold alone.
func TestEveryTestIsHeldToThePage(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil || len(files) < 10 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(src), "\n") {
			made := regexp.MustCompile(`\bNew\((Config|cfg|d\.cfg)`).MatchString(line)
			if made && !strings.Contains(line, "hold(") && !strings.Contains(line, "what is measured") && !strings.Contains(line, "MustCompile") {
				t.Errorf("%s:%d: %s: answers of this handler are not held to openapi.yaml; use held", name, i+1, strings.TrimSpace(line))
			}
		}
	}
}
