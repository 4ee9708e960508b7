package store

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

const mb = 1 << 20

// small gives a store a disk in memory of so many bytes.
func small(disk *sampledirtest.Dir, bytes int64) func(*Config) {
	disk.SetCapacity(bytes)
	return func(cfg *Config) {
		cfg.RingBytes = 4 * mb
		cfg.openDir = func(string) (sampledir.Dir, error) { return disk.Reopen(), nil }
	}
}

// playAll plays all feeds at once.
func playAll(t *testing.T, feeds []*feed, d time.Duration) {
	var all sync.WaitGroup
	for _, f := range feeds {
		all.Go(func() { f.play(t, d) })
	}
	all.Wait()
}

// free is the room on the disk.
func free(t *testing.T, disk *sampledirtest.Dir) int64 {
	t.Helper()
	sp, err := disk.Space()
	if err != nil {
		t.Fatal(err)
	}
	return sp.Free
}

// leave lets others have all but n bytes of what is free.
func leave(t *testing.T, disk *sampledirtest.Dir, n int64) {
	t.Helper()
	disk.Fill(0)
	disk.Fill(free(t, disk) - n)
}

// rowsAndFiles makes sure that there is nothing on the disk but recordings, and
// all of those.
func rowsAndFiles(t *testing.T, disk *sampledirtest.Dir, streams ...*Stream) (sizes []int64) {
	t.Helper()
	files := disk.Content().Files
	for _, st := range streams {
		for _, r := range list(t, st) {
			id := int64(st.id)<<32 | int64(r.No)
			if _, ok := files[id]; !ok && !r.Uncommitted {
				t.Errorf("recording %s has no file", idString(id))
			}
			sizes = append(sizes, st.blocks(r.FileBytes))
			delete(files, id)
		}
	}
	for id := range files {
		t.Errorf("file %s is of no recording", idString(id))
	}
	return sizes
}

func TestFloorOfADisk(t *testing.T) {
	const gb = 1 << 30
	for _, tt := range []struct{ total, floor int64 }{
		{64 * mb, 4 * mb}, {8 * gb, 512 * mb}, {16 * gb, gb}, {32 * gb, gb}, {50 * gb, gb}, {1000 * gb, 20 * gb},
	} {
		if got := floorOf(tt.total); got != tt.floor {
			t.Errorf("of %d MB %d MB are kept free, want %d", tt.total/mb, got/mb, tt.floor/mb)
		}
	}
}

