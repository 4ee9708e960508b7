package mp4

import (
	"fmt"
	"math"
	"strings"

	"holdfast/nvr/media"
)

// section is a stretch of the file: bytes that are there, or a table that is
// made when it is read.
type section struct {
	start, end int64
	table      table
	static     []byte // of table static
}

// table says what a section consists of. A table is made segment by segment;
// place tells where the part of a segment begins.
type table uint8

const (
	static table = iota
	videoTimes
	videoOffsets
	videoKeys
	videoSizes
	videoChunks
	videoPlaces
	audioTimes
	audioSizes
	audioChunks
	audioPlaces
	textTimes
	textChunks
	textPlaces
	videoRuns // the truns of a media segment
	audioRuns
	samples // the payload: of each segment its cues, then its samples
	cues    // never a section: the cues of one segment, made within samples
)

// Sizes of rows, bytes.
const (
	timesRow  = 8
	keysRow   = 4
	sizesRow  = 4
	chunksRow = 12
	placesRow = 8
)

// place is where the part of segment s begins in a table, bytes. Every length
// follows from it.
func (f *File) place(t table, s *segment) int64 {
	switch t {
	case videoTimes, videoOffsets:
		return s.videoAt * timesRow
	case videoKeys:
		return s.keyAt * keysRow
	case videoSizes:
		return s.videoAt * sizesRow
	case videoChunks:
		return s.videoChunkAt * chunksRow
	case videoPlaces:
		return s.videoChunkAt * placesRow
	case audioTimes:
		return s.audioAt * timesRow
	case audioSizes:
		return s.audioAt * sizesRow
	case audioChunks:
		return s.audioChunkAt * chunksRow
	case audioPlaces:
		return s.audioChunkAt * placesRow
	case textTimes:
		return s.cueAt * timesRow
	case textChunks:
		return s.before * chunksRow
	case textPlaces:
		return s.before * placesRow
	case videoRuns:
		shape := f.runShape(media.Video)
		return s.videoChunkAt*trunSize + s.videoAt*int64(shape.size(1)-trunSize)
	case audioRuns:
		shape := f.runShape(media.Audio)
		return s.audioChunkAt*trunSize + s.audioAt*int64(shape.size(1)-trunSize)
	case samples:
		return s.dataAt
	}
	panic(fmt.Sprintf("mp4: table %d has no places", t))
}

// runShape is that of all truns of a track in a media segment.
func (f *File) runShape(k media.Kind) trunShape {
	if k == media.Audio {
		return trunShape{durations: true}
	}
	return trunShape{durations: true, flags: true, offsets: f.offsets}
}

// layoutBuilder builds all of the file but its tables.
type layoutBuilder struct {
	builder
	f   *File
	cut int // buf up to here is in sections
}

// table appends a table that is made on demand.
func (b *layoutBuilder) table(t table) {
	b.flush()
	n := b.f.place(t, b.f.total())
	if n > 0 {
		b.f.sections = append(b.f.sections, section{start: b.pos(), end: b.pos() + n, table: t})
	}
	b.elided += n
}

// flush makes a section of the bytes since the last one. They may still be
// patched.
func (b *layoutBuilder) flush() {
	if n := len(b.buf) - b.cut; n > 0 {
		b.f.sections = append(b.f.sections, section{start: b.pos() - int64(n), end: b.pos()})
	}
	b.cut = len(b.buf)
}

// finish hands the bytes to the static sections.
func (b *layoutBuilder) finish() {
	b.flush()
	rest := b.buf
	for i := range b.f.sections {
		if s := &b.f.sections[i]; s.table == static {
			n := s.end - s.start
			s.static, rest = rest[:n:n], rest[n:]
		}
	}
	b.f.size = b.pos()
}

// counted appends a full box that holds a number of entries and a table.
func (b *layoutBuilder) counted(typ string, version uint8, n int64, t table) {
	b.full(typ, version, 0)
	if n > math.MaxUint32 {
		b.fail(fmt.Errorf("%d entries in %s: %w", n, typ, ErrTooLarge))
	}
	if typ == "stsz" {
		b.u32(0) // sizes differ
	}
	b.u32(uint32(n))
	b.table(t)
	b.end()
}

// movieBrands are in the ftyp of each virtual MP4, and of no sample file.
const movieBrands = "isom iso2 iso4 mp41"

