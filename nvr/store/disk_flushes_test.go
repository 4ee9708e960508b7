package store

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/nvr/store/internal/sampledir"
	"holdfast/nvr/store/looptest"
)

// Sixteen streams cost the disk they share with the database three flushes of its
// cache a second at most, of four that they may (design, numbers), with all that they
// do: each begins a file a minute, each at its own second, and each flush of the
// database deletes as many, whose files are unlinked behind it. Only what ext4 commits
// by itself, each five seconds where nothing was synced, is left out: it does so in
// real time.
func TestSixteenStreamsCostThreeFlushesASecond(t *testing.T) {
	if testing.Short() {
		t.Skip("syncs a disk for a while")
	}
	disk, device := looptest.Mount(t, 256*mb, "commit=600")
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.Dir, cfg.noBallast = disk, false })
		const n, before, seconds, most = 16, 4 * 60, 2 * 60, 3
		if !b.s.dirs[0].dir.(*sampledir.Disk).SyncsWhole() {
			t.Skip("several files are synced as one in Linux 5.17 or later only")
		}
		sp, err := b.s.dirs[0].dir.Space()
		if err != nil {
			t.Fatal(err)
		}
		foreign := newHog(t, disk)
		defer foreign.end()
		if err := syscall.Fallocate(int(foreign.f.Fd()), 0, 0, sp.Free-floorOf(sp.Total)-16*mb); err != nil {
			t.Fatal(err)
		}
		var feeds []*feed
		for i := range n {
			f := newFeed(b.camera(string(rune('a'+i)), 0, 60).Begin(nil)) // they share the disk
			f.size = 800
			feeds = append(feeds, f)
			playAll(t, feeds, time.Minute/n)
		}
		playAll(t, feeds, before*time.Second)
		from, _ := looptest.Written(t, device)
		flushes := b.s.Flushes().Committed
		playAll(t, feeds, seconds*time.Second)
		to, _ := looptest.Written(t, device)
		t.Logf("%d flushes of the disk in %d seconds, %d of the database", to-from, seconds, b.s.Flushes().Committed-flushes)
		if got := to - from; got < seconds || got > most*seconds {
			t.Errorf("%d flushes of the disk in %d seconds, want at least one and at most %d a second", got, seconds, most)
		}
		for _, f := range feeds {
			all := list(t, f.run.st)
			if first := all[0].No; first < 3 {
				t.Errorf("%s has recordings from %d on: nothing is deleted", f.run.st.name, first)
			}
			if last := all[len(all)-1].No; last < 5 {
				t.Errorf("%s is at recording %d: no files begin", f.run.st.name, last)
			}
			f.run.End("test")
		}
	})
}
