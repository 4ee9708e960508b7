package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store"
	"holdfast/nvr/store/looptest"
)

var everyKill = flag.Bool("every-kill", false, "kill the recorder at each of its first 300 calls, not at a sample of them")

// busyCameras starts emulated cameras that cut their viewers off each three
// seconds, and writes a configuration that flushes a second later.
func busyCameras(t *testing.T, n int) (config string) {
	t.Helper()
	script, err := cameratest.ParseScript("every 3s drop")
	if err != nil {
		t.Fatal(err)
	}
	cams, err := cameratest.Start(cameratest.Config{Listen: "127.0.0.1:0", Cameras: n, Script: script})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cams.Close)
	var set store.Settings
	sec := 1
	for _, path := range cams.Paths() {
		name, typ, _ := strings.Cut(path, "/")
		if typ == "main" {
			set.Cameras = append(set.Cameras, store.CameraConfig{ShortName: name, Streams: make(map[string]store.StreamConfig)})
		}
		set.Cameras[len(set.Cameras)-1].Streams[typ] = store.StreamConfig{URL: cams.URL(path), Record: true, RetainBytes: 1 << 30, FlushIfSec: &sec}
	}
	config = filepath.Join(t.TempDir(), "cameras.json")
	b, err := json.Marshal(set)
	if err == nil {
		err = os.WriteFile(config, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func configured(t *testing.T, config string) (data string) {
	t.Helper()
	data = t.TempDir()
	configuredIn(t, config, data)
	return data
}

func configuredIn(t *testing.T, config, data string) {
	t.Helper()
	if out, code := nvrCommand(t, "config", "import", config, "-data", data); code != 0 {
		t.Fatal(out)
	}
}

// pictures counts the pictures in whole fragments, by file.
func pictures(t *testing.T, data string) map[string]int {
	t.Helper()
	out := make(map[string]int)
	names, _ := filepath.Glob(filepath.Join(data, "sample", "*.mp4"))
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		fi, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		sf, err := mp4.ReadSampleFile(f, fi.Size())
		if f.Close(); err != nil {
			continue // it has not come to a fragment
		}
		for i := range sf.Fragments {
			out[filepath.Base(name)] += len(sf.Fragments[i].Video)
		}
	}
	return out
}

// comesBack starts a recorder on what another left, stops it, and looks at all
// of it: every picture of whole fragments is there still, but of streams that
// are deleted, and check finds nothing.
func comesBack(t *testing.T, data string, deleted ...int32) {
	t.Helper()
	of := func(name string) bool {
		return slices.ContainsFunc(deleted, func(id int32) bool { return strings.HasPrefix(name, fmt.Sprintf("%08x", id)) })
	}
	before := pictures(t, data)
	p := start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "view")
	p.address()
	p.terminate()
	after := pictures(t, data)
	for name, n := range before {
		if after[name] < n && !of(name) {
			t.Errorf("%s had %d pictures, after the next start %d", name, n, after[name])
		}
	}
	for name := range after {
		if of(name) {
			t.Errorf("%s is there, its camera was deleted", name)
		}
	}
	if out, code := nvrCommand(t, "check", "-data", data); code != 0 || !strings.Contains(out, ": 0 findings") {
		t.Errorf("check: %d: %s", code, out)
	}
}

// The recorder is killed at its n-th call that changes the data directory, from
// the first of the start to recording that goes on, with flushes and rotation
// of runs between. The next start works, and nothing that was written is lost.
func TestKilledAtAnyCallItComesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	every := 15
	if *everyKill {
		every = 1
	}
	config := busyCameras(t, 4)
	const lanes = 4 // most of the time is waiting for pictures
	var running sync.WaitGroup
	for lane := range lanes {
		running.Go(func() {
			t.Run(fmt.Sprint("lane", lane), func(t *testing.T) {
				killed := t.TempDir()
				if lane%2 == 0 && os.Getuid() == 0 { // an ext4 as the appliance mounts it
					killed, _ = looptest.Mount(t, 2<<30)
				}
				used, fresh := filepath.Join(killed, "used"), filepath.Join(killed, "new")
				configuredIn(t, config, used)
				names := make(map[string]int)
				for n := 1 + lane*every; n <= 300 && !t.Failed(); n += lanes * every {
					killAt(t, used, n, names)
					if n <= 60 { // while the database is made, from nothing
						killAt(t, fresh, n, names)
						if err := os.RemoveAll(fresh); err != nil {
							t.Fatal(err)
						}
					}
				}
				t.Logf("killed at %v", names)
			})
		})
	}
	running.Wait()
}

// killAt kills a recorder at its n-th call, and the next has to come back.
func killAt(t *testing.T, data string, n int, names map[string]int) {
	t.Helper()
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	p := trace(t, data, func(c sysCall) syscall.Signal {
		if c.n == n {
			return syscall.SIGKILL
		}
		return 0
	}, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "view")
	ws := p.wait()
	if !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Errorf("call %d: it ended by itself: %v: %s", n, ws, p.log())
	}
	names[p.last.name]++
	comesBack(t, data)
	if t.Failed() {
		t.Errorf("killed at %v", p.last)
	}
}

// waitFiles waits until each stream has a sample file.
func waitFiles(t *testing.T, dir string, streams []int32) {
	t.Helper()
	limit := time.Now().Add(2 * time.Minute)
	for _, id := range streams {
		for ; ; <-time.After(50 * time.Millisecond) {
			if names, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("%08x*.mp4", id))); err != nil || len(names) > 0 {
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("stream %d has no file", id)
			}
		}
	}
}

