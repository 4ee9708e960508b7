package cameratest

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/google/go-cmp/cmp"
)

// between returns the units that came in [from, to) after the server's start.
func between(s *Server, units []unit, from, to time.Duration) []unit {
	var out []unit
	for _, u := range units {
		if d := u.at.Sub(s.started); d >= from && d < to {
			out = append(out, u)
		}
	}
	return out
}

func soundsBetween(s *Server, frames []audioFrame, from, to time.Duration) int {
	n := 0
	for _, u := range frames {
		if d := u.at.Sub(s.started); d >= from && d < to {
			n++
		}
	}
	return n
}

// faulty runs a camera with a script and a viewer of its main stream until the
// end, then calls check with what the viewer saw.
func faulty(t *testing.T, text string, end time.Duration, check func(t *testing.T, s *Server, w *watcher, dial dialFunc)) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := camera(t, Config{Fixture: "harbour", Script: script(t, text)})
		w := watch(t, s.URL("main"), dial)
		after(s, end)
		check(t, s, w, dial)
	})
}

const second = time.Second

func TestDropEndsTheSession(t *testing.T) {
	faulty(t, "10s main drop", 11*second, func(t *testing.T, s *Server, w *watcher, dial dialFunc) {
		if !w.ended() {
			t.Fatal("the session goes on")
		}
		units := w.units()
		if got := units[len(units)-1].at.Sub(s.started); got < 9900*time.Millisecond || got > 10*second {
			t.Errorf("the last picture came at %v", got)
		}
		again := watch(t, s.URL("main"), dial)
		after(s, 20*second)
		if n := len(verified(t, s.Fixture("main"), again.units())); n < 100 {
			t.Errorf("%d pictures after the drop", n)
		}
	})
}

func TestDropHitsNamedPathsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := camera(t, Config{Cameras: 2, Script: script(t, "10s 2/main,1/sub drop")})
		for _, tc := range []struct {
			path  string
			ended bool
		}{{"1/main", false}, {"1/sub", true}, {"2/main", true}, {"2/sub", false}} {
			w := watch(t, s.URL(tc.path), dial)
			defer func() {
				if w.ended() != tc.ended {
					t.Errorf("%s: session ended is %v, want %v", tc.path, w.ended(), tc.ended)
				}
			}()
		}
		after(s, 11*second)
	})
}

func TestStallIsAHoleInAnOpenSession(t *testing.T) {
	faulty(t, "10s stall 15s", 40*second, func(t *testing.T, s *Server, w *watcher, _ dialFunc) {
		if w.ended() {
			t.Fatalf("the session ended: %v", w.err)
		}
		units := w.units()
		if n := len(between(s, units, 10*second, 25*second)); n != 0 {
			t.Errorf("%d pictures during the stall", n)
		}
		if n := soundsBetween(s, w.sounds(), 10*second, 25*second); n != 0 {
			t.Errorf("%d audio frames during the stall", n)
		}
		if n := len(between(s, units, 25*second, 40*second)); n != 15*20 {
			t.Errorf("%d pictures after it, want 300", n)
		}
		marks := verified(t, s.Fixture("main"), units)
		if holes(marks) != 1 {
			t.Errorf("%d holes, want 1", holes(marks))
		}
		// The camera's clock went on.
		i := slices.IndexFunc(units, func(u unit) bool { return u.at.Sub(s.started) >= 25*second })
		if got, want := units[i].rtp-units[i-1].rtp, uint32(301*4500); absDiff(got, want) > 4500 {
			t.Errorf("timestamps step by %d over the stall, want about %d", got, want)
		}
	})
}

func absDiff(a, b uint32) int64 { return int64(math.Abs(float64(int32(a - b)))) }

func TestLateComesAllAtOnceWithNothingMissing(t *testing.T) {
	faulty(t, "10s late 5s", 30*second, func(t *testing.T, s *Server, w *watcher, _ dialFunc) {
		units := w.units()
		if n := len(between(s, units, 10*second+1, 15*second)); n != 0 {
			t.Errorf("%d pictures while late", n)
		}
		if n := len(between(s, units, 15*second, 15*second+time.Millisecond)); n < 99 {
			t.Errorf("%d pictures at once, want 100", n)
		}
		if h := holes(verified(t, s.Fixture("main"), units)); h != 0 {
			t.Errorf("%d holes", h)
		}
	})
}

