package store

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// runs records short runs, each of them a file without a row.
func (l *life) runs(st *Stream, n int) *feed {
	f := l.play(st, 0)
	for range n {
		f.play(l, 700*time.Millisecond)
		f = l.next(f, "camera closed")
	}
	return f
}

// adopted waits until nothing of before the start is left to adopt, and nothing
// of it without a row.
func adopted(t testing.TB, s *Store) {
	t.Helper()
	for range 100_000 {
		left := 0
		for _, st := range s.allStreams() {
			left += st.Info().ToAdopt
		}
		if left == 0 {
			time.Sleep(2 * time.Second) // what was recorded meanwhile is settled
			if err := s.flush(context.Background(), "by hand"); err != nil {
				t.Errorf("flush: %v", err)
			}
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("files of before the start are not adopted")
}

// dead ends a life without a flush, as a kill does, and returns what it leaves.
func (l *life) dead() (disk sampledirtest.State, files *dbFiles) {
	l.Helper()
	disk = l.disk.Content()
	l.mu.Lock()
	files = l.copyDB()
	l.mu.Unlock()
	if err := l.close(); err != nil {
		l.Errorf("close: %v", err)
	}
	return disk, files
}

// limits has more than a few files adopted beside the recording, in parts.
func limits(few, part int, pause time.Duration) func(*Config) {
	return func(cfg *Config) { cfg.beside = besideLimits{few, part, 2 * part, pause} }
}

// Recording begins at once, however many files of before the start are to be
// adopted, in numbers behind all of them. What is adopted is listed as it comes,
// and in the end all is there and each instant is explained.
func TestRecordingBeginsWhileThousandsOfFilesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bear(t, sampledirtest.State{}, nil, time.Time{})
		l.mustOpen()
		began := media.TimeOf(l.now())
		l.runs(l.put(settings("front", plenty, 3600, false)).Stream("main"), 2000).run.End("test")
		time.Sleep(2 * time.Second)
		disk, db := l.dead()
		files := len(disk.Files)
		if files < 2000 {
			t.Fatalf("%d files", files)
		}
		l = bear(t, disk, db, l.now())
		opened := time.Now()
		l.mustOpen()
		st := l.main("front")
		if took := time.Since(opened); took > 0 {
			t.Errorf("the start took %v of fake time", took)
		}
		if err := st.Unavailable(); err != nil {
			t.Fatal(err)
		}
		f := l.play(st, 500_000)
		f.play(l, 3*time.Second)
		in := st.Info()
		if in.ToAdopt < files/2 || in.ToAdopt == files {
			t.Errorf("%d of %d files are left after 3 s", in.ToAdopt, files)
		}
		if in.DurableAge > 2*time.Second || in.Watermark == 0 {
			t.Errorf("nothing is durable for %v", in.DurableAge)
		}
		// Each listing goes on from the one before.
		seen := 0
		for in.ToAdopt > 0 {
			f.play(l, 2*time.Second)
			in = st.Info()
			recs := list(t, st)
			last := recs[len(recs)-1]
			if int(last.No) < files {
				t.Fatalf("the newest recording is number %d", last.No)
			}
			old := recs[:len(recs)-1-(int(last.No)-files)]
			if n := len(old); n < seen || n > files || int(old[n-1].No) != n-1 {
				t.Fatalf("%d recordings of before are listed after %d", n, seen)
			}
			seen = len(old)
			if in.ToAdopt > 0 {
				if err := st.Gaps(t.Context(), 0, 1<<60, func(g *Gap) error {
					if g.Start < last.Start && g.End.Sub(g.Start) > 2*media.Second {
						return fmt.Errorf("gap %v to %v, %s", g.Start, g.End, g.Cause)
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
		}
		f.run.End("test")
		adopted(t, l.s.Load())
		if recs := list(t, st); len(recs) < files+1 || int(recs[files].No) != files || recs[files].Uncommitted {
			t.Errorf("%d recordings", len(recs))
		}
		st.Wait(CameraEnded, "test")
		time.Sleep(2 * time.Hour)
		explained(t, st, began, media.TimeOf(l.now()), media.Second/2)
		if !strings.Contains(l.log.String(), "adopted all files of before the start") {
			t.Error("the log does not say that all is adopted")
		}
		l.finish()
	})
}

// tables is what a database holds that does not differ from open to open.
func (l *life) tables() map[string][]string {
	l.Helper()
	out := make(map[string][]string)
	f := &footage{T: l.T}
	for table, columns := range map[string]string{
		"recording": "*", "recording_integrity": "*", "recording_playback": "*", "span": "*", "gap": "*", "garbage": "*",
		"stream": "cum_recordings, cum_media_duration_90k, cum_runs, total_recordings, total_file_bytes, total_fs_bytes, total_wall_duration_90k",
	} {
		for _, row := range f.rows(l.path(""), "SELECT "+columns+" FROM "+table) {
			line := ""
			for _, c := range slices.Sorted(maps.Keys(row)) {
				line += fmt.Sprintf("%s=%v ", c, row[c])
			}
			out[table] = append(out[table], line)
		}
	}
	return out
}

// What is adopted beside the recording gives the rows that it gives before it,
// whatever there is: torn files, files whose tails others hold again, runs over
// several files, files of nothing.
func TestAdoptedLaterIsAdoptedTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(runSeed(t), 3))
	synctest.Test(t, func(t *testing.T) {
		l := bear(t, sampledirtest.State{}, nil, time.Time{})
		l.mustOpen()
		c := l.put(settings("front", plenty, 3600, true))
		var both sync.WaitGroup
		for i, st := range c.Streams {
			both.Go(func() {
				f := l.runs(st, 5+7*i)
				f.play(l, 150*time.Second) // a run of several files
				f = l.next(f, "camera closed")
				for range 3 {
					f.play(l, 3500*time.Millisecond)
					if i == 0 { // its file, or that of the other stream
						l.disk.Fail(sampledirtest.Sync, 1, 1+rng.IntN(4), syscall.EIO)
					}
					f.play(l, 9*time.Second)
					f = l.next(f, "camera closed")
				}
				f.play(l, 70*time.Second)
				f.run.End("test")
			})
		}
		both.Wait()
		time.Sleep(2 * time.Second)
		// Truncations are lost: the tails stay that others hold again.
		cut := sampledirtest.At(l.begin, l.disk.Log(), l.disk.Len())
		disk := cut.State(func(i int) sampledirtest.Fate {
			if cut.Op(i).Kind == sampledirtest.Truncate {
				return sampledirtest.Lost
			}
			return sampledirtest.Kept
		}, rng)
		_, db := l.dead()
		for id, b := range disk.Files {
			switch n := rng.IntN(20); {
			case n == 0:
				disk.Files[id] = nil
			case n < 4:
				disk.Files[id] = b[:rng.IntN(len(b)+1)]
			}
		}
		again := 0
		for range rewritten(disk.Files) {
			again++
		}
		t.Logf("%d files, %d of which hold others again", len(disk.Files), again)
		at := l.now()
		var want map[string][]string
		for _, part := range []int{0, 1, 2, 5, 100} {
			l := bear(t, disk, db, at)
			if l.hook = limits(1, part, time.Second); part == 0 {
				l.hook = limits(1<<20, 1, 0)
			}
			l.mustOpen()
			late := 0
			for _, st := range l.s.Load().allStreams() {
				late += st.Info().ToAdopt
			}
			if (part == 0) != (late == 0) {
				t.Errorf("part %d: %d files are to be adopted later", part, late)
			}
			time.Sleep(1037 * time.Millisecond) // so that no picture comes with a step of the directory
			for _, st := range l.camera("front").Streams {
				f := l.play(st, 1_000_000)
				f.play(l, 65*time.Second)
				f.run.End("test")
				st.Wait(CameraEnded, "test")
			}
			time.Sleep(10 * time.Minute)
			adopted(t, l.s.Load())
			time.Sleep(2 * time.Second)
			l.survey()
			if err := l.close(); err != nil {
				t.Errorf("close: %v", err)
			}
			got := l.tables()
			if want == nil {
				want = got
				continue
			}
			for table := range want {
				if len(got[table]) != len(want[table]) {
					t.Errorf("parts of %d: %d rows of %s, want %d", part, len(got[table]), table, len(want[table]))
					continue
				}
				for i := range want[table] {
					if got[table][i] != want[table][i] {
						t.Errorf("parts of %d: %s\n\t%.400s\nwant\n\t%.400s", part, table, got[table][i], want[table][i])
					}
				}
			}
		}
	})
}
