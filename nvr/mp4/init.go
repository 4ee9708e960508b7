package mp4

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"strings"

	gomp4 "github.com/abema/go-mp4"

	"holdfast/nvr/media"
)

// The user types of our uuid boxes (ISO 14496-12 section 4.2, sample-file.md).
const (
	aboutUUID    = "\xc1\x8a\xa1\x95\xe8\x6e\x40\xdf\xba\x79\x9b\x19\xcf\x63\x1f\x42"
	fragmentUUID = "\x11\x71\xc4\x78\x70\xfd\x47\xa9\x9b\x4e\xed\x1b\x9a\x8f\xff\x13"
)

// Sample flags (ISO 14496-12 section 8.8.3.1).
const (
	flagsKey   = 0x02000000 // depends on no other sample
	flagsOther = 0x01010000 // depends on others, is not a sync sample
)

// unity is the transformation matrix that changes nothing.
func unity() [9]int32 { return [9]int32{0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000} }

// AppendInit appends ftyp and moov: one video track with id 1, and one audio
// track with id 2 when audio is not nil. With about it is the beginning of a
// sample file; without, an initialisation segment for a browser.
func AppendInit(dst []byte, video, audio *media.SampleEntry, about *About) ([]byte, error) {
	if video == nil || video.Kind != media.Video {
		return nil, errors.New("init segment: no video sample entry")
	}
	if video.Timescale != timescale {
		return nil, fmt.Errorf("init segment: video timescale is %d, not %d", video.Timescale, timescale)
	}
	if audio != nil && audio.Kind != media.Audio {
		return nil, errors.New("init segment: audio sample entry is of another kind")
	}
	b := builder{buf: dst}
	start := len(dst)
	brands := []string{"iso5", "iso6", "mp41"}
	if video.Format == "avc1" {
		brands = append(brands, "avc1")
	}
	b.fileType(brands)
	b.begin("moov")
	b.movieHeader(0, 0, audioTrack+1)
	for _, e := range []*media.SampleEntry{video, audio} {
		if e == nil {
			continue
		}
		b.begin("trak")
		w, h := displaySize(e)
		b.trackHeader(trackOf(e.Kind), 0, 0, w, h)
		b.beginMedia(e, 0, 0)
		b.sampleDescriptions(e)
		b.emptyTables()
		b.endMedia()
		b.end()
	}
	b.begin("mvex")
	for _, e := range []*media.SampleEntry{video, audio} {
		if e != nil {
			b.box(&gomp4.Trex{TrackID: trackOf(e.Kind), DefaultSampleDescriptionIndex: 1})
		}
	}
	b.end()
	crcAt := 0
	if about != nil {
		j, err := json.Marshal(about)
		if err != nil {
			return nil, fmt.Errorf("init segment: %w", err)
		}
		if len(j) > maxAbout {
			return nil, fmt.Errorf("init segment: description of %d bytes, more than %d", len(j), maxAbout)
		}
		b.begin("uuid")
		b.buf = append(b.buf, aboutUUID...)
		b.u32(1 << 24) // version 1, no flags
		crcAt = len(b.buf)
		b.u32(0)
		b.buf = append(b.buf, j...)
		b.end()
	}
	b.end()
	if b.err != nil {
		return nil, fmt.Errorf("init segment: %w", b.err)
	}
	if about != nil {
		be.PutUint32(b.buf[crcAt:], checksum(b.buf[start:]))
	}
	return b.buf, nil
}

// castagnoli is the table of CRC-32C; the library makes it once and has
// hardware do the work.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func trackOf(k media.Kind) uint32 {
	if k == media.Audio {
		return audioTrack
	}
	return videoTrack
}

// fileType appends ftyp; the first brand is the major one.
func (b *builder) fileType(brands []string) {
	f := &gomp4.Ftyp{MajorBrand: [4]byte([]byte(brands[0]))}
	for _, s := range brands {
		f.CompatibleBrands = append(f.CompatibleBrands, gomp4.CompatibleBrandElem{CompatibleBrand: [4]byte([]byte(s))})
	}
	b.box(f)
}

// since1904 is the difference between the epochs of MP4 and of Unix, seconds.
const since1904 = 2_082_844_800

