package cameratest

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"holdfast/nvr/media"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/pion/rtp"
)

const (
	videoPayload = 96
	audioPayload = 97
)

// stream plays a fixture to whoever watches. Its goroutine, run, sends; the
// RTSP library's goroutines join and leave.
type stream struct {
	srv  *Server
	id   uint32
	path string
	home *Fixture

	rtsp         *gortsplib.ServerStream
	video, audio *description.Media
	videoFormat  format.Format
	phase        time.Duration // streams do not send in step
	wake         chan struct{}
	plan         *plan
	head         payloader

	mu        sync.Mutex
	rng       *rand.Rand
	inject    []Fault
	viewers   map[*gortsplib.ServerSession]*viewer
	playing   *Fixture // home, or its twin after ParameterSets
	picture   int      // the next one
	frame     uint64   // its number
	videoTime int64    // when it is decoded, 90 kHz since phase
	sounded   int64    // audio frames so far
	videoRTP  uint32   // timestamps begin here
	audioRTP  uint32
	shift     int64 // sum of the jumps, 90 kHz
	lastPTS   int64 // of the last picture that had its own

	// Until when, counted from the start of the server.
	stalled, late, locked, keyless, single, frozen time.Duration
	// For how many pictures.
	duplicate, backward, backed, empty, lose int
	change                                   bool // at the next key picture
	singles                                  int  // how many OneFrame there were
}

// viewer is a session that plays.
type viewer struct {
	session            *gortsplib.ServerSession
	video, audio       bool // what was set up
	started            bool // the RTSP library has it ready to be sent to
	joined             bool // has seen a key picture
	videoSeq, audioSeq uint16
	single             int // the last OneFrame in which it got its frame
}

func newStream(s *Server, id uint32, path string, f *Fixture) *stream {
	st := &stream{
		srv: s, id: id, path: path, home: f, playing: f,
		rng:     s.rng(id),
		viewers: make(map[*gortsplib.ServerSession]*viewer),
		wake:    make(chan struct{}, 1),
		head:    newPayloader(f.codec),
		phase:   time.Duration(id-1) * 137 * time.Millisecond % (2 * time.Second),
	}
	st.videoRTP, st.audioRTP = st.rng.Uint32(), st.rng.Uint32()
	st.plan = newPlan(s.cfg.Script, st.rng, func(l *Line) bool {
		return l.Fault.Kind != Refuse && (len(l.Paths) == 0 || slices.ContainsFunc(l.Paths, func(p string) bool {
			p = cleanPath(p)
			return p == path || "1/"+p == path
		}))
	})
	return st
}

// open makes the description. The RTSP server has to run.
func (st *stream) open() error {
	if st.home.codec == h265 {
		st.videoFormat = &format.H265{PayloadTyp: videoPayload}
	} else {
		st.videoFormat = &format.H264{PayloadTyp: videoPayload, PacketizationMode: 1}
	}
	st.describe()
	st.video = &description.Media{Type: description.MediaTypeVideo, Formats: []format.Format{st.videoFormat}}
	desc := &description.Session{Title: "emulated camera " + st.path, Medias: []*description.Media{st.video}}
	if a := st.home.sound; a != nil {
		st.audio = &description.Media{Type: description.MediaTypeAudio, Formats: []format.Format{&format.MPEG4Audio{
			PayloadTyp: audioPayload, ProfileLevelID: 1, Config: &a.config,
			SizeLength: 13, IndexLength: 3, IndexDeltaLength: 3,
		}}}
		desc.Medias = append(desc.Medias, st.audio)
	}
	st.rtsp = &gortsplib.ServerStream{Server: st.srv.rtsp, Desc: desc}
	return st.rtsp.Initialize()
}

// describe puts the parameter sets that play into the SDP.
func (st *stream) describe() {
	f := st.playing
	switch v := st.videoFormat.(type) {
	case *format.H264:
		v.SafeSetParams(f.parameterSet(7), f.parameterSet(8))
	case *format.H265:
		v.SafeSetParams(f.parameterSet(32), f.parameterSet(33), f.parameterSet(34))
	}
}

func (st *stream) lockedOut() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return time.Since(st.srv.started) < st.locked
}

