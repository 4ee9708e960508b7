package db

import (
	"fmt"

	"holdfast/nvr/media"
)

// Dir is a sample directory.
type Dir struct {
	ID   int32
	UUID string // chosen by ApplyConfig when empty
	Path string

	// LastCompleteOpen is the last open whose beginning was completed in the
	// directory and in the database, 0 before the first. CompleteOpen sets it.
	LastCompleteOpen     int32
	LastCompleteOpenUUID string // of that open, "" before the first
}

// Camera is a camera. Name is unique.
type Camera struct {
	ID                int32
	UUID              string // chosen by ApplyConfig when empty
	Name, Description string
}

// Stream is one stream of a camera.
type Stream struct {
	ID, CameraID, DirID     int32
	Type                    string // main, sub or ext; one of each for a camera
	URL, Username, Password string // the URL without credentials
	PasswordLost            string // why a password that is there cannot be read, "" when it can; Password is empty then
	Transport               string // tcp or udp; "" is tcp
	Record                  bool
	RetainBytes             int64
	RetainDays              int32 // 0: no limit
	FlushIfSec              int32
	OwedFrom                media.Time // when Record was last set; time from before is no gap

	// GapsOf is for ApplyConfig, and for a stream that it inserts: one of the same
	// camera that goes with the change, whose gaps it gets. 0: none.
	GapsOf int32

	// Counters that only grow; Batch.Streams sets them.
	NextNo   int32          // number of the next recording
	CumMedia media.Duration // media duration of all recordings ever committed
	CumRuns  int32

	// Sums over the committed recordings, kept by Flush and ApplyConfig.
	Recordings     int32
	Bytes, FSBytes int64
	Duration       media.Duration // wall
}

// SampleEntry is a sample entry under the id that recordings name it by.
// Video and audio entries are numbered apart.
type SampleEntry struct {
	ID int32
	media.SampleEntry
}

// Flags of a recording.
const (
	TrailingZero uint32 = 1 << 0 // the last video sample has duration 0
	HasOffsets   uint32 = 1 << 1 // composition offsets are present
	Recovered    uint32 = 1 << 2 // adopted from the disk at a start
)

// Recording is a row of the recording table.
type Recording struct {
	ID                     int64 // CompositeID of stream and number
	OpenID, DirID          int32
	RunOffset              int32 // recordings of the run before this one
	Flags                  uint32
	FileBytes, FSBytes     int64 // size of the sample file; the same in whole blocks
	Start                  media.Time
	PrevMedia              media.Duration // of all earlier recordings of the stream
	PrevRuns               int32
	WallDuration           media.Duration
	MediaDelta             media.Duration // media duration - wall duration
	VideoSamples           int32
	KeySamples             int32
	VideoBytes             int64
	AudioSamples           int32
	AudioBytes             int64
	Fragments              int32
	VideoEntry, AudioEntry int32  // sample entry ids; no audio track: 0
	EndReason              string // on the last recording of a run, else ""
}

// StreamID returns the stream of the recording.
func (r *Recording) StreamID() int32 { s, _ := SplitID(r.ID); return s }

// No returns the number of the recording within its stream.
func (r *Recording) No() int32 { _, n := SplitID(r.ID); return n }

// MediaDuration returns the sum of the durations of the video samples.
func (r *Recording) MediaDuration() media.Duration { return r.WallDuration + r.MediaDelta }

// End returns the wall time at which the recording ends.
func (r *Recording) End() media.Time { return r.Start.Add(r.WallDuration) }

// CompositeID joins the id of a stream and the number of a recording in it.
func CompositeID(streamID, no int32) int64 { return int64(streamID)<<32 | int64(uint32(no)) }

// SplitID takes apart what CompositeID joined.
func SplitID(id int64) (streamID, no int32) { return int32(id >> 32), int32(uint32(id)) }

// idString is how errors and logs name a recording: 3/1842086.
func idString(id int64) string {
	s, no := SplitID(id)
	return fmt.Sprintf("%d/%d", s, no)
}

// Playback is what playing a recording needs beyond its row: the sample index
// of each track (package media) and the index of fragments (package mp4).
type Playback struct {
	Video     []byte
	Offsets   []byte // nil: all composition offsets are 0
	Audio     []byte // nil: no audio samples
	Fragments []byte
}

// Integrity says how the times of a recording came about (R46). Nothing in
// normal running reads it.
type Integrity struct {
	LocalTimeDelta     *media.Duration // nil for the first of a run
	MonotonicSinceOpen media.Duration  // at the arrival of the first picture
	WallEndDelta       *media.Duration // nil when adopted
}

// NewRecording is a recording to insert.
type NewRecording struct {
	Recording
	Playback
	Integrity
}

// Garbage names a sample file to unlink.
type Garbage struct {
	DirID int32
	ID    int64 // composite id
}

// OpenRow is one read-write opening of the database.
type OpenRow struct {
	ID         int32
	UUID       string
	BootID     string         // the kernel's name for this boot, may be empty
	Start, End media.Time     // wall clock at the opening and at the last flush
	Duration   media.Duration // monotonic time between the two
}

// State is what a store must know at its start.
type State struct {
	Dirs    []Dir
	Cameras []Camera      // by name
	Streams []Stream      // by id
	Deleted []Stream      // deleted ones that have rows still, by id
	Entries []SampleEntry // video, then audio, each by id
	Garbage []Garbage     // by directory and id; nil from Reconfigure

	sealed [][]byte // passwords of Streams, encrypted
}
