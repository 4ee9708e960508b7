package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/record/recordtest"
	"holdfast/nvr/store"
)

// asNVR makes the test binary behave as nvr, so that tests can start and kill
// real processes of it.
const asNVR = "HOLDFAST_TEST_RUN_AS_NVR"

// stopAsShipped leaves a process that is started as nvr the time to stop in that
// it is shipped with.
const stopAsShipped = "HOLDFAST_TEST_STOP_AS_SHIPPED"

func TestMain(m *testing.M) {
	if os.Getenv(stopAsShipped) == "" {
		stopStore = time.Minute // a machine may stall, and a clean stop is held to exit code 0
	}
	switch os.Getenv(asNVR) {
	case "":
	case "panic":
		panic("a promise was broken")
	case "traced":
		if err := watchCalls(); err != nil {
			fmt.Fprintln(os.Stderr, "watch calls:", err)
			os.Exit(1)
		}
		os.Exit(command(os.Args[1:], os.Stdout, os.Stderr))
	default:
		os.Exit(command(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// nvr is a process under test.
type nvr struct {
	t    *testing.T
	cmd  *exec.Cmd
	line chan string // of standard output
	mu   sync.Mutex
	log  bytes.Buffer
	done chan error
}

func (p *nvr) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *nvr) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func start(t *testing.T, args ...string) *nvr {
	t.Helper()
	p := &nvr{t: t, cmd: exec.Command(os.Args[0], args...), line: make(chan string, 100), done: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), asNVR+"=1")
	p.cmd.Stderr = p
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s := bufio.NewScanner(out)
		for s.Scan() {
			p.line <- s.Text()
		}
		close(p.line)
		p.done <- p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of %v:\n%s", args, p.logged())
		}
	})
	return p
}

// address waits for the line that says where it serves.
func (p *nvr) address() string {
	p.t.Helper()
	return p.says("serving ")
}

// says waits for the next line of standard output that begins with prefix.
func (p *nvr) says(prefix string) (rest string) {
	p.t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		select {
		case l, ok := <-p.line:
			if !ok {
				p.t.Fatalf("it ended: %s", p.logged())
			}
			if rest, ok := strings.CutPrefix(l, prefix); ok {
				return rest
			}
		case <-limit:
			p.t.Fatalf("it does not say %q: %s", prefix, p.logged())
		}
	}
}

// code waits for the line with the code that claims the recorder. It comes
// behind that with the address.
func (p *nvr) code() string {
	p.t.Helper()
	select {
	case line := <-p.line:
		if !strings.Contains(line, "claim it") {
			p.t.Fatalf("the console shows %q", line)
		}
		return line[strings.LastIndexByte(line, ' ')+1:]
	case <-time.After(2 * time.Minute):
		p.t.Fatal("no code on the console")
	}
	return ""
}

func (p *nvr) kill() {
	p.cmd.Process.Kill()
	p.wait()
}

func (p *nvr) wait() error {
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(2 * time.Minute):
		p.t.Error("it does not end")
		return errors.New("no end")
	}
}

// terminate asks it to stop, and returns how long that took.
func (p *nvr) terminate() time.Duration {
	p.t.Helper()
	began := time.Now()
	p.cmd.Process.Signal(syscall.SIGTERM)
	if err := p.wait(); err != nil {
		p.t.Errorf("after SIGTERM: %v", err)
	}
	return time.Since(began)
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v: %s", url, res.Status, err, b[:min(len(b), 500)])
	}
	return b
}

// cameras starts emulated cameras in this process and writes a configuration
// that records them.
func cameras(t *testing.T, n int, script string, change ...func(*store.StreamConfig)) (*cameratest.Server, string) {
	t.Helper()
	cfg := cameratest.Config{Listen: "127.0.0.1:0", Cameras: n}
	if script != "" {
		s, err := cameratest.ParseScript(script)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Script = s
	}
	cams, err := cameratest.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cams.Close)
	var set store.Settings
	for i := range n {
		streams := make(map[string]store.StreamConfig)
		for _, typ := range []string{"main", "sub"} {
			st := store.StreamConfig{URL: cams.URL(fmt.Sprintf("%d/%s", i+1, typ)), Record: true, RetainBytes: 1 << 30}
			for _, c := range change {
				c(&st)
			}
			streams[typ] = st
		}
		set.Cameras = append(set.Cameras, store.CameraConfig{ShortName: fmt.Sprint(i + 1), Streams: streams})
	}
	file := filepath.Join(t.TempDir(), "cameras.json")
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return cams, file
}