// Foreign files that fill the disk push out the oldest, down to the floor and
// not one recording further; then recording pauses and says so; and when room
// returns it goes on.
func TestFullDiskGivesUpTheOldestThenPausesThenGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := sampledirtest.New(sampledirtest.State{})
		b := newBench(t, small(disk, 64*mb)) // floor 4 MiB, pause below 2, on again at 3
		a, c := b.camera("front", 0, 120), b.camera("back", 0, 120)
		feeds := []*feed{newFeed(a.Begin(nil)), newFeed(c.Begin(nil))}
		feeds[0].size, feeds[1].size = 4<<10, 2<<10 // 2.4 and 1.2 MiB a minute
		playAll(t, feeds, 10*time.Minute)
		if n := rowsAndFiles(t, disk, a, c); len(n) < 20 {
			t.Fatalf("%d recordings, though there is room", len(n))
		}

		leave(t, disk, 3*mb)
		before := list(t, a)
		playAll(t, feeds, 5*time.Second)
		rowsAndFiles(t, disk, a, c)
		most := int64(4*mb + 4*mb) // the floor, what a flush adds, and the last recording
		if n := free(t, disk); n < 4*mb || n > most+3*mb {
			t.Errorf("%d KiB are free", n>>10)
		}
		if now := list(t, a); now[0].No == before[0].No || now[len(now)-1].No < before[len(before)-1].No {
			t.Errorf("of recordings %d to %d those from %d on are left", before[0].No, before[len(before)-1].No, now[0].No)
		}
		if d := list(t, a)[0].Start.Sub(list(t, c)[0].Start); d > 2*media.Minute || d < -2*media.Minute {
			t.Errorf("one stream goes back %v further than the other", d)
		}
		if in := a.Info(); in.DirError != "" {
			t.Errorf("there is room and the directory says %q", in.DirError)
		}

		lost := media.TimeOf(time.Now())
		disk.Fill(64 * mb)
		playAll(t, feeds, 4*time.Minute)
		for _, st := range []*Stream{a, c} {
			if s := st.Info().DirError; !strings.Contains(s, "recording pauses") || !strings.Contains(s, "nothing is left to delete") {
				t.Errorf("on a full disk the directory says %q", s)
			}
			if n := st.committedBelow() - list(t, st)[0].No; n > 0 {
				t.Errorf("%d committed recordings are left on a full disk", n)
			}
		}
		if s := strings.Join(faults(b.s), "\n"); !strings.Contains(s, "recording pauses") {
			t.Errorf("told is %q", s)
		}
		well(t, b.s, "")
		if n := strings.Count(b.log.String(), "does not take writes"); n > 2 { // the kernel's word, and ours
			t.Errorf("it is logged %d times", n)
		}

		ops := disk.Len()
		leave(t, disk, 5*mb/2) // more than half of the floor, less than three quarters
		playAll(t, feeds, 10*time.Second)
		if n := free(t, disk); n != 5*mb/2 || a.Info().DirError == "" {
			t.Errorf("it records again with %d KiB free", n>>10)
		}
		for _, op := range disk.Log()[ops:] {
			if op.Kind == sampledirtest.Append {
				t.Fatalf("while recording pauses: %v", op)
			}
		}
		leave(t, disk, 40*mb)
		playAll(t, feeds, 3*time.Second)
		for _, st := range []*Stream{a, c} {
			in := st.Info()
			if age := media.TimeOf(time.Now()).Sub(in.Watermark); in.DirError != "" || age > 3*media.Second {
				t.Errorf("with room again the directory says %q, and %v are not durable", in.DirError, age)
			}
		}
		back := media.TimeOf(time.Now())
		playAll(t, feeds, 3*time.Minute)
		for i, st := range []*Stream{a, c} {
			feeds[i].run.End("test")
			st.Wait(CameraEnded, "test")
		}
		time.Sleep(3 * time.Minute)
		for _, st := range []*Stream{a, c} {
			from := list(t, st)[0].Start
			if err := st.Gaps(t.Context(), 0, 1<<60, func(g *Gap) error { from = min(from, g.Start); return nil }); err != nil {
				t.Fatal(err)
			}
			causes := explained(t, st, from, media.TimeOf(time.Now()), media.Second/4)
			if full := causes[DiskFull]; full < 90*media.Second || full > back.Sub(lost) {
				t.Errorf("of %v on a full disk %v are accounted for so: %v", back.Sub(lost), full, causes)
			}
		}
		rowsAndFiles(t, disk, a, c)
	})
}

