package watchdog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// stage is a supervisor over processes that exist only here, in fake time.
type stage struct {
	t *testing.T
	*Supervisor
	cancel  context.CancelFunc
	ctx     context.Context
	began   time.Time
	notices chan Notice
	script  func(p *actor) // what each process does
	actors  []*actor
	log     []string
	alive   []time.Time
	dropped int
	final   atomic.Bool // the next end is the last
}

// actor is one process of the stage.
type actor struct {
	*stage
	n       int // from 1
	signals chan syscall.Signal
	got     []syscall.Signal
	done    chan Exit
}

func newStage(t *testing.T, script func(p *actor)) *stage {
	s := &stage{t: t, began: time.Now(), notices: make(chan Notice, 64), script: script}
	s.ctx, s.cancel = context.WithCancel(t.Context())
	s.Supervisor = &Supervisor{
		Notices: s.notices,
		Start: func() (Process, error) {
			a := &actor{stage: s, n: len(s.actors) + 1, signals: make(chan syscall.Signal, 16), done: make(chan Exit, 1)}
			s.actors = append(s.actors, a)
			go s.script(a)
			return Process{PID: 100 + a.n, Done: a.done, Signal: func(sig syscall.Signal) error {
				a.got = append(a.got, sig)
				a.signals <- sig
				return nil
			}}, nil
		},
		Alive: func() { s.alive = append(s.alive, time.Now()) },
		Event: func(e Event) {
			text := map[Kind]string{Started: "started", Ready: "ready", Hangs: "hangs", Ended: "ended", Dropped: "dropped", Restarts: "again", Status: "status", Stops: "stops"}[e.Kind]
			switch {
			case e.Text != "":
				text += ": " + e.Text
			case e.Kind == Restarts:
				text += " in " + e.Pause.String()
			}
			s.log = append(s.log, fmt.Sprintf("%v %s", time.Since(s.began).Round(time.Second), text))
			if e.Kind == Ended && s.final.Load() {
				s.cancel()
			}
		},
		DropCaches: func() error { s.dropped++; return nil },
	}
	t.Cleanup(s.cancel)
	return s
}

func (a *actor) say(n Notice)  { n.PID = 100 + a.n; a.notices <- n }
func (a *actor) exit(code int) { a.done <- Exit{Code: code} }

// last exits, and the supervisor is to end when it has seen that.
func (a *actor) last(code int) { a.final.Store(true); a.exit(code) }

// well reports each 7 s for d; for ever when d is 0. It returns early at a
// signal.
func (a *actor) well(d time.Duration) syscall.Signal {
	a.say(Notice{Ready: true})
	began := time.Now()
	for d == 0 || time.Since(began) < d {
		a.say(Notice{Watchdog: true})
		select {
		case sig := <-a.signals:
			return sig
		case <-time.After(7 * time.Second):
		}
	}
	return 0
}

// until waits for a signal.
func (a *actor) until(want syscall.Signal) {
	for sig := range a.signals {
		if sig == want {
			return
		}
	}
}

// steady holds that the supervisor showed each second that it lives.
func (s *stage) steady() {
	s.t.Helper()
	last := s.began
	for _, at := range append(s.alive, time.Now()) {
		if d := at.Sub(last); d > 2*time.Second {
			s.t.Errorf("the supervisor was silent for %v, from %v on", d, last.Sub(s.began))
		}
		last = at
	}
}

func (s *stage) logged(want ...string) {
	s.t.Helper()
	if !slices.Equal(s.log, want) {
		s.t.Errorf("events:\n\t%s\nwant:\n\t%s", strings.Join(s.log, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestRecorderThatReportsIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(p *actor) { p.until(p.well(0)); p.exit(0) })
		s.script = func(p *actor) {
			if sig := p.well(0); sig == syscall.SIGTERM {
				p.exit(0)
			}
		}
		go func() { <-time.After(24 * time.Hour); s.cancel() }()
		if reason := s.Run(s.ctx); reason != "" {
			t.Errorf("reboot: %s", reason)
		}
		s.logged("0s started", "0s ready", "24h0m0s ended: exit code 0")
		s.steady()
	})
}

