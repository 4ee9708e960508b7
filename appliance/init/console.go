package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// console is where the machine speaks: the kernel's log, which puts whole
// lines with the seconds since its start on every console, and keeps them.
type console struct {
	ours   chan string
	passed chan string
}

// kernelNotice is the level of our lines: above what a quiet kernel shows.
const kernelNotice = "<4>"

// newConsole starts the goroutine that writes. Whoever speaks never waits for a
// serial line: when the console takes nothing, lines are lost.
func newConsole() *console {
	c := &console{ours: make(chan string, 64), passed: make(chan string, 256)}
	go func() {
		for {
			// Ours go first: a process that dies may have much to say.
			select {
			case line := <-c.ours:
				write("/dev/kmsg", line)
				continue
			default:
			}
			select {
			case line := <-c.ours:
				write("/dev/kmsg", line)
			case line := <-c.passed:
				write("/dev/console", line)
			}
		}
	}()
	return c
}

// say prints a line of ours.
func (c *console) say(format string, args ...any) {
	offer(c.ours, kernelNotice+"holdfast: "+oneLine(fmt.Sprintf(format, args...))+"\n")
}

// pass prints a line of the recorder's log. It goes around the kernel's log,
// which is small, to the console alone.
func (c *console) pass(line string) { offer(c.passed, line) }

func offer(lines chan<- string, line string) {
	select {
	case lines <- line:
	default:
	}
}

// write opens the file for each line: the kernel limits how much one opening of
// its log may say.
func write(name, line string) {
	f, err := os.OpenFile(name, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = f.WriteString(line)
	if name == "/dev/console" {
		// The kernel's lines overtake what a serial port still holds, and
		// would break into this one.
		_ = unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1)
	}
}

// oneLine makes a text of one line that is not too long for the kernel's log.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}

// uptime is the time since the kernel started.
func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
