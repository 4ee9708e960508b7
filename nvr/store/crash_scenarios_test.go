package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// scenario is one life, and what went before it.
type scenario struct {
	name    string
	hook    func(*Config)
	prepare func(*life) // the life before: the power fails somewhere in it
	kill    bool        // not the power: the process alone, with a new file not synced
	unset   bool        // the clock is not set at first
	old     bool        // the life before was one of the first version
	beside  bool        // what the life before left is adopted while this one records
	few     int         // the most that a flush deletes; 0: as usual
	live    func(*life)
}

// begun is the last moment at which a file was begun and nothing of it synced.
func begun(moments []*moment, log []sampledirtest.Op) *moment {
	for _, m := range slices.Backward(moments) {
		cut := sampledirtest.At(sampledirtest.State{}, log, m.ops)
		if n := cut.Unsynced(); n > 2 && cut.Op(0).Kind == sampledirtest.Create && cut.Op(n-1).Kind == sampledirtest.Append {
			return m
		}
	}
	panic("no file is begun in this life")
}

// at is what the clock shows at first.
func (sc *scenario) at() time.Time {
	if !sc.unset {
		return time.Time{}
	}
	return clockUnset.Std()
}

// run lives a scenario and lets the power fail everywhere in it.
func (sc *scenario) run(t *testing.T, seed uint64) *crash {
	c := &crash{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), seen: make(map[state]*found), beside: sc.beside, few: sc.few}
	var before *life
	if sc.prepare != nil {
		synctest.Test(t, func(t *testing.T) {
			l := bear(t, sampledirtest.State{}, nil, sc.at())
			l.unset = sc.unset
			l.watch()
			l.mustOpen()
			sc.prepare(l)
			l.note()
			moments, log := l.soFar(), l.disk.Log()
			m := moments[len(moments)-1]
			if sc.kill {
				m = begun(moments, log)
			}
			disk := l.disk.Fork(m.ops)
			if !sc.kill {
				cut := sampledirtest.At(l.begin, log, m.ops)
				disk = sampledirtest.New(cut.State(func(int) sampledirtest.Fate { return sampledirtest.Any(c.rng) }, c.rng))
			}
			if err := l.close(); err != nil {
				t.Errorf("close: %v", err)
			}
			before = &life{disk: disk, moments: []*moment{m}}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		l := bear(t, sampledirtest.State{}, nil, sc.at())
		if before != nil {
			m := before.moments[0]
			if sc.old {
				m.db = m.db.version1(t)
			}
			l = bear(t, before.disk.Content(), m.db, m.at)
			if sc.kill {
				l.begin = sampledirtest.State{}
				l.disk = before.disk
			}
			l.known = m.known
		}
		l.hook, l.unset, l.old = sc.hook, sc.unset, sc.old
		if sc.few > 0 {
			l.hook = func(cfg *Config) { cfg.mostDeletions = sc.few }
		}
		l.watch()
		l.mustOpen()
		if before != nil && !sc.beside {
			l.mu.Lock()
			l.known = l.survey().pieces()
			l.mu.Unlock()
		}
		stop := l.tick()
		sc.live(l)
		stop()
		if err := l.close(); err != nil {
			t.Errorf("close: %v", err)
		}
		l.note()
		c.l = l
		if t.Failed() {
			t.Logf("log:\n%s", l.log)
		}
	})
	if !t.Failed() {
		c.everywhere()
	}
	for _, unmet := range c.l.unmet { // behind the cuts, which say what is lost
		t.Error(unmet)
	}
	return c
}

// deleting matches the line of a flush that deleted rows.
var deleting = regexp.MustCompile(`msg=flushed .* deleted=("[^"]|[^" ])`)

