package camera

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"testing"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// spsTests are sequence parameter sets of real encoders, as in the tests of
// mediacommon. The comments say what of the VUI the results come from.
var spsTests = []struct {
	name          string
	codec         codec
	raw           string
	name6381      string
	width, height uint16
	paspH, paspV  uint16
	reorder       int
	frame         int64
	interlaced    bool
}{
	// pic_order_cnt_type 2
	{"352x288", h264, "6764000cac3b50b04b420000030002000003003d08", "avc1.64000c", 352, 288, 1, 1, 0, 6000, false},
	// max_num_reorder_frames 2
	{"1280x720", h264, "6764001facd9405005bb016c80000003008000001e078c18cb", "avc1.64001f", 1280, 720, 1, 1, 2, 3000, false},
	{"baseline", h264, "6742c028d900780227e584000003000400000300f03c60c920", "avc1.42c028", 1920, 1080, 1, 1, 0, 3000, false},
	{"nvidia", h264, "67640028acd940780227e584000003000400000300f03c60c658", "avc1.640028", 1920, 1080, 1, 1, 2, 3000, false},
	// frame_mbs_only_flag 0, no bitstream_restriction
	{"interlaced", h264, "67640029ac133140780447de03ea020203e0000003002000000652", "avc1.640029", 1920, 1080, 1, 1, -1, 3600, true},
	{"hikvision", h264, "67640020ac172a01401e68400001c2000057e421", "avc1.640020", 1280, 960, 1, 1, -1, 3600, false},
	{"scaling matrix", h264, "67640032ad84010c20086100430802184010c200843b5014005ad370101014000003000400000300a210", "avc1.640032", 2560, 1440, 1, 1, 0, 4500, false},
	{"nvenc hrd", h264, "6764002aac2cac0780227e5c05a808080a000007d00003a981c000004c4b00002625adde5c14", "avc1.64002a", 1920, 1080, 1, 1, -1, 1500, false},
	{"hikvision hrd", h264, "674d00299a6403c0113f2e02dc04040500000303e80000c350e86000bab40002eac4bbcb8d0c00175680005d58977970a0", "avc1.4d0029", 1920, 1080, 1, 1, -1, 3600, false},
	// the Reolink kind of SPS, with bytes behind its end
	{"hikvision, bytes behind", h264, "67640020ac172a01401e68400001c2000057e421aabbcc", "avc1.640020", 1280, 960, 1, 1, -1, 3600, false},

	{"1920x1080", h265, "420101016000000300900000030000030078a003c08010e596666924cae010000003001000000301e080", "hvc1.1.6.L120.90", 1920, 1080, 1, 1, 2, 3000, false},
	{"1920x800", h265, "420101016000000300900000030000030078a003c08032165959a4932bc05a80808082000007d20000bb8010", "hvc1.1.6.L120.90", 1920, 800, 1, 1, 2, 3753, false},
	{"range extensions", h265, "420101040800000300980800000300005d9000501005a2294b7494985ffe00020002d404040410000003001000000301e080", "hvc1.4.10.L93.98.8", 1280, 720, 1, 1, 0, 3000, false},
	{"10 bit, high tier", h265, "420101222000000300900000030000030078a003c08010e4d96666924caf0101000003006400000bb508", "hvc1.2.4.H120.90", 1920, 1080, 1, 1, 2, 3003, false},
	{"nvenc", h265, "4201010140000003000003000003000003007ba003c0801107cb96b4a42592e3016a02020208000003000800000301e3002ef2880007270c0000989682", "hvc1.1.2.L123", 1920, 1080, 1, 1, 0, 1500, false},
	{"avigilon", h265, "420101016000000300800000030000030096a001802006c1fe36bbb5377725d602dc0404041000003e800004268721dee510016e200066ff000b71000337f880", "hvc1.1.6.L150.80", 3072, 1728, 1, 1, 0, 5294, false},
	{"long term", h265, "420101016000000300b0000003000003005da00280802d1636b924cbf0080000030008000003019508", "hvc1.1.6.L93.B0", 1280, 720, 1, 1, 0, 1800, false},
}

