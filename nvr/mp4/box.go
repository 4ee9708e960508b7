package mp4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	gomp4 "github.com/abema/go-mp4"
)

var be = binary.BigEndian

// builder appends boxes to buf and patches their sizes when they end. A table
// that is made on demand is left out of buf: only its length counts.
type builder struct {
	buf     []byte
	elided  int64  // bytes left out so far
	open    []mark // boxes begun and not ended
	err     error  // the first that happened
	scratch bytes.Buffer
}

// mark is where a box began, in buf and in the file.
type mark struct {
	at  int
	pos int64
}

// pos is the position in the file.
func (b *builder) pos() int64 { return int64(len(b.buf)) + b.elided }

// begin starts a box of the given type.
func (b *builder) begin(typ string) {
	b.open = append(b.open, mark{len(b.buf), b.pos()})
	b.u32(0)
	b.buf = append(b.buf, typ...)
}

// full starts a full box (ISO 14496-12 section 4.2).
func (b *builder) full(typ string, version uint8, flags uint32) {
	b.begin(typ)
	b.u32(uint32(version)<<24 | flags)
}

// end ends the box begun last.
func (b *builder) end() {
	m := b.open[len(b.open)-1]
	b.open = b.open[:len(b.open)-1]
	size := b.pos() - m.pos
	if size >= 1<<32 {
		b.fail(fmt.Errorf("box %q would have %d bytes: %w", b.buf[m.at+4:m.at+8], size, ErrTooLarge))
		return
	}
	be.PutUint32(b.buf[m.at:], uint32(size))
}

func (b *builder) u16(v uint16) { b.buf = be.AppendUint16(b.buf, v) }
func (b *builder) u32(v uint32) { b.buf = be.AppendUint32(b.buf, v) }
func (b *builder) u64(v uint64) { b.buf = be.AppendUint64(b.buf, v) }

// payload appends the body of a box, without its header and children.
func (b *builder) payload(box gomp4.IImmutableBox) {
	b.scratch.Reset()
	if _, err := gomp4.Marshal(&b.scratch, box, gomp4.Context{}); err != nil {
		b.fail(err)
	}
	b.buf = append(b.buf, b.scratch.Bytes()...)
}

// box appends a whole box without children.
func (b *builder) box(box gomp4.IImmutableBox) {
	typ := box.GetType()
	b.begin(string(typ[:]))
	b.payload(box)
	b.end()
}

func (b *builder) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// ErrTooLarge says that the parts asked for do not fit into one file.
var ErrTooLarge = errors.New("too large for one file")

// errBox is the cause of every error about the structure of a box.
var errBox = errors.New("damaged box")

// boxes walks the boxes in b. It trusts nothing but the length of b.
func boxes(b []byte, f func(typ string, body []byte) error) error {
	for len(b) > 0 {
		if len(b) < 8 {
			return fmt.Errorf("%w: %d bytes left over", errBox, len(b))
		}
		size := be.Uint32(b)
		if size < 8 || uint64(size) > uint64(len(b)) {
			return fmt.Errorf("%w: %q says %d bytes where %d are left", errBox, b[4:8], size, len(b))
		}
		if err := f(string(b[4:8]), b[8:size]); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}
