package store

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store/internal/sampledir"
)

// badClock is a wall clock that is off until it is set.
type badClock struct{ off atomic.Int64 }

func (c *badClock) now() time.Time      { return time.Now().Add(time.Duration(c.off.Load())) }
func (c *badClock) set(d time.Duration) { c.off.Store(int64(d)) }

// unset makes the clock one of a machine without a battery, seconds after its
// start.
func (c *badClock) unset() { c.set(time.Unix(4, 0).Sub(time.Now())) }

// at is a bench with this clock.
func (c *badClock) at(t *testing.T) *bench {
	return &bench{T: t, dir: inMemory(t), log: new(journal), now: c.now}
}

// copied is a bench on a copy of the data, as a power cut leaves it.
func (b *bench) copied(c *badClock) *bench {
	b.Helper()
	other := c.at(b.T)
	if err := os.CopyFS(other.dir, os.DirFS(b.dir)); err != nil {
		b.Fatal(err)
	}
	return other
}

// truth is when which picture of a stream was taken.
type truth map[int]media.Time

// play is feed.play, and notes when each picture is taken.
func (w truth) play(t testing.TB, f *feed, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		w[f.n] = media.TimeOf(time.Now())
		if err := f.one(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(media.Duration(f.step).Std())
	}
}

// holds checks that a recording begins when its first picture was taken.
func (w truth) holds(t testing.TB, st *Stream, r *RecordingInfo, what string) {
	t.Helper()
	first := numbers(t, st, r.No)[0]
	if off := r.Start.Sub(w[first]); off > media.Second/4 || off < -media.Second/4 {
		t.Errorf("%s: recording %d begins %v off the time at which picture %d was taken", what, r.No, off, first)
	}
}

// A machine without a battery records at once, in 1970. When the clock is set,
// what it has of this start stands where it belongs: committed, waiting and
// growing, and so do its gaps; what is from before stays. Fails when memory, the
// rows, the gaps, or the causes of absence are left out.
func TestClockThatIsSetMovesWhatWasRecorded(t *testing.T) {
	for _, late := range []time.Duration{20 * time.Second, 3 * time.Minute} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprint(late, " before ", before), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := new(badClock)
					b := c.at(t)
					began := media.TimeOf(time.Now())
					old := make(truth)
					if before {
						b.start()
						f := newFeed(b.camera("front", plenty, 60).Begin(nil))
						old.play(t, f, 3*time.Minute)
						f.run.End("test")
						b.stop()
						time.Sleep(24 * time.Hour)
					}
					c.unset()
					b.start()
					if b.s.ClockGood() {
						t.Error("a clock at 1970 is taken for good")
					}
					started := media.TimeOf(time.Now())
					var st *Stream
					if before {
						st = b.again("front")
					} else {
						st = b.camera("front", plenty, 60)
					}
					st.SetState(Connecting, "", nil)
					time.Sleep(2 * time.Second)
					st.Wait(CameraUnreachable, "no answer")
					time.Sleep(5 * time.Second)

					now := make(truth)
					f := newFeed(st.Begin(nil))
					now.play(t, f, late-7*time.Second)
					c.set(0)
					now.play(t, f, 3*time.Second)
					if !b.s.ClockGood() {
						t.Error("the clock was set and is not good")
					}
					check := func(st *Stream, what string) {
						t.Helper()
						recs := list(t, st)
						for _, r := range recs {
							w := now
							if r.Start < started {
								w = old
							}
							w.holds(t, st, &r, what)
						}
						var spans media.Duration
						if err := st.Spans(t.Context(), 0, 1<<62, func(s *Span) error { spans += s.End.Sub(s.Start); return nil }); err != nil {
							t.Fatal(err)
						}
						in := st.Info()
						if spans != in.Duration || in.Start != recs[0].Start || in.End != recs[len(recs)-1].End() {
							t.Errorf("%s: spans have %v, recordings %v, from %v to %v", what, spans, in.Duration, in.Start, in.End)
						}
					}
					check(st, "just set")
					explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
					now.play(t, f, 4*time.Minute)
					check(st, "later")
					f.run.End("test")
					st.Wait(CameraEnded, "test")
					time.Sleep(2 * time.Minute)
					check(st, "all committed")
					causes := explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
					near := func(cause Cause, want time.Duration) {
						t.Helper()
						if off := causes[cause].Std() - want; off > 500*time.Millisecond || off < -500*time.Millisecond {
							t.Errorf("%s stands for %v, want %v", cause, causes[cause], want)
						}
					}
					near(CameraUnreachable, 7*time.Second)
					near(ClockSet, 0)
					if before {
						near(RecorderDown, 24*time.Hour)
					}

					// The runs: one up to the step, one behind it.
					ends := 0
					for _, r := range list(t, st) {
						if r.EndReason == reasonClock {
							ends++
						}
					}
					if ends != 1 {
						t.Errorf("%d runs end because the clock was set, want 1", ends)
					}
					b.stop()
					b.start()
					check(b.again("front"), "after a restart")
				})
			})
		}
	}
}

