package camera

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTimestampsDoNotWrap(t *testing.T) {
	tests := []struct {
		name string
		in   []uint32
		want []int64
	}{
		{"begins anywhere", []uint32{4_000_000_000, 4_000_003_000}, []int64{0, 3000}},
		{"wraps", []uint32{math.MaxUint32 - 999, 2000}, []int64{0, 3000}},
		{"wraps twice", []uint32{0, 1<<31 - 1, math.MaxUint32 - 1, 1<<31 - 3, math.MaxUint32 - 3}, []int64{0, 1<<31 - 1, 1<<32 - 2, 3<<31 - 3, 1<<33 - 4}},
		{"back", []uint32{9000, 6000}, []int64{0, -3000}},
		{"half the range is back", []uint32{0, 1 << 31}, []int64{0, -1 << 31}},
		{"an hour forward", []uint32{5, 5 + 324_000_000}, []int64{0, 324_000_000}},
	}
	for _, tt := range tests {
		var u unwrapper
		for i, ts := range tt.in {
			if got := u.at(ts); got != tt.want[i] {
				t.Errorf("%s: timestamp %d gives %d, want %d", tt.name, i, got, tt.want[i])
			}
		}
	}
}

func TestDecodeTimes(t *testing.T) {
	tests := []struct {
		name    string
		reorder int
		pts     []int64
		want    []int64 // shorter than pts: the next one is refused
	}{
		{"no reordering", 0, []int64{0, 3000, 6001}, []int64{0, 3000, 6001}},
		{"repeated", 0, []int64{0, 3000, 3000}, []int64{0, 3000}},
		{"backward", 0, []int64{0, 3000, 2999}, []int64{0, 3000}},
		{"an hour back", 0, []int64{0, 3000, -324_000_000}, []int64{0, 3000}},
		{"an hour forward", 0, []int64{0, 3000, 324_000_000}, []int64{0, 3000, 324_000_000}},
		{"I P B, depth 1", 1, []int64{0, 6000, 3000, 12000, 9000}, []int64{-3000, 0, 3000, 6000, 9000}},
		{"pyramid, depth 2", 2, []int64{0, 12000, 6000, 3000, 9000, 24000, 18000}, []int64{-6000, -3000, 0, 3000, 6000, 9000, 12000}},
		{"depth 2 that is never used", 2, []int64{0, 3000, 6000, 9000}, []int64{-6000, -3000, 0, 3000}},
		{"a lost B", 1, []int64{0, 6000, 12000, 9000, 18000, 15000}, []int64{-3000, 0, 6000, 9000, 12000, 15000}},
		{"B-frames where none may be", 0, []int64{0, 9000, 3000}, []int64{0, 9000}},
		{"back, depth 1", 1, []int64{0, 3000, 6000, -90000}, []int64{-3000, 0, 3000}},
		{"repeated, depth 1", 1, []int64{0, 3000, 3000, 6000}, []int64{-3000, 0, 3000}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c decodeClock
			c.follow(&sps{reorder: tt.reorder, frame: 3000})
			var got []int64
			for _, pts := range tt.pts {
				dts, err := c.next(pts, false, nil, nil)
				if err != nil {
					if err.Kind != BadTimestamps || !strings.Contains(err.Problem, "B-frames or a camera clock step") {
						t.Errorf("refused with %v", err)
					}
					break
				}
				got = append(got, dts)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %v\nwant %v", got, tt.want)
			}
		})
	}
}

// Parameter sets may change how deep a stream reorders while it runs.
func TestDepthChangesInMidstream(t *testing.T) {
	var c decodeClock
	flat, deep := &sps{reorder: 0, frame: 3000}, &sps{reorder: 2, frame: 3000}
	var last int64 = math.MinInt64
	pts := int64(0)
	for i := range 100 {
		switch i {
		case 30, 80:
			c.follow(deep)
		case 0, 50:
			c.follow(flat)
		}
		pts += 3000
		dts, err := c.next(pts, i%10 == 0, nil, nil)
		if err != nil {
			t.Fatalf("picture %d: %v", i, err)
		}
		if dts > pts || dts <= last || dts < pts-3*3000 {
			t.Fatalf("picture %d: DTS %d after %d, PTS %d", i, dts, last, pts)
		}
		last = dts
	}
}

