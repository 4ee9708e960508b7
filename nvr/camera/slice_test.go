package camera

import (
	"testing"

	mch264 "github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
)

// bitWriter writes what slice headers are made of.
type bitWriter struct {
	b []byte
	n uint
}

func (w *bitWriter) bits(v uint32, n int) {
	for i := n - 1; i >= 0; i-- {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[len(w.b)-1] |= byte(v>>i&1) << (7 - w.n%8)
		w.n++
	}
}

func (w *bitWriter) golomb(v uint32) {
	n := 0
	for x := v + 1; x > 1; x >>= 1 {
		n++
	}
	w.bits(0, n)
	w.bits(v+1, n+1)
}

// slice264 is the beginning of a picture's slice in a stream that never
// reorders: an IDR when key, else a P slice.
func slice264(t testing.TB, raw []byte, key bool, order int) []byte {
	t.Helper()
	var p mch264.SPS
	if err := p.Unmarshal(raw); err != nil {
		t.Fatal(err)
	}
	var w bitWriter
	if key {
		w.bits(0x65, 8)
		w.golomb(0)
		w.golomb(7)
	} else {
		w.bits(0x41, 8)
		w.golomb(0)
		w.golomb(5)
	}
	w.golomb(0) // pic_parameter_set_id
	frameBits := int(p.Log2MaxFrameNumMinus4 + 4)
	w.bits(uint32(order)&(1<<frameBits-1), frameBits)
	if key {
		w.golomb(1) // idr_pic_id
	}
	orderBits := int(p.Log2MaxPicOrderCntLsbMinus4 + 4)
	w.bits(uint32(2*order)&(1<<orderBits-1), orderBits)
	w.bits(0xff, 8)
	return append(w.b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
}