// A power cut around the step leaves all recordings of the start where they were,
// or all at their place, those that are adopted too. Fails without
// recording.place, without the anchor in the file, and when row and recordings
// do not go together.
func TestPowerCutAroundTheSetLeavesAllOrNone(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		c := new(badClock)
		c.unset()
		b := c.at(t)
		b.start()
		st := b.camera("front", plenty, 60)
		w := make(truth)
		f := newFeed(st.Begin(nil))
		w.play(t, f, 170*time.Second)
		right := new(badClock)
		moved, stayed := 0, 0
		for i := range 30 {
			if i == 8 {
				c.set(0)
			}
			w.play(t, f, time.Duration(rng.Int64N(int64(time.Second))))
			if i > 15 {
				w.play(t, f, 7*time.Second) // files that begin behind it, and commits
			}
			other := b.copied(right)
			other.start()
			again := other.again("front")
			recs := list(t, again)
			wrong := 0
			for _, r := range recs {
				if r.Start < media.TimeOf(time.Unix(1e8, 0)) {
					wrong++
				}
			}
			switch {
			case wrong == 0:
				moved++
				for _, r := range recs {
					w.holds(t, again, &r, fmt.Sprint("cut ", i))
				}
			case wrong == len(recs):
				stayed++
			default:
				t.Errorf("cut %d: %d of %d recordings are at 1970", i, wrong, len(recs))
			}
			if i < 8 && wrong != len(recs) || i > 15 && wrong > 0 {
				t.Errorf("cut %d: %d of %d recordings are at 1970", i, wrong, len(recs))
			}
			other.stop()
		}
		f.run.End("test")
		t.Logf("%d cuts with all moved, %d with none", moved, stayed)
	})
}

