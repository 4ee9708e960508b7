package web

import (
	"fmt"
	"net/http"

	"holdfast/nvr/media"
)

// The recorder has no signals (motion, doors). Clients of the dialect ask for
// them all the same, and get what a recorder without any answers.

type signalsJSON struct {
	Times   []media.Time `json:"times90k"`
	Signals []int32      `json:"signalIds"`
	States  []int        `json:"states"`
}

func (s *server) signals(w http.ResponseWriter, r *http.Request) error {
	q, err := parameters(r, []string{"startTime90k", "endTime90k"})
	if err != nil {
		return err
	}
	if _, _, err := s.timeRange(q); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, signalsJSON{[]media.Time{}, []int32{}, []int{}})
}

// signalTime is an instant as clients say it, whose clocks may be wrong.
type signalTime struct {
	Base string         `json:"base"` // epoch or now
	Rel  media.Duration `json:"rel90k"`
}

func (s *server) updateSignals(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		CSRF    string     `json:"csrf"`
		Signals []int32    `json:"signalIds"`
		States  []int      `json:"states"`
		Start   signalTime `json:"start"`
		End     signalTime `json:"end"`
	}
	if _, err := readSigned(r, &in, &in.CSRF); err != nil {
		return err
	}
	if len(in.Signals) != len(in.States) {
		return badRequest("signalIds and states must be as long as each other")
	}
	for name, t := range map[string]signalTime{"start": in.Start, "end": in.End} {
		if t.Base != "epoch" && t.Base != "now" {
			return badRequest("%s.base is %q, neither epoch nor now", name, t.Base)
		}
	}
	if len(in.Signals) > 0 {
		return &httpError{http.StatusNotFound, fmt.Sprintf("there is no signal %d", in.Signals[0])}
	}
	return writeJSON(w, http.StatusOK, map[string]media.Time{"time90k": media.TimeOf(s.Now())})
}
