package watchdog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits are the times and counts of the ladder. The zero value of a field
// stands for the number in its comment.
type Limits struct {
	Silence time.Duration // 20 s: longest time between two WATCHDOG=1
	Start   time.Duration // 2 min: from start to READY=1, unless the process asks for more
	Longest time.Duration // 1 h: for a start or a stop, whatever the process asks for
	Dump    time.Duration // 10 s: from SIGABRT to SIGKILL, time to write its goroutines
	Kill    time.Duration // 10 s: from SIGKILL until the process has to be gone
	Stop    time.Duration // 10 s: from SIGTERM to SIGKILL

	Window   time.Duration // 10 min: the time in which restarts count
	Restarts int           // 5: so many restarts within Window, or in a row after failures, and the next is a reboot
	Poisoned int           // 2: so many exits with PoisonedCode within Window are a reboot

	FirstPause, LastPause time.Duration // 1 s doubling to 60 s: before a restart
}

// PoisonedCode is the exit code of a recorder that does not trust the page
// cache any more (nvr/cmd/nvr).
const PoisonedCode = 3

// turn is how often the supervisor shows that it lives.
const turn = time.Second

// look is how often it is asked whether the process can do its work at all.
const look = 5 * time.Second

func (l Limits) orDefault() Limits {
	set := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.Silence, 20*time.Second)
	set(&l.Start, 2*time.Minute)
	set(&l.Longest, time.Hour)
	set(&l.Dump, 10*time.Second)
	set(&l.Kill, 10*time.Second)
	set(&l.Stop, 10*time.Second)
	set(&l.Window, 10*time.Minute)
	set(&l.FirstPause, time.Second)
	set(&l.LastPause, time.Minute)
	if l.Restarts == 0 {
		l.Restarts = 5
	}
	if l.Poisoned == 0 {
		l.Poisoned = 2
	}
	return l
}

// Process is one started process, the leader of its process group.
type Process struct {
	PID    int
	Signal func(syscall.Signal) error // to the whole group
	Done   <-chan Exit                // delivers once, when it has ended and its output is read
}

// Exit is how a process ended.
type Exit struct {
	Code   int            // -1 when a signal ended it
	Signal syscall.Signal // 0 when none did
	Err    error          // why it did not even start, or is not known to have ended
}

func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Signal != 0:
		return "ended by " + unix.SignalName(e.Signal)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// Event is something that happened to the process.
type Event struct {
	Kind   Kind
	Text   string        // why, for Hangs, Ended and Status
	Exit   Exit          // for Ended
	Hung   bool          // for Ended: it had to be killed
	Pause  time.Duration // for Restarts
	Uptime time.Duration // for Ended
}

// Kind is the kind of an event.
type Kind int

// The kinds of events.
const (
	Started  Kind = iota
	Ready         // it said READY=1
	Status        // it said STATUS
	Hangs         // the ladder begins; SIGABRT follows
	Ended         // it is gone
	Dropped       // the page cache was dropped; Text is why it was not
	Restarts      // it is started again after Pause
	Stops         // it is told to stop, for what Text says
)

// Supervisor keeps one process running and climbs the ladder when it hangs.
// The fields are set before Run and not changed after. Alive and Event are
// called from Run and must not wait for anything slow, or the lease runs out.
type Supervisor struct {
	Limits  Limits
	Notices <-chan Notice // of any process; those of others are passed over
	Alive   func()        // called each second: the supervisor runs
	Event   func(Event)

	// Start starts the process. It runs on a goroutine of its own and may take
	// long. After Limits.Start Run returns, and what it starts then is killed.
	Start func() (Process, error)

	// DropCaches drops the page cache. It runs on a goroutine of its own and
	// may take long; after Limits.Kill nobody waits for it.
	DropCaches func() error

	// Futile says why neither the process nor another start of it can do its work,
	// but a reboot helps; "" when that is not so. It is asked while a process is
	// ready, which is told to stop then, and when one that was ready has ended.
	// It runs on a goroutine of its own; after Limits.Kill nobody waits for it.
	// nil: it is never so.
	Futile func() string
}

// state is where a process stands on the ladder.
type state int

const (
	starting state = iota // READY=1 is awaited
	running               // WATCHDOG=1 is awaited, again and again
	stopping              // SIGTERM was sent, or it says that it stops
	dumping               // SIGABRT was sent
	killing               // SIGKILL was sent
)