// join takes a session in that has been allowed to play; start lets it be sent to.
func (st *stream) join(ss *gortsplib.ServerSession) {
	medias := ss.Medias()
	st.mu.Lock()
	defer st.mu.Unlock()
	st.viewers[ss] = &viewer{
		session:  ss,
		video:    slices.Contains(medias, st.video),
		audio:    st.audio != nil && slices.Contains(medias, st.audio),
		videoSeq: uint16(st.rng.Uint32()),
		audioSeq: uint16(st.rng.Uint32()),
		single:   st.singles - 1,
	}
}

// start begins to send to a session that joined and has not left.
func (st *stream) start(ss *gortsplib.ServerSession) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if v := st.viewers[ss]; v != nil {
		v.started = true
	}
}

func (st *stream) leave(ss *gortsplib.ServerSession) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.viewers, ss)
}

// cut ends the sessions and connections of all who watch. st.mu is held.
func (st *stream) cut() {
	for ss := range st.viewers {
		for _, c := range ss.Conns() {
			c.NetConn().Close()
		}
		ss.Close() // over UDP a session outlives its connection
	}
	clear(st.viewers)
}

// run plays until ctx is done.
func (st *stream) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := st.step()
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-st.wake:
		case <-timer.C:
		}
	}
}

// step does all that is due, in order of time, and returns how long nothing
// will be.
func (st *stream) step() time.Duration {
	st.mu.Lock()
	defer st.mu.Unlock()
	for {
		now := time.Since(st.srv.started)
		for _, f := range st.inject {
			st.fault(f, now)
		}
		st.inject = nil

		next := st.phase + media.Duration(st.videoTime).Std()
		do := st.sendPicture
		if a := st.home.sound; a != nil {
			n := st.sounded * int64(a.step)
			at := st.phase + time.Duration(n/int64(a.rate))*time.Second + time.Duration(n%int64(a.rate))*time.Second/time.Duration(a.rate)
			if at < next {
				next, do = at, st.sendSound
			}
		}
		next = max(next, st.late)
		if at, ok := st.plan.next(); ok && at <= next {
			next, do = at, func(time.Duration) { st.fault(st.plan.take(), at) }
		}
		if next > now {
			return next - now
		}
		do(max(next, 0))
	}
}

// fault lets f happen at the time at.
func (st *stream) fault(f Fault, at time.Duration) {
	st.srv.note(st.path, Faulty, f.String())
	until := at + f.For
	switch f.Kind {
	case Drop:
		st.cut()
	case Stall:
		st.stalled = until
	case Late:
		st.late = until
	case Password:
		st.locked = until
		st.cut()
	case ParameterSets:
		st.change = !st.change
	case NoKey:
		st.keyless = until
	case Jump:
		st.shift += f.Shift
	case OneFrame:
		st.single = until
		st.singles++
	case Duplicate:
		st.duplicate += f.Count
	case Backward:
		st.backward += f.Count
	case Frozen:
		st.frozen = until
	case Empty:
		st.empty += f.Count
	case Lose:
		st.lose += f.Count
	}
}

// sendPicture sends the picture that is due at the time at, and goes on to the
// next one.
func (st *stream) sendPicture(at time.Duration) {
	f := st.playing
	if st.change && f.pictures[st.picture].key && f.twin != nil {
		st.change = false
		twin := f.twin
		if twin.twin == nil {
			back := *twin
			back.twin = f
			twin = &back
		}
		st.playing, st.picture = twin, 0
		f = twin
		st.describe()
		st.rtsp.ReloadDesc()
	}
	if at < st.keyless {
		for i := 0; f.pictures[st.picture].key && i < len(f.pictures); i++ {
			st.picture = (st.picture + 1) % len(f.pictures)
		}
	}
	p := &f.pictures[st.picture]
	pts := st.videoTime + p.offset + st.shift
	step := f.times[st.picture+1] - f.times[st.picture]
	switch {
	case st.duplicate > 0:
		st.duplicate--
		pts = st.lastPTS
	case st.backward > 0:
		st.backward--
		st.backed++
		pts = st.lastPTS - int64(st.backed)*step
	default:
		st.backed = 0
		st.lastPTS = pts
	}
	if at >= st.stalled && at >= st.frozen && len(st.viewers) > 0 {
		st.send(f, p, pts, at)
	}
	st.videoTime += step
	st.frame++
	st.picture = (st.picture + 1) % len(f.pictures)
}

