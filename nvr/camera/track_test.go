package camera

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph264"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph265"
	"github.com/bluenviron/gortsplib/v5/pkg/sdpunmarshaler"
	"github.com/google/go-cmp/cmp"
	"github.com/pion/rtp"

	"holdfast/nvr/media"
)

const (
	sps264 = "6742c028d900780227e584000003000400000300f03c60c920"
	pps264 = "68ebe3cb22c0"
	// interlaced: frame_mbs_only_flag 0, and no reordering by its profile bits
	spsFields = "674d4028ab603c0223ef01100000030010000003032e9400356406b285080ee2c522c0"
	vps265    = "40010c01ffff01600000030090000003000003003fba024"
	sps265    = "420101016000000300b0000003000003005da00280802d1636b924cbf0080000030008000003019508"
	pps265    = "4401c172b42240"
)

// feed is a track and what came out of it.
type feed struct {
	*videoTrack
	t     *testing.T
	seq   uint16
	ts    uint32
	ssrc  uint32
	units []media.AccessUnit
	got   []string // each unit as the hex of its NAL units
}

func newFeed(t *testing.T, c codec) *feed {
	f := &feed{t: t, seq: 65530, ts: 4294960000, ssrc: 7}
	f.videoTrack = newTrack(c, func(u media.AccessUnit) error {
		f.units = append(f.units, u)
		if u.Kind == media.Audio {
			return nil
		}
		var nals []string
		for b := u.Data; len(b) > 0; {
			n := int(binary.BigEndian.Uint32(b))
			nals, b = append(nals, hex.EncodeToString(b[4:4+n])), b[4+n:]
		}
		if u.Key {
			nals = append([]string{"key"}, nals...)
		}
		f.got = append(f.got, strings.Join(nals, " "))
		return nil
	})
	return f
}

// send sends a packet, given in hex; a * behind it is the marker.
func (f *feed) send(payloads ...string) {
	f.t.Helper()
	for _, p := range payloads {
		p, marker := strings.CutSuffix(p, "*")
		f.packet(&rtp.Packet{
			Header:  rtp.Header{Version: 2, SSRC: f.ssrc, SequenceNumber: f.seq, Timestamp: f.ts, Marker: marker},
			Payload: unhex(f.t, strings.ReplaceAll(p, " ", "")),
		})
		f.seq++
	}
}

// next sends a packet of the next picture.
func (f *feed) next(payloads ...string) {
	f.t.Helper()
	f.ts += 3000
	f.send(payloads...)
}

func (f *feed) lose() { f.seq++ }

func (f *feed) want(units ...string) {
	f.t.Helper()
	f.session.mu.Lock()
	f.rest()
	f.session.mu.Unlock()
	if diff := cmp.Diff(units, f.got); diff != "" {
		f.t.Errorf("units (-want +got):\n%s", diff)
	}
	if e := f.session.cause; e != nil {
		f.t.Errorf("the session ended: %v", e.Problem)
	}
}

