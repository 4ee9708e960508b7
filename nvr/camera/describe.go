package camera

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/gortsplib/v5/pkg/headers"
	"github.com/bluenviron/gortsplib/v5/pkg/liberrors"
	"github.com/bluenviron/gortsplib/v5/pkg/sdpunmarshaler"
)

// Bounds on a session description.
const (
	maxSDP    = 64 << 10
	maxMedias = 16

	// maxSizeLength is for the fields of AU headers, in bits: 13 and 3 in use.
	// The library's depacketizer takes more and trips over sizes near 2^63.
	maxSizeLength = 16
)

// readAnswer sees each answer before the RTSP library reads on. It notes what
// the camera calls itself, and mends the description: the library refuses all of
// it for one track that it cannot read, such as a back channel without its AAC
// configuration.
func (s *session) readAnswer(res *base.Response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := res.Header["Server"]; len(v) > 0 && s.server == "" {
		s.server = oneLine(v[0])
	}
	if len(res.Body) == 0 || res.StatusCode != base.StatusOK {
		return
	}
	if ct := res.Header["Content-Type"]; len(ct) != 1 || !strings.HasPrefix(ct[0], "application/sdp") {
		return
	}
	body, skipped, err := mendSDP(res.Body)
	if err != nil {
		s.end(err)
		body = nil // the library cannot go on with this
	}
	res.Body, s.skipped = body, skipped
}

// mendSDP takes out the tracks that the library cannot read, and says why.
func mendSDP(body []byte) (mended []byte, skipped []string, e *Error) {
	if len(body) > maxSDP {
		return nil, nil, problem(Protocol, "session description of %d bytes is too large", len(body))
	}
	head, tracks := cutSDP(body)
	if len(tracks) > maxMedias {
		return nil, nil, problem(Protocol, "session description with %d tracks is too large", len(tracks))
	}
	out := bytes.Clone(head)
	for _, t := range tracks {
		err := readable(head, t)
		if err != nil && bytes.HasPrefix(t, []byte("m=video")) {
			// What the parameters would have said comes again in band.
			if plain := withoutFMTP(t); readable(head, plain) == nil {
				t, err = plain, nil
			}
		}
		if err != nil {
			kind, _, _ := strings.Cut(strings.TrimPrefix(string(t), "m="), " ")
			skipped = append(skipped, oneLine(kind+": not recorded: "+err.Error()))
			continue
		}
		out = append(out, t...)
	}
	return out, skipped, nil
}

// cutSDP cuts before each m= line.
func cutSDP(body []byte) (head []byte, tracks [][]byte) {
	rest := body
	at := func(b []byte) int {
		if i := bytes.Index(b, []byte("\nm=")); i >= 0 {
			return i + 1
		}
		return len(b)
	}
	n := at(rest)
	head, rest = rest[:n], rest[n:]
	for len(rest) > 0 {
		n := at(rest)
		tracks, rest = append(tracks, rest[:n]), rest[n:]
	}
	return head, tracks
}

func readable(head, track []byte) error {
	sd, err := sdpunmarshaler.Unmarshal(append(bytes.Clone(head), track...))
	if err != nil {
		return err
	}
	if len(sd.MediaDescriptions) != 1 {
		return errors.New("not one track")
	}
	var m description.Media
	return m.Unmarshal(sd.MediaDescriptions[0])
}

func withoutFMTP(track []byte) []byte {
	var out []byte
	for line := range bytes.Lines(track) {
		if !bytes.HasPrefix(line, []byte("a=fmtp:")) {
			out = append(out, line...)
		}
	}
	return out
}

// choice is what of a description is set up.
type choice struct {
	video, audio             *description.Media
	videoFormat, audioFormat format.Format
	modeZero                 bool // H.264 packetization mode 0
}

