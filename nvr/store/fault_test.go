package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// The garbage rows of a camera at its limit are not collected yet when it is
// deleted; each of its files is unlinked once.
func TestDeletingACameraAtItsLimitStopsNoFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st, other := b.camera("front", 16<<20, 120), b.camera("other", plenty, 120)
		f, g := newFeed(st.Begin(nil)), newFeed(other.Begin(nil))
		f.size = 8 << 10
		for range 8 * 60 {
			f.play(t, time.Second)
			g.one()
		}
		// a flush has just turned recordings into garbage
		if err := b.s.flush(t.Context(), "by hand"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if err := b.s.DeleteCamera(t.Context(), st.uuid); err != nil {
			t.Fatal(err)
		}
		f.run.End("x")
		time.Sleep(3 * time.Second)
		g.run.End("x")
		time.Sleep(3 * time.Second)
		if err := b.s.flush(t.Context(), "by hand"); err != nil {
			t.Errorf("flush after delete: %v", err)
		}
		time.Sleep(10 * time.Minute)
		if err := b.s.flush(t.Context(), "by hand"); err != nil {
			t.Errorf("flush 10 min later: %v", err)
		}
	})
}

// Unlinking is what makes room on a full disk, so it does not wait for writes.
func TestFullDiskStillCollects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.size = 8 << 10
		f.play(t, 6*time.Minute)
		enospc := make([]error, 1000)
		for i := range enospc {
			enospc[i] = syscall.ENOSPC
		}
		d.mu.Lock()
		d.fail["write"] = enospc
		d.fail["create"] = enospc
		d.mu.Unlock()
		f.play(t, 3*time.Second)
		before := len(b.files())
		sec := 60
		// the user makes room
		if err := b.s.Import(t.Context(), Settings{Cameras: []CameraConfig{{ShortName: "front", Streams: map[string]StreamConfig{
			"main": {URL: "rtsp://10.0.0.1/front", Record: true, RTSPTransport: "tcp", RetainBytes: 16 << 20, FlushIfSec: &sec}}}}}); err != nil {
			t.Fatal(err)
		}
		f.play(t, 5*time.Minute)
		state, _ := b.s.db.State(t.Context())
		t.Logf("%d files before, %d after; %d garbage rows", before, len(b.files()), len(state.Garbage))
		if len(b.files()) >= before {
			t.Errorf("no file was unlinked in 5 minutes on a full disk although %d are garbage", len(state.Garbage))
		}
		d.heal()
		f.run.End("x")
	})
}

// A disk that takes nothing for longer than a recording lasts.
func TestRingKeepsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, smallRing(&d))
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.size = 4 << 10 // 40 KiB/s: the ring holds 150 s
		f.play(t, 5*time.Second)
		d.stop(syscall.ENOSPC, "write", "create")
		f.play(t, 20*time.Minute)
		st.mu.Lock()
		n, no := len(st.recent), st.nextNo
		st.mu.Unlock()
		t.Logf("after 20 min of a full disk: %d recordings in memory, next number %d, ring %d", n, no, b.s.ring.Load())
		last := f.n
		d.heal()
		time.Sleep(3 * time.Second)
		f.run.End("test")
		time.Sleep(5 * time.Second)
		b.stop()
		b.start()
		st = b.again("front")
		var got []int
		for _, r := range list(t, st) {
			got = append(got, numbers(t, st, r.No)...)
		}
		newest := 0
		for _, g := range got {
			if g >= last-1000 { // last 100 s before the end
				newest++
			}
		}
		t.Logf("%d pictures kept, first gap..., newest 100 s: %d of 1000 kept", len(got), newest)
		if newest < 900 {
			t.Errorf("ring of 150 s kept only %d of the newest 1000 pictures", newest)
		}
		if n > 50 {
			t.Errorf("%d recordings in memory", n)
		}
	})
}

// The bound of the memory does not wait for a key frame.
func TestRingHoldsWithoutKeyFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		inner := script(&d)
		b := newBench(t, func(cfg *Config) { inner(cfg); cfg.RingBytes = 1 << 20 })
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.gop = 1 << 30
		f.size = 40 << 10
		d.stop(syscall.ENOSPC, "write", "create")
		var largest int64
		for range 280 {
			f.play(t, time.Second)
			largest = max(largest, b.s.ring.Load())
		}
		if largest > 2<<20 {
			t.Errorf("%d bytes in memory with a ring of %d", largest, 1<<20)
		}
		d.heal()
		f.run.End("x")
	})
}

