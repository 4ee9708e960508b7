package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/db/dbtest"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// torn makes what a power cut left: files to adopt, the last of each stream
// with a torn end, and garbage.
func torn(t *testing.T) (st sampledirtest.State, files *dbFiles, at time.Time, known map[int64]piece) {
	waiting := make(map[int32]int64) // the newest of each stream that is durable and has no row
	synctest.Test(t, func(t *testing.T) {
		l := bear(t, sampledirtest.State{}, nil, time.Time{})
		l.mustOpen()
		l.disk.Fail(sampledirtest.Unlink, 1, -1, syscall.EIO)
		l.busy(l.put(settings("front", 20<<10, 6, true)).Streams, 0)
		l.note()
		var taken atomic.Bool
		// In the middle of a step, and of no flush: each stream has something
		// durable without a row.
		synctest.Wait() // no step is under way, which would read Before
		l.disk.Before = func() {
			s := l.s.Load()
			if taken.Load() || s == nil || !s.flushing.TryLock() {
				return
			}
			defer s.flushing.Unlock()
			l.note()
			below := make(map[int32]int32)
			for _, st := range s.allStreams() {
				below[st.id] = st.committedBelow()
			}
			clear(waiting)
			for id := range l.known {
				if stream, no := db.SplitID(id); no > below[stream] {
					waiting[stream] = max(waiting[stream], id)
				}
			}
			if len(waiting) < 2 {
				return
			}
			taken.Store(true)
			known, files, at = l.known, l.db, l.now()
			log := l.disk.Log()
			st = sampledirtest.At(sampledirtest.State{}, log, len(log)).State(
				func(int) sampledirtest.Fate { return sampledirtest.Torn }, rand.New(rand.NewPCG(1, 1)))
		}
		feeds := []*feed{l.play(l.main("front"), 400), l.play(l.camera("front").Stream("sub"), 400)}
		for range 150 {
			for _, f := range feeds {
				if err := f.one(); err != nil {
					t.Error(err)
				}
			}
			if time.Sleep(200 * time.Millisecond); taken.Load() {
				break
			}
		}
		if !taken.Load() {
			t.Fatal("in 30 s there was no moment with something durable without a row")
		}
		for _, f := range feeds {
			f.run.End("test")
		}
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	for _, id := range waiting {
		st.Files[id] = append(st.Files[id], "torn"...)
	}
	return st, files, at, known
}

// busy lets cameras come and go, and somebody watch. It ends early when the
// process would.
func (l *life) busy(streams []*Stream, from int) {
	l.Helper()
	var feeds []*feed
	for _, st := range streams {
		if st.Unavailable() == nil {
			feeds = append(feeds, l.play(st, from))
		}
	}
	for i := range 5 {
		for range 11 {
			for _, f := range feeds {
				if err := f.one(); err != nil {
					l.Errorf("picture %d: %v", f.n-1, err)
				}
			}
			time.Sleep(200 * time.Millisecond)
			if l.s.Load().poisoned.Load() {
				break
			}
		}
		for j, f := range feeds {
			feeds[j] = l.next(f, "camera closed")
			if segments, err := f.run.st.Segments(context.Background(), f.run.st.committedBelow(), f.run.st.committedBelow()); err == nil && i > 2 {
				if r, err := segments[0].Open(); err == nil {
					r.Close()
				}
			}
		}
	}
	for _, f := range feeds {
		f.run.End("test")
	}
}

// committedBelow is the newest recording with a row.
func (st *Stream) committedBelow() int32 {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.committedNo - 1
}

// Whatever operation of the directory fails, and whether it fails once or until
// the disk is well again: nothing is lost that was durable, the error is shown,
// and recording goes on by itself; after a failed sync of the directory, and
// after faults at the start, when the process is started again. A sync that fails
// at the start ends no process: the directory is left alone.
func TestEveryOperationFails(t *testing.T) {
	seed := runSeed(t)
	begin, files, at, known := torn(t)
	// How many of each kind there are when nothing fails.
	count := make(map[sampledirtest.Kind]int)
	atStart := 0 // of them syncs of the directory before the first step
	// again starts the next store after the power failed in l.
	again := func(t *testing.T, rng *rand.Rand, l *life) *life {
		l.db = l.copyDB()
		log := l.disk.Log()
		cut := sampledirtest.At(begin, log, len(log))
		return bear(t, cut.State(func(int) sampledirtest.Fate { return sampledirtest.Any(rng) }, rng), l.db, l.now())
	}
	finish := func(next *life, known map[int64]piece) {
		next.mustOpen()
		m := &moment{known: known, pardoned: true}
		if problems := m.lost(next.survey()); len(problems) > 0 {
			next.Errorf("lost: %s", strings.Join(problems, "\n\t"))
		}
		next.goOn(1_000_000)
		if err := next.close(); err != nil {
			next.Errorf("close: %v", err)
		}
	}
	one := func(t *testing.T, rng *rand.Rand, arm func(*sampledirtest.Dir), kind sampledirtest.Kind, early bool) (reached bool) {
		synctest.Test(t, func(t *testing.T) {
			l := bear(t, begin, files, at)
			l.known = known
			l.disk.Before, l.disk.After = l.peek, l.peek
			arm(l.disk)
			shown, restart := l.suffer(kind)
			if kind == "" {
				for _, op := range l.disk.Log() {
					if count[op.Kind]++; op.Kind == sampledirtest.DirSync && count[sampledirtest.Create] == 0 {
						atStart++
					}
				}
				count[sampledirtest.Read] = l.disk.Reads()
			}
			reached = l.disk.Failed(kind) > 0
			shown = shown || strings.Contains(l.log.String(), "does not take writes")
			step := kind == sampledirtest.Create || kind == sampledirtest.Append || kind == sampledirtest.Sync || kind == sampledirtest.Unlink
			if step && reached && !shown && !restart {
				t.Error("no error was shown")
			}
			if s := l.s.Load(); kind == sampledirtest.DirSync && reached && s.poisoned.Load() == early {
				t.Errorf("after a failed sync of the directory the process ends: %v", !early)
			}
			l.disk.Heal()
			if early {
				l.leftAlone()
			}
			if !restart {
				l.recovers(kind)
			}
			// The power fails, and all is there.
			l.peek()
			known := l.known // what Close makes durable came after it
			next := again(t, rng, l)
			if s := l.s.Load(); s != nil {
				err := s.Close(t.Context())
				if err != nil && (!errors.Is(err, ErrPoisoned) || !restart) || err == nil && early {
					t.Errorf("close: %v", err)
				}
				if s.poisoned.Load() {
					s.db.Close() // as the end of the process would
				}
			}
			finish(next, known)
			if t.Failed() {
				t.Logf("log:\n%s", l.log)
				for i, op := range l.disk.Log() {
					if op.Err != nil && !strings.Contains(op.Err.Error(), "not exist") {
						t.Logf("operation %d: %v", i, op)
					}
				}
			}
		})
		return reached
	}
	one(t, rand.New(rand.NewPCG(seed, 0)), func(*sampledirtest.Dir) {}, "", false)
	t.Logf("operations: %v", count)
	var tally dbtest.Tally
	t.Run("of", func(t *testing.T) {
		for _, kind := range []sampledirtest.Kind{
			sampledirtest.Create, sampledirtest.Append, sampledirtest.Sync, sampledirtest.DirSync, sampledirtest.Unlink,
			sampledirtest.Truncate, sampledirtest.Open, sampledirtest.Recover, sampledirtest.Read, sampledirtest.Statfs,
			sampledirtest.ReadMeta, sampledirtest.WriteMeta, sampledirtest.SyncMeta,
		} {
			step := 1
			if !*every {
				switch kind {
				case sampledirtest.Read: // all alike
					step = max(1, count[kind]/4)
				case sampledirtest.Statfs: // one each second
					step = 8
				}
				if testing.Short() {
					step *= 18
				}
			}
			if count[kind] == 0 {
				t.Errorf("there is no %s to fail", kind)
			}
			for _, err := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
				for times, word := range map[int]string{1: "once", -1: "for ever"} {
					t.Run(fmt.Sprintf("%s/%v/%s", kind, err, word), func(t *testing.T) {
						t.Parallel()
						rng := rand.New(rand.NewPCG(seed, uint64(err)<<8|uint64(len(kind)+len(word))))
						for n := 1; n <= count[kind] && !t.Failed(); n += step {
							arm := func(d *sampledirtest.Dir) { d.Fail(kind, n, times, err) }
							early := kind == sampledirtest.DirSync && n <= atStart
							tally.Live(string(kind), func() bool { return one(t, rng, arm, kind, early) })
							if t.Failed() {
								t.Errorf("seed %d: %s number %d of %d failed %s with %v", seed, kind, n, count[kind], word, err)
							}
						}
					})
				}
			}
		}
	})
	tally.Judge(t)
}

// peek takes down what is durable.
func (l *life) peek() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look()
}

