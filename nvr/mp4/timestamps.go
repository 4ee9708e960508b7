package mp4

import (
	"time"

	"holdfast/nvr/media"
)

// The subtitle track tells the wall time of what is shown: a cue for each
// second of it in 3GPP timed text (TS 26.245), all of the same length, so that
// the track's size follows from the rows. A segment's cues stand before its
// samples as one chunk. Where a gap is kept, a cue says until when.
const (
	cueChars = len(cueLayout)
	cueSize  = 2 + cueChars // bytes: the length stands first

	cueLayout = "2006-01-02 15:04:05 -0700"
	gapLayout = "no video until 15:04:05  "

	// shortestGap is that of a gap with a cue of its own.
	shortestGap = int64(media.Second)
)

// wallStart is the wall time of the first picture shown.
func (s *segment) wallStart() media.Time { return s.Start.Add(s.From) }

// firstTick is the wall offset in what is shown at which the second changes
// first, later than the first picture.
func (s *segment) firstTick() int64 {
	at := int64(s.wallStart()) % int64(media.Second)
	if at < 0 {
		at += int64(media.Second)
	}
	tick := int64(media.Second) - at
	if s.shownAt(tick) == 0 {
		tick += int64(media.Second)
	}
	return tick
}

// shownAt converts a wall offset in what is shown to media time since then.
func (s *segment) shownAt(wall int64) int64 {
	w := int64(s.To - s.From)
	if w == 0 {
		return 0
	}
	return wall * (s.to - s.from) / w
}

// countCues is the number of cues of the segment, once its gap is known.
func (s *segment) countCues() int {
	n := 1
	if w, tick := int64(s.To-s.From), s.firstTick(); w > tick {
		n += int((w-tick-1)/int64(media.Second)) + 1
	}
	if s.gap >= shortestGap {
		n++
	}
	return n
}

func (s *segment) cueBytes() int64 { return int64(s.cues) * int64(cueSize) }

// eachCue calls f with the duration and the wall time of each cue of the
// segment. The layout is that of its text.
func (s *segment) eachCue(f func(duration int64, t media.Time, layout string)) {
	n := s.cues
	end := s.shown()
	if s.gap >= shortestGap {
		n--
		end -= s.gap
	}
	tick := s.firstTick()
	at, t := int64(0), s.wallStart()
	for range n - 1 {
		next := s.shownAt(tick)
		f(next-at, t, cueLayout)
		at, t = next, s.wallStart().Add(media.Duration(tick))
		tick += int64(media.Second)
	}
	f(end-at, t, cueLayout)
	if n < s.cues {
		f(s.gap, s.Start.Add(s.To).Add(media.Duration(s.tail+s.gap)), gapLayout)
	}
}

// appendCue appends a cue with the time in the zone.
func appendCue(b []byte, t media.Time, layout string, zone *time.Location) []byte {
	b = be.AppendUint16(b, uint16(cueChars))
	at := len(b)
	b = t.Std().In(zone).AppendFormat(b, layout)
	for len(b) < at+cueChars {
		b = append(b, ' ')
	}
	return b[:at+cueChars] // a year of five digits takes the end off
}

// timedText appends the sample entry: white on half black, top left.
func (b *builder) timedText(width, height uint16) {
	b.begin("tx3g")
	b.u32(0)
	b.u16(0)
	b.u16(1) // data reference
	b.u32(0) // display flags
	b.u16(0) // left, top
	b.u32(0x00000080)
	b.u16(0) // the box: top, left, bottom, right
	b.u16(0)
	b.u16(height)
	b.u16(width)
	b.u32(0)                                  // style from character 0 to 0: of all that has no other
	b.u16(1)                                  // font
	b.u16(max(18, min(255, height/30)) & 255) // plain, size in pixels
	b.u32(0xffffffff)
	b.begin("ftab")
	const font = "Monospace"
	b.u16(1)
	b.u16(1)
	b.buf = append(append(b.buf, byte(len(font))), font...)
	b.end()
	b.end()
}
