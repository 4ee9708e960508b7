package media

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// One column of an index at a time is what sample tables are made of. These
// take the first n samples several times as fast as an IndexReader, and check
// what they take as it does: what an index says of other columns is passed
// over, whole or damaged.

// Nearly always both numbers of a sample have one or two bytes, and the same as
// those of the sample before: a branch for each length is guessed right, and
// nothing waits for where the next sample begins.

// AppendDurations appends the durations of the first n samples, track units.
func AppendDurations(dst []int32, index []byte, n int) ([]int32, error) {
	base := len(dst)
	dst = slices.Grow(dst, n)[:base+n]
	out := dst[base:]
	at, last := 0, int32(0)
	for k := range out {
		var v uint32
		var next int
		if at < len(index) && index[at] < 0x80 {
			v, next = uint32(index[at]), at+1
		} else {
			v, next = varintAt(index, at)
		}
		end := skipVarint(index, next)
		if next == 0 || last == 0 && k > 0 || end > len(index) {
			return dst[:base+k], columnError(index, at, k)
		}
		if last += unzigzag(v >> 1); last < 0 {
			return dst[:base+k], fmt.Errorf("%w: sample %d has duration %d", ErrIndex, k, last)
		}
		out[k], at = last, end
	}
	return dst, nil
}

// AppendSizes appends the sizes of the first n samples, bytes.
func AppendSizes(dst []int32, index []byte, n int) ([]int32, error) {
	base := len(dst)
	dst = slices.Grow(dst, n)[:base+n]
	out := dst[base:]
	var last [2]int32 // of others, of keys
	at := 0
	for k := range out {
		next := skipVarint(index, at)
		var v uint32
		var end int
		if next+1 < len(index) && index[next] >= 0x80 && index[next+1] < 0x80 {
			v, end = uint32(index[next]&0x7f)|uint32(index[next+1])<<7, next+2
		} else if v, end = varintAt(index, next); end == 0 {
			return dst[:base+k], columnError(index, next, k)
		}
		key := index[at] & 1
		size := last[key] + unzigzag(v)
		if size <= 0 {
			return dst[:base+k], fmt.Errorf("%w: sample %d has size %d", ErrIndex, k, size)
		}
		out[k], last[key], at = size, size, end
	}
	return dst, nil
}

// AppendKeys appends the numbers, from 0, of the key samples among the first n.
func AppendKeys(dst []int32, index []byte, n int) ([]int32, error) {
	at := 0
	for k := range n {
		end := skipVarint(index, skipVarint(index, at))
		if end > len(index) {
			return dst, columnError(index, at, k)
		}
		if index[at]&1 != 0 {
			dst = append(dst, int32(k))
		} else if k == 0 {
			return dst, fmt.Errorf("%w: the first sample is not a key", ErrIndex)
		}
		at = end
	}
	return dst, nil
}

// AppendOffsets appends the composition offsets of the first n samples; an
// index of nil says that all are 0.
func AppendOffsets(dst []int32, offsets []byte, n int) ([]int32, error) {
	dst = slices.Grow(dst, n)
	at, last := 0, int32(0)
	for k := range n {
		if offsets != nil {
			v, next := varintAt(offsets, at)
			if next == 0 {
				return dst, columnError(offsets, at, k)
			}
			last, at = last+unzigzag(v), next
		}
		dst = append(dst, last)
	}
	return dst, nil
}

// varintAt reads the varint at b[at:] and returns where the next one is, 0 when
// it is cut off or has more than 32 bits.
func varintAt(b []byte, at int) (v uint32, next int) {
	if at >= len(b) {
		return 0, 0
	}
	long, n := binary.Uvarint(b[at:])
	if n <= 0 || long>>32 != 0 {
		return 0, 0
	}
	return uint32(long), at + n
}

// skipVarint returns where the varint at b[at:] ends, more than len(b) when it
// is cut off.
func skipVarint(b []byte, at int) int {
	for at < len(b) && b[at] >= 0x80 {
		at++
	}
	return at + 1
}

func columnError(index []byte, at, k int) error {
	if at >= len(index) {
		return fmt.Errorf("%w: ends at sample %d", ErrIndex, k)
	}
	return fmt.Errorf("%w: sample %d: truncated or oversized varint, or behind one of duration 0", ErrIndex, k)
}