// A directory whose syncs all fail is not well, though every write succeeds.
func TestFailingSyncIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		d.stop(errDisk, "sync")
		shown := 0
		for range 200 {
			f.play(t, time.Second)
			if st.Info().DirError != "" {
				shown++
			}
		}
		in := st.Info()
		t.Logf("watermark %v, healthy: %v", in.Watermark, b.s.Healthy(t.Context()))
		if shown == 0 {
			t.Error("200 s of nothing but failing syncs, and the directory shows no error")
		}
		f.run.End("x")
	})
}

// Syncs that fail, all or some of them, are told of in a few short lines, however
// long that goes on.
func TestFailingSyncsFillNoLog(t *testing.T) {
	for name, pattern := range map[string][]error{"all": {errDisk}, "every other": {errDisk, nil}, "now and then": slices.Concat([]error{errDisk}, make([]error, 20))} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d *scripted
				b := newBench(t, script(&d))
				st := b.camera("front", plenty, 60)
				f := newFeed(st.Begin(nil))
				f.play(t, 5*time.Second)
				d.mu.Lock()
				d.fail["sync"] = slices.Repeat(pattern, 5000)
				d.mu.Unlock()
				before := len(b.log.String())
				f.play(t, 20*time.Minute)
				lines := 0
				for line := range strings.Lines(b.log.String()[before:]) {
					if strings.Contains(line, "msg=flushed") {
						continue
					}
					if lines++; len(line) > 1<<10 {
						t.Errorf("a line of %d bytes: %s", len(line), line)
					}
				}
				if lines < 3 || lines > 12 {
					t.Errorf("%d lines in 20 minutes", lines)
				}
				d.heal()
				f.play(t, 3*time.Minute)
				f.run.End("test")
				if n := strings.Count(b.log.String(), "takes writes again"); n != 1 {
					t.Errorf("%d lines about the end of it", n)
				}
			})
		})
	}
}

// What files met while no step failed does not take the first line of the next
// spell, and a file a minute has a line each.
func TestFirstFileOfASpellHasItsLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		d := &directory{store: b.s, path: "/disk"}
		for range 3 {
			for range 5 {
				d.detail(slog.LevelWarn, "sample file keeps a tail that does not count")
				d.report(nil)
				time.Sleep(time.Second)
			}
			time.Sleep(spellOver)
			d.report(nil)
		}
		if n := strings.Count(b.log.String(), "sample file keeps a tail"); n != 3 {
			t.Errorf("%d lines about files in three minutes, want 3", n)
		}
	})
}

// A recording whose last picture was cut off ends with one that has a duration.
func TestTrailingZeroGoesWithItsPicture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 5500*time.Millisecond)
		d.failNext("sync")
		f.run.End("test") // the last fragments fail to sync
		time.Sleep(3 * time.Minute)
		for _, r := range list(t, st) {
			seg, _ := st.Segments(t.Context(), r.No, r.No)
			p, _ := seg[0].Playback()
			ir := media.NewIndexReader(p.Video, nil)
			var last media.Sample
			for ir.Next() {
				last = ir.Sample
			}
			if r.TrailingZero != (last.Duration == 0) {
				t.Errorf("recording %d: trailing zero %v, last duration %d", r.No, r.TrailingZero, last.Duration)
			}
		}
	})
}

func TestInfoIsTheSameAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 5*time.Minute)
		f.run.End("x")
		time.Sleep(3 * time.Minute)
		before := st.Info()
		b.stop()
		b.start()
		after := b.again("front").Info()
		if after.Start != before.Start || after.End != before.End {
			t.Errorf("start %v end %v after a restart, before %v %v", after.Start, after.End, before.Start, before.End)
		}
	})
}

type sick struct {
	sampledir.Dir
	on bool
}

type sickFile struct {
	sampledir.File
}

func (d *sick) Open(id int64) (sampledir.File, error) {
	f, err := d.Dir.Open(id)
	if err == nil && d.on {
		f = &sickFile{f}
	}
	return f, err
}

