package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/appliance/watchdog"
	"holdfast/board"
)

// TestMain also is the recorder of these tests, started by the same way as the
// real one.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == launchCommand:
		fmt.Fprintln(os.Stderr, launch(os.Args[2:]))
		os.Exit(1)
	case len(os.Args) > 1 && os.Args[1] == "recorder":
		os.Exit(recorder(os.Args[2]))
	}
	os.Exit(m.Run())
}

// recorder does what mode says.
func recorder(mode string) int {
	say := func(s string) {
		c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err != nil {
			panic(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, s); err != nil {
			panic(err)
		}
	}
	switch mode {
	case "serve":
		if os.Getenv("LISTEN_FDS") != "2" || os.Getenv("LISTEN_FDNAMES") != "http:https" || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
			fmt.Println("no socket for", os.Getpid(), os.Environ())
			return 1
		}
		l, err := net.FileListener(os.NewFile(3, "passed"))
		if err != nil {
			fmt.Println(err)
			return 1
		}
		nnp, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
		umask := unix.Umask(0)
		http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "umask %o, no new rights %d %v, leader %v", umask, nnp, err, unix.Getpgrp() == os.Getpid())
		})
		terms := make(chan os.Signal, 1)
		signal.Notify(terms, unix.SIGTERM)
		go func() { _ = http.Serve(l, nil) }()
		say("READY=1")
		<-terms
		say("STOPPING=1")
		return 0
	case "hang":
		say("READY=1")
		fmt.Println("about to hang")
		select {}
	case "stop":
		say("READY=1")
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
		select {}
	case "poisoned":
		return watchdog.PoisonedCode
	case "listen":
		err := deafen()
		n, end := os.Stdin.Read(make([]byte, 1))
		fmt.Printf("deafen: %v; heard %d bytes, %v\n", err, n, end)
		return 0
	case "leave":
		// It leaves a process behind that holds its output open.
		c := exec.Command("/bin/sleep", "1000")
		c.Stdout = os.Stdout
		if err := c.Start(); err != nil {
			panic(err)
		}
		fmt.Println("left", c.Process.Pid)
		return 1
	}
	return 9
}

// theatre runs a real recorder under a real supervisor.
type theatre struct {
	*testing.T
	s      *watchdog.Supervisor
	listen net.Listener
	output tail
	events chan watchdog.Event
	lines  chan string
}

func newTheatre(t *testing.T, limits watchdog.Limits, modes ...string) *theatre {
	th := &theatre{T: t, events: make(chan watchdog.Event, 100), lines: make(chan string, 10000)}
	th.output.pass = func(line string) {
		select {
		case th.lines <- line:
		default:
		}
	}
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := watchdog.Listen(path, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	notices := make(chan watchdog.Notice, 64)
	go func() { _ = socket.Receive(func(n watchdog.Notice) { notices <- n }) }()
	if th.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { th.listen.Close() })
	file, err := th.listen.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	starts := 0
	th.s = &watchdog.Supervisor{
		Limits: limits, Notices: notices, Alive: func() {},
		Event:      func(e watchdog.Event) { th.events <- e },
		DropCaches: func() error { return nil },
		Start: func() (watchdog.Process, error) {
			mode := modes[min(starts, len(modes)-1)]
			starts++
			cmd := recorderCommand([]string{self, "recorder", mode}, []*os.File{file, file}, &th.output)
			cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path)
			return startProcess(cmd)
		},
	}
	return th
}

// wait waits for an event of a kind.
func (th *theatre) wait(kind watchdog.Kind) watchdog.Event {
	th.Helper()
	limit := time.After(2 * time.Minute)
	for {
		select {
		case e := <-th.events:
			if e.Kind == kind {
				return e
			}
		case <-limit:
			th.Fatalf("no event %d in 2 min; output:\n%s", kind, th.output.take())
		}
	}
}

