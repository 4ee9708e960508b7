package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"holdfast/nvr/db"
)

// Settings is a configuration as it stands in a file.
type Settings struct {
	Cameras []CameraConfig `json:"cameras"`
}

// CameraConfig is a camera as configuration files and the API write it.
type CameraConfig struct {
	ShortName   string                  `json:"shortName"`
	Description string                  `json:"description,omitempty"`
	Streams     map[string]StreamConfig `json:"streams"` // by type: main, sub, ext
}

// StreamConfig is a stream as configuration files and the API write it.
type StreamConfig struct {
	// URL is rtsp://host[:port]/path or rtsps://…; a user and a password in
	// it are the same as Username and Password.
	URL      string `json:"url"`
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`

	Record        bool   `json:"record"`
	RTSPTransport string `json:"rtspTransport,omitempty"` // "tcp" (default) or "udp"

	// RetainBytes is how much the stream may take on its disk; the oldest
	// recordings go first. 0 is no limit of its own: what the disk has room for
	// is kept, and then the oldest on it goes, whichever stream it is of.
	RetainBytes int64 `json:"retainBytes,omitempty"`

	// RetainDays is how many days a recording is kept at most, 0 for as long as
	// there is room.
	RetainDays int `json:"retainDays,omitempty"`

	// FlushIfSec is how long a recording may wait for its row in the
	// database. Samples are durable within seconds whatever it is.
	FlushIfSec *int `json:"flushIfSec,omitempty"` // default 120

	// SampleFileDir is the absolute path of the directory, an empty one when
	// it is new. Empty: the recorder's own, in its data directory.
	SampleFileDir string `json:"sampleFileDir,omitempty"`

	// lost says why there is a password which cannot be read, and stays unless
	// Password is another; "" when there is none such.
	lost string
}

// ConfigError is a value that cannot be used. Nothing was changed.
type ConfigError struct {
	Field   string // for example "cameras[0].streams.main.url"
	Problem string
}

func (e *ConfigError) Error() string { return e.Field + ": " + e.Problem }

const defaultFlushIfSec = 120

// AddCamera adds a camera and returns its uuid. Recording begins at once.
func (s *Store) AddCamera(ctx context.Context, c CameraConfig) (uuid string, err error) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	if err := validateCamera(&c, ""); err != nil {
		return "", err
	}
	if s.named(c.ShortName) != nil {
		return "", nameTaken(c.ShortName)
	}
	if err := s.put(ctx, []placed{{c, nil}}, ""); err != nil {
		return "", err
	}
	if cam := s.named(c.ShortName); cam != nil {
		return cam.UUID, nil
	}
	return "", fmt.Errorf("camera %q: %w", c.ShortName, ErrNotFound)
}

// named returns the camera of a name, nil when there is none.
func (s *Store) named(name string) *Camera {
	for _, c := range s.Cameras() {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func nameTaken(name string) error {
	return &ConfigError{"shortName", fmt.Sprintf("there is a camera named %q already", name)}
}

// Import makes the configuration hold the cameras of the file: those with a
// name that exists are changed, the others added, and none is removed. All is
// validated before anything changes.
func (s *Store) Import(ctx context.Context, set Settings) error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	if err := set.validate(); err != nil {
		return err
	}
	var cameras []placed
	for _, c := range set.Cameras {
		at := placed{c, s.named(c.ShortName)}
		for typ, sc := range c.Streams {
			sc.lost = ""
			if st := at.stream(typ); st != nil {
				if was := st.settings(); sc.Username == was.Username {
					sc.lost = was.PasswordLost // of another user it is another password
				}
			}
			c.Streams[typ] = sc
		}
		cameras = append(cameras, at)
	}
	return s.put(ctx, cameras, "cameras")
}

// Export is the configuration, passwords included, as Import takes it. One that
// cannot be read is left out; Import of the same leaves it where it is.
func (s *Store) Export() Settings {
	set := Settings{Cameras: []CameraConfig{}}
	for _, c := range s.Cameras() {
		set.Cameras = append(set.Cameras, s.configOf(c))
	}
	return set
}

// configOf is the configuration of a camera, passwords included.
func (s *Store) configOf(c *Camera) CameraConfig {
	cc := CameraConfig{ShortName: c.Name, Description: c.Description, Streams: make(map[string]StreamConfig)}
	for _, st := range c.Streams {
		cfg := st.settings()
		flush := int(cfg.FlushIfSec)
		sc := StreamConfig{
			URL: cfg.URL, Username: cfg.Username, Password: cfg.Password, Record: cfg.Record,
			RTSPTransport: cfg.Transport, RetainBytes: cfg.RetainBytes, RetainDays: int(cfg.RetainDays), FlushIfSec: &flush,
			lost: cfg.PasswordLost,
		}
		if st.dir != nil && st.dir.path != s.resolve(defaultDir) {
			sc.SampleFileDir = st.dir.path
		}
		cc.Streams[st.typ] = sc
	}
	return cc
}

// ParseSettings reads a configuration file and checks every value that can be
// checked without a data directory.
func ParseSettings(b []byte) (Settings, error) {
	var file struct {
		Cameras []json.RawMessage `json:"cameras"`
	}
	if err := decode(b, &file, ""); err != nil {
		return Settings{}, err
	}
	var set Settings
	for i, raw := range file.Cameras {
		c, err := parseCamera(raw, fmt.Sprintf("cameras[%d].", i))
		if err != nil {
			return Settings{}, err
		}
		set.Cameras = append(set.Cameras, c)
	}
	return set, set.validate()
}

// ParseCamera reads one camera, as configuration files have it, and checks
// its values.
func ParseCamera(b []byte) (CameraConfig, error) {
	c, err := parseCamera(b, "")
	if err != nil {
		return CameraConfig{}, err
	}
	return c, validateCamera(&c, "")
}

// parseCamera reads level by level, so that an error can say where it is.
func parseCamera(b []byte, field string) (CameraConfig, error) {
	var raw struct {
		ShortName   string                     `json:"shortName"`
		Description string                     `json:"description"`
		Streams     map[string]json.RawMessage `json:"streams"`
	}
	if err := decode(b, &raw, field); err != nil {
		return CameraConfig{}, err
	}
	c := CameraConfig{ShortName: raw.ShortName, Description: raw.Description, Streams: make(map[string]StreamConfig)}
	for _, typ := range slices.Sorted(maps.Keys(raw.Streams)) {
		var sc StreamConfig
		if err := decode(raw.Streams[typ], &sc, field+"streams."+typ+"."); err != nil {
			return CameraConfig{}, err
		}
		c.Streams[typ] = sc
	}
	return c, nil
}

// decode reads one JSON value and says what is wrong in the words of whoever
// wrote it.
func decode(b []byte, to any, field string) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(to)
	if err == nil {
		if _, err := d.Token(); err != io.EOF {
			return errors.New("there is more after its end")
		}
		return nil
	}
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		where := strings.TrimSuffix(field+t.Field, ".")
		if where == "" {
			where = "the configuration"
		}
		return &ConfigError{where, fmt.Sprintf("is a JSON %s where %s is expected", t.Value, jsonType(t.Type.Kind()))}
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		name = strings.Trim(name, `"`)
		if like := fieldLike(name, reflect.TypeOf(to).Elem()); like != "" {
			return &ConfigError{field + name, "is not a field; did you mean " + like + "?"}
		}
		return &ConfigError{field + name, "is not a field"}
	}
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("not JSON: line %d: %w", 1+bytes.Count(b[:min(s.Offset, int64(len(b)))], []byte("\n")), err)
	}
	return fmt.Errorf("not JSON: %w", err)
}

