package record_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/record"
	"holdfast/nvr/record/recordtest"
	"holdfast/nvr/store"
)

// journal is a log that may be read while it is written.
type journal struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *journal) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *journal) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// bench is a recorder beside emulated cameras, joined by pipes, in a bubble.
type bench struct {
	*testing.T
	dir  string
	cams *cameratest.Server
	s    *store.Store
	log  *journal
	pipe *cameratest.Pipe
	halt func() // the recorder; the cameras go on
}

func newBench(t *testing.T, cfg cameratest.Config, set func(*cameratest.Server) store.Settings) *bench {
	t.Helper()
	b := &bench{T: t, dir: t.TempDir(), log: new(journal), pipe: cameratest.NewPipe()}
	cfg.Listen, cfg.ListenFunc = "10.0.0.7:554", b.pipe.Listen
	var err error
	if b.cams, err = cameratest.Start(cfg); err != nil {
		t.Fatal(err)
	}
	b.start(set(b.cams))
	return b
}

// start runs a recorder on the data directory.
func (b *bench) start(set store.Settings) {
	b.Helper()
	log := slog.New(slog.NewTextHandler(io.MultiWriter(b.log, b.Output()), nil))
	var err error
	if b.s, err = store.Open(b.Context(), store.Config{Dir: b.dir, Log: log}); err != nil {
		b.Fatal(err)
	}
	if err := b.s.Import(b.Context(), set); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&record.Recorder{Store: b.s, Log: log, DialContext: b.pipe.DialContext}).Serve(ctx, "recorder stopped")
	}()
	b.halt = func() {
		cancel()
		<-done
		if err := b.s.Close(context.WithoutCancel(b.Context())); err != nil {
			b.Error(err)
		}
	}
}

func (b *bench) stop() {
	b.halt()
	b.cams.Close()
}

// onCamera records the main stream of the first camera.
func onCamera(change func(*store.StreamConfig)) func(*cameratest.Server) store.Settings {
	return func(s *cameratest.Server) store.Settings {
		sc := store.StreamConfig{URL: s.URL("main"), Record: true, RetainBytes: 1 << 40}
		if change != nil {
			change(&sc)
		}
		return store.Settings{Cameras: []store.CameraConfig{{ShortName: "1", Streams: map[string]store.StreamConfig{"main": sc}}}}
	}
}

func (b *bench) state() store.State { return b.s.Cameras()[0].Streams[0].Info().State }

// read verifies what is on the disk.
func (b *bench) read() map[string]*recordtest.Stream {
	b.Helper()
	streams, err := recordtest.Read(filepath.Join(b.dir, "sample"), func(a *mp4.About) *cameratest.Fixture {
		return b.cams.Fixture(a.CameraName + "/" + a.Stream)
	})
	if err != nil {
		b.Fatal(err)
	}
	return streams
}

// An hour of two cameras, proven from the sample files alone: every frame is
// there once, in order, with the bytes that were sent, across rotations.
func TestAnHourIsRecordedWhole(t *testing.T) {
	hour := time.Hour
	if testing.Short() {
		hour = 5 * time.Minute
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, cameratest.Config{Cameras: 2}, func(s *cameratest.Server) store.Settings {
			var set store.Settings
			for i := range 2 {
				set.Cameras = append(set.Cameras, store.CameraConfig{ShortName: fmt.Sprint(i + 1), Streams: map[string]store.StreamConfig{
					"main": {URL: s.URL(fmt.Sprintf("%d/main", i+1)), Record: true, RetainBytes: 1 << 40},
				}})
			}
			return set
		})
		time.Sleep(hour)
		sent := map[string]uint64{"1 main": b.cams.Frame("1/main"), "2 main": b.cams.Frame("2/main")}
		b.stop()
		for name, st := range b.read() {
			if gaps := st.Gaps(); len(gaps) > 0 {
				t.Errorf("%s: %d gaps, the first after frame %d: %d frames", name, len(gaps), gaps[0].After.Frame, gaps[0].Missing)
			}
			if err := st.Steady(); err != nil {
				t.Error(err)
			}
			first, last := st.Frames[0], st.Frames[len(st.Frames)-1]
			if first.Frame > 60 || last.Frame+1 < sent[name]-1 {
				t.Errorf("%s: frames %d to %d, sent were %d", name, first.Frame, last.Frame, sent[name])
			}
			if d := last.At.Sub(first.At).Std(); d < hour-5*time.Second {
				t.Errorf("%s: %v recorded", name, d)
			}
			if minutes := int(hour / time.Minute); st.Files < minutes || st.Files > minutes+2 || st.Torn != 0 {
				t.Errorf("%s: %d files, %d torn bytes", name, st.Files, st.Torn)
			}
			if st.Sounds == 0 {
				t.Errorf("%s: no sound", name)
			}
			t.Logf("%s: %d frames and %d sounds in %d files", name, len(st.Frames), st.Sounds, st.Files)
			delete(sent, name)
		}
		if len(sent) > 0 {
			t.Errorf("nothing is recorded of %v", sent)
		}
	})
}