// A step of a clock that was right splits the run at the next key frame and moves
// nothing; forward it leaves time that never was, back runs overlap and each is
// listed where it is. A leap second is no step. Fails when the run does not ask
// for steps, and when the step moves.
func TestLaterStepSplitsTheRun(t *testing.T) {
	for _, tt := range []struct {
		by   time.Duration
		runs int
	}{{time.Hour, 2}, {-time.Hour, 2}, {1500 * time.Millisecond, 2}, {time.Second, 1}, {-time.Second, 1}} {
		t.Run(tt.by.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := new(badClock)
				b := c.at(t)
				b.start()
				time.Sleep(2 * time.Hour)
				st := b.camera("front", plenty, 60)
				began := media.TimeOf(b.now())
				f := newFeed(st.Begin(nil))
				f.play(t, 150*time.Second)
				was := list(t, st)
				c.set(tt.by)
				step := media.TimeOf(b.now())
				f.play(t, 10*time.Second)
				for range 2 {
					if age := media.TimeOf(b.now()).Sub(st.Info().Watermark); age < -media.Second || age > 3*media.Second {
						t.Errorf("what is recorded is said to be durable up to %v ago", age)
					}
					f.play(t, 70*time.Second)
				}
				recs := list(t, st)
				slices.SortFunc(recs, func(a, b RecordingInfo) int { return int(a.No - b.No) })
				for i, r := range was {
					if recs[i].Start != r.Start {
						t.Errorf("recording %d was moved by %v", r.No, recs[i].Start.Sub(r.Start))
					}
				}
				runs, n := 0, 0
				for _, r := range recs {
					if r.RunOffset == 0 {
						runs++
						if off := r.Start.Sub(step); runs == 2 && (off < 0 || off > 3*media.Second) {
							t.Errorf("the new run begins %v behind the step", off)
						}
					}
					for _, got := range numbers(t, st, r.No) {
						if got != n {
							t.Fatalf("recording %d has picture %d where %d is expected", r.No, got, n)
						}
						n++
					}
				}
				if runs != tt.runs || n < 2990 {
					t.Errorf("%d runs of %d pictures, want %d", runs, n, tt.runs)
				}
				// All of them are found in their hour.
				n = 0
				err := st.List(t.Context(), step, step.Add(3*media.Minute), func(r *RecordingInfo) error { n += r.VideoSamples; return nil })
				if tt.runs == 2 && (err != nil || n < 1400) {
					t.Errorf("%d pictures behind the step, %v", n, err)
				}
				if tt.by == time.Hour {
					causes := explained(t, st, began, media.TimeOf(b.now()), media.Second/4)
					if off := causes[ClockSet].Std() - time.Hour; off > time.Second || off < -time.Second {
						t.Errorf("causes are %v", causes)
					}
				}
				f.run.End("test")
			})
		})
	}
}

// Between a step and the note of it, a second at most, all goes on by the clock
// as it was, and is moved with the rest. A stream that was added in 1970 is owed
// from when that was. Fails when a run reads the clock itself.
func TestRunThatBeginsJustBehindTheStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(badClock)
		c.unset()
		b := c.at(t)
		b.start()
		began := media.TimeOf(time.Now())
		st := b.camera("front", plenty, 60)
		st.SetState(Connecting, "", nil)
		st.Wait(CameraUnreachable, "no answer")
		time.Sleep(10300 * time.Millisecond)
		c.set(0)
		time.Sleep(100 * time.Millisecond)
		w := make(truth)
		f := newFeed(st.Begin(nil))
		w.play(t, f, 2*time.Minute)
		check := func(st *Stream) {
			t.Helper()
			for _, r := range list(t, st) {
				w.holds(t, st, &r, "begun behind the step")
			}
		}
		check(st)
		explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
		f.run.End("test")
		b.stop()
		b.start()
		st = b.again("front")
		if off := st.settings().OwedFrom.Sub(began); off < 0 || off > media.Second {
			t.Errorf("the stream is owed from %v after it was added", off)
		}
		check(st)
	})
}

// A database from before the set, as a backup is, knows less than the files from
// behind it: they stay where they are. Fails when place does not ask how old
// the row is.
func TestOlderDatabaseMovesNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(badClock)
		c.unset()
		b := c.at(t)
		b.start()
		w := make(truth)
		f := newFeed(b.camera("front", plenty, 60).Begin(nil))
		w.play(t, f, 2*time.Minute)
		other := b.copied(new(badClock))
		c.set(0)
		set := media.TimeOf(time.Now())
		w.play(t, f, 3*time.Minute)
		for _, name := range b.files() {
			file, err := os.ReadFile(name)
			if err == nil {
				err = os.WriteFile(filepath.Join(other.dir, "sample", filepath.Base(name)), file, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		f.run.End("test")
		other.start()
		st, n := other.again("front"), 0
		for _, r := range list(t, st) {
			if w[numbers(t, st, r.No)[0]] > set.Add(2*media.Second) {
				w.holds(t, st, &r, "behind the step")
				n++
			}
		}
		if n < 2 {
			t.Errorf("%d recordings from behind the step", n)
		}
	})
}