// fieldLike is the field of a JSON object whose name holds name, or is held by
// it: shortName for name.
func fieldLike(name string, object reflect.Type) string {
	name = strings.ToLower(name)
	for i := range object.NumField() {
		field, _, _ := strings.Cut(object.Field(i).Tag.Get("json"), ",")
		lower := strings.ToLower(field)
		if field != "" && len(name) > 2 && (strings.Contains(lower, name) || strings.Contains(name, lower)) {
			return field
		}
	}
	return ""
}

// jsonType is what JSON calls a kind of value.
func jsonType(k reflect.Kind) string {
	switch k {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice:
		return "a list"
	}
	return "a whole number"
}

// validate checks all cameras and brings their values into one form.
func (set *Settings) validate() error {
	names := make(map[string]int)
	for i := range set.Cameras {
		field := fmt.Sprintf("cameras[%d].", i)
		if err := validateCamera(&set.Cameras[i], field); err != nil {
			return err
		}
		name := set.Cameras[i].ShortName
		if j, twice := names[name]; twice {
			return &ConfigError{field + "shortName", fmt.Sprintf("%q is also the name of cameras[%d]", name, j)}
		}
		names[name] = i
	}
	return nil
}

func validateCamera(c *CameraConfig, field string) error {
	switch {
	case c.ShortName == "":
		return &ConfigError{field + "shortName", "is missing"}
	case strings.TrimSpace(c.ShortName) != c.ShortName || len(c.ShortName) > 64 || strings.ContainsFunc(c.ShortName, notPrintable):
		return &ConfigError{field + "shortName", "must be 1 to 64 bytes of printable text without space at its ends"}
	case len(c.Streams) == 0:
		return &ConfigError{field + "streams", "is missing: give at least main or sub"}
	}
	for _, typ := range slices.Sorted(maps.Keys(c.Streams)) {
		f := field + "streams." + typ
		if typ != "main" && typ != "sub" && typ != "ext" {
			return &ConfigError{f, "is not a stream; streams are main, sub and ext"}
		}
		sc := c.Streams[typ]
		if err := validateStream(&sc, f+"."); err != nil {
			return err
		}
		c.Streams[typ] = sc
	}
	return nil
}

