// Package camera runs one RTSP session with one camera: it connects, logs in,
// chooses the tracks worth recording, puts RTP packets together to access units
// and hands these over, timed and described, until the session ends. Every
// quirk of a vendor ends here; what leaves is what media.AccessUnit promises.
//
//	Play ─► OPTIONS, DESCRIBE, SETUP…, PLAY          (its own goroutine)
//	packet ─► assembler ─► parameter sets ─► clocks ─► Handler.AccessUnit
//	                                                 (the RTSP library's goroutine)
//
// It does not try again, keeps nothing for a next session, writes no file and
// knows no store: that is nvr/record. What cannot be recorded is left out with
// a reason (Description.Skipped); what ends a session is an Error whose Kind
// says what a caller can do about it.
//
// A camera is not trusted. Sizes are bounded before anything is allocated for
// them, what comes from it into an error is cut to one line, and a password goes
// to the host it was given for and nowhere else.
package camera

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bluenviron/gortsplib/v5"

	"holdfast/nvr/media"
)

const (
	requestTimeout = 10 * time.Second // for connecting, and for each answer
	setupTimeout   = 30 * time.Second // for everything up to PLAY
	defaultSilence = 10 * time.Second
	farewell       = 500 * time.Millisecond // for TEARDOWN to leave
)

// Config is a stream of a camera. Only URL is needed.
type Config struct {
	// URL is rtsp:// or rtsps://. It may hold credentials; Username and
	// Password take their place when one of them is set. Errors and logs show
	// neither. The certificate of an rtsps camera is not checked: cameras sign
	// their own.
	URL                string
	Username, Password string

	// Transport carries RTP: "tcp", within the RTSP connection, is also what an
	// empty string means; "udp" loses packets and passes some firewalls. An
	// H.264 stream in packetization mode 0 comes by TCP in any case.
	Transport string

	// Log gets a line for what is odd and goes on; nil: nothing.
	Log *slog.Logger

	// DialContext connects; nil: as net.Dialer does. Whoever wants to keep
	// cameras to some networks does it here.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// Silence is how long no whole picture may come before the session ends;
	// 0 means 10 s. Audio does not count. Pictures before the first key count,
	// so a camera with minutes between key pictures is waited for.
	Silence time.Duration
}

// Description is what a camera offers, and what of it is recorded.
type Description struct {
	Video   string             // "H.264" or "H.265"
	Audio   *media.SampleEntry // nil: no audio is recorded
	Skipped []string           // "audio: PCMA is not recorded", one for each track left out
	Server  string             // what the camera calls its software, may be empty

	// Transport is what carries RTP, "tcp" or "udp": not always what was asked.
	Transport string
}

// Handler receives a session. Its functions are called one at a time, and none
// after Play returned.
type Handler struct {
	// Described is called once, before the first access unit. It may be nil.
	Described func(Description)

	// AccessUnit takes a unit and may keep its Data. The first video unit is a
	// key; no audio comes before it. It is called where packets are read and
	// must not wait for anything. An error ends the session.
	AccessUnit func(media.AccessUnit) error
}

// Play runs one session. It returns ctx.Err() soon after ctx is done, otherwise
// an *Error. When it returns, everything it started has ended.
func Play(ctx context.Context, cfg Config, h Handler) error {
	addr, bad := parseAddress(&cfg)
	if bad != nil {
		return bad
	}
	s := newSession(addr, cfg, h)
	err := s.play(ctx, &dialer{dial: cfg.DialContext, addr: addr})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err.located(addr)
}

// session is one call of Play.
type session struct {
	addr    *address
	handler Handler
	log     *slog.Logger
	silence time.Duration
	start   time.Time // what instants within the session are counted from

	// mu keeps the tracks apart: over UDP each has a goroutine of the library.
	// Over TCP it is never contended.
	mu    sync.Mutex
	over  bool // nothing is handed over any more
	video videoTrack
	audio audioTrack

	picture atomic.Int64 // nanoseconds from start to the last whole picture

	once  sync.Once
	cause *Error        // why, once ended is closed
	ended chan struct{} // closed by end

	skipped   []string
	server    string
	transport string
}

