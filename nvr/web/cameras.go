package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"holdfast/nvr/access"
	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// topLevel is the answer of GET /api/.
type topLevel struct {
	ServerVersion string       `json:"serverVersion"`
	TimeZoneName  string       `json:"timeZoneName"`
	Now           media.Time   `json:"now90k"`
	Clock         clockJSON    `json:"clock"`
	Permissions   permissions  `json:"permissions"`
	User          *callerJSON  `json:"user,omitempty"`
	Cameras       []cameraJSON `json:"cameras"`
	Directories   []dirJSON    `json:"directories,omitempty"` // for administrators

	// There are no signals yet; clients of the dialect expect the lists.
	Signals     []struct{} `json:"signals"`
	SignalTypes []struct{} `json:"signalTypes"`
	Machine     *Machine   `json:"machine,omitempty"`
}

// clockJSON says whether the wall clock can be relied on.
type clockJSON struct {
	Set bool `json:"set"`
}

type cameraJSON struct {
	UUID        string                `json:"uuid"`
	ID          int32                 `json:"id"`
	ShortName   string                `json:"shortName"`
	Description string                `json:"description"`
	Rights      []string              `json:"rights"` // of the caller
	Streams     map[string]streamJSON `json:"streams"`
}

type streamJSON struct {
	ID            int32          `json:"id"`
	Record        bool           `json:"record"`
	RetainBytes   int64          `json:"retainBytes"`
	RetainDays    int32          `json:"retainDays,omitempty"`
	MinStart      *media.Time    `json:"minStartTime90k,omitempty"`
	MaxEnd        *media.Time    `json:"maxEndTime90k,omitempty"`
	TotalDuration media.Duration `json:"totalDuration90k"`
	TotalBytes    int64          `json:"totalSampleFileBytes"`
	FSBytes       int64          `json:"fsBytes"`
	Recordings    int            `json:"recordings"`
	Watermark     media.Time     `json:"watermark90k,omitempty"`
	State         stateJSON      `json:"state"`
	DirError      string         `json:"dirError,omitempty"`
	DirAlarm      string         `json:"dirAlarm,omitempty"`
	FilesToAdopt  int            `json:"filesToAdopt,omitempty"`

	Days   map[string]dayJSON `json:"days,omitzero"` // by date, as asked
	Config *configJSON        `json:"config,omitempty"`
}

// dayJSON is what a stream has of one day of the recorder's zone.
type dayJSON struct {
	TotalDuration media.Duration `json:"totalDuration90k"`
	Start         media.Time     `json:"startTime90k"` // of the day
	End           media.Time     `json:"endTime90k"`
}

