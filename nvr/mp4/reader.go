package mp4

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

	"holdfast/nvr/media"
)

// Reader reads a File from any place; http.ServeContent takes it. It belongs
// to one goroutine at a time. It holds one sample file open, the indexes of a
// few recordings and one piece of a table, however long the file is.
type Reader struct {
	f      *File
	pos    int64
	closed bool

	column  []int32 // of a sample index, for the block that is made
	block   []byte  // the part of a table made last
	blockAt int64   // where it begins in the file
	ofTable table   // which table, static when there is none
	ofSeg   int     // which segment

	pieces    placement
	piecesSeg int // whose pieces, -1 when nobody's

	payload    Payload
	payloadSeg int // whose file payload is

	// Indexes loaded last, each in the slot of its segment, so that a short
	// file has all of its own here while its tables are made.
	cache [8]struct {
		seg int // plus 1; 0: empty
		Playback
	}
}

// NewReader returns a reader at the start of the file. It has to be closed.
func (f *File) NewReader() *Reader { return &Reader{f: f, piecesSeg: -1} }

// Close ends the use of the reader: what is read after it is os.ErrClosed.
func (r *Reader) Close() error {
	r.closed = true
	return r.closePayload()
}

// closePayload closes the sample file that is open.
func (r *Reader) closePayload() error {
	if r.payload == nil {
		return nil
	}
	p := r.payload
	r.payload = nil
	return p.Close()
}

// Seek sets the place of the next Read.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.f.size
	default:
		return 0, fmt.Errorf("seek in mp4: whence %d", whence)
	}
	if offset < 0 {
		return 0, errors.New("seek in mp4: before the start")
	}
	r.pos = offset
	return offset, nil
}

// Read fills p as far as the file goes. An error other than io.EOF means that
// a recording is gone or damaged; it names the recording.
func (r *Reader) Read(p []byte) (n int, err error) {
	for n < len(p) && r.pos < r.f.size {
		mem, pc, err := r.at(r.pos)
		if err != nil {
			return n, err
		}
		k := 0
		if mem != nil {
			k = copy(p[n:], mem)
		} else {
			b := p[n:]
			if int64(len(b)) > pc.n {
				b = b[:pc.n]
			}
			if err := readAt(r.payload, b, pc.file); err != nil {
				return n, fmt.Errorf("%s: read sample file: %w", name(r.f.segs[r.payloadSeg].ID), err)
			}
			k = len(b)
		}
		n += k
		r.pos += int64(k)
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// CopyN writes the next n bytes, or what is left of the file, to w. Samples of
// a payload that is an *os.File go to w in one io.Copy for each stretch, so
// that a connection takes them from the kernel.
func (r *Reader) CopyN(w io.Writer, n int64) (written int64, err error) {
	n = min(n, r.f.size-r.pos)
	for written < n {
		mem, pc, err := r.at(r.pos)
		if err != nil {
			return written, err
		}
		var k int64
		if mem != nil {
			var m int
			m, err = w.Write(mem[:min(int64(len(mem)), n-written)])
			k = int64(m)
		} else {
			k, err = r.send(w, pc.file, min(pc.n, n-written))
		}
		written += k
		r.pos += k
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// send writes n bytes of the open sample file to w.
func (r *Reader) send(w io.Writer, at, n int64) (int64, error) {
	var src io.Reader
	switch p := r.payload.(type) {
	case *os.File:
		src = p
	case interface{ File() *os.File }:
		if file := p.File(); file != nil { // none: it is in memory
			src = file
		}
	}
	if file, ok := src.(*os.File); ok {
		if _, err := file.Seek(at, io.SeekStart); err != nil {
			return 0, fmt.Errorf("%s: %w", name(r.f.segs[r.payloadSeg].ID), err)
		}
	} else {
		src = io.NewSectionReader(r.payload, at, n)
	}
	k, err := io.CopyN(w, src, n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil { // of the file or of w: a kernel that copies does not say
		err = fmt.Errorf("%s: send sample file: %w", name(r.f.segs[r.payloadSeg].ID), err)
	}
	return k, err
}

// at finds what is at a position within the file: bytes in memory, or a
// stretch of the open payload.
func (r *Reader) at(pos int64) ([]byte, piece, error) {
	if r.closed {
		return nil, piece{}, os.ErrClosed
	}
	f := r.f
	s := &f.sections[sort.Search(len(f.sections), func(i int) bool { return f.sections[i].end > pos })]
	if s.table == static {
		return s.static[pos-s.start:], piece{}, nil
	}
	i := sort.Search(len(f.segs)-1, func(i int) bool { return s.start+f.place(s.table, &f.segs[i+1]) > pos })
	at := s.start + f.place(s.table, &f.segs[i])
	t := s.table
	want := f.place(t, &f.segs[i+1]) - f.place(t, &f.segs[i])
	if t == samples {
		if t, want = cues, f.segs[i].cueBytes(); pos-at >= want {
			p, err := r.sample(i, pos-at)
			return nil, p, err
		}
	}
	if r.ofTable != t || r.ofSeg != i {
		r.ofTable = static
		r.block = r.block[:0]
		if err := r.make(t, i); err != nil {
			return nil, piece{}, fmt.Errorf("%s: %w", name(f.segs[i].ID), err)
		}
		if int64(len(r.block)) != want {
			return nil, piece{}, fmt.Errorf("%s: %w: table %d has %d bytes, the row says %d",
				name(f.segs[i].ID), media.ErrIndex, t, len(r.block), want)
		}
		r.ofTable, r.ofSeg, r.blockAt = t, i, at
	}
	return r.block[pos-r.blockAt:], piece{}, nil
}

// sample finds the stretch of segment i's sample file that is off bytes into
// its samples, and opens the file.
func (r *Reader) sample(i int, off int64) (piece, error) {
	id := r.f.segs[i].ID
	if err := r.locate(i); err != nil {
		return piece{}, fmt.Errorf("%s: %w", name(id), err)
	}
	if r.payload == nil || r.payloadSeg != i {
		if err := r.closePayload(); err != nil {
			return piece{}, fmt.Errorf("%s: close sample file: %w", name(r.f.segs[r.payloadSeg].ID), err)
		}
		p, err := r.f.segs[i].Open()
		if err != nil {
			return piece{}, fmt.Errorf("%s: %w", name(id), err)
		}
		r.payload, r.payloadSeg = p, i
	}
	ps := r.pieces.pieces
	k := sort.Search(len(ps), func(k int) bool { return ps[k].at+ps[k].n > off })
	if k == len(ps) {
		return piece{}, fmt.Errorf("%s: %w: no sample at byte %d", name(id), media.ErrIndex, off)
	}
	skip := off - ps[k].at
	return piece{at: off, file: ps[k].file + skip, n: ps[k].n - skip}, nil
}

// playback returns the indexes of segment i.
func (r *Reader) playback(i int) (Playback, error) {
	c := &r.cache[i%len(r.cache)]
	if c.seg != i+1 {
		p, err := r.f.segs[i].Playback()
		if err != nil {
			return Playback{}, err
		}
		c.seg, c.Playback = i+1, p
	}
	return c.Playback, nil
}
