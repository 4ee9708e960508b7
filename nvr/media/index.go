package media

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The sample index holds two unsigned varints (LEB128) a sample (sample-file.md,
// "Sample index"; moonfire.md 2.4):
//
//	zigzag(duration - previous duration) << 1 | key
//	zigzag(size - size of the previous sample of the same kind, key or not)
//
// All "previous" values begin at 0. Composition offsets stand in an index of
// their own, one varint a sample, present only where pictures are reordered:
//
//	zigzag(offset - previous offset)

// ErrIndex is the kind of every error that a damaged index gives.
var ErrIndex = errors.New("damaged sample index")

// IndexWriter builds the index of one track of one recording. The zero value
// is an empty index.
type IndexWriter struct {
	Samples  int   // samples appended
	Keys     int   // of those, key samples
	Bytes    int64 // sum of sizes
	Duration int64 // sum of durations, track units

	index   []byte
	offsets []byte
	ordered bool // an offset other than 0 was seen

	duration, keySize, otherSize, offset int32
}

// Append adds a sample. Sizes are positive; a duration of 0 may only be the
// last one.
func (w *IndexWriter) Append(s Sample) {
	key := uint64(0)
	prev := &w.otherSize
	if s.Key {
		key, prev = 1, &w.keySize
		w.Keys++
	}
	w.index = binary.AppendUvarint(w.index, uint64(zigzag(s.Duration-w.duration))<<1|key)
	w.index = binary.AppendUvarint(w.index, uint64(zigzag(s.Size-*prev)))
	w.offsets = binary.AppendUvarint(w.offsets, uint64(zigzag(s.Offset-w.offset)))
	if s.Offset != 0 {
		w.ordered = true
	}
	w.duration, *prev, w.offset = s.Duration, s.Size, s.Offset
	w.Samples++
	w.Bytes += int64(s.Size)
	w.Duration += int64(s.Duration)
}

// Index returns the index so far. The caller must not change it; later appends
// leave the returned bytes as they are.
func (w *IndexWriter) Index() []byte { return w.index[:len(w.index):len(w.index)] }

// Offsets returns the composition offsets so far, nil when all are 0.
func (w *IndexWriter) Offsets() []byte {
	if !w.ordered {
		return nil
	}
	return w.offsets[:len(w.offsets):len(w.offsets)]
}

// IndexReader walks an index from its start. The zero value has no samples.
type IndexReader struct {
	Sample Sample // the current sample, after Next returned true
	Start  int64  // its decode time since the start of the recording, track units
	Pos    int64  // bytes of the track before it
	N      int    // its number, from 0

	index, offsets []byte
	hasOffsets     bool
	started        bool

	keySize, otherSize int32
	err                error
}

// NewIndexReader reads what an IndexWriter made; offsets may be nil.
func NewIndexReader(index, offsets []byte) *IndexReader {
	return &IndexReader{index: index, offsets: offsets, hasOffsets: offsets != nil}
}

// Next goes to the next sample. It returns false at the end and at the first
// damage; Err tells which.
func (r *IndexReader) Next() bool {
	if r.err != nil || len(r.index) == 0 {
		if r.err == nil && len(r.offsets) != 0 {
			r.err = fmt.Errorf("%w: %d bytes of offsets after the last sample", ErrIndex, len(r.offsets))
		}
		return false
	}
	if r.started {
		if r.Sample.Duration == 0 {
			r.err = fmt.Errorf("%w: sample %d has duration 0 and is not the last", ErrIndex, r.N)
			return false
		}
		r.Start += int64(r.Sample.Duration)
		r.Pos += int64(r.Sample.Size)
		r.N++
	}
	a, ok := r.varint(&r.index, 32)
	if !ok {
		return false
	}
	b, ok := r.varint(&r.index, 32)
	if !ok {
		return false
	}
	s := Sample{Key: a&1 != 0}
	s.Duration = r.Sample.Duration + unzigzag(uint32(a>>1))
	prev := &r.otherSize
	if s.Key {
		prev = &r.keySize
	}
	s.Size = *prev + unzigzag(uint32(b))
	if r.hasOffsets {
		c, ok := r.varint(&r.offsets, 32)
		if !ok {
			return false
		}
		s.Offset = r.Sample.Offset + unzigzag(uint32(c))
	}
	switch {
	case !r.started && !s.Key:
		r.err = fmt.Errorf("%w: the first sample is not a key", ErrIndex)
	case s.Duration < 0:
		r.err = fmt.Errorf("%w: sample %d has duration %d", ErrIndex, r.N, s.Duration)
	case s.Size <= 0:
		r.err = fmt.Errorf("%w: sample %d has size %d", ErrIndex, r.N, s.Size)
	}
	if r.err != nil {
		return false
	}
	r.Sample, r.started, *prev = s, true, s.Size
	return true
}

// Err returns what ended the walk, nil at a whole end.
func (r *IndexReader) Err() error { return r.err }

func (r *IndexReader) varint(b *[]byte, bits uint) (uint64, bool) {
	v, n := binary.Uvarint(*b)
	if n <= 0 || v>>bits != 0 {
		r.err = fmt.Errorf("%w: sample %d: truncated or oversized varint", ErrIndex, r.N)
		return 0, false
	}
	*b = (*b)[n:]
	return v, true
}

func zigzag(v int32) uint32   { return uint32(v<<1) ^ uint32(v>>31) }
func unzigzag(v uint32) int32 { return int32(v>>1) ^ -int32(v&1) }