type stateJSON struct {
	Phase   string     `json:"phase"`
	Since   media.Time `json:"since90k,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Skipped []string   `json:"skipped,omitempty"`
}

// configJSON is how a stream is set up. Passwords are written and never read.
type configJSON struct {
	URL           string `json:"url"`
	Username      string `json:"username,omitempty"`
	RTSPTransport string `json:"rtspTransport,omitempty"`
	FlushIfSec    int32  `json:"flushIfSec"`
	SampleFileDir string `json:"sampleFileDir,omitempty"`
}

func (s *server) top(w http.ResponseWriter, r *http.Request) error {
	more, err := s.detailsAsked(r, false)
	if err != nil {
		return err
	}
	t := s.topFor(r, more.configs)
	if more.days {
		for i := range t.Cameras {
			if c, ok := s.Store.Camera(t.Cameras[i].UUID); ok {
				if err := addDays(r, c, &t.Cameras[i]); err != nil {
					return err
				}
			}
		}
	}
	return writeJSON(w, http.StatusOK, t)
}

// topFor is the state as a whole, as far as the caller may know of it.
func (s *server) topFor(r *http.Request, configs bool) topLevel {
	t := topLevel{
		ServerVersion: s.Version, TimeZoneName: s.Store.TimeZone().String(), Now: media.TimeOf(s.Now()),
		Clock:       clockJSON{s.Store.ClockGood()},
		Permissions: s.permissions(r), User: userOfCaller(callerOf(r)), Machine: s.Machine,
		Cameras: []cameraJSON{}, Signals: []struct{}{}, SignalTypes: []struct{}{},
	}
	for _, c := range s.Store.Cameras() {
		if callerOf(r).May(access.LookAround, c.ID) {
			t.Cameras = append(t.Cameras, describe(callerOf(r), c, configs))
		}
	}
	if t.Permissions.AdminCameras {
		for _, in := range s.Store.DirStates() {
			t.Directories = append(t.Directories, describeDir(&in))
		}
	}
	return t
}

func (s *server) camera(w http.ResponseWriter, r *http.Request) error {
	more, err := s.detailsAsked(r, true)
	if err != nil {
		return err
	}
	c, err := s.cameraOf(r)
	if err != nil {
		return err
	}
	j := describe(callerOf(r), c, more.configs)
	if more.days {
		if err := addDays(r, c, &j); err != nil {
			return err
		}
	}
	return writeJSON(w, http.StatusOK, j)
}

// details are what a caller wants to know of cameras beside the rest.
type details struct{ days, configs bool }

// detailsAsked reads days=true and cameraConfigs=true; the latter not everybody
// may ask. days says what counts when nothing is said of them.
func (s *server) detailsAsked(r *http.Request, days bool) (d details, err error) {
	q, err := parameters(r, []string{"days", "cameraConfigs"})
	if err != nil {
		return d, err
	}
	if d.days = days; q.Has("days") {
		if d.days, err = truthOf(q, "days"); err != nil {
			return d, err
		}
	}
	if d.configs, err = truthOf(q, "cameraConfigs"); err != nil || !d.configs {
		return d, err
	}
	return d, s.may(r, access.Administer, 0)
}

// truthOf reads a parameter that is true or false; false when it is absent.
func truthOf(q url.Values, name string) (bool, error) {
	switch v := q[name]; {
	case len(v) == 0 || v[0] == "false":
		return false, nil
	case v[0] != "true":
		return false, badRequest("%s is %q, not true or false", name, v[0])
	}
	return true, nil
}

// addDays adds the days of the streams that are described, where the caller may
// see what is recorded.
func addDays(r *http.Request, c *store.Camera, to *cameraJSON) error {
	if !callerOf(r).May(access.ViewRecorded, c.ID) {
		return nil
	}
	for typ, j := range to.Streams {
		st := c.Stream(typ)
		if st == nil {
			continue // it was deleted meanwhile
		}
		days, err := st.Days(r.Context())
		if err != nil {
			return err
		}
		j.Days = make(map[string]dayJSON, len(days))
		for _, d := range days {
			j.Days[d.Date] = dayJSON{d.Recorded, d.Start, d.End}
		}
		to.Streams[typ] = j
	}
	return nil
}

// describe is a camera as by may see it.
func describe(by *caller, c *store.Camera, configs bool) cameraJSON {
	out := cameraJSON{
		UUID: c.UUID, ID: c.ID, ShortName: c.Name, Description: c.Description,
		Rights:  by.Rights(c.ID).Names(),
		Streams: make(map[string]streamJSON, len(c.Streams)),
	}
	for _, st := range c.Streams {
		out.Streams[st.Type()] = describeStream(st, configs)
	}
	return out
}

func describeStream(st *store.Stream, configs bool) streamJSON {
	in := st.Info()
	j := streamJSON{
		ID: in.ID, Record: in.Record, RetainBytes: in.RetainBytes, RetainDays: in.RetainDays,
		TotalDuration: in.Duration, TotalBytes: in.Bytes, FSBytes: in.FSBytes, Recordings: in.Recordings,
		Watermark: in.Watermark, DirError: in.DirError, DirAlarm: in.DirAlarm, FilesToAdopt: in.ToAdopt,
		State: stateJSON{Phase: in.State.Phase, Since: in.State.Since, Reason: in.State.Reason, Skipped: in.State.Skipped},
	}
	if in.Recordings > 0 {
		j.MinStart, j.MaxEnd = &in.Start, &in.End
	}
	if configs {
		j.Config = &configJSON{
			URL: in.URL, Username: in.Username, RTSPTransport: in.Transport,
			FlushIfSec: in.FlushIfSec, SampleFileDir: in.SampleFileDir,
		}
	}
	return j
}

type cameraKey struct{}

// cameraOf returns the camera that the path names, as it was loaded to decide.
func (s *server) cameraOf(r *http.Request) (*store.Camera, error) {
	c, ok := r.Context().Value(cameraKey{}).(*store.Camera)
	if !ok {
		return nil, errors.New("a handler of a camera without one")
	}
	return c, nil
}

// streamOf returns the stream that the path names, and its camera.
func (s *server) streamOf(r *http.Request) (*store.Camera, *store.Stream, error) {
	c, err := s.cameraOf(r)
	if err != nil {
		return nil, nil, err
	}
	st, err := streamOfCamera(r, c)
	return c, st, err
}

func streamOfCamera(r *http.Request, c *store.Camera) (*store.Stream, error) {
	st := c.Stream(r.PathValue("stream"))
	if st == nil {
		return nil, &httpError{http.StatusNotFound, fmt.Sprintf("camera %q has no stream %q", c.Name, r.PathValue("stream"))}
	}
	return st, nil
}

// addCamera takes a camera as the configuration file writes it.
func (s *server) addCamera(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	b, err := readBody(r)
	if err != nil {
		return err
	}
	if callerOf(r).Done().Err() != nil {
		return errSignedOut // while the body came
	}
	c, err := store.ParseCamera(b)
	if errors.As(err, new(*store.ConfigError)) {
		return err
	}
	if err != nil {
		return badRequest("camera: %v", err)
	}
	uuid, err := s.Store.AddCamera(r.Context(), c)
	if err != nil {
		return err
	}
	s.log.Info("added camera", "camera", c.ShortName, "uuid", uuid, "by", callerOf(r).Name, "from", callerOf(r).peer.Address)
	w.Header().Set("Location", "/api/cameras/"+uuid+"/")
	return writeJSON(w, http.StatusCreated, map[string]string{"uuid": uuid})
}

// changeCamera takes {"update": …, "precondition": …}, both parts of a camera as
// POST takes it.
func (s *server) changeCamera(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		CSRF         string          `json:"csrf"`
		Update       json.RawMessage `json:"update"`
		Precondition json.RawMessage `json:"precondition"`
	}
	c, err := s.cameraOf(r)
	if err != nil {
		return err
	}
	by, err := readToChange(r, &in, &in.CSRF)
	if err != nil {
		return err
	}
	var parts [2]store.CameraChange
	for i, part := range []struct {
		name string
		json json.RawMessage
	}{{"update", in.Update}, {"precondition", in.Precondition}} {
		if part.json == nil {
			continue
		}
		parts[i], err = store.ParseCameraChange(part.json, part.name+".")
		if errors.As(err, new(*store.ConfigError)) {
			return err
		}
		if err != nil {
			return badRequest("%s: %v", part.name, err)
		}
	}
	if err := s.Store.ChangeCamera(r.Context(), c.UUID, parts[0], parts[1]); err != nil {
		return err
	}
	s.log.Info("changed camera", "camera", c.Name, "uuid", c.UUID, "by", by.Name, "from", by.peer.Address)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) deleteStream(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	c, st, err := s.streamOf(r)
	if err != nil {
		return err
	}
	if err := s.Store.DeleteStream(r.Context(), c.UUID, st.Type()); err != nil {
		return err
	}
	s.log.Info("deleted stream", "camera", c.Name, "stream", st.Type(), "by", callerOf(r).Name, "from", callerOf(r).peer.Address)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) deleteCamera(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	c, err := s.cameraOf(r)
	if err != nil {
		return err
	}
	if err := s.Store.DeleteCamera(r.Context(), c.UUID); err != nil {
		return err
	}
	s.log.Info("deleted camera", "camera", c.Name, "uuid", c.UUID, "by", callerOf(r).Name, "from", callerOf(r).peer.Address)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