// recorded verifies the sample files of a data directory.
func recorded(t *testing.T, data string, cams *cameratest.Server) map[string]*recordtest.Stream {
	t.Helper()
	streams, err := recordtest.Read(filepath.Join(data, "sample"), func(a *mp4.About) *cameratest.Fixture {
		return cams.Fixture(a.CameraName + "/" + a.Stream)
	})
	if err != nil {
		t.Fatal(err)
	}
	return streams
}

// nvrCommand runs a command to its end.
func nvrCommand(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	return nvrIn(t, "", args...)
}

// nvrIn runs a command in a directory.
func nvrIn(t *testing.T, dir string, args ...string) (out string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), asNVR+"=1")
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

type apiStream struct {
	Recordings []struct {
		StartID int32 `json:"startId"`
		EndID   int32 `json:"endId"`
		OpenID  int32 `json:"openId"`
	} `json:"recordings"`
}

// playAll lists every stream and plays each recording of it with ffmpeg.
func playAll(t *testing.T, address string) (recordings int) {
	t.Helper()
	var top struct {
		Cameras []struct {
			UUID    string                     `json:"uuid"`
			Streams map[string]json.RawMessage `json:"streams"`
		} `json:"cameras"`
	}
	if err := json.Unmarshal(get(t, address+"/api/"), &top); err != nil {
		t.Fatal(err)
	}
	for _, c := range top.Cameras {
		for typ := range c.Streams {
			base := fmt.Sprintf("%s/api/cameras/%s/%s/", address, c.UUID, typ)
			var l apiStream
			if err := json.Unmarshal(get(t, base+"recordings?split90k=1"), &l); err != nil {
				t.Fatal(err)
			}
			for _, r := range l.Recordings {
				ids := fmt.Sprint(r.StartID)
				if r.EndID > r.StartID {
					ids = fmt.Sprintf("%d-%d", r.StartID, r.EndID)
				}
				recordings++
				b := get(t, base+"view.mp4?s="+ids)
				ffmpegReads(t, typ+" "+ids, b)
			}
		}
	}
	return recordings
}

// ffmpegReads fails when ffmpeg has a complaint about a file.
func ffmpegReads(t *testing.T, what string, b []byte) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "view.mp4")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	ffmpegReadsFile(t, what, name)
}

func ffmpegReadsFile(t *testing.T, what, name string) {
	t.Helper()
	out, err := exec.Command("ffmpeg", "-v", "error", "-i", name, "-f", "null", "-").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("ffmpeg on %s: %v: %s", what, err, out)
	}
	out, err = exec.Command("ffprobe", "-v", "error", "-show_entries", "stream=codec_name", name).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "codec_name=h26") {
		t.Errorf("ffprobe on %s: %v: %s", what, err, out)
	}
}

func needFFmpeg(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed: apt-get install ffmpeg")
	}
}

// stalls watches how long this machine keeps a program waiting that sleeps for
// 100 ms and syncs a small file.
type stalls struct {
	mu   sync.Mutex
	each []stall
}

type stall struct {
	end  time.Time
	late time.Duration
}