// Fails when the files of an open are not put on one anchor.
func TestRebuildMovesWhatWasRecordedBeforeTheSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(badClock)
		c.unset()
		b := c.at(t)
		b.start()
		w := make(truth)
		f := newFeed(b.camera("front", plenty, 60).Begin(nil))
		w.play(t, f, 3*time.Minute)
		c.set(0)
		w.play(t, f, 3*time.Minute)
		f.run.End("test")
		b.stop()
		res, err := Rebuild(t.Context(), RebuildConfig{
			Dir: b.dir, Found: func(x Finding) { t.Error(x) }, Progress: func(RebuildProgress) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		b.start()
		st := b.again("front")
		recs := list(t, st)
		for _, r := range recs {
			w.holds(t, st, &r, "rebuilt")
		}
		if n := len(recs); n != res.Recordings || n < 6 {
			t.Errorf("%d recordings, %d were rebuilt", n, res.Recordings)
		}
	})
}

// A clock that is behind the recorder's last flush was not set either. Fails
// when only ClockNotBefore counts.
func TestClockBehindTheLastFlushIsNotGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(badClock)
		b := c.at(t)
		b.start()
		f := newFeed(b.camera("front", plenty, 60).Begin(nil))
		f.play(t, 2*time.Minute)
		f.run.End("test")
		b.stop()
		c.set(-time.Hour)
		b.start()
		if b.s.ClockGood() {
			t.Error("a clock before the last flush is good")
		}
		st := b.again("front")
		w := make(truth)
		f = newFeed(st.Begin(nil))
		f.n = 10000
		w.play(t, f, 30*time.Second)
		c.set(0)
		w.play(t, f, 3*time.Minute)
		f.run.End("test")
		for _, r := range list(t, st) {
			if numbers(t, st, r.No)[0] >= 10000 {
				w.holds(t, st, &r, "set")
			}
		}
		b.stop()
		b.start()
		if !b.s.ClockGood() {
			t.Error("a clock behind the last flush is not good")
		}
	})
}