// Where a stream does not say whether it reorders, it most often does not: then
// a lost picture must not bend the times of those after it.
func TestUnsaidReorderingOfACameraThatNeverDoes(t *testing.T) {
	raw := unhex(t, "67640020ac172a01401e68400001c2000057e421")
	p, err := parseSPS(h264, raw)
	if err != nil || p.reorder != -1 {
		t.Fatal(p, err)
	}
	var c decodeClock
	c.follow(p)
	for i := range 200 {
		if i%40 == 7 {
			c.lost()
			continue
		}
		pts := int64(i) * 3600
		key := i%40 == 0
		// first_mb 0, slice_type P or I, pps 0, frame_num, order count lsb 2i
		dts, e := c.next(pts, key, raw, slice264(t, raw, key, i%40))
		if e != nil || dts != pts {
			t.Fatalf("picture %d: DTS %d, PTS %d, %v", i, dts, pts, e)
		}
	}
}

// One that does reorder, and does not say how deep.
func TestUnsaidReorderingOfACameraThatDoes(t *testing.T) {
	raw := unhex(t, "67640020ac172a01401e68400001c2000057e421")
	p, err := parseSPS(h264, raw)
	if err != nil {
		t.Fatal(err)
	}
	var c decodeClock
	c.follow(p)
	last := int64(math.MinInt64)
	for gop := range 5 {
		for i, shown := range []int{0, 3, 1, 2, 6, 4, 5, 9, 7, 8} {
			if gop == 3 && i == 5 {
				c.lost()
				continue
			}
			pts := int64(10*gop+shown) * 3600
			dts, e := c.next(pts, i == 0, raw, slice264(t, raw, i == 0, shown))
			if e != nil || dts <= last || dts > pts {
				t.Fatalf("GOP %d, picture %d: DTS %d after %d, PTS %d, %v", gop, i, dts, last, pts, e)
			}
			last = dts
		}
	}
}

func TestSoundStaysWhereItArrives(t *testing.T) {
	c := soundClock{rate: 16000}
	take := func(ts uint32, at time.Duration) (int64, bool) {
		t := c.at(ts, at)
		return t, c.take(t)
	}
	for i, tt := range []struct {
		timestamp uint32
		video     time.Duration
		want      int64
		taken     bool
	}{
		{4_294_967_000, 2 * time.Second, 32000, true},
		{4_294_967_000 + 1024 - 1<<32, 2200 * time.Millisecond, 33024, true}, // jitter does not matter
		{728, 3 * time.Second, 33024, false},                                 // repeated
		{728 + 9*16000, 3 * time.Second, 33024 + 9*16000, true},              // a step within the bound
		{1<<32 + 728 - 16000, 3 * time.Second, 33024 - 16000, false},
		{2_000_000_000, 20 * time.Second, 320000, true}, // placed anew
		{2_000_001_024, 20 * time.Second, 321024, true},
		{1_000_000_000, 4 * time.Second, 321025, true}, // anew, but never back
	} {
		if got, taken := take(tt.timestamp, tt.video); got != tt.want || taken != tt.taken {
			t.Errorf("frame %d: %d, %v; want %d, %v", i, got, taken, tt.want, tt.taken)
		}
	}
}

// Any order of presentation times gives decode times that rise and never pass
// them, or an error.
func FuzzDecodeClock(f *testing.F) {
	f.Add(uint64(1), 2, []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, seed uint64, depth int, steps []byte) {
		r := rand.New(rand.NewPCG(seed, 1))
		var c decodeClock
		c.follow(&sps{reorder: int(uint(depth) % 17), frame: 3000})
		last, pts := int64(math.MinInt64), int64(0)
		for _, s := range steps {
			pts += int64(int8(s)) * int64(r.IntN(3000))
			dts, err := c.next(pts, s&7 == 0, nil, nil)
			if err != nil {
				return
			}
			if dts > pts || dts <= last {
				t.Fatalf("DTS %d after %d, PTS %d", dts, last, pts)
			}
			last = dts
		}
	})
}
