package web

import (
	"strings"
	"testing"
)

// A client of the dialect finds that there are no signals.
func TestThereAreNoSignals(t *testing.T) {
	r := newRecorder(t, "admin")
	if got := strings.TrimSpace(string(r.get("/api/signals?startTime90k=1&endTime90k=2026-10-24").body)); got != `{"times90k":[],"signalIds":[],"states":[]}` {
		t.Errorf("GET: %s", got)
	}
	for _, path := range []string{"?startTime90k=x", "?startTime90k=2&endTime90k=1", "?signal=1"} {
		if a := r.get("/api/signals" + path); a.status != 400 {
			t.Errorf("GET %s: %d %s", path, a.status, a.body)
		}
	}
	const when = `"start":{"base":"now","rel90k":0},"end":{"base":"epoch","rel90k":161359128000000}`
	for body, want := range map[string]int{
		`{"signalIds":[],"states":[],` + when + `}`:            200,
		`{"signalIds":[7],"states":[1],` + when + `}`:          404,
		`{"signalIds":[7],"states":[],` + when + `}`:           400,
		`{"signalIds":[],"states":[]}`:                         400,
		`{"signals":[],` + when + `}`:                          400,
		`{"csrf":"x","signalIds":[],"states":[],` + when + `}`: 400,
	} {
		a := r.ask("POST", "/api/signals", body, "Content-Type", "application/json")
		if a.status != want || want == 200 && !strings.Contains(string(a.body), `"time90k":161`) {
			t.Errorf("POST %s: %d %s, want %d", body, a.status, a.body, want)
		}
	}
}
