package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store/internal/sampledir"
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
	if testing.Short() {
		t.Skip("takes minutes under the race detector")
	}
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
		"recording": "*", "recording_integrity": "*", "span": "*", "gap": "*", "garbage": "*",
		"stream": "cum_recordings, cum_media_duration_90k, cum_runs, total_recordings, total_wall_duration_90k",
		"recording_playback JOIN recording USING (composite_id) WHERE open_id = 1": "video, offsets, audio, recording_playback.fragments",
	} {
		for _, row := range f.rows(l.path(""), "SELECT "+columns+" FROM "+table) {
			if row["open_id"] == int64(2) {
				// What goes before it is written in its file, as far as that is known.
				delete(row, "file_bytes")
				delete(row, "fs_bytes")
			}
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
// several files, files of nothing, and files that cannot be read at first.
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
		for i, part := range []int{0, 1, 2, 5, 100, 1} {
			l := bear(t, disk, db, at)
			if l.hook = limits(1, part, time.Second); part == 0 {
				l.hook = limits(1<<20, 1, 0)
			}
			if i == 5 {
				l.disk.Fail(sampledirtest.Read, 1, 1<<30, syscall.EIO)
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
			l.disk.Heal()
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

// left is what a recorder leaves that was killed after so many short runs of each
// of two cameras, when nothing of them was committed; of back half is.
func left(t *testing.T, runs int) (disk sampledirtest.State, files *dbFiles, at time.Time, began media.Time) {
	l := bear(t, sampledirtest.State{}, nil, time.Time{})
	l.mustOpen()
	began = media.TimeOf(l.now())
	var both sync.WaitGroup
	for _, name := range []string{"front", "back"} {
		st := l.put(settings(name, plenty, 3600, false)).Stream("main")
		both.Go(func() {
			f := l.runs(st, runs/2)
			if name == "back" {
				time.Sleep(2 * time.Second)
				if err := l.s.Load().flush(t.Context(), "by hand"); err != nil {
					t.Error(err)
				}
				f = l.play(st, (f.n+14)/5*5)
			}
			for range runs - runs/2 {
				f.play(l, 700*time.Millisecond)
				f = l.next(f, "camera closed")
			}
		})
	}
	both.Wait()
	time.Sleep(2 * time.Second)
	at = l.now()
	disk, files = l.dead()
	return disk, files, at, began
}

// A camera that is deleted while its files of before the start are adopted is
// gone, with all of its files; the other ones come in.
func TestCameraIsDeletedWhileItsFilesAreAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, files, at, _ := left(t, 60)
		l := bear(t, disk, files, at)
		l.hook = limits(1, 4, 200*time.Millisecond)
		l.mustOpen()
		ctx, stop := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		for _, st := range l.s.Load().allStreams() {
			asking.Go(func() { // all that may be asked meanwhile
				for ctx.Err() == nil {
					st.Info()
					n := 0
					err := st.List(ctx, 0, 1<<60, func(*RecordingInfo) error { n++; return nil })
					if err == nil {
						err = st.Gaps(ctx, 0, 1<<60, func(*Gap) error { return nil })
					}
					if err == nil {
						err = st.Spans(ctx, 0, 1<<60, func(*Span) error { return nil })
					}
					if err == nil && n > 0 {
						_, err = st.Days(ctx)
					}
					if err != nil && ctx.Err() == nil {
						t.Error(err)
					}
					time.Sleep(130 * time.Millisecond)
				}
			})
		}
		front, back := l.camera("front"), l.camera("back")
		f, g := l.play(front.Stream("main"), 500_000), l.play(back.Stream("main"), 500_000)
		f.play(l, 1100*time.Millisecond)
		g.play(l, 1100*time.Millisecond)
		if n := front.Stream("main").Info().ToAdopt; n == 0 || n == 60 {
			t.Errorf("%d files are left", n)
		}
		l.deleteCamera(front)
		g.play(l, 2*time.Second)
		f.run.End("test")
		g.run.End("test")
		adopted(t, l.s.Load())
		stop()
		asking.Wait()
		time.Sleep(time.Minute) // the files go by and by
		for id := range l.disk.Content().Files {
			if id>>32 == int64(front.Stream("main").id) {
				t.Errorf("file %s is left", idString(id))
			}
		}
		if n := len(list(t, back.Stream("main"))); n < 61 {
			t.Errorf("%d recordings of the other camera", n)
		}
		l.finish()
	})
}

// A file that cannot be read holds up the rows of those behind it, and not the
// recording, until too many wait in memory.
func TestFileThatCannotBeReadHoldsUpNoRecording(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, files, at, began := left(t, 40)
		l := bear(t, disk, files, at)
		l.hook = limits(1, 4, 200*time.Millisecond)
		l.mustOpen()
		st := l.main("front")
		f := l.play(st, 500_000)
		f.play(l, 3*time.Second)
		some := st.Info().ToAdopt
		if some == 0 || some >= 40 {
			t.Errorf("%d files are left", some)
		}
		l.disk.Fail(sampledirtest.Recover, 1, 1<<30, syscall.EIO)
		var err error
		for n := 0; err == nil && n < 2*mostWaiting; n++ {
			f = l.next(f, "camera closed")
			err = f.one()
			time.Sleep(2 * time.Second)
		}
		in := st.Info()
		if err == nil || !strings.Contains(err.Error(), "cannot be adopted") || in.Unflushed < mostWaiting || in.Unflushed > mostWaiting+100 {
			t.Errorf("with %d recordings in memory: %v", in.Unflushed, err)
		}
		if st.Unavailable() == nil {
			t.Error("the stream is not said to be unusable")
		}
		if in.ToAdopt == 0 || in.ToAdopt > some {
			t.Errorf("%d files are left", in.ToAdopt)
		}
		l.disk.Heal()
		f.run.End("test")
		st.Wait(DiskError, "test")
		time.Sleep(2 * earlierRetry)
		adopted(t, l.s.Load())
		if err := st.Unavailable(); err != nil {
			t.Errorf("when all is adopted, the stream is %v", err)
		}
		time.Sleep(2 * time.Hour)
		explained(t, st, began, media.TimeOf(l.now()), media.Second/2)
		l.finish()
	})
}