// Fails when a browser waits for TLS where there is no recorder, or the socket is
// lost to the recorder that comes later.
func TestDiagnosticsHangUpOnTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	address := l.Addr().String()
	l.Close()
	end := hangUp([]*os.File{file})
	dial := func() net.Conn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
		return c
	}
	c := dial()
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
	end()
	later := dial()
	defer later.Close()
	recorder, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	defer recorder.Close()
	got, err := recorder.Accept()
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
}

func TestRecorderGetsItsSocketsAndNoRights(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	th := newTheatre(t, watchdog.Limits{Stop: time.Minute}, "serve")
	done := make(chan string)
	go func() { done <- th.s.Run(ctx) }()
	th.wait(watchdog.Ready)
	r, err := http.Get("http://" + th.listen.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if want := "umask 77, no new rights 1 <nil>, leader true"; err != nil || string(body) != want {
		t.Errorf("%q, %v; want %q", body, err, want)
	}
	cancel()
	if e := th.wait(watchdog.Ended); e.Exit.Code != 0 || e.Hung {
		t.Errorf("ended with %+v, want code 0", e)
	}
	if reason := <-done; reason != "" {
		t.Errorf("reboot: %s", reason)
	}
}

// A recorder that hangs, or that is stopped and so takes no signal, leaves the
// stacks of its goroutines and is started again.
func TestHungRecorderLeavesItsGoroutines(t *testing.T) {
	for _, mode := range []string{"hang", "stop"} {
		t.Run(mode, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			th := newTheatre(t, watchdog.Limits{Silence: 300 * time.Millisecond, Dump: time.Minute, FirstPause: time.Millisecond}, mode, "serve")
			done := make(chan string)
			go func() { done <- th.s.Run(ctx) }()
			e := th.wait(watchdog.Ended)
			if !e.Hung || e.Exit.Signal == syscall.SIGKILL {
				t.Errorf("ended with %+v, want a dump before any kill", e)
			}
			out := string(th.output.take())
			if got := crashSummary("==== now\n" + out); !strings.HasPrefix(got, "==== now\nSIGABRT: abort\n") || !strings.Contains(got, "init.recorder\n") || strings.Contains(got, "0x") || strings.Contains(got, "about to") {
				t.Errorf("the page shows\n%s\nof\n%s", got, out)
			}
			if !strings.Contains(out, "SIGABRT") || !strings.Contains(out, "main.recorder") && !strings.Contains(out, "init.recorder") {
				t.Errorf("no goroutines in the output:\n%s", out)
			}
			th.wait(watchdog.Ready)
			cancel()
			<-done
		})
	}
}

func TestExitCodeIsSeenThroughTheLaunch(t *testing.T) {
	th := newTheatre(t, watchdog.Limits{Poisoned: 1}, "poisoned")
	if got := th.s.Run(t.Context()); !strings.Contains(got, "does not trust the disk") {
		t.Errorf("reboot: %q", got)
	}
}

// What a recorder started must not hold the next one up, nor stay.
func TestNothingOfARecorderOutlivesIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	th := newTheatre(t, watchdog.Limits{FirstPause: time.Hour}, "leave")
	done := make(chan string)
	go func() { done <- th.s.Run(ctx) }()
	th.wait(watchdog.Ended)
	var pid int
	if _, err := fmt.Sscanf(string(th.output.take()), "left %d", &pid); err != nil {
		t.Fatal(err)
	}
	limit := time.After(time.Minute)
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(b), ") Z ") {
			break
		}
		select {
		case <-limit:
			t.Fatalf("process %d is there still: %s", pid, b)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	<-done
}

func TestProgramThatIsNotThereSaysSo(t *testing.T) {
	if err := launch([]string{filepath.Join(t.TempDir(), "nvr")}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("launch: %v", err)
	}
	if err := launch(nil); err == nil {
		t.Error("launch of nothing")
	}
}

