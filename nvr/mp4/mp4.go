// Package mp4 is the bytes of MP4: the sample file that a recording is kept
// in, and the files that are served from it. It opens no file, runs no SQL and
// speaks no HTTP; bytes come in as slices, io.ReaderAt and functions, and go
// out the same way.
//
// Written, once, front to back, and bound by nvr/design/sample-file.md:
//
//	ftyp moov(... uuid about)  [ uuid fragment header | moof | mdat ]*
//	'-------- AppendInit ---'    '-- Fragment.AppendHeader --'  payload
//
// Read back after a crash by ReadSampleFile, which trusts nothing. What it
// finds becomes a Playback: the sample indexes that the database keeps.
//
// Served, never stored, and bound by nvr/design/playback.md: File is a whole
// MP4 (or one media segment) over many recordings. Its length follows from the
// rows of the recordings, its sample tables are made from their indexes when a
// reader comes to them, and its samples stay in the sample files.
//
// Boxes that are small and need knowledge go through go-mp4. Whatever grows
// with the number of samples is written by hand: reflection costs a hundred
// times as much.
package mp4

import (
	"encoding/json"
	"fmt"

	"holdfast/nvr/media"
)

// Track ids in every file of ours.
const (
	videoTrack = 1
	audioTrack = 2
	textTrack  = 3 // of virtual files only
)

// timescale is that of the movie and of every video track, units a second.
const timescale = uint32(media.Second)

// About is what a sample file says of itself: JSON in a uuid box inside moov.
type About struct {
	Format               int    `json:"format"` // 1
	DatabaseUUID         string `json:"databaseUuid"`
	CameraUUID           string `json:"cameraUuid"`
	CameraName           string `json:"camera"`
	Stream               string `json:"stream"` // main, sub, ext
	StreamID             int32  `json:"streamId"`
	RecordingNo          int32  `json:"recording"`
	OpenID               int32  `json:"openId"`
	OpenUUID             string `json:"openUuid"`
	RunOffset            int32  `json:"runOffset"`
	StartTime90k         int64  `json:"startTime90k"` // first estimate; fragments carry the best one
	StartTime            string `json:"startTime"`    // the same for people, RFC 3339
	PrevMediaDuration90k int64  `json:"prevMediaDuration90k"`
	PrevRuns             int32  `json:"prevRuns"`
	SinceOpen90k         int64  `json:"sinceOpen90k"` // monotonic time from the open to the first picture

	// OpenStart90k is when the open began, by the clock of all times in the file.
	// The clock may have been set since (time.md rule 15). 0: not known.
	OpenStart90k int64 `json:"openStart90k,omitempty"`

	// OpensBefore are the opens before that went by the same clock while it was
	// not set: what is moved when it is, is of them, too.
	OpensBefore []OpenStart `json:"opensBefore,omitempty"`

	// Rewrites is there when the file of an earlier recording did not sync:
	// what that recording held from a time on, and all that recordings
	// between it and this one held, is here again.
	Rewrites *Rewrites `json:"rewrites,omitempty"`

	// Other holds the keys this version does not know, so that they outlive a
	// copy of the file made by it.
	Other map[string]json.RawMessage `json:"-"`
}

// OpenStart is when an open began.
type OpenStart struct {
	OpenID   int32 `json:"openId"`
	Start90k int64 `json:"openStart90k"`
}

// Rewrites names a recording of the same stream, and a media time of it at
// which one of its groups of pictures begins.
type Rewrites struct {
	RecordingNo int32 `json:"recording"`
	From90k     int64 `json:"from90k"`
}

// AboutFormat is the Format of the sample files written here. A reader refuses
// a greater one.
const AboutFormat = 1

// ID returns the composite id of the recording.
func (a *About) ID() int64 { return int64(a.StreamID)<<32 | int64(a.RecordingNo) }

// plainAbout has the fields of About without its methods.
type plainAbout About

// MarshalJSON writes the known keys in their order, then the others by name.
func (a About) MarshalJSON() ([]byte, error) {
	known, err := json.Marshal(plainAbout(a))
	if err != nil || len(a.Other) == 0 {
		return known, err
	}
	other, err := json.Marshal(a.Other)
	if err != nil {
		return nil, err
	}
	known[len(known)-1] = ','
	return append(known, other[1:]...), nil
}

// UnmarshalJSON keeps unknown keys in Other.
func (a *About) UnmarshalJSON(b []byte) error {
	var p plainAbout
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	var all, known map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	// Or keys are left out.
	k, err := json.Marshal(plainAbout{OpenStart90k: 1, OpensBefore: []OpenStart{{}}, Rewrites: &Rewrites{}})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(k, &known); err != nil {
		return err
	}
	for name := range known {
		delete(all, name)
	}
	if len(all) > 0 {
		p.Other = all
	}
	*a = About(p)
	return nil
}

// name is how errors speak of a recording: stream id and number.
func name(id int64) string { return fmt.Sprintf("recording %d/%d", id>>32, id&0xffffffff) }

// rescale converts a time between two scales without overflow, rounding down.
// v must not be negative.
func rescale(v int64, from, to uint32) int64 {
	if from == to {
		return v
	}
	f, t := int64(from), int64(to)
	return v/f*t + v%f*t/f
}