// Streams without limits keep the same time, whatever their bit rates, in a few
// commits; and what one has of its own goes no further.
func TestStreamsShareTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := sampledirtest.New(sampledirtest.State{})
		b := newBench(t, small(disk, 48*mb)) // floor 3 MiB
		var streams []*Stream
		var feeds []*feed
		for i, size := range []int{512, 1024, 2048, 4096} {
			st := b.camera(fmt.Sprintf("camera %d", i), 0, 120)
			f := newFeed(st.Begin(nil))
			f.size = size
			streams, feeds = append(streams, st), append(feeds, f)
		}
		limited := b.camera("limited", 0, 120)
		limited.mu.Lock()
		limited.cfg.RetainBytes = 2 * mb // settings take no less than 16 MiB
		limited.mu.Unlock()
		f := newFeed(limited.Begin(nil))
		f.size = 1024
		feeds = append(feeds, f)
		playAll(t, feeds, 15*time.Minute)
		flushes := b.flushed()
		const longer = 15
		for range longer {
			playAll(t, feeds, time.Minute)
			if n := free(t, disk); n < 3*mb*3/4 {
				t.Errorf("%d KiB are free", n>>10)
			}
		}
		first := make([]media.Time, len(streams))
		for i, st := range streams {
			in := st.Info()
			first[i] = in.Start
			if in.DirError != "" || in.End.Sub(in.Start) < 5*media.Minute {
				t.Errorf("stream %d keeps %v, its directory says %q", i, in.End.Sub(in.Start), in.DirError)
			}
		}
		if d := slices.Max(first).Sub(slices.Min(first)); d > 90*media.Second {
			t.Errorf("streams go back to %v: %v apart", first, d)
		}
		if in := limited.Info(); in.FSBytes > 3*mb {
			t.Errorf("the stream with a limit of 2 MiB takes %d KiB", in.FSBytes>>10)
		}
		if n := b.flushed() - flushes; n > 3*longer {
			t.Errorf("%d commits in %d minutes", n, longer)
		}
		rowsAndFiles(t, disk, append(streams, limited)...)
		for _, f := range feeds {
			f.run.End("test")
		}
	})
}

// A recording that goes by the limit of its stream is not chosen again for room,
// and what is chosen and not yet unlinked counts as free.
func TestEachRecordingIsChosenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := sampledirtest.New(sampledirtest.State{})
		b := newBench(t, small(disk, 64*mb))
		st := b.camera("front", 0, 20)
		f := newFeed(st.Begin(nil))
		f.size = 4 << 10
		f.play(t, 10*time.Minute)
		sizes := rowsAndFiles(t, disk, st)
		at := list(t, st)[0].No

		// Both at once: two recordings too many for the limit, and the disk has
		// two too few above that.
		disk.Fail(sampledirtest.Unlink, 1, 6, syscall.EIO)
		in := st.Info()
		st.mu.Lock()
		st.cfg.RetainBytes = in.FSBytes - sizes[0] - sizes[1]/2
		st.mu.Unlock()
		dir := b.s.dirs[0]
		dir.mu.Lock()
		dir.room.ahead = 0
		dir.mu.Unlock()
		leave(t, disk, 4*mb-sizes[0]-sizes[1]-sizes[2]-sizes[3]/2)
		f.play(t, 1100*time.Millisecond)
		for range 5 {
			if err := b.s.flush(t.Context(), "by hand"); err != nil {
				t.Errorf("flush: %v", err)
			}
			f.play(t, time.Second)
		}
		if n := list(t, st)[0].No - at; n != 4 {
			t.Errorf("%d recordings were deleted, want 4", n)
		}
		if n := disk.Failed(sampledirtest.Unlink); n == 0 {
			t.Error("no unlink has failed")
		}
		st.mu.Lock()
		st.cfg.RetainBytes = 0
		st.mu.Unlock()
		f.play(t, 5*time.Second)
		rowsAndFiles(t, disk, st)
		f.run.End("test")
	})
}

// Garbage whose size nobody knows (it is from before the start, or a camera's)
// is unlinked before anything more goes.
func TestGarbageOfBeforeGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := sampledirtest.New(sampledirtest.State{})
		b := newBench(t, small(disk, 64*mb))
		old, st := b.camera("old", 0, 20), b.camera("front", 0, 20)
		feeds := []*feed{newFeed(old.Begin(nil)), newFeed(st.Begin(nil))}
		feeds[0].size, feeds[1].size = 4<<10, 4<<10
		playAll(t, feeds, 9*time.Minute)
		for _, f := range feeds {
			f.run.End("test")
		}
		time.Sleep(30 * time.Second)
		n := len(list(t, st))
		leave(t, disk, 8*mb) // nothing has to go before the start
		disk.Fail(sampledirtest.Unlink, 1, 100, syscall.EIO)
		if err := b.s.DeleteCamera(t.Context(), old.uuid); err != nil {
			t.Fatal(err)
		}
		b.stop()
		disk.Heal()
		disk.SetCapacity(64 * mb)
		leave(t, disk, 2*mb)
		b.start()
		time.Sleep(10 * time.Second)
		if got := len(list(t, b.again("front"))); got != n {
			t.Errorf("%d of %d recordings are left, though the garbage made room", got, n)
		}
		if n := free(t, disk); n < 15*mb {
			t.Errorf("%d MiB are free after the garbage has gone", n/mb)
		}
	})
}