// A driver may be late where there is one. A board that may have none starts
// without delay.
func TestWatchdogThatIsAlwaysThereIsWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		limit, appears, want time.Duration
		found                bool
	}{
		"at once":            {watchdogTime, 0, 0, true},
		"late":               {watchdogTime, 2 * time.Second, 2 * time.Second, true},
		"never":              {watchdogTime, time.Hour, watchdogTime, false},
		"not waited for":     {0, time.Hour, 0, false},
		"there, and no wait": {0, 0, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				d, err := openWatchdog(c.limit, func() (*watchdog.Device, error) {
					if time.Since(began) < c.appears {
						return nil, os.ErrNotExist
					}
					return new(watchdog.Device), nil
				})
				if took := time.Since(began); (d != nil) != c.found || (err == nil) != c.found || took != c.want {
					t.Errorf("%v, %v after %v; want one: %v, after %v", d, err, took, c.found, c.want)
				}
			})
		})
	}
}

func TestMissingWatchdogIsAFaultWhereEachMachineHasOne(t *testing.T) {
	_, absent := os.Open(filepath.Join(t.TempDir(), "watchdog"))
	if got := noWatchdog(board.Watchdog{Always: true}, absent); !strings.HasPrefix(got, "none: ") || !strings.Contains(got, "a fault") || !strings.Contains(got, "no such file") {
		t.Errorf("%q", got)
	}
	if got := noWatchdog(board.Watchdog{}, absent); strings.Contains(got, "fault") {
		t.Errorf("a board that may have none: %q", got)
	}
}

