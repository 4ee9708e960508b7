package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
)

// Whichever sync of a file fails: each picture and each sound is there once,
// the time has no gap, and no file is synced again.
func TestFailedSyncLosesNothing(t *testing.T) {
	for _, tt := range []struct {
		gop, fails int
		rotate     bool
	}{{10, 1, false}, {25, 1, false}, {40, 3, false}, {10, 2, true}, {25, 1, true}} {
		for at := range 7 {
			t.Run(fmt.Sprintf("group of %d, %d fail, rotation %v, sync %d", tt.gop, tt.fails, tt.rotate, at), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var d *scripted
					b := newBench(t, script(&d))
					st := b.camera("front", plenty, 60)
					began := media.TimeOf(time.Now())
					time.Sleep(550 * time.Millisecond)
					f := newFeed(st.Begin(testAudio))
					f.gop = tt.gop
					sounds, sound := 0, int64(0)
					play := func(n int) {
						for range n {
							for ; sound*90000 < f.dts*48000; sound += 1024 {
								sounds++
								f.run.Append(media.AccessUnit{Kind: media.Audio, DTS: sound, PTS: sound, Key: true,
									Data: []byte{byte(sounds)}, Entry: testAudio, Received: time.Now()})
							}
							if err := f.one(); err != nil {
								t.Fatal(err)
							}
							time.Sleep(time.Second / 10)
						}
					}
					if play(1); tt.rotate {
						for st.nextNo < 2 {
							play(1)
						}
					}
					errs := make([]error, at+tt.fails)
					for i := range tt.fails {
						errs[at+i] = errDisk
					}
					d.mu.Lock()
					d.fail["sync"] = errs
					d.mu.Unlock()
					play(600)
					if n := everyPicture(t, st, 0); n < f.n-1 {
						t.Errorf("%d pictures are listed while it records, want %d", n, f.n-1)
					}
					f.run.End("test")
					st.Wait(CameraEnded, "test")
					time.Sleep(3 * time.Minute)
					if n := everyPicture(t, st, 0); n != f.n {
						t.Errorf("%d pictures, want %d", n, f.n)
					}
					if causes := explained(t, st, began, media.TimeOf(time.Now()), media.Second/4); causes[DiskError] > 0 {
						t.Errorf("causes of gaps are %v", causes)
					}
					heard := 0
					for _, r := range list(t, st) {
						heard += r.AudioSamples
						if r.Uncommitted {
							t.Errorf("recording %d has no row", r.No)
						}
					}
					if heard != sounds {
						t.Errorf("%d sounds, want %d", heard, sounds)
					}
					if n := b.s.ring.Load(); n != 0 {
						t.Errorf("%d bytes are in memory at the end", n)
					}
					if t.Failed() {
						for _, r := range list(t, st) {
							t.Logf("%d: offset %d, %v + %v, %d pictures, end %q", r.No, r.RunOffset, r.Start, r.WallDuration, r.VideoSamples, r.EndReason)
						}
					}
				})
			})
		}
	}
}

// A file whose blocks take nothing for ever holds up neither its recording nor
// those behind it: all goes to another file, and nothing is lost. A full disk is
// no fault of a file.
func TestFileThatTakesNothingIsGivenUp(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		more int // files
	}{{"blocks that take nothing", errDisk, 1}, {"a full disk", syscall.ENOSPC, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d *scripted
				inner := script(&d)
				var bad atomic.Int64 // the file
				b := newBench(t, func(cfg *Config) {
					inner(cfg)
					open := cfg.openDir
					cfg.openDir = func(path string) (sampledir.Dir, error) {
						dir, err := open(path)
						return &badBlocks{dir, &bad, tt.err}, err
					}
				})
				st := b.camera("front", plenty, 60)
				f := newFeed(st.Begin(nil))
				f.gop = 15
				f.play(t, 35500*time.Millisecond)
				bad.Store(db.CompositeID(st.id, st.nextNo-1))
				f.play(t, 3*time.Minute)
				if in := st.Info(); (in.DurableAge > 3*time.Second) == (tt.more > 0) {
					t.Errorf("3 minutes later the newest picture was durable %v ago, error %q", in.DurableAge, in.DirError)
				}
				bad.Store(-1)
				f.play(t, time.Minute)
				f.run.End("test")
				time.Sleep(3 * time.Minute)
				if n := everyPicture(t, st, 0); n != f.n {
					t.Errorf("%d pictures, want %d", n, f.n)
				}
				if n := d.count("create"); n != 6+tt.more {
					t.Errorf("%d files were begun", n)
				}
			})
		})
	}
}

// badBlocks is a directory with a file that takes nothing.
type badBlocks struct {
	sampledir.Dir
	bad *atomic.Int64
	err error
}

type badFile struct {
	sampledir.File
	d  *badBlocks
	id int64
}