func (f *sickFile) ReadAt(b []byte, at int64) (int, error) {
	if at > 3000 {
		return 0, syscall.EIO // a bad cable, this time
	}
	return f.File.ReadAt(b, at)
}

func TestReadErrorAtAdoptionCutsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 120)
		f := newFeed(st.Begin(nil))
		f.play(t, 30*time.Second)
		synctest.Wait()
		c := &bench{T: t, dir: t.TempDir(), log: new(journal)}
		if err := os.CopyFS(c.dir, os.DirFS(b.dir)); err != nil {
			t.Fatal(err)
		}
		var size []int64
		sizes := func() (out []int64) {
			for _, n := range c.files() {
				fi, _ := os.Stat(n)
				out = append(out, fi.Size())
			}
			return
		}
		size = sizes()
		c.hook = func(cfg *Config) {
			cfg.openDir = func(p string) (sampledir.Dir, error) {
				disk, err := sampledir.OpenDisk(p)
				return &sick{disk, true}, err
			}
		}
		c.start()
		t.Logf("adopted: %d pictures of %d", everyCount(t, c.again("front")), f.n)
		c.stop()
		if got := sizes(); fmt.Sprint(got) != fmt.Sprint(size) {
			t.Errorf("a read error that passes made the recorder cut files from %v to %v", size, got)
		}
		f.run.End("x")
	})
}

func everyCount(t *testing.T, st *Stream) (n int) {
	for _, r := range list(t, st) {
		n += r.VideoSamples
	}
	return n
}

// hookHandler is a log that calls f first, once it is armed.
type hookHandler struct {
	slog.Handler
	armed atomic.Bool
	f     func(msg string)
}

func (h *hookHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.armed.Load() {
		h.f(r.Message)
	}
	return h.Handler.Handle(ctx, r)
}

func TestPlanOfAnotherIsNotDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hookHandler{}
		b := newBench(t, func(cfg *Config) { h.Handler = cfg.Log.Handler(); cfg.Log = slog.New(h) })
		a, z := b.camera("a", plenty, 120), b.camera("z", plenty, 0)
		f, g := newFeed(a.Begin(nil)), newFeed(z.Begin(nil))
		f.play(t, time.Second)
		f.run.End("x") // its flush comes at 120 s
		time.Sleep(10 * time.Second)
		g.play(t, 20*time.Second)
		h.f = func(msg string) {
			if msg == "flushed" && h.armed.CompareAndSwap(true, false) { // the run of z ends while a is being flushed
				g.run.End("x")
				z.dir.stepNow(context.Background())
			}
		}
		h.armed.Store(true)
		time.Sleep(24 * time.Hour)
		if h.armed.Load() {
			t.Fatal("there was no flush")
		}
		for _, r := range list(t, z) {
			if r.Uncommitted {
				t.Errorf("recording %d of z has waited a day for its flush, flush_if_sec is 0", r.No)
			}
		}
	})
}

// A camera's new parameters are first seen while a flush is under way.
func TestNewEntryDuringAFlushIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hook atomic.Pointer[func()]
		b := newBench(t, func(cfg *Config) {
			cfg.Now = func() time.Time {
				if f := hook.Swap(nil); f != nil {
					(*f)()
				}
				return time.Now()
			}
		})
		a, z := b.camera("a", plenty, 60), b.camera("z", plenty, 60)
		f := newFeed(a.Begin(nil))
		f.play(t, time.Second)
		f.run.End("x")
		time.Sleep(2 * time.Second)
		run := func() { // a first run of z, done while the flush begins
			g := newFeed(z.Begin(testAudio))
			g.play(t, 900*time.Millisecond)
			g.run.End("x")
			z.dir.stepNow(context.Background())
		}
		hook.Store(&run)
		if err := b.s.flush(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if n := len(list(t, z)); n != 1 || strings.Contains(b.log.String(), "set aside") {
			t.Errorf("%d recordings of z: a durable recording was set aside", n)
		}
	})
}

// A restart would lose what memory holds, and the disk would be as full.
func TestFullDiskIsNotUnhealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 5*time.Second)
		d.stop(syscall.ENOSPC, "write", "create")
		f.play(t, 70*time.Second)
		if err := b.s.Healthy(t.Context()); err != nil {
			t.Errorf("a full disk that is shown and retried makes the watchdog kill the process: %v", err)
		}
		d.heal()
		f.run.End("x")
	})
}