// When the database commits nothing, recording pauses before the disk is full.
func TestRecordingPausesWhenTheDatabaseCannotCommit(t *testing.T) {
	d := &directory{path: "/media", held: make(map[int64]time.Time)}
	s := &Store{dirs: []*directory{d}}
	d.store = s
	const total, floor = 64 * mb, 4 * mb
	at := func(free int64) (ask, paused bool) {
		ask, _ = d.roomIs(sampledir.Space{Total: total, Free: free, BlockSize: 4096}, nil)
		return ask, d.room.paused != nil
	}
	for i, step := range []struct {
		free        int64
		flush       error // that has ended before
		ended       bool
		ask, paused bool
	}{
		{free: floor},
		{free: floor - 1, ask: true},
		{free: floor/2 - 1},
		{free: floor / 2, ended: true, flush: errDisk},
		{free: floor/2 - 1, paused: true},
		{free: floor/4*3 - 1, paused: true},
		{free: floor / 4 * 3},
		{free: floor/2 - 1, ended: true, ask: true}, // one that chose something
		{free: floor/2 - 1},
	} {
		if step.ended {
			s.roomTried(step.flush)
		}
		if ask, paused := at(step.free); ask != step.ask || paused != step.paused {
			t.Errorf("step %d, %d KiB free: asks %v, pauses %v", i, step.free>>10, ask, paused)
		}
	}
	if _, first := d.roomIs(sampledir.Space{}, errDisk); !first || d.room.known {
		t.Error("a disk that does not say its room counts as known")
	}
	if _, again := d.roomIs(sampledir.Space{}, errDisk); again {
		t.Error("it is said twice")
	}
}

// A clock that was wrong before a restart makes nothing the oldest.
func TestOldestIsToldByTheOpenFirst(t *testing.T) {
	row := func(open int32, start media.Time) *oldest {
		return &oldest{rows: []db.Recording{{OpenID: open, Start: start}}}
	}
	order := []*oldest{row(1, 500), row(1, 700), row(2, 3), row(2, math.MaxInt32), row(3, 600)}
	for i := range order[1:] {
		if order[i].compare(order[i+1]) >= 0 {
			t.Errorf("%d is not before %d", i, i+1)
		}
	}
}

// The room of the database goes once, and comes back with the floor.
func TestBallastComesBack(t *testing.T) {
	journal := new(journal)
	b := &ballast{path: inMemory(t) + "/" + ballastName, log: slog.New(slog.NewTextHandler(journal, nil))}
	b.keep()
	if b.missing() != 0 || b.fault() != "" {
		t.Skipf("the test's own disk has no room: %s", journal)
	}
	if n := fileSize(b.path); n == 0 || n > largestBallast {
		t.Errorf("it takes %d bytes", n)
	}
	if full := errors.New("full"); !b.release(full) || b.release(full) {
		t.Error("it does not go exactly once")
	}
	if b.missing() == 0 || b.fault() == "" || fileSize(b.path) != 0 {
		t.Errorf("it is gone: %d bytes are missing, told is %q", b.missing(), b.fault())
	}
	b.keep()
	if b.missing() != 0 || b.fault() != "" || fileSize(b.path) == 0 {
		t.Errorf("it is back: %d bytes are missing, told is %q", b.missing(), b.fault())
	}
}

// twin is a directory on the disk of another.
type twin struct {
	*sampledirtest.Dir
	other *sampledirtest.Dir
}