// scenarios are the lives in which the power fails.
var scenarios = []scenario{
	// First, since it takes longest.
	{name: "file that does not sync", live: func(l *life) {
		f := l.play(l.put(settings("front", plenty, 8, true)).Stream("main"), 0)
		for _, before := range []time.Duration{4500 * time.Millisecond, 5 * time.Second, 3300 * time.Millisecond} {
			f.play(l, before)
			l.fault()
			l.disk.Fail(sampledirtest.Sync, 1, 1, syscall.EIO)
			f.play(l, 3*time.Second)
			l.faultless()
		}
		l.fault()
		l.disk.Fail(sampledirtest.Sync, 1, 4, syscall.ENOSPC)
		f.play(l, 20*time.Second) // and the pause that the failures made
		l.faultless()
		for fails := range 2 { // with a recording behind it
			f.play(l, 3300*time.Millisecond)
			l.fault()
			l.disk.Fail(sampledirtest.Sync, 1, 1+2*fails, syscall.EIO)
			f = l.next(f, "camera closed")
			f.play(l, time.Duration(2+6*fails)*time.Second)
			l.faultless()
		}
		f.play(l, 3*time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Second)
		l.meant("syncs that fail", l.failures(sampledirtest.Sync, syscall.EIO), 7)
		l.meant("syncs that find no room", l.failures(sampledirtest.Sync, syscall.ENOSPC), 4)
		l.meant("recordings that are written again", len(rewritten(l.disk.Content().Files)), 4)
	}},
	{name: "record", live: func(l *life) {
		f := l.play(l.put(settings("front", plenty, 120, false)).Stream("main"), 0)
		f.play(l, 20*time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Second)
		l.meant("fragments without a row", list(l, f.run.st)[0].Fragments, 18)
	}},
	{name: "rotate", live: func(l *life) {
		f := l.play(l.put(settings("front", plenty, 40, false)).Stream("main"), 0)
		f.play(l, 100*time.Second)
		f.run.End("test")
		l.meant("recordings that go on in their run", l.count(f.run.st, goesOn), 1)
	}},
	{name: "two streams", live: func(l *life) {
		c := l.put(settings("front", plenty, 20, true))
		var both sync.WaitGroup
		for i, st := range c.Streams {
			both.Go(func() {
				time.Sleep(time.Duration(i) * 430 * time.Millisecond)
				f := l.play(st, 0)
				f.play(l, 35*time.Second)
				f.run.End("test")
			})
		}
		both.Wait()
		time.Sleep(2 * time.Second)
		l.meant("flushes", l.logged("msg=flushed"), 1)
		for _, st := range c.Streams {
			l.meant("recordings that go on in their run", l.count(st, goesOn), 1)
		}
	}},
	{name: "flush", live: func(l *life) {
		f := l.play(l.put(settings("front", plenty, 3, false)).Stream("main"), 0)
		for i := range 10 {
			f.play(l, 2300*time.Millisecond)
			f = l.next(f, "camera closed")
			if i%3 == 2 { // as a change of configuration does, before the next step
				if err := l.s.Load().flush(l.Context(), "by hand"); err != nil {
					l.Error(err)
				}
			}
			time.Sleep(300 * time.Millisecond)
		}
		f.run.End("test")
		l.meant("flushes", l.logged("msg=flushed"), 6)
	}},
	{name: "retention", live: func(l *life) {
		f := l.play(l.put(settings("front", 24<<10, 4, false)).Stream("main"), 0)
		for range 14 {
			f.play(l, 3*time.Second)
			f = l.next(f, "camera closed")
		}
		f.run.End("test")
		time.Sleep(8 * time.Second)
		l.meant("deleted", l.oldest(f.run.st), 4)
	}},
	{name: "garbage", live: func(l *life) {
		f := l.play(l.put(settings("front", 16<<10, 3, false)).Stream("main"), 0)
		for i := range 9 {
			switch i {
			case 3: // files that cannot be unlinked for a while
				l.disk.Fail(sampledirtest.Unlink, 1, 12, syscall.EIO)
			case 6: // the process is restarted with garbage at hand
				f.run.End("restart")
				l.restart()
				f = l.play(l.main("front"), f.n)
			}
			f.play(l, 2*time.Second)
			f = l.next(f, "camera closed")
		}
		f.run.End("test")
		time.Sleep(6 * time.Second)
		l.meant("unlinks that fail", l.failures(sampledirtest.Unlink, syscall.EIO), 12)
		l.meant("deleted", l.oldest(f.run.st), 4)
	}},
	{name: "adoption", prepare: func(l *life) {
		c := l.put(settings("front", plenty, 120, true))
		var both sync.WaitGroup
		for _, st := range c.Streams {
			both.Go(func() {
				f := l.play(st, 0)
				for range 4 {
					f.play(l, 2700*time.Millisecond)
					f = l.next(f, "camera closed")
				}
				f.play(l, 1500*time.Millisecond)
			})
		}
		both.Wait()
	}, live: func(l *life) {
		var both sync.WaitGroup
		for _, st := range l.camera("front").Streams {
			l.meant("adopted", l.count(st, recovered), 4)
			both.Go(func() {
				f := l.play(st, 500)
				f.play(l, 4*time.Second)
				f.run.End("test")
			})
		}
		both.Wait()
	}},
	{name: "upgrade", old: true, prepare: func(l *life) {
		c := l.put(settings("front", 40<<10, 5, true))
		var both sync.WaitGroup
		for _, st := range c.Streams { // rows, and files without
			both.Go(func() {
				f := l.play(st, 0)
				for range 5 {
					f.play(l, 2300*time.Millisecond)
					f = l.next(f, "camera closed")
				}
				f.play(l, 1500*time.Millisecond)
			})
		}
		both.Wait()
	}, live: func(l *life) {
		if n := strings.Count(l.log.String(), "upgraded database"); n != 5 {
			l.Errorf("the database was upgraded by %d versions", n)
		}
		const header = 32 // of the log; it is overwritten first, and alone
		var old, kept, making, headless int
		for _, m := range l.soFar() {
			if m.db != nil && len(m.db.wal) > header && bytes.Count(m.db.wal[:header], []byte{0}) == header && bytes.Count(m.db.wal, []byte{0}) < len(m.db.wal) {
				headless++
			}
			if m.db != nil && binary.BigEndian.Uint32(m.db.main[60:]) == 1 { // its user_version
				old++
			}
			if m.db != nil && m.db.copies[0] != nil {
				kept++
			}
			if m.db != nil && m.db.copies[1] != nil {
				making++
			}
		}
		if old < 5 || kept < 5 || making < 1 || headless < 1 {
			l.Errorf("%d moments before the upgrade, %d with a copy, %d while it is made, %d with a log without header", old, kept, making, headless)
		}
		f := l.play(l.main("front"), 500)
		f.play(l, 2*time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Second)
	}},
	{name: "adoption beside the recording", beside: true, hook: limits(2, 2, 400*time.Millisecond), prepare: func(l *life) {
		c := l.put(settings("front", plenty, 3600, true))
		var both sync.WaitGroup
		for i, st := range c.Streams {
			both.Go(func() {
				f := l.play(st, 0)
				for range 3 + 3*i {
					f.play(l, 1300*time.Millisecond)
					f = l.next(f, "camera closed")
				}
				l.fault()
				l.disk.Fail(sampledirtest.Sync, 1, 2, syscall.EIO)
				f.play(l, 4*time.Second)
				l.faultless()
				f = l.next(f, "camera closed")
				f.play(l, 3500*time.Millisecond)
			})
		}
		both.Wait()
	}, live: func(l *life) {
		var both sync.WaitGroup
		for _, st := range l.camera("front").Streams {
			l.meant("files to adopt", st.Info().ToAdopt, 2)
			both.Go(func() {
				f := l.play(st, 800)
				for range 2 {
					f.play(l, 2300*time.Millisecond)
					f = l.next(f, "camera closed")
				}
				f.play(l, 1500*time.Millisecond)
				f.run.End("test")
			})
		}
		both.Wait()
		adopted(l, l.s.Load())
		l.meant("all adopted", l.logged("adopted all files of before the start"), 1)
	}},
	{name: "killed, and the camera comes back", kill: true, prepare: func(l *life) {
		f := l.play(l.put(settings("front", plenty, 8, false)).Stream("main"), 0)
		f.play(l, 6*time.Second)
		f = l.next(f, "camera closed")
		f.play(l, 7*time.Second)
	}, live: func(l *life) {
		f := l.play(l.main("front"), 500)
		l.meant("adopted", l.count(f.run.st, recovered), 1)
		f.play(l, 6*time.Second)
		f = l.next(f, "camera closed")
		f.play(l, 6*time.Second)
		f.run.End("test")
	}},
	{name: "full directory", live: func(l *life) {
		f := l.play(l.put(settings("front", plenty, 6, false)).Stream("main"), 0)
		f.play(l, 5500*time.Millisecond)
		l.fault()
		l.disk.Fail(sampledirtest.Append, 1, 1, syscall.ENOSPC) // before anybody asks how much room there is
		f.play(l, time.Second)
		l.capacity(4 << 10)
		f.play(l, 3*time.Second)
		f = l.next(f, "camera closed")
		f.play(l, 6*time.Second)
		l.meantPause(f.run.st)
		l.capacity(0)
		f.play(l, 3*time.Second)
		l.faultless()
		f.play(l, 5*time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Second)
		l.meant("appends that find no room", l.failures(sampledirtest.Append, syscall.ENOSPC), 1)
	}},
	{name: "disk full", hook: func(cfg *Config) { cfg.RingBytes = 6000 }, live: func(l *life) {
		const disk = 256 << 10 // its floor is four blocks
		l.capacity(disk)
		c := l.put(settings("front", 0, 5, true))
		both := [2]*feed{l.play(c.Stream("main"), 0), l.play(c.Stream("sub"), 0)}
		play := func(d time.Duration, next bool) {
			var wg sync.WaitGroup
			for i, f := range both {
				wg.Go(func() {
					f.play(l, d)
					if next {
						both[i] = l.next(f, "camera closed")
					}
				})
			}
			wg.Wait()
		}
		for range 4 {
			play(2500*time.Millisecond, true)
		}
		for _, free := range []int64{24 << 10, 12 << 10} { // others come, and the oldest goes
			l.disk.Fill(0)
			sp, err := l.disk.Space()
			if err != nil {
				l.Error(err)
			}
			l.disk.Fill(sp.Free - free)
			play(3*time.Second, true)
		}
		l.meant("deleted", l.oldest(c.Streams[0])+l.oldest(c.Streams[1]), 1)
		l.fault()
		l.disk.Fill(disk) // until nothing is left
		play(20*time.Second, false)
		l.meantPause(c.Streams[0])
		l.disk.Fill(0)
		play(3*time.Second, true)
		l.faultless()
		play(6*time.Second, false)
		for _, f := range both {
			f.run.End("test")
		}
		time.Sleep(2 * time.Second)
	}},
	{name: "memory full because the directory is", hook: func(cfg *Config) { cfg.RingBytes = 2400 }, live: func(l *life) {
		f := l.play(l.put(settings("front", plenty, 10, false)).Stream("main"), 0)
		f.play(l, 4500*time.Millisecond)
		l.fault()
		for range 2 {
			l.capacity(12 << 10)
			f.play(l, 12*time.Second)
			l.capacity(0)
			f.play(l, 3*time.Second)
			l.disk.Fail(sampledirtest.Append, 1, 7, syscall.EIO)
			for range 4 {
				f.play(l, 2200*time.Millisecond)
				f = l.next(f, "camera closed")
			}
		}
		l.faultless()
		f.play(l, 4*time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Second)
		l.meant("appends that find no room", l.failures(sampledirtest.Append, syscall.ENOSPC), 2)
		l.meant("appends that fail otherwise", l.failures(sampledirtest.Append, syscall.EIO), 4)
		l.meant("time that memory did not hold", l.missed(f.run.st, DiskFull), 1)
	}},
	{name: "memory full over a rotation", hook: func(cfg *Config) { cfg.RingBytes = 24_000 }, live: func(l *life) {
		f := l.play(l.put(settings("front", plenty, 10, false)).Stream("main"), 0)
		f.play(l, 10*time.Second)
		l.fault()
		l.capacity(8 << 10)
		f.play(l, 40*time.Second)
		l.capacity(0)
		f.play(l, 3*time.Second)
		l.faultless()
		f.play(l, 4*time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Second)
		l.meant("appends that find no room", l.failures(sampledirtest.Append, syscall.ENOSPC), 1)
		l.meant("time that memory did not hold", l.missed(f.run.st, DiskFull), 1)
		l.meant("recordings that go on in their run", l.count(f.run.st, goesOn), 1)
	}},
	{name: "wall clock that steps", live: func(l *life) {
		f := l.play(l.put(settings("front", plenty, 5, false)).Stream("main"), 0)
		for _, step := range []time.Duration{time.Hour, -3 * time.Hour, 50 * 365 * 24 * time.Hour, -60 * 365 * 24 * time.Hour} {
			f.play(l, 2500*time.Millisecond)
			l.clock(step)
			f.play(l, 2500*time.Millisecond)
			f = l.next(f, "camera closed")
		}
		f.play(l, 2*time.Second)
		f.run.End("test")
		l.meant("steps that split the run", l.logged("clock was set again"), 4)
	}},
	{name: "clock that is set", unset: true, live: func(l *life) {
		c := l.put(settings("front", plenty, 4, true))
		var both sync.WaitGroup
		for i, st := range c.Streams {
			both.Go(func() {
				time.Sleep(time.Duration(i) * 2600 * time.Millisecond)
				f := l.play(st, 0)
				for range 3 {
					f.play(l, 3300*time.Millisecond)
					f = l.next(f, "camera closed")
				}
				f.play(l, 1500*time.Millisecond)
				f.run.End("test")
			})
		}
		time.Sleep(9300 * time.Millisecond)
		for _, st := range c.Streams {
			l.meant("rows by the clock that is not set", l.count(st, committed), 1)
		}
		l.stepped.Store(int64(-l.shift))
		both.Wait()
		time.Sleep(2 * time.Second)
		l.meant("moves", l.logged("what was recorded since the start was moved"), 1)
	}},
	{name: "killed before the clock is set", unset: true, kill: true, prepare: func(l *life) {
		f := l.play(l.put(settings("front", plenty, 5, false)).Stream("main"), 0)
		f.play(l, 4*time.Second)
		f = l.next(f, "camera closed")
		f.play(l, 4*time.Second)
	}, live: func(l *life) {
		f := l.play(l.main("front"), 500)
		l.meant("adopted", l.count(f.run.st, recovered), 1)
		f.play(l, 5*time.Second)
		l.stepped.Store(int64(-l.shift))
		f.play(l, 4*time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Second)
		l.meant("moves", l.logged("what was recorded since the start was moved"), 1)
	}},
	{name: "camera deleted", few: 2, live: func(l *life) {
		front, back := l.put(settings("front", 24<<10, 4, true)), l.put(settings("back", plenty, 10, false))
		f, g, h := l.play(front.Stream("main"), 0), l.play(front.Stream("sub"), 0), l.play(back.Stream("main"), 0)
		var all sync.WaitGroup
		all.Go(func() { h.play(l, 17*time.Second) })
		all.Go(func() {
			for range 3 {
				g.play(l, 2600*time.Millisecond)
				g = l.next(g, "camera closed")
			}
		})
		for range 4 {
			f.play(l, 2*time.Second)
			f = l.next(f, "camera closed")
		}
		f.play(l, 700*time.Millisecond)
		from := len(l.log.String())
		l.deleteCamera(front)
		all.Wait()
		f.run.End("test")
		h.run.End("test")
		time.Sleep(2 * time.Second)
		l.meant("flushes that deleted rows", len(deleting.FindAllString(l.log.String()[from:], -1)), 2)
		l.meant("streams deleted", l.logged("deleted stream is gone"), 2)
	}},
	{name: "limit lowered", live: func(l *life) {
		f := l.play(l.put(settings("front", plenty, 4, false)).Stream("main"), 0)
		for i := range 10 {
			f.play(l, 2*time.Second)
			f = l.next(f, "camera closed")
			switch i {
			case 5:
				l.put(settings("front", 20<<10, 4, false))
			case 8:
				l.meant("deleted by the first limit", l.oldest(f.run.st), 1)
				l.put(settings("front", 8<<10, 4, false))
			}
		}
		f.run.End("test")
		time.Sleep(5 * time.Second)
		l.meant("deleted by both", l.oldest(f.run.st), 7)
	}},
	{name: "stop and start", live: func(l *life) {
		f := l.play(l.put(settings("front", 40<<10, 60, false)).Stream("main"), 0)
		for range 4 {
			f.play(l, 3400*time.Millisecond)
			f.run.End("stop")
			l.restart()
			f = l.play(l.main("front"), (f.n+4)/5*5)
		}
		f.run.End("test")
		opens := make(map[int32]bool)
		for _, r := range list(l, f.run.st) {
			opens[r.OpenID] = true
		}
		l.meant("opens", len(opens), 4)
	}},
}