// A flush that meets the step goes by the clock as it was, so that what a power
// cut leaves behind it is of one clock; then all is moved. Fails when the flush
// reads the clock itself.
func TestClockThatIsSetDuringAFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(badClock)
		c.unset()
		b := c.at(t)
		var during atomic.Bool
		b.now = func() time.Time {
			if during.Swap(false) {
				c.set(0)
			}
			return c.now()
		}
		b.start()
		began := media.TimeOf(time.Now())
		st := b.camera("front", plenty, 600)
		w := make(truth)
		f := newFeed(st.Begin(nil))
		w.play(t, f, 70*time.Second)
		time.Sleep(clockEvery / 3)
		during.Store(true)
		if err := b.s.flush(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		anchors := func(b *bench, what string) {
			t.Helper()
			err := b.s.db.Opens(t.Context(), func(o db.OpenRow) error {
				if off := o.End.Sub(o.Start) - o.Duration; off > clockStep || off < -clockStep {
					t.Errorf("%s: the anchors of open %d are %v apart, %v have passed", what, o.ID, o.End.Sub(o.Start), o.Duration)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		if during.Load() || b.s.ClockGood() {
			t.Error("the clock was not set during the flush")
		}
		if held(&st.mu, func() int32 { return st.committedNo }) == 0 {
			t.Error("there was nothing to flush")
		}
		anchors(b, "flushed")
		other := b.copied(new(badClock))
		other.start()
		anchors(other, "power cut behind the flush")
		for _, r := range list(t, other.again("front")) {
			if r.Start > clockUnset.Add(day) {
				t.Errorf("recording %d begins at %v, none was moved", r.No, r.Start)
			}
		}
		w.play(t, f, 2*time.Minute)
		f.run.End("test")
		anchors(b, "set")
		for _, r := range list(t, st) {
			w.holds(t, st, &r, "set during a flush")
		}
		st.Wait(CameraEnded, "test")
		explained(t, st, began, media.TimeOf(time.Now()), media.Second/2)
	})
}

// A clock that is set twice before it is right takes what was recorded with it
// both times. The second time nothing is counted twice. Fails when the clock is
// good after the first, and when the gaps between are kept.
func TestClockThatIsSetTwice(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprint("before ", before), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := new(badClock)
				b := c.at(t)
				b.hook = func(cfg *Config) { cfg.ClockNotBefore = time.Unix(6e8, 0) } // 1989
				began := media.TimeOf(time.Now())
				if before {
					b.start()
					newFeed(b.camera("front", plenty, 60).Begin(nil)).play(t, time.Minute)
					b.stop()
					time.Sleep(time.Hour)
				}
				c.unset()
				b.start()
				var st *Stream
				if before {
					st = b.again("front")
				} else {
					st = b.camera("front", plenty, 60)
				}
				st.SetState(Connecting, "", nil)
				time.Sleep(4 * time.Second)
				st.Wait(LoginRefused, "test")
				time.Sleep(4 * time.Second)
				st.SetState(Connecting, "", nil)
				time.Sleep(4 * time.Second)
				st.Wait(NoFrames, "test")
				w := make(truth)
				f := newFeed(st.Begin(nil))
				f.n = 10000
				w.play(t, f, 70*time.Second)
				c.set(time.Unix(4e8, 0).Sub(time.Now())) // 1982
				w.play(t, f, 70*time.Second)
				if b.s.ClockGood() {
					t.Error("a clock at 1982 is taken for good")
				}
				c.set(0)
				w.play(t, f, 70*time.Second)
				f.run.End("test")
				st.Wait(CameraEnded, "test")
				check := func(st *Stream) {
					t.Helper()
					for _, r := range list(t, st) {
						if numbers(t, st, r.No)[0] >= 10000 {
							w.holds(t, st, &r, "set twice")
						}
					}
				}
				check(st)
				explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
				time.Sleep(2 * time.Minute)
				check(st)
				causes := explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
				for cause, want := range map[Cause]time.Duration{LoginRefused: 8 * time.Second, NoFrames: 4 * time.Second, ClockSet: 0} {
					if off := causes[cause].Std() - want; off > time.Second/2 || off < -time.Second/2 {
						t.Errorf("%s stands for %v, want %v", cause, causes[cause], want)
					}
				}
			})
		})
	}
}

