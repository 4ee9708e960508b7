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
		told := func() string { return strings.Join(b.s.DirFaults(), "\n") }
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
