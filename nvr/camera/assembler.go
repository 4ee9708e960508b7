package camera

import (
	"bytes"
	"encoding/binary"
)

// codec is the kind of video.
type codec uint8

const (
	h264 codec = iota
	h265
)

func (c codec) String() string {
	if c == h265 {
		return "H.265"
	}
	return "H.264"
}

// header is the size of a NAL unit header.
func (c codec) header() int {
	if c == h265 {
		return 2
	}
	return 1
}

// Bounds on one access unit, kept before anything is allocated for it.
const (
	maxUnit  = 16 << 20
	maxNAL   = 8 << 20
	maxNALs  = 1024
	maxParts = 32 << 10 // RTP payloads; 16 MiB in packets of 512 bytes
)

// nal is one NAL unit of an access unit that is being put together. Its bytes
// are head[:heads], then parts[first:end] of the assembler.
type nal struct {
	head       [2]byte
	heads      uint8 // 0 when the header is part of the first part
	typ        uint8
	slice      bool
	opens      bool // a slice that begins a picture
	intra      bool // H.264: of I slices, as far as the first one says
	drop       bool // does not go into the sample
	first, end int32
	size       int32
}

// assembler makes access units of RTP payloads (RFC 6184, RFC 7798). It holds
// on to the payloads, which the RTSP library allocates for each packet and then
// forgets, and copies each byte once, into the finished unit.
//
// The order for each packet is: sequence, and missed where others are missing;
// begins, which says that it belongs to another unit than the open one; then
// sample and reset for what is open; then add.
type assembler struct {
	codec codec

	// annexB is set once a camera was seen to put several NAL units with start
	// codes into what should be one (media-ui.md 1.4). From then on each NAL
	// unit is searched for them.
	annexB    bool
	splitting bool // the NAL units being added come from split

	open      bool // a unit has begun
	timestamp uint32
	damaged   bool // something of the open unit is missing
	vcl       int  // slices in it
	broken    bool // its first slice is not the first of a picture
	fragment  bool // the last NAL unit waits for more fragments

	// After a loss between two units, the one that begins may miss its
	// beginning. Only what stands first by the standard proves that it does not.
	suspect   bool
	delimited bool // the stream has access unit delimiters

	nals  []nal
	parts [][]byte
	size  int

	next     uint16 // sequence number expected
	haveNext bool
	lost     uint64 // packets missing since the session began
}

// sequence takes note of a packet's sequence number. It reports whether the
// packet is new, and whether others are missing before it; then the caller goes
// on with missed. Packets come in order here: TCP keeps it, and for UDP the
// library does.
func (a *assembler) sequence(seq uint16) (fresh, gap bool) {
	missing := seq - a.next
	if a.haveNext && missing == 0xffff {
		return false, false // the packet before, once more
	}
	gap = a.haveNext && missing != 0
	if gap && missing >= 0x8000 {
		missing = 1 // the camera began to count anew; nobody knows how many
	}
	if gap {
		a.lost += uint64(missing)
	}
	a.next, a.haveNext = seq+1, true
	return true, gap
}

// missed says that packets are missing here.
func (a *assembler) missed() {
	a.damaged = a.open
	a.suspect, a.fragment = true, false
}

// begins reports whether payload starts an access unit other than the open one:
// because it has another timestamp, or because it opens a picture after a
// picture, which in an interlaced stream is the second field of the same unit.
func (a *assembler) begins(timestamp uint32, payload []byte) (moved, again bool) {
	if !a.open {
		return false, false
	}
	return timestamp != a.timestamp, a.vcl > 0 && opensPicture(a.codec, payload)
}

// opensPicture looks through the first NAL unit in an RTP payload.
func opensPicture(c codec, p []byte) bool {
	if c == h265 {
		if len(p) < 4 {
			return false
		}
		switch t := p[0] >> 1 & 0x3f; t {
		case 49:
			return p[2]&0x80 != 0 && p[2]&0x3f < 32 && p[3]&0x80 != 0
		case 48:
			return len(p) > 6 && opensPicture(c, p[4:])
		default:
			return t < 32 && p[2]&0x80 != 0
		}
	}
	if len(p) < 3 {
		return false
	}
	switch t := p[0] & 0x1f; t {
	case 28:
		t = p[1] & 0x1f
		return p[1]&0x80 != 0 && (t == 1 || t == 2 || t == 5) && p[2]&0x80 != 0
	case 24:
		return len(p) > 4 && opensPicture(c, p[3:])
	default:
		return (t == 1 || t == 2 || t == 5) && p[1]&0x80 != 0
	}
}

// add takes the next payload. An error is the end of the session; what is
// merely damaged marks the unit.
func (a *assembler) add(timestamp uint32, p []byte) *Error {
	if len(p) == 0 {
		return nil // some cameras keep the stream alive so
	}
	if !a.open {
		a.open, a.timestamp = true, timestamp
	}
	defer func() { a.suspect = false }()
	if a.codec == h265 {
		return a.add265(p)
	}
	return a.add264(p)
}