// movie lays out ftyp, moov and mdat.
func (b *layoutBuilder) movie() {
	f, all := b.f, b.f.total()
	brands := strings.Fields(movieBrands)
	for _, e := range f.videoEntries {
		if e.Format == "avc1" {
			brands = append(brands, "avc1")
			break
		}
	}
	first := &f.segs[0]
	created := uint64(max(0, first.Start.Add(first.From).Std().Unix()+since1904))
	b.fileType(brands)
	b.begin("moov")
	next := uint32(audioTrack + 1)
	if f.zone != nil {
		next = textTrack + 1
	}
	b.movieHeader(created, all.showAt, next)

	b.begin("trak")
	var w, h uint16
	for _, e := range f.videoEntries {
		ew, eh := displaySize(e)
		w, h = max(w, ew), max(h, eh)
	}
	edits := f.videoEdits()
	b.trackHeader(videoTrack, created, shownBy(edits), w, h)
	b.editList(edits)
	b.beginMedia(f.videoEntries[0], created, all.mediaAt)
	b.sampleDescriptions(f.videoEntries...)
	b.counted("stts", 0, all.videoAt, videoTimes)
	if f.offsets {
		b.counted("ctts", 1, all.videoAt, videoOffsets)
	}
	b.counted("stss", 0, all.keyAt, videoKeys)
	b.counted("stsz", 0, all.videoAt, videoSizes)
	b.counted("stsc", 0, all.videoChunkAt, videoChunks)
	b.counted("co64", 0, all.videoChunkAt, videoPlaces)
	b.endMedia()
	b.end()

	if all.audioAt > 0 {
		b.begin("trak")
		edits := f.audioEdits()
		b.trackHeader(audioTrack, created, shownBy(edits), 0, 0)
		b.editList(edits)
		b.beginMedia(f.audioEntries[0], created, f.soundPos(all.showAt)-f.soundFirst)
		b.sampleDescriptions(f.audioEntries...)
		b.counted("stts", 0, all.audioAt, audioTimes)
		b.counted("stsz", 0, all.audioAt, audioSizes)
		b.counted("stsc", 0, all.audioChunkAt, audioChunks)
		b.counted("co64", 0, all.audioChunkAt, audioPlaces)
		b.endMedia()
		b.end()
	}

	if f.zone != nil {
		b.begin("trak")
		b.trackHeader(textTrack, created, all.showAt, w, h)
		b.beginMediaOf("sbtl", "time", nil, timescale, created, all.showAt)
		b.full("stsd", 0, 0)
		b.u32(1)
		b.timedText(w, h)
		b.end()
		b.counted("stts", 0, all.cueAt, textTimes)
		b.full("stsz", 0, 0)
		b.u32(uint32(cueSize)) // all have this size
		b.u32(uint32(min(all.cueAt, math.MaxUint32)))
		b.end()
		b.counted("stsc", 0, all.before, textChunks)
		b.counted("co64", 0, all.before, textPlaces)
		b.endMedia()
		b.end()
	}
	b.end()

	// mdat with a 64-bit size, also where 32 would do: then the length of the
	// header does not depend on that of the samples.
	b.u32(1)
	b.buf = append(b.buf, "mdat"...)
	b.u64(uint64(16 + all.dataAt))
	f.dataStart = b.pos()
	b.table(samples)
}

// editList appends edts, unless it would say that all is shown as it is.
func (b *layoutBuilder) editList(edits []edit) {
	if len(edits) == 1 && edits[0].media == 0 {
		return
	}
	b.begin("edts")
	b.full("elst", 1, 0)
	b.u32(uint32(len(edits)))
	for _, e := range edits {
		b.u64(uint64(e.duration))
		b.u64(uint64(e.media))
		b.u32(0x10000) // rate 1
	}
	b.end()
	b.end()
}

func shownBy(edits []edit) (d int64) {
	for _, e := range edits {
		d += e.duration
	}
	return d
}

// mediaSegment lays out moof and mdat.
func (b *layoutBuilder) mediaSegment() {
	f, all := b.f, b.f.total()
	b.begin("moof")
	b.full("mfhd", 0, 0)
	b.u32(1)
	b.end()
	b.buf = appendTrafVideo(b.buf, 0, 0)
	b.openTraf(videoRuns)
	if all.audioAt > 0 {
		b.buf = appendTrafAudio(b.buf, f.soundFirst, 0, 0)
		b.openTraf(audioRuns)
	}
	b.end()
	// Safari refuses an mdat with a 64-bit size, and the data offsets of truns
	// are signed.
	if b.pos()+mdatHeader+all.dataAt > math.MaxInt32 {
		b.fail(fmt.Errorf("media segment of %d bytes: %w", b.pos()+mdatHeader+all.dataAt, ErrTooLarge))
	}
	b.buf = appendBox(b.buf, int(mdatHeader+all.dataAt), "mdat")
	f.dataStart = b.pos()
	b.table(samples)
}

// openTraf puts the truns into the traf that was appended without any.
func (b *layoutBuilder) openTraf(t table) {
	n := b.f.place(t, b.f.total())
	size := trafSize + tfhdVideo
	if t == audioRuns {
		size = trafSize + tfhdAudio
	}
	if int64(size)+n > math.MaxInt32 {
		b.fail(ErrTooLarge)
		return
	}
	be.PutUint32(b.buf[len(b.buf)-size:], uint32(int64(size)+n))
	b.table(t)
}