// A recorder that is killed before its clock is set finds what it had recorded
// when it is, and a rebuild puts it there, too. Behind a start of the machine
// nobody knows how long it was off. Fails when the opens before do not go with this
// one, when any does, when files do not say so, and when a gap is laid over what was
// adopted.
func TestKilledBeforeTheClockIsSet(t *testing.T) {
	for _, tt := range []struct{ before, boot bool }{{false, false}, {true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprintf("before %v boot %v", tt.before, tt.boot), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := new(badClock)
				b := c.at(t)
				began := media.TimeOf(time.Now())
				if tt.before {
					b.hook = func(cfg *Config) { cfg.bootID = "the boot before" }
					b.start()
					f := newFeed(b.camera("front", plenty, 60).Begin(nil))
					f.play(t, 90*time.Second)
					f.run.End("test")
					b.stop()
					time.Sleep(time.Hour)
				}
				c.unset()
				unset := media.TimeOf(c.now())
				b.hook = nil
				b.start()
				var st *Stream
				if tt.before {
					st = b.again("front")
				} else {
					st = b.camera("front", plenty, 60)
				}
				st.SetState(Connecting, "", nil)
				time.Sleep(5 * time.Second)
				st.Wait(CameraUnreachable, "test")
				w := make(truth)
				f := newFeed(st.Begin(nil))
				f.n = 10000
				w.play(t, f, 100*time.Second)
				b = b.copied(c)
				time.Sleep(3 * time.Second)
				// A file was begun of which nothing was synced.
				torn := filepath.Join(b.dir, "sample", sampledir.Name(db.CompositeID(st.id, st.nextNo)))
				if err := os.WriteFile(torn, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if tt.boot {
					b.hook = func(cfg *Config) { cfg.bootID = "the next boot" }
				}
				b.start()
				st = b.again("front")
				f = newFeed(st.Begin(nil))
				f.n = 20000
				w.play(t, f, 50*time.Second)
				c.set(0)
				w.play(t, f, 2*time.Minute)
				f.run.End("test")
				st.Wait(CameraEnded, "test")
				check := func(st *Stream, what string) {
					t.Helper()
					n := 0
					for _, r := range list(t, st) {
						first := numbers(t, st, r.No)[0]
						if tt.boot && first >= 10000 && first < 20000 {
							if n++; r.Start > clockUnset.Add(day) {
								t.Errorf("%s: recording %d of the boot before begins at %v", what, r.No, r.Start)
							}
						} else if first >= 10000 {
							n++
							w.holds(t, st, &r, what)
						}
					}
					if n < 6 {
						t.Errorf("%s: %d recordings", what, n)
					}
				}
				check(st, "set")
				time.Sleep(2 * time.Minute)
				check(st, "committed")
				if tt.boot && !tt.before {
					explained(t, st, unset, media.TimeOf(time.Now()), media.Second/4)
				}
				if !tt.boot {
					causes := explained(t, st, began, media.TimeOf(time.Now()), media.Second/4)
					if down := causes[RecorderDown].Std(); causes[ClockSet] != 0 || !tt.before && down > 6*time.Second || down < 2*time.Second {
						t.Errorf("causes are %v", causes)
					}
				}
				b.stop()
				b.start()
				check(b.again("front"), "after a restart")
				b.stop()
				if _, err := Check(t.Context(), CheckConfig{
					Dir: b.dir, Log: slog.New(slog.DiscardHandler), Found: func(x Finding) { t.Error(x) }, Progress: func(CheckProgress) {},
				}); err != nil {
					t.Error(err)
				}
				if _, err := Rebuild(t.Context(), RebuildConfig{
					Dir: b.dir, Found: func(x Finding) { t.Error(x) }, Progress: func(RebuildProgress) {},
				}); err != nil {
					t.Fatal(err)
				}
				b.start()
				check(b.again("front"), "rebuilt")
			})
		})
	}
}

// A stream that was switched off and on before the clock was set has its gaps
// from before that at their place, too, and none for the time between. Fails
// when only what is accounted for since is moved.
func TestSwitchedOffBeforeTheSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(badClock)
		c.unset()
		b := c.at(t)
		b.start()
		began := media.TimeOf(time.Now())
		st := b.camera("front", plenty, 60)
		record := func(on bool) {
			set := b.s.Export()
			sc := set.Cameras[0].Streams["main"]
			sc.Record = on
			set.Cameras[0].Streams["main"] = sc
			if err := b.s.Import(t.Context(), set); err != nil {
				t.Fatal(err)
			}
		}
		st.SetState(Connecting, "", nil)
		time.Sleep(20 * time.Second)
		st.Wait(LoginRefused, "test")
		time.Sleep(2 * time.Minute)
		record(false)
		off := media.TimeOf(time.Now())
		time.Sleep(time.Minute)
		record(true)
		on := media.TimeOf(time.Now())
		st.SetState(Connecting, "", nil)
		time.Sleep(5 * time.Second)
		w := make(truth)
		f := newFeed(st.Begin(nil))
		w.play(t, f, 20*time.Second)
		c.set(0)
		w.play(t, f, 3*time.Minute)
		f.run.End("test")
		for _, r := range list(t, st) {
			w.holds(t, st, &r, "set")
		}
		var gaps []media.Time
		if err := st.Gaps(t.Context(), 0, 1<<60, func(g *Gap) error { gaps = append(gaps, g.Start, g.End); return nil }); err != nil {
			t.Fatal(err)
		}
		want := []media.Time{began, off, on, on.Add(5 * media.Second)}
		for i := range max(len(gaps), len(want)) {
			if i >= len(gaps) || i >= len(want) || gaps[i].Sub(want[i]) > media.Second || gaps[i].Sub(want[i]) < -media.Second {
				t.Errorf("gaps are %v, want %v", gaps, want)
				break
			}
		}
	})
}

