package media

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// columnsOf reads an index sample by sample.
func columnsOf(index, offsets []byte, n int) (durations, sizes, keys, offs []int32, err error) {
	r := NewIndexReader(index, offsets)
	for k := range n {
		if !r.Next() {
			if err = r.Err(); err == nil {
				err = ErrIndex
			}
			return
		}
		durations, sizes, offs = append(durations, r.Sample.Duration), append(sizes, r.Sample.Size), append(offs, r.Sample.Offset)
		if r.Sample.Key {
			keys = append(keys, int32(k))
		}
	}
	return
}

// The columns are those that an IndexReader gives, for numbers of any length.
func TestColumnsAreThoseOfTheIndex(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		var w IndexWriter
		n := 1 + rng.IntN(60)
		spread := 1 + rng.Int32N(1<<(1+rng.IntN(29)))
		for k := range n {
			w.Append(Sample{
				Duration: 1 + rng.Int32N(min(spread, 1<<28)), Size: 1 + rng.Int32N(spread), Key: k == 0 || rng.IntN(9) == 0,
				Offset: rng.Int32N(spread) * int32(rng.IntN(2)),
			})
		}
		first := rng.IntN(n) + 1 // samples asked for
		d, s, keys, o, err := columnsOf(w.Index(), w.Offsets(), first)
		if err != nil {
			t.Fatal(err)
		}
		check := func(name string, got []int32, err error, want []int32) {
			t.Helper()
			if err != nil || !slices.Equal(got[1:], want) || got[0] != -7 {
				t.Fatalf("%s: %v %v, want %v", name, got, err, want)
			}
		}
		got, err := AppendDurations([]int32{-7}, w.Index(), first)
		check("durations", got, err, d)
		got, err = AppendSizes([]int32{-7}, w.Index(), first)
		check("sizes", got, err, s)
		got, err = AppendKeys([]int32{-7}, w.Index(), first)
		check("keys", got, err, keys)
		got, err = AppendOffsets([]int32{-7}, w.Offsets(), first)
		check("offsets", got, err, o)
	}
}

// Whatever the bytes are: what one column takes without an error is what an
// IndexReader takes, or what it refuses for the sake of another column.
func FuzzColumns(f *testing.F) {
	var w IndexWriter
	for k := range 20 {
		w.Append(Sample{Duration: int32(3000 + k*k), Size: int32(1 + k*777), Key: k%5 == 0})
	}
	f.Add(w.Index(), uint8(20))
	f.Add(w.Index()[:11], uint8(20))
	f.Add([]byte{}, uint8(1))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1}, uint8(1))
	f.Add([]byte{1, 2, 1, 2, 1, 2, 1, 2, 1, 2}, uint8(3))
	f.Add(binary.AppendUvarint([]byte{5}, 1<<35), uint8(1))
	f.Fuzz(func(t *testing.T, index []byte, n uint8) {
		d, s, keys, _, err := columnsOf(index, nil, int(n))
		gotD, errD := AppendDurations(nil, index, int(n))
		gotS, errS := AppendSizes(nil, index, int(n))
		gotK, errK := AppendKeys(nil, index, int(n))
		for _, e := range []error{errD, errS, errK} {
			if e != nil && !errors.Is(e, ErrIndex) {
				t.Fatal(e)
			}
		}
		if err == nil && (errD != nil || errS != nil || errK != nil) {
			t.Fatalf("refused: %v, %v, %v", errD, errS, errK)
		}
		if err != nil && errD == nil && errS == nil && errK == nil {
			t.Fatalf("taken, where an IndexReader says %v", err)
		}
		m := len(d)
		if !slices.Equal(gotD[:min(m, len(gotD))], d[:min(m, len(gotD))]) || !slices.Equal(gotS[:min(m, len(gotS))], s[:min(m, len(gotS))]) ||
			!slices.Equal(gotK[:min(len(keys), len(gotK))], keys[:min(len(keys), len(gotK))]) {
			t.Fatal("other values than those of an IndexReader")
		}
	})
}
