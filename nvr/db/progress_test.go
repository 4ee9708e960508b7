package db

import (
	"testing"
	"testing/synctest"
	"time"
)

// What works is told to get further, and what waits for a disk is not.
func TestAtWorkTellsWorkFromWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		progress := func() { n++ }
		AtWork(progress, func() error {
			time.Sleep(time.Hour)
			return nil
		})
		if n > 10 { // the way to its sleep is work, too
			t.Errorf("an hour of waiting is progress %d times", n)
		}
		n = 0
		AtWork(progress, func() error {
			for end := time.Now().Add(time.Hour); time.Now().Before(end); {
				time.Sleep(time.Second)
			}
			return nil
		})
		if want := int(time.Hour / progressEvery); n < want-1 || n > want {
			t.Errorf("an hour of work is progress %d times, expected %d", n, want)
		}
	})
}