func (d *twin) Space() (sampledir.Space, error) {
	own, err := d.Dir.Space()
	sp, err2 := d.other.Space()
	own.Free, own.Disk = own.Free-(sp.Total-sp.Free), 7
	return own, errors.Join(err, err2)
}

// Two directories on one disk: what one of them gives is not asked of the other
// again.
func TestDirectoriesOnOneDiskGiveOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, c := sampledirtest.New(sampledirtest.State{}), sampledirtest.New(sampledirtest.State{})
		a.SetCapacity(64 * mb)
		c.SetCapacity(64 * mb)
		other := t.TempDir()
		b := newBench(t, func(cfg *Config) {
			cfg.openDir = func(path string) (sampledir.Dir, error) {
				if path == other {
					return &twin{c.Reopen(), a}, nil
				}
				return &twin{a.Reopen(), c}, nil
			}
		})
		sec := 20
		var streams []*Stream
		var feeds []*feed
		for i, dir := range []string{"", other} {
			name := fmt.Sprintf("camera %d", i)
			if _, err := b.s.AddCamera(t.Context(), CameraConfig{ShortName: name, Streams: map[string]StreamConfig{
				"main": {URL: "rtsp://10.0.0.1/", Record: true, FlushIfSec: &sec, SampleFileDir: dir}}}); err != nil {
				t.Fatal(err)
			}
			st := b.again(name)
			f := newFeed(st.Begin(nil))
			f.size = 4 << 10
			streams, feeds = append(streams, st), append(feeds, f)
		}
		playAll(t, feeds, 8*time.Minute)
		for _, d := range b.s.dirs {
			d.mu.Lock()
			d.room.ahead = 0
			d.mu.Unlock()
		}
		before := []int32{list(t, streams[0])[0].No, list(t, streams[1])[0].No}
		size := streams[0].blocks(list(t, streams[0])[0].FileBytes)
		sp, err := (&twin{a, c}).Space()
		if err != nil {
			t.Fatal(err)
		}
		a.Fill(sp.Free - (4*mb - size - size/2)) // two recordings too few
		playAll(t, feeds, 8*time.Second)
		n := list(t, streams[0])[0].No - before[0] + list(t, streams[1])[0].No - before[1]
		if n < 2 || n > 3 { // what comes meanwhile may want one more
			t.Errorf("%d recordings went, want 2", n)
		}
		for _, f := range feeds {
			f.run.End("test")
		}
	})
}

// Recordings that have no row yet may fill a small disk by themselves. They end,
// are committed, and go: no restart is needed.
func TestDiskSmallerThanARecordingGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := sampledirtest.New(sampledirtest.State{})
		b := newBench(t, small(disk, 64*mb))
		st := b.camera("front", 0, 120)
		f := newFeed(st.Begin(nil))
		f.size = 160 << 10 // 64 MiB in 40 s
		paused, longest := time.Duration(0), time.Duration(0)
		rounds := 900
		if testing.Short() {
			rounds = 300 // slow under the race detector
		}
		for range rounds {
			f.play(t, time.Second)
			if paused += time.Second; st.Info().DirError == "" {
				paused = 0
			}
			longest = max(longest, paused)
		}
		if longest < 2*time.Second || longest > 3*time.Minute {
			t.Errorf("recording pauses for up to %v", longest)
		}
		f.run.End("test")
	})
}

// What a directory that fails was told of the room on its disk long ago says
// nothing of now.
func TestRoomIsWhatTheDiskLastSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ill, well := &directory{path: "/media/ill"}, &directory{path: "/media/well"}
		s := &Store{dirs: []*directory{ill, well}}
		for i, d := range []*directory{ill, well} {
			d.roomIs(sampledir.Space{Total: 64 * mb, Free: int64(32-30*i) * mb, BlockSize: 4096, Disk: 7}, nil)
			time.Sleep(time.Minute)
		}
		for _, dirs := range [][]*directory{{ill, well}, {well, ill}} {
			if n := s.needs(dirs, nil); n != 2*mb {
				t.Errorf("%d KiB are too few, want 2048", n>>10)
			}
		}
	})
}

