package cameratest

import (
	"bytes"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"holdfast/nvr/media"

	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph264"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph265"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"github.com/pion/rtp"
)

//go:embed fixtures/*.mp4
var embedded embed.FS

// maxFixture bounds the file of a fixture: it is held in memory.
const maxFixture = 512 << 20

// Names returns the built-in fixtures. Each has a sub stream of its own under
// the name with "-sub" behind it. "meadow" is H.265, "dunes" has B-frames.
func Names() []string { return []string{"harbour", "orchard", "dunes", "meadow"} }

type codec uint8

const (
	h264 codec = iota
	h265
)

func (c codec) String() string {
	if c == h265 {
		return "H.265"
	}
	return "H.264"
}

// nalKind says what a NAL unit is to a camera.
type nalKind uint8

const (
	nalOther nalKind = iota
	nalPicture
	nalParameters
	nalDelimiter
)

func (c codec) kind(nal []byte) nalKind {
	if len(nal) == 0 {
		return nalOther
	}
	if c == h265 {
		switch t := nal[0] >> 1 & 0x3f; {
		case t < 32:
			return nalPicture
		case t <= 34:
			return nalParameters
		case t == 35:
			return nalDelimiter
		}
		return nalOther
	}
	switch t := nal[0] & 0x1f; t {
	case 1, 2, 3, 4, 5:
		return nalPicture
	case 7, 8, 13, 15:
		return nalParameters
	case 9:
		return nalDelimiter
	}
	return nalOther
}

// Fixture is a piece of video, with or without sound, that a camera plays over
// and over. It is read once and shared; nothing changes it. Any goroutine may
// use it.
type Fixture struct {
	Name string
	ID   uint32 // of the content: the same in every process that has the same file

	codec      codec
	parameters [][]byte  // VPS, SPS, PPS
	pictures   []picture // in decode order, the first one a key picture
	times      []int64   // decode time of each picture in 90 kHz, then of the next loop's first
	sound      *sound    // nil: silent
	twin       *Fixture  // what the camera changes to when its parameter sets change

	packets func() [][][]byte // RTP payloads of each picture, built when first sent
}

// picture is one access unit without parameter sets.
type picture struct {
	delimiter []byte   // access unit delimiter, nil without
	nals      [][]byte // everything else, in order
	offset    int64    // PTS - DTS in 90 kHz
	key       bool
}

// sound is the audio loop. Each frame lasts equally long, so the loop has no
// seam, and its length need not be that of the video.
type sound struct {
	config mpeg4audio.AudioSpecificConfig
	rate   int // RTP clock
	step   int // clock units in a frame
	frames [][]byte
}

// LoadFixture returns a fixture by the name of a built-in one, or else by the
// path of an MP4 file with H.264 or H.265 and perhaps AAC. It gives the same
// fixture that a camera with that setting serves as its main stream; see
// (*Server).Fixture for one at hand.
func LoadFixture(name string) (*Fixture, error) {
	base, _ := strings.CutSuffix(name, "-sub")
	if !slices.Contains(Names(), base) {
		return loadFile(name)
	}
	f, err := loadEmbedded(name)
	if err != nil {
		return nil, err
	}
	other := base
	if name == base {
		other += "-sub"
	}
	if f.twin, err = loadEmbedded(other); err != nil {
		return nil, err
	}
	return f, nil
}

func loadEmbedded(name string) (*Fixture, error) {
	data, err := embedded.ReadFile("fixtures/" + name + ".mp4")
	if err != nil {
		return nil, fmt.Errorf("fixture %s: %w", name, err)
	}
	return newFixture(name, data)
}

