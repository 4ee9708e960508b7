package db

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
)

func TestFlushedRecordingReadsBackWhole(t *testing.T) {
	h := newHouse(t)
	b := h.batch(h.main, 0, 3)
	b.Add[1].Flags = HasOffsets | Recovered
	b.Add[1].Offsets = []byte{9}
	b.Add[1].AudioEntry, b.Add[1].AudioSamples, b.Add[1].AudioBytes, b.Add[1].Audio = 0, 0, 0, nil
	b.Add[1].LocalTimeDelta = nil
	b.Add[2].Flags, b.Add[2].EndReason = TrailingZero, "camera closed"
	h.must(h.Flush(t.Context(), b))
	h.reopen()

	var byNo, byTime, want []Recording
	for _, r := range b.Add {
		want = append(want, r.Recording)
		p, err := h.Playback(t.Context(), r.ID)
		h.must(err)
		if diff := cmp.Diff(r.Playback, p); diff != "" {
			t.Errorf("playback of %s: %s", idString(r.ID), diff)
		}
	}
	h.must(h.RecordingsByNo(t.Context(), h.main.ID, 0, 100, func(r *Recording) error { byNo = append(byNo, *r); return nil }))
	h.must(h.Recordings(t.Context(), h.main.ID, 0, 1<<60, func(r *Recording) error { byTime = append(byTime, *r); return nil }))
	if diff := cmp.Diff(want, byNo); diff != "" {
		t.Errorf("by number: %s", diff)
	}
	if diff := cmp.Diff(want, byTime); diff != "" {
		t.Errorf("by time: %s", diff)
	}

	s := h.state()
	if diff := cmp.Diff([]SampleEntry{videoEntry, audioEntry}, s.Entries); diff != "" {
		t.Errorf("sample entries: %s", diff)
	}
	got := s.Streams[0]
	wantStream := h.main
	wantStream.NextNo, wantStream.CumMedia, wantStream.CumRuns = 3, 3*media.Minute, 1
	wantStream.Recordings, wantStream.Bytes, wantStream.FSBytes, wantStream.Duration = 3, 3003, 3*4096, 3*media.Minute
	if diff := cmp.Diff(wantStream, got); diff != "" {
		t.Errorf("stream: %s", diff)
	}
	h.must(h.Opens(t.Context(), func(o OpenRow) error {
		if o.End != b.Time || o.Duration != b.OpenDuration {
			t.Errorf("open row is %+v, expected end %d, duration %d", o, b.Time, b.OpenDuration)
		}
		return ErrStop
	}))
	h.sane()
}

// A garbage row that is gone already is what the flush wants; were it an error,
// a slip would stop all flushes for good.
func TestGarbageRowThatIsGoneHoldsUpNothing(t *testing.T) {
	h := newHouse(t)
	b := h.batch(h.main, 0, 3)
	b.Collected = []Garbage{{h.main.DirID, 77}}
	if err := h.Flush(t.Context(), b); err != nil {
		t.Error(err)
	}
	h.sane()
}