// A recording whose file the disk never took has none that is known: numbers
// without a file stay few enough for the start to find what comes behind them.
func TestNumbersWithoutAFileStayFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := sampledirtest.New(sampledirtest.State{})
		b := newBench(t, small(disk, 64*mb))
		st := b.camera("front", 0, 3600)
		disk.Fail(sampledirtest.Create, 1, 1<<30, syscall.ENOSPC)
		f := newFeed(st.Begin(nil))
		f.size = 20 << 10 // the memory holds 20 s
		f.play(t, 10*time.Minute)
		st.mu.Lock()
		known, committed, next := st.createdNo, st.committedNo, st.nextNo
		st.mu.Unlock()
		if next-known > probeAhead || known >= 0 {
			t.Errorf("file %d is known to be there, of recordings up to %d, and there is none; committed are those below %d", known, next, committed)
		}
		disk.Heal()
		f.run.End("test")
	})
}

// A disk that streams share has no room for a copy of a large database by itself:
// recordings go for it, up to a sixteenth of the disk, until it is made.
func TestRecordingsGoForACopyOfTheDatabase(t *testing.T) {
	d := &directory{path: "/media"}
	s := &Store{dirs: []*directory{d}}
	sp := sampledir.Space{Total: 640 * mb, Free: 40 * mb, BlockSize: 4096} // the floor
	d.roomIs(sp, nil)
	for _, tt := range []struct{ size, want int64 }{{10 * mb, 0}, {30 * mb, 30 * mb}, {400 * mb, 40 * mb}, {10 * mb, 0}} {
		d.copyWants(tt.size, roomFor(sp, tt.size))
		if n := s.needs(s.dirs, nil); n != tt.want {
			t.Errorf("for a copy of %d MB %d MB are to go, want %d", tt.size/mb, n/mb, tt.want/mb)
		}
	}
	d.copyWants(30*mb, errDisk)
	if n := s.needs(s.dirs, nil); n != 0 {
		t.Errorf("for a copy that failed otherwise %d MB are to go", n/mb)
	}
	if left := floorOf(sp.Total) / 4 * 3; roomFor(sampledir.Space{Total: sp.Total, Free: sp.Free + 30*mb}, 30*mb) != nil {
		t.Errorf("with that room the copy is refused; it has to leave %d MB", left/mb)
	}
}

// A directory that has too little room when it is opened has a flush make some:
// what is planned is waited for, and nothing would be planned after it.
func TestRoomIsMadeForADirectoryThatIsOpened(t *testing.T) {
	for name, open := range map[string]func(*Store, db.Dir) (*directory, error){
		"late": func(s *Store, _ db.Dir) (*directory, error) { return s.dirs[0], s.dirs[0].open(s.run) },
		"new": func(s *Store, row db.Dir) (*directory, error) {
			dirs, err := s.openDirs(s.run, []db.Dir{row})
			return dirs[0], err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				full := false
				b := newBench(t, func(cfg *Config) {
					cfg.openDir = func(path string) (sampledir.Dir, error) {
						disk, err := sampledir.OpenDisk(path)
						return &hooked{Dir: disk, space: func(sp *sampledir.Space) {
							if sp.Total, sp.Free = 64*mb, 64*mb; full {
								sp.Free = 3 * mb
							}
						}}, err
					}
				})
				s := b.s
				state, err := s.db.State(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				s.flushing.Lock() // the flusher takes no plan away
				defer s.flushing.Unlock()
				full = true
				d, err := open(s, state.Dirs[0])
				if err != nil {
					t.Fatal(err)
				}
				d.mu.Lock()
				planned := d.room.planned
				d.mu.Unlock()
				if p, ok := s.plans.next(); !ok || p.no != roomPlan || !planned {
					t.Errorf("it counts as planned: %v; the next plan is %+v (%v)", planned, p, ok)
				}
			})
		})
	}
}
