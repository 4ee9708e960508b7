package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/nvr/store"
)

// makeSource makes 20 s of 1080p30 at 4 Mb/s, hard to compress, with a key
// frame every two seconds.
func makeSource(b *testing.B) string {
	name := filepath.Join(b.TempDir(), "source.mp4")
	out, err := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=30", "-t", "20",
		"-vf", "noise=alls=8:allf=t", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency",
		"-g", "60", "-keyint_min", "60", "-sc_threshold", "0", "-b:v", "4M", "-minrate", "4M", "-maxrate", "4M", "-bufsize", "4M",
		"-pix_fmt", "yuv420p", "-bf", "0", name).CombinedOutput()
	if err != nil {
		b.Skipf("ffmpeg makes the source of this benchmark: %v: %s", err, out)
	}
	return name
}

// usage is what a process has used.
type used struct {
	cpu     time.Duration
	written int64 // bytes given to the disk
	rss     int64 // bytes now
	peak    int64
}

func usageOf(b testing.TB, pid int) used {
	b.Helper()
	var u used
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, i := range []int{11, 12} { // utime, stime
		n, _ := strconv.ParseInt(f[i], 10, 64)
		u.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	field := func(file, name string) int64 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			b.Fatal(err)
		}
		for l := range strings.Lines(string(text)) {
			if v, ok := strings.CutPrefix(l, name+":"); ok {
				n, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
				return n
			}
		}
		return 0
	}
	u.rss, u.peak = field("status", "VmRSS")<<10, field("status", "VmHWM")<<10
	u.written = field("io", "write_bytes")
	return u
}

// BenchmarkRecording records N streams of 1080p30 at 4 Mb/s over RTSP/TCP on
// loopback for a minute, synced to disk, beside one ffmpeg -c copy for each of
// the same streams, which syncs nothing. CPU is in per cent of one core.
func BenchmarkRecording(b *testing.B) {
	source := makeSource(b)
	for _, n := range []int{8, 16} {
		b.Run(fmt.Sprintf("streams=%d", n), func(b *testing.B) { benchmarkRecording(b, source, n) })
	}
}

func benchmarkRecording(b *testing.B, source string, n int) {
	process := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), asNVR+"=1")
		log, err := os.Create(filepath.Join(b.TempDir(), "log"))
		if err != nil {
			b.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
			log.Close()
		})
		return cmd
	}
	const camera = "127.0.0.1:18554"
	dir := b.TempDir()
	process(os.Args[0], "camera", "-listen", camera, "-n", strconv.Itoa(n), "-fixture", source)
	var set store.Settings
	for i := range n {
		set.Cameras = append(set.Cameras, store.CameraConfig{ShortName: fmt.Sprint(i + 1), Streams: map[string]store.StreamConfig{
			"main": {URL: fmt.Sprintf("rtsp://%s/%d/main", camera, i+1), Record: true, RetainBytes: 1 << 30},
		}})
	}
	text, err := json.Marshal(set)
	if err != nil {
		b.Fatal(err)
	}
	config := filepath.Join(dir, "cameras.json")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		b.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	imp := exec.Command(os.Args[0], "config", "import", config, "-data", data)
	imp.Env = append(os.Environ(), asNVR+"=1")
	if out, err := imp.CombinedOutput(); err != nil {
		b.Fatalf("import: %v: %s", err, out)
	}
	<-time.After(2 * time.Second) // the camera loads its source
	ours := process(os.Args[0], "run", "-data", data, "-http", "127.0.0.1:0")
	var theirs []*exec.Cmd
	for i := range n {
		theirs = append(theirs, process("ffmpeg", "-v", "error", "-nostdin", "-rtsp_transport", "tcp",
			"-i", fmt.Sprintf("rtsp://%s/%d/main", camera, i+1), "-c", "copy", "-f", "segment", "-segment_time", "60",
			filepath.Join(dir, fmt.Sprintf("ffmpeg-%d-%%03d.mp4", i))))
	}
	<-time.After(15 * time.Second) // all have begun
	const measure = time.Minute
	for b.Loop() {
		sum := func() (t used) {
			for _, c := range theirs {
				u := usageOf(b, c.Process.Pid)
				t.cpu += u.cpu
				t.written += u.written
				t.rss += u.rss
				t.peak += u.peak
			}
			return t
		}
		o0, t0 := usageOf(b, ours.Process.Pid), sum()
		<-time.After(measure)
		o1, t1 := usageOf(b, ours.Process.Pid), sum()
		percent := func(a, z used) float64 { return 100 * float64(z.cpu-a.cpu) / float64(measure) }
		b.ReportMetric(percent(o0, o1), "cpu%")
		b.ReportMetric(percent(t0, t1), "ffmpeg-cpu%")
		b.ReportMetric(percent(o0, o1)/percent(t0, t1), "cpu-ratio")
		b.ReportMetric(float64(o1.rss)/(1<<20), "rss-MiB")
		b.ReportMetric(float64(o1.peak)/(1<<20), "peak-MiB")
		b.ReportMetric(float64(t1.rss)/(1<<20), "ffmpeg-rss-MiB")
		b.ReportMetric(float64(o1.written-o0.written)/measure.Seconds()/(1<<20), "MiB/s")
		b.ReportMetric(float64(t1.written-t0.written)/measure.Seconds()/(1<<20), "ffmpeg-MiB/s")
	}
}
