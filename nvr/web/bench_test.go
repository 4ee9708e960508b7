package web

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// drainEnv has a process of the test read an address to its end and be gone:
// its CPU time is not the server's.
const drainEnv = "HOLDFAST_TEST_DRAIN"

func TestMain(m *testing.M) {
	if url := os.Getenv(drainEnv); url != "" {
		resp, err := http.Get(url)
		if err == nil && resp.StatusCode == 200 {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// drain reads url in another process.
func drain(b *testing.B, url string) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), drainEnv+"="+url)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
}

// cpuTime is what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkServe sends recorded video (main stream, 4 Mb/s, a fragment a
// second) and a plain file of the same size over loopback by turns: throughput,
// and CPU seconds of the server for each GB.
func BenchmarkServe(b *testing.B) {
	const size, frames = 20_000, 25 * 60 * 8
	r := newRecorder(b, "view")
	cam := r.camera("main")
	cam.size = size
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for sent := 0; sent < frames; sent += 250 {
		cam.send(250)
		for r.stream("main").Info().Unsynced > 8<<20 {
			<-tick.C
		}
	}
	cam.run.End("test over")
	r.restart()
	first, last, kept := r.recorded("main")
	if kept != frames {
		b.Fatalf("%d of %d frames were recorded", kept, frames)
	}
	path := r.path("main/view.mp4?s=%d-%d", first, last)
	video, length := r.server.URL+path, int64(len(r.get(path).body))

	plain := filepath.Join(b.TempDir(), "plain.mp4")
	if err := os.WriteFile(plain, make([]byte, length), 0o600); err != nil {
		b.Fatal(err)
	}
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, plain) }))
	defer files.Close()
	var took, used [2]time.Duration
	n := 0
	for b.Loop() {
		for i, url := range []string{files.URL, video} {
			cpu, at := cpuTime(b), time.Now()
			drain(b, url)
			took[i] += time.Since(at)
			used[i] += cpuTime(b) - cpu
		}
		n++
	}
	gb := float64(n) * float64(length) / 1e9
	for i, name := range []string{"ServeFile", "view.mp4"} {
		b.ReportMetric(gb*1e3/took[i].Seconds(), name+"-MB/s")
		b.ReportMetric(used[i].Seconds()/gb, name+"-cpu-s/GB")
	}
	b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "throughput-ratio")
}
