package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// drainEnv has a process of the test read the addresses that come on its standard
// input, each to its end, and say how long that took: its CPU time is not the
// server's.
const drainEnv = "HOLDFAST_TEST_DRAIN"

func TestMain(m *testing.M) {
	if os.Getenv(drainEnv) == "" {
		os.Exit(m.Run())
	}
	buf := make([]byte, 256<<10)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		began := time.Now()
		resp, err := http.Get(in.Text())
		if err == nil && resp.StatusCode != 200 {
			err = errors.New(resp.Status)
		}
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(time.Since(began).Nanoseconds())
	}
}

// drainer starts a process that reads addresses. The function it returns has it
// read one, and returns how long that took.
func drainer(b *testing.B) func(url string) time.Duration {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), drainEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	answers := bufio.NewReader(out)
	return func(url string) (took time.Duration) {
		b.Helper()
		fmt.Fprintln(in, url)
		if _, err := fmt.Fscanln(answers, &took); err != nil {
			b.Fatal(err)
		}
		return took
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

// forget drops a file, or those below a directory, from the memory of the kernel.
// What is read from a disk lies there in larger pieces than what is appended a
// fragment at a time, and costs less to send; footage that is looked at later
// comes from the disk.
func forget(b *testing.B, root string) {
	b.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Sync(); err != nil { // what is not written stays
			return err
		}
		const dontNeed = 4 // POSIX_FADV_DONTNEED
		if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); errno != 0 {
			return errno
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkServe sends recorded video (main stream, 4 Mb/s, a fragment a
// second) and a plain file of the same size over loopback by turns: throughput,
// and CPU seconds of the server for each GB. A round is one of each, and the
// ratio is the median of those of the rounds, with the quarters below and above,
// for machines that do other things meanwhile. A disk plays no part: both are in
// memory after the first round.
func BenchmarkServe(b *testing.B) {
	const size, frames = 20_000, 25 * 60 * 8
	r := newRecorder(b, "view")
	cam := r.camera("main")
	cam.size, cam.gop = size, 25
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
	forget(b, plain)
	forget(b, r.dir)
	drain := drainer(b)
	urls := [2]string{files.URL, video}
	for _, url := range urls {
		drain(url)
	}
	var took, used [2]time.Duration
	var ratios, costs []float64 // of each round
	for b.Loop() {
		var t, c [2]time.Duration
		for k := range 2 {
			i := (k + len(ratios)) % 2 // who is first takes turns, too
			before := cpuTime(b)
			t[i] = drain(urls[i])
			c[i] = cpuTime(b) - before
			took[i], used[i] = took[i]+t[i], used[i]+c[i]
		}
		ratios = append(ratios, t[0].Seconds()/t[1].Seconds())
		costs = append(costs, c[1].Seconds()/(float64(length)/1e9))
	}
	slices.Sort(ratios)
	slices.Sort(costs)
	quarter := func(sorted []float64, n int) float64 { return sorted[(len(sorted)-1)*n/4] }
	gb := float64(len(ratios)) * float64(length) / 1e9
	for i, name := range []string{"ServeFile", "view.mp4"} {
		b.ReportMetric(gb*1e3/took[i].Seconds(), name+"-MB/s")
		b.ReportMetric(used[i].Seconds()/gb, name+"-cpu-s/GB")
	}
	b.ReportMetric(quarter(costs, 2), "median-cpu-s/GB")
	for n, name := range []string{"", "low", "median", "high"} {
		if n > 0 {
			b.ReportMetric(quarter(ratios, n), name+"-ratio")
		}
	}
}
