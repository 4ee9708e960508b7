package camera

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"strconv"

	mch264 "github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	mch265 "github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"

	"holdfast/nvr/media"
)

// videoTimescale is the RTP clock of all video.
const videoTimescale = 90000

// maxSide bounds what an SPS may claim of a picture, in pixels.
const maxSide = 16384

// sps is what of a sequence parameter set the session needs.
type sps struct {
	entry media.SampleEntry // without Config

	// reorder is how many pictures may be decoded before one that is shown
	// before them; -1 when the stream does not say.
	reorder    int
	frame      int64 // duration of a picture in 90 kHz where it says so, else 0
	interlaced bool
}

func parseSPS(c codec, raw []byte) (*sps, error) {
	if c == h265 {
		return parseSPS265(raw)
	}
	return parseSPS264(raw)
}

func parseSPS264(raw []byte) (*sps, error) {
	var p mch264.SPS
	if err := p.Unmarshal(raw); err != nil {
		return nil, err
	}
	// The parser leaves these to its caller; beyond them its results, and what
	// the DTS extractor makes of them, overflow.
	switch {
	case p.Log2MaxFrameNumMinus4 > 12, p.Log2MaxPicOrderCntLsbMinus4 > 12:
		return nil, errors.New("log2_max_frame_num or log2_max_pic_order_cnt_lsb is out of range")
	case p.ChromaFormatIdc > 3:
		return nil, errors.New("chroma_format_idc is out of range")
	case p.BitDepthLumaMinus8 > 6, p.BitDepthChromaMinus8 > 6:
		return nil, errors.New("bit depth is out of range")
	case p.PicWidthInMbsMinus1 >= maxSide/16, p.PicHeightInMapUnitsMinus1 >= maxSide/16:
		return nil, errors.New("picture is too large")
	}
	if w := p.FrameCropping; w != nil && (w.LeftOffset > maxSide || w.RightOffset > maxSide || w.TopOffset > maxSide || w.BottomOffset > maxSide) {
		return nil, errors.New("cropping is out of range")
	}
	out := &sps{reorder: -1, interlaced: !p.FrameMbsOnlyFlag}
	out.entry = media.SampleEntry{
		Kind: media.Video, Format: "avc1", Timescale: videoTimescale,
		Codec: fmt.Sprintf("avc1.%02x%02x%02x", raw[1], raw[2], raw[3]),
	}
	if err := out.setSize(p.Width(), p.Height()); err != nil {
		return nil, err
	}

	idc, w, h := uint8(0), uint16(0), uint16(0)
	if v := p.VUI; v != nil {
		if v.AspectRatioInfoPresentFlag {
			idc, w, h = v.AspectRatioIdc, v.SarWidth, v.SarHeight
		}
		if r := v.BitstreamRestriction; r != nil {
			if r.MaxNumReorderFrames > 16 {
				return nil, errors.New("max_num_reorder_frames is out of range")
			}
			out.reorder = int(r.MaxNumReorderFrames)
		}
		if t := v.TimingInfo; t != nil {
			out.setFrame(2*uint64(t.NumUnitsInTick), uint64(t.TimeScale))
		}
	}
	out.setShape(idc, w, h)

	// Without a word in the VUI, reordering is ruled out by the order count that
	// follows decoding, by the baseline profiles, and by intra-only ones.
	intra := p.ConstraintSet3Flag && (p.ProfileIdc == 100 || p.ProfileIdc == 110 || p.ProfileIdc == 122 || p.ProfileIdc == 244)
	if out.reorder < 0 && (p.PicOrderCntType == 2 || p.ProfileIdc == 66 || p.ProfileIdc == 44 || intra) {
		out.reorder = 0
	}
	return out, nil
}

