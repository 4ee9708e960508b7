package camera

import (
	"bytes"
	"time"

	mch264 "github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/pion/rtp"

	"holdfast/nvr/media"
)

// blindKeys is how many key pictures may come before their parameter sets do.
const blindKeys = 3

// videoTrack makes access units of video packets. All of it is under the
// session's mu once the stream runs.
type videoTrack struct {
	session *session
	source  source
	units   assembler
	sets    parameterSets
	decode  decodeClock
	rtp     unwrapper

	packets uint64
	seen    bool // a whole picture, key or not
	blind   int  // key pictures whose parameter sets were missing

	begun  bool  // a key picture was handed over
	origin int64 // what is added to RTP time to make session time

	// A camera that sets the marker bit on every slice ends no unit by it; then
	// only the next timestamp does. That is found out with the first unit handed
	// over, which therefore waits for the packet after it.
	byTimestamp bool
	settled     bool
	marked      bool // the last packet of the open unit had the marker

	closed     uint32 // timestamp of the unit handed over last
	arrived    time.Duration
	shown      int64         // presentation time of the unit handed over last
	shownAt    time.Duration // when its first packet arrived
	damaged    uint64        // units dropped since the last log line
	reportedAt time.Duration
	lostAt     uint64 // units.lost at the last log line

	incoming [roles][][]byte
}

func (v *videoTrack) init(c codec) {
	v.units.codec, v.sets.codec = c, c
}

// describe takes a parameter set of the session description. It is only a
// beginning: what comes in band takes its place.
func (v *videoTrack) describe(r role, raw []byte) {
	raw = trimSet(raw)
	if len(raw) <= v.units.codec.header() || setRole(v.units.codec, v.units.typeOf(raw)) != r {
		return
	}
	if id, ok := setID(v.units.codec, r, raw); ok && len(raw) <= maxSet {
		v.sets.active[r] = []set{{id, bytes.Clone(raw)}}
	}
}

// trimSet takes off zero bytes behind a parameter set; they are padding.
func trimSet(raw []byte) []byte { return bytes.TrimRight(raw[startCode(raw):], "\x00") }

// packet is called by the RTSP library for each packet.
func (v *videoTrack) packet(p *rtp.Packet) {
	s := v.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	switch v.source.check(p.SSRC) {
	case foreign:
		return
	case changed:
		if v.begun {
			s.fail(problem(Protocol, "the camera sent another session's video before its own"))
			return
		}
		v.units.reset()
		v.units.haveNext = false
		v.marked = false
	}
	v.packets++
	fresh, gap := v.units.sequence(p.SequenceNumber)
	if !fresh {
		return
	}
	if gap {
		// What was missed came after a unit that only waits to be sure of its
		// end.
		if v.marked && !v.settled && v.units.complete() && !v.finish() {
			return
		}
		v.units.missed()
		v.decode.lost()
	}
	if len(p.Payload) == 0 {
		return
	}

	if moved, again := v.units.begins(p.Timestamp, p.Payload); moved || again && !v.interlaced() {
		v.settled = v.settled || v.marked
		if !v.finish() {
			return
		}
	}
	slices := v.units.vcl
	more := v.marked && slices > 0
	if !v.units.open {
		v.arrived = time.Since(s.start)
	}
	if err := v.units.add(p.Timestamp, p.Payload); err != nil {
		s.fail(err)
		return
	}
	if more && v.units.vcl > slices {
		v.byTimestamp, v.settled = true, true
	}
	v.marked = p.Marker
	if !p.Marker {
		return
	}
	whole := v.units.complete()
	if whole {
		v.picture()
	}
	// Some set the marker behind SEI as well (Ivel): a unit without a picture,
	// which is dropped.
	if v.units.vcl == 0 || !v.byTimestamp && (v.settled || !whole) {
		v.finish()
	}
}

// picture takes note of a whole picture, for the watch.
func (v *videoTrack) picture() {
	v.seen = true
	v.session.picture.Store(int64(time.Since(v.session.start)))
}

// interlaced reports whether two fields may share a timestamp. Before the first
// key picture was taken in, its SPS is asked.
func (v *videoTrack) interlaced() bool {
	if v.sets.sps != nil {
		return v.sets.sps.interlaced
	}
	var raw []byte
	if v.sets.active[spsRole] != nil {
		raw = v.sets.active[spsRole][0].raw
	}
	for i := range v.units.nals {
		if n := &v.units.nals[i]; setRole(v.units.codec, n.typ) == spsRole {
			raw = v.units.bytes(n)
		}
	}
	p, err := parseSPS(v.units.codec, raw)
	return err == nil && p.interlaced
}

// rest hands over the last unit, when the session ended while it waited for the
// packet after it.
func (v *videoTrack) rest() {
	if v.units.open && v.marked && !v.units.fragment {
		v.finish()
	}
}