// SIGTERM comes while the recorder starts, while it flushes, and while it
// unlinks the files of a camera: it stops in order, and nothing is lost.
func TestTerminatedAtWorkItStopsInOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	config := busyCameras(t, 2)
	run := func(data string, when func(sysCall) bool) *traced {
		sent := false
		return trace(t, data, func(c sysCall) syscall.Signal {
			if sent || !when(c) {
				return 0
			}
			sent = true
			return syscall.SIGTERM
		}, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "admin")
	}
	ends := func(t *testing.T, p *traced, data string) {
		t.Helper()
		if ws := p.wait(); !ws.Exited() || ws.ExitStatus() != 0 {
			t.Errorf("SIGTERM at %v: %v, exit code %d: %s", p.last, ws, ws.ExitStatus(), p.log())
		}
		// The next start would adopt what got no row: it is nothing.
		out, code := nvrCommand(t, "check", "-data", data)
		if code != 0 || !strings.Contains(out, ": 0 findings") || strings.Contains(out, "no row yet") {
			t.Errorf("check, before the next start: %d: %s", code, out)
		}
	}
	data := configured(t, config)
	t.Run("start", func(t *testing.T) {
		for n := 1; n < 60; n += 7 {
			ends(t, run(data, func(c sysCall) bool { return c.n == n }), data)
			comesBack(t, data)
		}
	})
	t.Run("flush", func(t *testing.T) {
		for _, name := range []string{"write", "sync"} { // pwrite64, fsync, fdatasync
			p := run(data, recordsThen(func(c sysCall) bool { return strings.Contains(c.name, name) && c.path == "db-wal" }))
			ends(t, p, data)
			comesBack(t, data)
		}
	})
	t.Run("collection", func(t *testing.T) {
		for skip := range 2 {
			data := configured(t, config)
			unlinked := 0
			p := run(data, func(c sysCall) bool {
				if strings.HasPrefix(c.name, "unlink") && strings.HasPrefix(c.path, "sample/") {
					unlinked++
				}
				return unlinked > skip
			})
			address := p.address()
			waitRecording(t, address, 4)
			var top struct {
				Cameras []struct {
					UUID    string `json:"uuid"`
					Streams map[string]struct {
						ID int32 `json:"id"`
					} `json:"streams"`
				} `json:"cameras"`
			}
			if err := json.Unmarshal(get(t, address+"/api/"), &top); err != nil {
				t.Fatal(err)
			}
			var deleted []int32
			for _, st := range top.Cameras[0].Streams {
				deleted = append(deleted, st.ID)
			}
			waitFiles(t, filepath.Join(data, "sample"), deleted)
			req, err := http.NewRequest("DELETE", address+"/api/cameras/"+top.Cameras[0].UUID+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			if res, err := http.DefaultClient.Do(req); err == nil { // it may stop before it answers
				res.Body.Close()
			}
			ends(t, p, data)
			comesBack(t, data, deleted...)
		}
	})
}

// recordsThen waits for the first call of a process that has begun a sample file
// and is the one meant.
func recordsThen(is func(sysCall) bool) func(sysCall) bool {
	recording := false
	return func(c sysCall) bool {
		recording = recording || strings.HasPrefix(c.path, "sample/0")
		return recording && is(c)
	}
}

// A sync of the sample directory or of the database's log that fails says that
// nobody knows what the disk has: the process ends at once, with the exit code
// for which the page cache is dropped before the next.
func TestSyncThatFailsEndsTheProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	config := busyCameras(t, 2)
	for _, path := range []string{"sample", "db-wal"} {
		t.Run(path, func(t *testing.T) {
			data := configured(t, config)
			due := recordsThen(func(c sysCall) bool { return strings.HasSuffix(c.name, "sync") && c.path == path })
			calls := 0 // from the one that failed on
			p := trace(t, data, func(c sysCall) syscall.Signal {
				if calls > 0 || due(c) {
					calls++
				}
				switch calls {
				case 1:
					return failCall
				case 1000: // it goes on
					return syscall.SIGKILL
				}
				return 0
			}, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "view")
			if ws := p.wait(); !ws.Exited() || ws.ExitStatus() != poisonedCode {
				t.Errorf("%v, exit code %d, want %d: %s", ws, ws.ExitStatus(), poisonedCode, p.log())
			}
			if _, err := os.Stat(filepath.Join(data, "db-wal")); err != nil {
				t.Errorf("the database was closed: %v", err)
			}
			comesBack(t, data)
		})
	}
}

// A disk that hangs does not hold up the end of the process for longer than a
// supervisor waits before it kills.
func TestDiskThatHangsHoldsUpNoStop(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Setenv(stopAsShipped, "1")
	data := configured(t, busyCameras(t, 2))
	due := recordsThen(func(c sysCall) bool { return strings.Contains(c.name, "sync") && strings.HasPrefix(c.path, "sample") })
	hangs := make(chan struct{})
	var once sync.Once
	p := trace(t, data, func(c sysCall) syscall.Signal {
		if !due(c) {
			return 0
		}
		once.Do(func() { close(hangs) })
		return holdCall // and each sync behind it
	}, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "view")
	select {
	case <-hangs:
	case <-p.ended:
		p.wait()
		t.Fatalf("it ended: %s", p.log())
	case <-time.After(2 * time.Minute):
		t.Fatal("nothing is synced")
	}
	began := time.Now()
	if err := syscall.Kill(p.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ws := p.wait()
	took := time.Since(began)
	t.Logf("it took %v", took)
	if !ws.Exited() || ws.ExitStatus() != 1 || !strings.Contains(p.log(), "a disk does not answer") {
		t.Errorf("%v, exit code %d: %s", ws, ws.ExitStatus(), p.log())
	}
	// 1 s and 3.5 s are its limits, 5 s are meant; the machine may stall.
	if took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	t.Setenv(stopAsShipped, "")
	comesBack(t, data)
}
