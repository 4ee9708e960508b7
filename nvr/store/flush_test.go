package store

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// commitsIn records with n streams for some time and returns how many flushes
// there were.
func commitsIn(t *testing.T, d time.Duration, n, flushIfSec int) (commits int64) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, dir: inMemory(t), log: new(journal)}
		b.hook = func(cfg *Config) { cfg.Log = slog.New(slog.NewTextHandler(io.MultiWriter(b.log), nil)) }
		b.start()
		var feeds []*feed
		for i := range n {
			f := newFeed(b.camera(fmt.Sprint("c", i), plenty, flushIfSec).Begin(nil))
			f.step, f.gop = 9000*20, 1
			feeds = append(feeds, f)
		}
		before := b.s.Flushes().Committed
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(2 * time.Second) {
			for i, f := range feeds {
				if err := f.one(); err != nil {
					t.Fatalf("stream %d: %v", i, err)
				}
			}
		}
		commits = b.s.Flushes().Committed - before
		for _, f := range feeds {
			f.run.End("test")
		}
	})
	return commits
}

// R11: however many streams there are, a recorder that is well commits once in
// flush_if_sec and no more.
func TestCommitsDoNotGrowWithStreams(t *testing.T) {
	for _, sec := range []int{60, 120, 300} {
		for _, n := range []int{1, 8, 16} {
			if testing.Short() && (sec != 120 || n != 8) {
				continue // two hours of pictures, slow under the race detector
			}
			got, most := commitsIn(t, 2*time.Hour, n, sec), int64(2*3600/sec)
			t.Logf("flush_if_sec %d, %d streams: %d commits in two hours", sec, n, got)
			if got > most || got < most*9/10 {
				t.Errorf("flush_if_sec %d, %d streams: %d commits in two hours, want %d at most and hardly fewer", sec, n, got, most)
			}
		}
	}
}
