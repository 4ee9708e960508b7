package mp4

import (
	"encoding/binary"
	"fmt"

	"holdfast/nvr/media"
)

// Playback is what only playing a recording needs: the content of a row of
// table recording_playback.
type Playback struct {
	Video     []byte // sample index of the video track
	Offsets   []byte // its composition offsets, nil when all are 0
	Audio     []byte // sample index of the audio track, nil without audio
	Fragments []byte // where the samples are in the sample file: FragmentIndexWriter
}

// The fragment index is a sequence of unsigned varints (sample-file.md):
//
//	size of ftyp + moov, decode time of the first audio sample
//	[ size of a fragment's header, its video samples, its audio samples ]*

// FragmentIndexWriter builds the fragment index of one recording. The zero
// value is an empty index of a file without ftyp and moov.
type FragmentIndexWriter struct {
	Fragments int // appended

	init, audioStart uint64
	index            []byte
}

// Init sets the size of ftyp and moov, bytes.
func (w *FragmentIndexWriter) Init(size int64) { w.init = uint64(size) }

// AudioStart sets the decode time of the first audio sample since the start of
// the recording, units of its track: Fragment.AudioTime of the first fragment
// that has audio. It is 0 unless set.
func (w *FragmentIndexWriter) AudioStart(t int64) { w.audioStart = uint64(t) }

// Append adds a fragment: Fragment.HeaderSize, and the numbers of its samples.
func (w *FragmentIndexWriter) Append(headerSize int64, video, audio int) {
	w.index = binary.AppendUvarint(w.index, uint64(headerSize))
	w.index = binary.AppendUvarint(w.index, uint64(video))
	w.index = binary.AppendUvarint(w.index, uint64(audio))
	w.Fragments++
}

// Index returns the index so far.
func (w *FragmentIndexWriter) Index() []byte {
	b := make([]byte, 0, 2*binary.MaxVarintLen64+len(w.index))
	b = binary.AppendUvarint(b, w.init)
	b = binary.AppendUvarint(b, w.audioStart)
	return append(b, w.index...)
}

// FragmentIndexReader walks a fragment index. Init and AudioStart are there
// from the beginning, the rest after Next returned true.
type FragmentIndexReader struct {
	Init       int64 // size of ftyp and moov
	AudioStart int64 // decode time of the first audio sample, units of its track

	HeaderSize   int64
	Video, Audio int // samples in the fragment
	N            int // its number, from 0

	index   []byte
	started bool
	err     error
}

// NewFragmentIndexReader reads what a FragmentIndexWriter made. Errors are of
// kind media.ErrIndex.
func NewFragmentIndexReader(index []byte) *FragmentIndexReader {
	r := &FragmentIndexReader{index: index}
	r.Init = r.varint()
	r.AudioStart = r.varint()
	return r
}

// Next goes to the next fragment. It returns false at the end and at the first
// damage; Err tells which.
func (r *FragmentIndexReader) Next() bool {
	if r.err != nil || len(r.index) == 0 {
		return false
	}
	if r.started {
		r.N++
	}
	r.started = true
	r.HeaderSize = r.varint()
	r.Video = int(r.varint())
	r.Audio = int(r.varint())
	if r.err == nil && r.Video+r.Audio == 0 {
		r.err = fmt.Errorf("%w: fragment %d is empty", media.ErrIndex, r.N)
	}
	return r.err == nil
}

// Err returns what ended the walk, nil at a whole end.
func (r *FragmentIndexReader) Err() error { return r.err }

func (r *FragmentIndexReader) varint() int64 {
	v, n := binary.Uvarint(r.index)
	if n <= 0 || v>>40 != 0 {
		if r.err == nil {
			r.err = fmt.Errorf("%w: fragment %d: truncated or oversized varint", media.ErrIndex, r.N)
		}
		r.index = nil
		return 0
	}
	r.index = r.index[n:]
	return int64(v)
}
