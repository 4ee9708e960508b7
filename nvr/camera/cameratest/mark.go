package cameratest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"time"
)

// Mark is what the camera writes before each picture, as a user data SEI
// (ITU-T H.264 and H.265, user_data_unregistered):
//
//	NAL header (06, or 4e 01) | 05 | 58 | "holdfast frame 1" | 72 hex digits | 80
//
// The digits spell, big endian: stream 4 bytes, frame 8, picture 4, fixture 4,
// start 4, sent 8 (nanoseconds since 1970), CRC-32 of these 4. As text the mark
// needs no emulation prevention, so it stands in the stream, in a sample file
// and in a hex dump as the same bytes.
type Mark struct {
	Stream  uint32    // of camera c (from 1): main 2c-1, sub 2c
	Frame   uint64    // counts the pictures of the stream since the server started, sent or not
	Picture uint32    // which picture of the fixture it is, from 0, in decode order
	Fixture uint32    // Fixture.ID of the fixture it is from
	Start   uint32    // differs from one start of the camera to the next
	Sent    time.Time // wall clock when the picture was handed to the network
}

const (
	markUUID   = "holdfast frame 1"
	markFields = 4 + 8 + 4 + 4 + 4 + 8 + 4
	markSize   = len(markUUID) + 2*markFields
)

// appendNAL appends the mark as a NAL unit without start code or length.
func (m *Mark) appendNAL(dst []byte, c codec) []byte {
	if c == h265 {
		dst = append(dst, 39<<1, 1)
	} else {
		dst = append(dst, 6)
	}
	dst = append(dst, 5, byte(markSize))
	dst = append(dst, markUUID...)
	var b [markFields]byte
	binary.BigEndian.PutUint32(b[0:], m.Stream)
	binary.BigEndian.PutUint64(b[4:], m.Frame)
	binary.BigEndian.PutUint32(b[12:], m.Picture)
	binary.BigEndian.PutUint32(b[16:], m.Fixture)
	binary.BigEndian.PutUint32(b[20:], m.Start)
	binary.BigEndian.PutUint64(b[24:], uint64(m.Sent.UnixNano()))
	binary.BigEndian.PutUint32(b[32:], crc32.ChecksumIEEE(b[:32]))
	dst = hex.AppendEncode(dst, b[:])
	return append(dst, 0x80)
}

// parseMark reads a NAL unit; ok is false when it is not a whole mark.
func parseMark(nal []byte) (m Mark, ok bool) {
	head := 1
	switch {
	case len(nal) > 2 && nal[0] == 6:
	case len(nal) > 2 && nal[0] == 39<<1 && nal[1] == 1:
		head = 2
	default:
		return m, false
	}
	nal = nal[head:]
	if len(nal) != 2+markSize+1 || nal[0] != 5 || nal[1] != byte(markSize) || nal[2+markSize] != 0x80 {
		return m, false
	}
	digits, found := bytes.CutPrefix(nal[2:2+markSize], []byte(markUUID))
	if !found {
		return m, false
	}
	var b [markFields]byte
	if _, err := hex.Decode(b[:], digits); err != nil || binary.BigEndian.Uint32(b[32:]) != crc32.ChecksumIEEE(b[:32]) {
		return m, false
	}
	m.Stream = binary.BigEndian.Uint32(b[0:])
	m.Frame = binary.BigEndian.Uint64(b[4:])
	m.Picture = binary.BigEndian.Uint32(b[12:])
	m.Fixture = binary.BigEndian.Uint32(b[16:])
	m.Start = binary.BigEndian.Uint32(b[20:])
	m.Sent = time.Unix(0, int64(binary.BigEndian.Uint64(b[24:])))
	return m, true
}

// FindMark returns the mark of an access unit whose NAL units stand each behind
// a 4-byte length, as in media.AccessUnit.Data and in a sample file. It serves
// H.264 and H.265. An access unit without a whole mark gives false.
func FindMark(data []byte) (Mark, bool) {
	for len(data) >= 4 {
		n := int64(binary.BigEndian.Uint32(data))
		if n > int64(len(data)-4) {
			break
		}
		if m, ok := parseMark(data[4 : 4+n]); ok {
			return m, true
		}
		data = data[4+n:]
	}
	return Mark{}, false
}
