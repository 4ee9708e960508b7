package store

import (
	"fmt"
	"log/slog"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
)

// A disk that takes nothing for longer than memory lasts: no more than it takes
// falls out, the newest is all there, and each stream has one hole, whole groups
// of pictures long but for what the disk was at, with a cause.
func TestOnlyTheOldestGroupsFallOut(t *testing.T) {
	const ring = 4 << 20
	for _, tt := range []struct {
		name   string
		err    error
		ops    []string
		cause  Cause
		before time.Duration // recorded before the disk stops
		sound  bool
	}{
		{"full, in a recording", syscall.ENOSPC, []string{"write", "create"}, DiskFull, 95 * time.Second, false},
		{"full, with sound", syscall.ENOSPC, []string{"write", "create"}, DiskFull, 95 * time.Second, true},
		{"no file is begun", errDisk, []string{"create"}, DiskError, 5500 * time.Millisecond, false},
		{"nothing is there", errDisk, []string{"create", "write"}, DiskError, 0, true},
		{"a file that takes nothing", syscall.ENOSPC, []string{"write"}, DiskFull, 0, false},
	} {
		for _, gop := range []int{7, 25, 100} {
			t.Run(fmt.Sprintf("%s, groups of %d", tt.name, gop), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var d *scripted
					inner := script(&d)
					b := newBench(t, func(cfg *Config) { inner(cfg); cfg.RingBytes = ring })
					st := b.camera("front", plenty, 60)
					began := media.TimeOf(time.Now())
					audio := (*media.SampleEntry)(nil)
					if tt.sound {
						audio = testAudio
					}
					f := newFeed(st.Begin(audio))
					f.size, f.gop = 4<<10, gop // 40 KiB/s: the ring holds 100 s
					sound := int64(0)
					play := func(d time.Duration) {
						for end := time.Now().Add(d); time.Now().Before(end); {
							for ; tt.sound && sound*90000 < f.dts*48000; sound += 1024 {
								f.run.Append(media.AccessUnit{Kind: media.Audio, DTS: sound, PTS: sound, Key: true,
									Data: make([]byte, 20), Entry: testAudio, Received: time.Now()})
							}
							if err := f.one(); err != nil {
								t.Fatal(err)
							}
							time.Sleep(time.Second / 10)
							if n := b.s.ring.Load(); n > ring+8<<10 {
								t.Fatalf("%d bytes in memory, the ring is %d", n, ring)
							}
						}
					}
					play(tt.before)
					d.stop(tt.err, tt.ops...)
					play(11*time.Minute + 30*time.Second)
					if least := int64(ring) - int64(gop)*5<<10; b.s.ring.Load() < least {
						t.Errorf("%d bytes are kept, the ring is %d", b.s.ring.Load(), ring)
					}
					if n := d.count("create"); len(tt.ops) == 1 && tt.ops[0] == "write" && n > 3 {
						t.Errorf("%d files were begun", n)
					}
					kept := f.n - int(ring/(4<<10+130)) + 12*gop/10 + 20
					if tt.sound {
						kept += 200
					}
					explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
					d.heal()
					play(3 * time.Minute)
					explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
					f.run.End("test")
					st.Wait(CameraEnded, "test")
					time.Sleep(3 * time.Minute)
					var got []int
					holes, tried := 0, 0
					for _, r := range list(t, st) {
						all := numbers(t, st, r.No)
						last := -1
						if n := len(got); n > 0 {
							last = got[n-1]
						}
						if all[0] != last+1 {
							holes++
							if all[0]%gop != 0 || r.RunOffset != 0 {
								t.Errorf("recording %d begins with picture %d, number %d of its run", r.No, all[0], r.RunOffset)
							}
							// One group may fall out while the disk is at work on those before.
							if all[0] > kept && all[0]-last > gop+1 {
								t.Errorf("pictures %d to %d fell out, want %d at most", last+1, all[0]-1, kept)
							} else if all[0] > kept {
								holes--
							}
							if len(all) <= 10 { // the disk was tried with this one
								tried++
							}
						}
						came := began.Add(media.Duration(all[0]) * media.Duration(f.step))
						if off := r.Start.Sub(came); off > media.Second/4 || off < -media.Second/4 {
							t.Errorf("recording %d begins %v off its first picture", r.No, off)
						}
						got = append(got, all...)
						if r.Uncommitted {
							t.Errorf("recording %d has no row", r.No)
						}
					}
					if !slices.IsSorted(got) || len(got) == 0 || got[len(got)-1] != f.n-1 || holes-tried != 1 || tried > 1 {
						t.Errorf("%d holes in %d pictures of %d", holes, len(got), f.n)
					}
					causes := explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
					lost := time.Duration(f.n-len(got)) * time.Second / 10
					if gap := causes[tt.cause].Std(); gap < lost-time.Second || gap > lost+time.Second || len(causes) != 2 {
						t.Errorf("causes are %v, %v is lost", causes, lost)
					}
					if n := b.s.ring.Load(); n != 0 {
						t.Errorf("%d bytes are in memory at the end", n)
					}
					if t.Failed() {
						for _, r := range list(t, st) {
							t.Logf("%d: offset %d, %v + %v, %d pictures from %d, end %q", r.No, r.RunOffset, r.Start, r.WallDuration, r.VideoSamples, numbers(t, st, r.No)[0], r.EndReason)
						}
					}
					b.stop()
					_, err := Check(t.Context(), CheckConfig{Dir: b.dir, Log: slog.New(slog.DiscardHandler), Found: func(f Finding) {
						if !f.Note {
							t.Errorf("check: %v", f)
						}
					}})
					if err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}