func TestRefusedPortComesBack(t *testing.T) {
	faulty(t, "10s refuse 10s", 11*second, func(t *testing.T, s *Server, w *watcher, dial dialFunc) {
		if !w.ended() {
			t.Error("the session goes on")
		}
		_, err := tryWatch(t, s.URL("main"), dial, gortsplib.ProtocolTCP)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("play while refused: %v", err)
		}
		after(s, 20*second+time.Millisecond)
		again := watch(t, s.URL("main"), dial)
		after(s, 25*second)
		marks := verified(t, s.Fixture("main"), again.units())
		if len(marks) < 50 || marks[0].Frame < 400 {
			t.Errorf("after it: %d pictures, the first %+v", len(marks), marks[0])
		}
	})
}

func TestRefusedPortComesBackOnSockets(t *testing.T) {
	s, err := Start(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, err := tryWatch(t, s.URL("main"), nil, gortsplib.ProtocolTCP)
	if err != nil {
		t.Fatal(err)
	}
	const refused = 2 * time.Second
	until := time.Now().Add(refused)
	s.Inject(Fault{Kind: Refuse, For: refused})
	<-w.done
	_, err = tryWatch(t, s.URL("main"), nil, gortsplib.ProtocolTCP)
	if !errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(until) {
		t.Errorf("play while refused: %v", err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 500 {
		<-tick.C
		if _, err = tryWatch(t, s.URL("main"), nil, gortsplib.ProtocolTCP); err == nil {
			return
		}
	}
	t.Errorf("10 s later: %v", err)
}

func TestWrongPasswordForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, dial := camera(t, Config{User: "admin", Password: "s3cret", Script: script(t, "10s password 30s")})
		url := strings.Replace(s.URL("main"), "//", "//admin:s3cret@", 1)
		w := watch(t, url, dial)
		after(s, 11*second)
		if !w.ended() {
			t.Error("the session goes on with the old password")
		}
		if _, err := tryWatch(t, url, dial, gortsplib.ProtocolTCP); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("play: %v, want 401", err)
		}
		after(s, 41*second)
		watch(t, url, dial)
	})
}

func TestParameterSetsChangeAtAKeyPicture(t *testing.T) {
	for _, name := range []string{"harbour", "meadow", "dunes", "fixtures/orchard.mp4", "fixtures/meadow.mp4"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, dial := camera(t, Config{Fixture: name, Script: script(t, "9300ms sps\n20500ms sps")})
				f := s.Fixture("main")
				w := watch(t, s.URL("main"), dial)
				after(s, 15*second)
				sdp := watch(t, s.URL("main"), dial)
				after(s, 30*second)
				marks := verified(t, f, w.units())
				if holes(marks) != 0 {
					t.Errorf("%d holes", holes(marks))
				}
				var order []uint32
				for i, m := range marks {
					if i == 0 || m.Fixture != marks[i-1].Fixture {
						order = append(order, m.Fixture)
						from := f
						if m.Fixture == f.ID {
							from = f.twin
						}
						if i > 0 && !from.pictures[(int(marks[i-1].Picture)+1)%len(from.pictures)].key {
							t.Errorf("the change at frame %d leaves a GOP unfinished", m.Frame)
						}
						if w.units()[i].parameters == 0 {
							t.Errorf("the change at frame %d brings no parameter sets", m.Frame)
						}
					}
				}
				if want := []uint32{f.ID, f.twin.ID, f.ID}; !cmp.Equal(order, want) || f.ID == f.twin.ID {
					t.Errorf("fixtures %08x, want %08x", order, want)
				}
				for i := 1; i < len(marks); i++ {
					if d := int32(w.units()[i].rtp - w.units()[i-1].rtp); d > 60000 || d < -60000 {
						t.Errorf("timestamps step by %d at frame %d", d, marks[i].Frame)
					}
				}
				switch v := sdp.desc.Medias[0].Formats[0].(type) {
				case *format.H264:
					if !bytes.Equal(v.SPS, f.twin.parameterSet(7)) || bytes.Equal(v.SPS, f.parameterSet(7)) {
						t.Error("the SDP does not carry the new SPS")
					}
				case *format.H265:
					if !bytes.Equal(v.SPS, f.twin.parameterSet(33)) || bytes.Equal(v.SPS, f.parameterSet(33)) {
						t.Error("the SDP does not carry the new SPS")
					}
				}
			})
		})
	}
}