// suffer lives with a fault. It reports whether an error was shown, and whether
// the process has to be started again.
func (l *life) suffer(kind sampledirtest.Kind) (shown, restart bool) {
	l.mustOpen()
	s := l.s.Load()
	c := l.camera("front")
	for _, st := range c.Streams {
		if err := st.Unavailable(); err != nil {
			// A file that could not be read, or a directory not recognised,
			// at the start: nothing is written there until the next.
			shown, restart = true, true
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.busy(c.Streams, 600)
	}()
	for {
		select {
		case <-done:
			time.Sleep(3500 * time.Millisecond) // the second flush, and what it gives up
			select {
			case err := <-s.Fatal():
				if !errors.Is(err, ErrPoisoned) {
					l.Errorf("fatal: %v", err)
				}
				return true, true
			default:
			}
			return shown, restart
		case <-time.After(250 * time.Millisecond):
			shown = shown || c.Streams[0].Info().DirError != ""
			if err := s.Healthy(context.Background()); err != nil {
				l.Errorf("a disk that fails is tried again, and no reason to restart: %v", err)
			}
		}
	}
}

// leftAlone waits with a directory whose sync failed at the start. The disk would
// take everything now, and what it holds nobody knows.
func (l *life) leftAlone() {
	l.Helper()
	time.Sleep(10 * time.Minute)
	log := l.disk.Log()
	failed := slices.IndexFunc(log, func(op sampledirtest.Op) bool { return op.Kind == sampledirtest.DirSync && op.Err != nil })
	if failed+1 < len(log) {
		l.Errorf("after the sync that failed: %v", log[failed+1])
	}
	for _, st := range l.camera("front").Streams {
		if err := st.Unavailable(); err == nil || !strings.Contains(err.Error(), "not used before the next start") {
			l.Errorf("its stream is %v", err)
		}
		if in := st.Info(); !strings.Contains(in.DirError, "sync sample directory") {
			l.Errorf("it is shown as %q", in.DirError)
		}
	}
	if err := l.s.Load().Healthy(l.Context()); err != nil {
		l.Errorf("that is no reason to restart: %v", err)
	}
}

// recovers lives on after the fault has gone.
func (l *life) recovers(kind sampledirtest.Kind) {
	l.Helper()
	s := l.s.Load()
	st := l.main("front")
	if kind == sampledirtest.Sync {
		time.Sleep(20 * time.Second) // the pause that the failures made
	}
	f := l.play(st, 900)
	f.play(l, 4*time.Second)
	if in := st.Info(); in.DirError != "" {
		l.Errorf("4 s after the disk is well again it is shown as %q", in.DirError)
	}
	st.mu.Lock()
	rec := st.recent[len(st.recent)-1]
	first, n := int(rec.dts0/pictureStep), rec.video.Samples
	durable := 0
	for _, fr := range rec.taken[:rec.durable] {
		durable += len(fr.Video)
	}
	st.mu.Unlock()
	if first != 900 || n-durable > 10 {
		l.Errorf("the newest recording begins with picture %d, %d of %d pictures are durable", first, durable, n)
	}
	f.run.End("test")
	time.Sleep(2 * time.Second)
	for range 2 {
		if err := s.flush(l.Context(), "by hand"); err != nil {
			l.Errorf("flush: %v", err)
		}
		time.Sleep(2 * time.Second)
	}
	got := l.survey()
	if kind == sampledirtest.Sync {
		l.complete(got)
	}
	if state, err := s.db.State(l.Context()); err != nil || len(state.Garbage) > 0 {
		l.Errorf("garbage is left: %v, %v", state.Garbage, err)
	}
}

// complete makes sure that of what came in nothing is missing, but what had to go
// to keep the limit.
func (l *life) complete(got *found) {
	l.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, p := range l.sent {
		stream, _ := db.SplitID(id)
		fs := got.streams[stream]
		if len(fs.recs) > 0 && fs.recs[0].first > p.first {
			continue // deleted, or its first part is
		}
		if !fs.has(p) {
			l.Errorf("recording %s: pictures %d and %d more came in, and not all are there", idString(id), p.first, p.n-1)
		}
	}
}
