package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
)

// A change keeps what it does not name: recordings, the run under way, and the
// password.
func TestCameraIsChangedWhileItIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 120)
		c := b.s.named("front")
		change := func(change, before CameraChange) error { return b.s.ChangeCamera(t.Context(), c.UUID, change, before) }
		password := CameraChange{Streams: map[string]StreamChange{"main": {Username: new("admin"), Password: new("geheim")}}}
		if err := change(password, CameraChange{}); err != nil {
			t.Fatal(err)
		}
		f := newFeed(st.Begin(nil))
		f.play(t, 10*time.Second)
		days, flush := 7, 60
		if err := change(CameraChange{
			ShortName: new("gate"), Description: new("over the gate"),
			Streams: map[string]StreamChange{
				"main": {RetainDays: &days, FlushIfSec: &flush, RTSPTransport: new("udp"), URL: new("rtsp://10.0.0.1/other")},
				"sub":  {URL: new("rtsp://10.0.0.1/sub")},
			},
		}, CameraChange{ShortName: new("front"), Streams: map[string]StreamChange{"main": {Record: new(true)}}}); err != nil {
			t.Fatal(err)
		}
		f.play(t, 10*time.Second)
		f.run.End("test")
		b.stop()
		b.start()
		st = b.again("gate")
		cfg := st.settings()
		if cfg.RetainDays != 7 || cfg.FlushIfSec != 60 || cfg.Transport != "udp" || cfg.URL != "rtsp://10.0.0.1/other" ||
			cfg.Username != "admin" || cfg.Password != "geheim" || !cfg.Record || cfg.RetainBytes != plenty {
			t.Errorf("main is %+v", cfg)
		}
		c = b.s.named("gate")
		if len(c.Streams) != 2 || c.Description != "over the gate" || c.Stream("sub").settings().Record {
			t.Errorf("the camera is %+v", c)
		}
		if got := everyPicture(t, st, 0); got != f.n {
			t.Errorf("%d pictures, want %d", got, f.n)
		}

		// Files that are begun from now on have the new name.
		f = newFeed(st.Begin(nil))
		f.play(t, 5*time.Second)
		f.run.End("test")
		synctest.Wait()
		b.stop()
		names, err := filepath.Glob(filepath.Join(b.dir, "sample", "*.mp4"))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		if file, err := os.ReadFile(slices.Max(names)); err != nil || !bytes.Contains(file, []byte(`"gate"`)) {
			t.Errorf("the newest file does not say gate: %v, %q", err, file[:min(len(file), 2000)])
		}
		b.start()
	})
}