// A clock that is set during it moves what was recorded since the start, and
// nothing of before.
func TestClockIsSetWhileFilesAreAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, files, at, began := left(t, 40)
		l := bear(t, disk, files, clockUnset.Std())
		l.unset = true
		l.hook = limits(1, 4, 200*time.Millisecond)
		l.mustOpen()
		st := l.main("front")
		f := l.play(st, 500_000)
		f.play(l, 3300*time.Millisecond)
		if n := st.Info().ToAdopt; n == 0 {
			t.Error("nothing is left to be adopted")
		}
		l.stepped.Store(int64(-l.shift) + int64(at.Add(time.Minute).Sub(time.Now())))
		f.play(l, 3300*time.Millisecond)
		if n := st.Info().ToAdopt; n == 0 {
			t.Error("nothing is left to be adopted")
		}
		f.play(l, 10*time.Second)
		f.run.End("test")
		st.Wait(CameraEnded, "test")
		adopted(t, l.s.Load())
		time.Sleep(2 * time.Hour)
		explained(t, st, began, media.TimeOf(l.now()), media.Second/2)
		l.survey()
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
}

// What waits to be adopted counts against the limit of its stream, and so does
// what waits behind it: the oldest goes at once.
func TestFilesNotAdoptedCountAgainstTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, files, at, _ := left(t, 80)
		limit := int64(0)
		for id, b := range disk.Files {
			if id>>32 == 2 {
				limit += (int64(len(b)) + sampledirtest.BlockSize - 1) / sampledirtest.BlockSize * sampledirtest.BlockSize
			}
		}
		l := bear(t, disk, files, at)
		l.hook = limits(1, 4, time.Second)
		l.mustOpen()
		st := l.put(settings("back", limit, 3600, false)).Stream("main")
		if st.id != 2 || st.Info().ToAdopt == 0 {
			t.Fatal("it is the other stream")
		}
		f := l.play(st, 500_000)
		for st.Info().ToAdopt > 0 {
			f.play(l, 1300*time.Millisecond)
			f = l.next(f, "camera closed")
			time.Sleep(2500 * time.Millisecond) // a commit, and files go
			sum := int64(0)
			for id, b := range l.disk.Content().Files {
				if id>>32 == 2 {
					sum += (int64(len(b)) + sampledirtest.BlockSize - 1) / sampledirtest.BlockSize * sampledirtest.BlockSize
				}
			}
			if n := st.Info().ToAdopt; n > 0 && sum > limit+6*sampledirtest.BlockSize {
				t.Errorf("%d bytes are on the disk, the limit is %d; %d files are to be adopted", sum, limit, n)
			}
		}
		f.run.End("test")
		time.Sleep(2 * time.Second)
		if err := l.s.Load().flush(t.Context(), "by hand"); err != nil { // adoption may have ended before this run
			t.Error(err)
		}
		l.finish()
	})
}