// meant makes sure that a scenario does what it is there for.
func (l *life) meant(what string, got, least int) {
	l.Helper()
	if got < least {
		l.unmet = append(l.unmet, fmt.Sprintf("%s: %d, meant are at least %d", what, got, least))
	}
}

// meantPause makes sure that recording into the directory of a stream pauses.
func (l *life) meantPause(st *Stream) {
	l.Helper()
	if in := st.Info(); !strings.Contains(in.DirError, "recording pauses") {
		l.Errorf("on a full disk the directory says %q", in.DirError)
	}
}

// failures counts operations of a kind that failed with err.
func (l *life) failures(kind sampledirtest.Kind, err error) (n int) {
	for _, op := range l.disk.Log() {
		if op.Kind == kind && errors.Is(op.Err, err) {
			n++
		}
	}
	return n
}

// logged counts lines of the log.
func (l *life) logged(what string) int { return strings.Count(l.log.String(), what) }

// count counts recordings of the stream for which f holds.
func (l *life) count(st *Stream, f func(*RecordingInfo) bool) (n int) {
	l.Helper()
	for _, r := range list(l, st) {
		if f(&r) {
			n++
		}
	}
	return n
}

// missed is how much time of the stream is missing for a cause, in 90 kHz.
func (l *life) missed(st *Stream, cause Cause) int { return int(st.Info().GapTime[cause]) }

