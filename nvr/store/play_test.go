package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/mp4"
	"holdfast/nvr/mp4/mp4test"
)

// R36, R39: all there is plays at every moment of flushes, each picture once,
// also in a film that was laid out before a flush and is read after it.
func TestEverythingPlaysOnceDuringFlushes(t *testing.T) {
	b := newBench(t, nil)
	st := b.camera("front", plenty, 0)
	const perRun = 25 // pictures, in three fragments
	layOut := func() (*mp4.File, int) {
		newest := int32(-1)
		for _, r := range list(t, st) {
			newest = max(newest, r.No)
		}
		if newest < 0 {
			return nil, 0
		}
		recs, err := st.Segments(context.Background(), 0, newest)
		if err != nil {
			t.Error(err)
			return nil, 0
		}
		var segs []mp4.Segment
		for _, r := range recs {
			segs = append(segs, mp4.Segment{Recording: r, To: r.WallDuration})
		}
		f, err := mp4.New(segs, mp4.Options{})
		if err != nil {
			t.Error(err)
		}
		return f, len(recs)
	}
	play := func(f *mp4.File, recordings int) bool {
		r := f.NewReader()
		defer r.Close()
		film, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
			return false
		}
		tracks, err := mp4test.Read(film)
		if err != nil {
			t.Error(err)
			return false
		}
		got := tracks[0].Samples
		if n := len(got) - (recordings-1)*perRun; n < 1 || n > perRun {
			t.Errorf("%d pictures of %d recordings", len(got), recordings)
			return false
		}
		for i, s := range got {
			n := i % perRun
			if int(binary.BigEndian.Uint64(s.Data)) != n || !bytes.Equal(s.Data, picture(n, len(s.Data))) {
				t.Errorf("picture %d of recording %d is another one", n, i/perRun)
				return false
			}
		}
		return true
	}
	stop, round := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		defer close(round)
		var before *mp4.File
		var had int
		for {
			select {
			case <-stop:
				return
			case round <- struct{}{}:
			default:
			}
			f, n := layOut()
			if f != nil && !play(f, n) || before != nil && !play(before, had) || t.Failed() {
				return
			}
			before, had = f, n
		}
	})
	flushes := b.flushed()
	for range 60 {
		f := newFeed(st.Begin(nil))
		for i := range perRun {
			if err := f.one(); err != nil {
				t.Fatal(err)
			}
			if i == 18 {
				<-round // it is seen to grow
			}
		}
		f.run.End("test")
		if err := st.dir.stepNow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	all.Wait()
	if f, n := layOut(); n != 60 || !play(f, n) {
		t.Errorf("%d recordings, want 60", n)
	}
	if b.flushed() == flushes {
		t.Error("there was no flush")
	}
}

// However many lists are read, and however slowly, flushes and the health of
// the database read beside them.
func TestListsLeaveReadersToFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 3*time.Minute)

		played, err := st.Segments(t.Context(), 0, 0)
		if err != nil || played[0].Unflushed {
			t.Fatal(played, err)
		}
		goOn := make(chan struct{})
		var lists sync.WaitGroup
		for range db.Readers {
			lists.Go(func() {
				_ = st.List(t.Context(), 0, math.MaxInt64, func(*RecordingInfo) error { <-goOn; return nil })
			})
			lists.Go(func() {
				_ = st.Spans(t.Context(), 0, math.MaxInt64, func(*Span) error { <-goOn; return nil })
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for name, ask := range map[string]func() error{
			"List":     func() error { return st.List(ctx, 0, 1, nil) },
			"Spans":    func() error { return st.Spans(ctx, 0, 1, nil) },
			"Gaps":     func() error { return st.Gaps(ctx, 0, 1, nil) },
			"Segments": func() error { _, err := st.Segments(ctx, 0, 0); return err },
		} {
			if err := ask(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s beside lists: %v", name, err)
			}
		}
		var read atomic.Bool // the index of what is played
		lists.Go(func() {
			_, err := played[0].Playback()
			if read.Store(true); err != nil {
				t.Error(err)
			}
		})
		before := st.committedBelow()
		f.play(t, 3*time.Minute)
		if read.Load() {
			t.Error("an index is read beside as many lists as may be read")
		}
		if after := st.committedBelow(); after <= before {
			t.Errorf("recordings below %d are committed, as before", after)
		}
		if err := b.s.Healthy(t.Context()); err != nil {
			t.Errorf("health: %v", err)
		}
		close(goOn)
		lists.Wait() // it is read then
		f.run.End("test")
	})
}

// A recording that is deleted after it was listed is told to be gone, not to
// be a fault.
func TestRecordingDeletedSinceIsNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, 3*time.Minute)
		f.run.End("test")
		b.stop()
		b.start()
		st = b.again("front")
		recs, err := st.Segments(t.Context(), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := recs[0].Playback(); err != nil {
			t.Fatal(err)
		}
		if err := b.s.DeleteCamera(t.Context(), st.uuid); err != nil {
			t.Fatal(err)
		}
		if _, err := recs[0].Playback(); !errors.Is(err, ErrNotFound) {
			t.Errorf("its indexes: %v", err)
		}
		if _, err := st.Segments(t.Context(), 0, 0); !errors.Is(err, ErrNotFound) {
			t.Errorf("the recording: %v", err)
		}
	})
}