func (d *badBlocks) Create(id int64) (sampledir.File, error) {
	f, err := d.Dir.Create(id)
	return &badFile{f, d, id}, err
}

func (d *badBlocks) SyncFiles(files []sampledir.File) ([]error, bool) {
	return sampledirtest.SyncEach(files), false
}

func (f *badFile) Append(at int64, bufs ...[]byte) (int64, error) {
	if f.d.bad.Load() == f.id {
		return 0, f.d.err
	}
	return f.File.Append(at, bufs...)
}

// A disk that takes no sync does not get a new file each second; when it does,
// all is there.
func TestFilesThatDoNotSyncAreBegunMoreAndMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 5*time.Second)
		d.mu.Lock()
		d.ops = nil
		d.mu.Unlock()
		d.stop(errDisk, "sync")
		f.play(t, 20*time.Minute)
		if n := d.count("sync"); n > 7+20 {
			t.Errorf("%d syncs in 20 minutes", n)
		}
		if n := d.count("create"); n > 7+20 {
			t.Errorf("%d files in 20 minutes", n)
		}
		d.heal()
		f.play(t, 2*time.Minute)
		f.run.End("test")
		time.Sleep(3 * time.Minute)
		if n := everyPicture(t, st, 0); n != f.n {
			t.Errorf("%d pictures, want %d", n, f.n)
		}
	})
}

// The file that did not sync may hold all that was written to it. A rebuild
// keeps nothing of it twice.
func TestRebuildKeepsOnceWhatWasWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		inner := script(&d)
		b := newBench(t, inner)
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.gop = 15
		f.play(t, 5500*time.Millisecond)
		d.mu.Lock()
		d.fail["sync"], d.fail["truncate"] = []error{errDisk}, []error{errDisk, errDisk}
		d.mu.Unlock()
		f.play(t, 10*time.Second)
		f.run.End("test")
		b.stop()
		if n := d.count("truncate"); n != 2 {
			t.Errorf("%d truncates failed, want 2", n)
		}
		if _, err := Rebuild(t.Context(), RebuildConfig{Dir: b.dir, Progress: func(RebuildProgress) {}, Found: func(Finding) {}}); err != nil {
			t.Fatal(err)
		}
		b.start()
		if n := everyPicture(t, b.again("front"), 0); n != f.n {
			t.Errorf("%d pictures, want %d", n, f.n)
		}
	})
}

// The memory overflows between two tries of a disk that takes no sync: what was
// durable is not given up, and no row comes before its file.
func TestWhatWasDurableWaitsForItsFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, smallRing(&d))
		st := b.camera("front", plenty, 60)
		began := media.TimeOf(time.Now())
		f := newFeed(st.Begin(nil))
		f.size, f.gop = 4<<10, 40 // 40 KiB/s: the ring holds 150 s
		f.play(t, 5500*time.Millisecond)
		d.stop(errDisk, "sync")
		f.play(t, 10*time.Minute)
		for _, r := range list(t, st) {
			if _, err := os.Stat(filepath.Join(b.dir, defaultDir, sampledir.Name(db.CompositeID(st.id, r.No)))); err != nil && !r.Uncommitted {
				t.Errorf("recording %d has a row: %v", r.No, err)
			}
		}
		d.heal()
		f.play(t, time.Minute)
		f.run.End("test")
		st.Wait(CameraEnded, "test")
		time.Sleep(3 * time.Minute)
		var got []int
		for _, r := range list(t, st) {
			got = append(got, numbers(t, st, r.No)...)
		}
		for i := range 49 { // they were durable
			if i >= len(got) || got[i] != i {
				t.Fatalf("picture %d is not there: %v", i, got[:min(60, len(got))])
			}
		}
		if got[len(got)-1] != f.n-1 {
			t.Errorf("the last picture is %d, want %d", got[len(got)-1], f.n-1)
		}
		explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
	})
}

// A disk that takes no sync for longer than memory lasts: what is written again
// in front of the time that fell out moves nothing that came behind it.
func TestWhatIsWrittenAgainMovesNothingBehindAGap(t *testing.T) {
	for _, minutes := range []int{3, 4, 5, 10} {
		t.Run(fmt.Sprintf("%d minutes", minutes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d *scripted
				b := newBench(t, smallRing(&d))
				st := b.camera("front", plenty, 60)
				began := media.TimeOf(time.Now())
				f := newFeed(st.Begin(nil))
				f.size, f.gop = 4<<10, 40 // 40 KiB/s: the ring holds 150 s
				f.play(t, 5500*time.Millisecond)
				d.stop(errDisk, "sync")
				f.play(t, time.Duration(minutes)*time.Minute)
				d.heal()
				f.play(t, 3*time.Minute)
				explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
				f.run.End("test")
				st.Wait(CameraEnded, "test")
				time.Sleep(3 * time.Minute)
				explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
				for _, r := range list(t, st) {
					came := began.Add(media.Duration(numbers(t, st, r.No)[0]) * media.Duration(f.step))
					if off := r.Start.Sub(came); off > media.Second/4 || off < -media.Second/4 {
						t.Errorf("recording %d begins %v off its first picture", r.No, off)
					}
				}
			})
		})
	}
}

