package media

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func readAll(index, offsets []byte) ([]Sample, error) {
	var out []Sample
	r := NewIndexReader(index, offsets)
	for r.Next() {
		out = append(out, r.Sample)
	}
	return out, r.Err()
}

func write(samples []Sample) *IndexWriter {
	w := &IndexWriter{}
	for _, s := range samples {
		w.Append(s)
	}
	return w
}

// The example of sample-file.md, worked out by hand.
func golden() ([]Sample, string) {
	return []Sample{
		{Duration: 10, Size: 1000, Key: true},
		{Duration: 9, Size: 10},
		{Duration: 11, Size: 15},
		{Duration: 10, Size: 12},
		{Duration: 10, Size: 1050, Key: true},
	}, "29d00f0214080a02050164"
}

func TestIndexIsThatOfTheWorkedExample(t *testing.T) {
	samples, want := golden()
	w := write(samples)
	if got := hex.EncodeToString(w.Index()); got != want {
		t.Errorf("index is %s, want %s", got, want)
	}
	if w.Samples != 5 || w.Keys != 2 || w.Bytes != 2087 || w.Duration != 50 || w.Offsets() != nil {
		t.Errorf("sums are %d samples, %d keys, %d bytes, %d long, offsets %x", w.Samples, w.Keys, w.Bytes, w.Duration, w.Offsets())
	}
	got, err := readAll(w.Index(), nil)
	if err != nil || !slices.Equal(got, samples) {
		t.Errorf("reads back as %v: %v", got, err)
	}
}

func TestReaderAddsUpStartAndPosition(t *testing.T) {
	samples, _ := golden()
	r := NewIndexReader(write(samples).Index(), nil)
	var start, pos int64
	for i, s := range samples {
		if !r.Next() || r.N != i || r.Start != start || r.Pos != pos {
			t.Fatalf("sample %d: number %d, start %d, position %d; want %d, %d (%v)", i, r.N, r.Start, r.Pos, start, pos, r.Err())
		}
		start, pos = start+int64(s.Duration), pos+int64(s.Size)
	}
	if r.Next() || r.Next() || r.Err() != nil {
		t.Errorf("does not end: %v", r.Err())
	}
}

func TestWhateverIsWrittenReadsBack(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		limit := []int32{50, 1 << 14, math.MaxInt32}[seed%3]
		var samples []Sample
		for i := range 1 + rng.IntN(300) {
			s := Sample{Duration: 1 + rng.Int32N(limit), Size: 1 + rng.Int32N(limit), Key: i == 0 || rng.IntN(30) == 0}
			s.Duration = min(s.Duration, 1<<30-1) // the change of it shares 32 bits with its sign and the key
			if seed%2 == 0 {
				s.Offset = rng.Int32N(limit) - limit/2
			}
			samples = append(samples, s)
		}
		if seed%5 == 0 {
			samples[len(samples)-1].Duration = 0
		}
		w := write(samples)
		got, err := readAll(w.Index(), w.Offsets())
		if err != nil || !slices.Equal(got, samples) {
			t.Fatalf("seed %d: reads back as something else: %v", seed, err)
		}
	}
}

// The store hands out the index of a growing recording.
func TestIndexHandedOutNeverChanges(t *testing.T) {
	var w IndexWriter
	var taken, copies [][]byte
	for i := range int32(1000) {
		w.Append(Sample{Duration: 3000 + i%7, Size: 100 + i%90, Offset: i % 3, Key: i%30 == 0})
		for _, b := range [][]byte{w.Index(), w.Offsets()} {
			taken, copies = append(taken, b), append(copies, bytes.Clone(b))
		}
	}
	for _, b := range taken { // nor may one who has it reach into what came after
		_ = append(b, 0xff)
	}
	for i := range taken {
		if !bytes.Equal(taken[i], copies[i]) {
			t.Fatalf("index %d changed after it was handed out", i)
		}
	}
	if _, err := readAll(w.Index(), w.Offsets()); err != nil {
		t.Error(err)
	}
}

func TestDamagedIndexIsAnError(t *testing.T) {
	long := write([]Sample{{Duration: 1 << 29, Size: 1 << 30, Key: true}}).Index()
	zero := write([]Sample{{Duration: 0, Size: 1, Key: true}}).Index()
	for title, c := range map[string]struct{ index, offsets []byte }{
		"first sample is no key":       {index: []byte{0x28, 0x02}},
		"negative duration":            {index: []byte{0x03, 0x02}},
		"zero size":                    {index: []byte{0x29, 0x00}},
		"negative size":                {index: []byte{0x29, 0x01}},
		"duration 0 before the end":    {index: slices.Concat(zero, []byte{0x28, 0x02})},
		"no size":                      {index: []byte{0x29}},
		"varint without an end":        {index: []byte{0xff}},
		"varint of 33 bits":            {index: []byte{0x81, 0x80, 0x80, 0x80, 0x10, 0x02}},
		"varint of 80 bits":            {index: bytes.Repeat([]byte{0xff}, 11)},
		"a long one, cut":              {index: long[:len(long)-1]},
		"fewer offsets than samples":   {index: []byte{0x29, 0x02, 0x00, 0x02}, offsets: []byte{0}},
		"more offsets than samples":    {index: []byte{0x29, 0x02}, offsets: []byte{0, 0}},
		"offset without an end":        {index: []byte{0x29, 0x02}, offsets: []byte{0x80}},
		"offsets, but of no sample":    {offsets: []byte{0}},
		"offsets of length 0, not nil": {index: []byte{0x29, 0x02}, offsets: []byte{}},
	} {
		if _, err := readAll(c.index, c.offsets); !errors.Is(err, ErrIndex) {
			t.Errorf("%s: %v", title, err)
		}
	}
	if s, err := readAll(nil, nil); s != nil || err != nil {
		t.Errorf("an empty index: %v, %v", s, err)
	}
}

// Whatever the bytes are, what passes is what a writer could have written, and
// writing it again gives an index of the same meaning.
func FuzzIndexReader(f *testing.F) {
	samples, _ := golden()
	f.Add(write(samples).Index(), []byte(nil))
	samples[1].Offset, samples[4].Duration = -7, 0
	w := write(samples)
	f.Add(w.Index(), w.Offsets())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0x02}, []byte{0})
	f.Fuzz(func(t *testing.T, index, offsets []byte) {
		samples, err := readAll(index, offsets)
		if err != nil && !errors.Is(err, ErrIndex) {
			t.Fatalf("error of another kind: %v", err)
		}
		for i, s := range samples {
			if s.Size <= 0 || s.Duration < 0 || s.Duration == 0 && i < len(samples)-1 || i == 0 && !s.Key {
				t.Fatalf("sample %d passes as %+v", i, s)
			}
		}
		w := write(samples)
		again, err := readAll(w.Index(), w.Offsets())
		if err != nil || !slices.Equal(again, samples) {
			t.Fatalf("written again it reads as %v: %v", again, err)
		}
	})
}

func BenchmarkIndexReader(b *testing.B) {
	var w IndexWriter
	for i := range int32(1800) {
		w.Append(Sample{Duration: 2990 + i*7%20, Size: 13_000 + i*7919%3000, Key: i%30 == 0})
	}
	b.ReportMetric(float64(len(w.Index()))/1800, "B/sample")
	for b.Loop() {
		for r := NewIndexReader(w.Index(), nil); r.Next(); {
		}
	}
}
