package store

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
)

// explained checks that each instant in [from, to) is in exactly one recording
// or gap of the stream, to within slack, and returns how long each cause stands
// for.
func explained(t testing.TB, st *Stream, from, to media.Time, slack media.Duration) map[Cause]media.Duration {
	t.Helper()
	type interval struct {
		start, end media.Time
		what       string
	}
	var all []interval
	for _, r := range list(t, st) {
		all = append(all, interval{r.Start, r.End(), fmt.Sprint("recording ", r.No)})
	}
	causes := make(map[Cause]media.Duration)
	err := st.Gaps(t.Context(), 0, 1<<60, func(g *Gap) error {
		all = append(all, interval{g.Start, g.End, fmt.Sprintf("gap %s (%s)", g.Cause, g.Detail)})
		causes[g.Cause] += g.End.Sub(g.Start)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// A recording of one picture has no duration, and stands before what follows.
	slices.SortFunc(all, func(a, b interval) int { return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end)) })
	at, last, failed := from, "the beginning", false
	check := func(off media.Duration, what string) {
		if off > slack || off < -slack {
			t.Errorf("%s is %v off the end of %s", what, off, last)
			failed = true
		}
	}
	for _, v := range all {
		check(v.start.Sub(at), v.what)
		at, last = max(at, v.end), v.what
	}
	check(to.Sub(at), "now")
	for _, v := range all {
		if failed {
			t.Logf("%v to %v: %s", v.start, v.end, v.what)
		}
	}
	return causes
}

// What the disk did not take is a gap that says so, also when the recordings
// around it went on. Fails when cut does not leave a note.
func TestWhatTheDiskDidNotTakeIsAGap(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   error
		cause Cause
	}{
		{"full", fmt.Errorf("write: %w", syscall.ENOSPC), DiskFull},
		{"broken", errDisk, DiskError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d *scripted
				inner := script(&d)
				b := newBench(t, func(cfg *Config) { inner(cfg); cfg.RingBytes = 1 << 20 })
				st := b.camera("front", plenty, 60)
				began := media.TimeOf(time.Now())
				f := newFeed(st.Begin(nil))
				f.size = 4 << 10 // 40 KiB/s: the ring holds 25 s
				f.play(t, 95*time.Second)
				d.stop(tt.err, "write", "create")
				for range 36 {
					f.play(t, 5*time.Second)
					explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
				}
				d.heal()
				f.play(t, 3*time.Minute)
				f.run.End("test")
				st.Wait(CameraEnded, "test")
				time.Sleep(3 * time.Minute)
				causes := explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
				if lost := causes[tt.cause].Std(); lost < 2*time.Minute || lost > 3*time.Minute {
					t.Errorf("causes are %v", causes)
				}
				// Memory is full when the disk is well again, and the first pictures
				// may come before it has taken any: they push a group out, and the disk
				// is not what it was a moment ago.
				if causes[DiskSlow].Std() <= 2*time.Second {
					delete(causes, DiskSlow)
				}
				if ended := causes[CameraEnded].Std(); len(causes) != 2 || ended < 175*time.Second || ended > 185*time.Second {
					t.Errorf("causes are %v", causes)
				}
			})
		})
	}
}

// longGroups makes the memory so small that no group of pictures is kept until
// the next one is durable.
func longGroups(inner func(*Config)) func(*Config) {
	return func(cfg *Config) {
		inner(cfg)
		cfg.RingBytes = 150 << 10
	}
}

func TestEndOfAFileThatDidNotSyncIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, longGroups(script(&d)))
		st := b.camera("front", plenty, 60)
		began := media.TimeOf(time.Now())
		f := newFeed(st.Begin(nil))
		f.size, f.gop = 4<<10, 30
		f.play(t, 71500*time.Millisecond)
		d.failNext("sync")
		f.play(t, time.Minute)
		f.run.End("test")
		st.Wait(CameraEnded, "test")
		time.Sleep(5 * time.Minute)
		causes := explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
		if lost := causes[DiskError].Std(); lost < 500*time.Millisecond || lost > 2500*time.Millisecond {
			t.Errorf("causes are %v", causes)
		}
	})
}

