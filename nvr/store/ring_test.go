package store

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir/sampledirtest"
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
		files  int // that are begun at most, where only writing fails; 0: it does not
	}{
		{"full, in a recording", syscall.ENOSPC, []string{"write", "create"}, DiskFull, 95 * time.Second, false, 0},
		{"full, with sound", syscall.ENOSPC, []string{"write", "create"}, DiskFull, 95 * time.Second, true, 0},
		{"no file is begun", errDisk, []string{"create"}, DiskError, 5500 * time.Millisecond, false, 0},
		{"nothing is there", errDisk, []string{"create", "write"}, DiskError, 0, true, 0},
		{"a file that takes nothing", syscall.ENOSPC, []string{"write"}, DiskFull, 0, false, 3},
		// It is given up for another one, in the end each minute: so long it may take
		// until the disk is tried again.
		{"files that fail", errDisk, []string{"write"}, DiskError, 0, false, 16},
	} {
		for _, gop := range []int{7, 25, 100} {
			if testing.Short() && gop != 25 {
				continue // a quarter of an hour of pictures, slow under the race detector
			}
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
					if n := d.count("create"); tt.files > 0 && n > tt.files {
						t.Errorf("%d files were begun", n)
					}
					kept := f.n - int(ring/(4<<10+130)) + 12*gop/10 + 20
					if tt.sound {
						kept += 200
					}
					if tt.files > 3 {
						kept += 600
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
							if len(all) <= 15 { // the disk was tried with this one: a second and the group that goes over its end
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

// recentNumbers are those of the recordings without a row; createdNo is the
// highest one with a file.
func recentNumbers(st *Stream) (nos []int32, createdNo int32) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, rec := range st.recent {
		nos = append(nos, rec.no)
	}
	return nos, st.createdNo
}

// A disk takes no new file while many recordings fall out of memory, and nothing
// can be committed because an earlier file is not adopted: the stream records
// again as soon as the disk is well.
func TestForgottenNumbersWaitForNoRow(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  time.Duration // that each session lasts
		ring int64         // bytes
		one  bool          // each is one group of pictures
	}{
		{"whole recordings", 2 * time.Second, 32 << 10, false},
		{"groups larger than the memory", 20 * time.Second, 10 << 10, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk, files, at, _ := left(t, 40)
				l := bear(t, disk, files, at)
				inner := limits(1, 4, 200*time.Millisecond)
				l.hook = func(cfg *Config) { inner(cfg); cfg.RingBytes = tt.ring }
				l.mustOpen()
				st := l.main("front")
				// Adoption takes nothing more: its file cannot be read.
				l.s.Load().flushing.Lock()
				st.mu.Lock()
				st.earlier.retry = time.Now().Add(forGood)
				st.mu.Unlock()
				l.s.Load().flushing.Unlock()
				time.Sleep(5 * time.Second)
				f := l.play(st, 500_000)
				f.play(l, 3*time.Second)
				l.disk.Fail(sampledirtest.Create, 1, -1, syscall.EIO)
				for range 60 {
					if f = l.next(f, "camera closed"); tt.one {
						f.gop = f.n
					}
					f.play(l, tt.run)
				}
				nos, created := recentNumbers(st)
				for i, no := range nos {
					if i > 0 && no != nos[i-1]+1 {
						t.Errorf("number %d follows on %d", no, nos[i-1])
					}
				}
				t.Logf("recordings %v wait, the last file is %d", nos, created)
				l.disk.Heal()
				f = l.next(f, "camera closed")
				f.play(l, time.Minute)
				if st.Info().ToAdopt == 0 {
					t.Error("all files are adopted")
				}
				if in := st.Info(); in.DurableAge > 10*time.Second {
					t.Errorf("nothing has become durable for %v: %v", in.DurableAge, l.s.Load().Healthy(context.Background()))
				}
				f.run.End("test")
				if err := l.close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Pictures that fall out of memory, all of them, have not become durable.
func TestStreamOfWhichAllFallsOutIsUnwell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.RingBytes = 400 })
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 3*time.Minute)
		if err := b.s.Healthy(t.Context()); err == nil {
			t.Error("all is well with a stream of which nothing becomes durable")
		}
		f.run.End("test")
		time.Sleep(3 * time.Minute)
		if err := b.s.Healthy(t.Context()); err != nil {
			t.Errorf("nothing comes any more: %v", err)
		}
		b.stop()
	})
}

// The end of a recording that is complete falls out, of which its file has the
// beginning: those behind it begin a run, and count less media before them.
func TestEndThatFallsOutIsCountedOutOfThoseBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, files, at, _ := left(t, 40)
		l := bear(t, disk, files, at)
		l.mustOpen()
		st := l.main("front")
		f := l.play(st, 500_000)
		f.play(l, 30*time.Second)
		l.capacity(4 << 10)
		f.play(l, 3*time.Minute)

		synctest.Wait() // no step is under way, which would read RingBytes
		st.mu.Lock()
		i := slices.IndexFunc(st.recent, func(r *recording) bool { return !r.settled && r.run == f.run })
		rec, behind := st.recent[i], st.recent[i+1:]
		if n := rec.given(); n == 0 || n == len(rec.taken) || !rec.sealed || len(behind) < 2 || behind[1].run != rec.run {
			t.Errorf("of recording %d the file has %d of %d fragments, %d are behind it: the test proves nothing", rec.no, n, len(rec.taken), len(behind))
		}
		rest := int64(0)
		for _, f := range rec.taken[rec.given():] {
			rest += f.cost
		}
		runs := st.cumRuns
		st.store.cfg.RingBytes = st.store.ring.Load() - rest // just all of it has to go
		if st.relieve() {
			t.Error("the growing recording ends")
		}
		for n, r := range behind {
			before := rec
			if n > 0 {
				before = behind[n-1]
			}
			if want := before.prevMedia + before.mediaDuration(); r.prevMedia != want {
				t.Errorf("before recording %d are %d units of media, and not %d", r.no, r.prevMedia, want)
			}
			if r.runOffset != int32(n) {
				t.Errorf("recording %d has offset %d in its run, and not %d", r.no, r.runOffset, n)
			}
			if want := before.runsWith(); r.prevRuns != want {
				t.Errorf("before recording %d are %d runs, and not %d", r.no, r.prevRuns, want)
			}
		}
		if st.cumRuns != runs+1 {
			t.Errorf("%d runs, there were %d", st.cumRuns, runs)
		}
		st.store.cfg.RingBytes = 1 << 30
		st.mu.Unlock()

		l.capacity(0)
		f.play(l, time.Minute)
		f.run.End("test")
		time.Sleep(2 * time.Second)
		if err := l.close(); err != nil {
			t.Error(err)
		}
		l.askSQLite()
	})
}