// Nothing is changed by a change that is refused.
func TestChangeOfACameraIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.camera("front", plenty, 120)
		b.camera("back", plenty, 120)
		uuid := b.s.named("front").UUID
		main := func(c StreamChange) CameraChange { return CameraChange{Streams: map[string]StreamChange{"main": c}} }
		if err := b.s.ChangeCamera(t.Context(), uuid, main(StreamChange{Password: new("geheim")}), CameraChange{}); err != nil {
			t.Fatal(err)
		}
		was := b.s.Export()
		days := -1
		for name, tt := range map[string]struct {
			change, before CameraChange
			field          string // "": the precondition
		}{
			"name taken":            {CameraChange{ShortName: new("back")}, CameraChange{}, "shortName"},
			"no name":               {CameraChange{ShortName: new("")}, CameraChange{}, "shortName"},
			"days":                  {main(StreamChange{RetainDays: &days}), CameraChange{}, "streams.main.retainDays"},
			"not RTSP":              {main(StreamChange{URL: new("file:///etc/shadow")}), CameraChange{}, "streams.main.url"},
			"new stream, no URL":    {CameraChange{Streams: map[string]StreamChange{"sub": {}}}, CameraChange{}, "streams.sub.url"},
			"no such stream":        {CameraChange{Streams: map[string]StreamChange{"third": {URL: new("rtsp://x/")}}}, CameraChange{}, "streams.third"},
			"no directory":          {main(StreamChange{SampleFileDir: new("/nonexistent/x")}), CameraChange{}, "streams.main.sampleFileDir"},
			"password, other host":  {main(StreamChange{URL: new("rtsp://10.9.9.9/front")}), CameraChange{}, "streams.main.password"},
			"password, other port":  {main(StreamChange{URL: new("rtsp://10.0.0.1:5554/front")}), CameraChange{}, "streams.main.password"},
			"was called otherwise":  {CameraChange{Description: new("x")}, CameraChange{ShortName: new("gate")}, ""},
			"was not recorded":      {CameraChange{Description: new("x")}, main(StreamChange{Record: new(false)}), ""},
			"had another stream":    {CameraChange{Description: new("x")}, CameraChange{Streams: map[string]StreamChange{"sub": {}}}, ""},
			"came from other hosts": {CameraChange{Description: new("x")}, main(StreamChange{URL: new("rtsp://10.9.9.9/front")}), ""},
		} {
			err := b.s.ChangeCamera(t.Context(), uuid, tt.change, tt.before)
			if e, ok := errors.AsType[*ConfigError](err); tt.field == "" && !errors.Is(err, ErrPrecondition) || tt.field != "" && (!ok || e.Field != tt.field) {
				t.Errorf("%s: %v", name, err)
			}
			if err != nil && strings.Contains(err.Error(), "geheim") {
				t.Errorf("%s tells the password: %v", name, err)
			}
		}
		if now := b.s.Export(); !sameCameras(was, now) {
			t.Errorf("it is %+v, was %+v", now, was)
		}
		// With the password it may move, also with the same one.
		if err := b.s.ChangeCamera(t.Context(), uuid, main(StreamChange{URL: new("rtsp://10.9.9.9/front"), Password: new("geheim")}), CameraChange{}); err != nil {
			t.Error(err)
		}
		if err := b.s.ChangeCamera(t.Context(), "none", CameraChange{}, CameraChange{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("no camera: %v", err)
		}
	})
}

func sameCameras(a, b Settings) bool {
	return slices.EqualFunc(a.Cameras, b.Cameras, func(a, b CameraConfig) bool {
		return a.ShortName == b.ShortName && a.Description == b.Description && maps.EqualFunc(a.Streams, b.Streams, func(a, b StreamConfig) bool {
			same := *a.FlushIfSec == *b.FlushIfSec
			a.FlushIfSec, b.FlushIfSec = nil, nil
			return same && a == b
		})
	})
}

// A stream goes alone, with its files; what the other records is left.
func TestStreamIsDeletedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		main := b.camera("front", plenty, 30)
		uuid := b.s.named("front").UUID
		if err := b.s.ChangeCamera(t.Context(), uuid, CameraChange{Streams: map[string]StreamChange{
			"sub": {URL: new("rtsp://10.0.0.1/sub"), Record: new(true)}}}, CameraChange{}); err != nil {
			t.Fatal(err)
		}
		sub := b.s.named("front").Stream("sub")
		f, g := newFeed(main.Begin(nil)), newFeed(sub.Begin(nil))
		f.play(t, 3*time.Second)
		g.play(t, 100*time.Second) // some of it has rows
		if err := b.s.DeleteStream(t.Context(), uuid, "sub"); err != nil {
			t.Fatal(err)
		}
		if err := g.one(); !errors.Is(err, ErrRemoved) {
			t.Errorf("append: %v", err)
		}
		if b.s.named("front").Stream("sub") != nil || b.s.named("front").Stream("main") != main {
			t.Error("the streams are not those expected")
		}
		f.play(t, 3*time.Second)
		f.run.End("test")
		time.Sleep(5 * time.Second)
		left, err := filepath.Glob(filepath.Join(b.dir, "sample", fmt.Sprintf("%08x*", sub.id)))
		if err != nil || len(left) != 0 {
			t.Errorf("left are %v", left)
		}
		if err := b.s.DeleteStream(t.Context(), uuid, "sub"); !errors.Is(err, ErrNotFound) {
			t.Errorf("again: %v", err)
		}
		if err := b.s.DeleteStream(t.Context(), uuid, "main"); !strings.Contains(err.Error(), "delete the camera") {
			t.Errorf("the last one: %v", err)
		}
		b.stop()
		b.start()
		if got := everyPicture(t, b.again("front"), 0); got != f.n {
			t.Errorf("%d pictures, want %d", got, f.n)
		}
	})
}