// movieHeader appends mvhd; created is in seconds since 1904, 0 if unknown,
// next is a track id that is free.
func (b *builder) movieHeader(created uint64, duration int64, next uint32) {
	b.box(&gomp4.Mvhd{
		FullBox:        gomp4.FullBox{Version: 1},
		CreationTimeV1: created, ModificationTimeV1: created,
		Timescale: timescale, DurationV1: uint64(duration),
		Rate: 0x10000, Volume: 0x100, Matrix: unity(),
		NextTrackID: next,
	})
}

func (b *builder) trackHeader(id uint32, created uint64, duration int64, width, height uint16) {
	t := &gomp4.Tkhd{
		FullBox:        gomp4.FullBox{Version: 1, Flags: [3]byte{0, 0, 3}}, // enabled, in movie
		CreationTimeV1: created, ModificationTimeV1: created,
		TrackID: id, DurationV1: uint64(duration), Matrix: unity(),
		Width: uint32(width) << 16, Height: uint32(height) << 16,
	}
	if id == audioTrack {
		t.Volume = 0x100
	}
	b.box(t)
}

// displaySize is the size of the picture after its pixels are made square.
func displaySize(e *media.SampleEntry) (w, h uint16) {
	w = e.Width
	if e.PaspH != 0 && e.PaspV != 0 {
		w = uint16(min(math.MaxUint16, (uint32(e.Width)*uint32(e.PaspH)+uint32(e.PaspV)/2)/uint32(e.PaspV)))
	}
	return w, e.Height
}

// beginMedia appends mdia up to stbl, which it leaves open; duration is in
// units of the entry's timescale.
func (b *builder) beginMedia(e *media.SampleEntry, created uint64, duration int64) {
	if e.Kind == media.Audio {
		b.beginMediaOf("soun", "audio", &gomp4.Smhd{}, e.Timescale, created, duration)
	} else {
		b.beginMediaOf("vide", "video", &gomp4.Vmhd{FullBox: gomp4.FullBox{Flags: [3]byte{0, 0, 1}}}, e.Timescale, created, duration)
	}
}

// beginMediaOf is beginMedia for any handler with its media header; nil is the
// null media header (ISO 14496-12 section 12.6.2).
func (b *builder) beginMediaOf(handler, title string, header gomp4.IImmutableBox, timescale uint32, created uint64, duration int64) {
	b.begin("mdia")
	b.box(&gomp4.Mdhd{
		FullBox:        gomp4.FullBox{Version: 1},
		CreationTimeV1: created, ModificationTimeV1: created,
		Timescale: timescale, DurationV1: uint64(duration),
		Language: [3]byte{'u' - 0x60, 'n' - 0x60, 'd' - 0x60},
	})
	b.box(&gomp4.Hdlr{HandlerType: [4]byte([]byte(handler)), Name: title})
	b.begin("minf")
	if header != nil {
		b.box(header)
	} else {
		b.full("nmhd", 0, 0)
		b.end()
	}
	b.begin("dinf")
	b.begin("dref")
	b.payload(&gomp4.Dref{EntryCount: 1})
	b.box(&gomp4.Url{FullBox: gomp4.FullBox{Flags: [3]byte{0, 0, 1}}}) // in this file
	b.end()
	b.end()
	b.begin("stbl")
}

// endMedia ends stbl, minf and mdia.
func (b *builder) endMedia() {
	b.end()
	b.end()
	b.end()
}

// emptyTables appends the sample tables of a fragmented file.
func (b *builder) emptyTables() {
	for _, t := range []string{"stts", "stsc", "stsz", "stco"} {
		b.full(t, 0, 0)
		b.u32(0)
		if t == "stsz" {
			b.u32(0)
		}
		b.end()
	}
}

func (b *builder) sampleDescriptions(entries ...*media.SampleEntry) {
	b.begin("stsd")
	b.payload(&gomp4.Stsd{EntryCount: uint32(len(entries))})
	for _, e := range entries {
		b.sampleEntry(e)
	}
	b.end()
}