// A clock that is set forward leaves time that never was: it is told from the
// time the camera was away. Set back, it makes no gap. Fails without the
// monotonic clock in pass.
func TestTimeThatNeverWasIsTheClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set atomic.Int64 // of the wall clock, ns
		b := &bench{T: t, dir: t.TempDir(), log: new(journal)}
		b.now = func() time.Time { return time.Now().Add(time.Duration(set.Load())) }
		b.start()
		st := b.camera("front", plenty, 60)
		began := media.TimeOf(b.now())
		away := func(d time.Duration) {
			st.SetState(Connecting, "", nil)
			time.Sleep(time.Second)
			st.Wait(CameraUnreachable, "no answer")
			time.Sleep(d)
		}
		away(3 * time.Minute)
		f := newFeed(st.Begin(nil))
		f.play(t, 2*time.Minute)
		set.Store(int64(time.Hour)) // in a run
		f.play(t, 2*time.Minute)
		f.run.End("test")
		away(20 * time.Second)
		f = newFeed(st.Begin(nil))
		f.play(t, 2*time.Minute)
		f.run.End("test")
		away(10 * time.Second)
		set.Add(int64(time.Hour)) // while it is away
		away(4 * time.Minute)
		causes := explained(t, st, began, media.TimeOf(b.now()), media.Second/4)
		check := func(cause Cause, want time.Duration) {
			t.Helper()
			if off := causes[cause].Std() - want; off > 2*time.Second || off < -2*time.Second {
				t.Errorf("%s: %v, want %v", cause, causes[cause], want)
			}
		}
		check(ClockSet, 2*time.Hour)
		check(CameraUnreachable, 3*time.Minute+20*time.Second+10*time.Second+4*time.Minute+4*time.Second)
		set.Add(int64(-30 * time.Minute))
		f = newFeed(st.Begin(nil))
		f.play(t, time.Minute)
		f.run.End("test")
		away(time.Minute)
		err := st.Gaps(t.Context(), 0, 1<<60, func(g *Gap) error {
			if g.End > media.TimeOf(b.now().Add(30*time.Minute)) {
				t.Errorf("gap %+v in the future", g)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// A recorder that is killed knows no more why a stream did not record since the
// last flush; the time is explained all the same. Fails when the start does not
// go on from the last recording or gap.
func TestKilledRecorderExplainsAllTime(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 120)
		began := media.TimeOf(time.Now())
		var run *feed
		known := make(map[Cause]bool)
		ends := 0
		for range 25 {
			if run == nil {
				st.SetState(Connecting, "", nil)
				run = newFeed(st.Begin(nil))
			}
			run.play(t, time.Duration(rng.Int64N(int64(100*time.Second))))
			if rng.IntN(2) == 0 {
				run.run.End("camera ended")
				run = nil
				// In turn, and mostly until a flush has written it down: each is to be seen.
				cause := []Cause{CameraUnreachable, NoFrames, LoginRefused}[ends%3]
				ends++
				st.Wait(cause, "test")
				time.Sleep(time.Minute + time.Duration(rng.Int64N(int64(4*time.Minute))))
			}
			synctest.Wait()
			copied := &bench{T: t, dir: t.TempDir(), log: new(journal)}
			if err := os.CopyFS(copied.dir, os.DirFS(b.dir)); err != nil {
				t.Fatal(err)
			}
			copied.start()
			again := copied.again("front")
			for c := range explained(t, again, began, media.TimeOf(time.Now()), media.Second/4) {
				known[c] = true
			}
			copied.stop()
		}
		if run != nil {
			run.run.End("test")
		}
		for _, c := range []Cause{RecorderDown, CameraUnreachable, NoFrames, LoginRefused} {
			if !known[c] {
				t.Errorf("%s was never seen", c)
			}
		}
	})
}

// A recording is listed from its second picture on, and is a gap up to then.
func TestFirstPictureIsAGapUpToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		began := media.TimeOf(time.Now())
		st.SetState(Connecting, "", nil)
		time.Sleep(time.Second)
		st.Wait(CameraUnreachable, "no answer")
		time.Sleep(3 * time.Minute)
		f := newFeed(st.Begin(nil))
		f.step = 4 * 90000
		if err := f.one(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		explained(t, st, began, media.TimeOf(time.Now()), 0)
		time.Sleep(time.Second)
		f.play(t, 9*time.Second)
		explained(t, st, began, media.TimeOf(time.Now()), 4*media.Second)
		f.run.End("test")
	})
}

// A stream that is switched off and on again, while what it recorded before is not
// committed, owes what was between those recordings, and nothing of the time off.
func TestSwitchedOffBeforeItIsCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 120)
		record := func(on bool) {
			t.Helper()
			sec := 120
			if err := b.s.Import(t.Context(), Settings{Cameras: []CameraConfig{{ShortName: "front", Streams: map[string]StreamConfig{
				"main": {URL: "rtsp://10.0.0.1/front", Record: on, RTSPTransport: "tcp", RetainBytes: plenty, FlushIfSec: &sec}}}}}); err != nil {
				t.Fatal(err)
			}
		}
		began := media.TimeOf(time.Now())
		f := newFeed(st.Begin(nil))
		f.play(t, 20*time.Second)
		f.run.End("test")
		st.Wait(CameraEnded, "test")
		time.Sleep(10 * time.Second)
		f = newFeed(st.Begin(nil))
		f.play(t, 5*time.Second)
		record(false)
		f.run.End("stop")
		st.Wait(OtherCause, "stop")
		time.Sleep(40 * time.Second)
		record(true)
		on := media.TimeOf(time.Now())
		time.Sleep(5 * time.Second)
		st.Wait(CameraUnreachable, "no route to host")
		time.Sleep(7 * time.Second)
		look := func() {
			t.Helper()
			var gaps []Gap
			if err := st.Gaps(t.Context(), 0, 1<<60, func(g *Gap) error { gaps = append(gaps, *g); return nil }); err != nil {
				t.Fatal(err)
			}
			owed := map[Cause]media.Duration{CameraEnded: 10 * media.Second, OtherCause: 5 * media.Second, CameraUnreachable: 7 * media.Second}
			for _, g := range gaps {
				t.Logf("%v to %v: %s (%s)", g.Start, g.End, g.Cause, g.Detail)
				owed[g.Cause] -= g.End.Sub(g.Start)
				if off := began.Add(35 * media.Second); g.Start < on && g.End > off {
					t.Errorf("a gap from %v to %v, and it was off from %v to %v", g.Start, g.End, off, on)
				}
			}
			for c, d := range owed {
				if d > media.Second/4 || d < -media.Second/4 {
					t.Errorf("%v of %s are missing", d, c)
				}
			}
		}
		look()
		f = newFeed(st.Begin(nil))
		f.play(t, 5*time.Minute)
		look()
		f.run.End("test")
	})
}