// What is recorded beside adoption counts on from more than there turns out to
// be. A run of it is one run all the same for who adopts it after a kill, and
// what was torn before it does not matter either.
func TestRunRecordedBesideAdoptionStaysOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, files, at, _ := left(t, 240)
		l := bear(t, disk, files, at)
		l.hook = limits(1, 4, time.Second)
		l.mustOpen()
		f := l.play(l.main("front"), 500_000)
		f.play(l, 150*time.Second)
		if n := l.main("front").Info().ToAdopt; n == 0 {
			t.Error("all files are adopted")
		}
		f.run.End("test")
		time.Sleep(2 * time.Second)
		disk, files = l.dead()
		l = bear(t, disk, files, l.now())
		l.mustOpen()
		adopted(t, l.s.Load())
		recs := list(t, l.main("front"))
		n := 0
		for _, r := range recs {
			if r.No >= 240 {
				if int(r.RunOffset) != n {
					t.Errorf("recording %d is number %d of its run, want %d", r.No, r.RunOffset, n)
				}
				n++
			}
		}
		if n < 3 {
			t.Errorf("the run has %d recordings", n)
		}
		l.finish()
	})
}

// A run under way when all is adopted is one run for who adopts it after a kill:
// its files go on counting as its first one did, and rows do not.
func TestRunOverTheEndOfAdoptionStaysOne(t *testing.T) {
	for _, more := range []time.Duration{50 * time.Second, 80 * time.Second, 200 * time.Second} {
		for _, commit := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				disk, files, at, _ := left(t, 40)
				l := bear(t, disk, files, at)
				l.hook = limits(1, 4, time.Second)
				l.mustOpen()
				st := l.main("front")
				f := l.play(st, 500_000)
				f.play(l, 20*time.Second)
				began := st.Info().ToAdopt
				for st.Info().ToAdopt > 0 {
					f.play(l, time.Second)
				}
				f.play(l, more)
				if began == 0 {
					t.Error("all was adopted before the run")
				}
				if commit {
					if err := l.s.Load().flush(t.Context(), "by hand"); err != nil {
						t.Error(err)
					}
					f.play(l, 70*time.Second)
				}
				disk, files = l.dead()
				l = bear(t, disk, files, l.now())
				l.mustOpen()
				adopted(t, l.s.Load())
				n, media := int32(0), list(t, l.main("front"))[0].PrevMedia
				for _, r := range list(t, l.main("front")) {
					if r.PrevMedia != media {
						t.Errorf("recording %d stands at %v of the media, the one before it ends at %v", r.No, r.PrevMedia, media)
					}
					media += r.MediaDuration
					if r.No < 40 {
						continue
					}
					if r.RunOffset != n {
						t.Errorf("%v later, committed %v: recording %d is number %d of its run, want %d", more, commit, r.No, r.RunOffset, n)
					}
					n++
				}
				if n < 2 {
					t.Errorf("the run has %d recordings", n)
				}
				l.finish()
			})
		}
	}
}

// Of the files that came after a copy of the database, a restore reads a few: the
// last of each open knows best when it began.
func TestRestoreReadsTheLastFileOfEachOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bear(t, sampledirtest.State{}, nil, time.Time{})
		l.mustOpen()
		l.put(settings("front", plenty, 3600, false))
		for i := range 5 {
			f := l.play(l.main("front"), 10_000*i)
			for range 30 * i {
				f.play(l, 700*time.Millisecond)
				f = l.next(f, "camera closed")
			}
			time.Sleep(2 * time.Second)
			l.restart()
		}
		content := l.disk.Content()
		for id := range content.Files {
			if no := int32(id); no%7 == 0 || no > 290 && no < 295 {
				content.Files[id] = content.Files[id][:20]
			}
		}
		ids := slices.Sorted(maps.Keys(content.Files))
		disk := sampledirtest.New(content)
		uuid := l.s.Load().UUID()
		want := make(map[int32]int32) // number of the last file, by open
		for _, id := range ids {
			if a, _, err := beginning(disk, id); err == nil {
				want[a.OpenID] = a.RecordingNo
			}
		}
		for behind := range int32(6) {
			got, reads := make(map[int32]int32), 0
			newestOfOpens(disk, ids, uuid, behind, func() { reads++ }, func(a *mp4.About) { got[a.OpenID] = a.RecordingNo })
			for open := range want {
				if open > behind && got[open] != want[open] || open <= behind && got[open] != 0 {
					t.Errorf("behind open %d: the last of %d is %d, want %d", behind, open, got[open], want[open])
				}
			}
			if reads > 80 {
				t.Errorf("%d of %d files were read", reads, len(ids))
			}
		}
		if len(want) != 4 || len(ids) < 300 {
			t.Errorf("%d files under %d opens", len(ids), len(want))
		}
		l.finish()
	})
}

