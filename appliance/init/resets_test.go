package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// device is a machine whose starts and ends are played, in running time.
type device struct {
	*testing.T
	path   string
	ledger *ledger
	up     time.Duration
	wall   time.Time
	fired  bool
}

func newDevice(t *testing.T) *device {
	return &device{T: t, path: filepath.Join(t.TempDir(), "resets"), wall: time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)}
}

// start starts the machine and reports whether it is in safe mode.
func (d *device) start() (safe bool) {
	d.Helper()
	d.up = 3 * time.Second
	d.ledger = newLedger()
	d.ledger.uptime = func() time.Duration { return d.up }
	d.ledger.now = func() time.Time { return d.wall }
	if err := d.ledger.open(d.path); err != nil {
		d.Fatal(err)
	}
	if err := d.ledger.change(func(h *history, now time.Time) { safe = h.begin(now, d.fired) }); err != nil {
		d.Fatal(err)
	}
	d.fired = false
	return safe
}

// run lets the machine run, with the word on its running time each ten minutes.
func (d *device) run(t time.Duration) {
	for ; t > 0; t -= 10 * time.Minute {
		d.up += min(t, 10*time.Minute)
		if t >= 10*time.Minute {
			d.note()
		}
	}
}

func (d *device) rests() bool { return d.ledger.snapshot().Rest }

// ready is the recorder's word.
func (d *device) ready() {
	d.Helper()
	if err := d.ledger.change(func(h *history, _ time.Time) { h.ready() }); err != nil {
		d.Fatal(err)
	}
}

func (d *device) note() {
	d.Helper()
	if err := d.ledger.change(func(*history, time.Time) {}); err != nil {
		d.Fatal(err)
	}
}

// end ends it with a reason, "" for an order.
func (d *device) end(reason string) {
	d.Helper()
	if err := d.ledger.end(reason, true); err != nil {
		d.Fatal(err)
	}
	if err := d.ledger.close(); err != nil {
		d.Fatal(err)
	}
}

func (d *device) reasons() []string {
	var all []string
	for _, r := range d.ledger.snapshot().Resets {
		all = append(all, r.Reason)
	}
	return all
}

func TestReasonSurvivesTheReset(t *testing.T) {
	d := newDevice(t)
	d.start()
	d.run(time.Minute)
	d.end("nvr cannot be killed: silent for 20s")
	d.start()
	want := []reset{{Time: "2026-11-23T14:00:00Z", Boot: 1, Ran: 63, Counts: true, Reason: "nvr cannot be killed: silent for 20s"}}
	if diff := cmp.Diff(want, d.ledger.snapshot().Resets); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// The first reason is the cause; petting that stops during the reboot is not.
func TestFirstReasonIsKept(t *testing.T) {
	d := newDevice(t)
	d.start()
	for _, reason := range []string{"nvr hangs", "process 1 hung"} {
		if err := d.ledger.end(reason, true); err != nil {
			t.Fatal(err)
		}
	}
	if got := d.reasons(); !cmp.Equal(got, []string{"nvr hangs"}) {
		t.Errorf("reasons %q", got)
	}
}

func TestOrderedRebootIsNoReset(t *testing.T) {
	d := newDevice(t)
	for range 10 {
		if d.start() {
			t.Fatal("safe mode")
		}
		d.run(time.Minute)
		d.end("")
	}
	if got := d.reasons(); len(got) > 0 {
		t.Errorf("reasons %q", got)
	}
}

func TestClockThatWasNotSetIsNotShown(t *testing.T) {
	d := newDevice(t)
	d.wall = time.Unix(100, 0)
	d.start()
	d.end("nvr hangs")
	if r := d.ledger.snapshot().Resets; r[0].Time != "" {
		t.Errorf("time %q, and the clock says 1970", r[0].Time)
	}
}

func TestThreeResetsInAnHourOfRunningAreTheBrake(t *testing.T) {
	for name, c := range map[string]struct {
		ran  []time.Duration // before each reset
		want bool
	}{
		"three at once":        {[]time.Duration{time.Minute, time.Minute, time.Minute}, true},
		"two":                  {[]time.Duration{time.Minute, time.Minute}, false},
		"within an hour":       {[]time.Duration{10 * time.Hour, 29 * time.Minute, 29 * time.Minute}, true},
		"in more than an hour": {[]time.Duration{10 * time.Hour, 31 * time.Minute, 31 * time.Minute}, false},
		"each after an hour":   {[]time.Duration{61 * time.Minute, 61 * time.Minute, 61 * time.Minute, 61 * time.Minute}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			for _, ran := range c.ran {
				if d.start() {
					t.Fatal("safe mode too early")
				}
				d.run(ran)
				d.end("nvr hangs")
			}
			if got := d.start(); got != c.want {
				t.Errorf("safe mode %v, want %v", got, c.want)
			}
		})
	}
}