func (a *assembler) add264(p []byte) *Error {
	switch t := p[0] & 0x1f; {
	case t == 28: // FU-A
		if len(p) < 3 {
			a.damaged = true
			return nil
		}
		start := p[1]&0x80 != 0
		if start {
			a.begin([2]byte{p[0]&0xe0 | p[1]&0x1f}, 1, p[1]&0x1f)
		}
		// CostarHD sets start and end in one packet.
		return a.more(p[2:], p[1]&0x40 != 0)
	case t == 24: // STAP-A
		return a.aggregate(p[1:])
	case t == 0 && startCode(p) > 0:
		return a.split(p)
	case t >= 1 && t <= 23:
		return a.whole(p)
	case t >= 25 && t <= 29:
		return problem(Protocol, "video comes in interleaved RTP packets (type %d), which are not supported", t)
	}
	a.damaged = true
	return nil
}

func (a *assembler) add265(p []byte) *Error {
	if len(p) < 3 {
		a.damaged = true
		return nil
	}
	switch t := p[0] >> 1 & 0x3f; {
	case t == 49: // FU
		if len(p) < 4 {
			a.damaged = true
			return nil
		}
		if p[2]&0x80 != 0 {
			a.begin([2]byte{p[0]&0x81 | p[2]&0x3f<<1, p[1]}, 2, p[2]&0x3f)
		}
		return a.more(p[3:], p[2]&0x40 != 0)
	case t == 48: // AP
		return a.aggregate(p[2:])
	case t == 50:
		return problem(Protocol, "video comes in PACI packets, which are not supported")
	case startCode(p) > 0:
		return a.split(p)
	case t < 48:
		return a.whole(p)
	}
	a.damaged = true
	return nil
}

