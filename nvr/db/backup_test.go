package db

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func emptyFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A flush in the middle of a copy is neither held up nor part of it.
func TestFlushGoesOnDuringABackup(t *testing.T) {
	h := newHouse(t)
	h.fill(500, h.main)
	before := h.dump()
	path := emptyFile(t)
	no, steps := int32(500), 0
	h.must(h.Backup(t.Context(), path, false, func(done, total int) {
		steps++
		if steps <= 5 {
			h.add(h.main, no, no+1)
			no++
		}
	}))
	if steps < 3 || no < 503 {
		t.Fatalf("only %d steps, %d flushes beside them", steps, no-500)
	}
	last, err := Verify(t.Context(), path, h.UUID())
	if err != nil || last != h.open.ID {
		t.Errorf("last open %d, %v", last, err)
	}
	h.must(h.Close())
	h.path, h.DB = path, nil
	h.reopen()
	if after := h.dump(); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Error("the copy is not the database as it was when it was begun")
	}
	h.sane()
}

func TestBackupEndsWithItsContext(t *testing.T) {
	h := newHouse(t)
	h.fill(500, h.main)
	ctx, cancel := withCancel(t)
	if err := h.Backup(ctx, emptyFile(t), true, func(done, total int) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	h.add(h.main, 500, 501)
	h.sane()
}

// Copies that do not come to their end leave the readers to others.
func TestCopiesThatHangTakeNoReader(t *testing.T) {
	h := newHouse(t)
	h.fill(500, h.main)
	var hung, ended sync.WaitGroup
	release := make(chan struct{})
	for range Readers {
		path := emptyFile(t)
		hung.Add(1)
		reached := sync.OnceFunc(hung.Done)
		ended.Go(func() {
			defer reached()
			if err := h.Backup(t.Context(), path, false, func(done, total int) { reached(); <-release }); err != nil {
				t.Error(err)
			}
		})
	}
	hung.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := h.State(ctx); err != nil {
		t.Errorf("a read beside %d copies that hang: %v", Readers, err)
	}
	close(release)
	ended.Wait()
	h.sane()
}

func TestVerifyRefuses(t *testing.T) {
	h := newHouse(t)
	h.fill(50, h.main)
	path := emptyFile(t)
	h.must(h.Backup(t.Context(), path, false, nil))
	if _, err := Verify(t.Context(), path, "another"); !Damaged(err) || !strings.Contains(err.Error(), "expected another") {
		t.Errorf("another uuid: %v", err)
	}
	b, err := os.ReadFile(path)
	h.must(err)
	for i := len(b) / 2; i < len(b)/2+4096; i++ {
		b[i] = 0xaa
	}
	h.must(os.WriteFile(path, b, 0o600))
	if _, err := Verify(t.Context(), path, h.UUID()); !Damaged(err) {
		t.Errorf("a page is damaged: %v", err)
	}
}

// The copy of 100,000 recordings, and a flush beside it.
func BenchmarkBackup(b *testing.B) {
	h := newHouse(b)
	h.fill(50_000, h.main, h.sub)
	for _, gentle := range []bool{false, true} {
		name := "AtOnce"
		if gentle {
			name = "Gentle"
		}
		b.Run(name, func(b *testing.B) {
			var longest time.Duration
			var bytes int64
			no := h.state().Streams[0].NextNo
			for b.Loop() {
				path := emptyFile(b)
				steps := 0
				h.must(h.Backup(b.Context(), path, gentle, func(done, total int) {
					if steps++; steps%50 == 0 {
						batch := h.batch(h.main, no, no+1)
						batch.Add[0].FSBytes = 1 << 20
						began := time.Now()
						h.must(h.Flush(b.Context(), batch))
						no++
						longest = max(longest, time.Since(began))
					}
				}))
				fi, err := os.Stat(path)
				h.must(err)
				bytes = fi.Size()
				began := time.Now()
				_, err = Verify(b.Context(), path, h.UUID())
				h.must(err)
				b.ReportMetric(time.Since(began).Seconds(), "verify-s")
				h.must(os.Remove(path))
			}
			b.ReportMetric(float64(bytes)/1e6, "MB")
			b.ReportMetric(float64(longest.Milliseconds()), "longest-flush-ms")
		})
	}
}
