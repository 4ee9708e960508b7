package camera

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
)

const (
	aacTrack      = "m=audio 0 RTP/AVP 97\r\na=rtpmap:97 mpeg4-generic/16000/1\r\na=fmtp:97 streamtype=5;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1408\r\na=control:track2\r\n"
	pcmaTrack     = "m=audio 0 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=control:track2\r\n"
	metadataTrack = "m=application 0 RTP/AVP 107\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\na=control:track3\r\n"
	jpegTrack     = "m=video 0 RTP/AVP 26\r\na=control:track1\r\n"
)

// describe runs a session with a camera of these tracks that sends one second.
func describe(t *testing.T, sdp string, answer map[string]string) (Description, int, error) {
	t.Helper()
	c := newCanned(1)
	c.sdp, c.answer = sdp, answer
	var d Description
	n := 0
	err := Play(context.Background(), Config{
		URL:         "rtsp://10.0.0.7/main",
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}, Handler{
		Described:  func(got Description) { d = got },
		AccessUnit: func(media.AccessUnit) error { n++; return nil },
	})
	return d, n, err
}

func TestWhatIsNotRecordedIsNamed(t *testing.T) {
	aac := &media.SampleEntry{Kind: media.Audio, Format: "mp4a", Codec: "mp4a.40.2", Timescale: 16000, Config: []byte{0x14, 0x08}, Channels: 1, SampleRate: 16000}
	tests := []struct {
		name, sdp string
		answer    map[string]string
		want      Description
	}{
		{"all of it", h264Track + aacTrack, nil, Description{Audio: aac}},
		{"PCMA and metadata", h264Track + pcmaTrack + metadataTrack, nil,
			Description{Skipped: []string{"audio: PCMA is not recorded", "application: vnd.onvif.metadata is not recorded"}}},
		{"static PCMU", h264Track + "m=audio 0 RTP/AVP 0\r\na=control:track2\r\n", nil,
			Description{Skipped: []string{"audio: PCMU is not recorded"}}},
		{"Opus", h264Track + "m=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\n", nil,
			Description{Skipped: []string{"audio: Opus is not recorded"}}},
		{"G.726", h264Track + "m=audio 0 RTP/AVP 97\r\na=rtpmap:97 G726-32/8000\r\n", nil,
			Description{Skipped: []string{"audio: G726 is not recorded"}}},
		{"two of each", h264Track + aacTrack + h264Track + aacTrack, nil,
			Description{Audio: aac, Skipped: []string{"video: a second H.264 track is not recorded", "audio: a second AAC track is not recorded"}}},
		{"channel to the camera", h264Track + strings.Replace(pcmaTrack, "a=control", "a=sendonly\r\na=control", 1), nil,
			Description{Skipped: []string{"audio: PCMA is a channel to the camera"}}},
		{"AAC with a layout of its own", h264Track + strings.Replace(aacTrack, "config=1408", "config=1400", 1), nil,
			Description{Skipped: []string{"audio: AAC with a channel layout of its own is not recorded"}}},
		{"AAC with AU headers that overflow", h264Track + strings.Replace(aacTrack, "sizelength=13", "sizelength=64", 1), nil,
			Description{Skipped: []string{"audio: AAC with such long AU headers is not recorded"}}},
		// The library would refuse the whole description (Dahua's back channel).
		{"AAC without configuration", h264Track + strings.Replace(aacTrack, ";config=1408", "", 1), nil,
			Description{Skipped: []string{"audio: not recorded: config is missing"}}},
		{"a track that is none", h264Track + "m=\r\n", nil,
			Description{Skipped: []string{"audio"}}},
		{"parameter sets that are none", strings.Replace(h264Track, "mode=1", "mode=1;sprop-parameter-sets=!!!,!!!", 1), nil, Description{}},
		{"audio that cannot be set up", h264Track + aacTrack, map[string]string{"SETUP track2": "500 Internal Error"},
			Description{Skipped: []string{"audio: SETUP answered with 500 Internal Error"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, n, err := describe(t, tt.sdp, tt.answer)
			if kindOf(err) != Closed || n != 30 {
				t.Errorf("%d units, %v", n, err)
			}
			if tt.name == "a track that is none" {
				if len(d.Skipped) != 1 {
					t.Errorf("skipped %q", d.Skipped)
				}
				return
			}
			tt.want.Video, tt.want.Transport = "H.264", "tcp"
			if diff := cmp.Diff(tt.want, d); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCamerasThatCannotBeRecorded(t *testing.T) {
	const at = "rtsp://10.0.0.7/main: "
	tests := []struct {
		name, sdp string
		answer    map[string]string
		kind      Kind
		text      string
	}{
		{"JPEG and PCMA", jpegTrack + pcmaTrack, nil, NoVideo, "no H.264 or H.265 video, the camera offers video JPEG, audio PCMA"},
		{"audio alone", aacTrack, nil, NoVideo, "no H.264 or H.265 video, the camera offers audio AAC"},
		{"interleaved H.264", strings.Replace(h264Track, "mode=1", "mode=2", 1), nil, NoVideo, "no H.264 or H.265 video, the camera offers video H.264"},
		{"too many tracks", strings.Repeat(pcmaTrack, maxMedias+1), nil, Protocol, "session description with 17 tracks is too large"},
		{"too long", h264Track + strings.Repeat("a=x\r\n", maxSDP/5), nil, Protocol, fmt.Sprintf("session description of %d bytes is too large", len(h264Track)+maxSDP/5*5+41)},
		{"forbidden", "", map[string]string{"DESCRIBE": "403 Forbidden"}, Unauthorized, "access denied (403)"},
		{"server error", "", map[string]string{"DESCRIBE": "503 Service Unavailable"}, Protocol, "DESCRIBE answered with 503 Service Unavailable"},
		{"video cannot be set up", "", map[string]string{"SETUP": "461 Unsupported Transport"}, NoTransport, "does not send this stream over the transport that is set (461): choose the other of tcp and udp"},
		{"not to be played", "", map[string]string{"PLAY": "455 Method Not Valid\x1b[31m in This State"}, Protocol, "PLAY answered with 455 Method Not Valid [31m in This State"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, n, err := describe(t, tt.sdp, tt.answer)
			wantError(t, err, tt.kind, at+tt.text)
			if n != 0 {
				t.Errorf("%d units", n)
			}
		})
	}
}

// A camera may send us elsewhere once, and with a password only on its own host.
func TestRedirects(t *testing.T) {
	tests := []struct {
		name, user, location string
		times                int
		want                 string // "": it plays
	}{
		{"to another port", "u:s3cret@", "rtsp://10.0.0.7:8554/main", 1, ""},
		{"to another host, without a password", "", "rtsp://10.0.0.8/main", 1, ""},
		{"to another host, with a password", "u:s3cret@", "rtsp://10.0.0.8/main", 1, "redirects to another host, which gets no password"},
		{"for ever", "", "rtsp://10.0.0.7/main", 1000, "redirects more than once"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dials, n := 0, 0
			err := Play(context.Background(), Config{
				URL: "rtsp://" + tt.user + "10.0.0.7/main",
				DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
					c := newCanned(1)
					if dials < tt.times {
						c.answer = map[string]string{"DESCRIBE": "302 Found\r\nLocation: " + tt.location}
					}
					dials++
					return c, nil
				},
			}, Handler{AccessUnit: func(media.AccessUnit) error { n++; return nil }})
			if tt.want == "" {
				if kindOf(err) != Closed || n != 30 {
					t.Errorf("%d units, %v", n, err)
				}
			} else {
				where := ""
				if strings.Contains(tt.want, "another host") {
					where = " to 10.0.0.8:554"
				}
				wantError(t, err, Protocol, "rtsp://10.0.0.7/main"+where+": "+tt.want)
			}
			if dials > 2 {
				t.Errorf("connected %d times", dials)
			}
		})
	}
}

// Fails when an error shows what is a password, or when the URL of a camera is
// the secret, a part of it that lets in.
func TestPasswordsDoNotShow(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"rtsp://u:p@h/x", "rtsp://h/x"},
		{"rtsp://u:p@a@h/x", "rtsp://h/x"},
		{"rtsp://h/user=admin_password=geheim_channel=1.sdp", "rtsp://h/user=***=***"},
		{"rtsp://h/user=a;passwd=b;c", "rtsp://h/user=a;passwd=***;c"},
		{"rtsp://h/h264?usr=a&PWD=b&x=c", "rtsp://h/h264?usr=***&PWD=***&x=***"},
		{"rtsps://192.168.1.1:7441/9xTqBw3kLmZpVr2s?enableSrtp", "rtsps://192.168.1.1:7441/***?enableSrtp"},
		{"rtsp://h/live/0f8fad5b-d9cb-469f-a165-70867728950e/main", "rtsp://h/live/***/main"},
		{"rtsp://h/live?9xTqBw3kLmZpVr2s", "rtsp://h/live?***"},
		{"rtsp://front-door-camera.example.org/Streaming/Channels/101", "rtsp://front-door-camera.example.org/Streaming/Channels/101"},
		{"rtsp://h/?pass=a&passwd=b&password=c", "rtsp://h/?pass=***&passwd=***&password=***"},
		{"rtsp://h/\x1b[0m\n", "rtsp://h/ [0m "},
	} {
		if got := redact(tt.in); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
	// A camera that repeats what it got.
	for url, says := range map[string][2]string{
		"rtsp://10.0.0.7/main":                        {"no such password: s3cret", "rtsp://10.0.0.7/main: DESCRIBE answered with 400 no such password: ***"},
		"rtsp://10.0.0.7/9xTqBw3kLmZpVr2s?key=abcdef": {"no 9xTqBw3kLmZpVr2s with abcdef", "rtsp://10.0.0.7/***?key=***: DESCRIBE answered with 400 no *** with ***"},
		"rtsp://10.0.0.7/x":                           {"what is rtsp://10.0.0.7:554/x, please?", "rtsp://10.0.0.7/x: DESCRIBE answered with 400 what is *** please?"},
	} {
		c := newCanned(1)
		c.answer = map[string]string{"DESCRIBE": "400 " + says[0]}
		err := Play(context.Background(), Config{
			URL: url, Username: "u", Password: "s3cret",
			DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
		}, Handler{})
		wantError(t, err, Protocol, says[1])
	}
}

func TestKindsHaveNames(t *testing.T) {
	seen := make(map[string]bool)
	for k := BadURL; k <= Receiver; k++ {
		if s := k.String(); strings.HasPrefix(s, "kind ") || seen[s] {
			t.Errorf("kind %d is %q", k, s)
		}
		seen[k.String()] = true
	}
	if got := Kind(99).String(); got != "kind 99" {
		t.Errorf("got %q", got)
	}
}

func FuzzMendSDP(f *testing.F) {
	f.Add([]byte("v=0\r\n" + h264Track + aacTrack + metadataTrack))
	f.Fuzz(func(t *testing.T, body []byte) {
		mended, skipped, e := mendSDP(body)
		if e != nil {
			return
		}
		if len(mended) > len(body) || len(skipped) > maxMedias {
			t.Errorf("%d bytes of %d, %d skipped", len(mended), len(body), len(skipped))
		}
		for _, s := range skipped {
			if len(s) > maxProblem+10 || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q", s)
			}
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	f.Add("rtsp://u:p@h:554/x?password=1")
	f.Fuzz(func(t *testing.T, url string) {
		const secret = "s3cr3t"
		if strings.Contains(url, secret) {
			return
		}
		a, e := parseAddress(&Config{URL: "rtsp://u:" + secret + "@" + url})
		shown := ""
		if e != nil {
			shown = e.Error()
		} else {
			shown = a.shown + a.host
		}
		if strings.Contains(shown, secret) {
			t.Errorf("%q shows %q", url, shown)
		}
	})
}

// audioPacket is RFC 3640 with 13 bits of size: frames of the given sizes.
func (f *feed) audioPacket(ts uint32, sizes ...int) {
	payload := []byte{0, byte(16 * len(sizes))}
	for _, n := range sizes {
		payload = append(payload, byte(n>>5), byte(n<<3))
	}
	for i, n := range sizes {
		for range n {
			payload = append(payload, byte(i+1))
		}
	}
	f.sound(ts, payload)
}

func TestAudio(t *testing.T) {
	f := newFeed(t, h264)
	_, e := f.session.choose(parsed(t, h264Track+aacTrack))
	if e != nil {
		t.Fatal(e)
	}
	f.audioPacket(1000, 10) // before the first picture
	f.next(sps264, pps264, "6588aabb*")
	f.next("419acc01*")
	f.audioPacket(2024, 10, 11)
	f.audioPacket(4072, 12)
	f.audioPacket(4072, 13) // once more
	f.sound(5096, []byte{0, 99, 1, 2})
	f.sound(5096, nil)
	f.audioPacket(5096, 14)
	var got []string
	var first int64
	for _, u := range f.units {
		if u.Kind == media.Audio {
			if cap(u.Data) != len(u.Data) {
				t.Errorf("frame of %d bytes in a buffer of %d, with other frames", len(u.Data), cap(u.Data))
			}
			if got == nil {
				first = u.DTS
			}
			got = append(got, fmt.Sprintln(u.DTS-first, len(u.Data), u.Data[0], u.Key, u.Entry.Codec))
		}
	}
	want := []string{"0 10 1 true mp4a.40.2\n", "1024 11 2 true mp4a.40.2\n", "2048 12 1 true mp4a.40.2\n", "3072 14 1 true mp4a.40.2\n"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if at := time.Duration(first) * time.Second / 16000; at < 0 || at > time.Minute {
		t.Errorf("audio begins at %v", at)
	}
}
