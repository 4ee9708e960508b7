package mp4

import (
	"fmt"
	"hash/crc32"
	"math"

	"holdfast/nvr/media"
)

// Fragment is one durable step of a recording. The payload of its mdat is all
// video samples in order, then all audio samples.
type Fragment struct {
	ID     int64      // composite id of the recording
	OpenID int32      // the open under which it was written
	Seq    uint32     // from 1 within the recording
	Start  media.Time // best estimate of the recording's start when this was written

	// VideoTime and AudioTime are the decode times of the first samples since
	// the recording's start, in units of each track.
	VideoTime, AudioTime int64

	Video, Audio []media.Sample // either may be empty, not both

	End       bool   // last fragment of the run
	EndReason string // why the run ended, for people; only with End
}

// Sizes of the parts of a fragment, bytes (sample-file.md).
const (
	uuidSize   = 8 + 16 + 4 + 4 + 4 + 8 + 4 + 4 + 8 // without the reason
	crcField   = 8 + 16 + 4                         // place of the CRC in it
	moofSize   = 8 + 16                             // moof with mfhd
	trafSize   = 8 + 20                             // traf with tfdt, without tfhd and trun
	tfhdVideo  = 20
	tfhdAudio  = 24
	trunSize   = 20
	mdatHeader = 8

	// MaxEndReason is the length in bytes up to which a reader takes a reason.
	MaxEndReason = 1024

	maxPayload = math.MaxInt32 - 1<<24 // trun's data offset is signed
)

// trunShape says what a trun tells of each sample beside its size.
type trunShape struct {
	first                     bool // flags of the first sample, the rest has the track's
	durations, offsets, flags bool
}

// size is that of a trun with n samples.
func (s trunShape) size(n int) int {
	row := 4
	for _, has := range [...]bool{s.durations, s.offsets, s.flags} {
		if has {
			row += 4
		}
	}
	size := trunSize + n*row
	if s.first {
		size += 4
	}
	return size
}

// videoShape: only a key sample behind the first one makes flags for each
// sample necessary.
func videoShape(samples []media.Sample) trunShape {
	s := trunShape{first: true, durations: true}
	for i := range samples {
		s.offsets = s.offsets || samples[i].Offset != 0
		s.flags = s.flags || i > 0 && samples[i].Key
	}
	s.first = !s.flags
	return s
}

// audioShape: sounds that all last as long need one duration for all.
func audioShape(samples []media.Sample) (s trunShape) {
	for i := range samples {
		s.durations = s.durations || samples[i].Duration != samples[0].Duration
	}
	return s
}

// sizes are those of a fragment's parts, bytes.
type sizes struct {
	uuid, moof, video, audio int
}

func (f *Fragment) sizes(video, audio trunShape) sizes {
	s := sizes{uuid: uuidSize + len(f.EndReason), moof: moofSize}
	if len(f.Video) > 0 {
		s.moof += trafSize + tfhdVideo + video.size(len(f.Video))
	}
	if len(f.Audio) > 0 {
		s.moof += trafSize + tfhdAudio + audio.size(len(f.Audio))
	}
	for i := range f.Video {
		s.video += int(f.Video[i].Size)
	}
	for i := range f.Audio {
		s.audio += int(f.Audio[i].Size)
	}
	return s
}

// HeaderSize is the number of bytes AppendHeader appends: the uuid box, moof
// and the header of mdat. It depends on the samples (their number, whether
// there are composition offsets, whether all sounds last as long, whether a
// key follows the first picture) and on the length of EndReason only.
func (f *Fragment) HeaderSize() int {
	s := f.sizes(videoShape(f.Video), audioShape(f.Audio))
	return s.uuid + s.moof + mdatHeader
}

// AppendHeader appends all that stands before the payload in the sample file.
// The payload, in one or more pieces, is only summed up: CRC-32C goes over
// header and payload. It allocates nothing but what dst lacks.
func (f *Fragment) AppendHeader(dst []byte, payload ...[]byte) []byte {
	video, audio := videoShape(f.Video), audioShape(f.Audio)
	s := f.sizes(video, audio)
	f.check(s, payload)
	start := len(dst)
	var flags uint32
	if f.End {
		flags = 1
	}
	dst = be.AppendUint32(dst, uint32(s.uuid))
	dst = append(dst, "uuid"...)
	dst = append(dst, fragmentUUID...)
	dst = be.AppendUint32(dst, 1<<24|flags)
	dst = be.AppendUint32(dst, 0) // CRC
	dst = be.AppendUint32(dst, uint32(s.moof+mdatHeader+s.video+s.audio))
	dst = be.AppendUint64(dst, uint64(f.ID))
	dst = be.AppendUint32(dst, uint32(f.OpenID))
	dst = be.AppendUint32(dst, f.Seq)
	dst = be.AppendUint64(dst, uint64(f.Start))
	dst = append(dst, f.EndReason...)
	dst = f.appendMoof(dst, f.Seq, s, video, audio)
	table := castagnoli()
	crc := headerCRC(dst[start:], table)
	for _, p := range payload {
		crc = crc32.Update(crc, table, p)
	}
	be.PutUint32(dst[start+crcField:], crc)
	return dst
}

// headerCRC is the CRC of a fragment up to its payload: everything from the
// version on, but for the CRC itself. What stands before has one legal value.
func headerCRC(header []byte, table *crc32.Table) uint32 {
	crc := crc32.Update(0, table, header[crcField-4:crcField])
	return crc32.Update(crc, table, header[crcField+4:])
}

