package web

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"holdfast/nvr/access"
	"holdfast/nvr/store"
)

// Whatever is asked, the answer is never that the recorder failed.
func FuzzRequest(f *testing.F) {
	for _, s := range []struct{ method, target, header, body string }{
		{"GET", "/api/", "", ""},
		{"GET", "/api/?cameraConfigs=true&cameraConfigs=false", "", ""},
		{"GET", "/api/cameras/UUID/main/recordings?startTime90k=-1&endTime90k=2026-01-01T00:00Z&split90k=1", "", ""},
		{"GET", "/api/cameras/UUID/main/recordings?startTime90k=1152921504606846976&endTime90k=1152921504606846976", "", ""},
		{"GET", "/api/cameras/UUID/main/view.mp4?s=0-1@1.1-2&s=0", "Range: bytes=-1", ""},
		{"GET", "/api/cameras/UUID/main/view.mp4?s=0.1-2", "Range: bytes=9223372036854775807-", ""},
		{"GET", "/api/cameras/UUID/main/view.mp4?s=0.9223372036854775806-", "If-Range: x", ""},
		{"HEAD", "/api/cameras/UUID/main/view.mp4?s=0", "If-None-Match: *", ""},
		{"GET", "/api/cameras/UUID/main/view.mp4?s=0&s=0.1-&gaps=keep&ts=true", "Range: bytes=0-1,5-9,-3", ""},
		{"GET", "/api/cameras/UUID/main/view.mp4.txt?s=0-1&ts=x", "", ""},
		{"GET", "/api/cameras/UUID/main/view.m4s?s=0.100000-&s=0", "Range: bytes=-1", ""},
		{"GET", "/api/cameras/UUID/main/view.m4s.txt?s=0&gaps=keep", "", ""},
		{"GET", "/api/cameras/UUID/main/live.m4s", "Upgrade: websocket", ""},
		{"GET", "/api/init/-1.mp4", "", ""},
		{"GET", "/api/init/1.mp4?%", "", ""},
		{"GET", "/api/init/1.mp4?audio=-1", "", ""},
		{"GET", "/api/cameras/UUID/main/view.m4s?s=0&audio=true", "", ""},
		{"GET", "/api/cameras/%2e%2e/%2e%2e/etc", "", ""},
		{"POST", "/api/cameras/", "Content-Type: application/json", `{"shortName":"a","streams":{"main":{"url":"rtsp://192.0.2.1/","retainBytes":-1}}}`},
		{"POST", "/api/cameras/", "Content-Type: application/json", `[[[[[[`},
		{"DELETE", "/api/cameras/x/", "", ""},
		{"OPTIONS", "*", "", ""},
		{"POST", "/api/login", "Content-Type: application/json", `{"username":"\u0000","password":"` + strings.Repeat("x", 300) + `"}`},
		{"POST", "/login", "Content-Type: application/x-www-form-urlencoded", "username=%ff&password=%zz"},
		{"POST", "/api/users/", "Content-Type: application/json", `{"user":{"username":"a","permissions":{"cameras":{"UUID":["live","x"]}}}}`},
		{"PATCH", "/api/users/1", "Content-Type: application/json", `{"update":{"permissions":{"allCameras":null}}}`},
		{"PATCH", "/api/users/1", "Content-Type: application/json", `{"update":{"preferences":{"a":[{}]}},"precondition":{"preferences":{}}}`},
		{"DELETE", "/api/users/4294967297/sessions/-1", "", ""},
		{"POST", "/api/users/1/tokens", "Authorization: Bearer x", `{}`},
		{"GET", "/api/request", "Cookie: s=" + strings.Repeat("x", 5000), ""},
	} {
		f.Add(s.method, s.target, s.header, s.body)
	}
	s, err := store.Open(f.Context(), store.Config{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close(context.Background()) })
	uuid, err := s.AddCamera(f.Context(), store.CameraConfig{ShortName: "one", Streams: map[string]store.StreamConfig{
		"main": {URL: "rtsp://192.0.2.7/main", Record: true, RetainBytes: 1 << 30},
	}})
	if err != nil {
		f.Fatal(err)
	}
	users, err := access.Open(f.Context(), access.Config{DB: s.Database(), Everybody: Everybody("admin")})
	if err != nil {
		f.Fatal(err)
	}
	cfg := Config{Store: s, Access: users, Anonymous: "admin"}
	cam, _ := s.Camera(uuid)
	run := cam.Stream("main").Begin(nil)
	f.Cleanup(func() { run.End("test over") })
	if err := (&feed{run: run, size: 100, entry: videoEntry(640, 360), began: time.Now()}).fill(100); err != nil {
		f.Fatal(err)
	}

	f.Fuzz(func(t *testing.T, method, target, header, body string) {
		target = strings.ReplaceAll(target, "UUID", uuid)
		u, err := url.ParseRequestURI(target)
		if err != nil || method == "" || method == "DELETE" && strings.Contains(target, uuid) {
			return
		}
		r := httptest.NewRequest("GET", "/", strings.NewReader(body)).WithContext(t.Context())
		r.Method, r.URL, r.RequestURI, r.Host = method, u, target, "localhost"
		if name, value, ok := strings.Cut(header, ": "); ok && !strings.EqualFold(name, "Host") {
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		held(t, cfg).ServeHTTP(w, r)
		if resp := w.Result(); resp.StatusCode >= 500 && !(resp.StatusCode == http.StatusNotImplemented && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")) {
			b, _ := io.ReadAll(resp.Body)
			t.Fatalf("%s %s (%s): %d %s", method, target, header, resp.StatusCode, b)
		}
	})
}