func TestRefusedFlushLeavesNothing(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 5)
	id := CompositeID(h.main.ID, 6)
	for name, c := range map[string]struct {
		spoil func(*Batch)
		want  string
	}{
		"too long": {func(b *Batch) { b.Add[1].WallDuration = media.MaxRecording },
			fmt.Sprintf("flush: insert recording %s of front main: wall duration 27000000 is not in 0 … 26999999", idString(id))},
		"duplicate":              {func(b *Batch) { b.Add[1].ID = CompositeID(h.main.ID, 2) }, "number 2 is already committed, the next is 5"},
		"wrong order":            {func(b *Batch) { b.Add[1], b.Add[2] = b.Add[2], b.Add[1] }, "it comes after 7"},
		"next number not set":    {func(b *Batch) { b.Streams[0].NextNo = 7 }, "insert recording 1/7 of front main: the stream's next recording is not set beyond 7"},
		"next number backwards":  {func(b *Batch) { b.Streams[0].NextNo = 4 }, "update front main: next recording 4 is before 5"},
		"no stream":              {func(b *Batch) { b.Add[1].ID = CompositeID(99, 6) }, "insert recording 99/6 of stream 99: stream 99: not found"},
		"update of no stream":    {func(b *Batch) { b.Streams[0].ID = 99 }, "update stream 99: not found"},
		"update twice":           {func(b *Batch) { b.Streams = append(b.Streams, b.Streams[0]) }, "update front main: it is in the batch twice"},
		"no open":                {func(b *Batch) { b.Add[1].OpenID = 99 }, "open 99: not found"},
		"no current open":        {func(b *Batch) { b.OpenID = 0 }, "open 0: not found"},
		"no directory":           {func(b *Batch) { b.Add[1].DirID = 99 }, "sample directory 99: not found"},
		"no video entry":         {func(b *Batch) { b.Add[1].VideoEntry = 99 }, "video sample entry 99: not found"},
		"no audio entry":         {func(b *Batch) { b.Add[1].AudioEntry = 99 }, "audio sample entry 99: not found"},
		"negative audio entry":   {func(b *Batch) { b.Add[1].AudioEntry = -1 }, "audio sample entry -1: not found"},
		"entry exists":           {func(b *Batch) { b.Entries = []SampleEntry{videoEntry} }, "insert video sample entry 1: it exists already"},
		"entry of no use":        {func(b *Batch) { e := videoEntry; e.ID, e.Width = 2, 0; b.Entries = []SampleEntry{e} }, "insert video sample entry 2: picture of 0x1080 pixels"},
		"delete what is not":     {func(b *Batch) { b.Delete = []int64{CompositeID(h.main.ID, 4), CompositeID(h.sub.ID, 1)} }, "delete recording 2/1 of front sub: not found"},
		"delete twice":           {func(b *Batch) { b.Delete = []int64{CompositeID(h.main.ID, 4), CompositeID(h.main.ID, 4)} }, "delete recording 1/4 of front main: not found"},
		"delete of no stream":    {func(b *Batch) { b.Delete = []int64{CompositeID(77, 4)} }, "delete recording 77/4 of stream 77: not found"},
		"collect of no dir":      {func(b *Batch) { b.Collected = []Garbage{{99, 77}} }, "collect garbage 0/77 of sample directory 99: not found"},
		"discard of no dir":      {func(b *Batch) { b.Discard = []Garbage{{99, CompositeID(h.main.ID, 7)}} }, "discard recording 1/7 of front main: sample directory 99: not found"},
		"discard of a recording": {func(b *Batch) { b.Discard = []Garbage{{h.main.DirID, CompositeID(h.main.ID, 3)}} }, "discard recording 1/3 of front main: it is committed"},
		"discard of a number to come": {func(b *Batch) { b.Discard = []Garbage{{h.main.DirID, CompositeID(h.main.ID, 8)}} },
			"discard recording 1/8 of front main: the stream's next recording is not set beyond 8"},
		"negative counter": {func(b *Batch) { b.Streams[0].CumRuns = -1 }, "update front main: constraint failed: CHECK constraint failed: cum_runs >= 0"},
	} {
		t.Run(name, func(t *testing.T) {
			before := h.dump()
			b := h.batch(h.main, 5, 8)
			c.spoil(b)
			err := h.Flush(t.Context(), b)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, expected …%s…", err, c.want)
			}
			if sqliteCode(err) == codeConstraint|3<<8 {
				t.Errorf("a foreign key was violated: %v", err)
			}
			if diff := cmp.Diff(before, h.dump()); diff != "" {
				t.Errorf("the database changed: %s", diff)
			}
			if Poisoned(err) {
				t.Errorf("%v counts as a failed medium", err)
			}
		})
	}
	h.add(h.main, 5, 8) // the database still takes a good batch
	h.sane()
}

