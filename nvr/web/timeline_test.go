package web

import (
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// Spans are merged as if each moment were looked at.
func TestTimelineIsMergedToItsResolution(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		resolution := media.Duration(1 + r.IntN(20))
		var lane laneJSON
		var at [600]bool
		var recorded media.Duration
		start := media.Time(0)
		for range r.IntN(40) {
			// Nearly in order: what is in memory comes behind, and may overlap.
			start = max(0, min(500, start.Add(media.Duration(r.IntN(40)-5))))
			end := start.Add(media.Duration(1 + r.IntN(30)))
			lane.addSpan(start, end, false, resolution)
			recorded += end.Sub(start)
			for i := start; i < end; i++ {
				at[i] = true
			}
		}
		var want []laneSpanJSON
		for i, on := range at {
			if !on {
				continue
			}
			now := media.Time(i)
			if n := len(want); n > 0 && now.Sub(want[n-1].End) < resolution {
				want[n-1].End = now + 1
			} else {
				want = append(want, laneSpanJSON{Start: now, End: now + 1})
			}
		}
		got := slices.Clone(lane.Spans)
		for i := range got {
			recorded -= got[i].Recorded
			got[i].Recorded = 0
		}
		if diff := cmp.Diff(want, got); diff != "" || recorded != 0 {
			t.Fatalf("resolution %d: %v are not counted; %s", resolution, recorded, diff)
		}
	}
}

func TestTimelineOfAllStreams(t *testing.T) {
	r := newFrozenRecorder(t, "view")
	began := media.TimeOf(start)
	type timeline struct {
		timelineJSON
		Streams []laneJSON
	}
	ask := func(query string) timeline {
		t.Helper()
		var answer timeline
		r.json("/api/timeline?startTime90k=2026-10-24T20:00:00Z&endTime90k=2026-10-25T20:00:00Z"+query, &answer)
		return answer
	}
	st := r.stream("sub")
	st.SetState(store.Connecting, "", nil)
	st.Wait(store.CameraUnreachable, "no answer")
	r.ahead.Store(int64(10 * time.Minute))
	st.Wait(store.LoginRefused, "")
	r.ahead.Store(int64(15 * time.Minute))
	r.camera("main").send(120)

	got := ask("")
	if len(got.Streams) != 2 || got.Streams[0].Stream != "main" || got.Streams[1].Stream != "sub" || got.Resolution != 24*60*media.Minute/10_000 {
		t.Fatalf("timeline: %+v", got)
	}
	if spans := got.Streams[0].Spans; len(spans) != 1 || spans[0].Recorded <= 0 || !spans[0].Growing {
		t.Errorf("spans of main: %+v", spans)
	}
	opt := cmp.AllowUnexported(laneGapJSON{})
	want := []laneGapJSON{{Start: began, End: began.Add(15 * media.Minute), Lost: 15 * media.Minute, Cause: store.CameraUnreachable}}
	if diff := cmp.Diff(want, got.Streams[1].Gaps, opt); diff != "" {
		t.Error(diff)
	}
	got = ask("&stream=" + r.uuid + "/sub&resolution90k=100000000")
	if len(got.Streams) != 1 || len(got.Streams[0].Gaps) != 1 {
		t.Errorf("timeline of one: %+v", got)
	}

	for query, text := range map[string]string{
		"startTime90k=1":                                        "more than 366 days",
		"startTime90k=2100-01-01":                               "later than now",
		"startTime90k=0&endTime90k=9999999999999":               "more than 366 days",
		"startTime90k=0&endTime90k=90000000&resolution90k=8999": "at least 9000",
		"startTime90k=0&endTime90k=90000000&resolution90k=1h":   "not a number",
		"startTime90k=9&endTime90k=1":                           "later than",
		"startTime90k=0&endTime90k=9&stream=x/main":             "no stream",
		"startTime90k=0&endTime90k=9&streams=x":                 "unknown parameter",
	} {
		a := r.ask("GET", "/api/timeline?"+query, "")
		if status := a.status; status != 400 && status != 404 || !strings.Contains(string(a.body), text) {
			t.Errorf("%s: %d %s, want %q", query, status, a.body, text)
		}
	}
}

// What the timelines of all streams have counts with the rows of lists, and no more
// when they are answered.
func TestTimelinesAreBounded(t *testing.T) {
	r := newRecorder(t, "view")
	cam := r.camera("main")
	cam.send(60)
	defer cam.run.End("test over")
	r.stream("sub").Wait(store.CameraUnreachable, "no answer")
	r.ahead.Store(int64(10 * time.Minute))
	s := newServer(Config{Store: r.store, Anonymous: "view"})
	s.lists = share{most: rowsAtOnce, always: 1} // a span and a gap are more
	h := hold(thePage(t), s.handler(), true, nil, func(breach string) { t.Error(breach) })
	ask := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/api/timeline?startTime90k=2026-10-24T20:00:00Z&endTime90k=2026-10-25T20:00:00Z", nil))
		return w
	}
	done, ok := s.lists.take(anyone(""), 2)
	if !ok {
		t.Fatal("no room at the beginning")
	}
	if w := ask(); w.Code != 503 || !strings.Contains(w.Body.String(), "rows are listed") {
		t.Errorf("beside others: %d %s", w.Code, w.Body)
	}
	done()
	for range 3 {
		if w := ask(); w.Code != 200 || s.lists.held != 0 {
			t.Errorf("%d %s; %d are held", w.Code, w.Body, s.lists.held)
		}
	}
}
