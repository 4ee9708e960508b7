package store

import (
	"fmt"
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
				time.Date(2026, 10, d, 0, 0, 0, 0, time.UTC).Format(time.DateOnly), media.TimeOf(time.Date(2026, 10, d, 0, 0, 0, 0, zone)), media.TimeOf(time.Date(2026, 10, d+1, 0, 0, 0, 0, zone)),
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

// Days go on without a hole, whatever the clocks of a zone do: also where they
// change at midnight, so that a day has no 0:00 or has it twice, and where a
// date is left out.
func TestDaysAdjoinInAnyZone(t *testing.T) {
	for _, name := range []string{
		"UTC", "Europe/Berlin", "America/Santiago", "America/Havana", "America/Sao_Paulo", "Asia/Beirut", "Asia/Amman",
		"Atlantic/Azores", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kiritimati",
	} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		at := media.TimeOf(time.Date(2004, 12, 31, 12, 0, 0, 0, time.UTC))
		end := media.TimeOf(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
		for last := dayOf(at, zone); at < end; at = last.End {
			day := dayOf(last.End, zone)
			if day.Start != last.End || day.End <= day.Start || day.Date <= last.Date {
				t.Fatalf("%s: behind %+v comes %+v", name, last, day)
			}
			if h := day.End.Sub(day.Start).Std(); h < 22*time.Hour || h > 26*time.Hour {
				t.Errorf("%s: %s has %v", name, day.Date, h)
			}
			for _, in := range []media.Time{day.Start, day.Start.Add(30 * media.Minute), day.End - 1} {
				if got := dayOf(in, zone); got != day {
					t.Errorf("%s: %v is in %+v, want %+v", name, in, got, day)
				}
			}
			if at, before := day.Start.Std().In(zone).Format(time.DateOnly), day.Start.Std().Add(-time.Second).In(zone).Format(time.DateOnly); at != day.Date || before >= day.Date {
				t.Errorf("%s: %s begins with an instant of %s, behind one of %s", name, day.Date, at, before)
			}
			if got := day.Start.Add(12 * 60 * media.Minute).Std().In(zone).Format(time.DateOnly); got != day.Date {
				t.Errorf("%s: noon of %s is %s", name, day.Date, got)
			}
			last = day
		}
	}
}

// A stream is counted also when it records while clocks change at midnight.
func TestDaysEndWhereMidnightIsLeftOut(t *testing.T) {
	zone, err := time.LoadLocation("America/Havana")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ahead := time.Date(2027, 3, 13, 23, 50, 0, 0, zone).Sub(time.Now()) // the next day begins at 1:00
		b := newBench(t, func(cfg *Config) { cfg.TimeZone = zone })
		b.stop()
		b.now = func() time.Time { return time.Now().Add(ahead) }
		b.start()
		f := newFeed(b.camera("front", plenty, 120).Begin(nil))
		f.gop, f.step = 1, 10*90000
		f.play(t, 20*time.Minute)
		days, err := b.again("front").Days(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range days {
			got = append(got, fmt.Sprintf("%s %v of %v", d.Date, d.Recorded.Std(), d.End.Sub(d.Start).Std()))
		}
		if diff := cmp.Diff([]string{"2027-03-13 10m0s of 24h0m0s", "2027-03-14 9m50s of 23h0m0s"}, got); diff != "" {
			t.Error(diff)
		}
		f.run.End("test")
	})
}
