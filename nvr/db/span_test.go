package db

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
)

// Whatever is added and deleted, in whatever order, the spans are those that
// the recordings make (sane compares), and a list of spans over any range has
// what the recordings in that range add up to. Fails without the clipping of
// spans, with a span that outlives its first recording, or that takes one of
// another run.
func TestSpansAreThoseOfTheRecordings(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	h := newHouse(t)
	start := testEpoch
	var run, next int32
	ended := false
	alive := []int32{}
	for range 60 {
		b := h.batch(h.main, next, next)
		for range random.IntN(12) {
			if ended || random.IntN(6) == 0 { // another run
				run, ended = next, false
				start = max(testEpoch, start.Add(media.Duration(random.Int64N(90*int64(media.Minute)))-20*media.Minute))
			}
			r := h.recording(h.main, next)
			r.RunOffset, r.Start, r.WallDuration = next-run, start, media.Duration(random.Int64N(int64(4*media.Minute)))
			if random.IntN(8) == 0 {
				r.WallDuration, r.MediaDelta = 0, 0
			}
			if random.IntN(5) == 0 {
				r.Flags, r.EndReason, ended = TrailingZero, "camera closed", true
			}
			start = r.End()
			b.Add = append(b.Add, r)
			alive = append(alive, next)
			next++
			if random.IntN(20) == 0 {
				next += 2 // set aside, or without a file
			}
		}
		b.Streams[0].NextNo = next
		gone := 0
		switch random.IntN(4) {
		case 0, 1: // the oldest, as retention does
			gone = random.IntN(len(alive) + 1)
			for _, no := range alive[:gone] {
				b.Delete = append(b.Delete, CompositeID(h.main.ID, no))
			}
			alive = alive[gone:]
		case 2: // any, as a repair does
			for range min(len(alive), random.IntN(3)) {
				i := random.IntN(len(alive))
				b.Delete = append(b.Delete, CompositeID(h.main.ID, alive[i]))
				alive = append(alive[:i:i], alive[i+1:]...)
			}
		}
		h.must(h.Flush(t.Context(), b))
		h.sane()
		for range 5 {
			from := testEpoch.Add(media.Duration(random.Int64N(int64(start.Sub(testEpoch)) + 1)))
			to := from.Add(media.Duration(random.Int64N(int64(10 * 60 * media.Minute))))
			below := int32(random.IntN(int(next) + 2))
			h.sameInSpans(from, to, below)
		}
		for _, r := range b.Add { // to the unit at the ends of recordings
			h.sameInSpans(r.Start, r.End()+1, next)
			h.sameInSpans(r.Start-1, r.Start, next)
			h.sameInSpans(r.End(), r.End()+1, next)
		}
	}
}

// sameInSpans compares the spans in a range with its recordings.
func (h *house) sameInSpans(from, to media.Time, below int32) {
	h.t.Helper()
	type sum struct {
		N              int32
		Samples, Bytes int64
		Ends           map[int32]string
	}
	want, got := sum{Ends: map[int32]string{}}, sum{Ends: map[int32]string{}}
	h.must(h.Recordings(h.t.Context(), h.main.ID, from, to, func(r *Recording) error {
		if r.No() < below {
			want.N++
			want.Samples += int64(r.VideoSamples)
			want.Bytes += r.FileBytes
		}
		return nil
	}))
	for _, s := range h.spans(h.main, from, to, below) {
		got.N += s.LastNo - s.FirstNo + 1
		got.Samples += s.VideoSamples
		got.Bytes += s.FileBytes
		h.must(h.RecordingsByNo(h.t.Context(), h.main.ID, s.LastNo, s.LastNo+1, func(r *Recording) error {
			if r.End() != s.End || r.EndReason != s.EndReason || (r.Flags&TrailingZero != 0) != s.TrailingZero {
				h.t.Errorf("span %+v ends otherwise than recording %+v", s, r)
			}
			return nil
		}))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		h.t.Errorf("in [%d, %d) below %d: spans have other recordings: %s", from, to, below, diff)
	}
}

// A day, a week or a month of a camera that keeps its connection are few rows.
func TestSpanBeginsAnewAfterSixHours(t *testing.T) {
	h := newHouse(t)
	h.fill(24*60, h.main)
	if n := len(h.spans(h.main, 0, 1<<60, 1<<31-1)); n != 4 {
		t.Errorf("%d spans in a day", n)
	}
	h.sane()
}
