package mp4

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"holdfast/nvr/media"
)

// FormatVersion is the version of the bytes that File gives for the same
// recordings. It goes up whenever any of them changes, because clients hold
// parts of files under their ETag; TestBytesAreThoseOfTheFormatVersion tells
// when that is.
const FormatVersion = 1

// MaxSegments is how many recordings one file may have: six weeks of minutes.
// Each takes half a KB of memory as long as the file is used.
const MaxSegments = 1 << 16

// ErrEntries says that a media segment would need more than one sample entry
// of a track.
var ErrEntries = errors.New("codec parameters change between the recordings")

// Recording is one recording as the source of a file. What stands here comes
// from its row and has to be true of its Playback: the layout of a file is
// made of it without a look at any index.
type Recording struct {
	ID           int64 // composite
	OpenID       int32
	RunOffset    int32
	Start        media.Time
	WallDuration media.Duration

	// PrevMedia and PrevRuns are what the stream had before this recording:
	// media time, and runs begun. VideoEntryID and AudioEntryID are what the
	// store calls the sample entries, AudioEntryID 0 without an audio track. All
	// these are for those who serve, not in any file.
	PrevMedia                  media.Duration
	PrevRuns                   int32
	VideoEntryID, AudioEntryID int32

	Video, Audio *media.SampleEntry // Audio is nil without an audio track

	VideoSamples, KeySamples int
	VideoBytes               int64
	Duration                 media.Duration // of the media
	AudioSamples             int
	AudioBytes               int64
	Fragments                int
	HasOffsets, TrailingZero bool

	// Unflushed says that there is no row yet: what stands here may become
	// something else. It changes no byte.
	Unflushed bool

	// InMemory is how many bytes of samples Open holds in memory, for as long as
	// there is a file of the recording.
	InMemory int64

	// Playback loads the indexes; it is called only when bytes are asked for
	// that need them, maybe more than once, from any goroutine that reads. For
	// a growing recording it may know more fragments than Fragments counts.
	Playback func() (Playback, error)

	// Open opens the sample file, once for each reader that comes to its
	// samples. Positions are those of the file.
	Open func() (Payload, error)
}

// Payload is an open sample file. One that is an *os.File, or has a method
// File() *os.File, can be sent by the kernel; its offset is then moved, so it
// must not be shared.
type Payload interface {
	io.ReaderAt
	io.Closer
}

// Segment is a part of a recording.
type Segment struct {
	Recording

	// From and To are wall offsets since the recording's start, with
	// 0 <= From < To <= WallDuration, as parameter s of the API means them.
	// From 0 to WallDuration is the whole recording.
	From, To media.Duration
}

// Gaps says what becomes of the time between two segments for which there is
// no picture.
type Gaps uint8

// The ways to treat gaps.
const (
	CloseGaps Gaps = iota // segments follow each other at once
	KeepGaps              // the picture before the gap stands for as long as it lasts
)

// Options are how a file is made. The zero value is the ordinary file.
type Options struct {
	Gaps      Gaps // a media segment always closes them
	VideoOnly bool // leave the audio out

	// Timestamps asks for a subtitle track that tells the wall time in this
	// zone; nil for none. A media segment cannot have one.
	Timestamps *time.Location
}

// File is an MP4 over many recordings that is never materialised. It does not
// change after it was made, and any number of goroutines may have readers of
// it.
type File struct {
	segs      []segment // and one behind the last, with the sums of all
	sections  []section // in the order of the file, without holes
	dataStart int64     // where the samples begin
	size      int64
	etag      string
	modTime   time.Time
	mimeType  string
	leading   media.Duration

	fragmented   bool           // a media segment
	offsets      bool           // some segment has composition offsets
	zone         *time.Location // of the subtitle track, nil without
	videoEntries []*media.SampleEntry
	audioEntries []*media.SampleEntry

	// The audio track is timed by audioScale. Its media time 0 is the first
	// sample, which is presented at soundFirst.
	audioScale uint32
	soundFirst int64
}