// Behind a gap the clock is read anew for the run that has it. The next run has
// read it itself.
func TestClockOfTheNextRunIsNotReadAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		inner := longGroups(script(&d))
		var ahead atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		b := newBench(t, func(cfg *Config) { inner(cfg); cfg.Now = now })
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.size, f.gop = 1<<10, 100 // more than is kept for a file that fails
		f.play(t, 8500*time.Millisecond)
		d.stop(errDisk, "write")
		f.play(t, 3*time.Second) // the next group begins
		f.run.End("test")
		ahead.Store(int64(10 * time.Minute))
		next := newFeed(st.Begin(nil))
		next.play(t, 2*time.Second)
		d.mu.Lock()
		d.fail["write"], d.fail["sync"] = nil, []error{errDisk}
		d.mu.Unlock()
		next.play(t, 7*time.Minute)
		next.run.End("test")
		time.Sleep(3 * time.Minute)
		if l := b.log.String(); !strings.Contains(l, "lost_frames=") || strings.Contains(l, "lost_frames=0") {
			t.Error("nothing was lost: the test proves nothing")
		}
		for _, r := range list(t, st) {
			if r.WallDuration > 65*media.Second || r.Start > media.TimeOf(now()).Add(-3*media.Minute) {
				t.Errorf("recording %d: %v + %v, end %q", r.No, r.Start, r.WallDuration, r.EndReason)
			}
		}
	})
}

// A file that did not sync and moved with the one before it is not taken for whole
// by the next start, which finds in the page cache what may not be on the disk.
func TestFileThatMovedIsNotSyncedByTheNextStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, script(&d))
		st := b.camera("front", plenty, 60)
		time.Sleep(550 * time.Millisecond)
		f := newFeed(st.Begin(nil))
		for st.nextNo < 2 {
			f.play(t, time.Second/10)
		}
		d.stop(errDisk, "sync") // of the first file's end, and of the second
		f.play(t, 400*time.Millisecond)
		f.run.End("test")
		b.stop()
		b.start()
		for _, r := range list(t, b.again("front")) {
			if r.No > 0 {
				t.Errorf("recording %d has %d pictures, and no sync of its file succeeded", r.No, r.VideoSamples)
			}
		}
	})
}

// A disk that takes no write for long, and then no sync: the numbers that had no
// file meanwhile do not keep the stream from beginning one.
func TestNumbersWithoutFilesHoldUpNoStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		inner := script(&d)
		b := newBench(t, func(cfg *Config) { inner(cfg); cfg.RingBytes = 64 << 20 })
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 5500*time.Millisecond)
		d.stop(errDisk, "write")
		f.play(t, 25*time.Minute)
		d.mu.Lock()
		d.fail["write"], d.fail["sync"], d.fail["create"] = nil, []error{errDisk}, []error{errDisk}
		d.mu.Unlock()
		f.play(t, 5*time.Minute)
		if in := st.Info(); in.DirError != "" || in.DurableAge > 3*time.Second || in.Unsynced > 5000 {
			t.Errorf("5 minutes later: error %q, durable %v ago, %d bytes are not", in.DirError, in.DurableAge, in.Unsynced)
		}
		f.run.End("test")
		time.Sleep(3 * time.Minute)
		if n := everyPicture(t, st, 0); n != f.n {
			t.Errorf("%d pictures, want %d", n, f.n)
		}
	})
}

// Rule 6: recordings of which nothing was left before they had a file do not
// count as files. The start after a kill finds what came behind them.
func TestFileBehindNumbersWithoutFilesIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d *scripted
		b := newBench(t, smallRing(&d))
		st := b.camera("front", plenty, 3600)
		f := newFeed(st.Begin(nil))
		f.size = 4 << 10 // 40 KiB/s: the ring holds 150 s
		f.play(t, 5500*time.Millisecond)
		d.stop(errDisk, "create")
		f.play(t, 40*time.Minute)
		d.heal()
		f.play(t, 30*time.Second)
		synctest.Wait()
		c := &bench{T: t, dir: t.TempDir(), log: new(journal)}
		if err := os.CopyFS(c.dir, os.DirFS(b.dir)); err != nil {
			t.Fatal(err)
		}
		c.start()
		newest := -1
		for _, r := range list(t, c.again("front")) {
			got := numbers(t, c.again("front"), r.No)
			newest = max(newest, got[len(got)-1])
		}
		if newest < f.n-20 {
			t.Errorf("the newest picture that was found is %d of %d", newest, f.n)
		}
		c.stop()
		f.run.End("test")
	})
}
