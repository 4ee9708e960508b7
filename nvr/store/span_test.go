package store

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
)

// Over any range, spans have the recordings that a list has: committed, waiting
// and growing. Fails when a recording comes from the database and from memory.
func TestSpansHaveWhatAListHas(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", 16<<20, 120) // the oldest go after some minutes
		began := media.TimeOf(time.Now())
		for range 14 {
			f := newFeed(st.Begin(nil))
			f.gop, f.step, f.size = 1, 90000, 24<<10
			f.play(t, time.Duration(rng.Int64N(int64(4*time.Minute))))
			synctest.Wait()
			for range 20 {
				from := began.Add(media.Duration(rng.Int64N(int64(50 * media.Minute))))
				to := from.Add(media.Duration(rng.Int64N(int64(30 * media.Minute))))
				want, got := make(map[int32]int), make(map[int32]int)
				var wantSum, gotSum int64
				err := st.List(t.Context(), from, to, func(r *RecordingInfo) error {
					want[r.No]++
					wantSum += int64(r.VideoSamples) + r.FileBytes
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				err = st.Spans(t.Context(), from, to, func(s *Span) error {
					for no := s.FirstNo; no <= s.LastNo; no++ {
						got[no]++
					}
					gotSum += s.VideoSamples + s.FileBytes
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" || wantSum != gotSum {
					t.Fatalf("in [%v, %v): %s, sums %d and %d", from, to, diff, wantSum, gotSum)
				}
			}
			f.run.End("test")
		}
		if list(t, st)[0].No == 0 {
			t.Error("nothing was deleted")
		}
	})
}

// Days are those of the zone, also when they have 25 hours, and their sum is
// what was recorded.
func TestDaysAreThoseOfTheZone(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		first := time.Date(2026, 10, 24, 23, 0, 0, 0, zone)
		ahead := first.Sub(time.Now())
		b := newBench(t, func(cfg *Config) { cfg.TimeZone = zone })
		b.stop()
		b.now = func() time.Time { return time.Now().Add(ahead) }
		b.start()
		st := b.camera("front", plenty, 120)
		f := newFeed(st.Begin(nil))
		f.gop, f.step = 1, 10*90000
		f.play(t, 5*time.Hour)
		days, err := st.Days(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		day := func(d int, recorded time.Duration) Day {
			return Day{
				media.TimeOf(time.Date(2026, 10, d, 0, 0, 0, 0, zone)), media.TimeOf(time.Date(2026, 10, d+1, 0, 0, 0, 0, zone)),
				media.DurationOf(recorded),
			}
		}
		// The last picture is held back: ten seconds.
		want := []Day{day(24, time.Hour), day(25, 4*time.Hour-10*time.Second)}
		if diff := cmp.Diff(want, days); diff != "" {
			t.Error(diff)
		}
		if d := want[1].End.Sub(want[1].Start).Std(); d != 25*time.Hour {
			t.Errorf("the day has %v", d)
		}
		f.run.End("test")
	})
}