// finish ends the open unit and hands it over. It returns false when the session
// is over.
func (v *videoTrack) finish() bool {
	defer v.units.reset()
	s := v.session
	u := &v.units
	v.marked = false

	if u.vcl > 0 && !u.complete() {
		if u.broken && !u.damaged && v.begun && u.timestamp == v.closed {
			// More slices of a picture that was handed over.
			v.byTimestamp = true
		}
		v.decode.lost()
		if v.begun {
			v.damaged++
			v.report()
		}
		return true
	}
	if u.damaged {
		return true // parameter sets or SEI with a hole
	}
	key := v.key()
	if key && !u.annexB {
		if err := u.untangle(); err != nil {
			s.fail(err)
			return false
		}
	}
	if u.vcl > 0 {
		v.picture()
	}
	v.collect(key)
	if u.vcl == 0 {
		return true
	}
	if key {
		if err := v.sets.adopt(&v.incoming); err != nil {
			s.fail(err)
			return false
		}
		v.forget()
		if v.sets.entry == nil {
			if v.blind++; v.blind >= blindKeys {
				s.fail(problem(Protocol, "%d key pictures came without their parameter sets", v.blind))
				return false
			}
			return true
		}
	}
	if !v.begun && !key {
		return true
	}
	return v.hand(key)
}

// hand times the unit and hands it over.
func (v *videoTrack) hand(key bool) bool {
	s := v.session
	if key {
		v.decode.follow(v.sets.sps)
	}
	pts := v.rtp.at(v.units.timestamp)
	var slice []byte
	if v.decode.reads() {
		slice = v.firstSlice()
	}
	dts, err := v.decode.next(pts, key, v.sets.active[spsRole][0].raw, slice)
	if err != nil {
		s.fail(err)
		return false
	}
	if !v.begun {
		v.begun = true
		v.origin = -dts
	}
	pts, dts = pts+v.origin, dts+v.origin
	v.closed, v.shown, v.shownAt = v.units.timestamp, pts, v.arrived
	s.deliver(media.AccessUnit{
		Kind: media.Video, DTS: dts, PTS: pts, Key: key,
		Data: v.units.sample(), Entry: v.sets.entry, Received: time.Now(),
	})
	return !s.over
}

// collect takes the parameter sets out of the unit: the sample entry holds them.
// Those that the entry does not hold, in a picture that is not a key, stay in as
// well, since no entry can change there.
func (v *videoTrack) collect(key bool) {
	u := &v.units
	for i := range u.nals {
		n := &u.nals[i]
		r := setRole(u.codec, n.typ)
		if r == noSet {
			continue
		}
		raw := trimSet(u.bytes(n))
		known := v.sets.known(r, raw)
		n.drop = key || known || u.vcl == 0
		switch {
		case len(raw) <= u.codec.header() || len(raw) > maxSet:
			n.drop = true
		case key:
			v.incoming[r] = append(v.incoming[r], raw)
		case !known && len(v.incoming[r]) < maxPPSs:
			// It waits for the next key picture; its packet need not.
			v.incoming[r] = append(v.incoming[r], bytes.Clone(raw))
		}
	}
}

func (v *videoTrack) forget() {
	for r := range v.incoming {
		clear(v.incoming[r])
		v.incoming[r] = v.incoming[r][:0]
	}
}

// key reports whether decoding can begin with the open unit: an IDR or, in
// H.265, any other random access picture; in H.264 also an I picture that a
// recovery point SEI calls one, for encoders that send a single IDR ever.
func (v *videoTrack) key() bool {
	u := &v.units
	var sei *nal
	for i := range u.nals {
		n := &u.nals[i]
		if u.codec == h265 {
			if n.typ < 32 {
				return n.typ >= 16 && n.typ <= 21
			}
			continue
		}
		switch n.typ {
		case 5:
			return true
		case 6:
			if sei == nil {
				sei = n
			}
		case 1:
			return n.intra && sei != nil && recoveryPoint(u.bytes(sei))
		}
	}
	return false
}

// recoveryPoint reports whether an SEI says that decoding from here is right at
// once (H.264 D.2.8: recovery_frame_cnt 0).
func recoveryPoint(sei []byte) bool {
	b := mch264.EmulationPreventionRemove(sei[1:])
	for len(b) > 2 && b[0] != 0x80 {
		var typ, size int
		for ; len(b) > 0 && b[0] == 0xff; b = b[1:] {
			typ += 255
		}
		if len(b) == 0 {
			return false
		}
		typ, b = typ+int(b[0]), b[1:]
		for ; len(b) > 0 && b[0] == 0xff; b = b[1:] {
			size += 255
		}
		if len(b) == 0 {
			return false
		}
		size, b = size+int(b[0]), b[1:]
		if size > len(b) {
			return false
		}
		if typ == 6 {
			return size > 0 && b[0]&0x80 != 0
		}
		b = b[size:]
	}
	return false
}

// firstSlice is the beginning of the first slice, as much of it as its header
// can need.
func (v *videoTrack) firstSlice() []byte {
	u := &v.units
	for i := range u.nals {
		n := &u.nals[i]
		if !n.opens {
			continue
		}
		b := make([]byte, 0, 32)
		b = append(b, n.head[:n.heads]...)
		for _, p := range u.parts[n.first:n.end] {
			b = append(b, p[:min(len(p), cap(b)-len(b))]...)
			if len(b) == cap(b) {
				break
			}
		}
		return b
	}
	return nil
}

// report says at most once a minute that pictures were dropped.
func (v *videoTrack) report() {
	now := time.Since(v.session.start)
	if v.reportedAt != 0 && now-v.reportedAt < time.Minute {
		return
	}
	v.session.log.Warn("dropped damaged pictures", "pictures", v.damaged, "lostPackets", v.units.lost-v.lostAt)
	v.damaged, v.lostAt, v.reportedAt = 0, v.units.lost, now
}
