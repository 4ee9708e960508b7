package cameratest

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
)

// camera starts a server on a network in memory. Call it inside a bubble.
func camera(t *testing.T, cfg Config) (*Server, dialFunc) {
	t.Helper()
	pipe := NewPipe()
	cfg.ListenFunc = pipe.Listen
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, pipe.DialContext
}

func script(t *testing.T, text string) *Script {
	t.Helper()
	s, err := ParseScript(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// after lets fake time pass until d after the start of the server.
func after(s *Server, d time.Duration) {
	time.Sleep(time.Until(s.started.Add(d)))
	synctest.Wait()
}

func TestEveryFrameArrivesOnceInOrder(t *testing.T) {
	for _, name := range Names() {
		for _, kind := range []string{"main", "sub"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, dial := camera(t, Config{Fixture: name})
					f := s.Fixture(kind)
					w := watch(t, s.URL(kind), dial)
					after(s, time.Minute)

					units := w.units()
					marks := verified(t, f, units)
					n, loop := f.Pictures()
					step := loop.Std() / time.Duration(n)
					if want := int((time.Minute - 2500*time.Millisecond - s.byPath[kind].phase) / step); len(marks) < want {
						t.Errorf("%d pictures in a minute, want %d or more", len(marks), want)
					}
					if holes(marks) != 0 {
						t.Errorf("%d holes in the frame numbers", holes(marks))
					}
					if got, want := s.Frame(kind), marks[len(marks)-1].Frame+1; got != want {
						t.Errorf("next frame %d, want %d", got, want)
					}
					seen := make(map[uint32]bool) // PTS
					for i, u := range units {
						p := &f.pictures[marks[i].Picture]
						if marks[i].Stream != s.Stream(kind) || marks[i].Start != s.nonce || !marks[i].Sent.Equal(u.at) {
							t.Fatalf("unit %d: mark %+v, came at %v", i, marks[i], u.at)
						}
						if got := u.parameters; !p.key && got != 0 || p.key && got != len(f.parameters) {
							t.Errorf("unit %d: %d parameter sets, key %v", i, got, p.key)
						}
						if i == 0 && !p.key {
							t.Errorf("the first picture is no key picture")
						}
						// Decode times are spaced evenly, over the seam of the loop as well.
						dts := u.rtp - uint32(p.offset)
						first := units[0].rtp - uint32(f.pictures[marks[0].Picture].offset)
						if got, want := int32(dts-first), int32(i)*int32(loop)/int32(n); got != want {
							t.Fatalf("unit %d: decode time %d, want %d", i, got, want)
						}
						if want := units[0].at.Add(time.Duration(i) * step); u.at.Sub(want).Abs() > time.Microsecond {
							t.Fatalf("unit %d: came at %v, want %v", i, u.at, want)
						}
						if seen[u.rtp] {
							t.Errorf("unit %d: presentation time %d twice", i, u.rtp)
						}
						seen[u.rtp] = true
					}

					var frames [][]byte
					sounds := w.sounds()
					for i, a := range sounds {
						frames = append(frames, a.data)
						if got, want := a.rtp-sounds[0].rtp, uint32(i)*1024; got != want {
							t.Fatalf("audio frame %d: time %d, want %d", i, got, want)
						}
					}
					if _, err := f.VerifyAudio(-1, frames...); err != nil || len(frames) < 57*16000/1024 {
						t.Errorf("audio: %d frames, %v", len(frames), err)
					}
					if w.bad != 0 {
						t.Errorf("%d packets could not be decoded", w.bad)
					}
				})
			})
		}
	}
}

func TestReorderedPicturesGoInDecodeOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := camera(t, Config{Fixture: "dunes"})
		w := watch(t, s.URL("main"), dial)
		after(s, 20*time.Second)
		back := 0
		units := w.units()
		for i := 1; i < len(units); i++ {
			if int32(units[i].rtp-units[i-1].rtp) < 0 {
				back++
			}
		}
		if back < len(units)/4 {
			t.Errorf("timestamps went back %d times in %d pictures; B-frames should do that", back, len(units))
		}
	})
}