// What was recorded before the clock was set is not too old for it, and what is
// from before the start is as old as it is, a day of the time between at most
// (rule 18). Fails when the ages stay those of the old clock.
func TestAgeBehindASetClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(badClock)
		b := c.at(t)
		b.start()
		f := newFeed(b.camera("front", plenty, 60).Begin(nil))
		f.play(t, 2*time.Minute)
		f.run.End("test")
		b.days(2)
		time.Sleep(24 * time.Hour)
		b.stop()
		time.Sleep(10 * 24 * time.Hour)
		c.unset()
		b.start()
		st := b.again("front")
		f = newFeed(st.Begin(nil))
		f.n = 10000
		f.play(t, 2*time.Minute)
		old := func() (n int) {
			for _, r := range list(t, st) {
				if numbers(t, st, r.No)[0] < 10000 {
					n++
				}
			}
			return n
		}
		time.Sleep(2 * ageEvery)
		if old() == 0 {
			t.Error("a clock at 1970 has deleted what is two days old")
		}
		c.set(0)
		f.run.End("test")
		time.Sleep(2 * ageEvery)
		if n := old(); n != 0 {
			t.Errorf("%d recordings are left that are more than two days old by both clocks", n)
		}
		if n := len(list(t, st)); n < 2 {
			t.Errorf("%d recordings are left of this start", n)
		}
	})
}

// Of a row and a file that differ in when their open began, the later one knows
// that the clock was set, unless the row is newer than the file.
func TestFileIsPlacedByTheBetterClock(t *testing.T) {
	const bad, good = media.Time(4 * media.Second), media.Time(1e9 * media.Second)
	row := func(start media.Time) pastOpen {
		return pastOpen{db.OpenRow{Start: start, Duration: 100 * media.Second}, 0}
	}
	for _, tt := range []struct {
		name  string
		file  media.Time // when its open began
		since media.Duration
		row   pastOpen
		by    media.Duration
	}{
		{"same clock", bad, 50 * media.Second, row(bad), 0},
		{"set since", bad, 50 * media.Second, row(good), good.Sub(bad)},
		{"begun while it was set", bad, 101 * media.Second, row(good), good.Sub(bad)},
		{"row of a backup", good, 101 * media.Second, row(bad), 0},
		{"set back since", good, 50 * media.Second, row(bad), bad.Sub(good)},
		{"file of an earlier version", 0, 50 * media.Second, row(good), 0},
		{"open without a row", bad, 50 * media.Second, pastOpen{}, 0},
	} {
		rec := &recording{sinceOpen: tt.since, start: tt.file.Add(tt.since), localStart: tt.file.Add(tt.since)}
		rec.place(&mp4.About{OpenStart90k: int64(tt.file)}, tt.row)
		if by := rec.start.Sub(tt.file.Add(tt.since)); by != tt.by || rec.localStart != rec.start {
			t.Errorf("%s: moved by %v and %v, want %v", tt.name, by, rec.localStart.Sub(rec.start), tt.by)
		}
	}
}

