package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/store"
)

// Passwords of cameras, right and wrong, given in the URL and beside it, to cameras
// that take them, refuse them, are not there and have no such stream, are in nothing
// that the recorder writes or answers: log, output of commands, API, metrics,
// health, files. Without the key file neither.
func TestPasswordsOfCamerasAreNowhere(t *testing.T) {
	const secret = "SeCrEt"
	cams, err := cameratest.Start(cameratest.Config{Listen: "127.0.0.1:0", Cameras: 2, User: "admin", Password: secret + "-right"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cams.Close)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close() // nothing listens there
	in := func(url string) string { return strings.Replace(url, "rtsp://", "rtsp://admin:"+secret+"-right@", 1) }
	one := func(url, user, password string) map[string]store.StreamConfig {
		return map[string]store.StreamConfig{"main": {URL: url, Username: user, Password: password, Record: true, RetainBytes: 1 << 30}}
	}
	set := store.Settings{Cameras: []store.CameraConfig{
		{ShortName: "good", Streams: one(in(cams.URL("1/main")), "", "")},
		{ShortName: "wrong", Streams: one(cams.URL("2/main"), "admin", secret+"-wrong")},
		{ShortName: "no stream", Streams: one(in(cams.URL("1/none")), "", "")},
		{ShortName: "nobody", Streams: one(in("rtsp://"+nobody.Addr().String()+"/main"), "", "")},
		{ShortName: "no port", Streams: one("rtsp://127.0.0.1:99999/main", "admin", secret+"-port")},
	}}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cameras.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	clean := func(what string, b []byte) {
		t.Helper()
		if i := bytes.Index(b, []byte(secret)); i >= 0 {
			t.Errorf("%s shows it: …%s", what, b[max(0, i-200):min(len(b), i+40)])
		}
	}
	data := filepath.Join(t.TempDir(), "data")
	run := func(args ...string) {
		t.Helper()
		out, _ := nvrCommand(t, args...)
		clean(strings.Join(args[:2], " "), []byte(out))
	}
	run("config", "import", file, "-data", data)

	look := func(want ...string) {
		t.Helper()
		p := start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "admin")
		address := p.address()
		said := func(b []byte) bool {
			for _, w := range want {
				if !bytes.Contains(b, []byte(w)) {
					return false
				}
			}
			return true
		}
		for limit := time.Now().Add(2 * time.Minute); !said(get(t, address+"/api/")); <-time.After(50 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("it does not say all of %q: %s", want, get(t, address+"/api/"))
			}
		}
		ask := func(method, path, body string) []byte {
			t.Helper()
			// Live video and events come without end: a second of them is looked at.
			ctx, endless := t.Context(), method == "GET" && (strings.HasSuffix(path, "live.m4s") || path == "/api/events")
			if endless {
				var stop context.CancelFunc
				ctx, stop = context.WithTimeout(ctx, time.Second)
				defer stop()
			}
			r, err := http.NewRequestWithContext(ctx, method, address+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(r)
			if err != nil && endless && errors.Is(err, context.DeadlineExceeded) {
				return nil // a camera that never sent anything: not even a header
			}
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil && !(endless && errors.Is(err, context.DeadlineExceeded)) {
				t.Fatal(err)
			}
			clean(method+" "+path, got)
			return got
		}
		var top struct{ Cameras []struct{ UUID string } }
		if err := json.Unmarshal(ask("GET", "/api/?cameraConfigs=true", ""), &top); err != nil || len(top.Cameras) != len(set.Cameras) {
			t.Fatalf("%d cameras, %v", len(top.Cameras), err)
		}
		for _, path := range []string{"/", "/api/", "/api/users/", "/api/request", "/api/events", "/api/dirs/", "/api/signals", "/healthz", "/metrics"} {
			ask("GET", path, "")
		}
		for _, c := range top.Cameras {
			for _, path := range []string{"?cameraConfigs=true", "main/recordings", "main/gaps", "main/view.mp4?s=0", "main/view.mp4.txt?s=0", "main/live.m4s"} {
				ask("HEAD", "/api/cameras/"+c.UUID+"/"+path, "")
				if !strings.HasPrefix(path, "main/view.mp4") {
					ask("GET", "/api/cameras/"+c.UUID+"/"+path, "")
				}
			}
		}
		for _, body := range []string{
			`{"shortName":"x","streams":{"main":{"url":"rtsp://a:` + secret + `@[::1/x","record":true}}}`,
			`{"shortName":"x","streams":{"main":{"url":"rtsp://a:` + secret + `@h:port/x","record":true}}}`,
			`{"shortName":"x","streams":{"main":{"url":"http://a:` + secret + `@h/x","record":true}}}`,
			`{"shortName":"x","streams":{"main":{"url":"rtsp://a:` + secret + `@h/x","username":"b","record":true}}}`,
			`{"shortName":"x","streams":{"main":{"url":"rtsp://h/x","username":"b","password":["` + secret + `"],"record":true}}}`,
			`{"shortName":"x","streams":{"main":{"url":"rtsp://h/x","username":"b","password":"` + secret + `","retainBytes":-1}}}`,
			`{"shortName":"good","streams":{"main":{"url":"rtsp://b:` + secret + `@h/x"}}}`,
			`{"shortName":"x","streams":{"main":{"url":"rtsp://h/x","password":"` + secret + `"`,
		} {
			ask("POST", "/api/cameras/", body)
		}
		for _, body := range []string{
			`{"url":"rtsp://a:` + secret + `@127.0.0.1:1/x"}`,
			`{"url":"rtsp://a:` + secret + `@h:port/x"}`,
			`{"url":"rtsp://127.0.0.1:1/x","username":"b","password":"` + secret + `"}`,
			`{"url":"rtsp://127.0.0.1:1/x","password":["` + secret + `"]}`,
		} {
			ask("POST", "/api/test-stream", body)
		}
		p.terminate()
		clean("log", []byte(p.logged()))
	}
	look(`"phase":"recording"`, "login refused", "404", "connection refused", "port 99999")
	run("check", "-data", data)
	copied := filepath.Join(t.TempDir(), "copy")
	run("backup", "-data", data, "-to", copied)
	if b, err := os.ReadFile(copied); err != nil || len(b) == 0 {
		t.Error(err)
	} else {
		clean("copy", b)
	}
	key, err := os.ReadFile(filepath.Join(data, "db.key"))
	if err != nil || len(key) != 32 {
		t.Fatalf("key of %d bytes, %v", len(key), err)
	}
	if err := os.Remove(filepath.Join(data, "db.key")); err != nil {
		t.Fatal(err)
	}
	look("enter the password of this camera again")
	run("check", "-data", data)
	run("config", "export", "-", "-data", data)
	run("restore", "-data", data, "-from", copied)
	run("rebuild", "-data", data)
	err = filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		clean(d.Name(), b)
		if bytes.Contains(b, key) {
			t.Errorf("%s holds the key", d.Name())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
