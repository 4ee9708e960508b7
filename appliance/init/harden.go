package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// shell is in a debug image only. gokrazy starts it when somebody types.
const shell = "/user/serial-busybox"

// debugImage reports whether this image has a shell.
func debugImage() bool {
	_, err := os.Stat(shell)
	return err == nil
}

// harden takes away what gokrazy leaves open: whoever takes the recorder over
// must not become root, nor whoever is at the console.
func (m *machine) harden(debug bool) {
	writable := []string{"/dev/shm", "/run"}
	if !debug {
		// At any input on the console gokrazy runs a program in /tmp as root,
		// and everybody may write there.
		if err := deafen(); err != nil {
			m.console.say("input of the console: %v", err)
		}
		writable = append(writable, "/tmp") // where the shell unpacks itself
	}
	for _, target := range writable {
		if err := noPrograms(target); err != nil {
			m.console.say("%v", err)
		}
	}
	// No orders to the kernel by a keyboard or by a break on the serial port.
	// Root may still give them by sysrq-trigger, as restart does.
	if err := os.WriteFile("/proc/sys/kernel/sysrq", []byte("0\n"), 0); err != nil {
		m.console.say("sysrq stays on: %v", err)
	}
}

// deafen makes the input of this process end: it hears no console.
func deafen() error {
	null, err := os.Open(os.DevNull)
	if err == nil {
		err = unix.Dup3(int(null.Fd()), 0, 0)
		null.Close()
	}
	if err != nil {
		os.Stdin.Close()
	}
	return err
}

// noPrograms forbids to run what lies in the file system mounted at target.
func noPrograms(target string) error {
	if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("remount %s without programs: %w", target, err)
	}
	return nil
}