// A name that does not answer, behind a few files, keeps its stream from being
// recorded, and no other. The start does not read all files for it.
func TestNameThatDoesNotAnswerHoldsUpNoStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, files, at, _ := left(t, 400)
		l := bear(t, disk, files, at)
		var ill, reads atomic.Int64 // the stream goes on asking in the background
		ill.Store(db.CompositeID(1, 399))
		l.hook = func(cfg *Config) {
			cfg.openDir = func(string) (sampledir.Dir, error) {
				return &hooked{Dir: l.disk.Reopen(), recover: func(int64) error { reads.Add(1); return nil }, open: func(id int64) error {
					if id == ill.Load() {
						return syscall.EIO
					}
					return nil
				}}, nil
			}
			cfg.beside = besideLimits{few: 8, part: 32, rows: 128, pause: time.Hour}
		}
		l.mustOpen()
		if n := reads.Load(); n > 20 {
			t.Errorf("the start reads %d of %d files", n, len(disk.Files))
		}
		for _, st := range l.s.Load().allStreams() {
			if err := st.Unavailable(); (st.id == 1) != errors.Is(err, syscall.EIO) {
				t.Errorf("stream %d is %v", st.id, err)
			}
		}
		ill.Store(0)
		if err := l.close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := l.open(); err != nil || l.main("front").Unavailable() != nil {
			t.Errorf("the next start: %v, %v", err, l.main("front").Unavailable())
		}
		l.close()
	})
}

// unsyncedEarlier is a life with a stream one of whose files of before the start
// did not sync when it was adopted.
func unsyncedEarlier(t *testing.T) (*life, *Stream) {
	disk, files, at, _ := left(t, 40)
	l := bear(t, disk, files, at)
	l.hook = limits(1, 4, 200*time.Millisecond)
	l.mustOpen()
	time.Sleep(2 * time.Second)
	l.disk.Fail(sampledirtest.Sync, 1, 1, syscall.EIO)
	for range 1000 {
		time.Sleep(time.Second)
		for _, st := range l.s.Load().allStreams() {
			st.mu.Lock()
			failed := st.earlier != nil && st.earlier.err != nil
			st.mu.Unlock()
			if failed {
				return l, st
			}
		}
	}
	t.Fatal("no sync of an earlier file failed")
	return nil, nil
}

// What waits for a file that no process but the next may adopt is bounded, too,
// and keeps no samples.
func TestNotTooManyWaitForAFileThatDidNotSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, st := unsyncedEarlier(t)
		f := l.play(st, 500_000)
		var err error
		for n := 0; err == nil && n < 2*mostWaiting; n++ {
			f = l.next(f, "camera closed")
			err = f.one()
			time.Sleep(2 * time.Second)
		}
		if in := st.Info(); err == nil || !strings.Contains(err.Error(), "cannot be adopted") || in.Unflushed > mostWaiting+100 {
			t.Errorf("with %d recordings in memory: %v", in.Unflushed, err)
		}
		st.mu.Lock()
		for _, rec := range st.recent {
			for _, fr := range rec.taken {
				if rec.settled && rec.no >= st.earlier.end && fr.Video[0].Size != 0 {
					t.Errorf("recording %d holds samples", rec.no)
				}
			}
		}
		st.mu.Unlock()
		f.run.End("test")
		if err := l.close(); !errors.Is(err, ErrPoisoned) {
			t.Errorf("close: %v", err)
		}
	})
}