func notPrintable(r rune) bool { return r < ' ' || r == 0x7f }

// validateStream checks the values and brings them into one form.
func validateStream(c *StreamConfig, field string) error {
	bad := func(name, problem string, args ...any) error {
		return &ConfigError{field + name, fmt.Sprintf(problem, args...)}
	}
	if c.URL == "" {
		return bad("url", "is missing")
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil:
		// The error of the parser may quote a password.
		return bad("url", "is not a URL: expected rtsp://host/path")
	case u.Scheme != "rtsp" && u.Scheme != "rtsps":
		return bad("url", "begins with %q: only rtsp:// and rtsps:// cameras can be recorded", u.Scheme)
	case u.Hostname() == "":
		return bad("url", "names no host: expected rtsp://host/path")
	}
	if u.User != nil {
		password, _ := u.User.Password()
		if c.Username != "" && c.Username != u.User.Username() || c.Password != "" && c.Password != password {
			return bad("url", "has a user that differs from username and password")
		}
		c.Username, c.Password = u.User.Username(), password
		u.User = nil
	}
	c.URL = u.String()
	switch c.RTSPTransport {
	case "":
		c.RTSPTransport = "tcp"
	case "tcp", "udp":
	default:
		return bad("rtspTransport", "is %q: it must be tcp or udp", c.RTSPTransport)
	}
	const least = 16 << 20
	if c.RetainBytes < 0 {
		return bad("retainBytes", "is %d: it cannot be negative", c.RetainBytes)
	}
	if c.Record && c.RetainBytes != 0 && c.RetainBytes < least {
		return bad("retainBytes", "is %d: a recorded stream needs at least %d bytes, or 0 for no limit of its own", c.RetainBytes, least)
	}
	const mostDays = 36500
	if c.RetainDays < 0 || c.RetainDays > mostDays {
		return bad("retainDays", "is %d: it must be from 1 to %d days, or 0 for no limit", c.RetainDays, mostDays)
	}
	if c.FlushIfSec == nil {
		n := defaultFlushIfSec
		c.FlushIfSec = &n
	}
	if n := *c.FlushIfSec; n < 0 || n > 3600 {
		return bad("flushIfSec", "is %d: it must be from 0 to 3600 seconds", n)
	}
	if d := c.SampleFileDir; d != "" {
		if !filepath.IsAbs(d) {
			return bad("sampleFileDir", "is %q: it must be an absolute path", d)
		}
		c.SampleFileDir = filepath.Clean(d) // whether it is one is asked when it is new: its disk may be away
	}
	return nil
}

// placed is a camera as it is to be, and as it is; nil when it is new.
type placed struct {
	CameraConfig
	old *Camera
}

// stream returns a stream of the camera as it is, nil when it is new.
func (c *placed) stream(typ string) *Stream {
	if c.old == nil {
		return nil
	}
	return c.old.Stream(typ)
}

// fieldOf names a value of a stream of the i-th camera, for errors.
type fieldOf func(i int, typ, name string) string

