package web

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"holdfast/nvr/access"
	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// safeBuffer is a log that is read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// guarded is a recorder with users and the cameras A and B.
type guarded struct {
	*recorder
	users *access.Access
	uuids map[string]string // of the cameras A and B
	who   map[string]string // cookies, by who: admin, A, B
	ids   map[string]int32  // of their users
}

const ownerPassword = "correct horse"

func newGuarded(t *testing.T, change func(*Config)) *guarded {
	t.Helper()
	g := unclaimedRecorder(t, change)
	code, _ := g.users.ClaimCode()
	g.who["admin"] = g.cookie(g.send("", "POST", "/api/claim", fmt.Sprintf(`{"code":%q,"username":"owner","password":%q}`, code, ownerPassword)))
	g.ids["admin"] = 1
	for name, rights := range map[string]string{"A": `"live","recorded"`, "B": `"live","export"`} {
		a := g.send("admin", "POST", "/api/users/", fmt.Sprintf(`{"user":{"username":"of %s","password":"password of %s",
			"permissions":{"cameras":{%q:[%s]}}}}`, name, name, g.uuids[name], rights))
		var made struct{ ID int32 }
		if err := json.Unmarshal(a.body, &made); err != nil || a.status != 201 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		g.ids[name] = made.ID
		g.who[name] = g.cookie(g.send("", "POST", "/api/login", fmt.Sprintf(`{"username":"of %s","password":"password of %s"}`, name, name)))
	}
	return g
}

func unclaimedRecorder(t *testing.T, change func(*Config)) *guarded {
	t.Helper()
	r := newRecorder(t, "")
	g := &guarded{recorder: r, uuids: map[string]string{"A": r.uuid}, who: make(map[string]string), ids: make(map[string]int32)}
	var err error
	if g.uuids["B"], err = r.store.AddCamera(t.Context(), store.CameraConfig{ShortName: "back", Streams: map[string]store.StreamConfig{
		"main": {URL: "rtsp://192.0.2.8/main", Record: true, RetainBytes: 1 << 30},
	}}); err != nil {
		t.Fatal(err)
	}
	g.users, err = access.Open(t.Context(), access.Config{DB: r.store.Database(), Claim: true, ClaimFile: filepath.Join(t.TempDir(), "code")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.users.Close)
	cfg := Config{Store: r.store, Access: g.users, UI: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "page") })}
	if change != nil {
		change(&cfg)
	}
	r.server.Config.Handler = held(t, cfg)
	r.server.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return g
}

// send sends a request as somebody. headers are pairs of name and value.
func (g *guarded) send(who, method, path, body string, headers ...string) *answer {
	g.Helper()
	if cookie := g.who[who]; cookie != "" {
		headers = append(headers, "Cookie", cookie)
	}
	if body != "" && !slices.Contains(headers, "Content-Type") {
		headers = append(headers, "Content-Type", "application/json")
	}
	return g.ask(method, path, body, headers...)
}

// cookie is what an answer sets.
func (g *guarded) cookie(a *answer) string {
	g.Helper()
	if a.status >= 400 {
		g.Fatalf("%d %s", a.status, a.body)
	}
	cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	return cookie
}

