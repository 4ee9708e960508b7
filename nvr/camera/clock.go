package camera

import (
	"slices"
	"time"

	mch264 "github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
)

// unwrapper turns 32-bit RTP timestamps into a count that does not wrap. A step
// of 2^31 or more is one backward (RFC 3550 leaves no other reading).
type unwrapper struct {
	last  uint32
	total int64
	begun bool
}

// at returns the time of a timestamp; the first one given is 0.
func (u *unwrapper) at(timestamp uint32) int64 {
	if !u.begun {
		u.begun, u.last = true, timestamp
	}
	u.total += int64(int32(timestamp - u.last))
	u.last = timestamp
	return u.total
}

// decodeClock gives decode times to pictures that come with presentation times
// alone.
//
// Where the stream says how deep it reorders, no slice is looked at: with depth
// n, the picture that is decoded k-th is decoded at the time when the (k-n)-th
// is shown. Pictures lost on the way do no harm. Where an H.264 stream does not
// say, mediacommon's DTSExtractor reads it from the picture order counts; the
// many cameras that could reorder but never do get DTS = PTS so.
type decodeClock struct {
	sps   *sps
	depth int
	frame int64   // a guess of a picture's duration
	shown []int64 // the depth+1 last presentation times not yet given out, rising
	last  int64   // decode time given last
	begun bool

	extractor *mch264.DTSExtractor
	reordered bool // the extractor gave a DTS before its PTS
	doubtful  bool // a picture was lost; order counts mislead until the next key
}

// configure follows the parameter sets, at a key picture.
func (c *decodeClock) configure(s *sps) {
	c.frame = s.frame
	if c.frame == 0 {
		c.frame = videoTimescale / 30
	}
	if s.reorder >= 0 {
		c.depth, c.extractor = s.reorder, nil
		return
	}
	c.depth = 0
	c.extractor, c.reordered = &mch264.DTSExtractor{}, false
	c.extractor.Initialize()
}

// follow configures the clock when s is not what it follows already.
func (c *decodeClock) follow(s *sps) {
	if c.sps != s {
		c.sps = s
		c.configure(s)
	}
}

// reads reports whether next wants to see slices.
func (c *decodeClock) reads() bool { return c.extractor != nil }

// lost says that a picture is missing.
func (c *decodeClock) lost() { c.doubtful = true }

// next returns the decode time of the picture shown at pts. sps is the active
// SPS, slice the first slice, each as a NAL unit; they are read only where the
// stream does not say how deep it reorders.
func (c *decodeClock) next(pts int64, key bool, sps, slice []byte) (int64, *Error) {
	dts := pts
	if c.extractor != nil {
		dts = c.extract(pts, key, sps, slice)
	} else {
		dts = c.delay(pts)
	}
	if c.begun && dts <= c.last {
		return 0, problem(BadTimestamps, "decode time went from %d to %d (picture shown at %d): B-frames or a camera clock step", c.last, dts, pts)
	}
	c.begun, c.last = true, dts
	return dts, nil
}

func (c *decodeClock) delay(pts int64) int64 {
	i, _ := slices.BinarySearch(c.shown, pts)
	c.shown = slices.Insert(c.shown, i, pts)
	for len(c.shown) > c.depth+1 {
		c.shown = slices.Delete(c.shown, 0, 1)
	}
	missing := c.depth + 1 - len(c.shown)
	if missing == 0 {
		dts := c.shown[0]
		c.shown = slices.Delete(c.shown, 0, 1)
		return dts
	}
	// The first pictures of all are decoded before anything is shown; those
	// after a change of depth crowd into the time up to the next one shown.
	if !c.begun {
		return pts - int64(c.depth)*c.frame
	}
	return c.last + (c.shown[0]-c.last)/int64(missing+1)
}

func (c *decodeClock) extract(pts int64, key bool, sps, slice []byte) int64 {
	if key {
		c.doubtful = false
	}
	if c.doubtful && !c.reordered {
		return pts
	}
	dts, err := c.extractor.Extract([][]byte{sps, slice}, pts)
	if err != nil || dts > pts {
		return pts
	}
	if dts < pts {
		c.reordered = true
	}
	if c.begun && dts <= c.last && pts > c.last {
		dts = c.last + 1
	}
	return dts
}

// soundClock times audio. RTP clocks of two tracks share no zero, so the first
// audio frame is placed by when it arrived beside the video.
type soundClock struct {
	rate   int64
	rtp    unwrapper
	offset int64 // from rtp to session time
	last   int64
	begun  bool
}

// maxDrift is how far audio may be from where its arrival puts it before it is
// placed anew: the clock of the camera's encoder stepped.
const maxDrift = 10 * time.Second

// at returns the time of an audio frame in units of rate. video is the session
// time of its arrival, as counted by the video.
func (c *soundClock) at(timestamp uint32, video time.Duration) int64 {
	t := c.rtp.at(timestamp)
	arrived := int64(video/time.Second)*c.rate + int64(video%time.Second)*c.rate/int64(time.Second)
	off := t + c.offset - arrived
	limit := c.rate * int64(maxDrift/time.Second)
	if !c.begun || off > limit || off < -limit {
		if c.begun {
			arrived = max(arrived, c.last+1)
		}
		c.offset = arrived - t
	}
	return t + c.offset
}

// take reports whether a frame at t may follow, and takes it as the last one.
func (c *soundClock) take(t int64) bool {
	if t < 0 || c.begun && t <= c.last {
		return false
	}
	c.begun, c.last = true, t
	return true
}