// put inserts and updates validated cameras. The caller holds flushing. Once
// something is written, the change is brought to its end whoever asked for it.
// list is where they stand, for errors: "cameras", or "" for a single one.
func (s *Store) put(ctx context.Context, cameras []placed, list string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	field := func(i int, typ, name string) string {
		if list == "" {
			return "streams." + typ + "." + name
		}
		return fmt.Sprintf("%s[%d].streams.%s.%s", list, i, typ, name)
	}
	// What can be refused is, before anything is written.
	for i := range cameras {
		for _, typ := range slices.Sorted(maps.Keys(cameras[i].Streams)) {
			if _, err := s.moves(i, &cameras[i], typ, field); err != nil {
				return err
			}
		}
	}
	if err := s.addDirs(ctx, cameras, field); err != nil {
		return err
	}
	var change db.Change
	var moved []*Stream // to another directory
	for i, c := range cameras {
		cc := db.CameraChange{Camera: db.Camera{Name: c.ShortName, Description: c.Description}}
		if c.old != nil {
			cc.ID, cc.UUID = c.old.ID, c.old.UUID
		}
		for _, typ := range slices.Sorted(maps.Keys(c.Streams)) {
			sc := c.Streams[typ]
			row := db.Stream{
				Type: typ, URL: sc.URL, Username: sc.Username, Password: sc.Password, Transport: sc.RTSPTransport,
				Record: sc.Record, RetainBytes: sc.RetainBytes, RetainDays: int32(sc.RetainDays), FlushIfSec: int32(*sc.FlushIfSec),
				DirID: s.dirAt(sc.SampleFileDir).id,
			}
			if row.Record {
				row.OwedFrom = max(1, s.wall())
			}
			if st := c.stream(typ); st != nil {
				row.CameraID, row.ID, row.PasswordLost = c.old.ID, st.id, sc.lost
				if was := st.settings(); was.Record || !row.Record {
					row.OwedFrom = was.OwedFrom
				}
				moves, err := s.moves(i, &c, typ, field)
				if err != nil {
					return err // it has begun to record meanwhile
				}
				if moves {
					// A stream that holds nothing goes, and another takes its place, and
					// accounts for its time.
					row.ID, row.GapsOf = 0, st.id
					moved = append(moved, st)
				}
			}
			cc.Streams = append(cc.Streams, row)
		}
		change.Cameras = append(change.Cameras, cc)
	}
	if err := s.apply(ctx, &change, moved); err != nil {
		return err
	}
	return s.flushChange(ctx)
}

// flushChange does what a change of the configuration calls for: a limit that was
// lowered holds from now on, and what was deleted begins to go. The change itself is
// made, whether or not the disk has room for that. The caller holds flushing.
func (s *Store) flushChange(ctx context.Context) error {
	err := s.flushLocked(ctx, whyChanged)
	switch {
	case errors.Is(err, ErrPoisoned) || s.poisoned.Load():
		return err
	case err != nil:
		s.log.Error("flush failed; trying again in a minute", "err", err)
	case !s.overdue():
		return nil
	}
	s.plan(nil, confPlan, time.Now().Add(flushRetry))
	return nil
}

// moves reports whether a stream of the i-th camera is to record to another
// directory; a *ConfigError when it cannot.
func (s *Store) moves(i int, c *placed, typ string, field fieldOf) (bool, error) {
	st, sc := c.stream(typ), c.Streams[typ]
	switch {
	case st == nil || st.dir == nil || st.dir == s.dirAt(sc.SampleFileDir):
		return false, nil
	case !st.empty():
		return true, &ConfigError{field(i, typ, "sampleFileDir"), "cannot change while the stream has recordings: they are in " + st.dir.path +
			"; delete the stream and add it anew, or add another"}
	case sc.lost != "" && sc.Password == "":
		return true, &ConfigError{field(i, typ, "password"), "is to be given again: the one that is kept cannot be read, " + sc.lost}
	}
	return true, nil
}

// dirAt returns the directory at a path, "" being the default one.
func (s *Store) dirAt(path string) *directory {
	if path == "" {
		path = defaultDir
	}
	path = s.resolve(path)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, d := range s.dirs {
		if d.path == path {
			return d
		}
	}
	return nil
}

// addDirs takes the sample directories that are new into use, all or none. One
// that cannot be used now takes no new streams; those that it has can be changed.
func (s *Store) addDirs(ctx context.Context, cameras []placed, field fieldOf) error {
	var change db.Change
	for i, c := range cameras {
		for _, typ := range slices.Sorted(maps.Keys(c.Streams)) {
			path := c.Streams[typ].SampleFileDir
			var err error
			if d := s.dirAt(path); d != nil {
				st := c.stream(typ)
				if fault := d.fault(); fault != nil && (st == nil || st.dir != d) {
					err = fmt.Errorf("cannot take a new stream now: %w", fault)
				}
			} else if !slices.ContainsFunc(change.Dirs, func(d db.Dir) bool { return d.Path == path }) {
				var release func()
				if release, err = s.claim(path); err == nil {
					defer release()
					err = s.checkDir(path)
				}
				change.Dirs = append(change.Dirs, db.Dir{Path: path})
			}
			if err != nil {
				return &ConfigError{field(i, typ, "sampleFileDir"), err.Error()}
			}
		}
	}
	if len(change.Dirs) == 0 {
		return nil
	}
	return s.takeDirs(ctx, change.Dirs)
}

