// Package media holds the nouns that cross borders in the recorder: the access
// unit a camera delivers, the sample entry that describes it, the 90 kHz time
// in which everything is measured, and the codec of the sample index.
//
// It does no input or output, knows no file, no database and no network, and
// imports nothing of ours. A type belongs here only when three packages need
// it. The words are those of nvr/design/glossary.md; the sample index is laid
// out in nvr/design/sample-file.md.
package media

import (
	"bytes"
	"time"
)

// Time is an instant in 90 kHz units since 1970-01-01 00:00 UTC, leap seconds
// not counted (time.md rule 1).
type Time int64

// Duration is a span in 90 kHz units.
type Duration int64

// Common spans in 90 kHz units.
const (
	Millisecond Duration = 90
	Second      Duration = 90_000
	Minute      Duration = 60 * Second
)

// MaxRecording is the bound that no recording may reach: its duration is
// strictly less (R1). The schema holds the same number.
const MaxRecording = 5 * Minute

// TimeOf converts a wall clock reading, rounding down to a whole unit.
func TimeOf(t time.Time) Time {
	return Time(t.Unix()*int64(Second) + int64(t.Nanosecond())*9/100_000)
}

// Std returns t as a time.Time in UTC.
func (t Time) Std() time.Time {
	s := int64(t) / int64(Second)
	r := int64(t) % int64(Second)
	if r < 0 {
		s, r = s-1, r+int64(Second)
	}
	return time.Unix(s, r*100_000/9).UTC()
}

// Add returns t moved by d.
func (t Time) Add(d Duration) Time { return t + Time(d) }

// Sub returns the span from u to t.
func (t Time) Sub(u Time) Duration { return Duration(t - u) }

// String is RFC 3339 in UTC with milliseconds.
func (t Time) String() string { return t.Std().Format("2006-01-02T15:04:05.000Z") }

// DurationOf converts, rounding toward zero.
func DurationOf(d time.Duration) Duration {
	return Duration(int64(d/time.Second)*int64(Second) + int64(d%time.Second)*9/100_000)
}

// Std returns d as a time.Duration.
func (d Duration) Std() time.Duration {
	return time.Duration(int64(d/Second)*int64(time.Second) + int64(d%Second)*100_000/9)
}

// String prints d as Go prints durations.
func (d Duration) String() string { return d.Std().String() }

// Kind tells the tracks of a recording apart.
type Kind uint8

// The kinds of track a recording can have: one video track, and at most one
// audio track beside it.
const (
	Video Kind = iota
	Audio
)

func (k Kind) String() string {
	if k == Audio {
		return "audio"
	}
	return "video"
}

// AccessUnit is one coded picture, or one audio frame, as the camera sent it.
// A camera session makes it, the store keeps it; nobody changes Data after it
// was handed over.
type AccessUnit struct {
	Kind Kind

	// DTS is the decode time and PTS the presentation time in units of
	// Entry.Timescale, counted from the zero of the camera session that both
	// tracks share. DTS never exceeds PTS and rises from unit to unit.
	DTS, PTS int64

	// Key is set on a picture from which decoding can begin. Every audio frame
	// is a key.
	Key bool

	// Data is what an mdat holds: NAL units, each with a 4-byte length before
	// it, or one raw AAC frame.
	Data []byte

	// Entry describes the unit. The pointer is the same as long as the
	// description is; it changes only on a key picture.
	Entry *SampleEntry

	// Received is when the unit was complete, with the monotonic reading.
	Received time.Time
}

// SampleEntry describes how to decode the samples that refer to it
// (ISO 14496-12 section 8.5.2). Two entries are the same when Equal says so.
type SampleEntry struct {
	Kind   Kind
	Format string // box type of the entry: "avc1", "hvc1" or "mp4a"
	Codec  string // RFC 6381 name: "avc1.640028", "hvc1.1.6.L93.B0", "mp4a.40.2"

	// Timescale is the number of units a second in which samples of this
	// entry are timed: 90000 for video, the sample rate for audio.
	Timescale uint32

	// Config is the decoder configuration: the body of avcC (ISO 14496-15
	// section 5.3.3.1) or hvcC (8.3.3.1), or the AudioSpecificConfig
	// (ISO 14496-3 section 1.6.2.1).
	Config []byte

	// Width and Height are in pixels after cropping; PaspH:PaspV is the shape
	// of a pixel, 1:1 when the camera does not say. Video only.
	Width, Height uint16
	PaspH, PaspV  uint16

	// Channels and SampleRate (Hz) are for audio only.
	Channels   uint16
	SampleRate uint32
}

// Equal reports whether both describe the same decoding.
func (e *SampleEntry) Equal(o *SampleEntry) bool {
	if e == o {
		return true
	}
	if e == nil || o == nil {
		return false
	}
	return e.Kind == o.Kind && e.Format == o.Format && e.Codec == o.Codec &&
		e.Timescale == o.Timescale && e.Width == o.Width && e.Height == o.Height &&
		e.PaspH == o.PaspH && e.PaspV == o.PaspV && e.Channels == o.Channels &&
		e.SampleRate == o.SampleRate && bytes.Equal(e.Config, o.Config)
}

// Sample is one entry of a sample index: what a sample table says of one
// access unit.
type Sample struct {
	Duration int32 // to the next sample in decode order, in track units
	Size     int32 // bytes
	Offset   int32 // composition offset (PTS - DTS) in track units
	Key      bool
}
