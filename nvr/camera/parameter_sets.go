package camera

import (
	"bytes"

	"github.com/bluenviron/mediacommon/v2/pkg/bits"
	mch264 "github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	mch265 "github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"

	"holdfast/nvr/media"
)

// Bounds on parameter sets. Cameras send one of each, some a few; the counts
// must fit avcC.
const (
	maxSet  = 4 << 10
	maxSPSs = 8
	maxPPSs = 64
)

// role is the kind of a parameter set, in the order of hvcC.
type role int8

const (
	noSet role = iota - 1
	vpsRole
	spsRole
	ppsRole
	roles
)

func setRole(c codec, typ uint8) role {
	switch {
	case c == h264 && typ == 7:
		return spsRole
	case c == h264 && typ == 8:
		return ppsRole
	case c == h265 && typ >= 32 && typ <= 34:
		return role(typ - 32)
	}
	return noSet
}

// set is one parameter set: its bytes and the id it goes by among its kind.
type set struct {
	id  uint32
	raw []byte
}

// parameterSets are those a stream sends, and the sample entry made of them.
type parameterSets struct {
	codec  codec
	active [roles][]set
	entry  *media.SampleEntry
	sps    *sps // parsed from active[spsRole][0]

	staged [roles][]set // scratch of adopt
}

// whole reports whether there is one of each kind.
func (p *parameterSets) whole(sets *[roles][]set) bool {
	return (p.codec == h264 || len(sets[vpsRole]) > 0) && len(sets[spsRole]) > 0 && len(sets[ppsRole]) > 0
}

// known reports whether the active sets hold exactly raw. It does not allocate:
// most cameras repeat their sets before each key picture.
func (p *parameterSets) known(r role, raw []byte) bool {
	for i := range p.active[r] {
		if bytes.Equal(p.active[r][i].raw, raw) {
			return true
		}
	}
	return false
}

// adopt makes the sets that came with a key picture the active ones and reports
// whether the stream can be described now. Sets that came before a picture that
// is not a key wait in later for the next key.
//
// A picture that brings one of each kind brings all that is needed: with
// anything new among them the sets before are gone. Otherwise a set takes the
// place of the one with its id.
func (p *parameterSets) adopt(in *[roles][][]byte) *Error {
	fresh := false
	for r := range in {
		p.staged[r] = p.staged[r][:0]
		for _, raw := range in[r] {
			if !p.known(role(r), raw) {
				fresh = true
			}
		}
	}
	if !fresh && p.entry != nil {
		return nil
	}
	for r := range in {
		for _, raw := range in[r] {
			id, ok := setID(p.codec, role(r), raw)
			if !ok {
				continue // a piece of one; the next key picture brings it again
			}
			p.staged[r] = put(p.staged[r], set{id, raw})
		}
	}
	if !p.whole(&p.staged) {
		for r := range p.staged {
			merged := append([]set(nil), p.active[r]...)
			for _, s := range p.staged[r] {
				merged = put(merged, s)
			}
			p.staged[r] = merged
		}
	}
	if len(p.staged[vpsRole]) > maxSPSs || len(p.staged[spsRole]) > maxSPSs || len(p.staged[ppsRole]) > maxPPSs {
		return problem(Protocol, "the stream has %d sequence and %d picture parameter sets", len(p.staged[spsRole]), len(p.staged[ppsRole]))
	}
	if !p.whole(&p.staged) {
		for r := range p.active {
			p.active[r] = append(p.active[r][:0], p.staged[r]...)
			own(p.active[r])
		}
		return nil
	}
	return p.describe()
}

// put replaces the set with the same id: of two in one access unit the second
// counts.
func put(sets []set, s set) []set {
	for i := range sets {
		if sets[i].id == s.id {
			sets[i] = s
			return sets
		}
	}
	return append(sets, s)
}

// own copies the bytes of sets out of packets.
func own(sets []set) {
	for i := range sets {
		sets[i].raw = bytes.Clone(sets[i].raw)
	}
}

// describe makes the staged sets active, and the entry anew when it differs.
func (p *parameterSets) describe() *Error {
	for r := range p.staged {
		p.active[r] = append([]set(nil), p.staged[r]...)
		own(p.active[r])
	}
	first := p.active[spsRole][0].raw
	parsed, err := parseSPS(p.codec, first)
	if err != nil {
		e := problem(Protocol, "unreadable sequence parameter set %s: %v", hexID(first), err)
		e.Err = err
		return e
	}
	var raws [roles][][]byte
	for r := range p.active {
		for _, s := range p.active[r] {
			raws[r] = append(raws[r], s.raw)
		}
	}
	entry := parsed.entry
	if p.codec == h265 {
		entry.Config, err = hvcC(raws[vpsRole], raws[spsRole], raws[ppsRole])
	} else {
		entry.Config, err = avcC(raws[spsRole], raws[ppsRole])
	}
	if err != nil {
		return problem(Protocol, "decoder configuration: %v", err)
	}
	p.sps = parsed
	if !entry.Equal(p.entry) {
		p.entry = &entry
	}
	return nil
}

// setID reads the id of a parameter set; false when it is cut short.
func setID(c codec, r role, raw []byte) (uint32, bool) {
	b := raw[min(len(raw), c.header()):]
	if len(b) > 64 {
		b = b[:64]
	}
	b = mch264.EmulationPreventionRemove(b)
	pos := 0
	switch {
	case c == h264 && r == spsRole:
		pos = 24 // profile, constraints, level
	case c == h265 && r == vpsRole:
		id, err := bits.ReadBits(b, &pos, 4)
		return uint32(id), err == nil
	case c == h265 && r == spsRole:
		var p mch265.SPS
		if err := p.Unmarshal(raw); err != nil {
			// Not readable as a whole: what is wrong with it is said when the
			// stream is described.
			return 0, len(raw) > 4
		}
		return uint32(p.ID), true
	}
	if pos > len(b)*8 {
		return 0, false
	}
	id, err := bits.ReadGolombUnsigned(b, &pos)
	return id, err == nil
}