func loadFile(path string) (*Fixture, error) {
	info, err := os.Stat(path)
	if err != nil {
		if !strings.Contains(path, "/") && filepath.Ext(path) == "" && errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("fixture %q: neither one of %s nor a file", path, strings.Join(Names(), ", "))
		}
		return nil, fmt.Errorf("fixture: %w", err)
	}
	if info.Size() > maxFixture {
		return nil, fmt.Errorf("fixture %s: %d bytes, at most %d", path, info.Size(), maxFixture)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("fixture: %w", err)
	}
	f, err := newFixture(filepath.Base(path), data)
	if err != nil {
		return nil, err
	}
	f.twin = f.relevelled()
	return f, nil
}

// newFixture reads an MP4 file. It keeps data.
func newFixture(name string, data []byte) (*Fixture, error) {
	f, err := readFixture(name, data)
	if err != nil {
		return nil, fmt.Errorf("fixture %s: %w", name, err)
	}
	return f, nil
}

func readFixture(name string, data []byte) (*Fixture, error) {
	m, err := readMovie(data)
	if err != nil {
		return nil, err
	}
	f := &Fixture{Name: name}
	v := m.video
	if v.timescale == 0 {
		return nil, errors.New("video track without a timescale")
	}
	var lengthSize int
	if v.format == "hvc1" || v.format == "hev1" {
		f.codec = h265
		f.parameters, lengthSize = readHVCC(v.config)
	} else {
		f.parameters, lengthSize = readAVCC(v.config)
	}
	if lengthSize == 0 {
		return nil, fmt.Errorf("decoder configuration of %s is damaged", v.format)
	}
	f.parameters = slices.DeleteFunc(f.parameters, func(p []byte) bool { return f.codec.kind(p) != nalParameters })

	var elapsed, total int64 // in units of the track
	last := int64(v.timescale / 25)
	for i := range v.samples {
		s := &v.samples[i]
		step := int64(s.duration)
		if step == 0 {
			step = last // the last sample of a recording may say 0
		}
		if elapsed > math.MaxInt64/90000-step {
			return nil, fmt.Errorf("video sample %d: duration %d is too long", i, step)
		}
		last = step
		p := picture{key: s.key, offset: int64(s.offset) * 90000 / int64(v.timescale)}
		coded := false
		for rest := s.data; len(rest) > 0; {
			n := 0
			if len(rest) >= lengthSize {
				for _, b := range rest[:lengthSize] {
					n = n<<8 | int(b)
				}
			}
			if n < 1 || n > len(rest)-lengthSize || (f.codec == h265 && n < 2) {
				return nil, fmt.Errorf("video sample %d: NAL unit of %d bytes does not fit", i, n)
			}
			nal := rest[lengthSize : lengthSize+n]
			rest = rest[lengthSize+n:]
			switch f.codec.kind(nal) {
			case nalParameters:
				if len(f.pictures) == 0 && !slices.ContainsFunc(f.parameters, func(p []byte) bool { return bytes.Equal(p, nal) }) {
					f.parameters = append(f.parameters, nal)
				}
			case nalDelimiter:
				p.delimiter = nal
			case nalPicture:
				coded = true
				p.nals = append(p.nals, nal)
			default:
				p.nals = append(p.nals, nal)
			}
		}
		// A loop has to begin with a key picture, and time passes only with pictures.
		if !coded || len(f.pictures) == 0 && !p.key {
			continue
		}
		f.pictures = append(f.pictures, p)
		f.times = append(f.times, elapsed*90000/int64(v.timescale))
		elapsed += step
		total = elapsed
	}
	if len(f.pictures) == 0 {
		return nil, errors.New("no key picture")
	}
	if len(f.parameters) == 0 || slices.ContainsFunc(f.parameters, func(p []byte) bool { return len(p) < 2 }) {
		return nil, errors.New("parameter sets are missing or empty")
	}
	f.times = append(f.times, total*90000/int64(v.timescale))
	// RTP times must rise, so two pictures are never nearer than one unit.
	for i := range f.pictures {
		if f.times[i+1] <= f.times[i] {
			f.times[i+1] = f.times[i] + 1
		}
	}
	if m.audio != nil {
		if f.sound, err = readSound(m.audio); err != nil {
			return nil, err
		}
	}
	f.ID = f.checksum()
	f.packets = sync.OnceValue(f.packetize)
	return f, nil
}

