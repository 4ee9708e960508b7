package record

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/store"
)

// What a stream is, is measured in seconds; what it is not, is said with what to
// do about it.
func TestTryMeasuresAStream(t *testing.T) {
	for _, c := range []struct {
		name   string
		script string
		change func(*store.Source)
		cause  store.Cause
		says   []string // of the error; none: it is measured
	}{
		{"works", "", nil, "", nil},
		{"wrong password", "", func(s *store.Source) { s.Password = "geheim" }, store.LoginRefused, []string{"check user and password"}},
		{"no password", "", func(s *store.Source) { s.Username, s.Password = "", "" }, store.LoginRefused, []string{"check user and password"}},
		{"nobody there", "", func(s *store.Source) { s.URL = "rtsp://10.0.0.8/main" }, store.CameraUnreachable, []string{"refused", "RTSP is switched on"}},
		{"no such stream", "", func(s *store.Source) { s.URL += "x" }, store.CameraEnded, []string{"404", "path of the URL"}},
		{"no video", "0s frozen 10m", nil, store.NoFrames, []string{"sends no pictures"}},
		{"no URL", "", func(s *store.Source) { s.URL = "http://10.0.0.7/main" }, store.OtherCause, []string{"not an RTSP URL"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			script, err := cameratest.ParseScript(c.script)
			if err != nil {
				t.Fatal(err)
			}
			pipe := cameratest.NewPipe()
			cams, err := cameratest.Start(cameratest.Config{
				Listen: "10.0.0.7:554", ListenFunc: pipe.Listen, User: "admin", Password: "right", Script: script,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer cams.Close()
			r := &Recorder{DialContext: pipe.DialContext}
			src := store.Source{URL: "rtsp://10.0.0.7/main", Username: "admin", Password: "right", Transport: "tcp"}
			if c.change != nil {
				c.change(&src)
			}
			began := time.Now()
			m, cause, err := r.Try(t.Context(), src)
			took := time.Since(began)
			if cause != c.cause || (err == nil) != (c.says == nil) {
				t.Fatalf("%s: %v, %v", c.name, cause, err)
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v does not say %q", c.name, err, want)
				}
			}
			if err != nil && src.Password != "" && strings.Contains(err.Error(), src.Password) {
				t.Errorf("%s: the password is in %v", c.name, err)
			}
			if took > tryMost+15*time.Second {
				t.Errorf("%s: took %v", c.name, took)
			}
			if c.says != nil {
				return
			}
			if m.Video == nil || m.Video.Width == 0 || m.Audio == nil || m.Transport != "tcp" || m.BitRate == 0 || m.FrameRate != 20 || m.GOPPictures != 40 {
				t.Errorf("%s: %+v", c.name, m)
			}
			if took > 15*time.Second {
				t.Errorf("%s: took %v", c.name, took)
			}
		})
	}
}

// A camera is not asked again with a password that it has just refused, and who
// has gone away is not waited for.
func TestTryIsGentleAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipe := cameratest.NewPipe()
		cams, err := cameratest.Start(cameratest.Config{Listen: "10.0.0.7:554", ListenFunc: pipe.Listen, User: "admin", Password: "right"})
		if err != nil {
			t.Fatal(err)
		}
		defer cams.Close()
		r := &Recorder{DialContext: pipe.DialContext}
		src := store.Source{URL: "rtsp://10.0.0.7/main", Username: "admin", Password: "wrong", Transport: "tcp"}
		if _, _, err := r.Try(t.Context(), src); err == nil {
			t.Fatal("the password is wrong")
		}
		dial := r.DialContext
		r.DialContext = nil
		if _, cause, err := r.Try(t.Context(), src); cause != store.LoginRefused || err == nil || !strings.Contains(err.Error(), "a moment ago") {
			t.Errorf("again: %v, %v", cause, err)
		}
		r.DialContext = dial
		src.Password = "right"
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, _, err := r.Try(ctx, src); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if _, _, err := r.Try(t.Context(), src); err != nil {
			t.Errorf("with the right one: %v", err)
		}

		// Doors are bounded, whoever tries what.
		for i := range 3 * mostDoors {
			src.URL = fmt.Sprintf("rtsp://10.1.%d.%d/", i/200, i%200)
			if _, _, err := r.Try(t.Context(), src); err == nil {
				t.Fatal("nobody is there")
			}
		}
		if n := len(r.doors.at); n > mostDoors {
			t.Errorf("%d doors", n)
		}
	})
}
