package store

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir"
)

// slowDir takes its time for a sync.
type slowDir struct {
	sampledir.Dir
	sync *atomic.Int64 // ns
}

func (d *slowDir) SyncFiles(files []sampledir.File) ([]error, bool) {
	time.Sleep(time.Duration(d.sync.Load()))
	return d.Dir.SyncFiles(files)
}

// twoDisks is a store with a stream on a disk whose syncs take so long, and one on
// another disk.
func twoDisks(t *testing.T, ring int64, took *atomic.Int64) (b *bench, slow, quick *Stream) {
	other := t.TempDir()
	b = newBench(t, func(cfg *Config) {
		cfg.RingBytes = ring
		cfg.openDir = func(path string) (sampledir.Dir, error) {
			if err := makeDir(path); err != nil {
				return nil, err
			}
			disk, err := sampledir.OpenDisk(path)
			if path == other || err != nil {
				return disk, err
			}
			return &slowDir{disk, took}, nil
		}
	})
	slow = b.camera("slow", plenty, 60)
	sec := 60
	uuid, err := b.s.AddCamera(t.Context(), CameraConfig{ShortName: "quick", Streams: map[string]StreamConfig{
		"main": {URL: "rtsp://10.0.0.1/quick", Record: true, RetainBytes: plenty, FlushIfSec: &sec, SampleFileDir: other},
	}})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := b.s.Camera(uuid)
	return b, slow, c.Stream("main")
}

// A sync that takes 30 s holds up the watermark of its own directory, and
// nothing else.
func TestSlowSyncHoldsUpOnlyItsOwnWatermark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took atomic.Int64
		b, slow, quick := twoDisks(t, 0, &took)
		f, g := newFeed(slow.Begin(nil)), newFeed(quick.Begin(nil))
		took.Store(int64(30 * time.Second))
		before := b.s.Flushes()
		behind := func(st *Stream) media.Duration { return media.TimeOf(time.Now()).Sub(st.Info().Watermark) }
		var most, mostSlow media.Duration
		for i := range 1800 {
			began := time.Now()
			if err := f.one(); err != nil {
				t.Fatal(err)
			}
			if err := g.one(); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(began); d > 0 {
				t.Fatalf("picture %d waited %v", i, d)
			}
			if i%170 == 169 { // at any part of a sync
				list(t, slow)
				slow.Info()
				b.s.DirReports(t.Context())
				now := fmt.Sprint(i)
				if err := b.s.ChangeCamera(t.Context(), slow.uuid, CameraChange{Description: &now}, CameraChange{}); err != nil {
					t.Errorf("a change of the camera: %v", err)
				}
				if d := time.Since(began); d > 0 {
					t.Errorf("a list, the status or a change waited %v", d)
				}
			}
			time.Sleep(time.Second / 10)
			if i > 700 {
				most, mostSlow = max(most, behind(quick)), max(mostSlow, behind(slow))
			}
		}
		if most > 3*media.Second {
			t.Errorf("the quick disk fell %v behind", most)
		}
		if mostSlow < 29*media.Second {
			t.Errorf("the slow disk was at most %v behind: its syncs took no 30 s", mostSlow)
		}
		n, failed := b.s.Flushes(), b.s.Flushes().Failed-before.Failed
		if n.Committed-before.Committed < 3 || failed > 0 || n.Within[time.Second]-before.Within[time.Second] != n.Committed-before.Committed {
			t.Errorf("flushes in three minutes, all to be within a second: %+v, before %+v", n, before)
		}
		took.Store(0)
		f.run.End("test")
		g.run.End("test")
		time.Sleep(2 * time.Minute)
		for _, st := range []*Stream{slow, quick} {
			if n := everyPicture(t, st, 0); n != f.n {
				t.Errorf("%s: %d pictures, want %d", st.name, n, f.n)
			}
		}
	})
}