func TestRefusedFlushNamesTheRecordingToSetAside(t *testing.T) {
	h := newHouse(t)
	b := h.batch(h.main, 0, 3)
	b.Add[1].VideoSamples = 0
	err := h.Flush(t.Context(), b)
	re, ok := errors.AsType[*RecordingError](err)
	if !ok || re.ID != b.Add[1].ID {
		t.Fatalf("got %v, expected an error that names %s", err, idString(b.Add[1].ID))
	}
	b.Discard = []Garbage{{b.Add[1].DirID, b.Add[1].ID}}
	b.Add = slices.Delete(b.Add, 1, 2)
	h.must(h.Flush(t.Context(), b))
	if diff := cmp.Diff([]int32{0, 2}, h.numbers(h.main)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(b.Discard, h.state().Garbage); diff != "" {
		t.Error(diff)
	}
	h.sane()
}

func TestCancelledFlushLeavesNothing(t *testing.T) {
	h := newHouse(t)
	before := h.dump()
	ctx, cancel := withCancel(t)
	cancel()
	if err := h.Flush(ctx, h.batch(h.main, 0, 1)); !errors.Is(err, ctx.Err()) {
		t.Errorf("got %v, expected %v", err, ctx.Err())
	}
	if diff := cmp.Diff(before, h.dump()); diff != "" {
		t.Error(diff)
	}
}

func TestDeletedRecordingBecomesGarbageUntilCollected(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 4)
	b := &Batch{OpenID: h.open.ID, Delete: []int64{CompositeID(h.main.ID, 0), CompositeID(h.main.ID, 1)}}
	h.must(h.Flush(t.Context(), b))
	garbage := []Garbage{{h.main.DirID, b.Delete[0]}, {h.main.DirID, b.Delete[1]}}
	if diff := cmp.Diff(garbage, h.state().Garbage); diff != "" {
		t.Error(diff)
	}
	if _, err := h.Playback(t.Context(), b.Delete[0]); !errors.Is(err, ErrNotFound) {
		t.Errorf("playback of a deleted recording: got %v, expected %v", err, ErrNotFound)
	}
	h.sane()
	h.must(h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Collected: garbage[:1]}))
	if diff := cmp.Diff(garbage[1:], h.state().Garbage); diff != "" {
		t.Error(diff)
	}
	h.sane()
}

// A recording may move to another directory's stream and still be deleted
// from the one it is in.
func TestGarbageIsInTheDirectoryOfTheRecording(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 1)
	moved := h.main
	moved.DirID = h.dirs[1].ID
	h.must(h.ApplyConfig(t.Context(), &Change{Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{moved}}}}))
	h.must(h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Delete: []int64{CompositeID(h.main.ID, 0)}}))
	if diff := cmp.Diff([]Garbage{{h.dirs[0].ID, CompositeID(h.main.ID, 0)}}, h.state().Garbage); diff != "" {
		t.Error(diff)
	}
}

func TestTotalsAreTheSumsOfTheRows(t *testing.T) {
	h := newHouse(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	streams := []Stream{h.main, h.sub}
	next := make([]int32, len(streams))
	var live []int64
	var garbage []Garbage
	for range 60 {
		b := &Batch{OpenID: h.open.ID}
		if len(h.state().Entries) == 0 {
			b.Entries = []SampleEntry{videoEntry, audioEntry}
		}
		for range min(r.IntN(4), len(live)) {
			i := r.IntN(len(live))
			b.Delete = append(b.Delete, live[i])
			live = slices.Delete(live, i, i+1)
		}
		b.Collected, garbage = garbage, nil
		for i, s := range streams {
			for range r.IntN(4) {
				rec := h.recording(s, next[i])
				rec.FileBytes, rec.WallDuration = 1000+r.Int64N(9000), media.Duration(r.Int64N(int64(media.MaxRecording)-10))
				rec.FSBytes = (rec.FileBytes + 4095) &^ 4095
				b.Add = append(b.Add, rec)
				next[i]++
			}
			b.Streams = append(b.Streams, StreamUpdate{ID: s.ID, NextNo: next[i]})
		}
		for i := range b.Add {
			if err := h.Check(&b.Add[i], b.Entries...); err != nil {
				t.Fatal(err)
			}
			if r.IntN(8) == 0 { // added and deleted by the same flush
				b.Delete = append(b.Delete, b.Add[i].ID)
			} else {
				live = append(live, b.Add[i].ID)
			}
		}
		h.must(h.Flush(t.Context(), b))
		garbage = h.state().Garbage
		if got, want := len(garbage), len(b.Delete); got != want {
			t.Fatalf("%d garbage rows, expected %d", got, want)
		}
		h.sane()
		if t.Failed() {
			return
		}
	}
}