func readSound(t *track) (*sound, error) {
	s := &sound{}
	if err := s.config.Unmarshal(t.config); err != nil {
		return nil, fmt.Errorf("audio track: %w", err)
	}
	s.rate, s.step = s.config.SampleRate, mpeg4audio.SamplesPerAccessUnit
	if s.config.FrameLengthFlag {
		s.step = 960
	}
	if s.rate == 0 {
		return nil, errors.New("audio track: sample rate 0")
	}
	for i := range t.samples {
		if n := len(t.samples[i].data); n == 0 || n >= 1<<13 {
			return nil, fmt.Errorf("audio sample %d: %d bytes, RTP takes 1 to 8191", i, n)
		}
		s.frames = append(s.frames, t.samples[i].data)
	}
	return s, nil
}

func readAVCC(b []byte) (sets [][]byte, lengthSize int) {
	r := &bytesReader{b: b}
	r.take(4)
	lengthSize = int(r.u8()&3) + 1
	for range r.u8() & 0x1f {
		sets = append(sets, r.take(r.u16()))
	}
	for range r.u8() {
		sets = append(sets, r.take(r.u16()))
	}
	if r.short {
		return nil, 0
	}
	return sets, lengthSize
}

func readHVCC(b []byte) (sets [][]byte, lengthSize int) {
	r := &bytesReader{b: b}
	r.take(21)
	lengthSize = int(r.u8()&3) + 1
	for range r.u8() {
		r.u8()
		for range r.u16() {
			nal := r.take(r.u16())
			if r.short {
				return nil, 0
			}
			sets = append(sets, nal)
		}
	}
	if r.short {
		return nil, 0
	}
	return sets, lengthSize
}

func (f *Fixture) checksum() uint32 {
	h := crc32.NewIEEE()
	for _, p := range f.parameters {
		h.Write(p)
	}
	for i := range f.pictures {
		for _, n := range f.pictures[i].nals {
			h.Write(n)
		}
	}
	return h.Sum32()
}

// Pictures returns how many pictures the loop has, and its duration.
func (f *Fixture) Pictures() (n int, loop media.Duration) {
	return len(f.pictures), media.Duration(f.times[len(f.pictures)])
}

// IsH265 reports whether the video is H.265; otherwise it is H.264.
func (f *Fixture) IsH265() bool { return f.codec == h265 }

// HasSound reports whether there is an audio track.
func (f *Fixture) HasSound() bool { return f.sound != nil }

// parameterSet returns the first parameter set of an H.264 or H.265 NAL type.
func (f *Fixture) parameterSet(typ byte) []byte {
	for _, p := range f.parameters {
		if f.codec == h264 && p[0]&0x1f == typ || f.codec == h265 && p[0]>>1&0x3f == typ {
			return p
		}
	}
	return nil
}

// relevelled returns the same video with another level in its SPS: for a file
// with no twin, the smallest change that a decoder has to be told of.
func (f *Fixture) relevelled() *Fixture {
	t := *f
	t.parameters = nil
	for _, p := range f.parameters {
		switch {
		case f.codec == h264 && p[0]&0x1f == 7 && len(p) > 3:
			p = slices.Clone(p)
			p[3] = other(p[3], 51, 52)
		case f.codec == h265 && p[0]>>1&0x3f == 33:
			raw := unescape(p)
			if len(raw) > 14 {
				raw[14] = other(raw[14], 183, 186)
			}
			p = escape(raw)
		}
		t.parameters = append(t.parameters, p)
	}
	t.ID = t.checksum()
	t.packets = f.packets // the same pictures
	t.twin = nil
	return &t
}

func other(v, a, b byte) byte {
	if v == a {
		return b
	}
	return a
}

