package cameratest

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The reader of fixtures takes plain and fragmented MP4 and QuickTime files as
// phones, cameras and ffmpeg write them. (The one of mediacommon asks for an
// edit list in every track and for exactly one parameter set of each kind.)
// Edit lists are ignored: a fixture plays all its samples, for ever.

// movie is what a file holds that a camera can send.
type movie struct {
	video, audio *track
}

type track struct {
	id        uint32
	timescale uint32
	handler   string
	format    string // type of the sample entry
	config    []byte // avcC, hvcC or AudioSpecificConfig
	samples   []sample

	// Defaults of a fragmented file.
	defDuration, defSize, defFlags uint32
}

type sample struct {
	data     []byte
	duration uint32
	offset   int32
	key      bool
}

// maxSamples bounds the tables of a track: some 19 hours at 30 a second.
const maxSamples = 1 << 21

var errShort = errors.New("box ends too early")

// bytesReader reads big endian numbers; after the end it gives zeros and
// remembers that in short.
type bytesReader struct {
	b     []byte
	short bool
}

func (r *bytesReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.short, r.b = true, nil
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *bytesReader) uint(n int) uint64 {
	var v uint64
	for _, c := range r.take(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (r *bytesReader) u8() byte    { return byte(r.uint(1)) }
func (r *bytesReader) u16() int    { return int(r.uint(2)) }
func (r *bytesReader) u32() uint32 { return uint32(r.uint(4)) }

// eachBox calls f with the boxes of data, one after the other; pos is where the
// box begins within data.
func eachBox(data []byte, f func(typ string, pos int, body []byte) error) error {
	for pos := 0; len(data)-pos >= 8; {
		b := data[pos:]
		size, head := uint64(binary.BigEndian.Uint32(b)), uint64(8)
		typ := string(b[4:8])
		switch size {
		case 0:
			size = uint64(len(b))
		case 1:
			if len(b) < 16 {
				return fmt.Errorf("box %q: %w", typ, errShort)
			}
			size, head = binary.BigEndian.Uint64(b[8:]), 16
		}
		if size < head || size > uint64(len(b)) {
			return fmt.Errorf("box %q at %d: size %d does not fit", typ, pos, size)
		}
		if err := f(typ, pos, b[head:size]); err != nil {
			return err
		}
		pos += int(size)
	}
	return nil
}

func readMovie(file []byte) (*movie, error) {
	var tracks []*track
	seen := false
	err := eachBox(file, func(typ string, pos int, body []byte) error {
		switch typ {
		case "moov":
			seen = true
			return eachBox(body, func(typ string, _ int, body []byte) error {
				switch typ {
				case "trak":
					t := &track{}
					if err := t.read(body, file); err != nil {
						return fmt.Errorf("track %d: %w", t.id, err)
					}
					tracks = append(tracks, t)
				case "mvex":
					return eachBox(body, func(typ string, _ int, body []byte) error {
						if typ == "trex" {
							r := &bytesReader{b: body}
							r.u32()
							id := r.u32()
							r.u32()
							for _, t := range tracks {
								if t.id == id {
									t.defDuration, t.defSize, t.defFlags = r.u32(), r.u32(), r.u32()
								}
							}
						}
						return nil
					})
				}
				return nil
			})
		case "moof":
			return readFragment(body, file, uint64(pos), tracks)
		}
		return nil
	})
	// A file cut short, as by a power cut, still serves with what it has.
	if err != nil && (!seen || len(tracks) == 0) {
		return nil, err
	}
	if !seen {
		return nil, errors.New("not an MP4 file: no moov box")
	}
	m := &movie{}
	for _, t := range tracks {
		switch {
		case len(t.samples) == 0:
		case t.format == "avc1" || t.format == "avc3" || t.format == "hvc1" || t.format == "hev1":
			if m.video == nil {
				m.video = t
			}
		case t.format == "mp4a" && len(t.config) > 0:
			if m.audio == nil {
				m.audio = t
			}
		}
	}
	if m.video == nil {
		return nil, errors.New("no H.264 or H.265 track with samples")
	}
	return m, nil
}

// read reads a trak box. What it does not know it skips.
func (t *track) read(body, file []byte) error {
	type run struct{ first, perChunk, entry uint32 }
	var (
		deltas, offsets [][2]uint32 // count, value
		syncs           []uint32
		hasSyncs        bool
		sizes           []uint32
		chunks          []uint64
		runs            []run
	)
	var walk func(typ string, pos int, body []byte) error
	walk = func(typ string, _ int, body []byte) error {
		r := &bytesReader{b: body}
		count := func(width int) int {
			n := int(r.u32())
			if n > maxSamples || n > len(r.b)/width {
				r.short = true
				return 0
			}
			return n
		}
		switch typ {
		case "mdia", "minf", "stbl":
			return eachBox(body, walk)
		case "tkhd":
			v := r.u8()
			r.take(3)
			if v == 1 {
				r.take(16)
			} else {
				r.take(8)
			}
			t.id = r.u32()
		case "mdhd":
			v := r.u8()
			r.take(3)
			if v == 1 {
				r.take(16)
			} else {
				r.take(8)
			}
			if t.timescale = r.u32(); t.timescale == 0 {
				return errors.New("timescale 0")
			}
		case "hdlr":
			r.take(8)
			t.handler = string(r.take(4))
		case "stsd":
			r.take(8)
			return eachBox(r.b, t.readEntry)
		case "stts":
			r.take(4)
			for range count(8) {
				deltas = append(deltas, [2]uint32{r.u32(), r.u32()})
			}
		case "ctts":
			r.take(4) // version 0 says unsigned, yet writers put negative numbers there too
			for range count(8) {
				offsets = append(offsets, [2]uint32{r.u32(), r.u32()})
			}
		case "stss":
			hasSyncs = true
			r.take(4)
			for range count(4) {
				syncs = append(syncs, r.u32())
			}
		case "stsz":
			r.take(4)
			if size := r.u32(); size != 0 {
				n := r.u32()
				if uint64(n)*uint64(size) > uint64(len(file)) || n > maxSamples {
					return fmt.Errorf("%d samples of %d bytes do not fit", n, size)
				}
				for range n {
					sizes = append(sizes, size)
				}
			} else {
				for range count(4) {
					sizes = append(sizes, r.u32())
				}
			}
		case "stsc":
			r.take(4)
			for range count(12) {
				runs = append(runs, run{r.u32(), r.u32(), r.u32()})
			}
		case "stco":
			r.take(4)
			for range count(4) {
				chunks = append(chunks, uint64(r.u32()))
			}
		case "co64":
			r.take(4)
			for range count(8) {
				chunks = append(chunks, r.uint(8))
			}
		}
		if r.short {
			return fmt.Errorf("box %q: %w", typ, errShort)
		}
		return nil
	}
	if err := eachBox(body, walk); err != nil {
		return err
	}
	if len(sizes) == 0 {
		return nil // fragmented
	}

	t.samples = make([]sample, len(sizes))
	at := func(table [][2]uint32, set func(s *sample, v uint32)) {
		i := 0
		for _, e := range table {
			for range e[0] {
				if i == len(t.samples) {
					return
				}
				set(&t.samples[i], e[1])
				i++
			}
		}
	}
	at(deltas, func(s *sample, v uint32) { s.duration = v })
	at(offsets, func(s *sample, v uint32) { s.offset = int32(v) })
	for i := range t.samples {
		t.samples[i].key = !hasSyncs
	}
	for _, n := range syncs {
		if n > 0 && int(n) <= len(t.samples) {
			t.samples[n-1].key = true
		}
	}
	i := 0
	for c, pos := range chunks {
		for len(runs) > 1 && runs[1].first <= uint32(c+1) {
			runs = runs[1:]
		}
		if len(runs) == 0 {
			return errors.New("no sample to chunk table")
		}
		if runs[0].entry > 1 {
			return errors.New("changes its sample entry, a fixture has one")
		}
		for range runs[0].perChunk {
			if i == len(sizes) {
				break
			}
			end := pos + uint64(sizes[i])
			if end < pos || end > uint64(len(file)) {
				return fmt.Errorf("sample %d ends at %d, the file at %d", i, end, len(file))
			}
			t.samples[i].data = file[pos:end]
			pos = end
			i++
		}
	}
	if i < len(sizes) {
		return fmt.Errorf("%d samples have sizes, %d have places", len(sizes), i)
	}
	return nil
}

// readEntry reads one sample entry; the first that is known is taken.
func (t *track) readEntry(typ string, _ int, body []byte) error {
	if t.format != "" {
		return nil
	}
	skip, want := 78, ""
	switch typ {
	case "avc1", "avc3":
		want = "avcC"
	case "hvc1", "hev1":
		want = "hvcC"
	case "mp4a":
		skip, want = 28, "esds"
		if len(body) >= 10 && t.handler == "soun" {
			switch binary.BigEndian.Uint16(body[8:]) { // QuickTime versions 1 and 2
			case 1:
				skip += 16
			case 2:
				skip += 36
			}
		}
	default:
		return nil
	}
	if len(body) < skip {
		return fmt.Errorf("sample entry %q: %w", typ, errShort)
	}
	var find func(t string, _ int, body []byte) error
	find = func(name string, _ int, body []byte) error {
		switch name {
		case want:
			t.format, t.config = typ, body
		case "wave":
			return eachBox(body, find)
		}
		return nil
	}
	if err := eachBox(body[skip:], find); err != nil {
		return err
	}
	if t.format == "mp4a" {
		t.config = audioConfig(t.config)
	}
	return nil
}

// audioConfig finds the AudioSpecificConfig in an esds box (ISO 14496-1
// section 7.2.6.5); nil when it holds another codec.
func audioConfig(body []byte) []byte {
	r := &bytesReader{b: body}
	r.take(4)
	descriptor := func() (byte, *bytesReader) {
		tag, n := r.u8(), 0
		for range 4 {
			c := r.u8()
			n = n<<7 | int(c&0x7f)
			if c&0x80 == 0 {
				break
			}
		}
		return tag, &bytesReader{b: r.take(min(n, len(r.b)))}
	}
	tag, es := descriptor()
	if tag != 3 {
		return nil
	}
	r = es
	r.take(2)
	flags := r.u8()
	if flags&0x80 != 0 {
		r.take(2)
	}
	if flags&0x40 != 0 {
		r.take(int(r.u8()))
	}
	if flags&0x20 != 0 {
		r.take(2)
	}
	tag, r = descriptor()
	if tag != 4 || r.u8() != 0x40 {
		return nil
	}
	r.take(12)
	tag, r = descriptor()
	if tag != 5 || r.short {
		return nil
	}
	return r.b
}

// readFragment appends the samples of a moof box that begins at pos.
func readFragment(body, file []byte, pos uint64, tracks []*track) error {
	return eachBox(body, func(typ string, _ int, body []byte) error {
		if typ != "traf" {
			return nil
		}
		var t *track
		base, next := pos, pos
		var duration, size, flags uint32
		return eachBox(body, func(typ string, _ int, body []byte) error {
			r := &bytesReader{b: body}
			has := r.u32()
			switch typ {
			case "tfhd":
				id := r.u32()
				for _, c := range tracks {
					if c.id == id {
						t = c
						duration, size, flags = t.defDuration, t.defSize, t.defFlags
					}
				}
				if has&0x1 != 0 {
					base = r.uint(8)
					next = base
				}
				if has&0x2 != 0 && r.u32() > 1 {
					return errors.New("changes its sample entry, a fixture has one")
				}
				if has&0x8 != 0 {
					duration = r.u32()
				}
				if has&0x10 != 0 {
					size = r.u32()
				}
				if has&0x20 != 0 {
					flags = r.u32()
				}
			case "trun":
				if t == nil {
					return nil
				}
				n := r.u32()
				if len(t.samples)+int(n) > maxSamples {
					return errors.New("too many samples")
				}
				if has&0x1 != 0 {
					next = base + uint64(int64(int32(r.u32())))
				}
				first, hasFirst := uint32(0), has&0x4 != 0
				if hasFirst {
					first = r.u32()
				}
				for i := range n {
					d, s, f, offset := duration, size, flags, uint32(0)
					if has&0x100 != 0 {
						d = r.u32()
					}
					if has&0x200 != 0 {
						s = r.u32()
					}
					if has&0x400 != 0 {
						f = r.u32()
					} else if i == 0 && hasFirst {
						f = first
					}
					if has&0x800 != 0 {
						offset = r.u32()
					}
					end := next + uint64(s)
					if r.short || s == 0 || end < next || end > uint64(len(file)) {
						return errShort
					}
					t.samples = append(t.samples, sample{
						data: file[next:end], duration: d, offset: int32(offset), key: f&0x10000 == 0,
					})
					next = end
				}
			}
			if r.short {
				return fmt.Errorf("box %q: %w", typ, errShort)
			}
			return nil
		})
	})
}