// send writes a picture to the viewers.
func (st *stream) send(f *Fixture, p *picture, pts int64, at time.Duration) {
	now := time.Now()
	mark := Mark{Stream: st.id, Frame: st.frame, Picture: uint32(st.picture), Fixture: f.ID, Start: st.srv.nonce, Sent: now}
	head := payloads(st.head, f.head(st.picture, &mark))
	body := f.packets()[st.picture]
	lost := -1
	if st.lose > 0 {
		st.lose--
		lost = st.rng.IntN(len(head) + len(body))
	}
	var empty [][]byte
	if st.empty > 0 {
		st.empty--
		empty = payloads(st.head, [][]byte{emptyNAL(f.codec)})
	}
	packet := &rtp.Packet{Header: rtp.Header{
		Version: 2, PayloadType: videoPayload, Timestamp: st.videoRTP + uint32(pts),
	}}
	for _, v := range st.viewers {
		if !v.started {
			continue
		}
		if !v.video {
			v.joined = true
			continue
		}
		if !v.joined {
			// With key pictures left out there is none to wait for.
			if !p.key && at >= st.keyless {
				continue
			}
			v.joined = true
		}
		if at < st.single {
			if v.single == st.singles {
				continue
			}
			v.single = st.singles
		}
		ok := true
		write := func(payload []byte, last, lost bool) {
			packet.Payload, packet.Marker, packet.SequenceNumber = payload, last, v.videoSeq
			v.videoSeq++
			if ok && !lost {
				ok = v.session.WritePacketRTPWithNTP(st.video, packet, now) == nil
			}
		}
		for i, payload := range empty {
			write(payload, i == len(empty)-1, false)
		}
		for i, payload := range head {
			write(payload, false, i == lost)
		}
		for i, payload := range body {
			write(payload, i == len(body)-1, len(head)+i == lost)
		}
		if !ok {
			st.tooSlow(v)
		}
	}
}

// emptyNAL is a user data SEI that is not a mark.
func emptyNAL(c codec) []byte {
	nal := []byte{6}
	if c == h265 {
		nal = []byte{39 << 1, 1}
	}
	nal = append(nal, 5, 16)
	return append(append(nal, "no picture here."...), 0x80)
}

// tooSlow ends a session that does not read: its queue is full, and a picture
// with a hole would look like a fault that nobody asked for.
func (st *stream) tooSlow(v *viewer) {
	delete(st.viewers, v.session)
	st.srv.note(st.path, Faulty, "a viewer reads too slowly")
	for _, c := range v.session.Conns() {
		c.NetConn().Close()
	}
	v.session.Close()
}

// sendSound sends the audio frame that is due at the time at.
func (st *stream) sendSound(at time.Duration) {
	a := st.home.sound
	i := st.sounded
	st.sounded++
	if at < st.stalled || at < st.single || len(st.viewers) == 0 {
		return
	}
	au := a.frames[i%int64(len(a.frames))]
	ts := st.audioRTP + uint32(i*int64(a.step)+st.shift/90000*int64(a.rate)+st.shift%90000*int64(a.rate)/90000)
	now := time.Now()
	// RFC 3640: 16 bits of header length in bits, then per frame 13 bits of size
	// and 3 of index; a frame that is too long goes in pieces with the same header.
	const most = 1450 - 4
	for rest := au; len(rest) > 0; {
		piece := rest[:min(most, len(rest))]
		rest = rest[len(piece):]
		payload := make([]byte, 4, 4+len(piece))
		payload[1] = 16
		payload[2], payload[3] = byte(len(au)>>5), byte(len(au)<<3)
		payload = append(payload, piece...)
		packet := &rtp.Packet{
			Header:  rtp.Header{Version: 2, PayloadType: audioPayload, Timestamp: ts, Marker: len(rest) == 0},
			Payload: payload,
		}
		for _, v := range st.viewers {
			if !v.audio || !v.joined {
				continue
			}
			packet.SequenceNumber = v.audioSeq
			v.audioSeq++
			if v.session.WritePacketRTPWithNTP(st.audio, packet, now) != nil {
				st.tooSlow(v)
			}
		}
	}
}
