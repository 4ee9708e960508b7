package store

import (
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/media"
)

// What comes before a recording may change while it grows: a sync failed, files of
// before the start were adopted. Who watches is told what lists say, of the group
// at hand too.
func TestLiveViewersAreToldWhatListsSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 120)
		f := newFeed(st.Begin(nil))
		f.play(t, 90*time.Second)
		v := st.Follow()
		defer v.Close()
		told := func() (l Live) {
			t.Helper()
			l, err := v.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if at := l.Message(func(l *Live) []byte { return []byte{byte(l.Runs)} }); at[0] != byte(l.Runs) {
				t.Errorf("the message of a picture of run %d is still that of %d", l.Runs, at[0])
			}
			all := list(t, st)
			rec := all[len(all)-1]
			if rec.No == 0 || l.RecordingNo != rec.No || l.PrevMedia != rec.PrevMedia || l.Runs != rec.PrevRuns+1 && rec.RunOffset == 0 || l.Runs != rec.PrevRuns && rec.RunOffset > 0 {
				t.Errorf("told %+v, listed %+v", l.Place, rec)
			}
			return l
		}
		before := told()
		st.mu.Lock()
		st.shorten(st.recent[0], 10, reasonDiskError) // as after a sync that failed
		st.mu.Unlock()
		if after := told(); after.Runs != before.Runs+1 || after.PrevMedia >= before.PrevMedia {
			t.Errorf("before %+v, after %+v", before.Place, after.Place)
		}
		w := st.Follow() // made anew, for who had the picture before that, too
		defer w.Close()
		l, err := w.Next(t.Context())
		if err != nil || l.Message(func(l *Live) []byte { return []byte{9} })[0] != 9 {
			t.Errorf("%v, %+v", err, l)
		}
		f.run.End("test over")
	})
}

// Whole groups come with the durations that their pictures have, and no viewer makes
// the recorder keep more than one of them.
func TestGroupsAreWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 120)
		f := newFeed(st.Begin(nil))
		defer f.run.End("test over")
		v := st.FollowGroups()
		for i, step := range []int64{9000, 9000, 4500, 9000, 9000, 9000, 9000, 9000, 9000, 7000} {
			f.step = step
			if err := f.one(); err != nil {
				t.Fatal(i, err)
			}
		}
		f.step = 9000
		f.play(t, 5*time.Second) // five groups more, the last is not complete
		g, err := v.Next(t.Context())
		if err != nil || len(g.Pictures) != 10 || g.Dropped != 40 {
			t.Fatalf("%v, %d pictures, %d dropped", err, len(g.Pictures), g.Dropped)
		}
		v.Close()
		st.mu.Lock()
		kept := st.group
		st.mu.Unlock()
		if kept != nil {
			t.Error("a group is kept for nobody")
		}

		v = st.FollowGroups()
		defer v.Close()
		for f.n%f.gop != 0 {
			if err := f.one(); err != nil {
				t.Fatal(err)
			}
		}
		for _, step := range []int64{9000, 9000, 4500, 9000, 9000, 9000, 9000, 9000, 9000, 7000, 9000} {
			f.step = step
			if err := f.one(); err != nil {
				t.Fatal(err)
			}
		}
		for {
			g, err := v.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if g.Pictures[2].Duration == 4500 {
				if d := g.Pictures[9].Duration; d != 7000 || g.Dropped != 10 {
					t.Errorf("the last picture lasts %d, %d dropped before", d, g.Dropped)
				}
				return
			}
			if g.Dropped > 0 {
				t.Fatalf("the group with pictures that last differently did not come: %v", media.Duration(g.Pictures[2].Duration))
			}
		}
	})
}