// Where nobody says otherwise, what no disk has taken yet takes 256 MiB of memory.
func TestMemoryIsBoundedByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took atomic.Int64
		b, slow, _ := twoDisks(t, 0, &took)
		f := newFeed(slow.Begin(nil))
		f.size = 1 << 20 // 10 MiB/s
		took.Store(int64(time.Minute))
		var most int64
		for range 40 {
			f.play(t, time.Second)
			most = max(most, b.s.ring.Load())
		}
		if most < 240<<20 || most > 256<<20+16<<20 {
			t.Errorf("at most %d MiB wait in memory, want 256", most>>20)
		}
		took.Store(0)
		f.run.End("test")
	})
}

// A disk that stands still for long: memory stays within its bound, the oldest
// recordings fall out of it and are a gap that says why, what is kept plays from
// its key frames on, and the other disk takes all of its own.
func TestStalledDiskCostsTheOldestOfItsOwnStreamsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ring = 4 << 20
		var took atomic.Int64
		b, stalled, quick := twoDisks(t, ring, &took)
		began := media.TimeOf(time.Now())
		f, g := newFeed(stalled.Begin(nil)), newFeed(quick.Begin(nil))
		f.size, g.size = 4<<10, 4<<10 // 40 KiB/s: memory holds 100 s
		f.gop = 25
		play := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				if err := f.one(); err != nil {
					t.Fatal(err)
				}
				if err := g.one(); err != nil {
					t.Fatal(err)
				}
				if n := b.s.ring.Load(); n > ring+ring/16 {
					t.Fatalf("%d bytes in memory, the ring is %d", n, ring)
				}
				time.Sleep(time.Second / 10)
			}
		}
		play(20 * time.Second)
		took.Store(int64(15 * time.Minute))
		play(14 * time.Minute)
		took.Store(0)
		play(2 * time.Minute)
		f.run.End("test")
		g.run.End("test")
		stalled.Wait(CameraEnded, "test")
		time.Sleep(3 * time.Minute)
		if n := everyPicture(t, quick, 0); n != g.n {
			t.Errorf("the other disk has %d pictures, want %d", n, g.n)
		}
		next, lost := 0, 0
		for _, r := range list(t, stalled) {
			all := numbers(t, stalled, r.No)
			if all[0] != next && all[0]%f.gop != 0 || all[0] < next {
				t.Errorf("recording %d begins with picture %d, the one before it ends with %d", r.No, all[0], next-1)
			}
			lost += all[0] - next
			next = all[len(all)-1] + 1
		}
		// What falls out is a group of pictures at a time, and where a group and the
		// stall begin is not the same in each run.
		if next != f.n || lost < (15*60-105)*10 || lost > (15*60-90)*10 {
			t.Errorf("of %d pictures %d are lost, the last is %d", f.n, lost, next-1)
		}
		causes := explained(t, stalled, began, media.TimeOf(time.Now()), media.Second/4)
		if gap := causes[DiskSlow].Std(); gap < time.Duration(lost-10)*time.Second/10 || gap > time.Duration(lost+10)*time.Second/10 {
			t.Errorf("causes of gaps are %v, %d pictures are lost", causes, lost)
		}
	})
}

// A disk that comes back and is slow has a full memory to write. While it is at
// work on that, the newest pictures are kept.
func TestSlowDiskThatCatchesUpKeepsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ring = 8 << 20
		var took atomic.Int64
		_, stalled, _ := twoDisks(t, ring, &took)
		f := newFeed(stalled.Begin(nil))
		f.size = 4 << 10 // 40 KiB/s: memory holds 200 s
		f.play(t, 20*time.Second)
		took.Store(int64(5 * time.Minute))
		f.play(t, 5*time.Minute)
		back := f.n
		took.Store(int64(20 * time.Second)) // less than what comes meanwhile takes
		f.play(t, 3*time.Minute)
		took.Store(0)
		f.run.End("test")
		time.Sleep(3 * time.Minute)
		next := 0
		for _, r := range list(t, stalled) {
			all := numbers(t, stalled, r.No)
			if all[0] != next && next >= back-10 {
				t.Errorf("pictures %d to %d fell out, the disk is back since %d", next, all[0]-1, back)
			}
			next = all[len(all)-1] + 1
		}
		if next != f.n {
			t.Errorf("the last picture is %d, want %d", next-1, f.n-1)
		}
	})
}