// A file whose sync fails when it is adopted is not synced again: its stream is
// recorded, and the next process, which is asked for, looks at the file.
func TestAdoptedFileThatDoesNotSyncIsForTheNextProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, st := unsyncedEarlier(t)
		n := st.Info().ToAdopt
		f := l.play(st, 500_000)
		f.play(l, 5*time.Minute)
		f.run.End("test")
		if in := st.Info(); n == 0 || in.ToAdopt != n || in.Unflushed < 5 {
			t.Errorf("%d files are to be adopted, were %d; %d recordings wait", in.ToAdopt, n, in.Unflushed)
		}
		time.Sleep(endsPause)
		select {
		case <-l.s.Load().Again():
		default:
			t.Error("no other process is asked for")
		}
		if err := l.close(); !errors.Is(err, ErrPoisoned) {
			t.Errorf("close: %v", err)
		}
		if log := l.log.String(); strings.Contains(log, "trying again every minute") || !strings.Contains(log, "the next start adopts it") {
			t.Error("the log says that this process tries the file again")
		}
		l = bear(t, l.disk.Content(), l.copyDB(), l.now())
		l.mustOpen()
		adopted(t, l.s.Load())
		l.finish()
	})
}

// While the database commits nothing, no more is adopted, and the flusher alone
// tries again.
func TestAdoptionWaitsForItsRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, files, at, _ := left(t, 40)
		l := bear(t, disk, files, at)
		l.hook = limits(1, 4, 200*time.Millisecond)
		l.mustOpen()
		b := &bench{T: t, dir: l.dir, s: l.s.Load()}
		b.behindItsBack("CREATE TRIGGER refuse BEFORE UPDATE ON stream BEGIN SELECT RAISE(ABORT, 'no commit today'); END")
		time.Sleep(30 * time.Second)
		waits := l.s.Load().dirs[0].left()
		time.Sleep(5 * time.Minute)
		if n := l.s.Load().dirs[0].left(); n == 0 || n != waits {
			t.Errorf("%d files are left to adopt, after half a minute it were %d", n, waits)
		}
		if n := strings.Count(l.log.String(), "flush failed"); n < 5 || n > 6 {
			t.Errorf("%d flushes failed in five minutes", n)
		}
		b.behindItsBack("DROP TRIGGER refuse")
		time.Sleep(2 * time.Minute)
		adopted(t, l.s.Load())
		l.finish()
	})
}

// mount is a directory that may be opened anew, as behind a disk that was away.
type mount struct {
	sampledir.Dir
	away   *atomic.Int32 // mounts that are gone
	n      int32         // of this one
	closed atomic.Bool
}

func (m *mount) Moved() bool { return m.n <= m.away.Load() }

func (m *mount) Close() error {
	m.closed.Store(true)
	return nil
}

func (m *mount) Sync() error {
	if m.closed.Load() {
		return fs.ErrClosed
	}
	return m.Dir.Sync()
}

// A disk that comes back while a part is read from it as it was before ends
// nothing: the part is read again.
func TestDiskThatComesBackDuringAPartOfAdoption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, files, at, _ := left(t, 6)
		l := bear(t, disk, files, at)
		var away, mounts atomic.Int32
		l.hook = func(cfg *Config) {
			cfg.beside = besideLimits{few: 1, part: 100, rows: 100, pause: 10 * time.Second}
			cfg.openDir = func(string) (sampledir.Dir, error) {
				return &mount{Dir: l.disk.Reopen(), away: &away, n: mounts.Add(1)}, nil
			}
		}
		l.mustOpen()
		first := mounts.Load()
		f := l.play(l.main("front"), 500_000)
		for range 3 { // in the pauses of the first part
			l.disk.Fail(sampledirtest.Append, 1, 1, syscall.EIO)
			away.Store(mounts.Load())
			f.play(l, 2*time.Second)
		}
		f.play(l, 10*time.Second)
		f.run.End("test")
		select {
		case err := <-l.s.Load().Fatal():
			t.Fatalf("the process ends: %v", err)
		default:
		}
		if n := mounts.Load() - first; n < 2 {
			t.Errorf("the directory was opened anew %d times", n)
		}
		time.Sleep(5 * earlierRetry)
		adopted(t, l.s.Load())
		if n := len(list(t, l.main("front"))); n < 4 {
			t.Errorf("%d recordings", n)
		}
		l.finish()
	})
}

// Parts of one file are adopted, too.
func TestPartsHoldAFileAtLeast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, files, at, _ := left(t, 12)
		l := bear(t, disk, files, at)
		l.hook = limits(1, 0, 0)
		l.mustOpen()
		adopted(t, l.s.Load())
		if n := len(list(t, l.main("front"))); n != 12 {
			t.Errorf("%d recordings of 12 are adopted", n)
		}
		l.finish()
	})
}