// The ladder, rung by rung, with the times between.
func TestHungRecorderIsAbortedThenKilledThenStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			if p.n == 2 {
				if p.well(0) == syscall.SIGTERM {
					p.exit(0)
				}
				return
			}
			p.well(10 * time.Second) // the last report is at 7 s
			p.until(syscall.SIGKILL)
			p.done <- Exit{Code: -1, Signal: syscall.SIGKILL}
		}
		go func() { <-time.After(2 * time.Minute); s.cancel() }()
		s.Run(s.ctx)
		s.logged("0s started", "0s ready", "27s hangs: silent for 20s", "37s ended: silent for 20s",
			"37s again in 1s", "38s started", "38s ready", "2m0s ended: exit code 0")
		if want := []syscall.Signal{syscall.SIGABRT, syscall.SIGCONT, syscall.SIGKILL}; !slices.Equal(s.actors[0].got, want) {
			t.Errorf("signals %v, want %v", s.actors[0].got, want)
		}
		s.steady()
	})
}

func TestRecorderThatCannotBeKilledRebootsTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(p *actor) { p.say(Notice{Ready: true}) })
		if got, want := s.Run(s.ctx), "nvr cannot be killed: silent for 20s"; got != want {
			t.Errorf("reboot: %q, want %q", got, want)
		}
		if d := time.Since(s.began); d != 40*time.Second {
			t.Errorf("after %v, want 40s: silence, dump, kill", d)
		}
		s.steady()
	})
}

func TestFiveRestartsAreTriedBeforeAReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(p *actor) { p.exit(1) })
		if got, want := s.Run(s.ctx), "nvr ended 6 times in 10m0s, at last: exit code 1"; got != want {
			t.Errorf("reboot: %q, want %q", got, want)
		}
		if len(s.actors) != 6 || time.Since(s.began) != 31*time.Second {
			t.Errorf("%d starts in %v, want 6 in 1+2+4+8+16s", len(s.actors), time.Since(s.began))
		}
		s.steady()
	})
}

// Six starts that hang do not fit into ten minutes.
func TestRecorderThatHangsAtEachStartRebootsTheMachine(t *testing.T) {
	for how, script := range map[string]func(p *actor){
		"it obeys SIGABRT": func(p *actor) { p.until(syscall.SIGABRT); p.exit(2) },
		"it is killed":     func(p *actor) { p.until(syscall.SIGKILL); p.done <- Exit{Code: -1, Signal: syscall.SIGKILL} },
	} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, script)
				ctx, cancel := context.WithTimeout(s.ctx, 24*time.Hour)
				defer cancel()
				if got, want := s.Run(ctx), "nvr hung or was not ready 6 times in a row, at last: not ready after 2m0s"; got != want {
					t.Errorf("reboot: %q, want %q", got, want)
				}
				if d := time.Since(s.began); len(s.actors) != 6 || d > 14*time.Minute {
					t.Errorf("%d starts in %v, want 6 in less than 14m", len(s.actors), d)
				}
				s.steady()
			})
		})
	}
}

// It reports for a while each time, and then hangs.
func TestRecorderThatHangsAgainAndAgainRebootsTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(p *actor) {
			p.well(5 * time.Minute)
			if p.n == 3 { // a crash between does not make it well
				p.exit(1)
				return
			}
			p.until(syscall.SIGABRT)
			p.exit(2)
		})
		ctx, cancel := context.WithTimeout(s.ctx, 24*time.Hour)
		defer cancel()
		if got, want := s.Run(ctx), "nvr hung or was not ready 6 times in a row, at last: silent for 20s"; got != want {
			t.Errorf("reboot: %q, want %q", got, want)
		}
		if len(s.actors) != 7 {
			t.Errorf("%d starts, want 6 that hung and one that crashed", len(s.actors))
		}
	})
}