// Whatever the camera does, it is recorded again after it, and every file is
// whole.
func TestRecordingGoesOnAfterFaults(t *testing.T) {
	for _, tt := range []struct {
		fault  string
		reason string        // part of what the run ended for, or ""
		within time.Duration // of the fault, recording goes on
		keeps  bool          // without a new run
	}{
		{fault: "drop", within: 10 * time.Second},
		{fault: "stall 15s", within: 45 * time.Second},
		{fault: "refuse 20s", within: 60 * time.Second},
		{fault: "sps", within: 5 * time.Second, keeps: true},
		{fault: "nokey 6m", reason: "5 minutes", within: 7 * time.Minute},
		{fault: "jump 1h", reason: "5 minutes", within: 15 * time.Second},
		{fault: "jump -1h", reason: "", within: 15 * time.Second},
		{fault: "jump 2147483648u", reason: "", within: 15 * time.Second},
		{fault: "oneframe 20s", reason: "", within: 50 * time.Second},
		{fault: "duplicate 5", reason: "", within: 15 * time.Second},
		{fault: "backward 5", reason: "", within: 15 * time.Second},
		{fault: "frozen 20s", reason: "", within: 50 * time.Second},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, cameratest.Config{}, onCamera(nil))
				time.Sleep(30 * time.Second)
				f, err := cameratest.ParseFault(tt.fault)
				if err != nil {
					t.Fatal(err)
				}
				b.cams.Inject(f)
				time.Sleep(tt.within)
				if st := b.state(); st.Phase != store.Recording {
					t.Errorf("%v after the fault: %s (%s)", tt.within, st.Phase, st.Reason)
				}
				time.Sleep(time.Minute)
				b.stop()
				for name, st := range b.read() {
					last := st.Frames[len(st.Frames)-1]
					if runs := last.Run + 1; (runs == 1) != tt.keeps {
						t.Errorf("%s: %d runs", name, runs)
					}
					if err := st.Steady(); err != nil {
						t.Error(err)
					}
					if last.Frame+2 < b.cams.Frame("main") {
						t.Errorf("%s: the last frame is %d of %d", name, last.Frame, b.cams.Frame("main"))
					}
					for _, g := range st.Gaps() {
						t.Logf("%s: %d frames are missing after frame %d", name, g.Missing, g.After.Frame)
						// A pause shorter than the watch stays within the run, as
						// one long picture.
						if g.After.Run == g.Before.Run && g.After.Duration < media.Duration(g.Missing)*media.Second/30 {
							t.Errorf("%s: they are missing within a run", name)
						}
					}
				}
				if tt.reason != "" && !strings.Contains(b.log.String(), tt.reason) {
					t.Errorf("the log does not speak of %q", tt.reason)
				}
			})
		})
	}
}

// Each thing that is wrong with a camera is named to who may see it; its address
// is for the log, and its password for nobody.
func TestWhatIsWrongWithACameraIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		camera cameratest.Config
		change func(*store.StreamConfig)
		script string
		url    string
		want   []string
	}{
		{"refused", cameratest.Config{}, func(c *store.StreamConfig) { c.URL = "rtsp://10.0.0.8/main" }, "", "rtsp://10.0.0.8/main", []string{"refused"}},
		{"wrong password", cameratest.Config{User: "admin", Password: "right"},
			func(c *store.StreamConfig) { c.Username, c.Password = "admin", "wrong" }, "", "rtsp://10.0.0.7:554/main", []string{"login refused"}},
		{"no such stream", cameratest.Config{}, func(c *store.StreamConfig) { c.URL += "x" }, "", "rtsp://10.0.0.7:554/mainx", []string{"404"}},
		{"no video", cameratest.Config{}, nil, "0s frozen 10m", "rtsp://10.0.0.7:554/main", []string{"10s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.script != "" {
					s, err := cameratest.ParseScript(tt.script)
					if err != nil {
						t.Fatal(err)
					}
					tt.camera.Script = s
				}
				b := newBench(t, tt.camera, onCamera(tt.change))
				time.Sleep(25 * time.Second)
				var said store.State
				for range 100 { // it may be trying again just now
					if said = b.state(); said.Phase == store.Waiting {
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
				if said.Phase != store.Waiting {
					t.Errorf("phase %s", said.Phase)
				}
				for _, w := range tt.want {
					if !strings.Contains(said.Reason, w) {
						t.Errorf("reason %q does not name %q", said.Reason, w)
					}
				}
				if strings.Contains(said.Reason, "10.0.0.") || !strings.Contains(b.log.String(), tt.url) {
					t.Errorf("reason %q, and the address has to be in the log alone:\n%s", said.Reason, b.log)
				}
				if strings.Contains(said.Reason, "wrong\"") || strings.Contains(b.log.String(), ":wrong@") {
					t.Error("the password is shown")
				}
				b.stop()
			})
		})
	}
}