// Run starts the process and starts it again, until ctx is done, when it stops
// it and returns "", or until only a reboot is left, when it returns the reason.
// The process may be alive then, if not even SIGKILL ended it.
func (s *Supervisor) Run(ctx context.Context) (reboot string) {
	l := s.Limits.orDefault()
	var restarts, poisoned []time.Time
	pause := l.FirstPause
	failures := 0 // lives that hung or never were ready, since one that did well for long
	for {
		end := s.life(ctx, l)
		switch {
		case end.reboot != "":
			return end.reboot
		case ctx.Err() != nil:
			return ""
		}
		if end.ready && s.Futile != nil {
			// One that was never ready is not asked about: where a reboot does not
			// help either, what counts such ends has to slow it down.
			if why, _ := await(s, l.Kill, s.Futile); why != "" {
				return fmt.Sprintf("to start nvr again is of no use: %s (%s)", why, end.exit)
			}
		}
		now := time.Now()
		if end.well >= l.Window {
			pause, failures = l.FirstPause, 0
		}
		if end.hung || !end.ready {
			// Counted apart: a start that hangs takes so long that few of them
			// are within Window.
			failures++
		}
		recent := func(t time.Time) bool { return now.Sub(t) >= l.Window }
		restarts = slices.DeleteFunc(restarts, recent)
		poisoned = slices.DeleteFunc(poisoned, recent)
		if end.exit.Code == PoisonedCode {
			if poisoned = append(poisoned, now); len(poisoned) >= l.Poisoned {
				return fmt.Sprintf("nvr does not trust the disk: exit code %d %d times in %v", PoisonedCode, len(poisoned), l.Window)
			}
			s.drop(l)
		}
		switch {
		case len(restarts) >= l.Restarts:
			return fmt.Sprintf("nvr ended %d times in %v, at last: %s", len(restarts)+1, l.Window, end.why)
		case failures > l.Restarts:
			return fmt.Sprintf("nvr hung or was not ready %d times in a row, at last: %s", failures, end.why)
		}
		restarts = append(restarts, now)
		s.Event(Event{Kind: Restarts, Pause: pause})
		if !s.sleep(ctx, pause) {
			return ""
		}
		pause = min(2*pause, l.LastPause)
	}
}

// end is the end of one life of the process.
type end struct {
	exit   Exit
	why    string
	hung   bool          // it had to be killed
	ready  bool          // it said READY=1
	well   time.Duration // from READY=1 to the end
	reboot string        // why only a reboot is left: it may be alive
}