// A recorder that works for ten minutes at a time records more than a machine
// that reboots.
func TestRareHangsNeverReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			if p.well(11*time.Minute) == syscall.SIGTERM {
				p.exit(0)
				return
			}
			p.until(syscall.SIGABRT)
			p.exit(2)
		}
		ctx, cancel := context.WithTimeout(s.ctx, 24*time.Hour)
		defer cancel()
		if reason := s.Run(ctx); reason != "" {
			t.Errorf("reboot: %s", reason)
		}
		if n := len(s.actors); n < 100 {
			t.Errorf("%d starts in 24 hours, want one about each 11 minutes", n)
		}
	})
}

func TestRareCrashesNeverReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			if p.well(3*time.Minute) == syscall.SIGTERM {
				p.exit(0)
				return
			}
			p.exit(1)
		}
		go func() { <-time.After(5 * time.Hour); s.cancel() }()
		if reason := s.Run(s.ctx); reason != "" {
			t.Errorf("reboot: %s", reason)
		}
		if n := len(s.actors); n < 70 || n > 100 {
			t.Errorf("%d starts in 5 hours, want one about each 4 minutes: at most a minute's pause", n)
		}
		s.steady()
	})
}

func TestPauseIsShortAgainAfterARunThatWentWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			switch p.n {
			case 4:
				p.well(11 * time.Minute)
			case 5:
				p.until(syscall.SIGTERM)
			}
			p.exit(1)
		}
		go func() { <-time.After(12 * time.Minute); s.cancel() }()
		s.Run(s.ctx)
		s.logged("0s started", "0s ended: exit code 1", "0s again in 1s",
			"1s started", "1s ended: exit code 1", "1s again in 2s",
			"3s started", "3s ended: exit code 1", "3s again in 4s",
			"7s started", "7s ready", "11m12s ended: exit code 1", "11m12s again in 1s",
			"11m13s started", "12m0s ended: exit code 1")
	})
}

func TestPageCacheIsDroppedForARecorderThatDistrustsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			if p.n == 1 {
				p.exit(PoisonedCode)
				return
			}
			p.until(syscall.SIGTERM)
			p.exit(0)
		}
		go func() { <-time.After(time.Minute); s.cancel() }()
		s.Run(s.ctx)
		s.logged("0s started", "0s ended: exit code 3", "0s dropped", "0s again in 1s", "1s started", "1m0s ended: exit code 0")
		if s.dropped != 1 {
			t.Errorf("dropped %d times", s.dropped)
		}
	})
}

func TestSecondDistrustRebootsTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(p *actor) { p.exit(PoisonedCode) })
		if got, want := s.Run(s.ctx), "nvr does not trust the disk: exit code 3 2 times in 10m0s"; got != want {
			t.Errorf("reboot: %q, want %q", got, want)
		}
	})
}

func TestReadOnlyDiskRebootsAtOnceAfterALifeThatWasReady(t *testing.T) {
	for _, c := range []struct {
		name   string
		ready  bool
		futile func() string
		want   string
		lives  int
	}{
		{"was ready", true, func() string { return "read-only" },
			"to start nvr again is of no use: read-only (exit code 4)", 1},
		{"never ready", false, func() string { return "read-only" },
			"nvr ended 6 times in 10m0s, at last: exit code 4", 6},
		{"it may help", true, func() string { return "" },
			"nvr ended 6 times in 10m0s, at last: exit code 4", 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, func(p *actor) {
					if c.ready {
						p.well(7 * time.Second)
					}
					p.exit(4)
				})
				s.Futile = c.futile
				if got := s.Run(s.ctx); got != c.want || len(s.actors) != c.lives {
					t.Errorf("reboot after %d lives: %q, want %q after %d", len(s.actors), got, c.want, c.lives)
				}
			})
		})
	}
}

