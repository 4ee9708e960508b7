package db

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// progressEvery is how often AtWork looks whether there is any.
const progressEvery = 10 * time.Second

// AtWork calls f and, while it runs, progress every few seconds in which it got
// further: a check of a whole database is one call of SQLite's, which says nothing
// before its end. That it got further is told by the processor time of its thread,
// so what f does counts where f does it itself; a disk that does not answer takes
// none. progress must not wait, and is not called any more when AtWork returns.
func AtWork(progress func(), f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := unix.Gettid()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(progressEvery)
		defer t.Stop()
		for before := workOf(thread); ; {
			select {
			case <-done:
				return
			case <-t.C:
			}
			if now := workOf(thread); now != before {
				before = now
				progress()
			}
		}
	}()
	defer func() {
		close(done)
		<-ended
	}()
	return f()
}

// workOf is the processor time that a thread of this process has taken; 0 where
// the kernel does not say.
func workOf(thread int) time.Duration {
	// The number of such a clock: clock_getcpuclockid(3), MAKE_THREAD_CPUCLOCK
	// of the kernel's include/linux/posix-timers.h.
	const scheduled, perThread = 2, 4
	var at unix.Timespec
	if err := unix.ClockGettime(int32(^thread)<<3|scheduled|perThread, &at); err != nil {
		return 0
	}
	return time.Duration(at.Nano())
}
