package mp4

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strings"

	"holdfast/nvr/media"
)

// Limits of what is read before it is believed, bytes.
const (
	maxFtyp  = 4 << 10
	maxMoov  = 1 << 20
	maxAbout = 64 << 10
	maxMoof  = 4 << 20
)

// ErrNotSampleFile is the kind of every error of ReadSampleFile that is not an
// error of the reader given to it: the file does not begin as a sample file.
var ErrNotSampleFile = errors.New("not a sample file")

// ErrNewer says that a sample file was written by a newer program.
var ErrNewer = errors.New("sample file of a newer program")

// SampleFile is what a sample file holds, up to its first damage.
type SampleFile struct {
	About        About
	Video, Audio *media.SampleEntry // Audio is nil without an audio track
	InitSize     int64              // bytes of ftyp and moov
	Fragments    []FragmentInfo

	Good   int64 // size up to the end of the last whole fragment
	Damage error // why reading stopped before the end; nil at a clean end
}

// FragmentInfo is a fragment with its place in the file, bytes.
type FragmentInfo struct {
	Pos        int64 // of the uuid box
	HeaderSize int64 // up to the payload
	Size       int64 // header and payload
	Fragment
}

// Summary is what a row says of a recording, beside its times.
type Summary struct {
	VideoSamples, KeySamples int
	VideoBytes               int64
	Duration                 media.Duration // of the media
	AudioSamples             int
	AudioBytes               int64
	Fragments                int
	HasOffsets, TrailingZero bool
}

// Playback rebuilds the sample indexes of the recording from its fragments,
// and adds up what its row says.
func (f *SampleFile) Playback() (Playback, Summary) {
	var video, audio media.IndexWriter
	var fragments FragmentIndexWriter
	var last media.Sample
	fragments.Init(f.InitSize)
	for i := range f.Fragments {
		fr := &f.Fragments[i]
		if audio.Samples == 0 && len(fr.Audio) > 0 {
			fragments.AudioStart(fr.AudioTime)
		}
		for _, s := range fr.Video {
			video.Append(s)
			last = s
		}
		for _, s := range fr.Audio {
			audio.Append(s)
		}
		fragments.Append(fr.HeaderSize, len(fr.Video), len(fr.Audio))
	}
	p := Playback{Video: video.Index(), Offsets: video.Offsets(), Audio: audio.Index(), Fragments: fragments.Index()}
	return p, Summary{
		VideoSamples: video.Samples,
		KeySamples:   video.Keys,
		VideoBytes:   video.Bytes,
		Duration:     media.Duration(video.Duration),
		AudioSamples: audio.Samples,
		AudioBytes:   audio.Bytes,
		Fragments:    len(f.Fragments),
		HasOffsets:   p.Offsets != nil,
		TrailingZero: video.Samples > 0 && last.Duration == 0,
	}
}

// ReadSampleFile walks a sample file of the given size and checks every byte
// of it. It returns an error only when the file does not begin as a sample
// file, or r fails there; whatever is wrong behind that ends the walk and is
// told in Damage. A fragment counts only when its checksum holds and it is the
// next one of the very recording and open that the file says it is, so that
// blocks left over from another file never pass.
func ReadSampleFile(r io.ReaderAt, size int64) (*SampleFile, error) {
	f := &SampleFile{}
	if err := f.readInit(r, size); err != nil {
		return nil, err
	}
	f.Good = f.InitSize
	w := walk{f: f, r: r, size: size}
	for f.Good < size && f.Damage == nil {
		if err := w.next(); err != nil {
			if _, ok := errors.AsType[*readError](err); ok {
				return nil, fmt.Errorf("read sample file: %w", err)
			}
			f.Damage = fmt.Errorf("%s: fragment %d at byte %d: %w", name(f.About.ID()), len(f.Fragments)+1, f.Good, err)
		}
	}
	return f, nil
}

func notSampleFile(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrNotSampleFile, fmt.Errorf(format, args...))
}

// readAt fills b from r at off, and says so when the file is too short.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return &readError{err}
}