// A site with bad power must go on recording, though some cuts come while it
// starts.
func TestPowerCutsAreNoBrake(t *testing.T) {
	d := newDevice(t)
	for i := range 300 {
		if d.start() || d.rests() {
			t.Fatalf("it does not record after %d cuts", i)
		}
		if i%restStarts == 0 {
			d.ready()
			d.up += 20 * time.Second
		}
	}
	if got := d.reasons(); len(got) != keepResets || !strings.Contains(got[0], "power lost") {
		t.Errorf("reasons %q", got)
	}
}

// A machine that hangs or panics in each start, before anything could be
// written, stops for a while and says so. Then it tries again.
func TestStartsThatEndWithoutAWordAreFollowedByARest(t *testing.T) {
	d := newDevice(t)
	for round := range 3 {
		for i := range restStarts {
			if d.start() || d.rests() {
				t.Fatalf("round %d: it rests after %d ends without a word", round, i)
			}
		}
		if d.start() || !d.rests() {
			t.Fatalf("round %d: no rest after %d ends without a word", round, restStarts)
		}
		switch round {
		case 0: // it is over, and what follows is a start like any other
			if err := d.ledger.change(func(h *history, _ time.Time) { h.Rest = false }); err != nil {
				t.Fatal(err)
			}
			d.end("")
		case 1: // somebody pulls the plug
		}
	}
	if got := d.reasons(); !strings.Contains(got[len(got)-1], "before the recorder was ready") {
		t.Errorf("reasons %q", got)
	}
}

// The hour of safe mode, and a plug that is pulled in it, are no failed start.
func TestSafeModeIsNoFailedStart(t *testing.T) {
	d := braked(t)
	d.run(time.Minute)
	d.start()
	if n := d.ledger.snapshot().Silent; n != 0 {
		t.Errorf("%d failed starts", n)
	}
}

func TestHardwareResetCounts(t *testing.T) {
	d := newDevice(t)
	for range 3 {
		if d.start() {
			t.Fatal("safe mode too early")
		}
		d.fired = true
	}
	if !d.start() {
		t.Error("no safe mode after three resets by the hardware")
	}
}

func braked(t *testing.T) *device {
	d := newDevice(t)
	for range brakeResets {
		d.start()
		d.end("nvr hangs")
	}
	if !d.start() {
		t.Fatal("no safe mode")
	}
	return d
}

func TestSafeModeEndsAfterAnHourOfRunning(t *testing.T) {
	d := braked(t)
	h := d.ledger.snapshot()
	h.Ran += int64((59 * time.Minute) / time.Second)
	if !h.braked() {
		t.Error("over after 59 minutes")
	}
	h.Ran += 60
	if h.braked() {
		t.Error("not over after an hour")
	}
}

func TestPulledPlugEndsSafeMode(t *testing.T) {
	d := braked(t)
	d.run(time.Minute)
	if d.start() { // nothing was written before
		t.Error("still in safe mode after somebody pulled the plug")
	}
	d.end("nvr hangs")
	if d.start() {
		t.Error("one reset after that is safe mode again: the old ones count")
	}
}

func TestOrderedRebootDoesNotEndSafeMode(t *testing.T) {
	d := braked(t)
	d.end("")
	if !d.start() {
		t.Error("an ordered reboot ended safe mode")
	}
}