func TestSPSOfRealEncoders(t *testing.T) {
	for _, tt := range spsTests {
		t.Run(tt.codec.String()+" "+tt.name, func(t *testing.T) {
			p, err := parseSPS(tt.codec, unhex(t, tt.raw))
			if err != nil {
				t.Fatal(err)
			}
			format := "avc1"
			if tt.codec == h265 {
				format = "hvc1"
			}
			want := media.SampleEntry{
				Kind: media.Video, Format: format, Codec: tt.name6381, Timescale: 90000,
				Width: tt.width, Height: tt.height, PaspH: tt.paspH, PaspV: tt.paspV,
			}
			if diff := cmp.Diff(want, p.entry); diff != "" {
				t.Error(diff)
			}
			if p.reorder != tt.reorder || p.frame != tt.frame || p.interlaced != tt.interlaced {
				t.Errorf("reorder %d, frame %d, interlaced %v; want %d, %d, %v", p.reorder, p.frame, p.interlaced, tt.reorder, tt.frame, tt.interlaced)
			}
		})
	}
}

// The library hands on fields that its own DTS extractor cannot take.
func TestSPSOutOfRangeIsRefused(t *testing.T) {
	made := func(frameNum, order, width, crop uint32) []byte {
		w := bitWriter{}
		w.bits(0x6742c028, 32)
		w.golomb(0) // id
		w.golomb(frameNum)
		w.golomb(0) // pic_order_cnt_type
		w.golomb(order)
		w.golomb(1) // max_num_ref_frames
		w.bits(0, 1)
		w.golomb(width)
		w.golomb(44) // height in macroblocks - 1
		w.bits(0b111, 3)
		w.golomb(crop)
		w.golomb(0)
		w.golomb(0)
		w.golomb(0)
		w.bits(0b01, 2)
		return append(w.b, 0x80)
	}
	if p, err := parseSPS(h264, made(12, 12, 79, 1)); err != nil || p.entry.Width != 1278 || p.entry.Height != 720 {
		t.Errorf("%+v, %v", p, err)
	}
	for name, raw := range map[string][]byte{
		"frame_num":     made(13, 0, 79, 0),
		"order count":   made(0, 13, 79, 0),
		"width":         made(0, 0, 1024, 0),
		"crop to none":  made(0, 0, 79, 640),
		"crop overflow": made(0, 0, 79, 1<<31),
	} {
		if p, err := parseSPS(h264, raw); err == nil {
			t.Errorf("%s: %+v", name, p.entry)
		}
	}
}

func TestShapeOfPixels(t *testing.T) {
	tests := []struct {
		width, height uint16
		idc           uint8
		sarW, sarH    uint16
		paspH, paspV  uint16
	}{
		{1920, 1080, 0, 0, 0, 1, 1},
		{704, 576, 2, 0, 0, 12, 11},
		{704, 480, 1, 0, 0, 1, 1}, // said to be square: no guess
		{640, 480, 16, 0, 0, 2, 1},
		{640, 480, 255, 32, 27, 32, 27},
		{640, 480, 255, 0, 27, 4, 3}, // nonsense counts as not said
		{640, 480, 17, 0, 0, 4, 3},   // reserved
		{320, 240, 0, 0, 0, 4, 3},
		{352, 240, 0, 0, 0, 40, 33},
		{640, 352, 0, 0, 0, 44, 45},
		{640, 480, 0, 0, 0, 4, 3},
		{704, 480, 0, 0, 0, 40, 33},
		{720, 480, 0, 0, 0, 32, 27},
		{480, 704, 0, 0, 0, 33, 40},
		{240, 320, 0, 0, 0, 3, 4},
		{480, 720, 0, 0, 0, 27, 32},
	}
	for _, tt := range tests {
		var s sps
		s.entry.Width, s.entry.Height = tt.width, tt.height
		s.setShape(tt.idc, tt.sarW, tt.sarH)
		if s.entry.PaspH != tt.paspH || s.entry.PaspV != tt.paspV {
			t.Errorf("%dx%d, idc %d %d:%d: got %d:%d, want %d:%d", tt.width, tt.height, tt.idc, tt.sarW, tt.sarH,
				s.entry.PaspH, s.entry.PaspV, tt.paspH, tt.paspV)
		}
	}
}