func watchStalls(t *testing.T, dir string) *stalls {
	f, err := os.Create(filepath.Join(dir, "stalls"))
	if err != nil {
		t.Fatal(err)
	}
	s, done := new(stalls), make(chan struct{})
	go func() {
		defer close(done)
		defer f.Close()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for t.Context().Err() == nil {
			began := time.Now()
			<-tick.C
			if _, err := f.WriteAt([]byte{1}, 0); err != nil || f.Sync() != nil {
				return
			}
			s.mu.Lock()
			s.each = append(s.each, stall{time.Now(), max(0, time.Since(began)-100*time.Millisecond)})
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() { <-done })
	return s
}

// within is how late it was in the time before now, all together.
func (s *stalls) within(d time.Duration) (late time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.each) - 1; i >= 0 && time.Since(s.each[i].end) < d; i-- {
		late += s.each[i].late
	}
	return late
}

// frames is how many of 30 a second a recorder may be behind its cameras at a
// moment: two, and what came while this machine did nothing for anybody.
func (s *stalls) frames(at time.Time) uint64 {
	return 2 + uint64(math.Ceil(30*s.within(time.Since(at)+5*time.Second).Seconds()))
}

// The recorder is killed at ten random moments while two cameras run. Each
// start after that lists and plays everything, and no more than two seconds of
// a stream are missing between what it was recording and what was sent when it
// was killed; but for the time in which this machine did nothing for anybody.
func TestKillNineLosesAtMostTwoSeconds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	needFFmpeg(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	cams, config := cameras(t, 2, "")
	data := t.TempDir()
	if out, code := nvrCommand(t, "config", "import", config, "-data", data); code != 0 {
		t.Fatal(out)
	}
	paths := []string{"1/main", "1/sub", "2/main", "2/sub"}
	type moment struct {
		from  map[string]uint64 // frames sent by stream when it was seen to record
		sent  map[string]uint64 // and when it was killed
		stall time.Duration
	}
	var kills []moment
	machine := watchStalls(t, t.TempDir())
	for range 10 {
		p := start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "view")
		address := p.address()
		waitRecording(t, address, len(paths))
		m := moment{from: make(map[string]uint64), sent: make(map[string]uint64)}
		for _, path := range paths {
			m.from[path] = cams.Frame(path)
		}
		playAll(t, address)
		<-time.After(time.Duration(rng.Int64N(int64(3 * time.Second))))
		for _, path := range paths {
			m.sent[path] = cams.Frame(path)
		}
		m.stall = machine.within(5 * time.Second)
		p.kill()
		kills = append(kills, m)
	}
	p := start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "view")
	address := p.address()
	waitRecording(t, address, len(paths))
	n := playAll(t, address)
	if d := p.terminate(); d > 20*time.Second {
		t.Errorf("a clean stop took %v", d)
	}
	streams := recorded(t, data, cams)
	for _, path := range paths {
		camera, typ, _ := strings.Cut(path, "/")
		st := streams[camera+" "+typ]
		if st == nil {
			t.Errorf("%s: nothing is recorded", path)
			continue
		}
		gaps := st.Gaps()
		if len(gaps) > len(kills) {
			t.Errorf("%s: %d gaps for %d kills: %v", path, len(gaps), len(kills), gaps)
		}
		pictures, loop := cams.Fixture(path).Pictures()
		rate := float64(pictures) / (float64(loop) / 90000)
		var worst float64
		for _, m := range kills {
			// Behind the last picture recorded before the kill, if it is of
			// this process.
			next := m.from[path]
			for _, f := range st.Frames {
				if f.Frame < m.sent[path] {
					next = max(next, f.Frame+1)
				}
			}
			lost := float64(m.sent[path]-next) / rate
			worst = max(worst, lost)
			if lost > 2+m.stall.Seconds() {
				t.Errorf("%s: %.2f s before a kill are missing; the machine stood still for %v", path, lost, m.stall)
			}
		}
		if err := st.Steady(); err != nil {
			t.Error(err)
		}
		t.Logf("%s: %d pictures in %d files, %d gaps, at most %.2f s lost before a kill", path, len(st.Frames), st.Files, len(gaps), worst)
	}
	t.Logf("%d recordings played after the last start", n)
}