// readError is one of the reader, which says nothing about the file.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// readInit reads ftyp and moov.
func (f *SampleFile) readInit(r io.ReaderAt, size int64) error {
	var pos int64
	var init []byte
	for _, want := range []struct {
		typ   string
		limit int64
	}{{"ftyp", maxFtyp}, {"moov", maxMoov}} {
		var h [8]byte
		if size-pos < int64(len(h)) {
			return notSampleFile("%d bytes, no %s", size, want.typ)
		}
		if err := readAt(r, h[:], pos); err != nil {
			return fmt.Errorf("read sample file: %w", err)
		}
		n := int64(be.Uint32(h[:]))
		if want.typ == "ftyp" && string(h[4:]) != "ftyp" {
			return notSampleFile("it is not an MP4 file")
		}
		if string(h[4:]) != want.typ || n < 8 || n > want.limit {
			return notSampleFile("%q of %d bytes where %s belongs", h[4:], n, want.typ)
		}
		if n > size-pos {
			return notSampleFile("%s says %d bytes where %d are left", want.typ, n, size-pos)
		}
		init = append(init, make([]byte, n)...)
		if err := readAt(r, init[pos:], pos); err != nil {
			return fmt.Errorf("read sample file: %w", err)
		}
		pos += n
		f.InitSize = pos
		if want.typ == "ftyp" && bytes.Contains(init, []byte(strings.ReplaceAll(movieBrands, " ", ""))) {
			return notSampleFile("it is a recording as downloaded")
		}
		if want.typ == "moov" {
			if err := f.parseMoov(init, init[pos-n+8:]); errors.Is(err, ErrNewer) {
				return err
			} else if err != nil {
				return fmt.Errorf("%w: %w", ErrNotSampleFile, err)
			}
		}
	}
	return nil
}

func (f *SampleFile) parseMoov(init, moov []byte) error {
	var about []byte
	err := boxes(moov, func(typ string, body []byte) error {
		switch {
		case typ == "trak":
			return f.parseTrack(body)
		case typ == "uuid" && bytes.HasPrefix(body, []byte(aboutUUID)) && about == nil:
			about = body[16:]
		}
		return nil
	})
	if err != nil {
		return err
	}
	if f.Video == nil {
		return errors.New("no video track")
	}
	if len(about) < 8 || len(about) > maxAbout+8 {
		return fmt.Errorf("description of %d bytes", len(about))
	}
	if v := be.Uint32(about); v != 1<<24 {
		return fmt.Errorf("description of version %#08x", v)
	}
	want := be.Uint32(about[4:])
	copy(about[4:8], make([]byte, 4)) // init is ours
	if got := checksum(init); got != want {
		return fmt.Errorf("checksum of ftyp and moov is %08x, not %08x", got, want)
	}
	be.PutUint32(about[4:], want)
	if err := json.Unmarshal(about[8:], &f.About); err != nil {
		return fmt.Errorf("description: %w", err)
	}
	a := &f.About
	if a.Format > AboutFormat {
		return fmt.Errorf("%w: format %d, known up to %d", ErrNewer, a.Format, AboutFormat)
	}
	if a.Format < 1 {
		return fmt.Errorf("format %d", a.Format)
	}
	if a.StreamID < 0 || a.RecordingNo < 0 {
		return fmt.Errorf("recording %d of stream %d", a.RecordingNo, a.StreamID)
	}
	return nil
}

