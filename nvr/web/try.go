package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// Bounds of trying streams: each holds a connection to a camera, which has few.
const (
	mostTried = 2
	tryTime   = 20 * time.Second // of one; the answer has to be out in answerTime
)

// triedJSON is what came of trying a stream.
type triedJSON struct {
	OK    bool        `json:"ok"`
	Cause store.Cause `json:"cause,omitempty"` // of the gap that it would make
	Error string      `json:"error,omitempty"`

	Video     *triedVideo `json:"video,omitempty"`
	Audio     *triedAudio `json:"audio,omitempty"`
	Skipped   []string    `json:"skipped,omitempty"`
	Transport string      `json:"transport,omitempty"`
	Server    string      `json:"server,omitempty"`
	Seconds   float64     `json:"measuredSec,omitempty"`
}

type triedVideo struct {
	Format    string  `json:"format"` // H.264 or H.265
	Codec     string  `json:"codec"`  // RFC 6381
	Profile   string  `json:"profile,omitempty"`
	Level     string  `json:"level,omitempty"`
	Width     uint16  `json:"width"`
	Height    uint16  `json:"height"`
	FrameRate float64 `json:"frameRate,omitempty"`
	BitRate   int64   `json:"bitRate,omitempty"` // bits a second

	// Of the groups of pictures that were seen whole; absent: none was.
	GOPFrames float64 `json:"gopFrames,omitempty"`
	GOPSec    float64 `json:"gopSec,omitempty"`
}

type triedAudio struct {
	Codec      string `json:"codec"`
	Channels   uint16 `json:"channels,omitempty"`
	SampleRate uint32 `json:"sampleRate,omitempty"`
}

// testStream tries a stream as a camera of the configuration would name it, or one
// that is there with what is to change of it, so that its password need not be
// given again.
func (s *server) testStream(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		CSRF          string  `json:"csrf"`
		Camera        string  `json:"camera"`
		Stream        string  `json:"stream"`
		URL           *string `json:"url"`
		Username      *string `json:"username"`
		Password      *string `json:"password"`
		RTSPTransport *string `json:"rtspTransport"`
	}
	by, err := readToChange(r, &in, &in.CSRF)
	if err != nil {
		return err
	}
	var c *store.Camera
	if in.Camera != "" || in.Stream != "" {
		var ok bool
		if c, ok = s.Store.Camera(in.Camera); !ok {
			return &httpError{http.StatusNotFound, fmt.Sprintf("there is no camera %q", in.Camera)}
		}
		if c.Stream(in.Stream) == nil {
			return &httpError{http.StatusNotFound, fmt.Sprintf("camera %q has no stream %q", c.Name, in.Stream)}
		}
	}
	src, err := s.Store.SourceOf(c, in.Stream, store.StreamChange{
		URL: in.URL, Username: in.Username, Password: in.Password, RTSPTransport: in.RTSPTransport})
	if err != nil {
		return err
	}
	if s.TryStream == nil {
		return errors.New("nobody can try streams")
	}
	select {
	case s.trying <- struct{}{}:
		defer func() { <-s.trying }()
	default:
		return &httpError{http.StatusServiceUnavailable, fmt.Sprintf("%d streams are being tried at this moment: try again in some seconds", mostTried)}
	}
	s.log.Info("trying a stream", "by", by.Name, "from", by.peer.Address)
	ctx, cancel := context.WithTimeout(r.Context(), tryTime)
	defer cancel()
	m, cause, err := s.TryStream(ctx, src)
	switch {
	case r.Context().Err() != nil:
		return r.Context().Err()
	case ctx.Err() != nil && err != nil:
		cause, err = store.CameraUnreachable, fmt.Errorf("the camera was not done answering in %v: check the address, and the network to it", tryTime)
	}
	if err != nil {
		return writeJSON(w, http.StatusOK, triedJSON{Cause: cause, Error: err.Error()})
	}
	return writeJSON(w, http.StatusOK, describeTried(&m))
}

func describeTried(m *media.Measured) triedJSON {
	v := m.Video
	j := triedJSON{
		OK: true, Skipped: m.Skipped, Transport: m.Transport, Server: m.Server, Seconds: tenths(m.Duration.Std().Seconds()),
		Video: &triedVideo{
			Format: "H.264", Codec: v.Codec, Width: v.Width, Height: v.Height,
			FrameRate: tenths(m.FrameRate), BitRate: m.BitRate, GOPFrames: tenths(m.GOPPictures), GOPSec: tenths(m.GOP.Std().Seconds()),
		},
	}
	if v.Format == "hvc1" {
		j.Video.Format = "H.265"
	}
	j.Video.Profile, j.Video.Level = v.Profile()
	if a := m.Audio; a != nil {
		j.Audio = &triedAudio{a.Codec, a.Channels, a.SampleRate}
	}
	return j
}