// segment is a Segment with its place in the file. Times are in 90 kHz units.
// Fields that end in At are sums over the segments before it.
type segment struct {
	Segment
	whole bool

	// Samples [v0, v1) and [a0, a1) of the recording are in the file. Media
	// time from to media time to is shown; lead is what has to be decoded
	// before it, tail the length given to a last sample of duration 0. A media
	// segment shows its lead; early says by how much it begins too early.
	v0, v1, a0, a1 int
	from, to       int64
	lead, tail     int64
	gap            int64 // kept behind it: for so long its last picture stands
	early          int64
	firstSound     int64 // of a trimmed segment: where sample a0 begins after from, units of its entry

	keys                     int
	videoBytes, audioBytes   int64
	videoChunks, audioChunks int
	videoEntry, audioEntry   int // from 1
	cues                     int // of the subtitle track

	videoAt, keyAt, audioAt    int64 // samples
	videoChunkAt, audioChunkAt int64
	cueAt                      int64
	before                     int64 // segments
	dataAt                     int64 // bytes
	mediaAt                    int64 // media time of the video track: leads count
	showAt                     int64 // presentation time, also media time of the audio track
	nextSound                  int   // the next segment with audio, 0 when there is none
}

// shown is how long the segment is seen.
func (s *segment) shown() int64 { return s.to - s.from + s.tail + s.gap }

// pictures and sounds are the numbers of samples in the file.
func (s *segment) pictures() int { return s.v1 - s.v0 }
func (s *segment) sounds() int   { return s.a1 - s.a0 }

// fallbackTail is the length of a picture that nothing says anything about.
const fallbackTail = int64(media.Second) / 30

// New lays out a whole MP4 over the segments, in the given order. Only the
// indexes of segments that are a part of their recording are loaded, and that
// of the first with audio.
func New(segments []Segment, opt Options) (*File, error) {
	f, err := newFile(segments, opt, false)
	if err != nil {
		return nil, fmt.Errorf("make mp4: %w", err)
	}
	return f, nil
}

// NewMediaSegment lays out one media segment (moof and mdat) over the
// segments, for a browser that has the matching AppendInit. There is no edit
// list in it: it begins with the key picture before the first From, by Leading
// too early, and its time begins at 0. All segments must have the same sample
// entries.
func NewMediaSegment(segments []Segment, opt Options) (*File, error) {
	opt.Gaps = CloseGaps
	f, err := newFile(segments, opt, true)
	if err != nil {
		return nil, fmt.Errorf("make media segment: %w", err)
	}
	return f, nil
}

// Unflushed reports whether a recording of the file has no row yet: the same
// segments may give another file later.
func (f *File) Unflushed() bool {
	return slices.ContainsFunc(f.segs, func(s segment) bool { return s.Unflushed })
}

// InMemory is how many bytes of samples the file holds in memory.
func (f *File) InMemory() (n int64) {
	counted := make(map[int64]bool) // a recording may be shown more than once
	for i := range f.segs {
		if s := &f.segs[i]; s.InMemory > 0 && !counted[s.ID] {
			counted[s.ID] = true
			n += s.InMemory
		}
	}
	return n
}

// Size is the length of the file in bytes.
func (f *File) Size() int64 { return f.size }

// ETag is a strong entity tag, with its quotes. Files with the same tag have
// the same bytes.
func (f *File) ETag() string { return f.etag }

// ModTime is the end of the last segment.
func (f *File) ModTime() time.Time { return f.modTime }

// ContentType is the media type with the codecs in it.
func (f *File) ContentType() string { return f.mimeType }

// Leading is the media time between the first picture in the file and what was
// asked for. A whole file hides it with its edit list, a media segment cannot.
func (f *File) Leading() media.Duration { return f.leading }

// MediaFrom is the media time in the first recording at which what was asked
// for begins.
func (f *File) MediaFrom() media.Duration {
	return media.Duration(f.segs[0].from + f.segs[0].early - f.segs[0].lead)
}

// EntryIDs are the sample entries that go with a media segment, as its
// recordings name them: AppendInit of these begins it. audio is 0 when there is
// no sound in it, though its recordings may have a track for some.
func (f *File) EntryIDs() (video, audio int32) {
	for i := range f.segs[:len(f.segs)-1] {
		if f.segs[i].sounds() > 0 {
			return f.segs[0].VideoEntryID, f.segs[i].AudioEntryID
		}
	}
	return f.segs[0].VideoEntryID, 0
}

// Segments is the number of segments.
func (f *File) Segments() int { return len(f.segs) - 1 }

// Duration is how long the file plays.
func (f *File) Duration() media.Duration { return media.Duration(f.total().showAt) }

func (f *File) total() *segment { return &f.segs[len(f.segs)-1] }