// Fifty years on nothing is too large; and when the hour changes, days do and
// nothing else.
func TestFarAndChangingHours(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{
		time.Date(2076, 3, 28, 23, 58, 0, 0, zone), // the hour changes on the 29th
		time.Date(2026, 3, 28, 23, 58, 0, 0, zone),
		time.Date(2026, 10, 24, 23, 58, 0, 0, zone),
	} {
		if testing.Short() && at.Month() != time.October {
			continue // slow under the race detector
		}
		t.Run(at.Format(time.DateOnly), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := new(badClock)
				c.set(at.Sub(time.Now()))
				b := c.at(t)
				b.hook = func(cfg *Config) { cfg.TimeZone = zone }
				b.start()
				f := newFeed(b.camera("front", plenty, 120).Begin(nil))
				f.gop, f.step = 1, 20*90000
				f.play(t, 26*time.Hour)
				f.run.End("test")
				b.stop()
				b.start()
				st := b.again("front")
				runs, at := 0, list(t, st)[0].Start
				for _, r := range list(t, st) {
					if r.RunOffset == 0 {
						runs++
					}
					if r.Start != at {
						t.Errorf("recording %d begins %v behind the end of the one before it", r.No, r.Start.Sub(at))
					}
					at = r.End()
				}
				days, err := st.Days(t.Context())
				if err != nil || runs != 1 || len(days) != 3 {
					t.Fatalf("%d runs, days %+v, %v", runs, days, err)
				}
				long := days[1].End.Sub(days[1].Start).Std()
				if long != 23*time.Hour && long != 25*time.Hour || days[1].Recorded.Std() != long {
					t.Errorf("a day of %v has %v", long, days[1].Recorded)
				}
			})
		})
	}
}

// A recording whose end falls out of memory, before a step that split its run,
// makes what is between them a run of its own, and one more in the count. Fails
// when only runs that go on are counted.
func TestRunsAreCountedBehindAStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(badClock)
		var d *scripted
		inner := script(&d)
		b := c.at(t)
		b.hook = func(cfg *Config) { inner(cfg); cfg.RingBytes = 250_000 }
		b.start()
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 5*time.Second)
		d.stop(syscall.ENOSPC, "write", "create")
		for held(&st.mu, func() int32 { return st.nextNo }) < 2 {
			f.play(t, time.Second)
		}
		f.play(t, 5*time.Second)
		c.set(time.Hour)
		rec := held(&st.mu, func() *recording { return st.recent[0] })
		for held(&st.mu, func() bool { return rec.endReason == "" }) {
			f.play(t, time.Second)
		}
		d.heal()
		f.play(t, 5*time.Second)
		f.run.End("test")
		f = newFeed(st.Begin(nil))
		f.play(t, 3*time.Second)
		f.run.End("test")
		time.Sleep(3 * time.Minute)
		recs := list(t, st)
		slices.SortFunc(recs, func(a, b RecordingInfo) int { return int(a.No - b.No) })
		runs := int32(0)
		for _, r := range recs {
			if r.PrevRuns != runs {
				t.Errorf("recording %d, number %d of its run: %d runs before it, want %d", r.No, r.RunOffset, r.PrevRuns, runs)
			}
			runs += begins(&r)
		}
		if runs < 4 || runs > 5 { // one more when the disk was being tried with the second part
			t.Errorf("%d runs, want 4 or 5", runs)
		}
	})
}

// A recorder that was started very often while the clock is not set still records:
// what a file says of the opens before stays small enough for it.
func TestManyStartsWithoutAClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c badClock
		c.unset()
		b := c.at(t)
		b.start()
		st := b.camera("front", plenty, 60)
		const n = 5000
		past := &ages{make(map[int32]pastOpen)}
		for i := int32(1); i <= n; i++ {
			at := media.Time(i) * media.Time(media.Second)
			past.opens[i] = pastOpen{OpenRow: db.OpenRow{ID: i, BootID: "boot", Start: at, End: at.Add(media.Second / 2), Duration: media.Second / 2}}
		}
		b.s.flushing.Lock()
		b.s.ages.Store(past)
		b.s.open.ID, b.s.open.BootID, b.s.open.Start = n+1, "boot", media.Time(n+1)*media.Time(media.Second)
		b.s.initClock(b.s.open.Start, b.s.open.Start)
		before := b.s.clock.before
		b.s.open.ID = 1
		b.s.flushing.Unlock()
		if k := len(before); k == 0 || before[k-1].ID != n {
			t.Fatalf("%d opens went by this clock", k)
		}
		f := newFeed(st.Begin(nil))
		f.play(t, 5*time.Second)
		if in := st.Info(); in.Recordings == 0 {
			t.Error("nothing is recorded")
		}
		f.run.End("test")
	})
}