// take makes a configuration the one in force.
func (s *Store) take(state *db.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.configured()
	s.build(state)
	s.takeGoing(state.Deleted)
	s.tellConfigured(was, s.configured())
	close(s.changed)
	s.changed = make(chan struct{})
}

// mostLeft is how many files of a stream may be without a row of which the recorder
// knows nothing: those of two days, twice as old as a copy of the database.
const mostLeft = 2 * 24 * 60

// DeleteCamera removes a camera: nobody sees it from now on, and its name can be
// given again. Its footage goes by and by, some with each flush. Its runs end with
// ErrRemoved.
func (s *Store) DeleteCamera(ctx context.Context, uuid string) error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	c, ok := s.Camera(uuid)
	if !ok {
		return fmt.Errorf("camera %s: %w", uuid, ErrNotFound)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.delete(context.WithoutCancel(ctx), &db.Change{DeleteCameras: []int32{c.ID}}, c.Streams)
}

// DeleteStream removes a stream of a camera as DeleteCamera removes all. A
// camera keeps one: a *ConfigError says so.
func (s *Store) DeleteStream(ctx context.Context, uuid, typ string) error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	c, ok := s.Camera(uuid)
	if !ok || c.Stream(typ) == nil {
		return fmt.Errorf("camera %s, stream %s: %w", uuid, typ, ErrNotFound)
	}
	if len(c.Streams) == 1 {
		return &ConfigError{"streams." + typ, "is the last stream of the camera: delete the camera"}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.delete(context.WithoutCancel(ctx), &db.Change{}, []*Stream{c.Stream(typ)})
}

// delete makes a change that deletes, and begins with what it deletes.
func (s *Store) delete(ctx context.Context, change *db.Change, gone []*Stream) error {
	if err := s.apply(ctx, change, gone); err != nil {
		return err
	}
	return s.flushChange(ctx)
}

// apply makes a change of the configuration, which the caller brings to its end
// whoever asked for it, and takes it over. It deletes the streams that go, their
// files named as garbage. The caller holds flushing.
func (s *Store) apply(ctx context.Context, change *db.Change, gone []*Stream) error {
	for _, st := range gone {
		if !slices.Contains(change.DeleteCameras, st.cameraID()) {
			change.DeleteStreams = append(change.DeleteStreams, st.id)
		}
		st.mu.Lock()
		st.removing = true // no file is begun that is not named here
		for _, rec := range st.recent {
			if rec.created {
				change.Garbage = append(change.Garbage, db.Garbage{DirID: st.dir.id, ID: rec.id()})
			}
		}
		if e := st.earlier; e != nil {
			for no := e.next; no < e.end; no++ {
				change.Garbage = append(change.Garbage, db.Garbage{DirID: st.dir.id, ID: db.CompositeID(st.id, no)})
			}
		}
		if st.dir.fault() != nil || st.unusable != nil {
			// Nobody has looked, or not to the end, what an earlier process left
			// there without a row.
			for no := st.cfg.NextNo; no < st.nextNo+mostLeft; no++ {
				change.Garbage = append(change.Garbage, db.Garbage{DirID: st.dir.id, ID: db.CompositeID(st.id, no)})
			}
		}
		st.mu.Unlock()
	}
	slices.SortFunc(change.Garbage, func(a, b db.Garbage) int { return cmp.Compare(a.ID, b.ID) })
	change.Garbage = slices.Compact(change.Garbage)
	state, err := s.db.Reconfigure(ctx, change)
	if err != nil {
		for _, st := range gone {
			st.mu.Lock()
			st.removing = false
			st.mu.Unlock()
		}
		return s.verdict(err)
	}
	for _, st := range gone {
		st.mu.Lock()
		st.unsynced(-st.unsyncedBytes)
		st.undurable.Store(0)
		st.keeps(-st.keptBytes)
		st.removed = true
		wake(&st.arrived)
		wake(&st.grouped)
		st.mu.Unlock()
	}
	s.take(state)
	s.discard(change.Garbage)
	return nil
}
