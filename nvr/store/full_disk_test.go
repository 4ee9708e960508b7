package store

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
	"holdfast/nvr/store/looptest"
)

// hog is somebody else who writes to the disk until it is full.
type hog struct {
	*testing.T
	f *os.File
}

func newHog(t *testing.T, dir string) *hog {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "foreign"))
	if err != nil {
		t.Fatal(err)
	}
	return &hog{t, f}
}

// eat takes all room that there is, to the block.
func (h *hog) eat() {
	h.Helper()
	for size := 1 << 20; size >= 4096; {
		at, err := h.f.Seek(0, io.SeekEnd)
		if err != nil {
			h.Fatal(err)
		}
		err = syscall.Fallocate(int(h.f.Fd()), 0, at, int64(size))
		switch {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			h.Fatal(err)
		}
	}
}

// end gives all of it back.
func (h *hog) end() {
	h.Helper()
	if err := errors.Join(h.f.Close(), os.Remove(h.f.Name())); err != nil {
		h.Error(err)
	}
}

// A real disk of 64 MiB with database and recordings on it: streams share it,
// others fill it under load, even to the last block, and the recorder goes on by
// itself when they go. It starts on a full disk, too, and nothing is damaged.
func TestSmallDiskIsFilledByOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("syncs a disk for a while")
	}
	disk, _ := looptest.Mount(t, 64*mb)
	dir := filepath.Join(disk, "data")
	const long = 9600 << 10 // more than what is allocated for the log
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.Dir, cfg.noBallast, cfg.RingBytes = dir, false, 4*mb })
		space := func() (free, floor int64) {
			t.Helper()
			sp, err := b.s.dirs[0].dir.Space()
			if err != nil {
				t.Fatal(err)
			}
			return sp.Free, floorOf(sp.Total)
		}
		reserve := filepath.Join(dir, ballastName)
		if n := fileSize(reserve); n < 3*mb || n > 4*mb {
			t.Fatalf("%d KiB are reserved for the database", n>>10)
		}
		streams := []*Stream{b.camera("front", 0, 60), b.camera("back", 0, 60)}
		spare := b.camera("spare", 0, 60)
		var feeds []*feed
		play := func(d time.Duration) { t.Helper(); playAll(t, feeds, d) }
		for i, st := range streams {
			f := newFeed(st.Begin(nil))
			f.size = (8 << 10) >> i // 4.7 and 2.3 MiB a minute
			feeds = append(feeds, f)
		}
		recording := func() {
			t.Helper()
			for _, st := range streams {
				in := st.Info()
				if age := media.TimeOf(time.Now()).Sub(in.Watermark); in.DirError != "" || age > 3*media.Second {
					t.Errorf("%s: its directory says %q, %v are not durable", st.name, in.DirError, age)
				}
			}
		}

		for range 12 { // 84 MiB
			play(time.Minute)
			recording()
			if n, floor := space(); n < floor/2 {
				t.Errorf("%d KiB are free, the floor is %d", n>>10, floor>>10)
			}
		}
		a, c := streams[0].Info(), streams[1].Info()
		if a.Start < media.TimeOf(b.s.opened).Add(2*media.Minute) || a.Start.Sub(c.Start) > 2*media.Minute || c.Start.Sub(a.Start) > 2*media.Minute {
			t.Errorf("after 12 minutes the streams go back to %v and %v", a.Start, c.Start)
		}
		t.Logf("shared: streams go back %v and %v", media.TimeOf(time.Now()).Sub(a.Start), media.TimeOf(time.Now()).Sub(c.Start))

		// Somebody takes all room there is, each second, and so what deletions
		// give back as well.
		others := newHog(t, disk)
		for range 90 {
			others.eat()
			play(time.Second)
		}
		for _, st := range streams {
			if s := st.Info().DirError; !strings.Contains(s, "recording pauses") {
				t.Errorf("on a full disk the directory says %q", s)
			}
		}
		well(t, b.s, "")
		n, _ := space()
		t.Logf("full: %d KiB are free, %d recordings are left", n>>10, streams[0].Info().Recordings+streams[1].Info().Recordings)

		// To the last block: what deletes is committed all the same.
		others.eat()
		if n, _ := space(); n > 8<<10 {
			t.Errorf("%d KiB are left on a full disk", n>>10)
		}
		if err := b.s.DeleteCamera(t.Context(), spare.uuid); err != nil {
			t.Errorf("a deletion on a full disk: %v", err)
		}
		if fileSize(reserve) == 0 {
			t.Error("a deletion takes more than is allocated for the log")
		}

		// More than that takes what is reserved, once.
		uuid, err := b.s.AddCamera(t.Context(), CameraConfig{
			ShortName: "long", Description: strings.Repeat("x", long), Streams: map[string]StreamConfig{"sub": {URL: "rtsp://10.0.0.1/"}},
		})
		if err != nil {
			t.Errorf("a change of %d KiB on a full disk: %v", long>>10, err)
		}
		if n := fileSize(reserve); n != 0 {
			t.Errorf("%d KiB are still reserved for the database", n>>10)
		}
		if s := strings.Join(faults(b.s), "\n"); !strings.Contains(s, "the room reserved for it is used up") {
			t.Errorf("told is %q", s)
		}
		play(5 * time.Second)

		others.end()
		play(5 * time.Second)
		recording()
		if err := b.s.DeleteCamera(t.Context(), uuid); err != nil {
			t.Error(err)
		}
		play(3 * time.Minute)
		recording()
		if s := faults(b.s); len(s) > 0 || fileSize(reserve) == 0 {
			t.Errorf("with room again %d KiB are reserved for the database, told is %q", fileSize(reserve)>>10, s)
		}

		// A stop, and a start on a disk that was filled meanwhile.
		for _, f := range feeds {
			f.run.End("stop")
		}
		b.stop()
		others = newHog(t, disk)
		others.eat()
		b.start()
		for i := range feeds {
			st := b.again(streams[i].name.String())
			streams[i] = st
			n := feeds[i].n
			feeds[i] = newFeed(st.Begin(nil))
			feeds[i].n, feeds[i].size = (n+9)/10*10, (8<<10)>>i
		}
		play(20 * time.Second)
		others.end()
		play(2 * time.Minute)
		recording()
		for _, f := range feeds {
			f.run.End("test")
		}
		b.stop()
		if n := strings.Count(b.log.String(), "found no room on its disk"); n != 1 {
			t.Errorf("what is reserved for the database was used %d times", n)
		}
	})
	res, err := Check(t.Context(), CheckConfig{Dir: dir, Found: func(f Finding) {
		if !f.Note {
			t.Errorf("check: %v", f)
		}
	}})
	if err != nil || res.Rows == 0 {
		t.Errorf("check of %d rows: %v", res.Rows, err)
	}
}

// A database that is lost while its disk is full comes back all the same: what is
// reserved for it makes room for the copy.
func TestDatabaseComesBackOnAFullDisk(t *testing.T) {
	disk, _ := looptest.Mount(t, 256*mb)
	dir := filepath.Join(disk, "data")
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.Dir, cfg.noBallast = dir, false })
		st := b.camera("front", 0, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 30*time.Second)
		f.run.End("test")
		time.Sleep(backupFirst + time.Minute)
		if !strings.Contains(b.log.String(), "backed up database") {
			t.Fatal("there is no copy")
		}
		b.stop()
		reserve := filepath.Join(dir, ballastName)
		if fileSize(reserve) == 0 {
			t.Fatal("nothing is reserved")
		}
		if err := os.Remove(filepath.Join(dir, "db")); err != nil {
			t.Fatal(err)
		}
		others := newHog(t, disk)
		others.eat()
		b.start()
		if !strings.Contains(b.log.String(), "database restored from a copy") {
			t.Error("it is not restored")
		}
		b.again("front") // what it has recorded may be gone: it makes room
		others.end()
		b.stop()
	})
}
