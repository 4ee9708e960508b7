package db

import (
	"errors"
	"fmt"
	"math"

	"holdfast/nvr/media"
)

// known is what the rows of a batch may refer to, as committed. It lets Check
// answer without a query, and keeps every exported call from running into a
// foreign key.
type known struct {
	opens   map[int32]bool
	dirs    map[int32]bool
	cameras map[int32]string // names
	streams map[int32]knownStream
	video   map[int32]bool
	audio   map[int32]bool
}

type knownStream struct {
	name     string // "front main"
	cameraID int32
	typ      string
	nextNo   int32
	deleted  bool // it goes by and by, and takes nothing any more
}

// streamName is how errors name a stream.
func (k *known) streamName(id int32) string {
	if s, ok := k.streams[id]; ok {
		return s.name
	}
	return fmt.Sprintf("stream %d", id)
}

func (k *known) recordingError(op string, id int64, err error) *RecordingError {
	streamID, _ := SplitID(id)
	return &RecordingError{ID: id, Op: op, Stream: k.streamName(streamID), Err: err}
}

// Check returns what Flush would refuse about rec, nil when it would insert
// it (R6): the constraints of the schema, the rows that rec refers to, and
// that its number is not yet committed. entries are sample entries that the
// same batch will add. The error is a *RecordingError. No transaction.
func (d *DB) Check(rec *NewRecording, entries ...SampleEntry) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if err := d.known.check(rec, entries); err != nil {
		return d.known.recordingError("insert", rec.ID, err)
	}
	return nil
}

func (k *known) check(rec *NewRecording, entries []SampleEntry) error {
	streamID, no := SplitID(rec.ID)
	s, ok := k.streams[streamID]
	switch {
	case !ok || s.deleted:
		return fmt.Errorf("stream %d: %w", streamID, ErrNotFound)
	case uint32(no) < uint32(s.nextNo):
		return fmt.Errorf("number %d is already committed, the next is %d", no, s.nextNo)
	case !k.opens[rec.OpenID]:
		return fmt.Errorf("open %d: %w", rec.OpenID, ErrNotFound)
	case !k.dirs[rec.DirID]:
		return fmt.Errorf("sample directory %d: %w", rec.DirID, ErrNotFound)
	case !k.video[rec.VideoEntry] && !has(entries, media.Video, rec.VideoEntry):
		return fmt.Errorf("video sample entry %d: %w", rec.VideoEntry, ErrNotFound)
	case rec.AudioEntry != 0 && !k.audio[rec.AudioEntry] && !has(entries, media.Audio, rec.AudioEntry):
		return fmt.Errorf("audio sample entry %d: %w", rec.AudioEntry, ErrNotFound)
	}
	return checkRow(rec)
}

func has(entries []SampleEntry, kind media.Kind, id int32) bool {
	for i := range entries {
		if entries[i].Kind == kind && entries[i].ID == id && CheckEntry(&entries[i]) == nil {
			return true
		}
	}
	return false
}

// CheckEntry returns what Flush would refuse about a new sample entry, which
// would keep it from inserting anything at all: the constraints of the schema.
func CheckEntry(e *SampleEntry) error {
	switch {
	case e.ID <= 0:
		return fmt.Errorf("id %d", e.ID)
	case e.Format == "":
		return errors.New("empty format")
	case e.Codec == "":
		return errors.New("empty codec")
	case e.Timescale == 0:
		return errors.New("timescale 0")
	case len(e.Config) == 0:
		return errors.New("empty decoder configuration")
	case e.Kind == media.Video && (e.Width == 0 || e.Height == 0):
		return fmt.Errorf("picture of %dx%d pixels", e.Width, e.Height)
	case e.Kind == media.Video && (e.PaspH == 0 || e.PaspV == 0):
		return fmt.Errorf("pixel aspect %d:%d", e.PaspH, e.PaspV)
	case e.Kind == media.Audio && (e.Channels == 0 || e.SampleRate == 0):
		return fmt.Errorf("%d channels at %d Hz", e.Channels, e.SampleRate)
	}
	return nil
}

const maxEndReason = 1024

// checkRow has the CHECK constraints of schema.sql, one for one and in the
// same order.
func checkRow(r *NewRecording) error {
	_, no := SplitID(r.ID)
	switch {
	case no < 0 || no == math.MaxInt32:
		return fmt.Errorf("number %d is out of range", uint32(no))
	case r.RunOffset < 0 || r.RunOffset > no:
		return fmt.Errorf("run offset %d is not in 0 … %d", r.RunOffset, no)
	case r.FileBytes <= 0:
		return fmt.Errorf("sample file of %d bytes", r.FileBytes)
	case r.FSBytes < r.FileBytes:
		return fmt.Errorf("sample file of %d bytes in blocks of %d bytes", r.FileBytes, r.FSBytes)
	case r.Start <= 0:
		return fmt.Errorf("start time %d is not after 1970", int64(r.Start))
	case r.PrevMedia < 0:
		return fmt.Errorf("media duration of earlier recordings is %d", int64(r.PrevMedia))
	case r.PrevRuns < 0:
		return fmt.Errorf("%d earlier runs", r.PrevRuns)
	case r.WallDuration < 0 || r.WallDuration >= media.MaxRecording:
		return fmt.Errorf("wall duration %d is not in 0 … %d", int64(r.WallDuration), int64(media.MaxRecording-1))
	case r.MediaDelta < -r.WallDuration || r.MediaDelta >= media.MaxRecording-r.WallDuration:
		return fmt.Errorf("media duration %d%+d is not in 0 … %d", int64(r.WallDuration), int64(r.MediaDelta), int64(media.MaxRecording-1))
	case r.VideoSamples <= 0:
		return fmt.Errorf("%d video samples", r.VideoSamples)
	case r.KeySamples <= 0 || r.KeySamples > r.VideoSamples:
		return fmt.Errorf("%d key samples of %d video samples", r.KeySamples, r.VideoSamples)
	case r.VideoBytes <= 0 || r.VideoBytes > r.FileBytes:
		return fmt.Errorf("%d bytes of video in a sample file of %d bytes", r.VideoBytes, r.FileBytes)
	case r.AudioSamples < 0:
		return fmt.Errorf("%d audio samples", r.AudioSamples)
	case r.AudioBytes < 0 || r.AudioBytes > r.FileBytes-r.VideoBytes:
		return fmt.Errorf("%d bytes of audio beside %d of video in a sample file of %d bytes", r.AudioBytes, r.VideoBytes, r.FileBytes)
	case (r.AudioBytes == 0) != (r.AudioSamples == 0):
		return fmt.Errorf("%d audio samples of %d bytes", r.AudioSamples, r.AudioBytes)
	case r.Recording.Fragments <= 0:
		return fmt.Errorf("%d fragments", r.Recording.Fragments)
	case r.AudioEntry == 0 && r.AudioSamples != 0:
		return fmt.Errorf("%d audio samples without a sample entry", r.AudioSamples)
	case len(r.EndReason) > maxEndReason:
		return fmt.Errorf("end reason of %d bytes, at most %d fit", len(r.EndReason), maxEndReason)
	case len(r.Playback.Video) == 0:
		return errors.New("empty video index")
	case len(r.Playback.Fragments) == 0:
		return errors.New("empty fragment index")
	}
	return nil
}