func TestImageMayAddArguments(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nvr.args")
	plain := []string{"/user/nvr", "run", "-data", "/perm/nvr", "-sample-dirs", "/perm/media"}
	if got, err := recorderArgs(path); err != nil || !slices.Equal(got, plain) {
		t.Errorf("without the file: %q, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("-allow-anonymous\nadmin\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := recorderArgs(path); err != nil || !slices.Equal(got, append(plain, "-allow-anonymous", "admin")) {
		t.Errorf("with it: %q, %v", got, err)
	}
}

func TestOutputIsKeptWithinItsBound(t *testing.T) {
	var lines int
	o := tail{pass: func(line string) {
		lines++
		if len(line) > 1024 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}}
	for i := range 20000 {
		fmt.Fprintf(&o, "line %06d and some more words of it\n", i)
	}
	_, _ = o.Write(bytes.Repeat([]byte("x"), 5000)) // without end
	got := o.take()
	if len(got) > tailSize || !bytes.Contains(got, []byte("line 019999")) || cap(o.kept) != 0 {
		t.Errorf("kept %d bytes, at most %d; the last line is there: %v", len(got), tailSize, bytes.Contains(got, []byte("line 019999")))
	}
	if lines < 20000 {
		t.Errorf("passed on %d lines of 20000", lines)
	}
}

// What is at the beginning of a dump says why; a recorder has so many goroutines
// that the end of one does not.
func TestBeginningOfADumpIsKept(t *testing.T) {
	for _, start := range []string{"panic: index out of range [3]\n\ngoroutine 7 [running]:\n", "SIGABRT: abort\nPC=0x1\n", "fatal error: out of memory\n"} {
		o := tail{pass: func(string) {}}
		for i := range 10000 {
			fmt.Fprintf(&o, "level=INFO msg=\"panic: no, line %06d of the log\"\n", i)
		}
		_, _ = io.WriteString(&o, strings.Repeat("x", maxLine)+"panic: in the midst of a line\n")
		// In pieces, as a pipe delivers it.
		_, _ = io.WriteString(&o, start[:3])
		_, _ = io.WriteString(&o, start[3:])
		for i := range 20000 {
			fmt.Fprintf(&o, "goroutine %d [select]:\nmain.wait(0x1)\n", i)
		}
		_, _ = io.WriteString(&o, "cut off")
		got := string(o.take())
		for _, want := range []string{"line 009999 of the log", "\n" + start, "goroutine 100 [", "goroutine 19999 [", " bytes are left out]\n", "cut off"} {
			if !strings.Contains(got, want) {
				t.Errorf("%.12q: without %q", start, want)
			}
		}
		if i := strings.Index(got, "\n"+start); len(got) > headSize+tailSize+100 || i > leadSize || !strings.HasSuffix(got, "cut off") {
			t.Errorf("%.12q: %d bytes, the dump begins at %d", start, len(got), i)
		}
		// The next process begins with nothing.
		_, _ = io.WriteString(&o, start)
		if got := string(o.take()); got != start {
			t.Errorf("%.12q: then %q", start, got)
		}
	}
}

// A line that only looks like a dump does not take the place of the real one.
func TestLaterDumpIsKept(t *testing.T) {
	o := tail{pass: func(string) {}}
	_, _ = io.WriteString(&o, "panic: not really\n")
	for i := range 10000 {
		fmt.Fprintf(&o, "line %06d of the log\n", i)
	}
	_, _ = io.WriteString(&o, "panic: really\n")
	for i := range 20000 {
		fmt.Fprintf(&o, "goroutine %d [select]:\n", i)
	}
	if got := string(o.take()); !strings.Contains(got, "line 009999 of the log\npanic: really\n") {
		t.Errorf("it is not there:\n%.300s", got)
	}
}

func TestCrashFilesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "crash")
	for i := range 20 {
		if err := writeCrash(path, time.Now(), fmt.Sprintf("crash %d", i), bytes.Repeat([]byte("goroutine\n"), 5000)); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{path, path + ".old"} {
			if st, err := os.Stat(p); err == nil && st.Size() > crashSize {
				t.Fatalf("%s has %d bytes, at most %d", filepath.Base(p), st.Size(), crashSize)
			}
		}
	}
	large := append([]byte("its beginning"), bytes.Repeat([]byte("x"), 2*crashSize)...)
	if err := writeCrash(path, time.Now(), "a large one", append(large, "its end"...)); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Contains(b, []byte("its beginning")) || !bytes.Contains(b, []byte("its end\n")) {
		t.Errorf("of a large one beginning and end are not both kept (%v)", err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() > crashSize {
		t.Errorf("%v, %v", st.Size(), err)
	}
	old, err := os.ReadFile(path + ".old")
	if err != nil || !strings.Contains(string(old), "crash 19") {
		t.Errorf("the crash before it is gone (%v)", err)
	}
	if got := lastCrash(path); !strings.HasPrefix(got, "==== ") || !strings.HasSuffix(got, "a large one\n") {
		t.Errorf("last crash %q", got)
	}
}

// A large disk takes long to format; one that hangs does not get that time.
func TestFormattingKeepsTheLeaseWhileItAdvances(t *testing.T) {
	for _, c := range []struct {
		tib int64
		may time.Duration
	}{{0, 15 * time.Minute}, {1, 30 * time.Minute}, {20, 315 * time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			m := &machine{lease: watchdog.NewLease(bootLease)}
			began := time.Now()
			progress := m.formatting(began)
			for time.Since(began) < c.may {
				time.Sleep(time.Minute)
				if err := progress(c.tib << 40); err != nil || !m.lease.Valid() {
					t.Fatalf("%d TiB after %v: %v, lease %v", c.tib, time.Since(began), err, m.lease.Valid())
				}
			}
			time.Sleep(time.Minute)
			if err := progress(c.tib << 40); err == nil || !strings.Contains(err.Error(), "not done after "+c.may.String()) {
				t.Errorf("%d TiB after %v: %v", c.tib, time.Since(began), err)
			}
			time.Sleep(formatLease)
			if m.lease.Valid() {
				t.Errorf("%d TiB: the lease lasts though nothing advances", c.tib)
			}
		})
	}
}

// The page of safe mode is for everybody on the network.
func TestPageTellsNothingOfTheRecordings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "crash")
	log := "level=INFO msg=\"camera starts\" camera=bedroom url=rtsp://10.0.0.7/live\n"
	for _, dump := range []string{"panic: the one before\n", `panic: runtime error: index out of range [3] with length 3 [recovered]
	panic: again
[signal SIGSEGV: segmentation violation code=0x1 addr=0x7 pc=0x4b]

goroutine 0 gp=0x1 m=0 mp=0x1 [idle]:
runtime.futex(0x16, 0x80)
	/usr/lib/go/src/runtime/sys_linux_amd64.s:557 +0x21

goroutine 42 gp=0xc0 m=3 mp=0xc0 [running]:
panic({0x7f34c0?, 0xc0001?})
	/usr/lib/go/src/runtime/panic.go:792 +0x132
holdfast/nvr/store.(*Store[...]).Append.func1({0xc000012345, 0x7}, "bedroom")
	/src/nvr/store/store.go:12 +0x1d
holdfast/nvr/camera.key[...](...)
	/src/nvr/camera/key.go:7
created by holdfast/nvr/camera.Play in goroutine 1
	/src/nvr/camera/play.go:3 +0x5

goroutine 43 [select]:
main.other(0x1)
	/src/main.go:3 +0x5
`} {
		if err := writeCrash(path, time.Now(), "nvr: exit code 2", []byte(log+dump+log)); err != nil {
			t.Fatal(err)
		}
	}
	head, got, _ := strings.Cut(lastCrash(path), "\n")
	if !strings.HasPrefix(head, "==== ") || !strings.HasSuffix(head, " after start: nvr: exit code 2") {
		t.Errorf("it begins with %q", head)
	}
	if want := `panic: runtime error: index out of range [3] with length 3 [recovered]
panic
holdfast/nvr/store.(*Store[...]).Append.func1
holdfast/nvr/camera.key[...]
created by holdfast/nvr/camera.Play
`; got != want {
		t.Errorf("it shows:\n%s\nwant:\n%s", got, want)
	}
	if err := writeCrash(path, time.Now(), "nvr: exit code 1", []byte(log)); err != nil {
		t.Fatal(err)
	}
	if _, got, _ := strings.Cut(lastCrash(path), "\n"); got != "" {
		t.Errorf("without a dump it shows %q", got)
	}
	if got := lastCrash(path + ".none"); got != "" {
		t.Errorf("without a crash it shows %q", got)
	}
}