func TestPacketsToAccessUnits264(t *testing.T) {
	const (
		key   = "6588aabb" // a whole IDR slice; first_mb_in_slice 0
		key2  = "65488899" // its second slice
		delta = "419acc01"
		part  = "41489902" // another slice of the same picture
	)
	begin := func(f *feed) { f.next(sps264, pps264, key+"*") }
	tests := []struct {
		name string
		run  func(f *feed)
		want []string
	}{
		{"single NAL units", func(f *feed) {
			begin(f)
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"STAP-A", func(f *feed) {
			f.next("78 0019" + sps264 + "0006" + pps264 + "0004" + key + "*")
			f.next("78 0004" + delta + "0000*") // padding
		}, []string{"key " + key, delta}},
		{"STAP-A cut short", func(f *feed) {
			begin(f)
			f.next("78 0004" + delta + "0005 41*")
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"FU-A", func(f *feed) {
			begin(f)
			f.next("5c 81 9a", "5c 01 cc", "5c 41 01*")
		}, []string{"key " + key, delta}},
		{"FU-A of one packet (CostarHD)", func(f *feed) {
			begin(f)
			f.next("5c c1 9acc01*")
		}, []string{"key " + key, delta}},
		{"FU-A without an end bit", func(f *feed) {
			begin(f)
			f.next("5c 81 9a", "5c 01 cc01*")
			f.next(delta + "*")
		}, []string{"key " + key, delta, delta}},
		{"SEI stays, parameter sets go", func(f *feed) {
			f.next(sps264, pps264, "0605018080", key+"*")
			f.next("0605018080", delta+"*")
		}, []string{"key 0605018080 " + key, "0605018080 " + delta}},
		{"nothing before the first key", func(f *feed) {
			f.next(delta + "*")
			f.next(delta + "*")
			begin(f)
		}, []string{"key " + key}},
		{"no marker (FLIR)", func(f *feed) {
			f.next(sps264, pps264, key)
			f.next(delta)
			f.next(delta)
			f.next(delta + "*")
		}, []string{"key " + key, delta, delta, delta}},
		{"marker behind SEI alone (Ivel)", func(f *feed) {
			begin(f)
			f.next("0605018080*", delta+"*")
			f.next(delta + "*")
		}, []string{"key " + key, delta, delta}},
		{"parameter sets with a marker of their own", func(f *feed) {
			f.next(sps264+"*", pps264+"*", key+"*")
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"parameter sets under an older timestamp", func(f *feed) {
			begin(f)
			f.send(sps264, pps264)
			f.next(key + "*")
		}, []string{"key " + key, "key " + key}},
		{"marker behind every slice", func(f *feed) {
			f.next(sps264+"*", pps264+"*", key+"*", key2+"*")
			f.next(delta+"*", part+"*", part+"*")
			f.next(delta+"*", part+"*")
		}, []string{"key " + key + " " + key2, delta + " " + part + " " + part, delta + " " + part}},
		{"several slices", func(f *feed) {
			f.next(sps264, pps264, key, key2+"*")
			f.next(delta, part, part+"*")
		}, []string{"key " + key + " " + key2, delta + " " + part + " " + part}},
		{"an access unit without a picture", func(f *feed) {
			begin(f)
			f.next("0605018080*")
			f.next("0605018080")
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"no payload", func(f *feed) {
			begin(f)
			f.next("", "*")
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"the packet before once more", func(f *feed) {
			begin(f)
			f.next("5c 81 9a", "5c 01 cc")
			f.seq--
			f.send("5c 01 cc", "5c 41 01*")
		}, []string{"key " + key, delta}},
		{"foreign source", func(f *feed) {
			begin(f)
			f.ts += 3000
			f.send("5c 81 9a")
			seq, ts := f.seq, f.ts
			f.ssrc, f.seq, f.ts = 8, 99, 12345
			f.send(key+"*", "419add99*")
			f.ssrc, f.seq, f.ts = 7, seq, ts
			f.send("5c 41 cc01*")
		}, []string{"key " + key, delta}},

		// Annex B where RTP wants none.
		{"start codes before NAL units", func(f *feed) {
			f.next("00000001"+sps264, "000001"+pps264, "00000001"+key+"*")
			f.next("00000001" + delta + "*")
		}, []string{"key " + key, delta}},
		{"several NAL units with start codes in one packet", func(f *feed) {
			f.next(sps264 + "00000001" + pps264 + "000001" + key + "*")
			f.next("0605018080 000001" + delta + "00000001" + part + "*")
			f.next(delta + "00000001" + part + "*")
		}, []string{"key " + key, "0605018080 " + delta + " " + part, delta + " " + part}},
		{"several NAL units in one FU-A", func(f *feed) {
			all := sps264[2:] + "00000001" + pps264 + "00000001" + key
			f.next("7c 87"+all[:30], "7c 07"+all[30:60], "7c 47"+all[60:]+"*")
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"slices with a start code across two packets, once it is known", func(f *feed) {
			f.next(sps264, pps264, key+"000001"+key2+"*")
			f.next("5c 81 9acc010000", "5c 41 01"+part+"*")
		}, []string{"key " + key + " " + key2, delta + " " + part}},

		// Loss: what is not known to be whole is not handed over.
		{"middle slice lost", func(f *feed) {
			begin(f)
			f.next(delta)
			f.lose()
			f.send(part + "*")
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"first slice lost", func(f *feed) {
			begin(f)
			f.lose()
			f.next(part + "*")
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"packet with the marker lost", func(f *feed) {
			begin(f)
			f.next(delta, part)
			f.lose()
			f.next("09f0", delta+"*")
			f.next(part[:2] + "9a77*")
		}, []string{"key " + key, "09f0 " + delta, "419a77"}},
		{"middle fragment lost", func(f *feed) {
			begin(f)
			f.next(sps264, pps264, "7c 85 88aa")
			f.lose()
			f.send("7c 45 bb*")
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"last fragment lost", func(f *feed) {
			begin(f)
			f.next(sps264, pps264, "7c 85 88aa")
			f.lose()
			f.next("09f0", delta+"*")
			f.next(delta + "*")
		}, []string{"key " + key, "09f0 " + delta, delta}},
		{"whole unit lost: the next may miss its head", func(f *feed) {
			begin(f)
			f.lose()
			f.next(delta + "*")
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"whole unit lost before a key picture", func(f *feed) {
			begin(f)
			f.lose()
			f.next(sps264, pps264, key+"*")
		}, []string{"key " + key, "key " + key}},
		{"sequence numbers begin anew", func(f *feed) {
			begin(f)
			f.seq -= 40000 - 1<<15
			f.next(delta + "*")
			if f.videoTrack.units.lost != 1 {
				f.t.Errorf("%d packets lost", f.videoTrack.units.lost)
			}
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"joined in the middle of a picture", func(f *feed) {
			f.next("5c 01 cc", "5c 41 01*")
			f.next(part + "*")
			begin(f)
		}, []string{"key " + key}},
		{"garbage", func(f *feed) {
			begin(f)
			f.next("5c*")
			f.next("1f00*")
			f.next("00*")
			f.next(delta + "*")
		}, []string{"key " + key, delta}},

		{"recovery point", func(f *feed) {
			f.next(sps264, pps264, "060601c480", "4188aabb*") // recovery_frame_cnt 0, I slice
			f.next("060601c480", delta+"*")                   // not an I slice
			f.next("0606014480", "4188aabb*")                 // recovery_frame_cnt not 0
		}, []string{"key 060601c480 4188aabb", "060601c480 " + delta, "0606014480 4188aabb"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFeed(t, h264)
			tt.run(f)
			f.want(tt.want...)
		})
	}
}

func TestPacketsToAccessUnits265(t *testing.T) {
	const (
		key   = "2601afaabb" // IDR_W_RADL, first slice
		key2  = "260120aabb" // the next one
		delta = "0201d0cc01"
		part  = "020120cc02"
	)
	vps := vps265 + "0"
	begin := func(f *feed) { f.next(vps, sps265, pps265, key+"*") }
	tests := []struct {
		name string
		run  func(f *feed)
		want []string
	}{
		{"single NAL units", func(f *feed) {
			begin(f)
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"AP", func(f *feed) {
			f.next(fmt.Sprintf("6001 %04x%s %04x%s %04x%s", len(vps)/2, vps, len(sps265)/2, sps265, len(pps265)/2, pps265), key+"*")
			f.next("6001 0005" + delta + "0005" + part + "*")
		}, []string{"key " + key, delta + " " + part}},
		{"FU", func(f *feed) {
			begin(f)
			f.next("6201 81 d0", "6201 01 cc", "6201 41 01*")
		}, []string{"key " + key, delta}},
		{"two slices", func(f *feed) {
			f.next(vps, sps265, pps265, key, key2+"*")
			f.next(delta, part+"*")
		}, []string{"key " + key + " " + key2, delta + " " + part}},
		{"middle fragment lost", func(f *feed) {
			begin(f)
			f.next("6201 81 d0")
			f.lose()
			f.send("6201 41 01*")
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
		{"start codes", func(f *feed) {
			f.next("00000001"+vps+"00000001"+sps265, "00000001"+pps265+"000001"+key+"*")
			f.next("000001" + delta + "*")
		}, []string{"key " + key, delta}},
		{"CRA", func(f *feed) {
			f.next(vps, sps265, pps265, "2a01afaabb*")
		}, []string{"key 2a01afaabb"}},
		{"suffix SEI stays", func(f *feed) {
			begin(f)
			f.next(delta, "5001050180*")
		}, []string{"key " + key, delta + " 5001050180"}},
		{"garbage", func(f *feed) {
			begin(f)
			f.next("62*")
			f.next("620181*")
			f.next("7f0100*")
			f.next(delta + "*")
		}, []string{"key " + key, delta}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFeed(t, h265)
			tt.run(f)
			f.want(tt.want...)
		})
	}
}

func TestTwoFieldsAreOneUnit(t *testing.T) {
	f := newFeed(t, h264)
	f.next(spsFields, pps264, "6588aabb", "6588ccdd*")
	f.next("419acc01", "419acc02*")
	f.want("key 6588aabb 6588ccdd", "419acc01 419acc02")
}

func TestWhatEndsASession(t *testing.T) {
	const key, delta = "6588aabb", "419acc01"
	tests := []struct {
		name string
		run  func(f *feed)
		kind Kind
		text string
	}{
		{"a second picture at one time", func(f *feed) {
			f.next(delta+"*", "419acc02*")
		}, BadTimestamps, "decode time went from 3000 to 3000 (picture shown at 3000): B-frames or a camera clock step"},
		{"the same without markers", func(f *feed) {
			f.next(delta, "419acc02")
			f.next(delta)
		}, BadTimestamps, "decode time went from 3000 to 3000 (picture shown at 3000): B-frames or a camera clock step"},
		{"interleaved packets", func(f *feed) { f.next("79 0000") }, Protocol, "video comes in interleaved RTP packets (type 25), which are not supported"},
		{"no parameter sets", func(f *feed) {
			f.begun, f.sets = false, parameterSets{codec: h264}
			for range blindKeys {
				f.next(key + "*")
			}
		}, Protocol, "3 key pictures came without their parameter sets"},
		{"unreadable SPS", func(f *feed) { f.next("6764", "67640028ffffffffffffffff", pps264, key+"*") }, Protocol, "unreadable sequence parameter set 67640028ffffffffffffffff: "},
		{"NAL unit too large", func(f *feed) {
			f.next("5c 81 9a")
			f.packet(&rtp.Packet{Header: rtp.Header{SSRC: 7, SequenceNumber: f.seq, Timestamp: f.ts}, Payload: append([]byte{0x5c, 1}, make([]byte, maxNAL)...)})
		}, Protocol, "a NAL unit is larger than 8 MiB"},
		{"access unit too large", func(f *feed) {
			f.next(delta)
			for range 3 {
				f.packet(&rtp.Packet{Header: rtp.Header{SSRC: 7, SequenceNumber: f.seq, Timestamp: f.ts}, Payload: append([]byte{0x41, 0x40}, make([]byte, maxNAL-100)...)})
				f.seq++
			}
		}, Protocol, "an access unit is larger than 16 MiB"},
		{"too many NAL units", func(f *feed) {
			for range maxNALs + 1 {
				f.send("0605018080")
			}
		}, Protocol, "an access unit has more than 1024 NAL units"},
		{"too many pieces", func(f *feed) {
			f.send("5c 81 9a")
			for range maxParts {
				f.send("5c 01 01")
			}
		}, Protocol, "an access unit comes in more than 32768 pieces"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFeed(t, h264)
			f.next(sps264, pps264, key+"*")
			f.next(delta + "*")
			f.ts -= 3000
			tt.run(f)
			e := f.session.cause
			if e == nil || e.Kind != tt.kind || !strings.HasPrefix(e.Problem, tt.text) {
				t.Errorf("got %+v, want %v: %s", e, tt.kind, tt.text)
			}
			n := len(f.got)
			f.next(key + "*")
			if len(f.got) != n {
				t.Error("a unit came after the end")
			}
		})
	}
}

func TestParameterSetsFromTheDescription(t *testing.T) {
	f := newFeed(t, h264)
	f.describe(spsRole, unhex(t, "00000001"+sps264+"0000")) // as some cameras write it
	f.describe(ppsRole, unhex(t, pps264))
	f.describe(ppsRole, unhex(t, "65"))
	f.next("6588aabb*")
	f.want("key 6588aabb")
	want := &media.SampleEntry{
		Kind: media.Video, Format: "avc1", Codec: "avc1.42c028", Timescale: 90000,
		Config: unhex(t, "0142c028ffe10019"+sps264+"010006"+pps264),
		Width:  1920, Height: 1080, PaspH: 1, PaspV: 1,
	}
	if diff := cmp.Diff(want, f.units[0].Entry); diff != "" {
		t.Error(diff)
	}
}

func TestParameterSetsChange(t *testing.T) {
	const key, delta = "6588aabb", "419acc01"
	other := "67640032ad84010c20086100430802184010c200843b5014005ad370101014000003000400000300a210"
	pps2 := "68ebe3cb22cf" // the same id
	pps1 := "685bc0"       // id 1
	entries := func(f *feed) []int {
		var out []int
		for i, u := range f.units {
			if i == 0 || u.Entry != f.units[i-1].Entry {
				out = append(out, i)
			}
		}
		return out
	}
	t.Run("at a key picture", func(t *testing.T) {
		f := newFeed(t, h264)
		f.next(sps264, pps264, key+"*")
		f.next(delta + "*")
		f.next(sps264, pps264, key+"*") // the same
		f.next(other, pps264, key+"*")
		f.next(delta + "*")
		f.want("key "+key, delta, "key "+key, "key "+key, delta)
		if got := entries(f); !slices.Equal(got, []int{0, 3}) || f.units[3].Entry.Width != 2560 {
			t.Errorf("entries began at %v", got)
		}
	})
	t.Run("announced before a picture that is no key", func(t *testing.T) {
		f := newFeed(t, h264)
		f.next(sps264, pps264, key+"*")
		f.next(pps2, delta+"*") // stays in, as no entry has it
		f.next(key + "*")
		f.next(pps2, delta+"*")
		f.want("key "+key, pps2+" "+delta, "key "+key, delta)
		if got := entries(f); !slices.Equal(got, []int{0, 2}) {
			t.Errorf("entries began at %v", got)
		}
	})
	t.Run("one is added", func(t *testing.T) {
		f := newFeed(t, h264)
		f.next(sps264, pps264, key+"*")
		f.next(pps1, key+"*")
		f.next(pps264, key+"*")
		f.want("key "+key, "key "+key, "key "+key)
		if got, want := f.units[1].Entry.Config, unhex(t, "0142c028ffe10019"+sps264+"020006"+pps264+"0003"+pps1); !bytes.Equal(got, want) {
			t.Errorf("config %x, want %x", got, want)
		}
		if got := entries(f); !slices.Equal(got, []int{0, 1}) {
			t.Errorf("entries began at %v", got)
		}
	})
	t.Run("zero bytes behind it are padding", func(t *testing.T) {
		f := newFeed(t, h264)
		f.next(sps264+"0000", pps264, key+"*")
		f.next(sps264, pps264+"00", key+"*")
		f.want("key "+key, "key "+key)
		if got := entries(f); !slices.Equal(got, []int{0}) {
			t.Errorf("entries began at %v", got)
		}
	})
	t.Run("all of them replace all of them", func(t *testing.T) {
		f := newFeed(t, h264)
		f.next(sps264, pps264, key+"*")
		f.next(other, pps1, key+"*")
		f.want("key "+key, "key "+key)
		if got := f.units[1].Entry.Config; bytes.Contains(got, unhex(t, pps264)) || !bytes.Contains(got, unhex(t, pps1)) {
			t.Errorf("config %x", got)
		}
	})
	t.Run("a stray one that is overruled changes nothing", func(t *testing.T) {
		f := newFeed(t, h264)
		f.next(sps264, pps264, key+"*")
		f.next(sps264, pps2, pps264, key+"*")
		f.want("key "+key, "key "+key)
		if got := entries(f); !slices.Equal(got, []int{0}) {
			t.Errorf("entries began at %v", got)
		}
	})
	t.Run("twice in one access unit, the second counts", func(t *testing.T) {
		f := newFeed(t, h264)
		f.next(other, sps264, pps2, pps264, key+"*")
		f.want("key " + key)
		if got, want := f.units[0].Entry.Config, unhex(t, "0142c028ffe10019"+sps264+"010006"+pps264); !bytes.Equal(got, want) {
			t.Errorf("config %x, want %x", got, want)
		}
	})
}

// An old live555 server sends the session before into the new connection.
func TestAnnouncedSourceIsWaitedFor(t *testing.T) {
	const key, delta = "6588aabb", "419acc01"
	f := newFeed(t, h264)
	f.source.announce(7)
	f.ssrc = 8
	f.next("419a99*")
	f.next("419a99")
	f.ssrc, f.seq = 7, 1000
	f.next(sps264, pps264, key+"*")
	f.next(delta + "*")
	f.want("key "+key, delta)

	f = newFeed(t, h264)
	f.source.announce(7)
	f.ssrc = 8
	f.next(sps264, pps264, key+"*")
	f.next(delta + "*")
	f.ssrc = 7
	f.next(delta + "*")
	if e := f.session.cause; e == nil || e.Kind != Protocol {
		t.Errorf("got %v", e)
	}
}

// What the library's encoders make of random access units comes back as it was.
func TestEncodedUnitsComeBack(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, c := range []codec{h264, h265} {
		var encode func([][]byte) ([]*rtp.Packet, error)
		sets := [][]byte{unhex(t, sps264), unhex(t, pps264)}
		if c == h264 {
			e := &rtph264.Encoder{PayloadType: 96, PacketizationMode: 1, SSRC: new(uint32(7)), PayloadMaxSize: 100}
			if err := e.Init(); err != nil {
				t.Fatal(err)
			}
			encode = e.Encode
		} else {
			sets = [][]byte{unhex(t, vps265+"0"), unhex(t, sps265), unhex(t, pps265)}
			e := &rtph265.Encoder{PayloadType: 96, SSRC: new(uint32(7)), PayloadMaxSize: 100}
			if err := e.Init(); err != nil {
				t.Fatal(err)
			}
			encode = e.Encode
		}
		f := newFeed(t, c)
		var want []string
		for i := range 300 {
			var unit [][]byte
			key := i%20 == 0
			if key {
				unit = append(unit, sets...)
			}
			text := ""
			if key {
				text = "key "
			}
			var nals []string
			for j := range 1 + r.IntN(4) {
				nal := make([]byte, 3+r.IntN(400))
				for k := range nal {
					nal[k] = byte(1 + r.IntN(255))
				}
				first := byte(0x80)
				if j > 0 {
					first = 0x40
				}
				switch {
				case c == h264 && key:
					nal[0], nal[1] = 0x65, first|nal[1]&0x3f
				case c == h264:
					nal[0], nal[1] = 0x41, first|nal[1]&0x3f
				case key:
					nal[0], nal[1], nal[2] = 0x26, 1, first|nal[2]&0x3f
				default:
					nal[0], nal[1], nal[2] = 2, 1, first|nal[2]&0x3f
				}
				unit = append(unit, nal)
				nals = append(nals, hex.EncodeToString(nal))
			}
			want = append(want, text+strings.Join(nals, " "))
			packets, err := encode(unit)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range packets {
				p.Timestamp = uint32(i * 3000)
				before := bytes.Clone(p.Payload)
				f.packet(p)
				if !bytes.Equal(before, p.Payload) {
					t.Fatal("a packet was changed")
				}
			}
		}
		f.want(want...)
	}
}

// One allocation a unit: the unit.
func TestOneAllocationAUnit(t *testing.T) {
	w := newWire()
	n := 0
	v := newTrack(h264, func(media.AccessUnit) error { n++; return nil })
	packets := make([]rtp.Packet, len(w.packets))
	second := func() {
		for i, at := range w.packets {
			if err := packets[i].Unmarshal(w.bytes[at : at+int(binary.BigEndian.Uint16(w.bytes[at-2:]))]); err != nil {
				t.Fatal(err)
			}
			v.packet(&packets[i])
		}
		w.next()
	}
	second()
	if got := testing.AllocsPerRun(20, second); got > 30 {
		t.Errorf("%v allocations for 30 units", got)
	}
	if n < 30*21 {
		t.Errorf("%d units: %v", n, v.session.cause)
	}
}

func TestDamageIsLoggedOnceAMinute(t *testing.T) {
	f := newFeed(t, h264)
	var lines bytes.Buffer
	f.session.log = slog.New(slog.NewTextHandler(&lines, nil))
	f.next(sps264, pps264, "6588aabb*")
	for range 100 {
		f.lose()
		f.next("419acc01*")
	}
	if got := strings.Count(lines.String(), "\n"); got != 1 {
		t.Errorf("%d lines:\n%s", got, lines.String())
	}
}

func FuzzVideoPackets(f *testing.F) {
	f.Add(false, unhex(f, "0419"+"0000"+sps264+"0406"))
	f.Add(true, []byte("\x20\x62\x01\x81\xd0"))
	f.Fuzz(func(t *testing.T, isH265 bool, data []byte) {
		c, first := h264, []string{sps264, pps264, "6588aabb"}
		if isH265 {
			c, first = h265, []string{vps265 + "0", sps265, pps265, "2601afaabb"}
		}
		var last int64 = -1
		v := newTrack(c, func(u media.AccessUnit) error {
			if u.DTS <= last || u.DTS > u.PTS || u.Entry == nil || last < 0 && !u.Key || len(u.Data) != cap(u.Data) {
				t.Fatalf("unit %+v after %d", u, last)
			}
			last = u.DTS
			for b := u.Data; len(b) > 0; {
				if len(b) < 4 || len(b)-4 < int(binary.BigEndian.Uint32(b)) {
					t.Fatalf("lengths do not add up: %x", u.Data)
				}
				b = b[4+binary.BigEndian.Uint32(b):]
			}
			return nil
		})
		seq, ts := uint16(0), uint32(0)
		send := func(p []byte, marker bool) {
			v.packet(&rtp.Packet{Header: rtp.Header{SequenceNumber: seq, Timestamp: ts, Marker: marker}, Payload: p})
			seq++
		}
		for i, s := range first {
			send(unhex(t, s), i == len(first)-1)
		}
		// A byte of length and flags, then as many bytes of payload.
		for len(data) > 0 {
			n, flags := int(data[0]&0x1f), data[0]
			data = data[1:]
			n = min(n, len(data))
			if flags&0x20 != 0 {
				ts += 3000
			}
			if flags&0xc0 == 0xc0 {
				seq++
			}
			send(data[:n:n], flags&0x40 != 0)
			data = data[n:]
		}
		v.session.mu.Lock()
		defer v.session.mu.Unlock()
		if !v.session.over {
			v.rest()
		}
		if e := v.session.cause; e != nil && errors.Is(e, errors.ErrUnsupported) {
			t.Error(e)
		}
	})
}

// parsed is a session description as the library reads it.
func parsed(t *testing.T, tracks string) *description.Session {
	t.Helper()
	sd, err := sdpunmarshaler.Unmarshal([]byte("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=x\r\nt=0 0\r\n" + tracks))
	if err != nil {
		t.Fatal(err)
	}
	var d description.Session
	if err := d.Unmarshal2(sd); err != nil {
		t.Fatal(err)
	}
	return &d
}

func (f *feed) sound(ts uint32, payload []byte) {
	f.session.audio.packet(&rtp.Packet{Header: rtp.Header{SSRC: 9, Timestamp: ts, Marker: true}, Payload: payload})
}