// waitRecording waits until streams have durable pictures of this process.
func waitRecording(t *testing.T, address string, streams int) {
	t.Helper()
	recording := regexp.MustCompile(`"phase":\s*"recording"`)
	for limit := time.Now().Add(2 * time.Minute); ; <-time.After(50 * time.Millisecond) {
		b := get(t, address+"/api/")
		if len(recording.FindAll(b, -1)) >= streams {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("no recording: %s", b)
		}
	}
}

// Two real minutes: every frame of two cameras, once and in order, and files
// that ffmpeg reads as they lie on the disk.
func TestTwoRealMinutesAreRecordedWhole(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	needFFmpeg(t)
	t.Parallel()
	cams, config := cameras(t, 3, "")
	data := t.TempDir()
	if out, code := nvrCommand(t, "config", "import", config, "-data", data); code != 0 {
		t.Fatal(out)
	}
	machine := watchStalls(t, t.TempDir())
	p := start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "view")
	waitRecording(t, p.address(), 6)
	<-time.After(2 * time.Minute)
	sent, at := make(map[string]uint64), time.Now()
	for _, path := range cams.Paths() {
		sent[path] = cams.Frame(path)
	}
	if d := p.terminate(); d > time.Minute {
		t.Errorf("a clean stop took %v", d)
	}
	behind := machine.frames(at)
	streams := recorded(t, data, cams)
	for name, st := range streams {
		if gaps := st.Gaps(); len(gaps) > 0 {
			t.Errorf("%s: %d gaps, the first after frame %d: %d frames", name, len(gaps), gaps[0].After.Frame, gaps[0].Missing)
		}
		if err := st.Steady(); err != nil {
			t.Error(err)
		}
		first, last := st.Frames[0], st.Frames[len(st.Frames)-1]
		if d := last.At.Sub(first.At).Std(); d < 119*time.Second {
			t.Errorf("%s: %v recorded", name, d)
		}
		if path := strings.Replace(name, " ", "/", 1); last.Frame+behind < sent[path] {
			t.Errorf("%s: the last frame is %d, sent were %d; it may be %d behind", name, last.Frame, sent[path], behind)
		}
		if st.Files < 2 || st.Torn != 0 || st.Sounds == 0 && cams.Fixture(strings.Replace(name, " ", "/", 1)).HasSound() {
			t.Errorf("%s: %d files, %d torn bytes, %d sounds", name, st.Files, st.Torn, st.Sounds)
		}
	}
	if len(streams) != 6 {
		t.Errorf("%d streams are recorded, want 6", len(streams))
	}
	files, _ := filepath.Glob(filepath.Join(data, "sample", "*.mp4"))
	for _, name := range files {
		ffmpegReadsFile(t, filepath.Base(name), name)
	}
	if out, code := nvrCommand(t, "dump", files[0]); code != 0 || !strings.Contains(out, "every CRC right") {
		t.Errorf("dump: %d: %s", code, out)
	}
}