// A camera may lock an account after a few wrong passwords.
func TestWrongPasswordIsTriedOnceInThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, cameratest.Config{User: "admin", Password: "right"}, func(s *cameratest.Server) store.Settings {
			streams := make(map[string]store.StreamConfig)
			for _, typ := range []string{"main", "sub"} {
				streams[typ] = store.StreamConfig{URL: s.URL(typ), Username: "admin", Password: "wrong", Record: true, RetainBytes: 1 << 30}
			}
			return store.Settings{Cameras: []store.CameraConfig{{ShortName: "1", Streams: streams}}}
		})
		time.Sleep(10 * time.Minute)
		tries := 0
		for _, e := range b.cams.Events() {
			if e.What == cameratest.LoginFailed {
				tries++
			}
		}
		if tries < 10 || tries > 22 { // both streams try at the very start
			t.Errorf("%d failed logins in ten minutes, want at most one in 30 s", tries)
		}
		if since := time.Since(b.state().Since.Std()); since < 9*time.Minute {
			t.Errorf("it is said not to record since %v, want ten minutes", since)
		}
		b.stop()
	})
}

// A wrong password holds up nobody but itself, and says how long.
func TestRightPasswordIsTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		with := func(password string) func(*store.StreamConfig) {
			return func(c *store.StreamConfig) { c.Username, c.Password = "admin", password }
		}
		b := newBench(t, cameratest.Config{User: "admin", Password: "right"}, onCamera(with("wrong")))
		add := func(name, typ, password string) *store.Stream {
			t.Helper()
			sc := store.StreamConfig{URL: b.cams.URL(typ), Record: true, RetainBytes: 1 << 30}
			with(password)(&sc)
			uuid, err := b.s.AddCamera(t.Context(), store.CameraConfig{ShortName: name, Streams: map[string]store.StreamConfig{typ: sc}})
			if err != nil {
				t.Fatal(err)
			}
			c, _ := b.s.Camera(uuid)
			return c.Stream(typ)
		}
		time.Sleep(5 * time.Second)
		if st := b.state(); !strings.Contains(st.Reason, "login refused") {
			t.Fatalf("%s (%s)", st.Phase, st.Reason)
		}

		right := add("2", "main", "right")
		time.Sleep(3 * time.Second)
		if st := right.Info().State; st.Phase != store.Recording {
			t.Errorf("with the right password, beside a wrong one: %s (%s)", st.Phase, st.Reason)
		}
		wrong := add("3", "sub", "wrong")
		for _, left := range []int{19, 9} {
			time.Sleep(2500 * time.Millisecond)
			said, seconds := wrong.Info().State, 0
			_, err := fmt.Sscanf(said.Reason, "login refused a moment ago: check user and password; next try in %d s", &seconds)
			if said.Phase != store.Waiting || err != nil || seconds < left || seconds > left+2 {
				t.Errorf("with the password that was refused: %s (%s), want %d s left", said.Phase, said.Reason, left)
			}
			time.Sleep(7500 * time.Millisecond)
		}
		if err := wrong.Gaps(t.Context(), 0, 1<<60, func(g *store.Gap) error {
			if g.Cause == store.LoginRefused && (!strings.Contains(g.Detail, "check user and password") || strings.Contains(g.Detail, "next try")) {
				t.Errorf("the gap says %q, which will not be true for long", g.Detail)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second) // one of the two has tried again
		if err := b.s.Import(t.Context(), onCamera(with("right"))(b.cams)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if st := b.state(); st.Phase != store.Recording {
			t.Errorf("after the password was put right: %s (%s)", st.Phase, st.Reason)
		}
		b.stop()
	})
}

