package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/db/dbtest"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// outside opens databases outside of any bubble: one whose disk failed is never
// closed, and a bubble does not end with one.
type outside struct {
	ask    chan db.Config
	answer chan opening
}

type opening struct {
	d   *db.DB
	err error
}

func newOutside(t *testing.T) *outside {
	o := &outside{make(chan db.Config), make(chan opening)}
	go func() {
		for cfg := range o.ask {
			cfg.Now = nil // it is of the bubble
			d, err := db.Open(context.Background(), cfg)
			o.answer <- opening{d, err}
		}
	}()
	t.Cleanup(func() { close(o.ask) })
	return o
}

// through makes a store reach its database through a VFS.
func (o *outside) through(v *dbtest.VFS) func(*Config) {
	return func(cfg *Config) {
		cfg.openDB = func(_ context.Context, c db.Config) (*db.DB, error) {
			c.VFS = v.Name()
			o.ask <- c
			got := <-o.answer
			return got.d, got.err
		}
	}
}

// Whatever operation of SQLite's fails, once or until the disk is well again:
// no footage is lost that was durable. Recording goes on by itself, or the
// process ends and writes nothing more to the database.
func TestFaultsUnderTheDatabaseCostNoFootage(t *testing.T) {
	seed := runSeed(t)
	begin, files, at, known := torn(t)
	var counts map[dbtest.Op]int
	var tally dbtest.Tally
	restarts := 0
	one := func(t *testing.T, rng *rand.Rand, op dbtest.Op, errno syscall.Errno, arm func(*dbtest.VFS)) (reached bool) {
		v, o := dbtest.New(t), newOutside(t)
		synctest.Test(t, func(t *testing.T) {
			l := bear(t, begin, files, at)
			l.known = known
			l.disk.Before, l.disk.After = l.peek, l.peek
			l.hook = o.through(v)
			arm(v)
			restart := false
			if err := l.open(); err != nil {
				restart = true
				if v.Failed() == 0 || !strings.Contains(err.Error(), l.dir) {
					t.Errorf("open: %v", err)
				}
			} else {
				restart = l.endure(op)
			}
			if op == (dbtest.Op{}) {
				counts = v.Counts() // before the end
			}
			reached = v.Failed() > 0
			lasting := op.Kind == dbtest.Sync || op.Kind == dbtest.Write && errno == syscall.EIO
			if reached && lasting && !restart {
				t.Errorf("the process goes on after a failed %v", op)
			}
			v.Heal()
			if !restart {
				l.heals()
			}
			l.peek()
			if s := l.s.Load(); s != nil {
				later := v.Later()
				if err := s.Close(t.Context()); (err != nil) != restart || err != nil && !errors.Is(err, ErrPoisoned) {
					t.Errorf("close: %v", err)
				}
				if n := v.Later() - later; restart && n > 0 {
					t.Errorf("the database is written to %d times after it failed", n)
				}
			}
			v.Die()
			// The power fails. Of the database there is what was synced, or more.
			left := &dbFiles{main: v.Synced(l.path("")), wal: v.Synced(l.path("-wal"))}
			if rng.IntN(2) == 0 {
				left = l.copyDB()
			}
			log := l.disk.Log()
			cut := sampledirtest.At(begin, log, len(log))
			next := bear(t, cut.State(func(int) sampledirtest.Fate { return sampledirtest.Any(rng) }, rng), left, l.now())
			next.mustOpen()
			m := &moment{known: l.known, pardoned: true}
			if problems := m.lost(next.survey()); len(problems) > 0 {
				next.Errorf("lost: %s", strings.Join(problems, "\n\t"))
			}
			next.goOn(1_000_000)
			if err := next.close(); err != nil {
				next.Errorf("close: %v", err)
			}
			next.askSQLite()
			if restart {
				restarts++
			}
			if t.Failed() {
				t.Logf("log:\n%s", l.log)
			}
		})
		return reached
	}
	// What is in each of five lives without a fault is in any, or nearly.
	var fewest map[dbtest.Op]int
	for i := range uint64(5) {
		one(t, rand.New(rand.NewPCG(seed, i)), dbtest.Op{}, 0, func(*dbtest.VFS) {})
		if fewest == nil {
			fewest = counts
		}
		for op, n := range fewest {
			fewest[op] = min(n, counts[op])
		}
	}
	counts = fewest
	t.Logf("operations: %v", counts)
	samples := 32
	if testing.Short() {
		samples = 1
	}
	ops := make([]dbtest.Op, 0, len(counts))
	for op := range counts {
		ops = append(ops, op)
	}
	slices.SortFunc(ops, func(a, b dbtest.Op) int { return cmp.Compare(a.String(), b.String()) })
	for _, op := range ops {
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
			for times, word := range map[int]string{1: "once", -1: "for ever"} {
				t.Run(fmt.Sprintf("%v/%v/%s", op, errno, word), func(t *testing.T) {
					rng := rand.New(rand.NewPCG(seed, uint64(errno)<<8|uint64(len(op.String())+len(word))))
					step := max(1, counts[op]/samples)
					if *every {
						step = 1
					}
					for n := 1 + rng.IntN(step); n <= counts[op] && !t.Failed(); n += step {
						arm := func(v *dbtest.VFS) { v.Fail(op, n, times, errno) }
						tally.Live(op.String(), func() bool { return one(t, rng, op, errno, arm) })
						if t.Failed() {
							t.Errorf("seed %d: %v number %d of %d failed %s with %v", seed, op, n, counts[op], word, errno)
						}
					}
				})
			}
		}
	}
	tally.Judge(t)
	t.Logf("in %d of them the process had to be started again", restarts)
}