// What is left beside a lost database is a recorder's: the start restores it. A
// directory of something else is left alone.
func TestDirectoryOfALostDatabaseIsOurs(t *testing.T) {
	for _, tt := range []struct {
		holds   []string
		foreign string
	}{
		{nil, ""},
		{[]string{"lost+found"}, ""},
		{[]string{"sample"}, ""},
		{[]string{"sample-dirs", "db.lock", "db-wal", "db.ballast"}, ""},
		{[]string{"claim-code", "sample"}, ""},
		{[]string{"db", "anything"}, ""},
		{[]string{"sample", "photos"}, "photos"},
	} {
		dir := t.TempDir()
		for _, name := range tt.holds {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := refuseForeign(dir)
		if (err != nil) != (tt.foreign != "") || err != nil && !strings.Contains(err.Error(), "holds "+tt.foreign) {
			t.Errorf("%q: %v", tt.holds, err)
		}
	}
}

// Wrong input gives one line that names the thing.
func TestWrongInputIsNamed(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	foreign := filepath.Join(dir, "foreign")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	write("foreign/db", strings.Repeat("this is not a database of anybody\n", 200))
	bad := write("bad.json", `{"cameras":[{"shortName":"front","streams":{"main":{"url":"rtsp://10.0.0.7/main","record":true,"retainBytes":100000000,"flushIfSec":"soon"}}}]}`)
	notRTSP := write("http.json", `{"cameras":[{"shortName":"front","streams":{"main":{"url":"http://user:secret@10.0.0.7/main","record":true,"retainBytes":100000000}}}]}`)
	for _, tt := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{}, usageCode, []string{"usage"}},
		{[]string{"rum"}, usageCode, []string{`"rum"`}},
		{[]string{"run"}, usageCode, []string{"-data"}},
		{[]string{"run", "-x"}, usageCode, []string{"nvr: wrong usage: nvr run: flag provided but not defined: -x; nvr run -h lists the flags\n"}},
		{[]string{"demo", "-cameras", "many"}, usageCode, []string{`"many"`, "nvr demo -h"}},
		{[]string{"camera", "-n", "0"}, usageCode, []string{"-n 0"}},
		{[]string{"camera", "-user", "u"}, usageCode, []string{"-user needs -password"}},
		{[]string{"camera", "-password", "secret"}, usageCode, []string{"-password needs -user"}},
		{[]string{"config"}, usageCode, []string{"import or export is missing", "nvr config -h"}},
		{[]string{"config", "export", "-data", dir}, usageCode, []string{"FILE is missing", "nvr config export -h"}},
		{[]string{"config", "export", "a", "b", "-data", dir}, usageCode, []string{`unexpected "b"`}},
		{[]string{"dump"}, usageCode, []string{"FILE.mp4 is missing"}},
		{[]string{"run", "-data", dir, "-host", "http://x"}, usageCode, []string{"-host", "http://x"}},
		{[]string{"run", "-data", dir, "-trust-proxy", "10.0.0.0/99"}, usageCode, []string{"-trust-proxy", "10.0.0.0/99"}},
		{[]string{"run", "-data", dir, "-allow-anonymous", "yes"}, usageCode, []string{"-allow-anonymous", "yes"}},
		{[]string{"run", "-data", filepath.Join(dir, "x"), "-http", taken.Addr().String()}, 1, []string{"listen on " + taken.Addr().String() + ": address already in use: choose another with -http\n"}},
		{[]string{"demo", "-data", filepath.Join(dir, "x"), "-http", taken.Addr().String()}, 1, []string{"in use: choose another with -http (make demo HTTP=…)\n"}},
		{[]string{"run", "-data", filepath.Join(dir, "x"), "-http", "8080"}, usageCode, []string{"-http 8080: missing port in address: expected HOST:PORT"}},
		{[]string{"run", "-data", filepath.Join(dir, "x"), "-http", "127.0.0.1:99999"}, usageCode, []string{"-http 127.0.0.1:99999: invalid port: expected HOST:PORT"}},
		{[]string{"run", "-data", filepath.Join(dir, "x"), "-http", "192.0.2.1:8080"}, 1, []string{"listen on 192.0.2.1:8080: cannot assign requested address: choose another with -http"}},
		{[]string{"camera", "-listen", taken.Addr().String()}, 1, []string{"listen on " + taken.Addr().String() + ": address already in use: choose another with -listen"}},
		{[]string{"camera", "-listen", "8554"}, usageCode, []string{"-listen 8554: missing port"}},
		{[]string{"run", "-data", foreign, "-http", "127.0.0.1:0"}, 1, []string{foreign, "not a database"}},
		{[]string{"run", "-data", bad, "-http", "127.0.0.1:0"}, 1, []string{"bad.json", "not a directory"}},
		{[]string{"config", "import", bad, "-data", filepath.Join(dir, "new")}, 1, []string{"bad.json", "flushIfSec", "string"}},
		{[]string{"config", "import", notRTSP, "-data", filepath.Join(dir, "new")}, 1, []string{"cameras[0].streams.main.url", "rtsp://"}},
		{[]string{"config", "import", filepath.Join(dir, "absent.json"), "-data", filepath.Join(dir, "new")}, 1, []string{"absent.json"}},
		{[]string{"config", "export", filepath.Join(dir, "out.json"), "-data", filepath.Join(dir, "absent")}, 1, []string{"absent"}},
		{[]string{"config", "export", "-", "-data", dir}, 1, []string{dir, "not the data directory"}},
		{[]string{"dump", bad}, 1, []string{"bad.json", "not a sample file"}},
		{[]string{"dump", filepath.Join(dir, "absent.mp4")}, 1, []string{"absent.mp4"}},
		{[]string{"camera", "-fixture", "nothing"}, 1, []string{"nothing"}},
	} {
		out, code := nvrCommand(t, tt.args...)
		if code != tt.code {
			t.Errorf("nvr %s: exit code %d, want %d: %s", strings.Join(tt.args, " "), code, tt.code, out)
		}
		if lines := strings.Count(out, "\n"); lines != 1 && len(tt.args) > 0 {
			t.Errorf("nvr %s: %d lines: %s", strings.Join(tt.args, " "), lines, out)
		}
		for _, w := range tt.want {
			if !strings.Contains(out, w) {
				t.Errorf("nvr %s: %q does not name %q", strings.Join(tt.args, " "), out, w)
			}
		}
		if strings.Contains(out, "secret") {
			t.Errorf("nvr %s shows a password", strings.Join(tt.args, " "))
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("an import that failed left a data directory")
	}
}

