package main

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Times of a reboot. Each step may hang; none holds up the next.
const (
	writeTime   = 5 * time.Second
	termTime    = time.Second
	syncTime    = 5 * time.Second
	unmountTime = 5 * time.Second
	unmountTurn = 50 * time.Millisecond
	rebootTime  = 10 * time.Second
	rearmTime   = time.Second
)

// restart ends the machine: the reason is written, everything is killed, data
// is synced and unmounted. It does not return. An empty reason is an order of
// somebody. The last resort is the hardware.
func (m *machine) restart(how int, reason string, counts bool) {
	m.lease.Renew(rebootLease)
	switch how {
	case unix.LINUX_REBOOT_CMD_RESTART:
		m.console.say("reboot: %s", ordered(reason))
	default:
		m.console.say("power off: %s", ordered(reason))
	}
	if err := within(writeTime, func() error {
		return errors.Join(m.ledger.end(reason, counts), m.ledger.close())
	}); err != nil {
		m.console.say("reason of reboot is not kept: %v", err)
	}
	_ = unix.Kill(-1, unix.SIGTERM)
	<-time.After(termTime)
	m.wayOut(how).take()
	select {}
}

func (m *machine) wayOut(how int) wayOut {
	w := wayOut{
		say:  m.console.say,
		sync: func() error { unix.Sync(); return nil },
		// For the console there is a moment more.
		reboot: func() error { <-time.After(100 * time.Millisecond); return unix.Reboot(how) },
		rearm:  m.rearm,
		expire: m.lease.End,
	}
	if m.mounted {
		w.unmount = unmountPerm
	}
	if how == unix.LINUX_REBOOT_CMD_RESTART {
		w.sysrq = func() error { return os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0) }
	}
	return w
}

// wayOut is the end of a machine, step by step. Each may hang.
type wayOut struct {
	say     func(format string, args ...any)
	sync    func() error
	unmount func() error // nil: nothing is mounted
	reboot  func() error // does not return when it works
	rearm   func() error // starts the watchdog that reboot stopped
	expire  func()       // ends petting
	sysrq   func() error // reboots at once; nil: the machine is not to come back
}

// take goes the way. It returns when nothing is left but the hardware.
//
// reboot(2) stops the watchdog first and then waits for the disks. So it is not
// called when a disk hangs: the kernel's emergency reboot waits for nothing, and
// the watchdog runs on behind it.
func (w wayOut) take() {
	hangs := false
	step := func(name string, limit time.Duration, f func() error) {
		if err := within(limit, f); err != nil {
			w.say("%s: %v", name, err)
			hangs = hangs || errors.Is(err, errLate)
		}
	}
	step("sync", syncTime, w.sync)
	if w.unmount != nil {
		step("unmount "+perm, unmountTime, w.unmount)
	}
	if !hangs || w.sysrq == nil {
		step("reboot", rebootTime, w.reboot)
		step("start watchdog again", rearmTime, w.rearm)
	}
	w.expire()
	if w.sysrq != nil {
		step("emergency reboot", rebootTime, w.sysrq)
	}
}

// rearm starts the watchdog again, if there is one.
func (m *machine) rearm() error {
	if m.device == nil {
		return nil
	}
	return m.device.Rearm()
}

func ordered(reason string) string {
	if reason == "" {
		return "ordered"
	}
	return reason
}

// unmountPerm unmounts the data partition, or makes it read-only when somebody
// cannot be killed who uses it. gokrazy starts its services again a second
// after they were killed, so they are killed each time.
func unmountPerm() error {
	var err error
	for range int(unmountTime / unmountTurn / 2) {
		_ = unix.Kill(-1, unix.SIGKILL)
		<-time.After(unmountTurn)
		if err = unix.Unmount(perm, 0); err != unix.EBUSY {
			return err
		}
	}
	if ro := unix.Mount("", perm, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); ro == nil {
		return nil
	}
	return err
}