// oldest is the number of the oldest recording of the stream: so many are deleted.
func (l *life) oldest(st *Stream) int {
	l.Helper()
	all := list(l, st)
	if len(all) == 0 {
		l.Fatalf("stream %d has nothing", st.id)
	}
	return int(all[0].No)
}

func recovered(r *RecordingInfo) bool { return r.Recovered }
func goesOn(r *RecordingInfo) bool    { return r.RunOffset > 0 }
func committed(r *RecordingInfo) bool { return !r.Uncommitted }

// clock steps the wall clock.
func (l *life) clock(by time.Duration) { l.stepped.Add(int64(by)) }

// A power cut, at any moment and whatever it leaves of what was not synced,
// costs nothing that was durable, and at most two seconds of what was not; and
// the recorder goes on as if nothing had been.
func TestPowerCutCostsNothingDurable(t *testing.T) {
	seed := runSeed(t)
	var lives, cuts, states, again, asked, cramped, gives, pauses atomic.Int64
	t.Run("at every moment", func(t *testing.T) {
		for i := range scenarios {
			sc := &scenarios[i]
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				began := time.Now()
				c := sc.run(t, seed+uint64(i)<<32)
				t.Logf("%d operations, %d moments, %d power cuts, %d different states, %d cuts of the start after one, SQLite checked %d databases, %v",
					len(c.log), len(c.l.moments), c.cuts, len(c.seen), c.again, c.asked, time.Since(began).Round(time.Millisecond))
				if !t.Failed() && (c.again == 0 || c.asked == 0) {
					t.Errorf("in %d starts the power failed again, SQLite checked %d databases", c.again, c.asked)
				}
				lives.Add(1)
				cuts.Add(int64(c.cuts))
				states.Add(int64(len(c.seen)))
				again.Add(int64(c.again))
				asked.Add(int64(c.asked))
				cramped.Add(int64(c.cramped))
				gives.Add(int64(c.gives))
				pauses.Add(int64(c.pauses))
			})
		}
	})
	t.Logf("%d power cuts left %d different states; in %d of the starts the power failed again; SQLite checked %d databases",
		cuts.Load(), states.Load(), again.Load(), asked.Load())
	t.Logf("%d starts on a small disk: %d made room, in %d recording paused", cramped.Load(), gives.Load(), pauses.Load())
	if t.Failed() || testing.Short() || int(lives.Load()) < len(scenarios) {
		return
	}
	if n := cuts.Load(); n < 10_000 {
		t.Errorf("only %d power cuts", n)
	}
	if n := states.Load(); again.Load() < n/24 || asked.Load() < n/20 { // half of what is to be expected
		t.Errorf("of %d starts the power failed again in %d, SQLite checked %d databases", n, again.Load(), asked.Load())
	}
	if gives.Load() == 0 || pauses.Load() == 0 {
		t.Error("no start had too little room")
	}
}