func newFile(segments []Segment, opt Options, fragmented bool) (*File, error) {
	switch {
	case len(segments) == 0:
		return nil, errors.New("no recording")
	case len(segments) > MaxSegments:
		return nil, fmt.Errorf("%d recordings, more than %d: %w", len(segments), MaxSegments, ErrTooLarge)
	case opt.Timestamps != nil && fragmented:
		return nil, errors.New("a media segment has no subtitles")
	}
	f := &File{segs: make([]segment, len(segments)+1), fragmented: fragmented, zone: opt.Timestamps}
	for i := range segments {
		s := &f.segs[i]
		s.Segment = segments[i]
		if err := f.cut(s, opt); err != nil {
			return nil, fmt.Errorf("%s: %w", name(s.ID), err)
		}
		if i == 0 {
			f.leading = media.Duration(s.early)
		}
		f.offsets = f.offsets || s.HasOffsets
		s.videoEntry = entryIndex(&f.videoEntries, s.Video)
		if s.sounds() > 0 {
			s.audioEntry = entryIndex(&f.audioEntries, s.Audio)
		}
	}
	if fragmented && (len(f.videoEntries) > 1 || len(f.audioEntries) > 1) {
		return nil, ErrEntries
	}
	if err := f.sum(opt); err != nil {
		return nil, err
	}
	if err := f.placeFirstSound(); err != nil {
		return nil, err
	}
	b := &layoutBuilder{f: f}
	if fragmented {
		b.mediaSegment()
	} else {
		b.movie()
	}
	if b.err != nil {
		return nil, b.err
	}
	b.finish()
	f.describe(opt)
	return f, nil
}

// entryIndex finds e among the entries or adds it. Indexes begin at 1.
func entryIndex(entries *[]*media.SampleEntry, e *media.SampleEntry) int {
	for i, o := range *entries {
		if o.Equal(e) {
			return i + 1
		}
	}
	*entries = append(*entries, e)
	return len(*entries)
}

// cut finds out which samples of the recording are in the file.
func (f *File) cut(s *segment, opt Options) error {
	r := &s.Recording
	hasAudio := r.Audio != nil && r.AudioSamples > 0 && !opt.VideoOnly
	switch {
	case r.Video == nil || r.Video.Timescale != timescale:
		return errors.New("no video sample entry, or one of another timescale")
	case r.VideoSamples <= 0 || r.KeySamples <= 0 || r.KeySamples > r.VideoSamples || r.VideoBytes < int64(r.VideoSamples),
		r.Duration < 0 || r.WallDuration < 0 || r.Fragments <= 0 || r.AudioSamples < 0 || r.AudioBytes < int64(r.AudioSamples),
		r.Duration == 0 && !r.TrailingZero,
		r.Audio == nil && r.AudioSamples > 0, r.Audio != nil && r.Audio.Timescale == 0:
		return errors.New("row contradicts itself")
	case s.From < 0 || s.To > r.WallDuration || s.From > s.To || s.From == s.To && r.WallDuration > 0:
		return fmt.Errorf("range %d-%d is not within 0-%d", s.From, s.To, r.WallDuration)
	}
	s.to = int64(r.Duration)
	atEnd := s.To == r.WallDuration
	s.whole = s.From == 0 && atEnd
	if !s.whole && r.Duration > 0 {
		// Wall time runs along media time evenly within a recording.
		s.from = int64(s.From) * int64(r.Duration) / int64(r.WallDuration)
		if !atEnd {
			s.to = int64(s.To) * int64(r.Duration) / int64(r.WallDuration)
		}
		if s.from == s.to { // less than one unit
			s.from = max(0, s.from-1)
			s.to = s.from + 1
		}
	}
	if atEnd && r.TrailingZero {
		s.tail = fallbackTail
		if r.Duration > 0 && r.VideoSamples > 1 {
			s.tail = max(1, int64(r.Duration)/int64(r.VideoSamples-1))
		}
	}
	if !s.whole {
		return s.trim(hasAudio, f.fragmented)
	}
	s.v1, s.keys, s.videoBytes = r.VideoSamples, r.KeySamples, r.VideoBytes
	s.videoChunks = min(r.Fragments, r.VideoSamples)
	if hasAudio {
		s.a1, s.audioBytes = r.AudioSamples, r.AudioBytes
		s.audioChunks = min(r.Fragments, r.AudioSamples)
	}
	return nil
}

