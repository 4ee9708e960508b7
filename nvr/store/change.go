package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// ErrPrecondition: a configuration is not what a change took it for.
var ErrPrecondition = errors.New("precondition does not hold: somebody has changed it meanwhile")

// CameraChange is what is to be another value of a camera; what is nil, and a
// stream that is not named, stays.
type CameraChange struct {
	ShortName   *string
	Description *string
	Streams     map[string]StreamChange // by type; one that the camera does not have is added
}

// StreamChange is what is to be another value of a stream. The fields are those
// of StreamConfig.
type StreamChange struct {
	URL           *string `json:"url"` // credentials in it are the same as the next two
	Username      *string `json:"username"`
	Password      *string `json:"password"`
	Record        *bool   `json:"record"`
	RTSPTransport *string `json:"rtspTransport"`
	RetainBytes   *int64  `json:"retainBytes"`
	RetainDays    *int    `json:"retainDays"`
	FlushIfSec    *int    `json:"flushIfSec"`
	SampleFileDir *string `json:"sampleFileDir"` // "": the recorder's own
}

// ParseCameraChange reads a change as the API writes it. field is where it
// stands, for errors: "update.". Its values are checked when it is made.
func ParseCameraChange(b []byte, field string) (CameraChange, error) {
	var raw struct {
		ShortName   *string                    `json:"shortName"`
		Description *string                    `json:"description"`
		Streams     map[string]json.RawMessage `json:"streams"`
	}
	if err := decode(b, &raw, field); err != nil {
		return CameraChange{}, err
	}
	c := CameraChange{raw.ShortName, raw.Description, make(map[string]StreamChange)}
	for _, typ := range slices.Sorted(maps.Keys(raw.Streams)) {
		var sc StreamChange
		if err := decode(raw.Streams[typ], &sc, field+"streams."+typ+"."); err != nil {
			return CameraChange{}, err
		}
		c.Streams[typ] = sc
	}
	return c, nil
}

// ChangeCamera changes a camera while it is recorded: sessions of streams whose
// source changes are begun anew, others go on. It returns a *ConfigError for a
// value that cannot be used, ErrNotFound, and ErrPrecondition when the camera is
// not what before says, whose passwords do not count; nothing is changed then.
func (s *Store) ChangeCamera(ctx context.Context, uuid string, change, before CameraChange) error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	c, ok := s.Camera(uuid)
	if !ok {
		return fmt.Errorf("camera %s: %w", uuid, ErrNotFound)
	}
	old := s.configOf(c)
	for typ, sc := range before.Streams {
		sc.Password = nil
		before.Streams[typ] = sc
	}
	if same, err := before.apply(old); err != nil || !reflect.DeepEqual(same, old) {
		return ErrPrecondition
	}
	next, err := change.apply(old)
	if err != nil {
		return err
	}
	if err := validateCamera(&next, ""); err != nil {
		return err
	}
	if other := s.named(next.ShortName); other != nil && other != c {
		return nameTaken(next.ShortName)
	}
	return s.put(ctx, []placed{{next, c}}, "")
}

// SourceOf is where a stream of a camera would come from after a change of it,
// the password that it has included. It is for trying that.
func (s *Store) SourceOf(c *Camera, typ string, change StreamChange) (Source, error) {
	var old StreamConfig
	if c != nil {
		old = s.configOf(c).Streams[typ]
	}
	sc, err := change.apply(old)
	if err == nil {
		err = validateStream(&sc, "")
	}
	return Source{sc.URL, sc.Username, sc.Password, sc.RTSPTransport, noPassword(sc.lost)}, err
}

// apply returns the configuration with the change made.
func (c CameraChange) apply(old CameraConfig) (CameraConfig, error) {
	next := old
	set(&next.ShortName, c.ShortName)
	set(&next.Description, c.Description)
	next.Streams = maps.Clone(old.Streams)
	for typ, sc := range c.Streams {
		was := old.Streams[typ]
		is, err := sc.apply(was)
		if e, ok := errors.AsType[*ConfigError](err); ok {
			return next, &ConfigError{"streams." + typ + "." + e.Field, e.Problem}
		}
		next.Streams[typ] = is
	}
	return next, nil
}

func (c StreamChange) apply(old StreamConfig) (StreamConfig, error) {
	next := old
	if c.URL != nil {
		next.URL = *c.URL
		if u, err := url.Parse(next.URL); err == nil && u.User != nil {
			next.Username, next.Password, next.lost = "", "", "" // those in it take their place
		}
	}
	set(&next.Username, c.Username)
	if c.Password != nil {
		next.Password, next.lost = *c.Password, ""
	}
	set(&next.Record, c.Record)
	set(&next.RTSPTransport, c.RTSPTransport)
	set(&next.RetainBytes, c.RetainBytes)
	set(&next.RetainDays, c.RetainDays)
	if c.FlushIfSec != nil {
		next.FlushIfSec = c.FlushIfSec
	}
	set(&next.SampleFileDir, c.SampleFileDir)
	// A password is written and never read: nor is it read by having it sent to
	// a host of one's own.
	kept := c.Password == nil && (next.lost != "" || old.Password != "" && next.Password == old.Password)
	if kept && !sameHost(next.URL, old.URL) {
		return next, &ConfigError{"password", "is to be given again, because the stream comes from another host, port or scheme"}
	}
	if next.lost != "" && next.Username != old.Username {
		return next, &ConfigError{"password", "is to be given again, because it is of another user, and the one that is kept cannot be read, " + next.lost}
	}
	return next, nil
}

// sameHost reports whether a password that is sent to one URL is sent to the
// same place, in the same way, for the other. A URL that is none of a camera
// has it sent nowhere.
func sameHost(a, b string) bool {
	u, err := url.Parse(a)
	v, err2 := url.Parse(b)
	if err != nil || err2 != nil || u.Scheme != "rtsp" && u.Scheme != "rtsps" {
		return true
	}
	return u.Scheme == v.Scheme && strings.EqualFold(u.Host, v.Host)
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}
