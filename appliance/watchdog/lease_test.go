package watchdog

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestPettingStopsForGoodWhenTheLeaseRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLease(10 * time.Second)
		var pets atomic.Int32
		done := make(chan struct{})
		go func() {
			Keep(t.Context(), l, time.Second, func() error { pets.Add(1); return nil })
			close(done)
		}()
		<-time.After(5500 * time.Millisecond)
		l.Renew(10 * time.Second)
		began := time.Now()
		<-done
		if got := time.Since(began); got < 10*time.Second || got > 11*time.Second {
			t.Errorf("petting went on for %v after the renewal of 10s", got)
		}
		if n := pets.Load(); n != 16 {
			t.Errorf("petted %d times in 15.5s, want 16", n)
		}
		l.Renew(time.Hour)
		if l.Valid() {
			t.Error("a lease that ran out was renewed")
		}
	})
}

func TestRenewalShortensALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLease(time.Hour)
		l.Renew(20 * time.Second)
		<-time.After(21 * time.Second)
		if l.Valid() {
			t.Error("the lease of the start outlives the renewal of the supervisor")
		}
	})
}

// A lease that lapsed while nobody looked is over, though somebody renews it
// before the next look.
func TestLapsedLeaseIsNotRenewedUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLease(time.Second)
		<-time.After(2 * time.Second)
		l.Renew(time.Minute)
		if l.Valid() {
			t.Error("a lease that lapsed was renewed")
		}
	})
}

func TestEndedLeaseIsOver(t *testing.T) {
	l := NewLease(time.Hour)
	l.End()
	l.Renew(time.Hour)
	if l.Valid() {
		t.Error("an ended lease is valid")
	}
}

func TestFailedPetIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		n := 0
		Keep(ctx, NewLease(time.Hour), time.Second, func() error { n++; return errors.New("busy") })
		if n != 4 {
			t.Errorf("petted %d times in 3.5s, want 4", n)
		}
	})
}

// fakeFile is a watchdog that resets nothing.
type fakeFile struct {
	most   int // timeout it takes at most; 0: it takes none
	set    int
	noText bool
	pets   int

	running bool // what the hardware does
	active  bool // what the kernel takes it for
	never   bool // it cannot be stopped
}

func (f *fakeFile) identity() (string, error) {
	if f.noText {
		return "", errors.New("inappropriate ioctl")
	}
	return "a timer", nil
}
func (f *fakeFile) fired() bool { return false }
func (f *fakeFile) setTimeout(s int) (int, error) {
	if f.most == 0 {
		return 0, errors.New("inappropriate ioctl")
	}
	f.set = min(s, f.most)
	return f.set, nil
}
func (f *fakeFile) timeout() (int, error) {
	if f.noText {
		return 0, errors.New("inappropriate ioctl")
	}
	return f.set, nil
}
func (f *fakeFile) pet() error { f.pets++; return nil }

// setOptions is that of the kernel's watchdog core.
func (f *fakeFile) setOptions(options int) error {
	if options&unix.WDIOS_DISABLECARD != 0 {
		if f.never {
			return unix.EBUSY
		}
		f.active, f.running = false, false
	}
	if options&unix.WDIOS_ENABLECARD != 0 && !f.active {
		f.active, f.running = true, true
	}
	return nil
}

// A reboot stops the hardware, and the kernel does not note that.
func TestWatchdogThatARebootStoppedIsStartedAgain(t *testing.T) {
	f := &fakeFile{most: 60, active: true}
	d, err := newDevice(f, 15*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Rearm(); err != nil || !f.running {
		t.Errorf("running %v, %v", f.running, err)
	}
	f.never, f.running = true, true
	if err := d.Rearm(); err != nil || !f.running {
		t.Errorf("one that never stops: running %v, %v", f.running, err)
	}
}

func TestDeviceTellsTheTimeoutThatItTook(t *testing.T) {
	for name, c := range map[string]struct {
		file fakeFile
		want Device
	}{
		"as asked":      {fakeFile{most: 60}, Device{Identity: "a timer", Timeout: 15 * time.Second}},
		"less":          {fakeFile{most: 10}, Device{Identity: "a timer", Timeout: 10 * time.Second}},
		"its own":       {fakeFile{set: 30}, Device{Identity: "a timer", Timeout: 30 * time.Second}},
		"it tells none": {fakeFile{noText: true}, Device{Identity: "unnamed watchdog"}},
	} {
		d, err := newDevice(&c.file, 15*time.Second)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.Identity != c.want.Identity || d.Timeout != c.want.Timeout || c.file.pets != 1 {
			t.Errorf("%s: %q, %v, petted %d times; want %q, %v, once", name, d.Identity, d.Timeout, c.file.pets, c.want.Identity, c.want.Timeout)
		}
	}
}

func TestMachineWithoutWatchdogSaysSo(t *testing.T) {
	if d, err := Open(t.TempDir()+"/watchdog", time.Second); d != nil || err == nil {
		t.Errorf("opened %v, %v", d, err)
	}
}