// A sync that fails under a change of users ends the process at once, not with
// the next flush: it is the same log.
func TestFaultUnderAChangeOfUsersEndsTheProcess(t *testing.T) {
	v := dbtest.New(t)
	s, err := Open(t.Context(), Config{Dir: t.TempDir(), openDB: func(ctx context.Context, c db.Config) (*db.DB, error) {
		c.VFS = v.Name()
		return db.Open(ctx, c)
	}})
	if err != nil {
		t.Fatal(err)
	}
	v.Fail(dbtest.Op{Kind: dbtest.Sync, File: dbtest.WAL}, 1, 1, syscall.EIO)
	err = s.Database().ApplyAccess(t.Context(), &db.AccessChange{Users: []db.User{{Name: "anna"}}})
	if !db.Poisoned(err) {
		t.Fatalf("the change: %v", err)
	}
	s.DatabaseFailed(err)
	select {
	case err := <-s.Fatal():
		if !errors.Is(err, ErrPoisoned) {
			t.Errorf("fatal: %v", err)
		}
	default:
		t.Error("the process goes on")
	}
	v.Die()
	s.stop()
	s.running.Wait()
	for _, d := range s.dirs {
		d.dir.Close()
	}
}

// Whichever read fails under a change of cameras, memory and database have both
// made it, or neither has.
func TestReadThatFailsUnderAChangeKeepsMemoryAndDatabaseTogether(t *testing.T) {
	camera := func(name string) CameraConfig {
		return CameraConfig{ShortName: name, Streams: map[string]StreamConfig{"main": {URL: "rtsp://10.0.0.1/" + name}}}
	}
	reached := 0
	for _, file := range []dbtest.File{dbtest.WAL, dbtest.Main} {
		for n := 1; n < 200; n++ {
			v := dbtest.New(t)
			cfg := Config{Dir: inMemory(t), noBallast: true, openDB: func(ctx context.Context, c db.Config) (*db.DB, error) {
				c.VFS = v.Name()
				return db.Open(ctx, c)
			}}
			s, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			uuid, err := s.AddCamera(t.Context(), camera("front"))
			if err := errors.Join(err, s.Close(t.Context())); err != nil {
				t.Fatal(err)
			}
			if s, err = Open(t.Context(), cfg); err != nil { // with nothing in SQLite's memory
				t.Fatal(err)
			}
			together := func(after string, failed error) {
				state, err := s.db.State(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				var stored, known []string
				for _, c := range state.Cameras {
					stored = append(stored, c.Name)
				}
				for _, c := range s.Cameras() {
					known = append(known, c.Name)
				}
				if !slices.Equal(stored, known) {
					t.Errorf("%v read %d fails: after %s (%v) the database has cameras %q, memory %q", file, n, after, failed, stored, known)
				}
			}
			v.Fail(dbtest.Op{Kind: dbtest.Read, File: file}, n, 1, syscall.EIO)
			err = s.DeleteCamera(t.Context(), uuid)
			if v.Failed() == 0 {
				_, err = s.AddCamera(t.Context(), camera("back"))
			}
			v.Heal()
			together("the change", err)
			if !s.poisoned.Load() {
				if _, err := s.AddCamera(t.Context(), camera("again")); err != nil {
					t.Errorf("%v read %d fails: the next change: %v", file, n, err)
				}
				together("the next change", nil)
			}
			failed := v.Failed()
			if s.poisoned.Load() {
				v.Die()
				s.stop()
				s.running.Wait()
				for _, d := range s.dirs {
					d.dir.Close()
				}
			} else if err := s.Close(t.Context()); err != nil {
				t.Errorf("close: %v", err)
			}
			if reached += failed; failed == 0 || t.Failed() {
				break
			}
		}
	}
	if reached == 0 {
		t.Error("no read failed: the test proves nothing")
	}
	t.Logf("%d reads failed", reached)
}

// endure lives with a fault below the database, and reports whether the
// process has to be started again.
func (l *life) endure(op dbtest.Op) (restart bool) {
	s := l.s.Load()
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.busy(l.camera("front").Streams, 600)
		time.Sleep(1500 * time.Millisecond)
	}()
	for {
		select {
		case <-done:
			select {
			case err := <-s.Fatal():
				if !errors.Is(err, ErrPoisoned) || op.Kind == dbtest.Read {
					l.Errorf("fatal after a failed %v: %v", op, err)
				}
				return true
			default:
				return false
			}
		case <-time.After(250 * time.Millisecond):
			if err := s.Healthy(context.Background()); err != nil {
				l.Errorf("a database that gives errors is no reason to restart: %v", err)
			}
		}
	}
}

