package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/media"
	"holdfast/nvr/record"
	"holdfast/nvr/store"
)

// tester is a recorder whose streams can be tried.
func tester(t *testing.T, try func(context.Context, store.Source) (media.Measured, store.Cause, error)) *recorder {
	r := newRecorder(t, "admin")
	r.server.Config.Handler = held(t, Config{Store: r.store, Log: slog.New(slog.NewTextHandler(r.log, nil)), Anonymous: "admin", TryStream: try})
	return r
}

func (r *recorder) try(body string) *answer {
	return r.ask("POST", "/api/test-stream", body, "Content-Type", "application/json")
}

// Against a camera: facts, or a sentence; the stored password is used, and shown
// nowhere.
func TestStreamIsTried(t *testing.T) {
	cams, err := cameratest.Start(cameratest.Config{User: "admin", Password: "geheim"})
	if err != nil {
		t.Fatal(err)
	}
	defer cams.Close()
	r := tester(t, (&record.Recorder{}).Try)
	uuid, err := r.store.AddCamera(t.Context(), store.CameraConfig{ShortName: "real", Streams: map[string]store.StreamConfig{
		"main": {URL: strings.Replace(cams.URL("main"), "rtsp://", "rtsp://admin:geheim@", 1)}}})
	if err != nil {
		t.Fatal(err)
	}
	var got triedJSON
	r.try(`{"camera":"`+uuid+`","stream":"main"}`).decode(t, &got)
	v := got.Video
	if !got.OK || v == nil || v.Format != "H.264" || v.Profile != "Main" || v.Width == 0 || v.FrameRate != 20 || v.BitRate == 0 || v.GOPFrames != 40 ||
		v.GOPSec != 2 || got.Transport != "tcp" || got.Audio == nil || got.Audio.SampleRate == 0 || got.Seconds < 3 {
		t.Errorf("%+v, video %+v", got, v)
	}
	got = triedJSON{}
	r.try(`{"url":"`+cams.URL("main")+`","username":"admin","password":"falsch"}`).decode(t, &got)
	if got.OK || got.Cause != store.LoginRefused || !strings.Contains(got.Error, "check user and password") || got.Video != nil {
		t.Errorf("wrong password: %+v", got)
	}
	if log := r.log.String(); !strings.Contains(log, "trying a stream") || strings.Contains(log, "geheim") || strings.Contains(log, "falsch") {
		t.Errorf("the log says %s", log)
	}
}

// What is no stream of a camera is not connected to, and a stored password goes
// nowhere else.
func TestTriedStreamHasToBeOne(t *testing.T) {
	r := tester(t, func(context.Context, store.Source) (media.Measured, store.Cause, error) {
		t.Error("it is tried")
		return media.Measured{}, "", errors.New("tried")
	})
	for body, want := range map[string]struct {
		status int
		says   string
	}{
		`{}`:                           {400, "url: is missing"},
		`{"url":"http://192.0.2.1/"}`:  {400, "url"},
		`{"url":"file:///etc/passwd"}`: {400, "url"},
		`{"url":"rtsp://x/","rtspTransport":"http"}`:                                     {400, "rtspTransport"},
		`{"url":"rtsp://x/","record":true}`:                                              {400, "record"},
		`{"camera":"` + r.uuid + `","stream":"ext"}`:                                     {404, "has no stream"},
		`{"camera":"` + r.uuid + `"}`:                                                    {404, "has no stream"},
		`{"stream":"main"}`:                                                              {404, "no camera"},
		`{"camera":"` + r.uuid + `","stream":"main","url":"rtsp://192.0.2.66/main"}`:     {400, "password: is to be given again"},
		`{"camera":"` + r.uuid + `","stream":"main","url":"rtsp://192.0.2.7:8554/main"}`: {400, "password: is to be given again"},
		`{"csrf":"x","url":"rtsp://x/"}`:                                                 {400, "csrf"},
	} {
		if a := r.try(body); a.status != want.status || !strings.Contains(string(a.body), want.says) {
			t.Errorf("%s: %d %s, want %d with %q", body, a.status, a.body, want.status, want.says)
		}
	}
}

// Two at a time, and whoever goes away makes room.
func TestTriesAreBounded(t *testing.T) {
	began, ended := make(chan store.Source, 3), make(chan error, 3)
	r := tester(t, func(ctx context.Context, src store.Source) (media.Measured, store.Cause, error) {
		if d, ok := ctx.Deadline(); !ok || time.Until(d) > tryTime {
			t.Error("it has no limit of time")
		}
		began <- src
		<-ctx.Done()
		ended <- ctx.Err()
		return media.Measured{}, "", ctx.Err()
	})
	body := `{"camera":"` + r.uuid + `","stream":"main","url":"rtsp://192.0.2.7/other"}`
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	for range mostTried {
		go func() {
			req, err := http.NewRequestWithContext(ctx, "POST", r.server.URL+"/api/test-stream", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/json")
			if resp, err := r.server.Client().Do(req); err == nil {
				resp.Body.Close()
			}
		}()
	}
	for range mostTried {
		if src := <-began; src != (store.Source{URL: "rtsp://192.0.2.7/other", Username: "admin", Password: "geheim", Transport: "tcp"}) {
			t.Errorf("tried is %+v", src)
		}
	}
	if a := r.try(body); a.status != 503 || !strings.Contains(string(a.body), "2 streams") {
		t.Errorf("a third: %d %s", a.status, a.body)
	}
	leave()
	for range mostTried {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended by %v", err)
		}
	}
}

// A camera that is not done in time is said so.
func TestTryHasALimitOfTime(t *testing.T) {
	r := tester(t, func(ctx context.Context, _ store.Source) (media.Measured, store.Cause, error) {
		<-ctx.Done()
		return media.Measured{}, "", ctx.Err()
	})
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		req := httptest.NewRequestWithContext(t.Context(), "POST", "http://localhost/api/test-stream", strings.NewReader(`{"url":"rtsp://192.0.2.1/"}`))
		req.Header.Set("Content-Type", "application/json")
		began := time.Now()
		r.server.Config.Handler.ServeHTTP(w, req)
		if took := time.Since(began); took != tryTime || tryTime >= answerTime || w.Code != 200 || !strings.Contains(w.Body.String(), "not done answering in 20s") {
			t.Errorf("%d %s after %v", w.Code, w.Body, took)
		}
	})
}
