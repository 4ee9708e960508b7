package media

import (
	"fmt"
	"strconv"
	"strings"
)

// Measured is what a stream turned out to be when it was looked at for a while.
type Measured struct {
	Video     *SampleEntry
	Audio     *SampleEntry // nil: none is recorded
	Skipped   []string     // what is offered and not recorded, and why
	Transport string       // "tcp" or "udp"
	Server    string       // what the camera calls its software

	Pictures  int
	Duration  Duration // of these, by their decode times
	FrameRate float64  // pictures a second; 0: of one picture
	BitRate   int64    // of video, bits a second; over whole groups where there is one

	// GOP and GOPPictures are the mean of the groups of pictures that were seen
	// from key picture to key picture; 0: none was.
	GOP         Duration
	GOPPictures float64
}

// Meter measures a stream by its access units, in the order in which they come.
type Meter struct {
	video             *SampleEntry
	pictures          int
	bytes             int64
	first, last       int64 // decode times
	keys, beforeKey   int   // key pictures, and pictures before the last one
	firstKey, lastKey int64
	bytesBeforeKey    int64 // before the last one
}

// Add takes a unit. Only those of video count.
func (m *Meter) Add(au *AccessUnit) {
	if au.Kind != Video {
		return
	}
	if m.pictures == 0 {
		m.first = au.DTS
	}
	if au.Key {
		if m.keys == 0 {
			m.firstKey = au.DTS
		}
		m.keys++
		m.lastKey, m.beforeKey, m.bytesBeforeKey = au.DTS, m.pictures, m.bytes
	}
	m.video, m.last = au.Entry, au.DTS
	m.pictures++
	m.bytes += int64(len(au.Data))
}

// Groups is how many groups of pictures were seen to their end.
func (m *Meter) Groups() int { return max(0, m.keys-1) }

// Duration is from the first picture to the last.
func (m *Meter) Duration() Duration { return Duration(m.last - m.first) }

// Result is what was measured. Video is nil when there was no picture.
func (m *Meter) Result() Measured {
	r := Measured{Video: m.video, Pictures: m.pictures, Duration: m.Duration()}
	if r.Duration > 0 {
		r.FrameRate = float64(m.pictures-1) * float64(Second) / float64(r.Duration)
		r.BitRate = int64(float64(m.bytes) * 8 * float64(Second) / float64(r.Duration))
	}
	if n := m.Groups(); n > 0 && m.lastKey > m.firstKey {
		groups := m.lastKey - m.firstKey
		r.GOP, r.GOPPictures = Duration(groups/int64(n)), float64(m.beforeKey)/float64(n)
		r.BitRate = int64(float64(m.bytesBeforeKey) * 8 * float64(Second) / float64(groups))
	}
	return r
}

// Profile is what people call the profile and the level of a video sample entry,
// as "High" and "3.1"; empty where its codec name does not say.
func (e *SampleEntry) Profile() (profile, level string) {
	parts := strings.Split(e.Codec, ".")
	switch {
	case parts[0] == "avc1" && len(parts) == 2 && len(parts[1]) == 6: // profile, constraints, level
		n, err := strconv.ParseUint(parts[1], 16, 32)
		if err != nil {
			return "", ""
		}
		profile = map[uint64]string{0x42: "Baseline", 0x4d: "Main", 0x58: "Extended", 0x64: "High", 0x6e: "High 10", 0x7a: "High 4:2:2", 0xf4: "High 4:4:4"}[n>>16]
		if n>>16 == 0x42 && n>>8&0x40 != 0 {
			profile = "Constrained Baseline"
		}
		return profile, fmt.Sprintf("%d.%d", n&0xff/10, n&0xff%10)
	case parts[0] == "hvc1" && len(parts) >= 4 && len(parts[3]) > 1: // profile, compatibility, tier and level
		profile = map[string]string{"1": "Main", "2": "Main 10", "3": "Main Still Picture", "4": "Range Extensions"}[strings.TrimLeft(parts[1], "ABC")]
		n, err := strconv.ParseUint(parts[3][1:], 10, 16)
		if err != nil {
			return profile, ""
		}
		return profile, fmt.Sprintf("%d.%d", n/30, n%30/3)
	}
	return "", ""
}
