package web

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// Fails when somebody who is no administrator reads the address of a camera in
// what was kept before errors left it out.
func TestNoListTellsTheAddressOfACamera(t *testing.T) {
	for in, want := range map[string]string{
		"no answer": "no answer", "": "",
		"rtsp://10.0.0.7:554/main: connection refused":             "connection refused",
		"rtsps://[fd00::1]:322/9xTqBw3kLmZpVr2s?x=y: no answer":    "no answer",
		"rtsp://10.0.0.7/main":                                     "",
		"stream: parse \"rtsp://10.0.0.7/main\": invalid: control": "stream: parse \"invalid: control",
	} {
		if got := withoutAddress(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	r := newRecorder(t, "view")
	st := r.stream("sub")
	st.Wait(store.CameraUnreachable, "rtsp://10.0.0.7/secret: no answer")
	r.ahead.Store(int64(10 * time.Minute))
	st.Wait(store.LoginRefused, "rtsp://10.0.0.7/secret: login refused")
	r.ahead.Store(int64(15 * time.Minute))
	cam := r.camera("main")
	cam.send(50)
	cam.run.End("rtsp://10.0.0.7/secret: no answer")
	for _, path := range []string{r.path("sub/gaps"), r.path("main/recordings")} {
		a := r.ask("GET", path, "")
		if a.status != 200 || !strings.Contains(string(a.body), "no answer") || strings.Contains(string(a.body), "10.0.0.7") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// A gap is listed while it goes on, and from the database after a restart.
func TestGapsHaveTheirCause(t *testing.T) {
	r := newFrozenRecorder(t, "view")
	began := media.TimeOf(start)
	list := func(query string) []gapJSON {
		t.Helper()
		var answer struct{ Gaps []gapJSON }
		r.json(r.path("sub/gaps")+query, &answer)
		return answer.Gaps
	}
	if got := list(""); got == nil || len(got) != 0 {
		t.Errorf("gaps at the beginning: %+v, want an empty list", got)
	}
	st := r.stream("sub")
	st.SetState(store.Connecting, "", nil)
	st.Wait(store.CameraUnreachable, "no answer")
	r.ahead.Store(int64(10 * time.Minute))
	st.Wait(store.LoginRefused, "")
	r.ahead.Store(int64(15 * time.Minute))
	want := []gapJSON{
		{began, began.Add(10 * media.Minute), store.CameraUnreachable, "no answer", false},
		{began.Add(10 * media.Minute), began.Add(15 * media.Minute), store.LoginRefused, "", true},
	}
	if diff := cmp.Diff(want, list("")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[:1], list("?endTime90k=2026-10-24T23:10:30")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[1:], list("?startTime90k=2026-10-24T21:10:31Z")); diff != "" {
		t.Error(diff)
	}
	r.restart()
	r.ahead.Store(int64(time.Hour))
	want[1].Growing = false
	want = append(want, gapJSON{began.Add(15 * media.Minute), began.Add(60 * media.Minute), store.RecorderDown, "", true})
	if diff := cmp.Diff(want, list("")); diff != "" {
		t.Error(diff)
	}
}