// life starts the process and returns when it has ended.
func (s *Supervisor) life(ctx context.Context, l Limits) end {
	p, err := s.start(l)
	if errors.Is(err, errStart) {
		return end{reboot: fmt.Sprintf("nvr does not start: no answer for %v", l.Start)}
	}
	if err != nil {
		e := Exit{Code: -1, Err: err}
		s.Event(Event{Kind: Ended, Exit: e, Text: e.String()})
		return end{exit: e, why: e.String()}
	}
	began := time.Now()
	s.Event(Event{Kind: Started})

	at, why, hung := starting, "", false
	var ready time.Time
	entered, until := began, began.Add(l.Start)
	deadline := time.NewTimer(l.Start)
	defer deadline.Stop()
	within := func(d time.Duration) {
		until = time.Now().Add(d)
		deadline.Reset(d)
	}
	tick := time.NewTicker(turn)
	defer tick.Stop()

	climb := func(to state, after time.Duration, signals ...syscall.Signal) {
		at, entered = to, time.Now()
		for _, sig := range signals {
			_ = p.Signal(sig) // it may have ended meanwhile, which Done will tell
		}
		within(after)
	}
	hang := func(text string) {
		why, hung = text, true
		s.Event(Event{Kind: Hangs, Text: text})
		// A stopped process takes no signal but SIGKILL until it goes on.
		climb(dumping, l.Dump, syscall.SIGABRT, syscall.SIGCONT)
	}
	done := ctx.Done()
	looks, looked := make(chan string, 1), began // one is under way when looked is zero
	for {
		select {
		case <-tick.C:
			s.Alive()
			if s.Futile != nil && at == running && !looked.IsZero() && time.Since(looked) >= look {
				looked = time.Time{}
				go func() { looks <- s.Futile() }()
			}

		case futile := <-looks:
			looked = time.Now()
			if futile != "" && at == running {
				// What goes to other disks is written to its end.
				s.Event(Event{Kind: Stops, Text: futile})
				climb(stopping, l.Stop, syscall.SIGTERM)
			}

		case e := <-p.Done:
			if why == "" {
				why = e.String()
			}
			s.Event(Event{Kind: Ended, Exit: e, Text: why, Hung: hung, Uptime: time.Since(began)})
			over := end{exit: e, why: why, hung: hung, ready: !ready.IsZero()}
			if over.ready {
				over.well = time.Since(ready)
			}
			return over

		case <-done:
			done = nil
			if at < stopping {
				climb(stopping, l.Stop, syscall.SIGTERM)
			}

		case n := <-s.Notices:
			if n.PID != p.PID {
				continue
			}
			if n.Status != "" {
				s.Event(Event{Kind: Status, Text: n.Status})
			}
			switch {
			case at >= dumping:
				// Too late.
				continue
			case n.Trigger:
				hang("it says so itself")
				continue
			case n.Stopping && at != stopping:
				climb(stopping, l.Stop)
			case at == starting && n.Ready:
				at, ready = running, time.Now()
				within(l.Silence)
				s.Event(Event{Kind: Ready})
			case at == running && n.Watchdog:
				within(l.Silence)
			}
			if at != running && n.Extend > time.Until(until) {
				// It asks for more than it has; less is no wish to have less.
				within(min(n.Extend, time.Until(entered.Add(l.Longest))))
			}

		case <-deadline.C:
			switch at {
			case starting:
				hang(fmt.Sprintf("not ready after %v", time.Since(began).Round(time.Second)))
			case running:
				hang(fmt.Sprintf("silent for %v", l.Silence))
			case stopping:
				hang("does not stop")
			case dumping:
				climb(killing, l.Kill, syscall.SIGKILL)
			case killing:
				return end{reboot: "nvr cannot be killed: " + why}
			}
		}
	}
}

// errStart says that a start has no answer: fork and exec read the disk.
var errStart = errors.New("no answer")

// start starts the process, or returns errStart when that takes too long. A
// process that comes later is killed: nobody would know it.
func (s *Supervisor) start(l Limits) (Process, error) {
	type answer struct {
		p   Process
		err error
	}
	answers, gone := make(chan answer), make(chan struct{})
	go func() {
		p, err := s.Start()
		select {
		case answers <- answer{p, err}:
		case <-gone:
			if err == nil {
				_ = p.Signal(syscall.SIGKILL)
			}
		}
	}()
	limit := time.NewTimer(l.Start)
	defer limit.Stop()
	tick := time.NewTicker(turn)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.Alive()
		case a := <-answers:
			return a.p, a.err
		case <-limit.C:
			close(gone)
			return Process{}, errStart
		}
	}
}

// drop drops the page cache, and goes on when that takes too long.
func (s *Supervisor) drop(l Limits) {
	err, ok := await(s, l.Kill, s.DropCaches)
	e := Event{Kind: Dropped}
	switch {
	case !ok:
		e.Text = fmt.Sprintf("not done after %v", l.Kill)
	case err != nil:
		e.Text = err.Error()
	}
	s.Event(e)
}

// await calls f on a goroutine of its own, for it may hang, and returns what it
// says; ok is false when that took longer than limit.
func await[T any](s *Supervisor, limit time.Duration, f func() T) (said T, ok bool) {
	done := make(chan T, 1)
	go func() { done <- f() }()
	over := time.NewTimer(limit)
	defer over.Stop()
	tick := time.NewTicker(turn)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.Alive()
		case said = <-done:
			return said, true
		case <-over.C:
			s.Alive() // the tick of this moment may be lost with the timer
			return said, false
		}
	}
}

// sleep waits, and reports whether it was for the whole time.
func (s *Supervisor) sleep(ctx context.Context, d time.Duration) bool {
	over := time.NewTimer(d)
	defer over.Stop()
	tick := time.NewTicker(turn)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.Alive()
		case <-s.Notices: // of a process that is gone
		case <-ctx.Done():
			return false
		case <-over.C:
			s.Alive() // as in await
			return true
		}
	}
}