func parseSPS265(raw []byte) (*sps, error) {
	var p mch265.SPS
	if err := p.Unmarshal(raw); err != nil {
		return nil, err
	}
	switch {
	case p.PicWidthInLumaSamples > maxSide, p.PicHeightInLumaSamples > maxSide:
		return nil, errors.New("picture is too large")
	case p.BitDepthLumaMinus8 > 8, p.BitDepthChromaMinus8 > 8:
		return nil, errors.New("bit depth is out of range")
	}
	if w := p.ConformanceWindow; w != nil && (w.LeftOffset > maxSide || w.RightOffset > maxSide || w.TopOffset > maxSide || w.BottomOffset > maxSide) {
		return nil, errors.New("conformance window is out of range")
	}
	out := &sps{interlaced: p.VUI != nil && p.VUI.FieldSeqFlag}
	level := mch264.EmulationPreventionRemove(raw)
	if len(level) < 15 {
		return nil, errors.New("not enough bits")
	}
	out.entry = media.SampleEntry{
		Kind: media.Video, Format: "hvc1", Timescale: videoTimescale,
		Codec: codec265(level[3:15]),
	}
	if err := out.setSize(p.Width(), p.Height()); err != nil {
		return nil, err
	}
	if n := len(p.MaxNumReorderPics); n > 0 {
		if p.MaxNumReorderPics[n-1] > 16 {
			return nil, errors.New("sps_max_num_reorder_pics is out of range")
		}
		out.reorder = int(p.MaxNumReorderPics[n-1])
	}
	idc, w, h := uint8(0), uint16(0), uint16(0)
	if v := p.VUI; v != nil {
		if v.AspectRatioInfoPresentFlag {
			idc, w, h = v.AspectRatioIdc, v.SarWidth, v.SarHeight
		}
		if t := v.TimingInfo; t != nil {
			out.setFrame(uint64(t.NumUnitsInTick), uint64(t.TimeScale))
		}
	}
	out.setShape(idc, w, h)
	return out, nil
}

func (s *sps) setSize(w, h int) error {
	if w <= 0 || h <= 0 || w > maxSide || h > maxSide {
		return errors.New("picture size after cropping is out of range")
	}
	s.entry.Width, s.entry.Height = uint16(w), uint16(h)
	return nil
}

func (s *sps) setFrame(units, scale uint64) {
	if scale == 0 {
		return
	}
	// From 240 to one picture a second; anything else is a field never filled in.
	if d := units * videoTimescale / scale; d >= videoTimescale/240 && d <= videoTimescale {
		s.frame = int64(d)
	}
}

// setShape fills PaspH:PaspV from aspect_ratio_idc (ISO 23091-2 table 8), or
// where the stream leaves it open from what the picture size is known to mean.
func (s *sps) setShape(idc uint8, w, h uint16) {
	e := &s.entry
	e.PaspH, e.PaspV = 1, 1
	switch ratios := [...][2]uint16{
		{}, {1, 1}, {12, 11}, {10, 11}, {16, 11}, {40, 33}, {24, 11}, {20, 11}, {32, 11},
		{80, 33}, {18, 11}, {15, 11}, {64, 33}, {160, 99}, {4, 3}, {3, 2}, {2, 1},
	}; {
	case idc == 255 && w != 0 && h != 0:
		e.PaspH, e.PaspV = w, h
		return
	case idc > 0 && int(idc) < len(ratios):
		e.PaspH, e.PaspV = ratios[idc][0], ratios[idc][1]
		return
	}
	e.PaspH, e.PaspV = knownShape(e.Width, e.Height)
	if e.PaspH == 1 && e.PaspV == 1 {
		e.PaspV, e.PaspH = knownShape(e.Height, e.Width)
	}
}

// knownShape is for sub streams that squeeze a 16:9 picture into an old size and
// do not say so.
func knownShape(w, h uint16) (uint16, uint16) {
	switch [2]uint16{w, h} {
	case [2]uint16{320, 240}, [2]uint16{640, 480}:
		return 4, 3
	case [2]uint16{352, 240}, [2]uint16{704, 480}:
		return 40, 33
	case [2]uint16{640, 352}:
		return 44, 45
	case [2]uint16{720, 480}:
		return 32, 27
	}
	return 1, 1
}

// codec265 is the RFC 6381 name (ISO 14496-15 annex E.3) from the 12 bytes of
// general profile, tier and level.
func codec265(level []byte) string {
	b := []byte("hvc1.")
	if space := level[0] >> 6; space > 0 {
		b = append(b, 'A'+space-1)
	}
	b = strconv.AppendUint(b, uint64(level[0]&0x1f), 10)
	b = append(b, '.')
	b = append(b, fmt.Sprintf("%X", bits.Reverse32(binary.BigEndian.Uint32(level[1:])))...)
	if level[0]&0x20 != 0 {
		b = append(b, ".H"...)
	} else {
		b = append(b, ".L"...)
	}
	b = strconv.AppendUint(b, uint64(level[11]), 10)
	constraints := level[5:11]
	for len(constraints) > 0 && constraints[len(constraints)-1] == 0 {
		constraints = constraints[:len(constraints)-1]
	}
	for _, c := range constraints {
		b = append(b, '.')
		b = append(b, fmt.Sprintf("%X", c)...)
	}
	return string(b)
}