// A power cut while a slot is written leaves the other one.
func TestTornWriteLeavesTheHistoryBeforeIt(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	d := newDevice(t)
	d.start()
	for i := range 300 {
		if err := d.ledger.change(func(h *history, now time.Time) {
			h.Running = true
			h.add(now, fmt.Sprintf("reset %d, %s", i, strings.Repeat("x", rnd.IntN(300))), true)
		}); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(d.path)
		if err != nil {
			t.Fatal(err)
		}
		want := d.ledger.snapshot()
		if err := d.ledger.change(func(h *history, now time.Time) { h.add(now, "the last", true) }); err != nil {
			t.Fatal(err)
		}
		torn, err := os.ReadFile(d.path)
		if err != nil {
			t.Fatal(err)
		}
		whole, differs := true, false
		for s := 0; s < len(torn); s += 512 {
			if string(torn[s:s+512]) == string(before[s:s+512]) {
				continue
			}
			if rnd.IntN(2) == 0 {
				copy(torn[s:s+512], before[s:s+512])
				whole = false
			} else {
				differs = true
			}
		}
		if err := os.WriteFile(d.path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		l := newLedger()
		l.uptime = func() time.Duration { return 0 }
		if err := l.open(d.path); err != nil {
			t.Fatal(err)
		}
		got := l.snapshot()
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		if whole {
			want = d.ledger.snapshot()
		}
		if last := got.Resets[len(got.Resets)-1].Reason; !cmp.Equal(want.Resets[len(want.Resets)-1].Reason, last) {
			t.Fatalf("write %d, whole %v, begun %v: last is %q", i, whole, differs, last)
		}
		if err := os.WriteFile(d.path, before, 0o600); err != nil {
			t.Fatal(err)
		}
		// Go on from what the disk holds.
		d.ledger = newLedger()
		d.ledger.uptime = func() time.Duration { return d.up }
		d.ledger.now = func() time.Time { return d.wall }
		if err := d.ledger.open(d.path); err != nil {
			t.Fatal(err)
		}
	}
}

// torn writes the beginning of a slot and then fails, each time.
type torn struct{ *os.File }

func (f torn) WriteAt(b []byte, at int64) (int, error) {
	_, _ = f.File.WriteAt(b[:100], at)
	return 100, os.ErrInvalid
}

// lost takes each write and cannot sync it.
type lost struct{ *os.File }

func (f lost) WriteAt(b []byte, at int64) (int, error) {
	_, _ = f.File.WriteAt(b[:100], at)
	return len(b), nil
}
func (lost) Sync() error { return os.ErrInvalid }

// However often a write fails, the slot written before holds.
func TestFailedWritesLeaveTheHistoryBeforeThem(t *testing.T) {
	for how, fails := range map[string]func(*os.File) slots{
		"write": func(f *os.File) slots { return torn{f} },
		"sync":  func(f *os.File) slots { return lost{f} },
	} {
		d := newDevice(t)
		d.start()
		d.end("nvr hangs")
		d.start()
		file := d.ledger.file.(*os.File)
		d.ledger.file = fails(file)
		for range 3 {
			d.run(time.Minute)
			if err := d.ledger.end("another reason", true); err == nil {
				t.Errorf("%s: no error", how)
			}
		}
		l := newLedger()
		if err := l.open(d.path); err != nil {
			t.Fatal(err)
		}
		if h := l.snapshot(); h.Boots != 2 || len(h.Resets) != 1 || h.Resets[0].Reason != "nvr hangs" {
			t.Errorf("%s: after failed writes the disk says %+v", how, h)
		}
		d.ledger.file = file
		d.note()
		if err := l.open(d.path); err != nil {
			t.Fatal(err)
		}
		if h := l.snapshot(); len(h.Resets) != 2 {
			t.Errorf("%s: once the disk writes again it says %+v", how, h)
		}
	}
}

func TestGarbageInTheFileOfResetsIsNoHindrance(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty": nil, "short": []byte("HFRS"), "zeros": make([]byte, 2*slotSize),
		"garbage": []byte(strings.Repeat("HFRS\x01\x00\x00\x00\xff", 1000)),
	} {
		d := newDevice(t)
		if err := os.WriteFile(d.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		d.start()
		d.end("nvr hangs")
		d.start()
		if got := d.reasons(); !cmp.Equal(got, []string{"nvr hangs"}) {
			t.Errorf("%s: reasons %q", name, got)
		}
	}
}

func FuzzSlot(f *testing.F) {
	b, err := writeSlot(history{Boots: 3, Resets: []reset{{Reason: "x"}}}, 7)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		slot := make([]byte, slotSize)
		copy(slot, b)
		readSlot(slot)
	})
}

// A disk that hangs must not hold up the reboot.
func TestNobodyWaitsForADiskThatHangs(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	if err := within(10*time.Millisecond, func() error { <-block; return nil }); err == nil {
		t.Error("it says that it is done")
	}
	if err := within(time.Hour, func() error { return os.ErrInvalid }); err != os.ErrInvalid {
		t.Errorf("got %v", err)
	}
}