func TestNoKeyPictureForSixMinutes(t *testing.T) {
	faulty(t, "10s nokey 6m", 7*time.Minute, func(t *testing.T, s *Server, w *watcher, dial dialFunc) {
		units := w.units()
		marks := verified(t, s.Fixture("main"), units)
		if holes(marks) != 0 {
			t.Errorf("%d holes", holes(marks))
		}
		for _, u := range between(s, units, 10*second, 370*second) {
			if u.parameters != 0 {
				t.Fatalf("a key picture at %v", u.at.Sub(s.started))
			}
		}
		if n := len(between(s, units, 10*second, 370*second)); n != 7200 {
			t.Errorf("%d pictures, want 7200", n)
		}
		for i := 1; i < len(units); i++ {
			if d := units[i].rtp - units[i-1].rtp; d != 4500 {
				t.Fatalf("timestamps step by %d at %v", d, units[i].at.Sub(s.started))
			}
		}
		i := slices.IndexFunc(units, func(u unit) bool { return u.at.Sub(s.started) > 370*second && u.parameters > 0 })
		if i < 0 || units[i].at.Sub(s.started) > 373*second {
			t.Error("key pictures do not come back")
		}
	})
	// Who comes meanwhile gets pictures, too.
	faulty(t, "1s nokey 6m", 10*second, func(t *testing.T, s *Server, _ *watcher, dial dialFunc) {
		w := watch(t, s.URL("main"), dial)
		after(s, 20*second)
		if n := len(w.units()); n < 190 {
			t.Errorf("%d pictures in 10 s", n)
		}
	})
}

func TestTimestampsJump(t *testing.T) {
	for _, tc := range []struct {
		fault string
		want  uint32 // the step of the video beyond the usual, modulo 2^32
		sound uint32
	}{
		{"jump 1h", 3600 * 90000, 3600 * 16000},
		{"jump -1h", -3600 * 90000 & math.MaxUint32, -3600 * 16000 & math.MaxUint32},
		{"jump 2147483648u", 1 << 31, 381774871}, // 2^31 * 16000 / 90000, rounded down
	} {
		t.Run(tc.fault, func(t *testing.T) {
			faulty(t, "10s "+tc.fault, 20*second, func(t *testing.T, s *Server, w *watcher, _ dialFunc) {
				units := w.units()
				if h := holes(verified(t, s.Fixture("main"), units)); h != 0 {
					t.Errorf("%d holes", h)
				}
				jumps := 0
				for i := 1; i < len(units); i++ {
					if d := units[i].rtp - units[i-1].rtp; d != 4500 {
						jumps++
						if at := units[i].at.Sub(s.started); d != tc.want+4500 || at != 10*second {
							t.Errorf("jump by %d at %v, want %d", d-4500, at, tc.want)
						}
					}
				}
				sounds := w.sounds()
				for i := 1; i < len(sounds); i++ {
					if d := sounds[i].rtp - sounds[i-1].rtp; d != 1024 {
						jumps++
						if absDiff(d, tc.sound+1024) > 1 {
							t.Errorf("audio jumps by %d, want %d", d-1024, tc.sound)
						}
					}
				}
				if jumps != 2 {
					t.Errorf("%d jumps, want one in each track", jumps)
				}
			})
		})
	}
}

func TestOneFrameThenSilence(t *testing.T) {
	faulty(t, "10s oneframe 30s", 15*second, func(t *testing.T, s *Server, w *watcher, dial dialFunc) {
		if n := len(between(s, w.units(), 10*second, 15*second)); n != 1 {
			t.Errorf("the old viewer got %d pictures, want 1", n)
		}
		late := watch(t, s.URL("main"), dial)
		after(s, 35*second)
		if n := len(late.units()); n != 1 || late.units()[0].parameters == 0 || len(late.sounds()) != 0 {
			t.Errorf("the new viewer got %d pictures and %d audio frames, want one key picture", n, len(late.sounds()))
		}
		if w.ended() || late.ended() {
			t.Error("a session ended")
		}
		after(s, 50*second)
		if n := len(between(s, w.units(), 40*second, 50*second)); n != 200 {
			t.Errorf("%d pictures after it, want 200", n)
		}
	})
}