func TestIdentityIsMadeOnce(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the recorder's directory is given to its user, which needs root")
	}
	root := t.TempDir()
	first, err := prepare(root)
	if err != nil || len(first) != 32 {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := prepare(root); err != nil || again != first {
		t.Errorf("%q, %v; the second time %q", first, err, again)
	}
	if other, err := prepare(t.TempDir()); err != nil || other == first {
		t.Errorf("another device has the same identity (%v)", err)
	}
	for name, want := range map[string]struct {
		uid  uint32
		mode os.FileMode
	}{"nvr": {nvrUID, 0o700}, "holdfast": {0, 0o700}, "holdfast/keys": {0, 0o700}, "holdfast/machine-id": {0, 0o600}} {
		st, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if uid := st.Sys().(*syscall.Stat_t).Uid; uid != want.uid || st.Mode().Perm() != want.mode {
			t.Errorf("%s: owner %d, mode %o; want %d, %o", name, uid, st.Mode().Perm(), want.uid, want.mode)
		}
	}
	// A cut while it was written leaves nothing or all of it; what is not an
	// identity is no identity.
	path := filepath.Join(root, "holdfast/machine-id")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if id, err := machineID(path); err != nil || len(id) != 32 {
		t.Errorf("from an empty file: %q, %v", id, err)
	}
}