// AppendMediaSegment appends a whole media segment for a browser (ISO 14496-12
// section 8.16): moof with the given sequence number, and mdat with the
// payload. It has nothing of ours in it, and of f only the samples and their
// times count.
func AppendMediaSegment(dst []byte, seq uint32, f *Fragment, payload ...[]byte) []byte {
	video, audio := videoShape(f.Video), audioShape(f.Audio)
	s := f.sizes(video, audio)
	f.check(s, payload)
	if need := s.moof + mdatHeader + s.video + s.audio; cap(dst)-len(dst) < need {
		dst = append(make([]byte, 0, len(dst)+need), dst...)
	}
	dst = f.appendMoof(dst, seq, s, video, audio)
	for _, p := range payload {
		dst = append(dst, p...)
	}
	return dst
}

// check holds callers to what the format can say.
func (f *Fragment) check(s sizes, payload [][]byte) {
	n := 0
	for _, p := range payload {
		n += len(p)
	}
	switch {
	case len(f.Video)+len(f.Audio) == 0:
		panic("mp4: fragment without samples")
	case n != s.video+s.audio:
		panic(fmt.Sprintf("mp4: payload of %d bytes for samples of %d", n, s.video+s.audio))
	case n > maxPayload:
		panic(fmt.Sprintf("mp4: payload of %d bytes, more than a fragment holds", n))
	case len(f.EndReason) > MaxEndReason || f.EndReason != "" && !f.End:
		panic("mp4: fragment with an end reason that is too long or not at the end")
	}
}

// appendMoof appends moof and the header of mdat.
func (f *Fragment) appendMoof(dst []byte, seq uint32, s sizes, video, audio trunShape) []byte {
	dst = appendBox(dst, s.moof, "moof")
	dst = appendBox(dst, 16, "mfhd")
	dst = be.AppendUint32(dst, 0)
	dst = be.AppendUint32(dst, seq)
	if n := len(f.Video); n > 0 {
		dst = appendTrafVideo(dst, f.VideoTime, video.size(n))
		dst = appendTrun(dst, f.Video, video, s.moof+mdatHeader)
	}
	if n := len(f.Audio); n > 0 {
		dst = appendTrafAudio(dst, f.AudioTime, f.Audio[0].Duration, audio.size(n))
		dst = appendTrun(dst, f.Audio, audio, s.moof+mdatHeader+s.video)
	}
	return appendBox(dst, mdatHeader+s.video+s.audio, "mdat")
}

func appendBox(dst []byte, size int, typ string) []byte {
	return append(be.AppendUint32(dst, uint32(size)), typ...)
}

// appendTrafVideo appends the beginning of traf; truns is the length of what
// follows in it.
func appendTrafVideo(dst []byte, at int64, truns int) []byte {
	dst = appendBox(dst, trafSize+tfhdVideo+truns, "traf")
	dst = appendBox(dst, tfhdVideo, "tfhd")
	dst = be.AppendUint32(dst, tfhdBaseIsMoof|tfhdFlags)
	dst = be.AppendUint32(dst, videoTrack)
	dst = be.AppendUint32(dst, flagsOther)
	return appendTfdt(dst, at)
}

func appendTrafAudio(dst []byte, at int64, duration int32, truns int) []byte {
	dst = appendBox(dst, trafSize+tfhdAudio+truns, "traf")
	dst = appendBox(dst, tfhdAudio, "tfhd")
	dst = be.AppendUint32(dst, tfhdBaseIsMoof|tfhdDuration|tfhdFlags)
	dst = be.AppendUint32(dst, audioTrack)
	dst = be.AppendUint32(dst, uint32(duration))
	dst = be.AppendUint32(dst, flagsKey)
	return appendTfdt(dst, at)
}

func appendTfdt(dst []byte, at int64) []byte {
	dst = appendBox(dst, 20, "tfdt")
	dst = be.AppendUint32(dst, 1<<24)
	return be.AppendUint64(dst, uint64(at))
}

// Flags of tfhd and trun (ISO 14496-12 sections 8.8.7, 8.8.8).
const (
	tfhdDuration   = 0x000008
	tfhdFlags      = 0x000020
	tfhdBaseIsMoof = 0x020000

	trunDataOffset = 0x001
	trunFirstFlags = 0x004
	trunDurations  = 0x100
	trunSizes      = 0x200
	trunFlags      = 0x400
	trunOffsets    = 0x800
)

func appendTrun(dst []byte, samples []media.Sample, s trunShape, dataOffset int) []byte {
	flags := uint32(trunDataOffset | trunSizes)
	if s.first {
		flags |= trunFirstFlags
	}
	if s.durations {
		flags |= trunDurations
	}
	if s.flags {
		flags |= trunFlags
	}
	if s.offsets {
		flags |= trunOffsets
	}
	dst = appendBox(dst, s.size(len(samples)), "trun")
	dst = be.AppendUint32(dst, 1<<24|flags) // version 1: offsets are signed
	dst = be.AppendUint32(dst, uint32(len(samples)))
	dst = be.AppendUint32(dst, uint32(dataOffset))
	if s.first {
		dst = be.AppendUint32(dst, sampleFlags(samples[0].Key))
	}
	for i := range samples {
		if s.durations {
			dst = be.AppendUint32(dst, uint32(samples[i].Duration))
		}
		dst = be.AppendUint32(dst, uint32(samples[i].Size))
		if s.flags {
			dst = be.AppendUint32(dst, sampleFlags(samples[i].Key))
		}
		if s.offsets {
			dst = be.AppendUint32(dst, uint32(samples[i].Offset))
		}
	}
	return dst
}

func sampleFlags(key bool) uint32 {
	if key {
		return flagsKey
	}
	return flagsOther
}