func TestTimestampsRepeatAndRunBackwards(t *testing.T) {
	for _, tc := range []struct {
		fault string
		want  []int32
	}{
		{"duplicate 3", []int32{4500, 0, 0, 0, 4 * 4500, 4500}},
		{"backward 3", []int32{4500, -4500, -4500, -4500, 7 * 4500, 4500}},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			faulty(t, "10s "+tc.fault, 20*second, func(t *testing.T, s *Server, w *watcher, _ dialFunc) {
				units := w.units()
				if h := holes(verified(t, s.Fixture("main"), units)); h != 0 {
					t.Errorf("%d holes", h)
				}
				i := slices.IndexFunc(units, func(u unit) bool { return u.at.Sub(s.started) >= 10*second }) - 1
				var got []int32
				for j := range tc.want {
					got = append(got, int32(units[i+j].rtp-units[i+j-1].rtp))
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("steps of the timestamps (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestFrozenVideoKeepsItsAudio(t *testing.T) {
	faulty(t, "10s frozen 20s", 40*second, func(t *testing.T, s *Server, w *watcher, _ dialFunc) {
		if n := len(between(s, w.units(), 10*second, 30*second)); n != 0 {
			t.Errorf("%d pictures while frozen", n)
		}
		if n := soundsBetween(s, w.sounds(), 10*second, 30*second); n < 312 {
			t.Errorf("%d audio frames while frozen, want 312", n)
		}
		if n := len(between(s, w.units(), 30*second, 40*second)); n != 200 {
			t.Errorf("%d pictures after it, want 200", n)
		}
	})
}

func TestEmptyAccessUnitsComeBetween(t *testing.T) {
	faulty(t, "10s empty 5", 20*second, func(t *testing.T, s *Server, w *watcher, _ dialFunc) {
		var pictures []unit
		empty := 0
		for _, u := range w.units() {
			if _, ok := FindMark(u.data); ok {
				pictures = append(pictures, u)
			} else {
				empty++
			}
		}
		if h := holes(verified(t, s.Fixture("main"), pictures)); empty != 5 || h != 0 {
			t.Errorf("%d empty units and %d holes, want 5 and 0", empty, h)
		}
	})
}

func TestLostPacketsDamagePictures(t *testing.T) {
	faulty(t, "10s lose 5", 20*second, func(t *testing.T, s *Server, w *watcher, _ dialFunc) {
		whole := 0
		for _, u := range between(s, w.units(), 10*second, 10250*time.Millisecond) {
			if _, err := s.Fixture("main").Verify(nil, u.data); err == nil {
				whole++
			}
		}
		if whole != 0 {
			t.Errorf("%d of the 5 pictures are whole", whole)
		}
		if n := len(between(s, w.units(), 10500*time.Millisecond, 20*second)); n != 190 {
			t.Errorf("%d pictures afterwards, want 190", n)
		}
	})
}

func TestSameSeedSameFaults(t *testing.T) {
	run := func(seed uint64) (out []string) {
		synctest.Test(t, func(t *testing.T) {
			s, _ := camera(t, Config{Cameras: 2, Seed: seed, Script: script(t, "every 10s..60s drop\n1s..9m refuse 1s")})
			after(s, 10*time.Minute)
			for _, e := range s.Events() {
				if e.What == Faulty {
					out = append(out, e.Time.Sub(s.started).String()+" "+e.Path+" "+e.Detail)
				}
			}
		})
		return out
	}
	a, b, c := run(1), run(1), run(2)
	slices.Sort(a) // of two streams at one instant either may be first
	slices.Sort(b)
	slices.Sort(c)
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("the same seed gave (-first +second):\n%s", diff)
	}
	if len(a) < 40 || cmp.Equal(a, c) {
		t.Errorf("%d faults; another seed gave the same: %v", len(a), cmp.Equal(a, c))
	}
}

func TestScriptText(t *testing.T) {
	s, err := ParseScript(`
		# a comment
		10s  drop
		30s..40s 1/main stall 15s   # so long
		every 1m /2/main,2/sub jump -1h
		5m jump 2147483648u
		6m backward 5
		7m refuse
	`)
	if err != nil {
		t.Fatal(err)
	}
	want := &Script{Lines: []Line{
		{From: 10 * second, To: 10 * second, Fault: Fault{Kind: Drop}},
		{From: 30 * second, To: 40 * second, Paths: []string{"1/main"}, Fault: Fault{Kind: Stall, For: 15 * second}},
		{From: time.Minute, To: time.Minute, Every: true, Paths: []string{"2/main", "2/sub"}, Fault: Fault{Kind: Jump, Shift: -3600 * 90000}},
		{From: 5 * time.Minute, To: 5 * time.Minute, Fault: Fault{Kind: Jump, Shift: 1 << 31}},
		{From: 6 * time.Minute, To: 6 * time.Minute, Fault: Fault{Kind: Backward, Count: 5}},
		{From: 7 * time.Minute, To: 7 * time.Minute, Fault: Fault{Kind: Refuse, For: 10 * second}},
	}}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("script (-want +got):\n%s", diff)
	}
	for _, l := range want.Lines {
		again, err := ParseFault(l.Fault.String())
		if err != nil || again != l.Fault {
			t.Errorf("%v reads back as %v, %v", l.Fault, again, err)
		}
	}
	for text, want := range map[string]string{
		"10s":                    "script line 1: no fault",
		"\nsoon drop":            `script line 2: "soon": not a time such as 90s or 1h30m`,
		"10s explode":            `script line 1: "explode": no such fault`,
		"10s main stall 5 times": `script line 1: stall: "times" is too much`,
		"10s drop 5s":            `script line 1: drop: "5s" is too much`,
		"10s stall long":         `script line 1: stall "long": not a time such as 90s or 1h30m`,
		"10s duplicate 0":        `script line 1: duplicate "0": not a number of pictures`,
		"10s jump far":           `script line 1: jump "far": neither a duration such as -1h nor units such as 2147483648u`,
		"9s..1s drop":            "script line 1: 9s..1s: ends before it begins",
		"every 0s drop":          "script line 1: every 0s: must be more than nothing",
		"10s main refuse":        "script line 1: refuse concerns the whole camera, it takes no path",
	} {
		if _, err := ParseScript(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestScriptNamesStreamsThatExist(t *testing.T) {
	_, err := Start(Config{Script: script(t, "1s 2/main drop"), ListenFunc: NewPipe().Listen})
	if err == nil || err.Error() != `script: drop: no stream "2/main"` {
		t.Errorf("start: %v", err)
	}
}

func TestPipeKeepsDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPipe()
		l, err := p.Listen("tcp", "camera:554")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Listen("tcp", "127.0.0.1:554"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("listen twice: %v", err)
		}
		a, err := p.DialContext(context.Background(), "tcp", "camera:554")
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		from := time.Now()
		a.SetReadDeadline(from.Add(3 * second))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(from) != 3*second {
			t.Errorf("read: %v after %v", err, time.Since(from))
		}
		a.SetWriteDeadline(time.Now().Add(3 * second))
		if _, err := a.Write(make([]byte, pipeBuffer)); err != nil {
			t.Errorf("write into the buffer: %v", err)
		}
		if _, err := a.Write([]byte{1}); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(from) != 6*second {
			t.Errorf("write: %v after %v", err, time.Since(from))
		}
		// A deadline set while someone waits counts for them.
		a.SetReadDeadline(time.Time{})
		done := make(chan error)
		go func() {
			_, err := a.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		a.SetReadDeadline(time.Now().Add(second))
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read with a deadline set late: %v", err)
		}
		b.Close()
		if _, err := a.Write([]byte{1}); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write to a closed end: %v", err)
		}
		a.Close()
		l.Close()
		if _, err := p.DialContext(context.Background(), "tcp", "camera:554"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial where nobody listens: %v", err)
		}
	})
}