// A directory that was never a recorder's is most likely a mistake, and the
// demo does not record beside somebody's own cameras.
func TestForeignDirectoriesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := refuseForeign(dir); err != nil {
		t.Errorf("a new disk: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "thesis.odt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := "data directory " + dir + ": it holds thesis.odt and no database of a recorder"
	for _, command := range []string{"run", "demo"} {
		if out, code := nvrCommand(t, command, "-data", dir, "-http", "127.0.0.1:0"); code != 1 || !strings.Contains(out, want) {
			t.Errorf("nvr %s: %d: %s", command, code, out)
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 2 {
		t.Errorf("%v %v were left", names, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := refuseForeign(dir); err != nil {
		t.Errorf("with a database: %v", err)
	}

	data := filepath.Join(t.TempDir(), "data")
	file := filepath.Join(t.TempDir(), "cameras.json")
	if err := os.WriteFile(file, []byte(`{"cameras":[{"shortName":"front","streams":{"main":{"url":"rtsp://192.0.2.1/"}}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := nvrCommand(t, "config", "import", file, "-data", data); code != 0 {
		t.Fatal(out)
	}
	if out, code := nvrCommand(t, "demo", "-data", data, "-http", "127.0.0.1:0"); code != 1 || !strings.Contains(out, `it records a camera "front" that is not the demo's`) {
		t.Errorf("nvr demo on a recorder: %d: %s", code, out)
	}
}

func TestDemoGoesOnBesideAddedCameras(t *testing.T) {
	garden, gate := store.CameraConfig{ShortName: "garden", Description: emulated}, store.CameraConfig{ShortName: "gate"}
	mine := store.CameraConfig{ShortName: "garden"}
	demo := store.Settings{Cameras: []store.CameraConfig{garden, {ShortName: "hall", Description: emulated}}}
	for _, tt := range []struct {
		there []store.CameraConfig
		may   bool
	}{
		{nil, true},
		{[]store.CameraConfig{garden}, true},
		{[]store.CameraConfig{garden, gate}, true},
		{[]store.CameraConfig{gate}, false},
		{[]store.CameraConfig{{ShortName: "hall", Description: emulated}, mine}, false}, // it would be changed
	} {
		if err := demoMay(store.Settings{Cameras: tt.there}, demo); (err == nil) != tt.may {
			t.Errorf("beside %v: %v", tt.there, err)
		}
	}
}

// Fails when a start of the demo puts back what was set since the one before.
func TestDemoKeepsWhatWasSet(t *testing.T) {
	streams := func(url string, retain int64) map[string]store.StreamConfig {
		return map[string]store.StreamConfig{"main": {URL: url, Record: true, RetainBytes: retain}}
	}
	there := store.Settings{Cameras: []store.CameraConfig{
		{ShortName: "garden", Description: emulated, Streams: streams("rtsp://127.0.0.1:1/1/main", 5e9)},
		{ShortName: "gate", Streams: streams("rtsp://192.0.2.1/", 7e9)},
	}}
	both := streams("rtsp://127.0.0.1:2/1/main", demoRetain) // its sub was deleted
	both["sub"] = store.StreamConfig{URL: "rtsp://127.0.0.1:2/1/sub", Record: true}
	demo := store.Settings{Cameras: []store.CameraConfig{
		{ShortName: "garden", Description: emulated, Streams: both},
		{ShortName: "hall", Description: emulated, Streams: streams("rtsp://127.0.0.1:2/2/main", demoRetain)},
	}}
	want := []store.CameraConfig{
		{ShortName: "garden", Description: emulated, Streams: streams("rtsp://127.0.0.1:2/1/main", 5e9)},
		{ShortName: "hall", Description: emulated, Streams: streams("rtsp://127.0.0.1:2/2/main", demoRetain)},
	}
	if got := demoAgain(there, demo); !reflect.DeepEqual(got.Cameras, want) {
		t.Errorf("%+v, want %+v", got.Cameras, want)
	}
}

// Of a file that was cut that is what comes first.
func TestDumpSaysDamageFirst(t *testing.T) {
	var out strings.Builder
	sf := &mp4.SampleFile{Video: &media.SampleEntry{Codec: "avc1.4d401e"}, Good: 9310, Damage: io.ErrUnexpectedEOF}
	dump(&out, sf, 9500, false)
	if want := "damage     at byte 9310 of 9500; what follows is of the part before\n"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("got %s, want %s first", out.String(), want)
	}
}

// -h is an answer, not an error.
func TestHelpListsTheFlags(t *testing.T) {
	for command, want := range map[string]string{
		"run": "-allow-anonymous view|admin\n", "demo": "-cameras number", "camera": "oneframe  1m", "dump": "-frames",
		"config": "-data directory", "config import": "by their names", "config export": "-data directory",
	} {
		out, code := nvrCommand(t, append(strings.Fields(command), "-h")...)
		if code != 0 || !strings.Contains(out, want) || !strings.HasPrefix(out, "usage: nvr "+strings.Fields(command)[0]) {
			t.Errorf("nvr %s -h: exit code %d, want %q in\n%s", command, code, want, out)
		}
	}
}

// An import merges by name, and says what that came to. Flags may stand on
// either side of the file.
func TestImportSaysWhatItDid(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	file := filepath.Join(t.TempDir(), "cameras.json")
	for _, step := range []struct {
		cameras map[string]int // and how many MB each retains
		want    string
	}{
		{map[string]int{"front": 100, "shed": 100, "hall": 100}, "3 cameras: 3 added, 0 changed, 0 the same\n"},
		{map[string]int{"front": 200}, "1 camera: 0 added, 1 changed, 0 the same; 2 not in the file stay\n"},
		{map[string]int{"front": 200, "gate": 100}, "2 cameras: 1 added, 0 changed, 1 the same; 2 not in the file stay\n"},
	} {
		var set store.Settings
		for name, mb := range step.cameras {
			set.Cameras = append(set.Cameras, store.CameraConfig{ShortName: name, Streams: map[string]store.StreamConfig{
				"main": {URL: "rtsp://192.0.2.1/", Record: true, RetainBytes: int64(mb) << 20}}})
		}
		b, err := json.Marshal(set)
		if err == nil {
			err = os.WriteFile(file, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if out, code := nvrCommand(t, "config", "import", "-data", data, file); code != 0 || out != step.want {
			t.Errorf("%d: %q, want %q", code, out, step.want)
		}
	}
	if out, code := nvrCommand(t, "config", "export", file, "-data", data); code != 0 || out != "exported 4 cameras\n" {
		t.Errorf("%d: %s", code, out)
	}
}
