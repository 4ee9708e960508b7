// Package watchdog is what resets a machine that hangs: the hardware device and
// who may pet it, the socket on which the recorder reports (sd_notify), and the
// ladder that is climbed when it does not.
//
//	recorder ─ WATCHDOG=1 ─► Socket ─► Supervisor ─ Renew ─► Lease ─► Keep ─ Pet ─► Device
//	   each 7 s                        each second            atomic    goroutine     resets when unpetted
//
// Each arrow can break, and each break ends in a reset: the recorder's silence
// is met by the ladder, the ladder's own silence lets the lease run out, and a
// lease that has run out never comes back.
//
// The goroutine of Keep touches no disk and no console, and takes no lock; so
// nothing slow can hold it up, and a slow disk never resets a machine. What
// reboots, which files are written and what is shown does not belong here but
// in appliance/init. appliance/design/boot.md binds this package.
package watchdog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Device is an open hardware watchdog. The machine is reset when nobody pets it
// for Timeout. It is never closed: a process that ends leaves it running, since
// the letter that would stop it is never written.
type Device struct {
	Identity string        // as the driver names itself
	Timeout  time.Duration // as the driver took it
	Fired    bool          // the driver says that it reset the machine last time

	file deviceFile
}

// Open opens the watchdog at path, which starts it, and asks for a timeout. A
// driver that cannot set one keeps its own, which Timeout tells.
func Open(path string, timeout time.Duration) (*Device, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open watchdog: %w", err)
	}
	return newDevice(&file{f}, timeout)
}

// newDevice sets up an open device.
func newDevice(f deviceFile, timeout time.Duration) (*Device, error) {
	d := &Device{Identity: "unnamed watchdog", file: f}
	if name, err := f.identity(); err == nil && name != "" {
		d.Identity = name
	}
	d.Fired = f.fired()
	set, err := f.setTimeout(int(timeout / time.Second))
	if err != nil {
		if set, err = f.timeout(); err != nil {
			// It runs, and says nothing of how long. It is petted all the same.
			set = 0
		}
	}
	d.Timeout = time.Duration(set) * time.Second
	return d, f.pet()
}

// Pet puts the reset off by Timeout.
func (d *Device) Pet() error { return d.file.pet() }

// Rearm starts the watchdog again after the kernel stopped it, which it does at
// the beginning of a reboot. A reboot that hangs then ends after Timeout.
func (d *Device) Rearm() error {
	// The kernel stopped the hardware alone, and still takes the watchdog for a
	// running one, which it would not start: stop it for the kernel as well.
	err := d.file.setOptions(unix.WDIOS_DISABLECARD | unix.WDIOS_ENABLECARD)
	if err != nil {
		// A driver that never stops refuses the first half.
		err = d.file.setOptions(unix.WDIOS_ENABLECARD)
	}
	return errors.Join(err, d.file.pet())
}

// deviceFile is what there is to do with an open watchdog; tests put one in
// that resets nothing. Seconds everywhere.
type deviceFile interface {
	identity() (string, error)
	fired() bool
	setTimeout(int) (int, error)
	timeout() (int, error)
	setOptions(int) error
	pet() error
}

type file struct{ *os.File }

func (f *file) identity() (string, error) {
	info, err := unix.IoctlGetWatchdogInfo(int(f.Fd()))
	runtime.KeepAlive(f)
	if err != nil {
		return "", err
	}
	name, _, _ := bytes.Cut(info.Identity[:], []byte{0})
	return string(bytes.TrimSpace(name)), nil
}

func (f *file) fired() bool {
	status, err := unix.IoctlGetInt(int(f.Fd()), unix.WDIOC_GETBOOTSTATUS)
	runtime.KeepAlive(f)
	return err == nil && status&unix.WDIOF_CARDRESET != 0
}

// setTimeout returns the timeout that the driver took.
func (f *file) setTimeout(seconds int) (int, error) {
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETTIMEOUT, seconds); err != nil {
		return 0, fmt.Errorf("set timeout of watchdog: %w", err)
	}
	return f.timeout()
}

func (f *file) timeout() (int, error) {
	seconds, err := unix.IoctlGetInt(int(f.Fd()), unix.WDIOC_GETTIMEOUT)
	runtime.KeepAlive(f)
	return seconds, err
}

func (f *file) setOptions(options int) error {
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.WDIOC_SETOPTIONS, options); err != nil {
		return fmt.Errorf("start watchdog: %w", err)
	}
	return nil
}

// pet writes any byte but 'V', which would stop the watchdog.
func (f *file) pet() error {
	_, err := f.Write([]byte{0})
	return err
}