// parseTrack takes the track's sample entry.
func (f *SampleFile) parseTrack(trak []byte) error {
	var id, scale uint32
	var stsd []byte
	var walk func(typ string, body []byte) error
	walk = func(typ string, body []byte) error {
		switch typ {
		case "mdia", "minf", "stbl":
			return boxes(body, walk)
		case "tkhd":
			if len(body) != 96 || body[0] != 1 {
				return fmt.Errorf("%w: tkhd of %d bytes", errBox, len(body))
			}
			id = be.Uint32(body[20:])
		case "mdhd":
			if len(body) != 36 || body[0] != 1 {
				return fmt.Errorf("%w: mdhd of %d bytes", errBox, len(body))
			}
			scale = be.Uint32(body[20:])
		case "stsd":
			stsd = body
		}
		return nil
	}
	if err := boxes(trak, walk); err != nil {
		return err
	}
	if len(stsd) < 8 || be.Uint32(stsd[4:]) != 1 {
		return fmt.Errorf("track %d: not one sample entry", id)
	}
	return boxes(stsd[8:], func(typ string, body []byte) error {
		switch {
		case id == videoTrack && f.Video == nil && scale == timescale:
			e, err := parseVisualEntry(typ, body)
			f.Video = e
			return err
		case id == audioTrack && f.Audio == nil && scale > 0:
			e, err := parseAudioEntry(typ, body, scale)
			f.Audio = e
			return err
		}
		return fmt.Errorf("track %d with timescale %d does not belong here", id, scale)
	})
}