// heals lives on after the fault has gone.
func (l *life) heals() {
	l.Helper()
	f := l.play(l.main("front"), 900)
	f.play(l, 4*time.Second)
	f.run.End("test")
	for i := 0; ; i++ {
		time.Sleep(2 * time.Second)
		if err := l.s.Load().flush(l.Context(), "by hand"); err != nil {
			l.Errorf("flush: %v", err)
		}
		state, err := l.s.Load().db.State(l.Context())
		if err == nil && len(state.Garbage) == 0 && i > 0 {
			break
		}
		if err != nil || i == 4 {
			l.Errorf("garbage is left: %v, %v", state, err)
			break
		}
	}
	l.survey()
}

// A disk that takes no commit for ten minutes: one try a minute, a kilobyte of
// log at most for each, whatever waits, and everything is committed within a minute
// of its end.
func TestFlushThatFailsIsTriedAgainEachMinute(t *testing.T) {
	v, o := dbtest.New(t), newOutside(t)
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, o.through(v))
		st, unfit := b.camera("front", plenty, 60), b.camera("unfit", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 2*time.Minute)
		before, logged := strings.Count(b.log.String(), "flush failed"), len(b.log.String())
		v.Fail(dbtest.Op{Kind: dbtest.Write, File: dbtest.WAL}, 1, -1, syscall.ENOSPC)
		for range 20 { // recordings that the schema refuses
			g := newFeed(unfit.Begin(nil))
			if err := g.one(); err != nil {
				t.Fatal(err)
			}
			unfit.mu.Lock()
			g.run.rec.start, g.run.rec.runOffset = -5, 1
			unfit.mu.Unlock()
			g.run.End("test")
		}
		f.play(t, 10*time.Minute)
		var tries int
		for line := range strings.Lines(b.log.String()) {
			if strings.Contains(line, "flush failed") {
				tries++
				if len(line) > 1<<10 {
					t.Errorf("a line of %d bytes: %s", len(line), line)
				}
			}
		}
		if tries -= before; tries < 8 || tries > 11 {
			t.Errorf("%d tries in ten minutes", tries)
		}
		if n := len(b.log.String()) - logged; n > tries<<10 {
			t.Errorf("%d bytes are logged for %d tries", n, tries)
		}
		if n := strings.Count(b.log.String(), "recording set aside"); n != 20 {
			t.Errorf("20 recordings are set aside, %d times that is said", n)
		}
		if err := b.s.Healthy(t.Context()); err != nil {
			t.Errorf("a restart would lose what memory holds: %v", err)
		}
		v.Heal()
		f.play(t, 70*time.Second)
		for _, r := range list(t, st) {
			if old := st.Info().Watermark; r.Uncommitted && r.End().Add(2*90000*60) < old {
				t.Errorf("recording %d is not committed", r.No)
			}
		}
		f.run.End("test")
		time.Sleep(3 * time.Second)
		b.stop()
		res, err := Check(t.Context(), CheckConfig{Dir: b.dir, Found: func(f Finding) { t.Errorf("check: %v", f) }})
		if err != nil || res.Rows < 10 {
			t.Errorf("check of %d rows: %v", res.Rows, err)
		}
		b.start()
		if n := everyCount(t, b.again("front")); n != f.n {
			t.Errorf("%d pictures of %d", n, f.n)
		}
		b.stop()
	})
}