// unescape removes the emulation prevention bytes of a NAL unit, escape puts
// them in (H.264 and H.265 section 7.4.1).
func unescape(nal []byte) []byte {
	out := make([]byte, 0, len(nal))
	zeros := 0
	for _, b := range nal {
		if zeros >= 2 && b == 3 {
			zeros = 0
			continue
		}
		out = append(out, b)
		if b == 0 {
			zeros++
		} else {
			zeros = 0
		}
	}
	return out
}

func escape(raw []byte) []byte {
	out := make([]byte, 0, len(raw)+4)
	zeros := 0
	for _, b := range raw {
		if zeros >= 2 && b <= 3 {
			out = append(out, 3)
			zeros = 0
		}
		out = append(out, b)
		if b == 0 {
			zeros++
		} else {
			zeros = 0
		}
	}
	return out
}

// payloader cuts NAL units into RTP payloads, which do not depend on who
// receives them.
type payloader interface {
	Encode([][]byte) ([]*rtp.Packet, error)
}

func newPayloader(c codec) payloader {
	ssrc, seq := uint32(1), uint16(0) // both are set anew for each receiver
	var err error
	var p payloader
	if c == h265 {
		e := &rtph265.Encoder{PayloadType: videoPayload, SSRC: &ssrc, InitialSequenceNumber: &seq}
		p, err = e, e.Init()
	} else {
		e := &rtph264.Encoder{PayloadType: videoPayload, SSRC: &ssrc, InitialSequenceNumber: &seq, PacketizationMode: 1}
		p, err = e, e.Init()
	}
	if err != nil {
		panic("cameratest: payloader: " + err.Error())
	}
	return p
}

// payloads returns the RTP payloads of the NAL units.
func payloads(p payloader, nals [][]byte) [][]byte {
	packets, err := p.Encode(nals)
	if err != nil {
		panic("cameratest: payloads: " + err.Error())
	}
	out := make([][]byte, len(packets))
	for i := range packets {
		out[i] = packets[i].Payload
	}
	return out
}

func (f *Fixture) packetize() [][][]byte {
	p := newPayloader(f.codec)
	out := make([][][]byte, len(f.pictures))
	for i := range f.pictures {
		out[i] = payloads(p, f.pictures[i].nals)
	}
	return out
}

// head returns the NAL units that go before those of picture i: the delimiter,
// the parameter sets if it is a key picture, and the mark.
func (f *Fixture) head(i int, m *Mark) [][]byte {
	p := &f.pictures[i]
	var nals [][]byte
	if p.delimiter != nil {
		nals = append(nals, p.delimiter)
	}
	if p.key {
		nals = append(nals, f.parameters...)
	}
	return append(nals, m.appendNAL(nil, f.codec))
}

