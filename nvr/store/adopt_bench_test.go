package store

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"holdfast/nvr/media"
)

// A start that finds files without rows reads each of them whole. Here they are
// minutes of a camera of 4 Mb/s and 30 pictures a second, and not in the page
// cache. Times 23,040 it is a day of 16 streams: what a restored database may
// have to take in.
func BenchmarkAdoption(b *testing.B) {
	const minutes = 32
	dir := b.TempDir()
	s, err := Open(b.Context(), Config{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	sec := 3600
	uuid, err := s.AddCamera(b.Context(), CameraConfig{ShortName: "front", Streams: map[string]StreamConfig{
		"main": {URL: "rtsp://10.0.0.1/", Record: true, RetainBytes: plenty, FlushIfSec: &sec},
	}})
	if err != nil {
		b.Fatal(err)
	}
	c, _ := s.Camera(uuid)
	st := c.Stream("main")
	run, began := st.Begin(nil), time.Now()
	for n := range minutes * 1800 {
		at := media.Duration(n) * media.Second / 30
		err := run.Append(media.AccessUnit{
			Kind: media.Video, DTS: int64(at), PTS: int64(at), Key: n%30 == 0, Data: picture(n, 4_000_000/8/30), Entry: testEntry,
			Received: began.Add(at.Std()),
		})
		if err == nil && n%1800 == 0 {
			err = st.dir.stepNow(b.Context())
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	run.End("")
	if err := st.dir.stepNow(b.Context()); err != nil {
		b.Fatal(err)
	}
	// As a kill leaves it, but for the database's log.
	s.stop()
	s.running.Wait()
	if err := s.db.Close(); err != nil {
		b.Fatal(err)
	}
	state := make(map[string][]byte)
	for _, name := range []string{"db", "sample/meta"} {
		if state[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			b.Fatal(err)
		}
	}
	names, _ := filepath.Glob(filepath.Join(dir, "sample/*.mp4"))
	var size int64
	for b.Loop() {
		b.StopTimer()
		for name, content := range state {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				b.Fatal(err)
			}
		}
		size = 0
		for _, name := range names {
			size += forget(b, name)
		}
		b.StartTimer()
		s, err := Open(b.Context(), Config{Dir: dir})
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		c, _ := s.Camera(uuid)
		have := func() int { return c.Stream("main").Info().Recordings }
		b.StartTimer()
		for limit := time.Now().Add(5 * time.Minute); have() < len(names) && time.Now().Before(limit); {
			wait(b.Context(), time.Millisecond) // most of them behind the start
		}
		b.StopTimer()
		if n := have(); n != len(names) {
			b.Fatalf("%d recordings of %d files", n, len(names))
		}
		if err := s.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	perFile := b.Elapsed() / time.Duration(b.N*len(names))
	b.ReportMetric(float64(perFile.Microseconds())/1e3, "ms/file")
	b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds()/1e6, "MB/s")
	b.ReportMetric((23040 * perFile).Minutes(), "min/day-of-16")
}

// forget has the kernel drop what it holds of a file, and returns its size.
func forget(b *testing.B, name string) int64 {
	f, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const dontNeed = 4 // POSIX_FADV_DONTNEED
	if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); errno != 0 {
		b.Fatal(errno)
	}
	fi, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	return fi.Size()
}