// avcC is the AVCDecoderConfigurationRecord (ISO 14496-15 section 5.3.3.1). The
// first SPS was parsed.
func avcC(spss, ppss [][]byte) ([]byte, error) {
	var p mch264.SPS
	if err := p.Unmarshal(spss[0]); err != nil {
		return nil, err
	}
	b := []byte{1, spss[0][1], spss[0][2], spss[0][3], 0xff, 0xe0 | byte(len(spss))}
	b = appendSets(b, spss)
	b = append(b, byte(len(ppss)))
	b = appendSets(b, ppss)
	switch p.ProfileIdc {
	case 66, 77, 88:
	default:
		b = append(b, 0xfc|byte(p.ChromaFormatIdc), 0xf8|byte(p.BitDepthLumaMinus8), 0xf8|byte(p.BitDepthChromaMinus8), 0)
	}
	return b, nil
}

// hvcC is the HEVCDecoderConfigurationRecord (ISO 14496-15 section 8.3.3.1).
func hvcC(vpss, spss, ppss [][]byte) ([]byte, error) {
	var p mch265.SPS
	if err := p.Unmarshal(spss[0]); err != nil {
		return nil, err
	}
	level := mch264.EmulationPreventionRemove(spss[0])[3:15]
	b := append([]byte{1}, level...)
	b = append(b,
		0xf0, 0, // min_spatial_segmentation_idc: unknown
		0xfc, // parallelismType: unknown
		0xfc|byte(p.ChromaFormatIdc),
		0xf8|byte(p.BitDepthLumaMinus8),
		0xf8|byte(p.BitDepthChromaMinus8),
		0, 0, // avgFrameRate: unknown
	)
	layers := (p.MaxSubLayersMinus1 + 1) & 7 << 3
	if p.TemporalIDNestingFlag {
		layers |= 1 << 2
	}
	b = append(b, layers|3, 3) // 4-byte lengths; three arrays
	for i, sets := range [...][][]byte{vpss, spss, ppss} {
		b = append(b, 0x80|byte(32+i)) // all of them are here: hvc1
		b = binary.BigEndian.AppendUint16(b, uint16(len(sets)))
		b = appendSets(b, sets)
	}
	return b, nil
}

func appendSets(b []byte, sets [][]byte) []byte {
	for _, s := range sets {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	return b
}

// audioEntry describes AAC. An error says in the words of a reason to skip what
// cannot be recorded.
func audioEntry(c *mpeg4audio.AudioSpecificConfig) (*media.SampleEntry, error) {
	channels := uint16(c.ChannelConfig)
	switch {
	case c.ChannelConfig == 7:
		channels = 8
	case c.ChannelConfig == 0 || c.ChannelConfig > 7:
		// The layout stands in a program config element, which the library
		// reads past and does not keep.
		return nil, errors.New("AAC with a channel layout of its own is not recorded")
	}
	if c.SampleRate < 7350 || c.SampleRate > 96000 {
		return nil, fmt.Errorf("AAC at %d Hz is not recorded", c.SampleRate)
	}
	config, err := c.Marshal()
	if err != nil {
		return nil, fmt.Errorf("AAC is not recorded: %w", err)
	}
	object := c.Type
	if c.ExtensionType != 0 {
		object = c.ExtensionType
	}
	return &media.SampleEntry{
		Kind: media.Audio, Format: "mp4a", Codec: fmt.Sprintf("mp4a.40.%d", object),
		Timescale: uint32(c.SampleRate), Config: config,
		Channels: channels, SampleRate: uint32(c.SampleRate),
	}, nil
}

// hexID shortens a parameter set for an error.
func hexID(b []byte) string {
	if len(b) > 16 {
		return hex.EncodeToString(b[:16]) + "…"
	}
	return hex.EncodeToString(b)
}