func newSession(a *address, cfg Config, h Handler) *session {
	s := &session{addr: a, handler: h, silence: cfg.Silence, start: time.Now(), log: cfg.Log, ended: make(chan struct{})}
	if s.silence <= 0 {
		s.silence = defaultSilence
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.video.session, s.audio.session = s, s
	return s
}

// end ends the session; the first reason counts.
func (s *session) end(e *Error) {
	s.once.Do(func() {
		s.cause = e
		close(s.ended)
	})
}

// play connects and runs until something ends the session.
func (s *session) play(ctx context.Context, d *dialer) *Error {
	client := &gortsplib.Client{
		Scheme:         s.addr.url.Scheme,
		Host:           s.addr.host,
		ReadTimeout:    requestTimeout,
		WriteTimeout:   requestTimeout,
		Protocol:       &s.addr.protocol,
		UserAgent:      "holdfast",
		DialContext:    d.dialTCP,
		DialTLSContext: d.dialTLS,
		ListenPacket:   listenPacket,
		OnResponse:     s.readAnswer,
		// Loss and damage are counted by the tracks, which know what it means.
		OnPacketsLost:     func(uint64) {},
		OnDecodeError:     func(error) {},
		OnTransportSwitch: func(error) {},
	}
	if err := client.Start(); err != nil {
		return failure("", err)
	}

	// The client stops as soon as ctx is done or setting up takes too long,
	// whatever it waits for. Nobody else closes it before that is settled.
	setup, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	closed := make(chan struct{})
	stop := context.AfterFunc(setup, func() {
		defer close(closed)
		d.hurry()
		client.Close()
	})
	step, err := s.setUp(client)
	late := !stop()
	if late {
		<-closed
	}
	if err != nil || late {
		if !late {
			d.hurry()
			client.Close()
		}
		select {
		case <-s.ended:
			return s.cause
		default:
		}
		switch {
		case d.refusal() != nil:
			return d.refusal()
		case late:
			return problem(Unreachable, "not playing after %v", setupTimeout)
		}
		return failure(step, err)
	}

	done := make(chan error, 1)
	go func() { done <- client.Wait() }()
	cause, running := s.watch(ctx, done)
	d.hurry()
	client.Close()
	if running {
		<-done
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.video.rest()
		s.over = true
	}
	return cause
}

// watch waits for the end. running says that done has not reported yet.
func (s *session) watch(ctx context.Context, done <-chan error) (cause *Error, running bool) {
	timer := time.NewTimer(s.silence)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, true
		case <-s.ended:
			return s.cause, true
		case err := <-done:
			select {
			case <-s.ended:
				return s.cause, false
			default:
			}
			return failure("", err), false
		case <-timer.C:
			last := time.Duration(s.picture.Load())
			if left := last + s.silence - time.Since(s.start); left > 0 {
				timer.Reset(left)
				continue
			}
			return s.silent(), true
		}
	}
}

func (s *session) silent() *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.video.packets == 0:
		return problem(Silent, "no video for %v: the camera sends nothing", s.silence)
	case !s.video.seen:
		return problem(Silent, "no whole picture for %v, of %d video packets", s.silence, s.video.packets)
	}
	return problem(Silent, "no picture for %v", s.silence)
}

// setUp goes through the requests up to PLAY. step is the request that failed.
func (s *session) setUp(client *gortsplib.Client) (step string, err error) {
	desc, _, err := client.Describe(s.addr.url)
	if err != nil {
		return "DESCRIBE", err
	}
	chosen, none := s.choose(desc)
	if none != nil {
		return "DESCRIBE", none
	}
	if chosen.modeZero {
		tcp := gortsplib.ProtocolTCP
		client.Protocol = &tcp
	}
	s.transport = "tcp"
	if *client.Protocol == gortsplib.ProtocolUDP {
		s.transport = "udp"
	}

	res, err := client.Setup(desc.BaseURL, chosen.video, 0, 0)
	if err != nil {
		return "SETUP", err
	}
	if ssrc, ok := announcedSSRC(res); ok {
		s.video.source.announce(ssrc)
	}
	if s.audio.entry != nil {
		res, err := client.Setup(desc.BaseURL, chosen.audio, 0, 0)
		switch {
		case err == nil:
			if ssrc, ok := announcedSSRC(res); ok {
				s.audio.source.announce(ssrc)
			}
		case refusedByCamera(err):
			// Video alone is better than nothing.
			s.skip("audio", failure("SETUP", err).Problem)
			s.audio.entry = nil
		default:
			return "SETUP", err
		}
	}

	client.OnPacketRTP(chosen.video, chosen.videoFormat, s.video.packet)
	if s.audio.entry != nil {
		client.OnPacketRTP(chosen.audio, chosen.audioFormat, s.audio.packet)
	}
	if s.handler.Described != nil {
		s.handler.Described(s.description())
	}

	// From here on the library watches the connection as well; our watch, which
	// knows pictures, is to be the first to speak.
	client.ReadTimeout = s.silence + requestTimeout
	s.picture.Store(int64(time.Since(s.start)))
	if _, err := client.Play(nil); err != nil {
		return "PLAY", err
	}
	s.picture.Store(max(s.picture.Load(), int64(time.Since(s.start))))
	return "", nil
}

func (s *session) description() Description {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Description{Video: s.video.units.codec.String(), Audio: s.audio.entry, Skipped: slices.Clone(s.skipped), Server: s.server, Transport: s.transport}
}

// skip says why a track is not recorded.
func (s *session) skip(kind, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skipped = append(s.skipped, oneLine(kind+": "+why))
}

// deliver hands a unit to the receiver, under mu.
func (s *session) deliver(u media.AccessUnit) {
	if err := s.handler.AccessUnit(u); err != nil {
		e := problem(Receiver, "not received: %v", err)
		e.Err = err
		s.fail(e)
	}
}

// fail ends the session from within a track, under mu.
func (s *session) fail(e *Error) {
	s.over = true
	s.end(e)
}

// source tells the packets of a stream from those of another, which old live555
// servers send into a new connection when the one before was cut (retina#17).
type source struct {
	ssrc, announced   uint32
	known, isAnnounce bool
}

func (s *source) announce(ssrc uint32) { s.announced, s.isAnnounce = ssrc, true }

// Which packets a track takes.
type origin uint8

const (
	ours origin = iota
	foreign
	changed // the announced source came after another one had been taken for it
)

// check compares a packet's source. The first one counts, unless the one that
// SETUP announced appears: some cameras announce one and use another, so that
// waiting for it would not do.
func (s *source) check(ssrc uint32) origin {
	switch {
	case !s.known:
		s.ssrc, s.known = ssrc, true
		return ours
	case ssrc == s.ssrc:
		return ours
	case s.isAnnounce && ssrc == s.announced && s.ssrc != s.announced:
		s.ssrc = ssrc
		return changed
	}
	return foreign
}