// choose takes the first H.264 or H.265 video and the first AAC audio, and says
// of everything else why not.
func (s *session) choose(desc *description.Session) (*choice, *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &choice{}
	var offered []string
	skip := func(kind description.MediaType, why string) {
		s.skipped = append(s.skipped, oneLine(string(kind)+": "+why))
	}
	for _, m := range desc.Medias {
		for _, f := range m.Formats {
			name := codecName(f)
			offered = append(offered, string(m.Type)+" "+name)
			if m.IsBackChannel {
				skip(m.Type, name+" is a channel to the camera")
				continue
			}
			switch f := f.(type) {
			case *format.H264:
				switch {
				case c.video != nil:
					skip(m.Type, "a second "+name+" track is not recorded")
				case f.PacketizationMode > 1:
					skip(m.Type, fmt.Sprintf("%s in packetization mode %d is not recorded", name, f.PacketizationMode))
				default:
					c.video, c.videoFormat, c.modeZero = m, f, f.PacketizationMode == 0
					s.video.init(h264)
					s.video.describe(spsRole, f.SPS)
					s.video.describe(ppsRole, f.PPS)
				}
			case *format.H265:
				switch {
				case c.video != nil:
					skip(m.Type, "a second "+name+" track is not recorded")
				case f.MaxDONDiff != 0:
					skip(m.Type, "interleaved "+name+" is not recorded")
				default:
					c.video, c.videoFormat = m, f
					s.video.init(h265)
					s.video.describe(vpsRole, f.VPS)
					s.video.describe(spsRole, f.SPS)
					s.video.describe(ppsRole, f.PPS)
				}
			case *format.MPEG4Audio:
				if c.audio != nil {
					skip(m.Type, "a second "+name+" track is not recorded")
					continue
				}
				entry, err := audioEntry(f.Config)
				if f.SizeLength > maxSizeLength || f.IndexLength > maxSizeLength || f.IndexDeltaLength > maxSizeLength {
					err = errors.New("AAC with such long AU headers is not recorded")
				}
				if err == nil {
					s.audio.decoder, err = f.CreateDecoder()
				}
				if err != nil {
					skip(m.Type, err.Error())
					continue
				}
				c.audio, c.audioFormat = m, f
				s.audio.entry = entry
				s.audio.frame = 1024
				if f.Config.FrameLengthFlag {
					s.audio.frame = 960
				}
				s.audio.clock.rate = int64(entry.Timescale)
			default:
				skip(m.Type, name+" is not recorded")
			}
		}
	}
	if c.video == nil {
		what := "nothing"
		if len(offered) > 0 {
			what = strings.Join(offered, ", ")
		} else if len(s.skipped) > 0 {
			what = strings.Join(s.skipped, ", ")
		}
		return nil, problem(NoVideo, "no H.264 or H.265 video, the camera offers %s", what)
	}
	return c, nil
}

// codecName is what people call a format.
func codecName(f format.Format) string {
	switch f := f.(type) {
	case *format.H264:
		return "H.264"
	case *format.H265:
		return "H.265"
	case *format.MPEG4Audio:
		return "AAC"
	case *format.MPEG4AudioLATM:
		return "AAC-LATM"
	case *format.Opus:
		return "Opus"
	case *format.MPEGTS:
		return "MPEG-TS"
	case *format.G726:
		return "G726"
	default:
		name, _, _ := strings.Cut(f.RTPMap(), "/")
		if name == "" {
			name = f.Codec()
		}
		if name == "" || name == "Generic" {
			name = fmt.Sprintf("payload type %d", f.PayloadType())
		}
		return name
	}
}

// announcedSSRC reads the source that SETUP promises.
func announcedSSRC(res *base.Response) (uint32, bool) {
	if res == nil {
		return 0, false
	}
	var t headers.Transport
	if err := t.Unmarshal(res.Header["Transport"]); err != nil || t.SSRC == nil || *t.SSRC == 0 {
		return 0, false
	}
	return *t.SSRC, true
}

// refusedByCamera reports an answer that is a refusal, after which the
// connection can go on.
func refusedByCamera(err error) bool {
	var status liberrors.ErrClientBadStatusCode
	return errors.As(err, &status)
}
