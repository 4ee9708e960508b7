package store

import (
	"database/sql"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
)

// behindItsBack changes the database while the store has it open.
func (b *bench) behindItsBack(statement string) {
	b.Helper()
	b.s.flushing.Lock() // which may be at work in this very instant
	defer b.s.flushing.Unlock()
	p, err := sql.Open("sqlite", filepath.Join(b.dir, "db"))
	if err == nil {
		_, err = p.Exec(statement)
	}
	if err == nil {
		err = p.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
}

// A full store always has garbage, and no alarm. One whose garbage rows do not
// go has one, with its cause, and it ends by itself.
func TestAlarmWhenGarbageOnlyGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, dir: inMemory(t), log: new(journal)}
		b.hook = func(cfg *Config) { cfg.Log = slog.New(slog.NewTextHandler(io.MultiWriter(b.log), nil)) }
		b.start()
		st := b.camera("front", 16<<20, 60)
		d := b.s.dirs[0]
		f := newFeed(st.Begin(nil))
		f.step, f.gop, f.size = 9000*50, 2, 60<<10 // 720 KiB a minute
		told := func() string { return strings.Join(faults(b.s), "\n") }
		most := 0
		for range 4 * 60 {
			f.play(t, time.Minute)
			most = max(most, b.s.Dirs()[0].Garbage)
			if got := told(); got != "" {
				t.Fatalf("a full store that is well says %q", got)
			}
		}
		if most == 0 {
			t.Fatal("a full store has no garbage: the test proves nothing")
		}

		b.behindItsBack("CREATE TRIGGER refuse BEFORE UPDATE ON stream BEGIN SELECT RAISE(ABORT, 'no commit today'); END")
		f.play(t, garbageOld-2*time.Minute)
		if got := told(); got != "" {
			t.Errorf("after less than %v: %q", garbageOld, got)
		}
		f.play(t, 4*time.Minute)
		want := []string{"sample directory " + d.path + ": ", "files are gone and their garbage rows are not, for up to 1h3", "no commit today"}
		for _, w := range want {
			if got := told(); !strings.Contains(got, w) {
				t.Errorf("told %q, want %q", got, w)
			}
			if got := st.Info().DirAlarm; w != want[0] && !strings.Contains(got, w) {
				t.Errorf("the stream says %q, want %q", got, w)
			}
		}
		if fl := b.s.Flushes(); fl.Failed < 80 {
			t.Errorf("%d flushes failed in an hour and a half, tried each minute", fl.Failed)
		}
		f.play(t, time.Hour)
		if n := strings.Count(b.log.String(), "garbage only grows"); n != 1 {
			t.Errorf("the log says it %d times", n)
		}

		b.behindItsBack("DROP TRIGGER refuse")
		f.play(t, 3*time.Minute)
		if got := told(); got != "" || st.Info().DirAlarm != "" {
			t.Errorf("after commits go again: %q", got)
		}
		if n := strings.Count(b.log.String(), "garbage goes again"); n != 1 {
			t.Errorf("the log says %d times that it is over", n)
		}
		f.run.End("test")
	})
}

// What waits for a database that commits nothing is bounded: the stream stops, says
// why, and goes on when commits go again. The time between is a gap.
func TestNotTooManyWaitForADatabaseThatCommitsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		began := media.TimeOf(time.Now())
		b.behindItsBack("CREATE TRIGGER refuse BEFORE UPDATE ON stream BEGIN SELECT RAISE(ABORT, 'no commit today'); END")
		var err error
		n := 0
		for ; err == nil && n < 2*mostUnflushed; n++ {
			f := newFeed(st.Begin(nil))
			f.n, f.dts = 10*n, int64(10*n)*9000
			if err = f.one(); err == nil {
				err = f.one()
			}
			f.run.End("camera closed")
			time.Sleep(2 * time.Second)
		}
		st.Wait(DiskError, "test")
		if in := st.Info(); err == nil || !strings.Contains(err.Error(), "no commit today") || in.Unflushed > mostUnflushed+10 {
			t.Errorf("with %d recordings in memory: %v", in.Unflushed, err)
		}
		if st.Unavailable() == nil {
			t.Error("the stream is not said to be unusable")
		}
		b.behindItsBack("DROP TRIGGER refuse")
		time.Sleep(3 * time.Minute)
		if err := st.Unavailable(); err != nil || st.Info().Unflushed > 0 {
			t.Errorf("when commits go again, %d wait and the stream is %v", st.Info().Unflushed, err)
		}
		if got := len(list(t, st)); got < mostUnflushed-1 {
			t.Errorf("%d recordings of %d", got, n)
		}
		explained(t, st, began, media.TimeOf(time.Now()), 3*media.Second)
	})
}

// Where nothing is recorded, nobody flushes: the rows of a camera that was
// deleted go all the same.
func TestGarbageOfTheLastCameraGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 3*time.Minute)
		f.run.End("test")
		<-time.After(2 * time.Minute)
		if err := b.s.DeleteCamera(t.Context(), st.uuid); err != nil {
			t.Fatal(err)
		}
		<-time.After(ageEvery + time.Minute)
		state, err := b.s.db.State(t.Context())
		if err != nil || len(state.Garbage) > 0 || len(b.files()) > 0 {
			t.Errorf("an hour later there are %d garbage rows, %d files (%v)", len(state.Garbage), len(b.files()), err)
		}
	})
}

// The flush of each hour that fails is tried again each minute, as any other, and
// no oftener.
func TestFlushOfEachHourThatFailsIsTriedEachMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 3*time.Minute)
		f.run.End("test")
		time.Sleep(2 * time.Minute)
		if err := b.s.DeleteCamera(t.Context(), st.uuid); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		b.behindItsBack("CREATE TRIGGER refuse BEFORE DELETE ON garbage BEGIN SELECT RAISE(ABORT, 'no commit today'); END")
		for range 90 {
			if b.s.plans.failing() != nil {
				break
			}
			time.Sleep(time.Minute)
		}
		before := b.s.Flushes().Failed
		time.Sleep(20 * time.Minute)
		if n := b.s.Flushes().Failed - before; before == 0 || n < 18 || n > 21 {
			t.Errorf("%d flushes failed in 20 minutes, after %d", n, before)
		}
		b.behindItsBack("DROP TRIGGER refuse")
		time.Sleep(2 * time.Minute)
		state, err := b.s.db.State(t.Context())
		if err != nil || len(state.Garbage) > 0 || b.s.plans.failing() != nil {
			t.Errorf("two minutes after commits go again there are %d garbage rows (%v, %v)", len(state.Garbage), err, b.s.plans.failing())
		}
	})
}
