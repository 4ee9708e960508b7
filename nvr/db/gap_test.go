package db

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
)

func (h *house) gap(s Stream, from, to int, cause string) Gap {
	return Gap{s.ID, testEpoch.Add(media.Duration(from) * media.Minute), testEpoch.Add(media.Duration(to) * media.Minute), cause, "it " + cause}
}

func (h *house) flushGaps(gaps ...Gap) {
	h.t.Helper()
	h.must(h.Flush(h.t.Context(), &Batch{OpenID: h.open.ID, Gaps: gaps}))
}

// A gap that goes on is one row. Fails without the merging in putGap.
func TestAdjoiningGapsOfOneCauseAreOne(t *testing.T) {
	h := newHouse(t)
	h.flushGaps(h.gap(h.main, 0, 2, "unreachable"))
	h.flushGaps(h.gap(h.main, 2, 4, "unreachable"), h.gap(h.main, 4, 5, "login_refused"), h.gap(h.sub, 5, 6, "login_refused"))
	h.flushGaps(h.gap(h.main, 5, 6, "login_refused"), h.gap(h.main, 7, 8, "login_refused"))
	want := []Gap{h.gap(h.main, 0, 4, "unreachable"), h.gap(h.main, 4, 6, "login_refused"), h.gap(h.main, 7, 8, "login_refused")}
	if diff := cmp.Diff(want, h.gaps(h.main)); diff != "" {
		t.Error(diff)
	}
	h.sane()
	end, ok, err := h.LastGap(t.Context(), h.main.ID)
	h.must(err)
	if !ok || end != want[2].End {
		t.Errorf("last gap ends at %v, %v", end, ok)
	}
	h.must(h.ApplyConfig(t.Context(), &Change{DeleteCameras: []int32{h.front.ID}}))
	h.must(h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Gone: []int32{h.main.ID, h.sub.ID}}))
	var n int
	h.must(h.reader.QueryRow(`SELECT count(*) FROM gap`).Scan(&n))
	if n != 0 {
		t.Errorf("%d gaps of a deleted camera", n)
	}
}

// A recording that turns out to have begun before the gap was seen to end takes
// its time off the gap, also from the middle. Fails without cutGaps.
func TestWhatIsRecordedIsNoGap(t *testing.T) {
	h := newHouse(t)
	h.flushGaps(h.gap(h.main, 0, 2, "unreachable"), h.gap(h.main, 2, 9, "no_frames"))
	h.add(h.main, 1, 4) // minutes 1 to 4
	want := []Gap{h.gap(h.main, 0, 1, "unreachable"), h.gap(h.main, 4, 9, "no_frames")}
	if diff := cmp.Diff(want, h.gaps(h.main)); diff != "" {
		t.Error(diff)
	}
	h.sane()
}

// Gaps from before the oldest recording go with the recordings that were there.
func TestGapsGoWithTheRecordingsBesideThem(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 2)
	h.flushGaps(h.gap(h.main, 2, 3, "unreachable"), h.gap(h.sub, 2, 3, "unreachable"))
	h.add(h.main, 3, 5)
	h.flushGaps(h.gap(h.main, 5, 6, "unreachable"))
	h.must(h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Delete: []int64{CompositeID(h.main.ID, 0)}}))
	if n := len(h.gaps(h.main)); n != 2 {
		t.Errorf("%d gaps, expected both", n)
	}
	h.must(h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Delete: []int64{CompositeID(h.main.ID, 1)}}))
	if diff := cmp.Diff([]Gap{h.gap(h.main, 5, 6, "unreachable")}, h.gaps(h.main)); diff != "" {
		t.Error(diff)
	}
	if n := len(h.gaps(h.sub)); n != 1 {
		t.Error("a gap of another stream went")
	}
	// Without any recording the gap says why there is none.
	h.must(h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Delete: []int64{CompositeID(h.main.ID, 3), CompositeID(h.main.ID, 4)}}))
	if n := len(h.gaps(h.main)); n != 1 {
		t.Errorf("%d gaps of a stream without recordings", n)
	}
	h.sane()
}

func TestGapsAreReadByTime(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	h := newHouse(t)
	causes := Causes()
	at := 1
	for range 50 {
		n := 1 + random.IntN(5)
		h.flushGaps(h.gap(h.main, at, at+n, causes[random.IntN(len(causes))]))
		at += n + random.IntN(3)
	}
	h.sane()
	all := h.gaps(h.main)
	for range 500 {
		from := testEpoch.Add(media.Duration(random.IntN(at+2)) * media.Minute)
		to := from.Add(media.Duration(random.IntN(20)) * media.Minute)
		var want, got []Gap
		for _, g := range all {
			if g.Start < to && g.End > from && from < to {
				want = append(want, g)
			}
		}
		h.must(h.Gaps(t.Context(), h.main.ID, from, to, func(g *Gap) error { got = append(got, *g); return nil }))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("in [%v, %v): %s", from, to, diff)
		}
	}
	if plan := strings.Join(h.plan(gapsSQL, h.main.ID, 5, 6), "; "); strings.Contains(plan, "SCAN gap") || strings.Contains(plan, "TEMP B-TREE") {
		t.Errorf("the plan is %s", plan)
	}
	if plan := strings.Join(h.plan(spansSQL, 1, 5, 6), "; "); !strings.Contains(plan, "SEARCH span USING PRIMARY KEY (stream_id=? AND start_time_90k>? AND start_time_90k<?)") || strings.Contains(plan, "TEMP B-TREE") {
		t.Errorf("the plan is %s", plan)
	}
}

// CheckGap refuses what the schema refuses, and no more.
func TestCheckGapAgreesWithSchema(t *testing.T) {
	h := newHouse(t)
	good := h.gap(h.main, 1, 2, "other")
	for name, change := range map[string]func(*Gap){
		"good":             func(*Gap) {},
		"empty detail":     func(g *Gap) { g.Detail = "" },
		"longest detail":   func(g *Gap) { g.Detail = strings.Repeat("x", MaxGapDetail) },
		"too long detail":  func(g *Gap) { g.Detail = strings.Repeat("x", MaxGapDetail+1) },
		"unknown cause":    func(g *Gap) { g.Cause = "sunspots" },
		"no duration":      func(g *Gap) { g.End = g.Start },
		"backward":         func(g *Gap) { g.End = g.Start - 1 },
		"one unit":         func(g *Gap) { g.End = g.Start + 1 },
		"before the epoch": func(g *Gap) { g.Start = 0 },
		"no such stream":   func(g *Gap) { g.StreamID = 99 },
	} {
		g := good
		change(&g)
		said := h.CheckGap(&g)
		_, did := h.writer.Exec(insertGapSQL, g.StreamID, g.Start, g.End, g.Cause, g.Detail)
		if (said == nil) != (did == nil) {
			t.Errorf("%s: CheckGap says %v, the schema %v", name, said, did)
		}
		if _, err := h.writer.Exec(`DELETE FROM gap`); err != nil {
			t.Fatal(err)
		}
	}
	for _, cause := range Causes() {
		h.flushGaps(h.gap(h.main, 1, 2, cause))
	}
}