// box finds the body of a box in a file, wherever it stands.
func box(t *testing.T, file, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(b, []byte(name))
	if i < 4 {
		t.Fatalf("%s has no %s", file, name)
	}
	return b[i+4 : i-4+int(binary.BigEndian.Uint32(b[i-4:]))]
}

// sets reads n parameter sets with their lengths.
func sets(b []byte, n int) (out [][]byte, rest []byte) {
	for range n {
		size := int(binary.BigEndian.Uint16(b))
		out, b = append(out, b[2:2+size]), b[2+size:]
	}
	return out, b
}

// What we make of the parameter sets is, byte for byte, what ffmpeg made.
func TestAvcCIsThatOfFFmpeg(t *testing.T) {
	for _, name := range []string{"harbour", "harbour-sub", "orchard", "dunes", "dunes-sub"} {
		want := box(t, "cameratest/fixtures/"+name+".mp4", "avcC")
		spss, rest := sets(want[6:], int(want[5]&0x1f))
		ppss, _ := sets(rest[1:], int(rest[0]))
		got, err := avcC(spss, ppss)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v\ngot  %x\nwant %x", name, err, got, want)
		}
	}
}

func TestHvcCIsThatOfFFmpeg(t *testing.T) {
	for _, name := range []string{"meadow", "meadow-sub"} {
		want := bytes.Clone(box(t, "cameratest/fixtures/"+name+".mp4", "hvcC"))
		var all [3][][]byte
		rest := want[23:]
		for i := range all {
			rest[0] |= 0x80 // ffmpeg does not claim that the array is complete
			all[i], rest = sets(rest[3:], int(binary.BigEndian.Uint16(rest[1:])))
		}
		got, err := hvcC(all[0], all[1], all[2])
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v\ngot  %x\nwant %x", name, err, got, want)
		}
	}
}

func TestAudioEntry(t *testing.T) {
	tests := []struct {
		config string // AudioSpecificConfig
		want   *media.SampleEntry
		err    string
	}{
		{"1190", &media.SampleEntry{Kind: media.Audio, Format: "mp4a", Codec: "mp4a.40.2", Timescale: 48000, Config: []byte{0x11, 0x90}, Channels: 2, SampleRate: 48000}, ""},
		{"1408", &media.SampleEntry{Kind: media.Audio, Format: "mp4a", Codec: "mp4a.40.2", Timescale: 16000, Config: []byte{0x14, 0x08}, Channels: 1, SampleRate: 16000}, ""},
		{"11b8", &media.SampleEntry{Kind: media.Audio, Format: "mp4a", Codec: "mp4a.40.2", Timescale: 48000, Config: []byte{0x11, 0xb8}, Channels: 8, SampleRate: 48000}, ""},
		{"1180", nil, "AAC with a channel layout of its own is not recorded"},
		{"1780000008", nil, "AAC at 0 Hz is not recorded"},
	}
	for _, tt := range tests {
		var c mpeg4audio.AudioSpecificConfig
		if err := c.Unmarshal(unhex(t, tt.config)); err != nil {
			t.Fatalf("%s: %v", tt.config, err)
		}
		got, err := audioEntry(&c)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || text != tt.err {
			t.Errorf("%s: %q, want %q\n%s", tt.config, text, tt.err, diff)
		}
	}
}

func FuzzParseSPS(f *testing.F) {
	for _, tt := range spsTests {
		f.Add(tt.codec == h265, unhex(f, tt.raw))
	}
	f.Fuzz(func(t *testing.T, isH265 bool, raw []byte) {
		c := h264
		if isH265 {
			c = h265
		}
		for r := range roles {
			setID(c, r, raw)
		}
		p, err := parseSPS(c, raw)
		if err != nil {
			return
		}
		e := p.entry
		if e.Width == 0 || e.Height == 0 || e.PaspH == 0 || e.PaspV == 0 || p.reorder < -1 || p.reorder > 16 || p.frame < 0 {
			t.Errorf("%+v", p)
		}
		one := [][]byte{raw}
		if c == h265 {
			_, err = hvcC(one, one, one)
		} else {
			_, err = avcC(one, one)
		}
		if err != nil {
			t.Error(err)
		}
	})
}