func parseVisualEntry(format string, body []byte) (*media.SampleEntry, error) {
	const fixed = 78 // ISO 14496-12 section 12.1.3, without the box header
	if len(body) < fixed || format != "avc1" && format != "hvc1" {
		return nil, fmt.Errorf("%w: video sample entry %q of %d bytes", errBox, format, len(body))
	}
	e := &media.SampleEntry{
		Kind: media.Video, Format: format, Timescale: timescale,
		Width: be.Uint16(body[24:]), Height: be.Uint16(body[26:]), PaspH: 1, PaspV: 1,
	}
	err := boxes(body[fixed:], func(typ string, body []byte) error {
		switch {
		case typ == "avcC" && format == "avc1", typ == "hvcC" && format == "hvc1":
			e.Config = bytes.Clone(body)
		case typ == "pasp":
			if len(body) != 8 {
				return fmt.Errorf("%w: pasp of %d bytes", errBox, len(body))
			}
			h, v := be.Uint32(body), be.Uint32(body[4:])
			if h == 0 || v == 0 || h > math.MaxUint16 || v > math.MaxUint16 {
				return fmt.Errorf("%w: pixels of %d:%d", errBox, h, v)
			}
			e.PaspH, e.PaspV = uint16(h), uint16(v)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	e.Codec = videoCodec(format, e.Config)
	if e.Codec == "" || e.Width == 0 || e.Height == 0 {
		return nil, fmt.Errorf("%w: video sample entry %q without configuration or size", errBox, format)
	}
	return e, nil
}

func parseAudioEntry(format string, body []byte, scale uint32) (*media.SampleEntry, error) {
	const fixed = 28 // ISO 14496-12 section 12.2.3, without the box header
	if len(body) < fixed || format != "mp4a" {
		return nil, fmt.Errorf("%w: audio sample entry %q of %d bytes", errBox, format, len(body))
	}
	e := &media.SampleEntry{
		Kind: media.Audio, Format: format, Timescale: scale,
		Channels: be.Uint16(body[16:]), SampleRate: be.Uint32(body[24:]) >> 16,
	}
	if e.SampleRate == 0 {
		e.SampleRate = scale
	}
	err := boxes(body[fixed:], func(typ string, body []byte) error {
		if typ == "esds" && len(body) > 4 {
			e.Config = bytes.Clone(specificConfig(body[4:], 0))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	e.Codec = audioCodec(e.Config)
	if e.Codec == "" {
		return nil, fmt.Errorf("%w: audio sample entry without AudioSpecificConfig", errBox)
	}
	return e, nil
}

// specificConfig finds the DecoderSpecificInfo within descriptors
// (ISO 14496-1 section 7.2.6), nil when there is none.
func specificConfig(b []byte, depth int) []byte {
	for len(b) >= 2 && depth < 3 {
		tag := b[0]
		size, i := 0, 1
		for ; i < len(b) && i <= 4; i++ {
			size = size<<7 | int(b[i]&0x7f)
			if b[i]&0x80 == 0 {
				break
			}
		}
		if i >= len(b) || i > 4 || size > len(b)-i-1 {
			return nil
		}
		body := b[i+1 : i+1+size]
		skip := 0
		switch tag {
		case 3: // ES_Descriptor, no optional fields in our files
			skip = 3
		case 4: // DecoderConfigDescriptor
			skip = 13
		case 5:
			return body
		}
		if skip > 0 && len(body) >= skip {
			if c := specificConfig(body[skip:], depth+1); c != nil {
				return c
			}
		}
		b = b[i+1+size:]
	}
	return nil
}

// walk is the state of reading one fragment after the other.
type walk struct {
	f    *SampleFile
	r    io.ReaderAt
	size int64
	buf  []byte // of the payload on its way through the checksum

	duration int64 // of the video so far
	zero     bool  // the last picture has duration 0
	ended    bool  // the last fragment ended the run
}

// next reads the fragment at f.Good and moves Good behind it.
func (w *walk) next() error {
	f := w.f
	if w.ended {
		return fmt.Errorf("%d bytes after the last fragment of the run", w.size-f.Good)
	}
	left := w.size - f.Good
	var u [uuidSize + MaxEndReason]byte
	if left < uuidSize+mdatHeader {
		return fmt.Errorf("%d bytes: %w", left, io.ErrUnexpectedEOF)
	}
	if err := readAt(w.r, u[:uuidSize], f.Good); err != nil {
		return err
	}
	size := int64(be.Uint32(u[:]))
	if string(u[4:8]) != "uuid" || string(u[8:24]) != fragmentUUID {
		return errors.New("no fragment header")
	}
	if size < uuidSize || size > int64(len(u)) {
		return fmt.Errorf("fragment header of %d bytes", size)
	}
	flags := be.Uint32(u[24:])
	if flags&^1 != 1<<24 {
		return fmt.Errorf("fragment header of version and flags %08x", flags)
	}
	fr := FragmentInfo{Pos: f.Good, Fragment: Fragment{
		ID:     int64(be.Uint64(u[36:])),
		OpenID: int32(be.Uint32(u[44:])),
		Seq:    be.Uint32(u[48:]),
		Start:  media.Time(be.Uint64(u[52:])),
		End:    flags&1 != 0,
	}}
	switch covered := int64(be.Uint32(u[32:])); {
	case fr.ID != f.About.ID() || fr.OpenID != f.About.OpenID:
		return fmt.Errorf("is of %s, open %d; the file is of open %d", name(fr.ID), fr.OpenID, f.About.OpenID)
	case int(fr.Seq) != len(f.Fragments)+1:
		return fmt.Errorf("has number %d", fr.Seq)
	case covered < moofSize+mdatHeader || covered > left-size:
		return fmt.Errorf("says %d bytes where %d are left: %w", covered, left-size, io.ErrUnexpectedEOF)
	default:
		fr.Size = size + covered
	}
	if err := readAt(w.r, u[uuidSize:size], f.Good+uuidSize); err != nil {
		return err
	}
	fr.EndReason = string(u[uuidSize:size])
	if fr.EndReason != "" && !fr.End {
		return errors.New("has an end reason, and is not the end")
	}

	var h [8]byte
	if err := readAt(w.r, h[:], f.Good+size); err != nil {
		return err
	}
	moof := int64(be.Uint32(h[:]))
	if string(h[4:]) != "moof" || moof < moofSize || moof > maxMoof || moof > fr.Size-size-mdatHeader {
		return fmt.Errorf("%q of %d bytes where moof belongs", h[4:], moof)
	}
	fr.HeaderSize = size + moof + mdatHeader
	header := make([]byte, fr.HeaderSize)
	if err := readAt(w.r, header, f.Good); err != nil {
		return err
	}
	if err := w.checksum(header, fr.Pos+fr.HeaderSize, fr.Size-fr.HeaderSize, be.Uint32(u[crcField:])); err != nil {
		return err
	}

	// From here on only a faulty writer can be wrong, or somebody malicious.
	mdat := header[size+moof:]
	if string(mdat[4:]) != "mdat" || int64(be.Uint32(mdat)) != fr.Size-size-moof {
		return fmt.Errorf("%q of %d bytes where mdat belongs", mdat[4:], be.Uint32(mdat))
	}
	if err := fr.parseMoof(header[size+8:size+moof], fr.Size-fr.HeaderSize, moof+mdatHeader); err != nil {
		return err
	}
	if err := w.follow(&fr.Fragment); err != nil {
		return err
	}
	f.Fragments = append(f.Fragments, fr)
	f.Good += fr.Size
	return nil
}

// checksum compares the CRC of header and payload with the one written.
func (w *walk) checksum(header []byte, pos, n int64, want uint32) error {
	table := castagnoli()
	crc := headerCRC(header, table)
	if w.buf == nil {
		w.buf = make([]byte, 64<<10)
	}
	for n > 0 {
		b := w.buf[:min(n, int64(len(w.buf)))]
		if err := readAt(w.r, b, pos); err != nil {
			return err
		}
		crc = crc32.Update(crc, table, b)
		pos += int64(len(b))
		n -= int64(len(b))
	}
	if crc != want {
		return fmt.Errorf("checksum is %08x, not %08x", crc, want)
	}
	return nil
}

// follow checks that the fragment can follow the ones before it.
func (w *walk) follow(fr *Fragment) error {
	if len(fr.Audio) > 0 && w.f.Audio == nil {
		return errors.New("has audio, and the file has no audio track")
	}
	for i, s := range fr.Video {
		switch {
		case w.zero:
			return errors.New("follows a picture of duration 0")
		case len(w.f.Fragments) == 0 && i == 0 && !s.Key:
			return errors.New("begins the recording without a key frame")
		case s.Size <= 0 || s.Duration < 0:
			return fmt.Errorf("has a picture of size %d and duration %d", s.Size, s.Duration)
		case w.duration+int64(s.Duration) >= int64(media.MaxRecording):
			return fmt.Errorf("reaches the longest duration of a recording, %v", media.MaxRecording)
		}
		w.zero = s.Duration == 0
		w.duration += int64(s.Duration)
	}
	if len(w.f.Fragments) == 0 && len(fr.Video) == 0 {
		return errors.New("begins the recording without a picture")
	}
	for i, s := range fr.Audio {
		if s.Size <= 0 || s.Duration <= 0 {
			return fmt.Errorf("has sound %d of size %d and duration %d", i, s.Size, s.Duration)
		}
	}
	w.ended = fr.End
	return nil
}

// parseMoof reads the body of moof. The payload's length and its distance from
// the start of moof are known, and have to agree.
func (fr *FragmentInfo) parseMoof(moof []byte, payload, dataOffset int64) error {
	var videoBytes, audioBytes int64
	first := true
	err := boxes(moof, func(typ string, body []byte) error {
		if first != (typ == "mfhd") {
			return fmt.Errorf("%w: %q in moof", errBox, typ)
		}
		if first {
			first = false
			if len(body) != 8 || be.Uint32(body[4:]) != fr.Seq {
				return fmt.Errorf("%w: mfhd does not have number %d", errBox, fr.Seq)
			}
			return nil
		}
		if typ != "traf" {
			return fmt.Errorf("%w: %q in moof", errBox, typ)
		}
		t, err := parseTraf(body)
		if err != nil {
			return err
		}
		var n int64
		for _, s := range t.samples {
			n += int64(s.Size)
		}
		switch {
		case t.id == videoTrack && fr.Video == nil && fr.Audio == nil && t.dataOffset == dataOffset:
			fr.Video, fr.VideoTime, videoBytes = t.samples, t.time, n
		case t.id == audioTrack && fr.Audio == nil && t.dataOffset == dataOffset+videoBytes:
			fr.Audio, fr.AudioTime, audioBytes = t.samples, t.time, n
		default:
			return fmt.Errorf("%w: traf of track %d with its data at %d", errBox, t.id, t.dataOffset)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if videoBytes+audioBytes != payload || payload == 0 {
		return fmt.Errorf("%w: samples of %d and %d bytes in a payload of %d", errBox, videoBytes, audioBytes, payload)
	}
	return nil
}

// traf is one track's part of a moof.
type traf struct {
	id         uint32
	duration   uint32 // default
	flags      uint32 // default
	time       int64
	dataOffset int64
	samples    []media.Sample
}

// parseTraf reads tfhd, tfdt and trun, in the order and with the fields that
// AppendHeader writes.
func parseTraf(body []byte) (*traf, error) {
	t := &traf{}
	var seen string
	err := boxes(body, func(typ string, b []byte) error {
		seen += typ
		if len(b) < 4 {
			return fmt.Errorf("%w: %s of %d bytes", errBox, typ, len(b))
		}
		r := fields{b: b[4:]}
		version, flags := b[0], be.Uint32(b)&0xffffff
		switch seen {
		case "tfhd":
			t.id = r.u32()
			if flags&^uint32(tfhdDuration|tfhdFlags) != tfhdBaseIsMoof {
				return fmt.Errorf("%w: tfhd with flags %06x", errBox, flags)
			}
			if flags&tfhdDuration != 0 {
				t.duration = r.u32()
			}
			if flags&tfhdFlags != 0 {
				t.flags = r.u32()
			}
		case "tfhdtfdt":
			hi, lo := r.u32(), r.u32()
			t.time = int64(hi)<<32 | int64(lo)
			if version != 1 || t.time < 0 || t.time >= 1<<40 {
				return fmt.Errorf("%w: tfdt of version %d with time %d", errBox, version, t.time)
			}
		case "tfhdtfdttrun":
			return t.parseTrun(version, flags, &r)
		default:
			return fmt.Errorf("%w: %q in traf", errBox, typ)
		}
		return r.done(typ)
	})
	if err == nil && len(t.samples) == 0 {
		err = fmt.Errorf("%w: traf without samples", errBox)
	}
	return t, err
}

func (t *traf) parseTrun(version uint8, flags uint32, r *fields) error {
	const known = trunDataOffset | trunFirstFlags | trunDurations | trunSizes | trunFlags | trunOffsets
	if version != 1 || flags&^uint32(known) != 0 || flags&(trunDataOffset|trunSizes) != trunDataOffset|trunSizes {
		return fmt.Errorf("%w: trun of version %d with flags %06x", errBox, version, flags)
	}
	n := int64(r.u32())
	t.dataOffset = int64(int32(r.u32()))
	firstFlags := t.flags
	if flags&trunFirstFlags != 0 {
		firstFlags = r.u32()
	}
	row := int64(4)
	for _, f := range []uint32{trunDurations, trunFlags, trunOffsets} {
		if flags&f != 0 {
			row += 4
		}
	}
	if n*row != int64(len(r.b)) {
		return fmt.Errorf("%w: trun of %d samples has %d bytes for them", errBox, n, len(r.b))
	}
	t.samples = make([]media.Sample, n) // no more than a quarter of moof
	for i := range t.samples {
		d, fl := t.duration, t.flags
		if i == 0 {
			fl = firstFlags
		}
		if flags&trunDurations != 0 {
			d = r.u32()
		}
		size := r.u32()
		if flags&trunFlags != 0 {
			fl = r.u32()
		}
		s := media.Sample{Duration: int32(d), Size: int32(size), Key: fl == flagsKey}
		if flags&trunOffsets != 0 {
			s.Offset = int32(r.u32())
		}
		if s.Size <= 0 || s.Duration < 0 || fl != flagsKey && fl != flagsOther {
			return fmt.Errorf("%w: sample %d has size %d, duration %d, flags %08x", errBox, i, size, d, fl)
		}
		t.samples[i] = s
	}
	return r.done("trun")
}

// fields reads numbers from a box, and remembers when it ran out of bytes.
type fields struct {
	b     []byte
	short bool
}

func (r *fields) u32() uint32 {
	if len(r.b) < 4 {
		r.short = true
		return 0
	}
	v := be.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

func (r *fields) done(typ string) error {
	if r.short || len(r.b) != 0 {
		return fmt.Errorf("%w: %s has the wrong size", errBox, typ)
	}
	return nil
}
