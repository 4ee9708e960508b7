package camera

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/media"
)

// bench is an emulated camera and a session of ours with it.
type bench struct {
	server *cameratest.Server
	cfg    Config
	start  time.Time

	mu        sync.Mutex
	desc      Description
	described int
	video     []media.AccessUnit
	audio     []media.AccessUnit
	refuse    error // what the handler returns
}

// emulate starts a camera on a network in memory. Call it inside a bubble.
func emulate(t *testing.T, cfg cameratest.Config, lines ...string) *bench {
	t.Helper()
	script, err := cameratest.ParseScript(strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	pipe := cameratest.NewPipe()
	cfg.Script, cfg.ListenFunc = script, pipe.Listen
	if cfg.Fixture == "" {
		cfg.Fixture = "harbour"
	}
	b := &bench{start: time.Now()}
	if b.server, err = cameratest.Start(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.server.Close)
	b.cfg = Config{URL: b.server.URL("main"), DialContext: pipe.DialContext}
	return b
}

func (b *bench) handler() Handler {
	return Handler{
		Described: func(d Description) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.desc = d
			b.described++
		},
		AccessUnit: func(u media.AccessUnit) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if u.Kind == media.Video {
				b.video = append(b.video, u)
			} else {
				b.audio = append(b.audio, u)
			}
			return b.refuse
		},
	}
}

// play runs a session until it ends, at most for d.
func (b *bench) play(t *testing.T, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	err := Play(ctx, b.cfg, b.handler())
	if err == nil {
		t.Fatal("Play returned nil")
	}
	return err
}

// check holds all units against what media.AccessUnit promises and what the
// camera sent. It returns the frame numbers.
func (b *bench) check(t *testing.T) []uint64 {
	t.Helper()
	var frames []uint64
	fixture := b.server.Fixture("main")
	for i, u := range b.video {
		m, err := fixture.Verify(u.Entry, u.Data)
		if err != nil {
			t.Fatalf("unit %d: %v", i, err)
		}
		frames = append(frames, m.Frame)
		switch {
		case i == 0 && !u.Key:
			t.Fatal("the first unit is no key picture")
		case u.DTS < 0 || u.DTS > u.PTS:
			t.Fatalf("unit %d: DTS %d, PTS %d", i, u.DTS, u.PTS)
		case cap(u.Data) != len(u.Data):
			t.Fatalf("unit %d: %d bytes in a buffer of %d", i, len(u.Data), cap(u.Data))
		case i > 0 && u.DTS <= b.video[i-1].DTS:
			t.Fatalf("unit %d: DTS %d after %d", i, u.DTS, b.video[i-1].DTS)
		case i > 0 && u.Entry != b.video[i-1].Entry && (!u.Key || u.Entry.Equal(b.video[i-1].Entry)):
			t.Fatalf("unit %d: entry changed, key %v", i, u.Key)
		}
	}
	for i, u := range b.audio {
		switch {
		case u.DTS < 0 || u.DTS != u.PTS || !u.Key || u.Entry != b.desc.Audio:
			t.Fatalf("audio %d: %+v", i, u)
		case i > 0 && u.DTS <= b.audio[i-1].DTS:
			t.Fatalf("audio %d: DTS %d after %d", i, u.DTS, b.audio[i-1].DTS)
		}
	}
	return frames
}

func kindOf(err error) Kind {
	var e *Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Kind
}

// wantError compares with "kind: text", both whole.
func wantError(t *testing.T, err error, kind Kind, text string) {
	t.Helper()
	if kindOf(err) != kind || err == nil || err.Error() != text {
		t.Errorf("got  %v: %v\nwant %v: %s", kindOf(err), err, kind, text)
	}
}