func TestDiagnosticsSayWhatIsWrongAndTakeNoOrders(t *testing.T) {
	info := &bootInfo{
		Board: "amd64", Version: "v1", Watchdog: "none: no driver", SafeMode: true,
		Resets: []ended{{"2026-11-23T14:00:00Z", "nvr <hangs>"}},
	}
	h := diagnostics{
		Fault: "safe mode: the machine was reset too often", Info: info,
		Crash: func() string { return "SIGABRT: abort <script>" }, Disk: func() string { return "read-only after an error" },
	}.handler()
	get := func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w.Code, w.Body.String()
	}
	for path, want := range map[string][]string{
		"/healthz": {`{"ok":false,"checks":[{"name":"recorder","ok":false,"cause":"not recording: safe mode`, `"disk":"read-only`, `"watchdog":"none`,
			`"resets":[{"time":"2026-11-23T14:00:00Z","reason":"nvr \u003changs\u003e"}],"restarts":[]`},
		"/":     {"does not record", "safe mode", "read-only", "nvr &lt;hangs&gt;", "SIGABRT: abort &lt;script&gt;", "after an hour", "none: no driver"},
		"/api/": {"does not record"},
	} {
		code, body := get("GET", path)
		if code != http.StatusServiceUnavailable {
			t.Errorf("GET %s: %d, want 503", path, code)
		}
		for _, w := range want {
			if !strings.Contains(body, w) {
				t.Errorf("GET %s does not say %q:\n%s", path, w, body)
			}
		}
	}
	if code, _ := get("POST", "/"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d, want %d", code, http.StatusMethodNotAllowed)
	}
}

func TestConsoleNeverHoldsAnybodyUp(t *testing.T) {
	c := &console{ours: make(chan string, 2), passed: make(chan string, 2)} // nobody reads
	done := make(chan struct{})
	go func() {
		for range 100 {
			c.say("a line\nof %s", "two")
			c.pass("a line of the recorder\n")
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("a full console blocks")
	}
	if got := <-c.ours; got != "<4>holdfast: a line of two\n" {
		t.Errorf("console line %q", got)
	}
}

func TestDiskThatIsLateIsMountedAfterAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var tries []time.Duration
		mounted := later(t.Context(), func() error {
			tries = append(tries, time.Since(began))
			if len(tries) < 9 {
				return errors.New("no answer")
			}
			return nil
		})
		for !mounted() {
			<-time.After(time.Second)
		}
		<-time.After(time.Hour)
		want := []time.Duration{5, 15, 35, 75, 155, 315, 635, 1235, 1835}
		for i := range want {
			want[i] *= time.Second
		}
		if !slices.Equal(tries, want) {
			t.Errorf("tries after %v, want %v", tries, want)
		}
	})
}

func TestReadOnlyDataPartitionIsSeen(t *testing.T) {
	const before = "23 1 254:3 / / ro,relatime - squashfs /dev/root ro\n"
	for _, c := range []struct{ name, line, want string }{
		{"writable", "30 23 254:4 / /perm rw,nosuid,noatime - ext4 /dev/vda4 rw,lazytime,errors=remount-ro\n", ""},
		{"remounted", "30 23 254:4 / /perm ro,nosuid - ext4 /dev/vda4 ro,errors=remount-ro\n", "ro"},
		{"the file system alone", "30 23 254:4 / /perm rw shared:1 - ext4 /dev/vda4 ro,errors=remount-ro\n", "ro"},
		{"after an error, of late", "30 23 254:4 / /perm rw - ext4 /dev/vda4 rw,errors=remount-ro,emergency_ro\n", "emergency_ro"},
		{"below it", "30 23 254:4 / /perm/media ro - ext4 /dev/vdb ro\n", ""},
		{"mounted again", "30 23 254:4 / /perm ro - ext4 /dev/vda4 ro\n31 30 254:4 / /perm rw - ext4 /dev/vda4 rw\n", ""},
		{"not mounted", "", ""},
		{"cut short", "30 23 254:4 / /perm", ""},
	} {
		got := readOnlyIn(before+c.line, "/perm")
		if c.want != "" {
			c.want = "the data partition is read-only after an error (" + c.want + ")"
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