// Every route × who asks × camera. A route that has no row here fails the test.
func TestEveryRouteAsksForEveryCamera(t *testing.T) {
	// Statuses of nobody, the viewer of A, the viewer of B, the administrator.
	type row struct {
		path, body string
		onA, onB   [4]int
	}
	both := func(path, body string, s [4]int) []row { return []row{{path, body, s, s}} }
	all200 := [4]int{200, 200, 200, 200}
	unlimited := [4]int{-1, -1, -1, -1} // not asked: tries are limited
	table := map[string][]row{
		"GET /healthz":          both("/healthz", "", all200),
		"GET /metrics":          both("/metrics", "", all200),
		"GET /api/openapi.yaml": both("/api/openapi.yaml", "", [4]int{401, 200, 200, 200}),
		"GET /ca.pem":           both("/ca.pem", "", [4]int{404, 404, 404, 404}),
		"GET /api/{$}": append(both("/api/?days=true", "", [4]int{401, 200, 200, 200}),
			both("/api/?cameraConfigs=true", "", [4]int{401, 403, 403, 200})...),
		"GET /api/events":       both("/api/events?x=1", "", [4]int{401, 400, 400, 400}), // TestEventsShowOnlyWhatTheCallerMaySee has the rest
		"POST /api/cameras/{$}": both("/api/cameras/", `{}`, [4]int{401, 403, 403, 400}),
		"GET /api/cameras/{uuid}/{$}": {
			{"/api/cameras/UUID/", "", [4]int{401, 200, 404, 200}, [4]int{401, 404, 200, 200}},
			{"/api/cameras/UUID/?cameraConfigs=true", "", [4]int{401, 403, 404, 200}, [4]int{401, 404, 403, 200}},
		},
		"DELETE /api/cameras/{uuid}/{$}": {{"/api/cameras/UUID/?x=1", "", [4]int{401, 403, 404, 400}, [4]int{401, 404, 403, 400}}},
		"PATCH /api/cameras/{uuid}/{$}": {
			{"/api/cameras/UUID/", `{"update":{}}`, [4]int{401, 403, 404, 204}, [4]int{401, 404, 403, 204}},
			{"/api/cameras/UUID/", `{"update":{"shortName":""}}`, [4]int{401, 403, 404, 400}, [4]int{401, 404, 403, 400}}},
		"DELETE /api/cameras/{uuid}/{stream}/{$}": {
			{"/api/cameras/UUID/main/?x=1", "", [4]int{401, 403, 404, 400}, [4]int{401, 404, 403, 400}}},
		"GET /api/cameras/{uuid}/{stream}/recordings": {
			{"/api/cameras/UUID/main/recordings", "", [4]int{401, 200, 404, 200}, [4]int{401, 404, 200, 200}}},
		"GET /api/timeline": append(both("/api/timeline?startTime90k=0&endTime90k=9", "", [4]int{401, 200, 200, 200}),
			row{"/api/timeline?startTime90k=0&endTime90k=9&stream=UUID/main", "", [4]int{401, 200, 404, 200}, [4]int{401, 404, 200, 200}}),
		"GET /api/cameras/{uuid}/{stream}/gaps": {
			{"/api/cameras/UUID/main/gaps", "", [4]int{401, 200, 404, 200}, [4]int{401, 404, 200, 200}}},
		"GET /api/cameras/{uuid}/{stream}/view.mp4": {
			{"/api/cameras/UUID/main/view.mp4?s=0", "", [4]int{401, 200, 404, 200}, [4]int{401, 404, 200, 200}}},
		"GET /api/cameras/{uuid}/{stream}/view.mp4.txt": {
			{"/api/cameras/UUID/main/view.mp4.txt?s=0", "", [4]int{401, 200, 404, 200}, [4]int{401, 404, 200, 200}}},
		"GET /api/cameras/{uuid}/{stream}/view.m4s": {
			{"/api/cameras/UUID/main/view.m4s?s=0", "", [4]int{401, 200, 404, 200}, [4]int{401, 404, 200, 200}}},
		"GET /api/cameras/{uuid}/{stream}/view.m4s.txt": {
			{"/api/cameras/UUID/main/view.m4s.txt?s=0", "", [4]int{401, 200, 404, 200}, [4]int{401, 404, 200, 200}}},
		"GET /api/cameras/{uuid}/{stream}/live.m4s": { // without an upgrade, and 400 before it begins; TestLiveVideoAsksWhoMay has the rest
			{"/api/cameras/UUID/main/live.m4s?x=1", "", [4]int{401, 400, 404, 400}, [4]int{401, 404, 400, 400}}},
		"POST /api/cameras/{uuid}/{stream}/live-ticket": {
			{"/api/cameras/UUID/main/live-ticket", "{}", [4]int{401, 200, 404, 200}, [4]int{401, 404, 200, 200}},
		},
		"GET /api/signals":       both("/api/signals", "", [4]int{401, 200, 200, 200}),
		"POST /api/signals":      both("/api/signals", `{}`, [4]int{401, 403, 403, 400}),
		"POST /api/test-stream":  both("/api/test-stream", `{"url":"http://x/"}`, [4]int{401, 403, 403, 400}),
		"GET /api/dirs/{$}":      both("/api/dirs/", "", [4]int{401, 403, 403, 200}),
		"POST /api/dirs/{$}":     both("/api/dirs/", `{"path":"x"}`, [4]int{401, 403, 403, 400}),
		"DELETE /api/dirs/{dir}": both("/api/dirs/1", "", [4]int{401, 403, 403, 409}),
		"GET /api/init/{file}":   both("/api/init/1.mp4", "", [4]int{401, 200, 200, 200}),
		"GET /api/request":       both("/api/request", "", [4]int{401, 200, 200, 200}),
		"POST /api/login":        {{"/api/login", `{"username":"x","password":"y"}`, [4]int{401, 401, 401, 401}, unlimited}},
		"POST /api/logout":       both("/api/logout", `{"csrf":"x"}`, [4]int{400, 400, 400, 400}),
		"GET /api/claim":         both("/api/claim", "", [4]int{404, 404, 404, 404}),
		"POST /api/claim":        both("/api/claim", `{}`, [4]int{404, 404, 404, 404}),
		"GET /login":             both("/login", "", all200),
		"POST /login":            {{"/login", "username=z&password=y", [4]int{401, 401, 401, 401}, unlimited}},
		"POST /logout":           {}, // ends the session: TestPagesLeadIn
		"GET /claim":             both("/claim", "", [4]int{404, 404, 404, 404}),
		"POST /claim":            both("/claim", "code=x", [4]int{404, 404, 404, 404}),
		"GET /api/users/{$}":     both("/api/users/", "", [4]int{401, 403, 403, 200}),
		"POST /api/users/{$}":    both("/api/users/", `{"user":{}}`, [4]int{401, 403, 403, 400}),
		"GET /api/users/{user}": {
			{"/api/users/USER", "", [4]int{401, 200, 403, 200}, [4]int{401, 403, 200, 200}}},
		"PATCH /api/users/{user}": {
			{"/api/users/USER", `{"update":{}}`, [4]int{401, 204, 403, 204}, [4]int{401, 403, 204, 204}},
			{"/api/users/USER", `{"update":{"permissions":{"administrator":true}}}`, [4]int{401, 403, 403, -1}, [4]int{401, 403, 403, -1}},
			{"/api/users/USER", `{"update":{"password":"a new password"}}`, [4]int{401, 400, 403, -1}, [4]int{401, 403, 400, -1}},
		},
		"DELETE /api/users/{user}": {{"/api/users/USER?x=1", "", [4]int{401, 403, 403, 400}, [4]int{401, 403, 403, 400}}},
		"GET /api/users/{user}/sessions": {
			{"/api/users/USER/sessions", "", [4]int{401, 200, 403, 200}, [4]int{401, 403, 200, 200}}},
		"DELETE /api/users/{user}/sessions": {
			{"/api/users/USER/sessions?x=1", "", [4]int{401, 400, 400, 400}, [4]int{401, 400, 400, 400}}},
		"DELETE /api/users/{user}/sessions/{session}": {
			{"/api/users/USER/sessions/999", "", [4]int{401, 404, 403, 404}, [4]int{401, 403, 404, 404}}},
		"POST /api/users/{user}/tokens": {
			{"/api/users/USER/tokens", `{"name":"x","scope":[]}`, [4]int{401, 400, 403, 403}, [4]int{401, 403, 400, 403}},
			{"/api/users/USER/tokens", `{"name":"x","scope":["administer"]}`, [4]int{401, 403, 403, 403}, [4]int{401, 403, 403, 403}},
		},
	}
	g := newGuarded(t, nil)
	g.record()
	whos := []string{"", "A", "B", "admin"}
	for _, route := range routes {
		name := route.method + " " + route.pattern
		rows, ok := table[name]
		if !ok {
			t.Errorf("%s has no row in this test", name)
		}
		delete(table, name)
		for _, row := range rows {
			for camera, want := range map[string][4]int{"A": row.onA, "B": row.onB} {
				path := strings.NewReplacer("UUID", g.uuids[camera], "USER", fmt.Sprint(g.ids[camera])).Replace(row.path)
				var headers []string
				if strings.HasPrefix(row.body, "username=") || strings.HasPrefix(row.body, "code=") {
					headers = []string{"Content-Type", "application/x-www-form-urlencoded"}
				}
				for i, who := range whos {
					if want[i] < 0 {
						continue
					}
					a := g.send(who, route.method, path, row.body, headers...)
					if a.status != want[i] {
						t.Errorf("%s %s as %q: %d %.100s, want %d", route.method, path, who, a.status, a.body, want[i])
					}
					if a.status == 404 && strings.Contains(row.path, "UUID") {
						none := g.send(who, route.method, strings.Replace(row.path, "UUID", "00000000-0000-4000-8000-000000000000", 1), row.body)
						if got, want := string(a.body), strings.Replace(string(none.body), "00000000-0000-4000-8000-000000000000", g.uuids[camera], 1); got != want {
							t.Errorf("%s as %q tells a camera that is there: %q, %q", path, who, got, want)
						}
					}
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		t.Errorf("%s is in the table and no route", name)
	}
}

// Fails when the right to export decides nothing, or decides over what is only
// looked at.
func TestWhoMayOnlyLookTakesNoFile(t *testing.T) {
	g := newGuarded(t, nil)
	g.record()
	var list recordingsJSON
	a := g.send("admin", "GET", "/api/cameras/"+g.uuids["A"]+"/main/recordings", "")
	if err := json.Unmarshal(a.body, &list); err != nil || len(list.Recordings) == 0 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	one := list.Recordings[0].End.Sub(list.Recordings[0].Start)
	film := func(d media.Duration) string { return "view.mp4?" + strings.Repeat("s=0&", int(d/one)) + "s=0" }
	for _, c := range []struct {
		who, camera, path string
		status            int
		disposition       string
	}{
		{"A", "A", "view.mp4?s=0", 200, "inline"}, // live, recorded
		{"A", "A", film(60 * media.Minute), 200, "inline"},
		{"A", "A", film(mostShown), 403, ""},
		{"A", "A", strings.Replace(film(mostShown), "mp4", "mp4.txt", 1), 403, ""},
		{"A", "A", "view.m4s?s=0", 200, ""},
		{"B", "B", "view.mp4?s=0", 200, "attachment"}, // live, export
		{"B", "B", film(mostShown), 200, "attachment"},
		{"B", "A", film(mostShown), 404, ""},
		{"admin", "A", "view.mp4?s=0", 200, "attachment"},
		{"admin", "A", film(mostShown), 200, "attachment"},
	} {
		a := g.send(c.who, "HEAD", "/api/cameras/"+g.uuids[c.camera]+"/main/"+c.path, "")
		if got, _, _ := strings.Cut(a.header.Get("Content-Disposition"), ";"); a.status != c.status || got != c.disposition {
			t.Errorf("%s, %.40s of %s: %d %q, want %d %q", c.who, c.path, c.camera, a.status, got, c.status, c.disposition)
		}
	}
	for who, want := range map[string][]string{"A": {"live", "recorded"}, "B": {"live", "recorded", "export"}, "admin": {"live", "recorded", "export"}} {
		var top topLevel
		if err := json.Unmarshal(g.send(who, "GET", "/api/", "").body, &top); err != nil || !slices.Equal(top.Cameras[0].Rights, want) {
			t.Errorf("%s is told of %q, %v, want %q", who, top.Cameras[0].Rights, err, want)
		}
	}
}

// Lists hold what the caller may see, and no more.
func TestListsHoldOnlyWhatTheCallerMaySee(t *testing.T) {
	g := newGuarded(t, nil)
	for who, want := range map[string][]string{"A": {"Küche 1"}, "B": {"back"}, "admin": {"Küche 1", "back"}} {
		var top topLevel
		a := g.send(who, "GET", "/api/", "")
		if err := json.Unmarshal(a.body, &top); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range top.Cameras {
			got = append(got, c.ShortName)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s sees %q", who, got)
		}
		if admin := who == "admin"; top.Permissions != (permissions{true, admin, admin, admin}) || top.User == nil || top.User.ID != g.ids[who] {
			t.Errorf("%s: %+v, user %+v", who, top.Permissions, top.User)
		}
		health := string(g.send(who, "GET", "/healthz", "").body)
		metrics := string(g.send(who, "GET", "/metrics", "").body)
		for _, name := range []string{"Küche 1", "back"} {
			if got, want := strings.Contains(health, fmt.Sprintf(`{"camera":%q`, name)), slices.Contains(want, name); got != want {
				t.Errorf("/healthz tells %s of %s: %t", who, name, got)
			}
			if got, want := strings.Contains(metrics, fmt.Sprintf("camera=%q", name)), who == "admin"; got != want {
				t.Errorf("/metrics tells %s of %s: %t", who, name, got)
			}
		}
		if !strings.Contains(health, `"streams":{"wanted":3,"recording":0}`) {
			t.Errorf("/healthz says %s", health)
		}
	}
	for _, path := range []string{"/healthz", "/metrics"} {
		if a := g.send("", "GET", path, ""); strings.Contains(string(a.body), "back") {
			t.Errorf("%s tells nobody of cameras: %s", path, a.body)
		}
	}
}

// What is to change something by a path without its slash is refused, and not sent
// elsewhere: a program that does not follow would believe that it was done.
func TestPathsWithoutTheirSlashChangeNothing(t *testing.T) {
	g := newGuarded(t, nil)
	for _, c := range [][2]string{
		{"POST", "/api/cameras"}, {"PATCH", "/api/cameras/" + g.uuids["A"]}, {"DELETE", "/api/cameras/" + g.uuids["A"]},
		{"DELETE", "/api/cameras/" + g.uuids["A"] + "/main"}, {"POST", "/api/users"}, {"POST", "/api/dirs"},
	} {
		if a := g.send("admin", c[0], c[1], "{}"); a.status != 404 || !strings.Contains(string(a.body), "write "+c[1]+"/") {
			t.Errorf("%s %s: %d %s", c[0], c[1], a.status, a.body)
		}
	}
}

// Who may not do a thing is told which right that takes.
func TestRefusalsNameTheRight(t *testing.T) {
	g := newGuarded(t, nil)
	token := func(scope string) string {
		a := g.send("admin", "POST", fmt.Sprintf("/api/users/%d/tokens", g.ids["admin"]), `{"name":"t","scope":["`+scope+`"]}`)
		var made struct{ Token string }
		if err := json.Unmarshal(a.body, &made); err != nil || made.Token == "" {
			t.Fatalf("%d %s, %v", a.status, a.body, err)
		}
		return made.Token
	}
	recorded := token("recorded")
	for _, c := range []struct{ who, token, method, path, want string }{
		{"A", "", "DELETE", "/api/cameras/UUID/", "of A may not do this: it is for administrators"},
		{"", recorded, "DELETE", "/api/cameras/UUID/", "this token of owner may not do this: its scope has no administer"},
		{"", recorded, "GET", "/api/cameras/UUID/main/live.m4s", "this token of owner may not do this: it needs the right live"},
	} {
		r := httptest.NewRequest(c.method, strings.Replace(c.path, "UUID", g.uuids["A"], 1), nil)
		r.Host = "localhost"
		if c.token != "" {
			r.Header.Set("Authorization", "Bearer "+c.token)
		} else {
			r.Header.Set("Cookie", g.who[c.who])
		}
		w := httptest.NewRecorder()
		g.server.Config.Handler.ServeHTTP(w, r)
		if w.Code != 403 || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
}

// A token that lets nobody in is refused where somebody is asked for, and is as
// none where everybody is answered.
func TestPublicPathsAnswerWhateverTheToken(t *testing.T) {
	g := newGuarded(t, nil)
	for _, path := range []string{"/healthz", "/metrics", "/login"} {
		want := g.send("", "GET", path, "")
		a := g.send("", "GET", path, "", "Authorization", "Bearer hft_wrong")
		if a.status != 200 || path != "/metrics" && string(a.body) != string(want.body) || strings.Contains(string(a.body), "back") {
			t.Errorf("%s: %d %s, want %s", path, a.status, a.body, want.body)
		}
	}
	for _, path := range []string{"/api/", "/api/nothing", "/api/cameras/" + g.uuids["A"] + "/main/live.m4s", "/api/request"} {
		if a := g.send("", "GET", path, "", "Authorization", "Bearer hft_wrong"); a.status != 401 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	// Nor is the cookie looked at, whose session might let in.
	if a := g.send("admin", "GET", "/api/", "", "Authorization", "Bearer hft_wrong"); a.status != 401 {
		t.Errorf("beside a cookie: %d", a.status)
	}
}

// Only what claims answers while nobody has.
func TestUnclaimedRecorderAnswersOnlyTheClaim(t *testing.T) {
	g := unclaimedRecorder(t, nil)
	answers := map[string]int{
		"GET /healthz": 200, "GET /ca.pem": 404, "GET /api/claim": 200, "POST /api/claim": 403, "GET /claim": 200, "POST /claim": 403,
		"GET /login": 303, "POST /login": 401, "POST /logout": 303, "POST /api/login": 401, "POST /api/logout": 204,
	}
	paths := strings.NewReplacer("{$}", "", "{uuid}", g.uuid, "{stream}", "main", "{file}", "1.mp4", "{user}", "1", "{session}", "1", "{dir}", "1")
	for _, route := range routes {
		want, ok := answers[route.method+" "+route.pattern]
		if !ok {
			want = 401
		}
		body, headers := `{}`, []string{}
		if route.method == "GET" || route.method == "DELETE" {
			body = ""
		} else if !strings.HasPrefix(route.pattern, "/api/") {
			body, headers = "code=x", []string{"Content-Type", "application/x-www-form-urlencoded"}
		}
		a := g.send("", route.method, paths.Replace(route.pattern), body, headers...)
		if a.status != want {
			t.Errorf("%s %s: %d %s, want %d", route.method, route.pattern, a.status, a.body, want)
		}
	}
	if a := g.send("", "GET", "/", ""); a.status != 303 || a.header.Get("Location") != "/claim" {
		t.Errorf("/: %d to %s", a.status, a.header.Get("Location"))
	}
	if a := g.send("", "GET", "/api/", "", "Authorization", "Bearer x"); a.status != 401 {
		t.Errorf("with a token: %d", a.status)
	}
}

// The pages lead in and out without a script.
func TestPagesLeadIn(t *testing.T) {
	g := unclaimedRecorder(t, nil)
	form := func(who, path, body string) *answer {
		return g.send(who, "POST", path, body, "Content-Type", "application/x-www-form-urlencoded")
	}
	if a := form("", "/claim", "code=wrong&username=%3Cb%3E&password=long+enough"); a.status != 403 ||
		!strings.Contains(string(a.body), "the code is wrong") || strings.Contains(string(a.body), "<b>") || strings.Contains(string(a.body), "long enough") {
		t.Errorf("%d %s", a.status, a.body)
	}
	code, _ := g.users.ClaimCode()
	a := form("", "/claim", "code="+code+"&username=owner&password=correct+horse")
	if a.status != 303 || a.header.Get("Location") != "/" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	g.who["owner"] = g.cookie(a)
	if a := g.send("owner", "GET", "/", ""); a.status != 200 || string(a.body) != "page" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.send("owner", "GET", "/login", ""); !strings.Contains(string(a.body), "signed in as owner") {
		t.Errorf("%s", a.body)
	}
	if a := g.send("owner", "POST", "/logout", ""); a.status != 303 || !strings.Contains(a.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("%d %v", a.status, a.header)
	}
	for _, path := range []string{"/", "/api/"} {
		if a := g.send("owner", "GET", path, ""); a.status != 303 && a.status != 401 {
			t.Errorf("%s after signing out: %d", path, a.status)
		}
	}
	a = form("", "/login", "username=owner&password=wrong")
	if a.status != 401 || !strings.Contains(string(a.body), "name or password is wrong") || a.header.Get("Set-Cookie") != "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "script") {
		t.Errorf("policy: %s", csp)
	}
	// What a browser sends from such a page on a plain address depends on this.
	if got := a.header.Get("Referrer-Policy"); got != "same-origin" {
		t.Errorf("Referrer-Policy %q", got)
	}
	if a := form("", "/login", "username=owner&password=correct+horse"); a.status != 303 || g.cookie(a) == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestCookie(t *testing.T) {
	g := newGuarded(t, func(c *Config) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	login := fmt.Sprintf(`{"username":"owner","password":%q}`, ownerPassword)
	plain := g.send("", "POST", "/api/login", login)
	secure := g.send("", "POST", "/api/login", login, "X-Forwarded-Proto", "https")
	for _, c := range []struct {
		a    *answer
		name string
		more string
	}{{plain, "s=", "; Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict"}, {secure, "__Host-s=", "; Path=/; Max-Age=2592000; HttpOnly; Secure; SameSite=Strict"}} {
		got := c.a.header.Get("Set-Cookie")
		if value, _, _ := strings.Cut(strings.TrimPrefix(got, c.name), ";"); c.a.status != 204 || len(value) != 43 || got != c.name+value+c.more {
			t.Errorf("%d, cookie %s", c.a.status, got)
		}
	}
	// The plain name does not count over TLS.
	value := strings.TrimPrefix(g.cookie(secure), "__Host-")
	if a := g.ask("GET", "/api/", "", "Cookie", value, "X-Forwarded-Proto", "https"); a.status != 401 {
		t.Errorf("plain name over TLS: %d", a.status)
	}
	if a := g.ask("GET", "/api/", "", "Cookie", "__Host-"+value, "X-Forwarded-Proto", "https"); a.status != 200 {
		t.Errorf("over TLS: %d", a.status)
	}
	// One that another program of this host set beside ours is passed over.
	for _, cookies := range []string{"s=other; " + g.cookie(plain), g.cookie(plain) + "; s=other", "s=; s=x; " + g.cookie(plain) + "; s=y"} {
		if a := g.ask("GET", "/api/", "", "Cookie", cookies); a.status != 200 {
			t.Errorf("%s: %d", cookies, a.status)
		}
	}
	// Signing in again ends the session that was.
	g.who["x"] = g.cookie(plain)
	next := g.send("x", "POST", "/api/login", login)
	if a := g.send("x", "GET", "/api/", ""); next.status != 204 || a.status != 401 {
		t.Errorf("%d, the old session: %d", next.status, a.status)
	}
	// So does a change of the own password, with a new cookie.
	g.who["x"] = g.cookie(next)
	wrong := g.send("x", "PATCH", "/api/users/1", `{"update":{"password":"a new password"},"precondition":{"password":"wrong"}}`)
	change := g.send("x", "PATCH", "/api/users/1", fmt.Sprintf(`{"update":{"password":"a new password"},"precondition":{"password":%q}}`, ownerPassword))
	if a := g.send("x", "GET", "/api/", ""); wrong.status != 412 || change.status != 204 || a.status != 401 {
		t.Errorf("%d, %d, the old session: %d", wrong.status, change.status, a.status)
	}
	g.who["x"] = g.cookie(change)
	var top topLevel
	a := g.send("x", "GET", "/api/", "")
	if err := json.Unmarshal(a.body, &top); err != nil || top.User.Session.CSRF == "" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := g.send("x", "POST", "/api/logout", fmt.Sprintf(`{"csrf":%q}`, top.User.Session.CSRF)); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.send("x", "GET", "/api/", ""); a.status != 401 {
		t.Errorf("signed out: %d", a.status)
	}
}

func TestTokens(t *testing.T) {
	g := newGuarded(t, nil)
	a := g.send("B", "POST", fmt.Sprintf("/api/users/%d/tokens", g.ids["B"]), `{"name":"script","scope":["live"],"days":3}`)
	var made struct {
		ID    int32
		Token string
	}
	if err := json.Unmarshal(a.body, &made); err != nil || a.status != 201 || made.Token == "" || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for path, want := range map[string]int{
		"/api/": 200, "/api/cameras/" + g.uuids["B"] + "/": 200, "/api/cameras/" + g.uuids["A"] + "/": 404,
		"/api/cameras/" + g.uuids["B"] + "/main/recordings": 403, fmt.Sprintf("/api/users/%d/sessions", g.ids["B"]): 403,
	} {
		if a := g.ask("GET", path, "", "Authorization", "Bearer "+made.Token); a.status != want {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, h := range []string{"Bearer x", "Bearer", "bearer x", "Bearer " + strings.TrimPrefix(g.who["B"], "s=")} {
		if a := g.send("B", "GET", "/api/", "", "Authorization", h); a.status != 401 {
			t.Errorf("%s: %d", h, a.status)
		}
	}
	// What a proxy asks browsers for is as none: the cookie counts.
	for _, h := range []string{"Basic " + made.Token, "Basic YW5uYTp4", made.Token, `Digest username="b"`} {
		for path, want := range map[string][2]int{"/api/": {200, 401}, "/healthz": {200, 200}, "/login": {200, 200}} {
			with, without := g.send("B", "GET", path, "", "Authorization", h), g.ask("GET", path, "", "Authorization", h)
			if got := [2]int{with.status, without.status}; got != want {
				t.Errorf("%s of %s: %d, want %d", path, h, got, want)
			}
		}
	}
	list := g.send("B", "GET", fmt.Sprintf("/api/users/%d/sessions", g.ids["B"]), "")
	if s := string(list.body); !strings.Contains(s, `"name":"script","scope":["live"]`) || !strings.Contains(s, `"current":true`) || strings.Contains(s, made.Token) {
		t.Errorf("list: %s", s)
	}
	if a := g.send("B", "DELETE", fmt.Sprintf("/api/users/%d/sessions/%d", g.ids["B"], made.ID), ""); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.ask("GET", "/api/", "", "Authorization", "Bearer "+made.Token); a.status != 401 {
		t.Errorf("revoked: %d", a.status)
	}
	if a := g.send("admin", "DELETE", fmt.Sprintf("/api/users/%d/sessions", g.ids["B"]), ""); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.send("B", "GET", "/api/", ""); a.status != 401 {
		t.Errorf("all revoked: %d", a.status)
	}
}

// watch opens live video and returns the first message, and then the last.
func (g *guarded) watch(who, camera, query string, meanwhile func()) (first, last string) {
	g.Helper()
	ctx, cancel := context.WithTimeout(g.Context(), time.Minute)
	defer cancel()
	h := make(http.Header)
	if g.who[who] != "" {
		h.Set("Cookie", g.who[who])
	}
	c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(g.server.URL, "http")+"/api/cameras/"+g.uuids[camera]+"/main/live.m4s"+query,
		&websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		g.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 30)
	for {
		typ, b, err := c.Read(ctx)
		if err != nil {
			return first, last
		}
		for _, breach := range thePage(g).checkMessage(typ == websocket.MessageText, b) {
			g.Errorf("live: %s", breach)
		}
		if last = string(b); typ == websocket.MessageBinary {
			last = "picture"
		}
		if first == "" {
			first = last
			if meanwhile == nil {
				return first, last
			}
			meanwhile()
		}
	}
}

// record has both cameras send pictures of a hundred bytes.
func (g *guarded) record() {
	g.Helper()
	g.recordPictures(50, 100)
}

// recordPictures has both cameras send so many pictures of so many bytes.
func (g *guarded) recordPictures(n, size int) {
	g.Helper()
	for _, uuid := range g.uuids {
		c, _ := g.store.Camera(uuid)
		run := c.Stream("main").Begin(nil)
		g.Cleanup(func() { run.End("test over") })
		if err := (&feed{run: run, size: size, entry: videoEntry(640, 360), began: time.Now()}).fill(n); err != nil {
			g.Fatal(err)
		}
	}
}

// ticket returns the query that a ticket for live video of a camera is.
func (g *guarded) ticket(who, camera string) string {
	g.Helper()
	a := g.send(who, "POST", "/api/cameras/"+g.uuids[camera]+"/main/live-ticket", "{}")
	var made ticketJSON
	if err := json.Unmarshal(a.body, &made); err != nil || a.status != 200 || len(made.Ticket) != 43 || made.Seconds != 30 || a.header.Get("Cache-Control") != "no-store" {
		g.Fatalf("ticket: %d %s", a.status, a.body)
	}
	return "?ticket=" + made.Ticket
}

// A ticket lets in who sends no cookie: once, to live video of its camera, for
// as long as the session.
func TestTicketStandsForTheCookie(t *testing.T) {
	var log safeBuffer
	g := newGuarded(t, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	g.record()
	ticket := g.ticket("A", "A")
	if first, _ := g.watch("", "A", ticket, nil); first != "picture" {
		t.Errorf("it does not let in: %s", first)
	}
	const refused = `"status":401`
	if first, _ := g.watch("", "A", ticket, nil); !strings.Contains(first, refused) {
		t.Errorf("a second time: %s", first)
	}
	other := g.ticket("admin", "A")
	if first, _ := g.watch("", "B", other, nil); !strings.Contains(first, refused) {
		t.Errorf("for another camera: %s", first)
	}
	if a := g.send("A", "POST", "/api/cameras/"+g.uuids["A"]+"/ext/live-ticket", "{}"); a.status != 404 {
		t.Errorf("of no stream: %d %s", a.status, a.body)
	}
	unused := g.ticket("A", "A")
	for _, path := range []string{"/api/" + unused, "/api/cameras/" + g.uuids["A"] + "/main/recordings" + unused, "/api/cameras/" + g.uuids["A"] + "/main/view.mp4" + unused + "&s=0"} {
		if a := g.send("", "GET", path, ""); a.status != 401 {
			t.Errorf("%s: %d", path, a.status)
		}
		if a := g.send("A", "GET", path, ""); a.status != 400 || strings.Contains(string(a.body), strings.TrimPrefix(unused, "?ticket=")) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	last := g.ticket("A", "A")
	first, end := g.watch("", "A", unused, func() {
		if a := g.send("admin", "DELETE", fmt.Sprintf("/api/users/%d/sessions", g.ids["A"]), ""); a.status != 204 {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
	if first != "picture" || !strings.Contains(end, "the session has ended") {
		t.Errorf("first %.50s, last %.80s", first, end)
	}
	if first, _ := g.watch("", "A", last, nil); !strings.Contains(first, refused) {
		t.Errorf("of a session that ended: %s", first)
	}
	for _, tried := range []string{ticket, other, unused, last} {
		if strings.Contains(log.String(), strings.TrimPrefix(tried, "?ticket=")) {
			t.Errorf("the log tells a ticket:\n%s", log.String())
		}
	}
}

func TestLiveVideoAsksWhoMay(t *testing.T) {
	g := newGuarded(t, nil)
	g.record()
	for _, c := range []struct{ who, camera, want string }{
		{"", "A", "open /login"}, {"", "B", "open /login"}, {"A", "A", "picture"}, {"A", "B", "there is no camera"},
		{"B", "A", "there is no camera"}, {"B", "B", "picture"}, {"admin", "A", "picture"}, {"admin", "B", "picture"},
	} {
		if first, _ := g.watch(c.who, c.camera, "", nil); !strings.Contains(first, c.want) {
			t.Errorf("%q watches %s: %s", c.who, c.camera, first)
		}
	}
	// It ends at once when the session does, and when rights change.
	for _, end := range []struct{ method, path, body string }{
		{"PATCH", "/api/users/%d", `{"update":{"permissions":{"cameras":{}}}}`},
		{"DELETE", "/api/users/%d/sessions", ""},
		{"DELETE", "/api/users/%d", ""},
	} {
		who := "A"
		if end.body == "" {
			who = "B"
		}
		if end.path == "/api/users/%d" && end.body == "" {
			g.who["B"] = g.cookie(g.send("", "POST", "/api/login", `{"username":"of B","password":"password of B"}`))
		}
		first, last := g.watch(who, who, "", func() {
			if a := g.send("admin", end.method, fmt.Sprintf(end.path, g.ids[who]), end.body); a.status != 204 {
				t.Errorf("%+v: %d %s", end, a.status, a.body)
			}
		})
		if first != "picture" || !strings.Contains(last, "the session has ended") {
			t.Errorf("%+v: first %.50s, last %.50s", end, first, last)
		}
	}
}

// A session that ends while a picture is on its way: the picture is sent, and then why
// there are no more.
func TestSlowViewerLearnsThatTheSessionEnded(t *testing.T) {
	g := newGuarded(t, nil)
	g.recordPictures(3, 5<<20) // more than the connection holds, and less than the longest group of pictures
	first, last := g.watch("A", "A", "", func() {
		if a := g.send("admin", "DELETE", fmt.Sprintf("/api/users/%d/sessions", g.ids["A"]), ""); a.status != 204 {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
	if first != "picture" || !strings.Contains(last, "the session has ended") {
		t.Errorf("first %.50s, last %.80s", first, last)
	}
}

func TestHostsThatAreOurs(t *testing.T) {
	g := newGuarded(t, func(c *Config) { c.Hosts = []string{"nvr.example.org"} })
	h := g.server.Config.Handler
	s := &server{names: names("holdfast", []string{"nvr.example.org"})}
	for host, want := range map[string]bool{
		"": true, "localhost": true, "localhost:8080": true, "LOCALHOST": true, "192.0.2.1": true, "192.0.2.1:80": true, "[::1]:8080": true, "[::1]": true,
		"[fe80::1%25eth0]:80": true, "holdfast": true, "Holdfast.local.": true, "holdfast.lan:80": true, "nvr.example.org": true, "NVR.example.org:443": true,
		"evil.com": false, "holdfast.evil.com": false, "localhost.evil.com": false, "example.org": false, "192.0.2.1.evil.com": false, "holdfast.box": false,
		"x.local": false, "a:b:c": false, "0x7f.1": false,
	} {
		if got := s.ours(host); got != want {
			t.Errorf("%q is ours: %t", host, got)
		}
	}
	// Machines that are called by their domain, too, or by nothing.
	for _, c := range []struct {
		hostName, host string
		want           bool
	}{
		{"nvr.example.org", "nvr.example.org:80", true}, {"nvr.example.org", "NVR.example.org.", true}, {"nvr.example.org", "nvr", true},
		{"nvr.example.org", "nvr.local", true}, {"nvr.example.org", "nvr.evil.com", false}, {"nvr.example.org", "example.org", false},
		{"Holdfast.local", "holdfast.local", true}, {"Holdfast.local", "holdfast", true}, {"Holdfast.local", "holdfast.fritz.box", true},
		{"", "evil.com", false}, {"", "evil", false}, {"", ".local", false}, {"", "192.0.2.1", true},
	} {
		s := &server{names: names(c.hostName, nil)}
		if got := s.ours(c.host); got != c.want {
			t.Errorf("%q is %q: %t", c.host, c.hostName, got)
		}
	}
	for host, want := range map[string]int{"evil.com": 421, "nvr.example.org": 200} {
		for _, path := range []string{"/healthz", "/login"} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest("GET", path, nil)
			r.Host = host
			if h.ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s of %s: %d", path, host, w.Code)
			}
		}
	}
}

func TestPeerIsWhoCalls(t *testing.T) {
	s := &server{Config: Config{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("::1/128")}}}
	for _, c := range []struct {
		remote, forwarded, proto string
		address                  string
		secure                   bool
	}{
		{"192.0.2.1:1", "", "", "192.0.2.1", false},
		{"192.0.2.1:1", "198.51.100.1", "https", "192.0.2.1", false}, // none of ours
		{"10.0.0.1:1", "198.51.100.1", "https", "198.51.100.1", true},
		{"10.0.0.1:1", "6.6.6.6, 198.51.100.1, 10.0.0.2", "http, https", "198.51.100.1", true},
		{"[::1]:1", "::ffff:198.51.100.1", "https, http", "198.51.100.1", false},
		{"10.0.0.1:1", "6.6.6.6, nonsense", "", "10.0.0.1", false},
		{"10.0.0.1:1", "", "", "10.0.0.1", false},
		{"10.0.0.1:1", "10.0.0.2, 10.0.0.3", "", "10.0.0.2", false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.remote
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if c.proto != "" {
			r.Header.Set("X-Forwarded-Proto", c.proto)
		}
		r.Header.Set("Forwarded", "for=6.6.6.6;proto=https")
		if p, secure := s.peer(r); p.Address != c.address || secure != c.secure {
			t.Errorf("%+v: %s, %t", c, p.Address, secure)
		}
	}
}

// Fails when a change that is refused tells which cameras there are.
func TestRefusedChangeTellsOfNoCamera(t *testing.T) {
	g := newGuarded(t, nil)
	want := ""
	for _, uuid := range []string{"00000000-0000-4000-8000-000000000000", g.uuids["A"], g.uuids["B"]} {
		a := g.send("A", "PATCH", fmt.Sprintf("/api/users/%d", g.ids["A"]), fmt.Sprintf(`{"update":{"permissions":{"cameras":{%q:["live"]}}}}`, uuid))
		if got := fmt.Sprintf("%d %s", a.status, a.body); a.status != 403 || want != "" && got != want {
			t.Errorf("%s: %s", uuid, got)
		} else {
			want = got
		}
	}
}

// Fails when null is not what takes a password away, or when what is not said
// does.
func TestNullIsNoPassword(t *testing.T) {
	g := newGuarded(t, nil)
	path := fmt.Sprintf("/api/users/%d", g.ids["A"])
	signIn := func() int {
		return g.send("", "POST", "/api/login", `{"username":"of A","password":"password of A"}`).status
	}
	for _, c := range []struct {
		body           string
		status, signIn int
	}{
		{`{"update":{"disabled":false}}`, 204, 204},
		{`{"update":{"password":null},"precondition":{"password":"wrong"}}`, 412, 204},
		{`{"update":{"password":null},"precondition":{"password":null}}`, 412, 204},
		{`{"update":{"password":null},"precondition":{"password":"password of A"}}`, 204, 401},
		{`{"update":{"password":"password of A"},"precondition":{"password":null}}`, 204, 204},
	} {
		a := g.send("admin", "PATCH", path, c.body)
		if got := signIn(); a.status != c.status || got != c.signIn {
			t.Errorf("%s: %d %s, then signing in %d, want %d, %d", c.body, a.status, a.body, got, c.status, c.signIn)
		}
	}
}

// Fails when DELETE does what it is asked for with a word that is not that of the
// session, or with a body that is none.
func TestDeleteReadsItsBody(t *testing.T) {
	g := newGuarded(t, nil)
	var top topLevel
	if err := json.Unmarshal(g.send("admin", "GET", "/api/", "").body, &top); err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/api/users/%d", g.ids["A"])
	for _, c := range []struct {
		body, typ string
		status    int
	}{
		{`{"csrf":"wrong"}`, "application/json", 400},
		{`{"csrf":5}`, "application/json", 400},
		{`{"user":{}}`, "application/json", 400},
		{`csrf=x`, "application/x-www-form-urlencoded", 400},
		{strings.Repeat(" ", maxBody+1), "application/json", 413},
		{fmt.Sprintf(`{"csrf":%q}`, top.User.Session.CSRF), "application/json", 204},
		{``, "", 404}, // it is gone
	} {
		headers := []string{"Content-Type", c.typ}
		if a := g.send("admin", "DELETE", path, c.body, headers...); a.status != c.status {
			t.Errorf("%.40s: %d %s, want %d", c.body, a.status, a.body, c.status)
		}
	}
}

// Fails when a client of the dialect cannot say what a user may, or when what it
// says gives another right.
func TestPermissionsOfTheDialect(t *testing.T) {
	g := newGuarded(t, nil)
	const rest = `"readCameraConfigs":false,"updateSignals":false,"adminUsers":false}`
	add := func(name, permissions string) *answer {
		return g.send("admin", "POST", "/api/users/", fmt.Sprintf(`{"user":{"username":%q,"permissions":%s}}`, name, permissions))
	}
	for permissions, want := range map[string]string{
		`{"viewVideo":true}`:  `{"administrator":false,"allCameras":["live","recorded","export"],"cameras":{},"viewVideo":true,` + rest,
		`{"viewVideo":false}`: `{"administrator":false,"allCameras":[],"cameras":{},"viewVideo":false,` + rest,
		`{"viewVideo":true,"readCameraConfigs":true,"updateSignals":true,"adminUsers":true}`: `{"administrator":true,"allCameras":["live","recorded","export"],"cameras":{},` +
			`"viewVideo":true,"readCameraConfigs":true,"updateSignals":true,"adminUsers":true}`,
		`{"allCameras":["live"]}`:                     `{"administrator":false,"allCameras":["live"],"cameras":{},"viewVideo":true,` + rest,
		`{"viewVideo":true,"readCameraConfigs":true}`: "400",
		`{"updateSignals":true}`:                      "400",
		`{"viewVideo":true,"allCameras":["live"]}`:    "400",
		`{"viewVideo":true,"administrator":true}`:     "400",
		`{"viewVideos":true}`:                         "400",
	} {
		a := add("u "+permissions[:min(50, len(permissions))], permissions)
		got := fmt.Sprint(a.status)
		if a.status == 201 {
			var u struct {
				User struct{ Permissions json.RawMessage }
			}
			b := g.send("admin", "GET", a.header.Get("Location"), "").body
			if err := json.Unmarshal(append(append([]byte(`{"user":`), b...), '}'), &u); err != nil {
				t.Fatal(err)
			}
			got = string(u.User.Permissions)
		}
		if got != want {
			t.Errorf("%s: %s %s, want %s", permissions, got, a.body, want)
		}
	}

	// What is said replaces all there was, and holds as a precondition as it is shown.
	path := fmt.Sprintf("/api/users/%d", g.ids["A"])
	for _, c := range []struct {
		body   string
		status int
	}{
		{`{"update":{"disabled":false},"precondition":{"permissions":{"viewVideo":false}}}`, 412},
		{`{"update":{"disabled":false},"precondition":{"permissions":{"viewVideo":true,"adminUsers":true,"readCameraConfigs":false}}}`, 412},
		{`{"update":{"permissions":{"viewVideo":false}},"precondition":{"permissions":{"viewVideo":true}}}`, 204},
		{`{"update":{"permissions":{"viewVideo":false}},"precondition":{"permissions":{"viewVideo":true}}}`, 412},
	} {
		if a := g.send("admin", "PATCH", path, c.body); a.status != c.status {
			t.Errorf("%s: %d %s, want %d", c.body, a.status, a.body, c.status)
		}
	}
	u, err := g.users.User(access.Nobody(access.Admin), g.ids["A"])
	if err != nil || u.Rights != 0 || len(u.Cameras) != 0 {
		t.Errorf("%+v, %v", u, err)
	}
}

// Fails when a client of the dialect cannot keep what it has for its user, when
// somebody else can, or when the object comes back as another.
func TestPreferencesOfTheDialect(t *testing.T) {
	g := newGuarded(t, nil)
	path := fmt.Sprintf("/api/users/%d", g.ids["A"])
	deep := strings.Repeat(`{"a":`, 64) + "1" + strings.Repeat("}", 64)
	full := `{"a":"` + strings.Repeat("x", 16<<10-8) + `"}`
	for _, c := range []struct {
		who, update, precondition string
		status                    int
		want                      string // then; "": as before
	}{
		{who: "A", update: `{ "b": [1152921504606846977, 0.10, "<ü\ud800"], "a": {"y":1,"x":null}}`, status: 204, want: `{"a":{"x":null,"y":1},"b":[1152921504606846977,0.10,"\u003cü�"]}`},
		{who: "A", update: `{"no":1}`, precondition: `{}`, status: 412},
		{who: "A", update: `{"c":2}`, precondition: `{"b":[1152921504606846977,0.10,"<ü\ufffd"],"a":{"y":1,"x":null}}`, status: 204, want: `{"c":2}`},
		{who: "B", update: `{"no":1}`, status: 403},
		{who: "", update: `{"no":1}`, status: 401},
		{who: "A", update: `null`, status: 400},
		{who: "A", update: `[]`, status: 400},
		{who: "A", update: `"{}"`, status: 400},
		{who: "A", update: `{"a":` + deep + `}`, status: 400},
		{who: "A", update: strings.Replace(full, "x", "xx", 1), status: 400},
		{who: "A", update: full, status: 204, want: full},
		{who: "A", update: deep, status: 204, want: deep},
		{who: "admin", update: `{}`, precondition: deep, status: 204, want: `{}`},
	} {
		body := fmt.Sprintf(`{"update":{"preferences":%s}}`, c.update)
		if c.precondition != "" {
			body = fmt.Sprintf(`{"update":{"preferences":%s},"precondition":{"preferences":%s}}`, c.update, c.precondition)
		}
		before := g.preferences("A")
		if a := g.send(c.who, "PATCH", path, body); a.status != c.status || c.status == 400 && !strings.Contains(string(a.body), "preferences") {
			t.Errorf("%s: %.100s: %d %s, want %d", c.who, body, a.status, a.body, c.status)
		}
		if got, want := g.preferences("A"), cmp.Or(c.want, before); got != want {
			t.Errorf("%.100s: %.100s, want %.100s", body, got, want)
		}
	}

	// They go with the user, and are no way in: the session goes on.
	a := g.send("admin", "POST", "/api/users/", `{"user":{"username":"new","preferences":{"z":1,"a":[]}}}`)
	if a = g.send("admin", "GET", a.header.Get("Location"), ""); !strings.Contains(string(a.body), `"preferences":{"a":[],"z":1}`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := g.preferences("B"); got != "{}" {
		t.Errorf("of a user who has none: %s", got)
	}
}

// preferences reads those of a user where it may: both places say the same.
func (g *guarded) preferences(who string) string {
	g.Helper()
	var top struct {
		User struct{ Preferences json.RawMessage }
	}
	var user struct{ Preferences json.RawMessage }
	for path, into := range map[string]any{"/api/": &top, fmt.Sprintf("/api/users/%d", g.ids[who]): &user} {
		if a := g.send(who, "GET", path, ""); a.status != 200 || json.Unmarshal(a.body, into) != nil {
			g.Fatalf("%s: %d %s", path, a.status, a.body)
		}
	}
	if !bytes.Equal(top.User.Preferences, user.Preferences) {
		g.Errorf("%s here, %s there", top.User.Preferences, user.Preferences)
	}
	return string(user.Preferences)
}

// bodyAfter is a body that comes when something has been done.
type bodyAfter struct {
	io.Reader
	do sync.Once
	f  func()
}

func (b *bodyAfter) Read(p []byte) (int, error) {
	b.do.Do(b.f)
	return b.Reader.Read(p)
}

// Fails when a session that ends while a body is on its way still has its way.
func TestSlowBodyOfAnEndedSessionChangesNothing(t *testing.T) {
	g := newGuarded(t, nil)
	dir := filepath.Join(t.TempDir(), "new")
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/api/cameras/", `{"shortName":"x","streams":{"main":{"url":"rtsp://192.0.2.9/"}}}`, 401},
		{"POST", "/api/users/", `{"user":{"username":"x"}}`, 403},
		{"PATCH", "/api/cameras/" + g.uuids["A"] + "/", `{"update":{"shortName":"other"}}`, 401},
		{"DELETE", "/api/cameras/" + g.uuids["A"] + "/", `{}`, 401},
		{"POST", "/api/dirs/", `{"path":"` + dir + `"}`, 401},
		{"POST", "/api/test-stream", `{"url":"rtsp://127.0.0.1:1/"}`, 401},
	} {
		who := g.cookie(g.send("", "POST", "/api/login", fmt.Sprintf(`{"username":"owner","password":%q}`, ownerPassword)))
		w := httptest.NewRecorder()
		r := httptest.NewRequest(c.method, "http://localhost"+c.path, &bodyAfter{Reader: strings.NewReader(c.body), f: func() {
			if a := g.ask("POST", "/api/logout", "{}", "Cookie", who, "Content-Type", "application/json"); a.status != 204 {
				t.Errorf("%d %s", a.status, a.body)
			}
		}})
		r.Header.Set("Cookie", who)
		r.Header.Set("Content-Type", "application/json")
		if g.server.Config.Handler.ServeHTTP(w, r); w.Code != c.status {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	if n := len(g.store.Cameras()); n != 2 {
		t.Errorf("%d cameras", n)
	}
	if c, ok := g.store.Camera(g.uuids["A"]); !ok || c.Name == "other" || len(g.store.Dirs()) != 1 {
		t.Errorf("%+v, %d directories", c, len(g.store.Dirs()))
	}
}

// sampleRequest asks for a route as an administrator would, as far as it can
// without changing who there is.
func (g *guarded) sampleRequest(row route) *answer {
	g.Helper()
	path := strings.NewReplacer("{$}", "", "{uuid}", g.uuids["A"], "{stream}", "main", "{file}", "1.mp4",
		"{user}", fmt.Sprint(g.ids["A"]), "{session}", "999", "{dir}", "999").Replace(row.pattern)
	switch {
	case path == "/api/events", strings.HasSuffix(path, "/live.m4s"):
		return g.send("admin", "HEAD", path, "") // what GET answers does not end
	case strings.Contains(path, "/view."):
		path += "?s=0"
	case row.method == "GET" && path == "/api/":
		path += "?cameraConfigs=true"
	case row.method == "DELETE":
		path += "?x=1"
	}
	if row.method == "POST" && !strings.HasPrefix(path, "/api/") {
		return g.send("", row.method, path, "username=x", "Content-Type", "application/x-www-form-urlencoded")
	}
	body := ""
	if row.method != "GET" && row.method != "DELETE" {
		body = "{}"
	}
	return g.send("admin", row.method, path, body)
}

// No answer is a document that runs, frames or loads something, nor one that a
// browser takes for another type.
func TestEveryAnswerHasAStrictPolicy(t *testing.T) {
	g := newGuarded(t, nil)
	g.record()
	for _, row := range routes {
		if row.pattern == "/api/logout" {
			continue // ends the session; it answers as login does
		}
		h := g.sampleRequest(row).header
		policy := h.Get("Content-Security-Policy")
		if strings.HasPrefix(h.Get("Content-Type"), "video/mp4") && policy == "" {
			policy = "default-src 'none'; frame-ancestors 'none'" // no document: a browser makes one around it
		}
		if !strings.HasPrefix(policy, "default-src 'none';") || !strings.Contains(policy, "frame-ancestors 'none'") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "script") ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") == "" || h.Get("Cross-Origin-Resource-Policy") != "same-origin" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s %s: %v", row.method, row.pattern, h)
		}
	}
}

// Rule 7: of all that lets somebody in, the log tells nothing, and an answer only
// the one that made it.
func TestSecretsAreToldOnce(t *testing.T) {
	var log safeBuffer
	debug := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r := newRecorder(t, "")
	var err error
	g := &guarded{recorder: r, uuids: map[string]string{"A": r.uuid}, who: make(map[string]string), ids: map[string]int32{"admin": 1, "A": 1}}
	g.users, err = access.Open(t.Context(), access.Config{DB: r.store.Database(), Claim: true, Log: debug})
	if err != nil {
		t.Fatal(err)
	}
	defer g.users.Close()
	h := held(t, Config{Store: r.store, Access: g.users, Log: debug, UI: http.NotFoundHandler()})
	r.server.Config.ErrorLog = slog.NewLogLogger(debug.Handler(), slog.LevelDebug)
	r.server.Config.Handler = h
	r.server.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	g.record()

	code, _ := g.users.ClaimCode()
	secrets := map[string]string{"code": code, "the same": strings.ReplaceAll(code, "-", ""), "camera's password": "geheim", "password": ownerPassword,
		"wrong password": "a wrong password", "name that is a password": "hunter2hunter2", "next password": "battery staple", "wrong code": "ABCDE-FGHJK"}
	var answers []*answer
	send := func(who, method, path, body string, headers ...string) *answer {
		a := g.send(who, method, path, body, headers...)
		answers = append(answers, a)
		return a
	}
	session := func(a *answer) string {
		_, value, _ := strings.Cut(g.cookie(a), "=")
		return value
	}
	send("", "POST", "/api/claim", fmt.Sprintf(`{"code":%q,"username":"owner","password":%q}`, secrets["wrong code"], ownerPassword))
	claimed := send("", "POST", "/api/claim", fmt.Sprintf(`{"code":%q,"username":"owner","password":%q}`, code, ownerPassword))
	secrets["first session"] = session(claimed)
	send("", "POST", "/api/login", `{"username":"owner","password":"a wrong password"}`)
	send("", "POST", "/api/login", `{"username":"hunter2hunter2","password":"a wrong password"}`)
	send("", "POST", "/api/login", `{"username":"owner","password":"a wrong password","x":`)
	g.who["admin"] = g.cookie(claimed)
	signed := send("admin", "POST", "/api/login", fmt.Sprintf(`{"username":"owner","password":%q}`, ownerPassword))
	secrets["session"] = session(signed)
	g.who["admin"] = g.cookie(signed)
	var token struct{ Token string }
	a := g.send("admin", "POST", "/api/users/1/tokens", `{"name":"script","scope":["live"]}`)
	if err := json.Unmarshal(a.body, &token); err != nil || token.Token == "" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	secrets["token"] = token.Token
	secrets["ticket"] = strings.TrimPrefix(g.ticket("admin", "A"), "?ticket=")
	g.watch("", "A", "?ticket="+secrets["ticket"], nil)
	g.watch("", "A", "?ticket="+secrets["ticket"]+"&x=1", nil)
	send("", "GET", "/api/", "", "Authorization", "Bearer "+token.Token)
	send("", "GET", "/api/", "", "Authorization", "Bearer x"+token.Token)
	send("", "GET", "/api/", "", "Authorization", "Basic "+ownerPassword)
	send("admin", "GET", "/api/?ticket="+secrets["ticket"], "")
	for _, row := range routes {
		if row.pattern != "/api/logout" && !strings.HasSuffix(row.pattern, "/live-ticket") {
			answers = append(answers, g.sampleRequest(row))
		}
	}
	for _, path := range []string{"/api/users/1", "/api/users/1/sessions", "/api/request"} {
		send("admin", "GET", path, "")
	}
	change := send("admin", "PATCH", "/api/users/1", fmt.Sprintf(`{"update":{"password":"battery staple"},"precondition":{"password":%q}}`, ownerPassword))
	secrets["session after it"] = session(change)
	users, _, err := g.store.Database().Access(t.Context())
	if err != nil || len(users) != 1 || users[0].PasswordHash == "" {
		t.Fatalf("%+v, %v", users, err)
	}
	for _, u := range users {
		secrets["hash of "+u.Name] = u.PasswordHash
	}
	for name, secret := range secrets {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log tells the %s:\n%s", name, log.String())
		}
		for _, a := range answers {
			if strings.Contains(string(a.body), secret) {
				t.Errorf("an answer tells the %s: %d %s", name, a.status, a.body)
			}
			for header, values := range a.header {
				if header != "Set-Cookie" && strings.Contains(fmt.Sprint(values), secret) {
					t.Errorf("an answer tells the %s: %s %v", name, header, values)
				}
			}
		}
	}
	if !strings.Contains(log.String(), "refused to sign in") {
		t.Errorf("nothing was logged:\n%s", log.String())
	}
}

// What browsers send for other sites changes nothing, with or without users.
func TestOtherSitesDoNotActForUsers(t *testing.T) {
	g := newGuarded(t, nil)
	for _, path := range []string{"/login", "/logout", "/api/logout", "/api/login", "/api/users/", "/api/cameras/"} {
		for _, h := range [][]string{{"Origin", "http://evil.com"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}} {
			if a := g.send("admin", "POST", path, `{}`, h...); a.status != 403 {
				t.Errorf("%s with %q: %d %s", path, h, a.status, a.body)
			}
		}
	}
	if a := g.send("admin", "GET", "/api/", ""); a.status != 200 {
		t.Errorf("signed out by another site: %d", a.status)
	}
}

// Where everybody may look, users can still do more.
func TestUsersBesideEverybody(t *testing.T) {
	r := newRecorder(t, "view")
	users, err := access.Open(t.Context(), access.Config{DB: r.store.Database(), Everybody: Everybody("view"), Claim: true})
	if err != nil {
		t.Fatal(err)
	}
	defer users.Close()
	r.server.Config.Handler = held(t, Config{Store: r.store, Access: users, Anonymous: "view"})
	g := &guarded{recorder: r, users: users}
	if a := g.send("", "GET", "/api/", ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := g.send("", "GET", "/api/", "", "Authorization", "Bearer hft_wrong"); a.status != 401 {
		t.Errorf("with a token that lets nobody in: %d %s", a.status, a.body)
	}
	if a := g.send("", "GET", "/api/?cameraConfigs=true", ""); a.status != 403 || !strings.Contains(string(a.body), "-allow-anonymous admin") {
		t.Errorf("without users: %d %s", a.status, a.body)
	}
	if a := g.send("", "GET", "/api/claim", ""); a.status != 404 {
		t.Errorf("claim: %d", a.status)
	}
	name := "owner"
	if _, err := users.AddUser(t.Context(), access.Nobody(access.Admin), access.UserChange{Name: &name}); err != nil {
		t.Fatal(err)
	}
	if a := g.send("", "GET", "/api/?cameraConfigs=true", ""); a.status != 403 {
		t.Errorf("with a user who cannot sign in: %d %s", a.status, a.body)
	}
	password := "long enough"
	if _, err := users.ChangeUser(t.Context(), access.Nobody(access.Admin), 1, access.UserChange{Password: &password}, access.Peer{}); err != nil {
		t.Fatal(err)
	}
	if a := g.send("", "GET", "/api/?cameraConfigs=true", ""); a.status != 401 {
		t.Errorf("with users: %d %s", a.status, a.body)
	}
}

// api.md rule 4, of what takes no parameter at all.
func TestParametersOfNothingAreRefused(t *testing.T) {
	g := unclaimedRecorder(t, nil)
	for _, path := range []string{"/healthz", "/api/claim"} {
		if a := g.send("", "GET", path+"?x=1", ""); a.status != 400 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	g = newGuarded(t, nil)
	for path, want := range map[string]int{"/healthz": 400, "/metrics": 400, "/api/request": 400, "/api/claim": 404} {
		if a := g.send("admin", "GET", path+"?x=1", ""); a.status != want {
			t.Errorf("%s: %d %s, want %d", path, a.status, a.body, want)
		}
	}
}

func TestTooManyTriesAreToldWhenToComeBack(t *testing.T) {
	g := newGuarded(t, nil)
	for range 100 {
		a := g.send("", "POST", "/api/login", `{"username":"nobody","password":"x"}`)
		if a.status == 401 {
			continue
		}
		if a.status != 429 || a.header.Get("Retry-After") == "" {
			t.Errorf("%d %s, Retry-After %q", a.status, a.body, a.header.Get("Retry-After"))
		}
		return
	}
	t.Error("there is no limit")
}
