package web

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// Days are of each stream, in the recorder's zone, with what grows; and only as
// asked.
func TestDaysAreThereWhenAsked(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.cameraAt("main", 55*time.Minute) // 23:55:30.5 in Berlin, on the day before that of 25 hours
	cam.send(25*10*60 + 1)
	defer cam.run.End("test over")

	zone := r.store.TimeZone()
	day := func(d int, recorded time.Duration) dayJSON {
		return dayJSON{media.DurationOf(recorded),
			media.TimeOf(time.Date(2026, 10, d, 0, 0, 0, 0, zone)), media.TimeOf(time.Date(2026, 10, d+1, 0, 0, 0, 0, zone))}
	}
	before := 4*time.Minute + 29*time.Second + 500*time.Millisecond
	want := map[string]dayJSON{"2026-10-24": day(24, before), "2026-10-25": day(25, 10*time.Minute-before)}
	if d := want["2026-10-25"]; d.End.Sub(d.Start).Std() != 25*time.Hour {
		t.Fatalf("the day has %v", d.End.Sub(d.Start).Std())
	}
	var top topLevel
	r.json("/api/?days=true", &top)
	var one, asked cameraJSON
	r.json(r.path(""), &one)
	r.json(r.path("?days=true"), &asked)
	for _, c := range []cameraJSON{top.Cameras[0], one, asked} {
		// Where the recording begins, instants are rounded.
		about := cmp.Comparer(func(a, b media.Duration) bool { return max(a-b, b-a) < media.Millisecond })
		if diff := cmp.Diff(want, c.Streams["main"].Days, about); diff != "" {
			t.Errorf("main (-want +got)\n%s", diff)
		}
		if d := c.Streams["sub"].Days; d == nil || len(d) != 0 {
			t.Errorf("sub, which never recorded: %v", d)
		}
	}
	var without topLevel
	r.json("/api/", &without)
	cameras := without.Cameras
	without, one = topLevel{}, cameraJSON{}
	r.json("/api/?days=false", &without)
	r.json(r.path("?days=false"), &one)
	for i, c := range append(cameras, without.Cameras[0], one) {
		if d := c.Streams["main"].Days; d != nil {
			t.Errorf("answer %d has days: %v", i, d)
		}
	}
	if a := r.get("/api/?days=yes"); a.status != 400 {
		t.Errorf("days=yes: %d", a.status)
	}
}

// Who may not see what was recorded is not told when that was.
func TestDaysAreForThoseWhoSeeRecordings(t *testing.T) {
	g := newGuarded(t, nil)
	a := g.send("admin", "POST", "/api/users/", `{"user":{"username":"live","password":"password","permissions":{"allCameras":["live"]}}}`)
	if a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	g.who["live"] = g.cookie(g.send("", "POST", "/api/login", `{"username":"live","password":"password"}`))
	for who, want := range map[string]bool{"A": true, "live": false} {
		a := g.send(who, "GET", "/api/cameras/"+g.uuids["A"]+"/?days=true", "")
		var c cameraJSON
		a.decode(t, &c)
		if got := c.Streams["main"].Days != nil; got != want {
			t.Errorf("%s: days %v", who, got)
		}
	}
}

// While recordings get their rows, each counts once: what a look adds up to
// never falls, and is never more than was recorded.
func TestDaysCountOnceDuringAFlush(t *testing.T) {
	r := newRecorder(t, "view")
	soon := 0
	uuid, err := r.store.AddCamera(t.Context(), store.CameraConfig{ShortName: "busy", Streams: map[string]store.StreamConfig{
		"main": {URL: "rtsp://192.0.2.1/", Record: true, FlushIfSec: &soon},
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.uuid = uuid
	st := r.stream("main")
	var recorded atomic.Int64 // at most
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		done <- func() error {
			for {
				recorded.Add(int64(10 * media.Second))
				f := &feed{run: st.Begin(nil), size: 100, entry: videoEntry(640, 360), began: time.Now()}
				if err := f.fill(250); err != nil {
					return err
				}
				f.run.End("camera closed the connection")
				select {
				case <-stop:
					return nil
				case <-time.After(10 * time.Millisecond):
				}
			}
		}()
	}()
	var was media.Duration
	deadline := time.Now().Add(time.Minute)
	for first := r.store.Flushes().Committed; r.store.Flushes().Committed < first+3; {
		var c cameraJSON
		r.json(r.path("?days=true"), &c)
		most := media.Duration(recorded.Load())
		var sum media.Duration
		for _, d := range c.Streams["main"].Days {
			sum += d.TotalDuration
		}
		if sum < was || sum > most {
			t.Fatalf("%v are recorded, after %v, of %v", sum.Std(), was.Std(), most.Std())
		}
		was = sum
		if time.Now().After(deadline) {
			t.Fatal("nothing is flushed")
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
