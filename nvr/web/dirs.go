package web

import (
	"math"
	"net/http"
	"strconv"

	"holdfast/nvr/store"
)

// dirJSON is a sample directory, for administrators. Numbers that are not known
// are absent.
type dirJSON struct {
	ID    int32  `json:"id"`
	Path  string `json:"path"`
	State string `json:"state"` // ok, failing or unused
	Error string `json:"error,omitempty"`
	Alarm string `json:"alarm,omitempty"`
	Total *int64 `json:"totalBytes,omitempty"` // of its file system
	Free  *int64 `json:"freeBytes,omitempty"`
	Floor *int64 `json:"floorBytes,omitempty"`
}

// dirReportJSON is a sample directory with what is in it, and how long that stays.
type dirReportJSON struct {
	dirJSON
	Used         int64           `json:"usedBytes"`
	GarbageFiles int             `json:"garbageFiles"`
	GarbageBytes int64           `json:"garbageBytes"`
	WatermarkAge *float64        `json:"watermarkAgeSec,omitempty"`
	BytesPerDay  *int64          `json:"bytesPerDay,omitempty"`
	ForecastDays *float64        `json:"forecastDays,omitempty"`
	Streams      []dirStreamJSON `json:"streams"`
}

// dirStreamJSON is a stream that is recorded to a directory.
type dirStreamJSON struct {
	Camera       string   `json:"camera"` // uuid
	ShortName    string   `json:"shortName"`
	Stream       string   `json:"stream"`
	Used         int64    `json:"usedBytes"`
	BytesPerDay  *int64   `json:"bytesPerDay,omitempty"`
	ForecastDays *float64 `json:"forecastDays,omitempty"`
}

// known is a number of at least 0; below it is not known.
func known[T int64 | float64](n T) *T {
	if n < 0 {
		return nil
	}
	return &n
}

// tenths rounds what is no more exact.
func tenths(n float64) float64 { return math.Round(n*10) / 10 }

func (s *server) listDirs(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	dirs, err := s.Store.DirReports(r.Context())
	if err != nil {
		return err
	}
	out := struct {
		Dirs []dirReportJSON `json:"dirs"`
	}{[]dirReportJSON{}}
	for _, d := range dirs {
		out.Dirs = append(out.Dirs, reportDir(&d))
	}
	return writeJSON(w, http.StatusOK, out)
}

func describeDir(d *store.DirInfo) dirJSON {
	j := dirJSON{ID: d.ID, Path: d.Path, State: "ok", Error: d.Error, Alarm: d.Alarm}
	switch {
	case !d.InUse:
		j.State = "unused"
	case d.Error != "":
		j.State = "failing"
	}
	if d.Total > 0 {
		j.Total, j.Free, j.Floor = &d.Total, &d.Free, &d.Floor
	}
	return j
}

func reportDir(d *store.DirReport) dirReportJSON {
	j := dirReportJSON{
		dirJSON: describeDir(&d.DirInfo),
		Used:    d.Bytes, GarbageFiles: d.Garbage, GarbageBytes: d.GarbageBytes,
		BytesPerDay: known(d.PerDay), ForecastDays: known(tenths(d.Days)),
		Streams: []dirStreamJSON{},
	}
	if d.WatermarkAge >= 0 {
		j.WatermarkAge = known(tenths(d.WatermarkAge.Seconds()))
	}
	for _, st := range d.Streams {
		j.Streams = append(j.Streams, dirStreamJSON{
			Camera: st.Camera.UUID, ShortName: st.Camera.Name, Stream: st.Stream.Type(), Used: st.Bytes,
			BytesPerDay: known(st.PerDay), ForecastDays: known(tenths(st.Days)),
		})
	}
	return j
}

// addDir takes {"path": …}.
func (s *server) addDir(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		CSRF string `json:"csrf"`
		Path string `json:"path"`
	}
	by, err := readToChange(r, &in, &in.CSRF)
	if err != nil {
		return err
	}
	id, err := s.Store.AddDir(r.Context(), in.Path)
	if err != nil {
		return err
	}
	s.log.Info("added sample directory", "dir", in.Path, "by", by.Name, "from", by.peer.Address)
	w.Header().Set("Location", "/api/dirs/"+strconv.Itoa(int(id)))
	return writeJSON(w, http.StatusCreated, map[string]int32{"id": id})
}

func (s *server) deleteDir(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	id, err := strconv.ParseInt(r.PathValue("dir"), 10, 32)
	if err != nil {
		return &httpError{http.StatusNotFound, "there is no such sample directory"}
	}
	if err := s.Store.DeleteDir(r.Context(), int32(id)); err != nil {
		return err
	}
	by := callerOf(r)
	s.log.Info("deleted sample directory", "id", id, "by", by.Name, "from", by.peer.Address)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