func TestStreamsRunWhetherOrNotAnyoneWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := camera(t, Config{Cameras: 2})
		after(s, time.Hour)
		w := watch(t, s.URL("2/main"), dial)
		after(s, time.Hour+5*time.Second)
		marks := verified(t, s.Fixture("2/main"), w.units())
		if len(marks) == 0 || marks[0].Frame < 20*3599 || marks[0].Frame > 20*3602 {
			t.Fatalf("%d pictures, the first is %+v; want number 72000", len(marks), marks[:min(1, len(marks))])
		}
		if s.Fixture("1/main").ID == s.Fixture("2/main").ID {
			t.Error("two cameras play the same")
		}
		if _, err := s.Fixture("1/main").Verify(nil, w.units()[0].data); err == nil {
			t.Error("the fixture of camera 1 verified a picture of camera 2")
		}
	})
}

func TestClosedServerLeavesNoGoroutine(t *testing.T) {
	// synctest itself fails when one is left.
	synctest.Test(t, func(t *testing.T) {
		s, dial := camera(t, Config{Cameras: 3, Script: script(t, "1s refuse 1h\n2s stall 1h")})
		s.Close()
		s.Close()
		if _, err := dial(context.Background(), "tcp", s.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial a closed camera: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, dial := camera(t, Config{})
		w := watch(t, s.URL("main"), dial)
		// A viewer that does not read, as its connection hangs.
		conn, err := dial(t.Context(), "tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		after(s, 5*time.Second)
		s.Close()
		synctest.Wait()
		if !w.ended() {
			t.Error("the viewer's session goes on after the server closed")
		}
	})
}

func TestSlowViewerIsCutAndOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := camera(t, Config{})
		w := watch(t, s.URL("main"), dial)
		slow := watch(t, s.URL("main"), func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			return &hanging{Conn: c, from: s.started.Add(5 * time.Second)}, err
		})
		after(s, 3*time.Minute)
		if holes(verified(t, s.Fixture("main"), w.units())) != 0 {
			t.Error("the other viewer has holes")
		}
		n := 0
		for _, e := range s.Events() {
			if e.What == Stopped {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d sessions ended, want the slow one", n)
		}
		_ = slow
	})
}

func TestViewerBehindTheQueueIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := camera(t, Config{Script: script(t, "6s late 5m")})
		watch(t, s.URL("main"), func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			return &hanging{Conn: c, from: s.started.Add(5 * time.Second)}, err
		})
		after(s, 306*time.Second)
		want := Event{Time: s.started.Add(306 * time.Second), Path: "1/main", What: Faulty, Detail: "a viewer reads too slowly"}
		if !slices.Contains(s.Events(), want) {
			t.Errorf("events %v lack %v", s.Events(), want)
		}
	})
}

// hanging is a connection from which nothing can be read after a while.
type hanging struct {
	net.Conn
	from time.Time
}

func (h *hanging) Read(b []byte) (int, error) {
	if !time.Now().Before(h.from) {
		time.Sleep(10 * time.Minute)
	}
	return h.Conn.Read(b)
}

func TestCredentialsAreAskedFor(t *testing.T) {
	for _, tc := range []struct {
		name    string
		methods []AuthMethod
		userinf string
		ok      bool
		failed  int
	}{
		{"default", nil, "admin:s3cret@", true, 0},
		{"basic", []AuthMethod{Basic}, "admin:s3cret@", true, 0},
		{"digest", []AuthMethod{Digest}, "admin:s3cret@", true, 0},
		{"digest SHA-256", []AuthMethod{DigestSHA256}, "admin:s3cret@", true, 0},
		{"wrong password", nil, "admin:guess@", false, 1},
		{"wrong user", nil, "root:s3cret@", false, 1},
		{"none", nil, "", false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial := camera(t, Config{User: "admin", Password: "s3cret", Auth: tc.methods})
				url := strings.Replace(s.URL("main"), "rtsp://", "rtsp://"+tc.userinf, 1)
				w, err := tryWatch(t, url, dial, gortsplib.ProtocolTCP)
				if (err == nil) != tc.ok {
					t.Fatalf("play: %v", err)
				}
				if tc.ok {
					after(s, 5*time.Second)
					if len(w.units()) == 0 {
						t.Error("no pictures")
					}
				} else if !strings.Contains(err.Error(), "401") {
					t.Errorf("play: %v, want 401", err)
				}
				failed := 0
				for _, e := range s.Events() {
					if e.What == LoginFailed {
						failed++
					}
				}
				if failed != tc.failed {
					t.Errorf("%d failed logins, want %d", failed, tc.failed)
				}
			})
		})
	}
}

func TestUnknownPathIsNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := camera(t, Config{})
		_, err := tryWatch(t, s.URL("3/main"), dial, gortsplib.ProtocolTCP)
		if err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("play: %v, want 404", err)
		}
	})
}

func TestRestartShowsInTheMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		starts := make(map[uint32]bool)
		for range 2 {
			s, dial := camera(t, Config{Listen: "10.0.0.7:554"})
			w := watch(t, s.URL("main"), dial)
			time.Sleep(5 * time.Second)
			starts[verified(t, s.Fixture("main"), w.units())[0].Start] = true
			s.Close()
		}
		if len(starts) != 2 {
			t.Error("two starts of the camera have the same number")
		}
	})
}

// What the RTSP library makes of a session while another one is made is no
// affair of theirs. The race detector judges.
func TestViewersThatComeAtOnce(t *testing.T) {
	s, err := Start(Config{UDP: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	var all sync.WaitGroup
	defer all.Wait()
	for i := range 48 {
		all.Go(func() {
			p := []gortsplib.Protocol{gortsplib.ProtocolTCP, gortsplib.ProtocolUDP}[i%2]
			w, err := tryWatch(t, s.URL("main"), nil, p)
			if err != nil {
				t.Errorf("viewer %d by %v: %v", i, p, err)
				return
			}
			deadline := time.NewTimer(2 * time.Minute)
			defer deadline.Stop()
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for len(w.units()) == 0 {
				select {
				case <-tick.C:
				case <-deadline.C:
					t.Errorf("viewer %d by %v saw nothing in 2 min", i, p)
					return
				}
			}
		})
	}
}

// The real network, in real time: short.
func TestSocketsTCPAndUDP(t *testing.T) {
	s, err := Start(Config{Cameras: 2, UDP: true, User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for _, p := range []gortsplib.Protocol{gortsplib.ProtocolTCP, gortsplib.ProtocolUDP} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			w, err := tryWatch(t, strings.Replace(s.URL("main"), "//", "//u:p@", 1), nil, p)
			if err != nil {
				t.Fatal(err)
			}
			deadline := time.NewTimer(2 * time.Minute)
			defer deadline.Stop()
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for len(w.units()) < 30 || len(w.sounds()) < 20 {
				select {
				case <-tick.C:
				case <-deadline.C:
					t.Fatalf("%d pictures, %d audio frames in 2 min", len(w.units()), len(w.sounds()))
				}
			}
			// A machine that is busy for a second loses packets of UDP.
			if units := w.units(); p == gortsplib.ProtocolTCP || w.lost.Load() == 0 {
				if h := holes(verified(t, s.Fixture("main"), units)); h != 0 {
					t.Errorf("%d holes", h)
				}
			}
			if _, ok := w.desc.Medias[0].Formats[0].(*format.H264); !ok {
				t.Errorf("video is %T", w.desc.Medias[0].Formats[0])
			}
		})
	}
}

func TestHelpIsAScriptOfEveryFault(t *testing.T) {
	s, err := ParseScript(Help)
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[Kind]Fault)
	for _, l := range s.Lines {
		told[l.Fault.Kind] = l.Fault
	}
	for _, k := range []Kind{
		Drop, Stall, Late, Refuse, Password, ParameterSets, NoKey,
		Jump, OneFrame, Duplicate, Backward, Frozen, Empty, Lose,
	} {
		if want, err := ParseFault(string(k)); err != nil || told[k] != want {
			t.Errorf("%s: told %v, want %v (%v)", k, told[k], want, err)
		}
	}
}