func (b *builder) sampleEntry(e *media.SampleEntry) {
	switch e.Format {
	case "avc1", "hvc1":
		config := "avcC"
		if e.Format == "hvc1" {
			config = "hvcC"
		}
		b.begin(e.Format)
		b.payload(&gomp4.VisualSampleEntry{
			SampleEntry:     gomp4.SampleEntry{AnyTypeBox: gomp4.AnyTypeBox{Type: gomp4.StrToBoxType(e.Format)}, DataReferenceIndex: 1},
			Width:           e.Width,
			Height:          e.Height,
			Horizresolution: 72 << 16,
			Vertresolution:  72 << 16,
			FrameCount:      1,
			Depth:           24,
			PreDefined3:     -1,
		})
		b.begin(config)
		b.buf = append(b.buf, e.Config...)
		b.end()
		b.box(&gomp4.PixelAspectRatioBox{
			AnyTypeBox: gomp4.AnyTypeBox{Type: gomp4.BoxTypePasp()},
			HSpacing:   uint32(max(1, e.PaspH)), VSpacing: uint32(max(1, e.PaspV)),
		})
		b.end()
	case "mp4a":
		rate := e.SampleRate << 16
		if e.SampleRate > math.MaxUint16 {
			rate = 0 // does not fit; the timescale of the track says it
		}
		b.begin("mp4a")
		b.payload(&gomp4.AudioSampleEntry{
			SampleEntry:  gomp4.SampleEntry{AnyTypeBox: gomp4.AnyTypeBox{Type: gomp4.BoxTypeMp4a()}, DataReferenceIndex: 1},
			ChannelCount: e.Channels,
			SampleSize:   16,
			SampleRate:   rate,
		})
		b.box(elementaryStream(e.Config))
		b.end()
	default:
		b.fail(fmt.Errorf("sample entry %q is not known", e.Format))
	}
}

// elementaryStream is the esds box of an AudioSpecificConfig
// (ISO 14496-14 section 5.6, ISO 14496-1 section 7.2.6). go-mp4 writes the
// length of a descriptor in four bytes.
func elementaryStream(config []byte) *gomp4.Esds {
	const header = 1 + 4
	specific := uint32(len(config))
	decoder := 13 + header + specific
	return &gomp4.Esds{Descriptors: []gomp4.Descriptor{
		{Tag: gomp4.ESDescrTag, Size: 3 + header + decoder + header + 1, ESDescriptor: &gomp4.ESDescriptor{}},
		{Tag: gomp4.DecoderConfigDescrTag, Size: decoder, DecoderConfigDescriptor: &gomp4.DecoderConfigDescriptor{
			ObjectTypeIndication: 0x40, StreamType: 5, Reserved: true, // MPEG-4 audio
		}},
		{Tag: gomp4.DecSpecificInfoTag, Size: specific, Data: config},
		{Tag: gomp4.SLConfigDescrTag, Size: 1, Data: []byte{2}}, // predefined: MP4 file
	}}
}

// videoCodec is the RFC 6381 name of a decoder configuration, "" when the
// configuration is too short to have one.
func videoCodec(format string, config []byte) string {
	switch {
	case format == "avc1" && len(config) >= 4:
		return fmt.Sprintf("avc1.%02x%02x%02x", config[1], config[2], config[3])
	case format == "hvc1" && len(config) >= 13:
		// ISO 14496-15 Annex E: profile space and profile, compatibility flags
		// from the last to the first, tier and level, constraint bytes.
		var s strings.Builder
		s.WriteString("hvc1.")
		if space := config[1] >> 6; space > 0 {
			s.WriteByte('A' + space - 1)
		}
		tier := 'L'
		if config[1]&0x20 != 0 {
			tier = 'H'
		}
		fmt.Fprintf(&s, "%d.%X.%c%d", config[1]&0x1f, bits.Reverse32(be.Uint32(config[2:])), tier, config[12])
		constraints := config[6:12]
		for len(constraints) > 0 && constraints[len(constraints)-1] == 0 {
			constraints = constraints[:len(constraints)-1]
		}
		for _, c := range constraints {
			fmt.Fprintf(&s, ".%X", c)
		}
		return s.String()
	}
	return ""
}

// audioCodec is the RFC 6381 name of an AudioSpecificConfig, "" when it is too
// short to have one.
func audioCodec(config []byte) string {
	if len(config) < 2 {
		return ""
	}
	object := int(config[0] >> 3)
	if object == 31 { // escape: six more bits
		object = 32 + int(config[0]&7)<<3 + int(config[1]>>5)
	}
	return fmt.Sprintf("mp4a.40.%d", object)
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli()) }
