package db

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
)

// What is moved takes its spans and its place among the gaps with it, and other
// opens stay. One thing that cannot be done leaves all as it was. Fails without
// moveSpans, without its cutGaps, and without the transaction.
func TestMoveIsOneTransaction(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 400)
	second, err := h.BeginOpen(t.Context(), OpenRow{BootID: "boot", Start: testEpoch})
	h.must(err)
	first := h.open
	h.open = second
	b := h.batch(h.main, 400, 410)
	for i := range b.Add {
		b.Add[i].RunOffset = int32(i)
	}
	h.must(h.Flush(t.Context(), b))
	h.flushGaps(h.gap(h.main, 500, 600, "unreachable"), h.gap(h.main, 600, 700, "no_frames"))
	h.sane()

	const by = 130 * media.Minute
	m := &Move{
		Opens: []OpenRow{{ID: second.ID, Start: second.Start.Add(by), End: second.Start.Add(2 * by), Duration: by}},
		Streams: []StreamMove{
			{ID: h.main.ID, First: 400, Next: 410, By: by, GapsFrom: h.gap(h.main, 650, 660, "").Start,
				Gaps: []Gap{h.gap(h.main, 800, 900, "clock")}},
			{ID: 99},
		},
	}
	before := h.dump()
	if err := h.Move(t.Context(), m); err == nil {
		t.Error("a stream that there is not was moved")
	}
	if diff := cmp.Diff(before, h.dump()); diff != "" {
		t.Error(diff)
	}
	m.Streams = m.Streams[:1]
	h.must(h.Move(t.Context(), m))
	h.sane()
	h.must(h.RecordingsByNo(t.Context(), h.main.ID, 0, 1000, func(r *Recording) error {
		want := testEpoch.Add(media.Duration(r.No()) * media.Minute)
		if r.OpenID != first.ID {
			want = want.Add(by)
		}
		if r.Start != want {
			t.Errorf("recording %d begins at %v, want %v", r.No(), r.Start, want)
		}
		return nil
	}))
	want := []Gap{h.gap(h.main, 500, 530, "unreachable"), h.gap(h.main, 540, 600, "unreachable"), h.gap(h.main, 600, 650, "no_frames"),
		h.gap(h.main, 800, 900, "clock")}
	if diff := cmp.Diff(want, h.gaps(h.main)); diff != "" {
		t.Error(diff)
	}
	h.must(h.Opens(t.Context(), func(o OpenRow) error {
		if o.ID == second.ID && (o.Start != m.Opens[0].Start || o.End != m.Opens[0].End || o.Duration != by) {
			t.Errorf("open is %+v", o)
		}
		return nil
	}))
}
