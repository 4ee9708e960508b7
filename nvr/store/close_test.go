package store

import (
	"cmp"
	"context"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// What memory holds when the recorder is told to stop is written, as far as the
// disk takes it. The rest is a gap with the cause that the disk gave.
func TestCloseWritesWhatMemoryHolds(t *testing.T) {
	for _, tt := range []struct {
		name string
		ill  func(t *testing.T, disk *sampledirtest.Dir)
		last func(t *testing.T, disk *sampledirtest.Dir) // before it is told to stop
		all  bool                                        // of it is kept
		lost Cause
		ills time.Duration // that it is ill; 0: 30 s
	}{
		{name: "a pause, and there is room for it",
			ill:  func(t *testing.T, disk *sampledirtest.Dir) { disk.Fill(64 * mb) },
			last: func(t *testing.T, disk *sampledirtest.Dir) { leave(t, disk, 2*mb-1<<10) }, all: true},
		{name: "a pause, and there is none",
			ill: func(t *testing.T, disk *sampledirtest.Dir) { disk.Fill(64 * mb) }, lost: DiskFull},
		{name: "an error that has gone",
			ill:  func(t *testing.T, disk *sampledirtest.Dir) { disk.Fail(sampledirtest.Append, 1, -1, syscall.EIO) },
			last: func(t *testing.T, disk *sampledirtest.Dir) { disk.Heal() }, all: true},
		{name: "an error that comes and goes",
			ill:  func(t *testing.T, disk *sampledirtest.Dir) { disk.Fail(sampledirtest.Append, 1, -1, syscall.EIO) },
			last: func(t *testing.T, disk *sampledirtest.Dir) { disk.Fail(sampledirtest.Append, 1, 2, syscall.EIO) }, all: true},
		{name: "an error",
			ill:  func(t *testing.T, disk *sampledirtest.Dir) { disk.Fail(sampledirtest.Append, 1, -1, syscall.EIO) },
			lost: DiskError, ills: 8 * time.Second}, // no file is given up
		{name: "no file is begun",
			ill:  func(t *testing.T, disk *sampledirtest.Dir) { disk.Fail(sampledirtest.Create, 1, -1, syscall.EIO) },
			lost: DiskError},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := sampledirtest.New(sampledirtest.State{})
				b := newBench(t, small(disk, 64*mb)) // floor 4 MiB, pause below 2
				st := b.camera("front", 0, 3600)
				began := media.TimeOf(time.Now())
				f := newFeed(st.Begin(nil))
				f.play(t, 90*time.Second)
				if tt.name == "no file is begun" {
					f.run.End("camera closed")
					f = &feed{run: st.Begin(nil), n: f.n, dts: f.dts, step: f.step, gop: f.gop, size: f.size}
				}
				tt.ill(t, disk)
				ill := cmp.Or(tt.ills, 30*time.Second)
				f.play(t, ill)
				if st.Info().DirError == "" {
					t.Fatal("the disk is well")
				}
				if tt.last != nil {
					tt.last(t, disk)
				}
				f.run.End("stop")
				if err := b.s.Close(context.Background()); err != nil {
					t.Errorf("close: %v", err)
				}
				b.s = nil
				disk.Heal()
				disk.Fill(0)
				time.Sleep(time.Minute)
				b.start()
				st = b.again("front")
				for _, r := range list(t, st) {
					if r.Uncommitted {
						t.Errorf("recording %d was left to be adopted", r.No)
					}
				}
				recs := list(t, st) // on a disk that was full those that had a row went
				first := numbers(t, st, recs[0].No)[0]
				n := first + everyPicture(t, st, first)
				if tt.all != (n == f.n) || n < 880 {
					t.Errorf("%d pictures of %d are kept", n, f.n)
				}
				causes := explained(t, st, max(began, recs[0].Start), media.TimeOf(time.Now()), media.Second/4)
				if d := causes[tt.lost]; !tt.all && (d.Std() < ill-2*time.Second || d.Std() > ill+3*time.Second) {
					t.Errorf("of %v that were lost %v are accounted for as %s: %v", ill, d, tt.lost, causes)
				}
				if down := causes[RecorderDown]; down < 59*media.Second || down > 61*media.Second || tt.all && len(causes) > 1 {
					t.Errorf("of a minute in which it was down, gaps are %v", causes)
				}
			})
		})
	}
}

// What a disk took before it was full is durable, though more was to be written.
func TestWhatAFullDiskTookIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := sampledirtest.New(sampledirtest.State{})
		b := newBench(t, small(disk, 64*mb))
		st := b.camera("front", 0, 3600)
		f := newFeed(st.Begin(nil))
		f.size = 8 << 10                 // 80 KiB/s
		f.play(t, 5500*time.Millisecond) // between two steps of the directory, as all that follows
		before := st.Info().Watermark
		disk.Fail(sampledirtest.Append, 1, -1, syscall.ENOSPC)
		f.play(t, 20*time.Second)
		d := b.s.dirs[0]
		d.mu.Lock()
		d.room.helpless = ""
		d.mu.Unlock()
		disk.Heal()
		disk.Fill(0)
		disk.Fill(free(t, disk) - 800<<10) // ten of twenty seconds
		time.Sleep(1100 * time.Millisecond)
		if got := st.Info().Watermark.Sub(before); got < 8*media.Second || got > 15*media.Second {
			t.Errorf("with room for 10 s more %v have become durable", got)
		}
		disk.Fill(0)
		time.Sleep(2 * time.Second)
		f.run.End("test")
		time.Sleep(2 * time.Second)
		if n := everyPicture(t, st, 0); n != f.n {
			t.Errorf("%d pictures of %d", n, f.n)
		}
	})
}