func TestEveryPictureArrivesOnceInOrder(t *testing.T) {
	for _, name := range cameratest.Names() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := emulate(t, cameratest.Config{Fixture: name})
				if err := b.play(t, time.Minute); err != context.DeadlineExceeded {
					t.Fatalf("got %v, want %v", err, context.DeadlineExceeded)
				}
				frames := b.check(t)
				fixture := b.server.Fixture("main")
				n, loop := fixture.Pictures()
				if want := int(57 * time.Second / (loop.Std() / time.Duration(n))); len(frames) < want {
					t.Errorf("%d pictures in a minute, want %d or more", len(frames), want)
				}
				for i := range frames {
					if frames[i] != frames[0]+uint64(i) {
						t.Fatalf("unit %d is frame %d, after %d", i, frames[i], frames[i-1])
					}
					// Decode times keep the camera's even beat.
					if i > 1 {
						if got, want := b.video[i].DTS-b.video[1].DTS, int64(i-1)*int64(loop)/int64(n); got-want > 1 || want-got > 1 {
							t.Fatalf("unit %d: DTS %d after the second, want %d", i, got, want)
						}
					}
				}
				var sound [][]byte
				for i, u := range b.audio {
					sound = append(sound, u.Data)
					if got, want := u.DTS-b.audio[0].DTS, int64(i)*1024; got != want {
						t.Fatalf("audio %d: DTS %d after the first, want %d", i, got, want)
					}
				}
				if fixture.HasSound() {
					if _, err := fixture.VerifyAudio(-1, sound...); err != nil || len(sound) < 57*16000/1024 {
						t.Errorf("audio: %d frames, %v", len(sound), err)
					}
				} else if len(sound) > 0 || b.desc.Audio != nil {
					t.Errorf("audio of a silent camera: %d frames, %+v", len(sound), b.desc.Audio)
				}
				want := "H.264"
				if fixture.IsH265() {
					want = "H.265"
				}
				if b.desc.Video != want || len(b.desc.Skipped) != 0 || b.described != 1 || b.desc.Server == "" {
					t.Errorf("description %+v, given %d times", b.desc, b.described)
				}
				for _, u := range b.video[:1] {
					if d := u.Received.Sub(b.start); d < 0 || d > 5*time.Second {
						t.Errorf("received %v after the start", d)
					}
				}
			})
		})
	}
}

// Both tracks count from one zero: what came at the same instant has the same
// time.
func TestAudioAndVideoShareAZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := emulate(t, cameratest.Config{Fixture: "harbour"})
		b.play(t, 20*time.Second)
		b.check(t)
		if len(b.audio) == 0 {
			t.Fatal("no audio")
		}
		base := b.video[0].Received
		for _, u := range b.audio {
			at := time.Duration(u.DTS) * time.Second / time.Duration(u.Entry.Timescale)
			if off := u.Received.Sub(base) - at; off.Abs() > 200*time.Millisecond {
				t.Fatalf("audio at %v came %v after the first picture", at, u.Received.Sub(base))
			}
		}
	})
}

func TestFaults(t *testing.T) {
	const main = "rtsp://127.0.0.1:40001/main: "
	tests := []struct {
		name, line string
		kind       Kind
		text       string
		least      time.Duration // the session lasts at least, and not 2 s longer
	}{
		{"drop", "10s drop", Closed, "connection closed by the camera", 10 * time.Second},
		{"stall", "10s stall 1m", Silent, "no picture for 10s", 19 * time.Second},
		{"frozen video, live audio", "10s frozen 1m", Silent, "no picture for 10s", 19 * time.Second},
		{"one frame", "0s oneframe 1m", Silent, "no picture for 10s", 9 * time.Second},
		{"jump back", "10s jump -1h", BadTimestamps, "", 10 * time.Second},
		{"jump by half the range", "10s jump 2147483648u", BadTimestamps, "", 10 * time.Second},
		{"duplicate", "10s duplicate 5", BadTimestamps, "", 10 * time.Second},
		{"backward", "10s backward 5", BadTimestamps, "", 10 * time.Second},
		{"off the network", "10s refuse 1m", Closed, "connection closed by the camera", 10 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := emulate(t, cameratest.Config{}, tt.line)
				err := b.play(t, time.Hour)
				b.check(t)
				if took := time.Since(b.start); took < tt.least || took > tt.least+3*time.Second {
					t.Errorf("ended after %v, want %v to 3s more", took, tt.least)
				}
				if tt.text != "" {
					wantError(t, err, tt.kind, main+tt.text)
				} else if kindOf(err) != tt.kind || !strings.Contains(err.Error(), "B-frames or a camera clock step") {
					t.Errorf("got %v: %v, want %v", kindOf(err), err, tt.kind)
				}
				if len(b.video) == 0 {
					t.Error("nothing was received before")
				}
			})
		})
	}
}

// What a recorder has to live with: none of it ends a session.
func TestFaultsThatASessionSurvives(t *testing.T) {
	tests := []struct {
		name, line string
		missing    int // frames
	}{
		{"short stall", "10s stall 9s", -1},
		{"late", "10s late 8s", 0},
		{"short freeze", "10s frozen 8s", -1},
		{"access units without a picture", "10s empty 20", 0},
		{"no key for six minutes", "10s nokey 6m", 0},
		{"lost packets", "10s lose 5", 5},
		{"an hour forward", "10s jump 1h", 0}, // the store refuses it (R1)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := emulate(t, cameratest.Config{}, tt.line)
				if err := b.play(t, 8*time.Minute); err != context.DeadlineExceeded {
					t.Fatalf("ended after %v: %v", time.Since(b.start), err)
				}
				frames := b.check(t)
				missing := int(frames[len(frames)-1]-frames[0]) + 1 - len(frames)
				if tt.missing >= 0 && missing != tt.missing || tt.missing < 0 && missing == 0 {
					t.Errorf("%d frames are missing, want %d", missing, tt.missing)
				}
				if last := b.video[len(b.video)-1].Received.Sub(b.start); last < 8*time.Minute-time.Second {
					t.Errorf("the last picture came after %v", last)
				}
			})
		})
	}
}