// Verify proves that data is what the camera sent as one access unit: its mark
// whole, and behind it every NAL unit of the picture the mark names, byte for
// byte, none more and none less. Parameter sets within data are passed over, as
// a recorder takes them out; when entry is not nil, its decoder configuration
// has to hold exactly those the picture needs. Data is laid out as in
// media.AccessUnit.
//
// That the marks of one recording follow each other without a hole is for the
// caller to see: Mark.Frame rises by one.
func (f *Fixture) Verify(entry *media.SampleEntry, data []byte) (Mark, error) {
	var got [][]byte
	for rest := data; len(rest) > 0; {
		if len(rest) < 4 {
			return Mark{}, fmt.Errorf("%d bytes are left over at %d", len(rest), len(data)-len(rest))
		}
		n := int64(binary.BigEndian.Uint32(rest))
		if n == 0 || n > int64(len(rest)-4) {
			return Mark{}, fmt.Errorf("NAL unit at %d: %d bytes, %d are left", len(data)-len(rest), n, len(rest)-4)
		}
		nal := rest[4 : 4+n]
		rest = rest[4+n:]
		if f.codec.kind(nal) != nalParameters {
			got = append(got, nal)
		}
	}
	m, ok := FindMark(data)
	if !ok {
		return Mark{}, errors.New("no mark")
	}
	src := f
	if m.Fixture != f.ID {
		src = f.twin
		if src == nil || m.Fixture != src.ID {
			return m, fmt.Errorf("frame %d: from fixture %08x, this is %08x (%s)", m.Frame, m.Fixture, f.ID, f.Name)
		}
	}
	if int(m.Picture) >= len(src.pictures) {
		return m, fmt.Errorf("frame %d: picture %d, %s has %d", m.Frame, m.Picture, src.Name, len(src.pictures))
	}
	p := &src.pictures[m.Picture]
	var want [][]byte
	if p.delimiter != nil {
		want = append(want, p.delimiter)
	}
	want = append(want, m.appendNAL(nil, src.codec))
	want = append(want, p.nals...)
	if len(got) != len(want) {
		return m, fmt.Errorf("frame %d (%s picture %d): %d NAL units, sent were %d", m.Frame, src.Name, m.Picture, len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			return m, fmt.Errorf("frame %d (%s picture %d): NAL unit %d of %d bytes differs from the one sent, of %d",
				m.Frame, src.Name, m.Picture, i, len(got[i]), len(want[i]))
		}
	}
	if entry != nil {
		if err := src.verifyEntry(entry); err != nil {
			return m, fmt.Errorf("frame %d: %w", m.Frame, err)
		}
	}
	return m, nil
}

func (f *Fixture) verifyEntry(entry *media.SampleEntry) error {
	var sets [][]byte
	var lengthSize int
	format := "avc1"
	if f.codec == h265 {
		format = "hvc1"
		sets, lengthSize = readHVCC(entry.Config)
	} else {
		sets, lengthSize = readAVCC(entry.Config)
	}
	if entry.Format != format {
		return fmt.Errorf("sample entry %s, sent was %s", entry.Format, f.codec)
	}
	if lengthSize != 4 {
		return fmt.Errorf("sample entry %s: decoder configuration is damaged or has lengths of %d bytes", entry.Codec, lengthSize)
	}
	for _, want := range f.parameters {
		if !slices.ContainsFunc(sets, func(s []byte) bool { return bytes.Equal(s, want) }) {
			return fmt.Errorf("sample entry %s: lacks parameter set %x", entry.Codec, want)
		}
	}
	sets = slices.DeleteFunc(sets, func(s []byte) bool { return f.codec.kind(s) != nalParameters }) // hvcC may hold SEI
	if len(sets) != len(f.parameters) {
		return fmt.Errorf("sample entry %s: %d parameter sets, sent were %d", entry.Codec, len(sets), len(f.parameters))
	}
	return nil
}

// VerifyAudio proves that frames is an unbroken piece of the endless audio
// loop. It begins at the place that after names, which is what the call before
// returned, or anywhere when after is negative. It returns the place behind the
// last frame. Audio frames carry no number, so a hole that is an exact multiple
// of the loop is not seen; times show it.
func (f *Fixture) VerifyAudio(after int, frames ...[]byte) (int, error) {
	if f.sound == nil {
		return 0, fmt.Errorf("%s has no audio", f.Name)
	}
	loop := f.sound.frames
	from, to := after%len(loop), after%len(loop)+1
	if after < 0 {
		from, to = 0, len(loop)
	}
	best := -1
	for start := from; start < to; start++ {
		n := 0
		for n < len(frames) && bytes.Equal(frames[n], loop[(start+n)%len(loop)]) {
			n++
		}
		if n == len(frames) {
			return (start + n) % len(loop), nil
		}
		best = max(best, n)
	}
	return 0, fmt.Errorf("audio frame %d of %d (%d bytes) is not the one that follows in the loop of %s", best, len(frames), len(frames[best]), f.Name)
}
