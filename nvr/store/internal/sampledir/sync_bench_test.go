package sampledir

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"holdfast/nvr/store/looptest"
)

// A second of what 16 streams give, without new files, costs the disk two flushes, or
// three now and then; four are allowed with new files and the database (design,
// numbers).
func TestSixteenFilesCostThreeFlushes(t *testing.T) {
	d, device, files := mounted(t, 16)
	if !d.SyncsWhole() {
		t.Skip("several files are synced as one in Linux 5.17 or later only")
	}
	// What else the machine does holds up a step now and then, and ext4 commits in
	// the middle of it: that makes more flushes, never fewer.
	const rounds, seconds, most = 5, 40, 2.5
	fewest, at := int64(math.MaxInt64), int64(0)
	for range rounds {
		before, _ := looptest.Written(t, device)
		for range seconds {
			for _, f := range files {
				if _, err := f.Append(at, make([]byte, 100_000)); err != nil {
					t.Fatal(err)
				}
			}
			at += 100_000
			errs, _ := d.SyncFiles(files)
			for i, err := range errs {
				if err != nil {
					t.Errorf("file %d: %v", i, err)
				}
			}
		}
		after, _ := looptest.Written(t, device)
		fewest = min(fewest, after-before)
	}
	if fewest < seconds || float64(fewest) > most*seconds {
		t.Errorf("%d flushes of the disk in %d steps, want at least one and at most %v each", fewest, seconds, most)
	}
}

// mounted are n new sample files on an ext4 of their own: what the kernel counts of its
// device is theirs alone.
func mounted(tb testing.TB, n int) (d *Disk, device string, files []File) {
	tb.Helper()
	dir, device := looptest.Mount(tb, 2<<30)
	d, err := OpenDisk(dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { d.Close() })
	for i := range n {
		f, err := d.Create(int64(i))
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	if err := d.Sync(); err != nil {
		tb.Fatal(err)
	}
	return d, device, files
}

// BenchmarkSync compares the ways of making durable what n streams of 4 Mb/s
// have given in a second. An operation is such a second, without the waiting.
func BenchmarkSync(b *testing.B) {
	const second = 500_000
	all := func(n int, f func(i int) error) error {
		var wg sync.WaitGroup
		errs := make([]error, n)
		for i := range n {
			wg.Go(func() { errs[i] = f(i) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, way := range []struct {
		name string
		sync func(d *Disk, files []File) error
	}{
		{"fdatasync in turn", func(_ *Disk, files []File) error {
			for _, f := range files {
				if err := f.Sync(); err != nil {
					return err
				}
			}
			return nil
		}},
		{"fdatasync at once", func(_ *Disk, files []File) error {
			return all(len(files), func(i int) error { return files[i].Sync() })
		}},
		{"syncfs", func(d *Disk, _ []File) error { return d.syncWhole() }},
		{"SyncFiles", func(d *Disk, files []File) error {
			errs, _ := d.SyncFiles(files)
			return errors.Join(errs...)
		}},
	} {
		for _, n := range []int{1, 8, 16} {
			b.Run(fmt.Sprintf("%s/streams=%d", way.name, n), func(b *testing.B) {
				d, device, files := mounted(b, n)
				payload := make([]byte, second)
				for i := range payload {
					payload[i] = byte(i * i)
				}
				flushes, bytes := looptest.Written(b, device)
				var syncing, worst time.Duration
				b.ResetTimer()
				for at := int64(0); b.Loop(); at += second {
					for _, f := range files {
						if _, err := f.Append(at%(60*second), payload); err != nil {
							b.Fatal(err)
						}
					}
					began := time.Now()
					if err := way.sync(d, files); err != nil {
						b.Fatal(err)
					}
					took := time.Since(began)
					syncing += took
					worst = max(worst, took)
				}
				after, written := looptest.Written(b, device)
				b.ReportMetric(float64(after-flushes)/float64(b.N), "flushes/op")
				b.ReportMetric(float64(written-bytes)/float64(b.N)/float64(n*second), "written/given")
				b.ReportMetric(float64(syncing.Milliseconds())/float64(b.N), "sync-ms/op")
				b.ReportMetric(float64(worst.Milliseconds()), "worst-ms")
			})
		}
	}
}