func TestNewParameterSetsMakeANewEntryAtAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := emulate(t, cameratest.Config{}, "10s sps", "20s sps")
		b.play(t, 30*time.Second)
		b.check(t)
		var sizes []string
		for i, u := range b.video {
			if i == 0 || u.Entry != b.video[i-1].Entry {
				sizes = append(sizes, fmt.Sprintf("%dx%d", u.Entry.Width, u.Entry.Height))
			}
		}
		if len(sizes) != 3 || sizes[0] != sizes[2] || sizes[0] == sizes[1] {
			t.Errorf("picture sizes were %v", sizes)
		}
	})
}

func TestWaitsForTheFirstKeyAsLongAsPicturesCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := emulate(t, cameratest.Config{}, "0s nokey 6m")
		if err := b.play(t, 7*time.Minute); err != context.DeadlineExceeded {
			t.Fatalf("ended after %v: %v", time.Since(b.start), err)
		}
		b.check(t)
		if len(b.video) == 0 {
			t.Error("nothing came after the key pictures did again")
		}
	})
}

func TestLogin(t *testing.T) {
	const main = "rtsp://127.0.0.1:40001/main: "
	tests := []struct {
		name           string
		auth           []cameratest.AuthMethod
		user, password string // in the URL
		cfgUser, cfg   string // in the configuration
		fails          string
	}{
		{"digest in the URL", []cameratest.AuthMethod{cameratest.Digest}, "admin", "s3cret", "", "", ""},
		{"SHA-256", []cameratest.AuthMethod{cameratest.DigestSHA256}, "admin", "s3cret", "", "", ""},
		{"basic, configured", []cameratest.AuthMethod{cameratest.Basic}, "", "", "admin", "s3cret", ""},
		{"configured goes first", nil, "admin", "wrong", "admin", "s3cret", ""},
		{"wrong", nil, "admin", "wr0ng!", "", "", "login refused (401): check user and password"},
		{"missing", nil, "", "", "", "", "login refused (401): check user and password"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := emulate(t, cameratest.Config{User: "admin", Password: "s3cret", Auth: tt.auth})
				_, rest, _ := strings.Cut(b.cfg.URL, "://")
				rest = rest[strings.LastIndexByte(rest, '@')+1:]
				b.cfg.URL = "rtsp://" + rest
				if tt.user != "" {
					b.cfg.URL = "rtsp://" + tt.user + ":" + tt.password + "@" + rest
				}
				b.cfg.Username, b.cfg.Password = tt.cfgUser, tt.cfg
				err := b.play(t, 10*time.Second)
				if tt.fails == "" {
					if err != context.DeadlineExceeded || len(b.video) == 0 {
						t.Errorf("%v after %d pictures", err, len(b.video))
					}
					return
				}
				wantError(t, err, Unauthorized, main+tt.fails)
			})
		})
	}
}

func TestWhereNothingIsThereToPlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := emulate(t, cameratest.Config{})
		b.cfg.URL = strings.Replace(b.cfg.URL, "/main", "/attic", 1)
		wantError(t, b.play(t, time.Minute), NotFound, "rtsp://127.0.0.1:40001/attic: no such stream (404)")
		b.cfg.URL = "rtsp://127.0.0.1:1/main"
		wantError(t, b.play(t, time.Minute), Refused, "rtsp://127.0.0.1:1/main: connection refused")
		b.cfg.DialContext = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "cam.lan", IsNotFound: true}}
		}
		wantError(t, b.play(t, time.Minute), Unreachable, "rtsp://127.0.0.1:1/main: its host is not found: check the name in the URL")
		b.cfg.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		start := time.Now()
		wantError(t, b.play(t, time.Minute), Unreachable, "rtsp://127.0.0.1:1/main: no answer during DESCRIBE")
		if d := time.Since(start); d != requestTimeout {
			t.Errorf("gave up after %v", d)
		}
	})
}

