package web

import (
	"cmp"
	"net/http"

	"holdfast/nvr/access"
	"holdfast/nvr/store"
)

// healthJSON is the answer of /healthz. Only checks decide ok; the rest is no fault
// of the recorder, or none that keeps it from recording.
type healthJSON struct {
	OK      bool        `json:"ok"`
	Checks  []checkJSON `json:"checks"`
	Streams struct {
		Wanted    int `json:"wanted"`
		Recording int `json:"recording"`
	} `json:"streams"`
	NotRecording []notRecordingJSON `json:"notRecording"` // those that the caller may know of
	FilesToAdopt int                `json:"filesToAdopt,omitempty"`
	Restored     string             `json:"restored,omitempty"` // that the database is a copy since this start
	TLS          string             `json:"tls,omitempty"`      // what is wrong with the certificate
	Machine      *Machine           `json:"machine,omitempty"`
}

type checkJSON struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Cause string `json:"cause,omitempty"`
}

type notRecordingJSON struct {
	Camera string `json:"camera"` // its name
	Stream string `json:"stream"` // main, sub or ext
	Cause  string `json:"cause"`
}

// health says whether the recorder can record, what does not, and how the
// machine fared. A camera that is away is no fault of the recorder. Which
// stream it is, is for those who may look.
func (s *server) health(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	h := healthJSON{OK: true, Checks: []checkJSON{}, NotRecording: []notRecordingJSON{}, Machine: s.Machine, Restored: s.Store.Restored()}
	for _, c := range s.Store.HealthChecks() {
		h.Checks = append(h.Checks, checkJSON{c.Name, c.Cause == "", c.Cause})
		h.OK = h.OK && c.Cause == ""
	}
	for _, c := range s.Store.Cameras() {
		for _, st := range c.Streams {
			in := st.Info()
			h.FilesToAdopt += in.ToAdopt
			switch {
			case !in.Record:
				continue
			case in.State.Phase == store.Recording:
				h.Streams.Recording++
			case callerOf(r).May(access.LookAround, c.ID):
				h.NotRecording = append(h.NotRecording, notRecordingJSON{c.Name, in.Type, cmp.Or(in.State.Reason, in.State.Phase)})
			}
			h.Streams.Wanted++
		}
	}
	if s.TLS != nil {
		h.TLS = s.TLS.Fault()
	}
	w.Header().Set("Cache-Control", "no-store")
	status := http.StatusOK
	if !h.OK {
		status = http.StatusServiceUnavailable
	}
	return writeJSON(w, status, h)
}