// A password that cannot be read costs the camera that needs it, and no other; the
// camera is not asked without it. Set again, it counts at once.
func TestLostPasswordIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		two := func(s *cameratest.Server, password string) store.Settings {
			streams := map[string]store.StreamConfig{
				"main": {URL: s.URL("main"), Username: "admin", Password: password, Record: true, RetainBytes: 1 << 40},
			}
			open := map[string]store.StreamConfig{"main": {URL: s.URL("sub"), Record: true, RetainBytes: 1 << 40}}
			return store.Settings{Cameras: []store.CameraConfig{{ShortName: "1", Streams: streams}, {ShortName: "2", Streams: open}}}
		}
		b := newBench(t, cameratest.Config{User: "admin", Password: "right"}, func(s *cameratest.Server) store.Settings { return two(s, "right") })
		time.Sleep(5 * time.Second)
		if st := b.state(); st.Phase != store.Recording {
			t.Fatalf("%s (%s)", st.Phase, st.Reason)
		}
		b.halt()
		if err := os.Remove(filepath.Join(b.dir, "db.key")); err != nil {
			t.Fatal(err)
		}
		asked := func() (n int) {
			for _, e := range b.cams.Events() {
				if e.What == cameratest.LoginFailed && strings.Contains(e.Path, "main") {
					n++
				}
			}
			return n
		}
		before := asked()
		b.start(two(b.cams, "")) // as a file says it that was written without passwords
		time.Sleep(10 * time.Minute)
		const want = "enter the password of this camera again: the one that is kept cannot be read, the key file db.key is missing"
		if st := b.state(); st.Phase != store.Waiting || st.Reason != want {
			t.Errorf("%s (%s)", st.Phase, st.Reason)
		}
		if n := asked() - before; n > 0 {
			t.Errorf("the camera was asked %d times without the password", n)
		}
		if st := b.s.Cameras()[1].Streams[0].Info(); st.State.Phase == store.Waiting && strings.Contains(st.State.Reason, "password of this camera") {
			t.Errorf("the camera without a password: %s (%s)", st.State.Phase, st.State.Reason)
		}
		if err := b.s.Import(t.Context(), two(b.cams, "right")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if st := b.state(); st.Phase != store.Recording {
			t.Errorf("after it was set again: %s (%s)", st.Phase, st.Reason)
		}
		b.stop()
	})
}

// Several wrong passwords of one user share the thirty seconds, whoever comes
// in by the right one meanwhile.
func TestWrongPasswordsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, cameratest.Config{User: "admin", Password: "right", Script: script(t, "every 20s drop")}, func(s *cameratest.Server) store.Settings {
			var set store.Settings
			for i, password := range []string{"wrong", "right", "worse", "wrong"} {
				set.Cameras = append(set.Cameras, store.CameraConfig{ShortName: fmt.Sprint(i + 1), Streams: map[string]store.StreamConfig{
					"main": {URL: s.URL("main"), Username: "admin", Password: password, Record: true, RetainBytes: 1 << 40},
				}})
			}
			return set
		})
		time.Sleep(25 * time.Second) // each password is tried once, to begin with
		began := len(failedLogins(b.cams))
		if began != 2 {
			t.Errorf("%d failed logins at the start, want 2", began)
		}
		time.Sleep(10 * time.Minute)
		at := failedLogins(b.cams)[began-1:]
		if len(at) < 15 {
			t.Errorf("%d failed logins in ten minutes: the door never opens again", len(at))
		}
		for i := range at[1:] {
			if d := at[i+1].Sub(at[i]); d < 29*time.Second {
				t.Errorf("two wrong passwords within %v", d)
			}
		}
		b.stop()
	})
}

func script(t *testing.T, text string) *cameratest.Script {
	t.Helper()
	s, err := cameratest.ParseScript(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func failedLogins(s *cameratest.Server) (at []time.Time) {
	for _, e := range s.Events() {
		if e.What == cameratest.LoginFailed {
			at = append(at, e.Time)
		}
	}
	return at
}

// A camera that is added, changed or deleted while the recorder runs.
func TestConfigurationIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, cameratest.Config{Cameras: 2}, onCamera(func(c *store.StreamConfig) { c.Record = false }))
		time.Sleep(5 * time.Second)
		if st := b.state(); st.Phase != store.Off {
			t.Errorf("a stream that is not to be recorded is %s", st.Phase)
		}
		uuid, err := b.s.AddCamera(t.Context(), store.CameraConfig{ShortName: "2", Streams: map[string]store.StreamConfig{
			"main": {URL: b.cams.URL("2/main"), Record: true, RetainBytes: 1 << 30},
		}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		c, _ := b.s.Camera(uuid)
		if in := c.Stream("main").Info(); in.State.Phase != store.Recording || in.Duration == 0 {
			t.Errorf("the added camera is %s, %v recorded", in.State.Phase, in.Duration)
		}
		if err := b.s.Import(t.Context(), onCamera(nil)(b.cams)); err != nil {
			t.Fatal(err)
		}
		if err := b.s.DeleteCamera(t.Context(), uuid); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if st := b.state(); st.Phase != store.Recording {
			t.Errorf("the stream that is to be recorded now is %s", st.Phase)
		}
		b.stop()
		streams := b.read()
		if len(streams) != 1 || streams["1 main"] == nil {
			t.Errorf("streams on the disk: %v", streams)
		}
	})
}