func TestBadURLIsRefusedBeforeAnyConnection(t *testing.T) {
	dial := func(context.Context, string, string) (net.Conn, error) {
		t.Error("a connection was tried")
		return nil, errors.New("no")
	}
	tests := []struct{ url, transport, want string }{
		{"", "", "camera: the URL is empty"},
		{"http://10.0.0.7/main", "", "http://10.0.0.7/main: not an RTSP URL, which begins with rtsp:// or rtsps://"},
		{"http://u:s3cret@10.0.0.7/main", "", "http://10.0.0.7/main: not an RTSP URL, which begins with rtsp:// or rtsps://"},
		{"10.0.0.7/main?password=s3cret", "", "10.0.0.7/main?password=***: not an RTSP URL, which begins with rtsp:// or rtsps://"},
		{"rtsp:///main", "", "rtsp:///main: the URL names no host"},
		{"rtsp://u:s3/cret@10.0.0.7/main", "", "rtsp://10.0.0.7/main: not an RTSP URL: invalid port"},
		{"rtsp://u:s3cret@10.0.0.7:99999/main", "", "rtsp://10.0.0.7:99999/main: port 99999 does not exist"},
		{"rtsp://u:s3cret@10.0.0.7:0/main", "", "rtsp://10.0.0.7:0/main: port 0 does not exist"},
		{"rtsp://10.0.0.7/main#x", "", "rtsp://10.0.0.7/main#x: not an RTSP URL: URLs with fragments are not supported"},
		{"rtsp://u:s3cret@10.0.0.7/main", "multicast", `rtsp://10.0.0.7/main: transport "multicast" is neither tcp nor udp`},
	}
	for _, tt := range tests {
		err := Play(context.Background(), Config{URL: tt.url, Transport: tt.transport, DialContext: dial}, Handler{})
		wantError(t, err, BadURL, tt.want)
		if err != nil && strings.Contains(err.Error(), "cret") {
			t.Errorf("%s: the password shows: %v", tt.url, err)
		}
	}
}

func TestReceiversErrorEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := emulate(t, cameratest.Config{})
		b.refuse = errors.New("recording would last 5 minutes")
		err := b.play(t, time.Minute)
		wantError(t, err, Receiver, "rtsp://127.0.0.1:40001/main: not received: recording would last 5 minutes")
		if !errors.Is(err, b.refuse) {
			t.Errorf("%v does not wrap the receiver's error", err)
		}
		if len(b.video) != 1 {
			t.Errorf("%d units were given after the first was refused", len(b.video)-1)
		}
	})
}

// A session ends promptly wherever it is, and leaves nothing behind; the bubble
// fails a test whose goroutines stay.
func TestSessionEndsWithItsContext(t *testing.T) {
	for _, at := range []time.Duration{0, time.Millisecond, 100 * time.Millisecond, 3 * time.Second, 15 * time.Second} {
		t.Run(at.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := emulate(t, cameratest.Config{}, "10s stall 1h")
				b.cfg.Silence = time.Hour
				if err := b.play(t, at); err != context.DeadlineExceeded {
					t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
				}
				if took := time.Since(b.start); took > at+time.Second {
					t.Errorf("took %v to end", took-at)
				}
				n := len(b.video)
				time.Sleep(5 * time.Second)
				if len(b.video) != n {
					t.Error("a unit came after the end")
				}
			})
		})
	}
}

// A camera that takes the connection and then does nothing, or stops reading,
// holds nobody up.
func TestDeadCameraHoldsNobodyUp(t *testing.T) {
	hold := func(t *testing.T) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe() // unbuffered: nobody reads
			t.Cleanup(func() { there.Close() })
			return here, nil
		}
	}
	for _, url := range []string{"rtsp://10.0.0.7/main", "rtsps://10.0.0.7/main"} {
		t.Run(url, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				defer cancel()
				start := time.Now()
				if err := Play(ctx, Config{URL: url, DialContext: hold(t)}, Handler{}); err != context.DeadlineExceeded {
					t.Errorf("got %v", err)
				}
				if d := time.Since(start); d > 4*time.Second {
					t.Errorf("ended %v after its context", d-3*time.Second)
				}
				start = time.Now()
				err := Play(context.Background(), Config{URL: url, DialContext: hold(t)}, Handler{})
				if kindOf(err) != Unreachable || time.Since(start) > requestTimeout+time.Second {
					t.Errorf("after %v: %v: %v", time.Since(start), kindOf(err), err)
				}
			})
		})
	}
}

func TestSocketsTCPAndUDP(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, transport := range []string{"tcp", "udp"} {
		t.Run(transport, func(t *testing.T) {
			server, err := cameratest.Start(cameratest.Config{Fixture: "harbour", UDP: true})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			b := &bench{server: server}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			h := b.handler()
			take := h.AccessUnit
			h.AccessUnit = func(u media.AccessUnit) error {
				err := take(u)
				if len(b.video) >= 5 && len(b.audio) > 0 {
					cancel()
				}
				return err
			}
			if err := Play(ctx, Config{URL: server.URL("main"), Transport: transport}, h); err != context.Canceled {
				t.Fatalf("after %d pictures: %v", len(b.video), err)
			}
			b.check(t)
		})
	}
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}