func TestRecorderOnAReadOnlyDiskIsStoppedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(p *actor) {
			if sig := p.well(10 * time.Minute); sig == syscall.SIGTERM {
				<-time.After(3 * time.Second)
			}
			p.exit(0)
		})
		s.Futile = func() string {
			if time.Since(s.began) < time.Minute {
				return ""
			}
			return "read-only"
		}
		if got, want := s.Run(s.ctx), "to start nvr again is of no use: read-only (exit code 0)"; got != want {
			t.Errorf("reboot: %q, want %q", got, want)
		}
		if d := time.Since(s.began); d > time.Minute+look+turn+5*time.Second {
			t.Errorf("after %v", d)
		}
		if !slices.ContainsFunc(s.log, func(e string) bool { return strings.HasSuffix(e, " stops: read-only") }) {
			t.Errorf("events: %s", strings.Join(s.log, ", "))
		}
		s.steady()
	})
}

func TestDiskThatDoesNotSayIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(p *actor) {
			p.well(7 * time.Second)
			p.exit(4)
		})
		s.Futile = func() string { <-t.Context().Done(); return "too late" }
		if got, want := s.Run(s.ctx), "nvr ended 6 times in 10m0s, at last: exit code 4"; got != want {
			t.Errorf("reboot: %q, want %q", got, want)
		}
		s.steady()
	})
}

func TestPageCacheThatTakesForEverIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(p *actor) { p.exit(PoisonedCode) })
		s.DropCaches = func() error { <-t.Context().Done(); return errors.New("too late") }
		s.Run(s.ctx)
		if !slices.Contains(s.log, "10s dropped: not done after 10s") {
			t.Errorf("events: %s", strings.Join(s.log, ", "))
		}
		s.steady()
	})
}

func TestStartMayAskForMoreTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			for range 30 { // ten seconds each, then nothing
				<-time.After(10 * time.Second)
				p.say(Notice{Extend: time.Minute})
			}
			p.until(syscall.SIGABRT)
			p.last(2)
		}
		s.Run(s.ctx)
		s.logged("0s started", "6m0s hangs: not ready after 6m0s", "6m0s ended: not ready after 6m0s")
	})
}

// Asking for a second must not take minutes away.
func TestAskingForLittleTimeCostsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			p.say(Notice{Extend: time.Second})
			p.until(syscall.SIGABRT)
			p.last(2)
		}
		s.Run(s.ctx)
		s.logged("0s started", "2m0s hangs: not ready after 2m0s", "2m0s ended: not ready after 2m0s")
	})
}

func TestStartThatAsksForEverIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			for {
				select {
				case sig := <-p.signals:
					if sig == syscall.SIGABRT {
						p.last(2)
						return
					}
				case <-time.After(time.Minute):
					p.say(Notice{Extend: 2 * time.Minute})
				}
			}
		}
		s.Run(s.ctx)
		s.logged("0s started", "1h0m0s hangs: not ready after 1h0m0s", "1h0m0s ended: not ready after 1h0m0s")
	})
}

// A stop has its own hour, however long the process ran before. It may ask in
// the message that says that it stops.
func TestStopMayAskForMoreTime(t *testing.T) {
	for how, ask := range map[string][]Notice{
		"in one message": {{Stopping: true, Extend: time.Minute}},
		"in two":         {{Stopping: true}, {Extend: time.Minute}},
	} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, nil)
				s.script = func(p *actor) {
					p.well(0)
					for _, n := range ask {
						p.say(n)
					}
					select {
					case <-time.After(50 * time.Second):
						p.exit(0)
					case sig := <-p.signals:
						p.exit(100 + int(sig))
					}
				}
				go func() { <-time.After(2 * time.Hour); s.cancel() }()
				s.Run(s.ctx)
				s.logged("0s started", "0s ready", "2h0m50s ended: exit code 0")
			})
		})
	}
}

func TestStopOfItsOwnMayAskForMoreTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			p.well(49 * time.Second)
			p.say(Notice{Stopping: true, Extend: time.Minute})
			select {
			case <-time.After(50 * time.Second):
				p.last(0)
			case sig := <-p.signals:
				p.last(100 + int(sig))
			}
		}
		s.Run(s.ctx)
		s.logged("0s started", "0s ready", "1m39s ended: exit code 0")
	})
}

func TestStopThatAsksForEverIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			p.well(0)
			for {
				p.say(Notice{Extend: 2 * time.Minute})
				select {
				case <-time.After(time.Minute):
				case <-p.signals:
					p.exit(2)
					return
				}
			}
		}
		go func() { <-time.After(2 * time.Hour); s.cancel() }()
		s.Run(s.ctx)
		s.logged("0s started", "0s ready", "3h0m0s hangs: does not stop", "3h0m0s ended: does not stop")
	})
}

// Another process that has the same user must not speak for the recorder.
func TestNoticesOfOthersCountForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			p.say(Notice{Ready: true})
			go func() {
				for {
					select {
					case <-s.ctx.Done():
						return
					case <-time.After(5 * time.Second):
						s.notices <- Notice{PID: 99, Watchdog: true}
					}
				}
			}()
			p.until(syscall.SIGABRT)
			p.last(2)
		}
		s.Run(s.ctx)
		s.logged("0s started", "0s ready", "20s hangs: silent for 20s", "20s ended: silent for 20s")
	})
}

func TestRecorderMayCallItselfHung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			p.say(Notice{Ready: true})
			p.say(Notice{Trigger: true})
			p.until(syscall.SIGABRT)
			p.last(2)
		}
		s.Run(s.ctx)
		s.logged("0s started", "0s ready", "0s hangs: it says so itself", "0s ended: it says so itself")
	})
}

func TestRecorderThatDoesNotStopIsKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.script = func(p *actor) {
			p.say(Notice{Ready: true})
			p.until(syscall.SIGKILL)
			p.done <- Exit{Code: -1, Signal: syscall.SIGKILL}
		}
		go func() { <-time.After(5 * time.Second); s.cancel() }()
		if reason := s.Run(s.ctx); reason != "" {
			t.Errorf("reboot: %s", reason)
		}
		s.logged("0s started", "0s ready", "15s hangs: does not stop", "25s ended: does not stop")
	})
}

// The page cache was dropped, and the disk that has to be read stalls.
func TestSlowStartIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(p *actor) { p.well(0); p.exit(0) })
		start := s.Start
		s.Start = func() (Process, error) { <-time.After(50 * time.Second); return start() }
		go func() { <-time.After(2 * time.Minute); s.cancel() }()
		if reason := s.Run(s.ctx); reason != "" {
			t.Errorf("reboot: %s", reason)
		}
		s.logged("50s started", "50s ready", "2m0s ended: exit code 0")
		s.steady()
	})
}

func TestStartThatNeverAnswersRebootsTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(p *actor) { p.until(syscall.SIGKILL) })
		start := s.Start
		s.Start = func() (Process, error) { <-time.After(time.Hour); return start() }
		if got, want := s.Run(s.ctx), "nvr does not start: no answer for 2m0s"; got != want {
			t.Errorf("reboot: %q, want %q", got, want)
		}
		s.steady()
		// It answers after all. Nobody supervises that one.
		<-time.After(2 * time.Hour)
		synctest.Wait()
		if len(s.actors) != 1 || !slices.Equal(s.actors[0].got, []syscall.Signal{syscall.SIGKILL}) {
			t.Errorf("%d processes, signals %v; want one that is killed", len(s.actors), s.actors[0].got)
		}
	})
}

func TestProgramThatDoesNotStartIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		s.Start = func() (Process, error) { return Process{}, errors.New("start nvr: no such file or directory") }
		want := "nvr ended 6 times in 10m0s, at last: start nvr: no such file or directory"
		if got := s.Run(s.ctx); got != want {
			t.Errorf("reboot: %q, want %q", got, want)
		}
	})
}