// A stream may move to another directory as long as it holds nothing.
func TestEmptyStreamMovesToAnotherDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.camera("front", plenty, 30)
		uuid := b.s.named("front").UUID
		other := t.TempDir()
		move := func(to string) error {
			return b.s.ChangeCamera(t.Context(), uuid, CameraChange{Streams: map[string]StreamChange{"main": {SampleFileDir: &to}}}, CameraChange{})
		}
		if err := move(other); err != nil {
			t.Fatal(err)
		}
		st := b.again("front")
		f := newFeed(st.Begin(nil))
		f.play(t, 3*time.Second)
		if e, ok := errors.AsType[*ConfigError](move("")); !ok || e.Field != "streams.main.sampleFileDir" || !strings.Contains(e.Problem, other) {
			t.Errorf("with recordings: %v", e)
		}
		// What is refused leaves no directory in use.
		third := t.TempDir()
		if e, ok := errors.AsType[*ConfigError](move(third)); !ok || e.Field != "streams.main.sampleFileDir" {
			t.Errorf("to a new one: %v", e)
		}
		names, err := os.ReadDir(third)
		if n := len(b.s.Dirs()); n != 2 || err != nil || len(names) != 0 {
			t.Errorf("%d directories; in the one that was refused are %v, %v", n, names, err)
		}
		f.run.End("test")
		b.stop()
		b.start()
		if got := everyPicture(t, b.again("front"), 0); got != f.n || b.again("front").Info().SampleFileDir != other {
			t.Errorf("%d pictures in %s, want %d in %s", got, b.again("front").Info().SampleFileDir, f.n, other)
		}
	})
}

// What is known of the time of a stream goes with it to another directory: what
// is written down, and what is not yet.
func TestGapsMoveWithTheirStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		began := media.TimeOf(time.Now())
		st := b.camera("front", plenty, 120)
		want := map[Cause]media.Duration{CameraUnreachable: media.DurationOf(2*time.Hour + 30*time.Second)}
		st.Wait(CameraUnreachable, "no route")
		time.Sleep(2*time.Hour + 30*time.Second) // the end of it is in memory only
		is := func(when string) {
			t.Helper()
			got := explained(t, b.again("front"), began, media.TimeOf(time.Now()), media.Second/4)
			for cause, d := range got {
				if off := d - want[cause]; off > media.Second || off < -media.Second {
					t.Errorf("%s: %v of %s, want %v", when, d, cause, want[cause])
				}
			}
			if len(got) != len(want) {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		}
		is("before")
		other := t.TempDir()
		change := CameraChange{Streams: map[string]StreamChange{"main": {SampleFileDir: &other}}}
		if err := b.s.ChangeCamera(t.Context(), b.s.named("front").UUID, change, CameraChange{}); err != nil {
			t.Fatal(err)
		}
		is("moved")
		b.again("front").Wait(LoginRefused, "401")
		time.Sleep(10 * time.Minute)
		want[LoginRefused] = 10 * media.Minute
		is("refused")
		b.stop()
		b.start()
		f := newFeed(b.again("front").Begin(nil))
		f.play(t, 5*time.Second)
		is("after a restart, recorded")
		f.run.End("test")
	})
}