// trim chooses the samples of a part of a recording: pictures from the last
// key at or before from, sounds that overlap what is shown.
func (s *segment) trim(hasAudio, fragmented bool) error {
	p, err := s.Playback()
	if err != nil {
		return err
	}
	atEnd := s.To == s.WallDuration
	var start, firstPos, endPos int64
	ix := media.NewIndexReader(p.Video, p.Offsets)
	for ix.N < s.VideoSamples && ix.Next() && (atEnd || ix.Start < s.to) {
		if ix.Sample.Key && (ix.Start <= s.from || ix.N == 0) {
			s.v0, start, firstPos, s.keys = ix.N, ix.Start, ix.Pos, 0
		}
		if ix.Sample.Key {
			s.keys++
		}
		s.v1, endPos = ix.N+1, ix.Pos+int64(ix.Sample.Size)
		if s.v1 == s.VideoSamples {
			break
		}
	}
	if err := ix.Err(); err != nil {
		return err
	}
	if s.v1 == 0 || atEnd && s.v1 != s.VideoSamples {
		return fmt.Errorf("%w: %d pictures, the row says %d", media.ErrIndex, s.v1, s.VideoSamples)
	}
	s.lead = s.from - start
	s.early = s.lead
	if fragmented { // there is no edit list to hide what leads
		s.from, s.lead = start, 0
	}
	s.videoBytes = endPos - firstPos

	fr := NewFragmentIndexReader(p.Fragments)
	if hasAudio {
		from, to := rescale(s.from, timescale, s.Audio.Timescale), rescale(s.to, timescale, s.Audio.Timescale)
		first := true
		ix := media.NewIndexReader(p.Audio, nil)
		for ix.Next() && ix.N < s.AudioSamples {
			at := fr.AudioStart + ix.Start
			if at >= to && !atEnd {
				break
			}
			if first && at+int64(ix.Sample.Duration) <= from {
				continue
			}
			if first {
				first, s.a0, s.firstSound = false, ix.N, at-from
			}
			s.a1 = ix.N + 1
			s.audioBytes += int64(ix.Sample.Size)
		}
		if err := ix.Err(); err != nil {
			return err
		}
	}
	var v, a, touched int
	for n := 0; n < s.Fragments && fr.Next(); n++ {
		if overlap(v, v+fr.Video, s.v0, s.v1) > 0 || overlap(a, a+fr.Audio, s.a0, s.a1) > 0 {
			touched++
		}
		v, a = v+fr.Video, a+fr.Audio
	}
	s.videoChunks, s.audioChunks = min(touched, s.pictures()), min(touched, s.sounds())
	return fr.Err()
}

// overlap is the length of what [a, b) and [c, d) share.
func overlap(a, b, c, d int) int { return max(0, min(b, d)-max(a, c)) }

// sum fills in the places of all segments.
func (f *File) sum(opt Options) error {
	for i := 1; i < len(f.segs); i++ {
		p, s := &f.segs[i-1], &f.segs[i]
		if i < len(f.segs)-1 && opt.Gaps == KeepGaps {
			p.gap = max(0, int64(s.Start.Add(s.From).Sub(p.Start.Add(p.To)))-p.tail)
		}
		if p.lead+p.shown() > math.MaxInt32 {
			return fmt.Errorf("%s: %w: a gap of %v behind it", name(p.ID), ErrTooLarge, media.Duration(p.gap))
		}
		if f.zone != nil {
			p.cues = p.countCues()
		}
		s.before, s.cueAt = p.before+1, p.cueAt+int64(p.cues)
		s.videoAt = p.videoAt + int64(p.pictures())
		s.keyAt = p.keyAt + int64(p.keys)
		s.audioAt = p.audioAt + int64(p.sounds())
		s.videoChunkAt = p.videoChunkAt + int64(p.videoChunks)
		s.audioChunkAt = p.audioChunkAt + int64(p.audioChunks)
		s.dataAt = p.dataAt + p.cueBytes() + p.videoBytes + p.audioBytes
		s.mediaAt = p.mediaAt + p.lead + p.shown()
		s.showAt = p.showAt + p.shown()
	}
	if f.total().audioAt == 0 {
		return nil
	}
	f.audioScale = f.audioEntries[0].Timescale
	next, until := 0, f.total().showAt
	for i := len(f.segs) - 2; i >= 0; i-- {
		s := &f.segs[i]
		s.nextSound = next
		if s.sounds() == 0 {
			continue
		}
		// The last sound before a silence lasts as long as that.
		if f.soundPos(until)-f.soundPos(s.showAt) > math.MaxInt32/2 {
			return fmt.Errorf("%s: %w: no sound for %v behind it", name(s.ID), ErrTooLarge, media.Duration(until-s.showAt))
		}
		next, until = i, s.showAt
	}
	return nil
}