func TestCloseKeepsItsContext(t *testing.T) {
	b := newBench(t, nil)
	s := b.s
	s.flushing.Lock() // a change of configuration on a slow disk
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Close(ctx) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("Close did not return though its context ended a minute ago")
	}
	s.flushing.Unlock()
	b.s = nil
	// The rest goes on by itself once the lock is free.
	for {
		if _, err := s.db.State(t.Context()); errors.Is(err, db.ErrClosed) {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
}

// A camera that sends what it had buffered puts the start before the epoch.
func TestClockAt1970LosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		b := newBench(t, func(cfg *Config) { cfg.Now = func() time.Time { return time.Unix(3, 0).Add(time.Since(begin)) } })
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		for range 100 { // ten seconds that the camera had buffered
			if err := f.one(); err != nil {
				t.Fatal(err)
			}
		}
		f.play(t, 5*time.Second)
		f.run.End("x")
		time.Sleep(3 * time.Minute)
		if n := len(list(t, st)); n != 1 {
			t.Errorf("%d recordings, want 1: %v", n, strings.Contains(b.log.String(), "set aside"))
		}
	})
}

// Whoever asked may go away: the change happens in memory as in the database.
func TestCancelledRequestIsBroughtToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		ctx := &lateCancel{Context: t.Context(), after: 1}
		err := b.s.DeleteCamera(ctx, st.uuid)
		t.Logf("delete: %v", err)
		state, _ := b.s.db.State(t.Context())
		if len(state.Cameras) != len(b.s.Cameras()) {
			t.Errorf("%d cameras in the database, %d in memory", len(state.Cameras), len(b.s.Cameras()))
		}
	})
}

// lateCancel is done after Err was asked some times.

type lateCancel struct {
	context.Context
	after int
}

func (c *lateCancel) Err() error {
	if c.after--; c.after < 0 {
		return context.Canceled
	}
	return nil
}

func (c *lateCancel) Done() <-chan struct{} {
	if c.after <= 0 {
		ch := make(chan struct{})
		close(ch)
		return ch
	}
	return nil
}

// For the race detector.
func TestInfoDuringAChangeOfConfiguration(t *testing.T) {
	b := newBench(t, nil)
	st := b.camera("front", plenty, 60)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2000 {
			st.Info()
			st.Unavailable()
			b.s.Healthy(context.Background())
		}
	}()
	for i := range 10 {
		b.camera(fmt.Sprint("c", i), plenty, 60)
	}
	<-done
}

func TestImportWithOneWrongDirectoryChangesNothing(t *testing.T) {
	b := newBench(t, nil)
	good, bad := t.TempDir(), t.TempDir()
	os.WriteFile(filepath.Join(bad, "x"), nil, 0o600)
	sec := 60
	set := Settings{Cameras: []CameraConfig{
		{ShortName: "a", Streams: map[string]StreamConfig{"main": {URL: "rtsp://x/", Record: true, RetainBytes: plenty, FlushIfSec: &sec, SampleFileDir: good}}},
		{ShortName: "b", Streams: map[string]StreamConfig{"main": {URL: "rtsp://x/", Record: true, RetainBytes: plenty, FlushIfSec: &sec, SampleFileDir: bad}}},
	}}
	err := b.s.Import(t.Context(), set)
	if err == nil {
		t.Fatal("accepted")
	}
	state, _ := b.s.db.State(t.Context())
	if _, err := os.Stat(filepath.Join(good, "meta")); err == nil || len(state.Dirs) != 1 {
		t.Errorf("half changed: %d sample directories in the database, meta written: %v", len(state.Dirs), err == nil)
	}
}

type stuckUnlink struct{ sampledir.Dir }

func (d *stuckUnlink) Unlink(id int64) error {
	if id&0xffffffff == 0 {
		return syscall.EPERM
	}
	return d.Dir.Unlink(id)
}

func TestOneStuckUnlinkHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		inner := script(&d)
		b := newBench(t, func(cfg *Config) {
			inner(cfg)
			open := cfg.openDir
			cfg.openDir = func(p string) (sampledir.Dir, error) { x, err := open(p); return &stuckUnlink{x}, err }
		})
		st := b.camera("front", 16<<20, 60)
		f := newFeed(st.Begin(nil))
		f.size = 8 << 10
		f.play(t, 30*time.Minute)
		f.run.End("x")
		time.Sleep(3 * time.Minute)
		if n := len(b.files()); n > 8 {
			t.Errorf("%d files: one that cannot be unlinked keeps all others", n)
		}
	})
}

func TestAbandonedFileCostsNoDirectorySyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", plenty, 3600)
		d.failNext("sync")
		f := newFeed(st.Begin(nil))
		f.play(t, 5*time.Second)
		f.run.End("x")
		time.Sleep(5 * time.Second)
		n := d.count("syncdir")
		time.Sleep(10 * time.Minute)
		if m := d.count("syncdir") - n; m > 2 {
			t.Errorf("%d directory syncs in ten minutes without any recording", m)
		}
	})
}

// A camera that pauses now and then and does not count the time: its media
// time falls behind the clock, and rotation goes by the clock.

func TestPausesDoNotMakeAFileOfEachGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 120)
		f := newFeed(st.Begin(nil))
		for range 12 {
			f.play(t, 5*time.Minute)
			time.Sleep(8 * time.Second)
		}
		no := st.nextNo
		f.play(t, 10*time.Minute)
		f.run.End("x")
		if n := st.nextNo - no; n > 15 {
			t.Errorf("%d recordings in 10 minutes", n)
		}
	})
}

// Timestamps that barely rise, and no key frames.

func TestRecordingIsBoundedByOurClockToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", 16<<20, 60)
		f := newFeed(st.Begin(nil))
		f.gop, f.step, f.size, f.pace = 1<<30, 1, 1000, time.Second/10
		at := time.Now()
		for time.Since(at) < time.Hour {
			if err := f.one(); err != nil {
				return
			}
			time.Sleep(f.pace)
		}
		in := st.Info()
		t.Errorf("after an hour the first recording still grows: %d recordings, %d bytes, retain 16 MiB", in.Recordings, in.Bytes)
		f.run.End("x")
	})
}

type errHook struct {
	context.Context
	f func()
}

func (c *errHook) Err() error { c.f(); return context.Canceled }

func TestFailedDeleteLeavesTheCameraRecording(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, time.Second)
		var got error
		err := b.s.DeleteCamera(&errHook{t.Context(), func() { got = f.one() }}, st.uuid)
		t.Logf("delete: %v; append meanwhile: %v", err, got)
		if err != nil && errors.Is(got, ErrRemoved) {
			t.Error("the camera stays, but its run was told that it is removed; record.keep then ends for good")
		}
		f.run.End("x")
	})
}

func TestFailedSyncAtRotationSplitsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", plenty, 60)
		time.Sleep(550 * time.Millisecond)
		f := newFeed(st.Begin(nil))
		for st.nextNo < 2 {
			f.play(t, 100*time.Millisecond)
		}
		d.mu.Lock()
		d.fail["sync"] = []error{errDisk} // of the sealed one, which comes first
		d.mu.Unlock()
		f.play(t, 30*time.Second)
		f.run.End("test")
		time.Sleep(3 * time.Minute)
		recs := list(t, st)
		for i, r := range recs {
			t.Logf("no %d off %d %v + %v prev %v end %q", r.No, r.RunOffset, r.Start, r.MediaDuration, r.PrevMedia, r.EndReason)
			if i == 0 {
				continue
			}
			p := recs[i-1]
			if r.RunOffset > 0 && r.Start != p.End() {
				t.Errorf("recording %d of the same run begins %v after the end of the one before", r.No, r.Start.Sub(p.End()))
			}
			if r.PrevMedia != p.PrevMedia+p.MediaDuration {
				t.Errorf("recording %d: prev media %d, want %d", r.No, r.PrevMedia, p.PrevMedia+p.MediaDuration)
			}
		}
	})
}

func TestParametersThatChangeAllTheTimeEndTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		run := st.Begin(nil)
		for i := range 3000 { // 30 key frames a second
			e := *testEntry
			e.Config = append([]byte(nil), e.Config...)
			e.Config[15], e.Config[16] = byte(i), byte(i>>8)
			if err := run.Append(media.AccessUnit{Kind: media.Video, DTS: int64(i) * 3000, PTS: int64(i) * 3000, Key: true, Data: picture(i, 50), Entry: &e, Received: time.Now()}); err != nil {
				return
			}
			time.Sleep(time.Second / 30)
		}
		run.End("x")
		time.Sleep(5 * time.Second)
		b.s.entries.mu.Lock()
		n := len(b.s.entries.known[0])
		b.s.entries.mu.Unlock()
		t.Errorf("100 s: %d sample entries for ever, %d files", n, len(b.files()))
	})
}

func TestFloodOfSoundKeepsTheIndexWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		run := st.Begin(testAudio)
		f := newFeed(run)
		f.one()
		at := int64(0)
		for range 20 {
			for range 200000 {
				run.Append(media.AccessUnit{Kind: media.Audio, DTS: at, PTS: at, Key: true, Data: []byte{1}, Entry: testAudio, Received: time.Now()})
				at++
			}
			time.Sleep(time.Second)
			f.one()
		}
		st.mu.Lock()
		t.Logf("pending sounds %d, nominal %d, ring %d", len(run.rec.pendingAudio), run.rec.nominalAudio(), b.s.ring.Load())
		st.mu.Unlock()
		run.End("x")
		time.Sleep(3 * time.Second)
		for _, r := range list(t, st) {
			seg, _ := st.Segments(t.Context(), r.No, r.No)
			p, err := seg[0].Playback()
			ar := media.NewIndexReader(p.Audio, nil)
			n := 0
			for ar.Next() {
				n++
			}
			if ar.Err() != nil {
				t.Errorf("audio index of recording %d with %d sounds: %v after %d (%v)", r.No, r.AudioSamples, ar.Err(), n, err)
			}
		}
	})
}

func TestRunBehindAGapReadsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		inner := script(&d)
		var step atomic.Int64
		b := newBench(t, longGroups(func(cfg *Config) {
			inner(cfg)
			cfg.Now = func() time.Time { return time.Now().Add(time.Duration(step.Load())) }
		}))
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.size, f.gop = 4<<10, 30
		f.play(t, 5500*time.Millisecond)
		step.Store(int64(time.Hour)) // NTP
		d.failNext("sync")
		f.play(t, 10*time.Second)
		f.run.End("x")
		recs := list(t, st)
		last := recs[len(recs)-1]
		if want := media.TimeOf(time.Now().Add(time.Hour)); want.Sub(last.End()) > media.Minute {
			t.Errorf("the run after the gap (offset %d) ends at %v, the clock says %v", last.RunOffset, last.End(), want)
		}
	})
}

func TestLastRecordingOfARunKeepsItsReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		for st.nextNo < 2 {
			f.play(t, 100*time.Millisecond)
		}
		d.failNext("sync")
		f.play(t, 30*time.Second)
		f.run.End("test")
		time.Sleep(3 * time.Minute)
		recs := list(t, st)
		for i := range recs[1:] {
			if recs[i+1].RunOffset == 0 && recs[i].EndReason == "" {
				t.Errorf("recording %d is the last of its run and has no end reason; next is %d", recs[i].No, recs[i+1].No)
			}
		}
	})
}

// Files that nobody knows of stand where recordings are to go, at the beginning of
// the stream and later: each costs a recording, and is tried once.
func TestFileInTheWayCostsItsNumberOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bear(t, sampledirtest.State{}, nil, time.Time{})
		l.mustOpen()
		st := l.put(settings("front", plenty, 3600, false)).Stream("main")
		inTheWay := []int32{0, 20, 21, 22}
		for _, no := range inTheWay {
			f, err := l.disk.Create(db.CompositeID(st.id, no))
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		f := l.play(st, 0)
		f.play(l, 40*time.Minute)
		if in := st.Info(); in.Watermark == 0 || in.DurableAge > 5*time.Second {
			t.Errorf("nothing has become durable for %v", in.DurableAge)
		}
		if n := strings.Count(l.log.String(), "there is a file in its place"); n != len(inTheWay) {
			t.Errorf("%d recordings were given up, want one for each of %d files", n, len(inTheWay))
		}
		f.run.End("test")
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
}