// aggregate takes the NAL units of a STAP-A or an aggregation packet.
func (a *assembler) aggregate(p []byte) *Error {
	for len(p) >= 2 {
		n := int(binary.BigEndian.Uint16(p))
		p = p[2:]
		if n == 0 {
			break // padding, as some cameras send it
		}
		if n > len(p) {
			a.damaged = true
			return nil
		}
		if err := a.whole(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// whole takes a NAL unit that is in one piece.
func (a *assembler) whole(p []byte) *Error {
	if len(p) < a.codec.header() {
		return nil
	}
	a.begin([2]byte{}, 0, a.typeOf(p))
	return a.more(p, true)
}

// begin opens a NAL unit. One that still waits for fragments without a packet
// missing ends here: some cameras forget the end bit.
func (a *assembler) begin(head [2]byte, heads, typ uint8) {
	delimiter, first := uint8(9), uint8(7)
	if a.codec == h265 {
		delimiter, first = 35, 32
	}
	a.delimited = a.delimited || typ == delimiter
	if a.suspect && typ != delimiter && (typ != first || a.delimited) {
		a.damaged = true
	}
	a.suspect = false
	a.nals = append(a.nals, nal{head: head, heads: heads, typ: typ, first: int32(len(a.parts)), end: int32(len(a.parts)), size: int32(heads)})
	a.size += 4 + int(heads)
	a.fragment = true
}

// more adds bytes to the last NAL unit.
func (a *assembler) more(p []byte, last bool) *Error {
	if !a.fragment {
		a.damaged = true // the beginning is missing
		return nil
	}
	n := &a.nals[len(a.nals)-1]
	if n.first == n.end {
		a.slice(n, p)
	}
	a.parts = append(a.parts, p)
	n.end = int32(len(a.parts))
	n.size += int32(len(p))
	a.size += len(p)
	a.fragment = !last
	if last && (a.annexB || !n.slice) && !a.splitting {
		if err := a.untangleLast(); err != nil {
			return err
		}
		n = &a.nals[len(a.nals)-1]
	}
	switch {
	case a.size > maxUnit:
		return problem(Protocol, "an access unit is larger than %d MiB", maxUnit>>20)
	case n.size > maxNAL:
		return problem(Protocol, "a NAL unit is larger than %d MiB", maxNAL>>20)
	case len(a.nals) > maxNALs:
		return problem(Protocol, "an access unit has more than %d NAL units", maxNALs)
	case len(a.parts) > maxParts:
		return problem(Protocol, "an access unit comes in more than %d pieces", maxParts)
	}
	return nil
}

// slice counts n when it is one, from the first bytes of its first part.
func (a *assembler) slice(n *nal, p []byte) {
	if n.heads == 0 {
		p = p[a.codec.header():]
	}
	switch {
	case a.codec == h265 && n.typ < 32:
		n.opens = len(p) > 0 && p[0]&0x80 != 0 // first_slice_segment_in_pic_flag
	case a.codec == h264 && (n.typ == 1 || n.typ == 2 || n.typ == 5):
		n.opens = len(p) > 0 && p[0]&0x80 != 0 // first_mb_in_slice is 0
		// slice_type 2 or 7, which stands in the same byte.
		n.intra = n.opens && (p[0]>>4 == 0xb || p[0] == 0x88)
	case a.codec == h264 && (n.typ == 3 || n.typ == 4): // data partitions B, C
	default:
		return
	}
	n.slice = true
	if a.vcl == 0 && !n.opens {
		a.broken = true
	}
	a.vcl++
}

func (a *assembler) typeOf(p []byte) uint8 {
	if a.codec == h265 {
		return p[0] >> 1 & 0x3f
	}
	return p[0] & 0x1f
}

// startCode is the length of the Annex B start code that p begins with, 0 when
// there is none. No NAL unit header begins with two zero bytes.
func startCode(p []byte) int {
	switch {
	case len(p) > 4 && p[0] == 0 && p[1] == 0 && p[2] == 0 && p[3] == 1:
		return 4
	case len(p) > 3 && p[0] == 0 && p[1] == 0 && p[2] == 1:
		return 3
	}
	return 0
}

// split takes NAL units that stand in p with start codes between them, and
// perhaps before them.
func (a *assembler) split(p []byte) *Error {
	for len(p) > 0 {
		i := bytes.Index(p, []byte{0, 0, 1})
		var rest []byte
		one := p
		if i >= 0 {
			one, rest = p[:i], p[i+3:]
			// Zero bytes before a start code belong to it.
			one = bytes.TrimRight(one, "\x00")
		}
		if len(one) > 0 {
			if err := a.whole(one); err != nil {
				return err
			}
		}
		p = rest
	}
	return nil
}

// untangleLast splits the last NAL unit at start codes within it. What is a
// start code cannot stand in a NAL unit by the standard; some cameras put
// parameter sets and picture into one, or all slices. Slices are searched only
// once such a camera is known, and in key pictures (untangle).
func (a *assembler) untangleLast() *Error {
	n := a.nals[len(a.nals)-1]
	if !tangled(a.parts[n.first:n.end]) && !(a.annexB && n.end > n.first+1) {
		return nil
	}
	a.annexB = true
	one := a.bytes(&n)
	a.nals, a.parts = a.nals[:len(a.nals)-1], a.parts[:n.first]
	a.size -= 4 + int(n.size)
	if n.slice {
		if a.vcl--; a.vcl == 0 {
			a.broken = false
		}
	}
	a.splitting = true
	err := a.split(one)
	a.splitting = false
	if len(a.nals) == 0 && err == nil {
		a.nals = append(a.nals, nal{typ: 63, drop: true}) // it was nothing but start codes
	}
	return err
}

// untangle does the same for all NAL units of a key picture.
func (a *assembler) untangle() *Error {
	if !tangled(a.parts) {
		return nil
	}
	a.annexB = true
	nals, parts := a.nals, a.parts
	a.nals, a.parts = nil, nil
	a.vcl, a.size, a.broken, a.fragment = 0, 0, false, false
	a.splitting = true
	defer func() { a.splitting = false }()
	for i := range nals {
		n := &nals[i]
		one := make([]byte, 0, n.size)
		one = append(one, n.head[:n.heads]...)
		for _, p := range parts[n.first:n.end] {
			one = append(one, p...)
		}
		if err := a.split(one); err != nil {
			return err
		}
	}
	return nil
}

// tangled looks for start codes. It does not see one that straddles two packets;
// the next key picture shows another.
func tangled(parts [][]byte) bool {
	for _, p := range parts {
		if bytes.Contains(p, []byte{0, 0, 1}) {
			return true
		}
	}
	return false
}

// bytes joins a NAL unit; without a copy where it is in one piece.
func (a *assembler) bytes(n *nal) []byte {
	if n.heads == 0 && n.end == n.first+1 {
		return a.parts[n.first]
	}
	b := make([]byte, 0, n.size)
	b = append(b, n.head[:n.heads]...)
	for _, p := range a.parts[n.first:n.end] {
		b = append(b, p...)
	}
	return b
}

// sample builds the finished access unit, each NAL unit behind its length,
// without those marked drop.
func (a *assembler) sample() []byte {
	size := 0
	for i := range a.nals {
		if n := &a.nals[i]; !n.drop {
			size += 4 + int(n.size)
		}
	}
	b := make([]byte, 0, size)
	for i := range a.nals {
		n := &a.nals[i]
		if n.drop {
			continue
		}
		b = binary.BigEndian.AppendUint32(b, uint32(n.size))
		b = append(b, n.head[:n.heads]...)
		for _, p := range a.parts[n.first:n.end] {
			b = append(b, p...)
		}
	}
	return b
}

// complete reports whether the open unit is a whole picture.
func (a *assembler) complete() bool { return a.open && a.vcl > 0 && !a.damaged && !a.broken }

// reset forgets the open unit and lets its payloads go.
func (a *assembler) reset() {
	clear(a.parts)
	a.nals, a.parts = a.nals[:0], a.parts[:0]
	a.open, a.damaged, a.broken, a.fragment = false, false, false, false
	a.vcl, a.size = 0, 0
}