// placeFirstSound finds where the audio track begins.
func (f *File) placeFirstSound() error {
	if f.total().audioAt == 0 {
		return nil
	}
	i := 0
	for f.segs[i].sounds() == 0 {
		i++
	}
	s := &f.segs[i]
	var p Playback
	if s.whole {
		var err error
		if p, err = s.Playback(); err != nil {
			return fmt.Errorf("%s: %w", name(s.ID), err)
		}
	}
	var err error
	f.soundFirst, err = f.soundStart(i, p)
	return err
}

// soundPos converts a presentation time to audio units.
func (f *File) soundPos(at int64) int64 { return rescale(at, timescale, f.audioScale) }

// soundStart is when the first sound of segment i is presented, in audio
// units. The indexes of a whole recording are needed for it.
func (f *File) soundStart(i int, p Playback) (int64, error) {
	s := &f.segs[i]
	first := s.firstSound
	if s.whole {
		r := NewFragmentIndexReader(p.Fragments)
		if r.Err() != nil {
			return 0, fmt.Errorf("%s: %w", name(s.ID), r.Err())
		}
		first = r.AudioStart
	}
	if t := s.Audio.Timescale; t != f.audioScale {
		first = first * int64(f.audioScale) / int64(t)
	}
	// Only the very first sound of a file with an edit list can begin before
	// what is shown.
	if first < 0 && (i > 0 || f.fragmented) {
		first = 0
	}
	base := f.soundPos(s.showAt)
	return base + min(first, f.soundPos(s.showAt+s.shown()-s.gap)-base), nil
}

// edit is one line of an edit list. Its duration is in 90 kHz, its media time
// in units of the track, -1 when nothing is to be presented.
type edit struct{ duration, media int64 }

// videoEdits skips the leads. Segments without any go together.
func (f *File) videoEdits() []edit {
	var edits []edit
	for i := range f.segs[:len(f.segs)-1] {
		s := &f.segs[i]
		if n := len(edits); n > 0 && s.lead == 0 {
			edits[n-1].duration += s.shown()
			continue
		}
		edits = append(edits, edit{s.shown(), s.mediaAt + s.lead})
	}
	return edits
}

// audioEdits puts the first sound in its place. All others follow from that,
// because audio is timed by presentation time. An empty edit must stand
// nowhere but at the beginning: ffmpeg 5.1 takes one further on for media time
// 0 and plays the beginning once more.
func (f *File) audioEdits() []edit {
	d := f.total().showAt
	late := rescale(max(0, f.soundFirst), f.audioScale, timescale)
	if late == 0 || late >= d {
		return []edit{{d, max(0, -f.soundFirst)}}
	}
	return []edit{{late, -1}, {d - late, 0}}
}

// describe fills in what HTTP wants to know.
func (f *File) describe(opt Options) {
	f.mimeType = ContentType(append(f.videoEntries[:len(f.videoEntries):len(f.videoEntries)], f.audioEntries...)...)
	last := &f.segs[len(f.segs)-2]
	f.modTime = last.Start.Add(last.To).Std()

	h := sha256.New()
	var b []byte
	put := func(v ...int64) {
		b = b[:0]
		for _, v := range v {
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		}
		h.Write(b)
	}
	put(FormatVersion, flag(f.fragmented), int64(opt.Gaps), flag(opt.VideoOnly))
	for i := range f.segs[:len(f.segs)-1] {
		s := &f.segs[i]
		put(s.ID, int64(s.OpenID), int64(s.Start), int64(s.From), int64(s.To), int64(s.WallDuration), int64(s.Duration),
			int64(s.VideoSamples), int64(s.KeySamples), s.VideoBytes, int64(s.AudioSamples), s.AudioBytes,
			int64(s.Fragments), flag(s.TrailingZero), flag(s.HasOffsets))
		if f.zone != nil {
			// Rules of a zone may change with the program's zone data.
			_, from := s.wallStart().Std().In(f.zone).Zone()
			_, to := s.Start.Add(s.To).Std().In(f.zone).Zone()
			put(-1, int64(from), int64(to))
		}
	}
	f.etag = `"` + hex.EncodeToString(h.Sum(nil)[:20]) + `"`
}

// ContentType is how browsers are told what they are to play: the media type of
// a file with these sample entries (RFC 6381).
func ContentType(entries ...*media.SampleEntry) string {
	var codecs []string
	for _, e := range entries {
		codecs = append(codecs, e.Codec)
	}
	return fmt.Sprintf("video/mp4; codecs=%q", strings.Join(codecs, ","))
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
