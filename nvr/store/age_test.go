package store

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
)

// days gives the stream of camera front another limit.
func (b *bench) days(n int) {
	b.Helper()
	set := b.s.Export()
	sc := set.Cameras[0].Streams["main"]
	sc.RetainDays = n
	set.Cameras[0].Streams["main"] = sc
	if err := b.s.Import(b.Context(), set); err != nil {
		b.Fatal(err)
	}
}

// Recordings go when they are older than their days, also when nothing is
// recorded any more, not earlier, and their files with them.
func TestRecordingsGoByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		b.days(1)
		f := newFeed(st.Begin(nil))
		f.play(t, 3*time.Minute)
		f.run.End("test")
		n := len(list(t, st))
		time.Sleep(24*time.Hour - 4*time.Minute)
		if got := len(list(t, st)); got != n {
			t.Errorf("%d of %d recordings before a day was over", got, n)
		}
		time.Sleep(ageEvery + 10*time.Minute)
		if got := len(list(t, st)); got != 0 || len(b.files()) != 0 {
			t.Errorf("%d recordings and %d files are older than a day", got, len(b.files()))
		}
	})
}

// A limit that is lowered holds at once, for what is too old and nothing else.
func TestLowerLimitOfDaysHoldsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 2*time.Minute)
		f.run.End("test")
		time.Sleep(25 * time.Hour)
		f = newFeed(st.Begin(nil))
		f.play(t, 2*time.Minute)
		f.run.End("test")
		time.Sleep(2 * time.Minute)
		border := media.TimeOf(time.Now().Add(-24 * time.Hour))
		b.days(1)
		left := list(t, st)
		if len(left) == 0 || left[0].End() < border {
			t.Errorf("left are %+v", left)
		}
		if n := int(st.Info().Recordings); n != len(left) {
			t.Errorf("%d recordings are counted, %d listed", n, len(left))
		}
		for _, n := range []int{-1, 36501} {
			set := b.s.Export()
			sc := set.Cameras[0].Streams["main"]
			sc.RetainDays = n
			set.Cameras[0].Streams["main"] = sc
			if err := b.s.Import(t.Context(), set); !errors.As(err, new(*ConfigError)) {
				t.Errorf("%d days: %v", n, err)
			}
		}
	})
}

// A clock that is wrong by fifty years, by a step or at the start, or that
// stands at 1970, deletes nothing. Fails when the wall clock alone decides.
func TestWrongClockDeletesNothing(t *testing.T) {
	const years = 50 * 365 * 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		var set atomic.Int64 // of the wall clock, ns
		b := &bench{T: t, dir: t.TempDir(), log: new(journal)}
		b.now = func() time.Time { return time.Now().Add(time.Duration(set.Load())) }
		b.start()
		st := b.camera("front", plenty, 60)
		b.days(3)
		f := newFeed(st.Begin(nil))
		f.play(t, 2*time.Minute)
		f.run.End("test")
		kept := func(when string) {
			t.Helper()
			time.Sleep(ageEvery + 5*time.Minute)
			n := 0
			for _, r := range list(t, b.again("front")) {
				if r.Start < media.TimeOf(time.Now().Add(48*time.Hour)) {
					n++
				}
			}
			if n < 3 {
				t.Errorf("%s: %d recordings are left", when, n)
			}
		}
		kept("right clock")
		set.Store(int64(years))
		kept("stepped")
		b.stop()
		b.start()
		kept("started with it wrong")
		f = newFeed(b.again("front").Begin(nil))
		f.play(t, 2*time.Minute)
		f.run.End("test")
		kept("recorded with it wrong")
		b.stop()
		set.Store(int64(-time.Since(time.Unix(1, 0)))) // 1970
		b.start()
		kept("at 1970")
		set.Store(int64(0))
		kept("set right")
		b.stop()
		b.start()
		kept("started with it right")
		b.stop()
		set.Store(int64(years))
		b.start()
		kept("wrong again")
	})
}
