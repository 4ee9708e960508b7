package camera

import (
	"time"

	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpmpeg4audio"
	"github.com/pion/rtp"

	"holdfast/nvr/media"
)

// maxFrame bounds an AAC frame: 6144 bits a channel, of eight (ISO 14496-3).
const maxFrame = 6144

// audioTrack makes access units of AAC packets (RFC 3640). All of it is under
// the session's mu once the stream runs. Nothing that is wrong with audio ends a
// session.
type audioTrack struct {
	session *session
	entry   *media.SampleEntry // nil: no audio is recorded
	source  source
	decoder *rtpmpeg4audio.Decoder
	clock   soundClock
	frame   int64 // samples in a frame
}

// packet is called by the RTSP library for each packet.
func (a *audioTrack) packet(p *rtp.Packet) {
	s := a.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || a.source.check(p.SSRC) == foreign || len(p.Payload) == 0 {
		return
	}
	frames, err := a.decoder.Decode(p)
	if err != nil || !s.video.begun {
		return // more packets are needed, or one was lost
	}
	now := time.Now()
	since := now.Sub(s.start) - s.video.shownAt
	t := a.clock.at(p.Timestamp, media.Duration(s.video.shown).Std()+since)
	for i, f := range frames {
		at := t + int64(i)*a.frame
		if len(f) == 0 || len(f) > maxFrame || !a.clock.take(at) {
			continue
		}
		s.deliver(media.AccessUnit{
			Kind: media.Audio, DTS: at, PTS: at, Key: true,
			Data: f[:len(f):len(f)], Entry: a.entry, Received: now,
		})
		if s.over {
			return
		}
	}
}
