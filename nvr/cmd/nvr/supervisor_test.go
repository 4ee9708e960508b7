package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/web"
)

// words are what a supervisor heard, in fake time.
type words struct {
	mu    sync.Mutex
	began time.Time
	heard []string
}

func (w *words) say(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = append(w.heard, fmt.Sprintf("%v %s", time.Since(w.began), s))
}

func TestStartThatMakesNoProgressGetsFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &words{began: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		starting(ctx, w.say)
		<-time.After(time.Hour)
		if n := len(w.heard); n != 29 || w.heard[0] != "10s EXTEND_TIMEOUT_USEC=60000000" || !strings.HasPrefix(w.heard[28], "4m50s ") {
			t.Errorf("%d words: %q", n, w.heard)
		}
	})
}

func TestStartThatMakesProgressGetsMoreTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &words{began: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		progress := starting(ctx, w.say)
		for range 10 {
			<-time.After(4 * time.Minute)
			progress()
		}
		<-time.After(time.Second)
		if n := len(w.heard); n != 240 {
			t.Errorf("%d words in 40 minutes, want one each 10s", n)
		}
		cancel()
		<-time.After(time.Hour)
		if n := len(w.heard); n != 240 {
			t.Errorf("%d words, some after the start was done", n)
		}
	})
}

func TestSupervisorHearsOfHealthOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &words{began: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		healthy := func(context.Context) error {
			if d := time.Since(w.began); d > 10*time.Second && d < 20*time.Second {
				return errors.New("the disk hangs")
			}
			return nil
		}
		go watchdog(ctx, 21*time.Second, healthy, w.say, slog.New(slog.DiscardHandler))
		<-time.After(29 * time.Second)
		cancel()
		synctest.Wait()
		if diff := cmp.Diff([]string{"0s WATCHDOG=1", "7s WATCHDOG=1", "21s WATCHDOG=1", "28s WATCHDOG=1"}, w.heard); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestMachineIsReadAsTheApplianceWritesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boot.json")
	if m, err := machine(""); m != nil || err != nil {
		t.Errorf("without an appliance: %v, %v", m, err)
	}
	if m, err := machine(path); m != nil || err == nil {
		t.Errorf("without the file: %v, %v", m, err)
	}
	for _, wrong := range []string{"", "{", `{"resets": 7}`} {
		if err := os.WriteFile(path, []byte(wrong), 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := machine(path); m != nil || err == nil {
			t.Errorf("%q: %v, %v", wrong, m, err)
		}
	}
	if err := os.WriteFile(path, []byte(`{"board": "amd64", "version": "v1", "machineId": "secret", "watchdog": "none: no driver", "safeMode": false,
		"resets": [{"time": "2026-11-23T14:00:00Z", "reason": "nvr hangs"}], "later": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := machine(path)
	if err != nil {
		t.Fatal(err)
	}
	want := &web.Machine{Board: "amd64", Version: "v1", Watchdog: "none: no driver",
		Resets: []web.Ended{{Time: "2026-11-23T14:00:00Z", Reason: "nvr hangs"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Under a supervisor a real recorder serves on the socket that it was passed,
// and says that it is ready, well, and stopping.
func TestRecorderUnderASupervisor(t *testing.T) {
	dir := t.TempDir()
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
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer secure.Close()
	secureFile, err := secure.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer secureFile.Close()
	boot := filepath.Join(dir, "boot.json")
	if err := os.WriteFile(boot, []byte(`{"board": "amd64", "resets": [{"reason": "nvr hung"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}
	conn, err := net.ListenUnixgram("unixgram", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	heard := func() string {
		b := make([]byte, 4096)
		if err := conn.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := conn.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(b[:n]); !strings.HasPrefix(got, "EXTEND_TIMEOUT_USEC=") { // of a start that takes long
				return got
			}
		}
	}
	// A socket is passed to a process by its number, which only it knows.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, os.Args[0],
		"run", "-data", filepath.Join(dir, "data"), "-http", "192.0.2.1:1")
	cmd.Env = append(os.Environ(), asNVR+"=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=http:https", "NOTIFY_SOCKET="+socket.Name, "WATCHDOG_USEC=300000", "HOLDFAST_BOOT="+boot)
	cmd.ExtraFiles = []*os.File{file, secureFile}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	if got := heard(); got != "READY=1" && got != "WATCHDOG=1" {
		t.Errorf("heard %q first", got)
	}
	for range 3 {
		if got := heard(); got != "WATCHDOG=1" && got != "READY=1" {
			t.Errorf("heard %q, want WATCHDOG=1", got)
		}
	}
	r, err := http.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil || !strings.Contains(string(body), `"resets":[{"reason":"nvr hung"}]`) {
		t.Errorf("health %q, %v", body, err)
	}
	tls, err := browser(get(t, "http://"+l.Addr().String()+"/ca.pem")).Get("https://" + secure.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	tls.Body.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for got := ""; got != "STOPPING=1"; {
		got = heard()
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestSocketsThatCannotBeServedOnAreRefused(t *testing.T) {
	for script, want := range map[string]string{
		`LISTEN_PID=$$ LISTEN_FDS=2 exec "$0" "$@"`:                            "passed sockets: there are two",
		`LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=https:https exec "$0" "$@"`: "passed sockets: there are two",
		`LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3</dev/null`:                "passed socket: nobody can connect",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		cmd := exec.Command("/bin/sh", "-c", script, os.Args[0], "run", "-data", t.TempDir())
		cmd.Env = append(os.Environ(), asNVR+"=1")
		cmd.ExtraFiles = []*os.File{a, a}
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v, %s; want %q", err, out, want)
		}
	}
}

// systemd must start the recorder again after a hang and after a panic, and not
// after a wrong flag.
func TestUnitStartsAgainAfterAHangAndAPanic(t *testing.T) {
	unit, err := os.ReadFile("nvr.service")
	if err != nil {
		t.Fatal(err)
	}
	var never []string
	for line := range strings.Lines(string(unit)) {
		if codes, ok := strings.CutPrefix(line, "RestartPreventExitStatus="); ok {
			never = append(never, strings.Fields(codes)...)
		}
	}
	hung := start(t, "run", "-data", t.TempDir(), "-http", "127.0.0.1:0", "-allow-anonymous", "view")
	hung.address()
	if err := hung.cmd.Process.Signal(syscall.SIGABRT); err != nil {
		t.Fatal(err)
	}
	hung.wait()
	panics := exec.Command(os.Args[0])
	panics.Env = append(os.Environ(), asNVR+"=panic")
	if err := panics.Run(); err == nil {
		t.Fatal("no panic")
	}
	_, wrong := nvrCommand(t, "run", "-no-such-flag")
	for _, c := range []struct {
		how   string
		code  int
		again bool
	}{
		{"SIGABRT, as after WatchdogSec", hung.cmd.ProcessState.ExitCode(), true},
		{"a panic", panics.ProcessState.ExitCode(), true},
		{"an error", 1, true},
		{"a disk that cannot be trusted", 3, true},
		{"wrong usage", wrong, false},
	} {
		if got := !slices.Contains(never, strconv.Itoa(c.code)); got != c.again {
			t.Errorf("exit code %d, by %s: started again %v, want %v", c.code, c.how, got, c.again)
		}
	}
}
