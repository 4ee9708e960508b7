package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/nvr/store/looptest"
)

// A disk that is filled by somebody else: the recorder says so, keeps what
// comes in memory, and when room returns writes all of it, without a restart.
func TestFullDiskIsNamedAndLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	disk, _ := looptest.Mount(t, 64<<20)
	cams, config := cameras(t, 1, "")
	data := filepath.Join(disk, "data")
	if out, code := nvrCommand(t, "config", "import", config, "-data", data); code != 0 {
		t.Fatal(out)
	}
	machine := watchStalls(t, t.TempDir())
	p := start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "view")
	address := p.address()
	waitRecording(t, address, 2)

	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	said := waitDirError(t, address, func(s string) bool { return s != "" })
	if !strings.Contains(said, "no space left on device") || !strings.Contains(said, data) {
		t.Errorf("a full disk is called %q", said)
	}
	<-time.After(10 * time.Second)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	waitDirError(t, address, func(s string) bool { return s == "" })
	<-time.After(3 * time.Second)
	sent, at := cams.Frame("1/main"), time.Now()
	if d := p.terminate(); d > time.Minute {
		t.Errorf("a clean stop took %v", d)
	}
	behind := machine.frames(at)
	for name, st := range recorded(t, data, cams) {
		if gaps := st.Gaps(); len(gaps) > 0 {
			t.Errorf("%s: %d frames are missing after frame %d", name, gaps[0].Missing, gaps[0].After.Frame)
		}
		if last := st.Frames[len(st.Frames)-1].Frame; name == "1 main" && last+behind < sent {
			t.Errorf("%s: the last frame is %d, sent were %d; it may be %d behind", name, last, sent, behind)
		}
	}

	// And a recorder that is started on a full disk.
	fill(t, ballast)
	out, code := nvrCommand(t, "run", "-data", filepath.Join(disk, "new"), "-http", "127.0.0.1:0")
	if code != 1 || !strings.Contains(out, "full") && !strings.Contains(out, "no space left") || !strings.Contains(out, filepath.Join(disk, "new")) {
		t.Errorf("start on a full disk: exit code %d, %q", code, out)
	}
}

// fill takes all room that is left on a disk.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		_, err := f.Write(make([]byte, size))
		if errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// waitDirError waits until what the API says of the directory is as wanted.
func waitDirError(t *testing.T, address string, want func(string) bool) string {
	t.Helper()
	for range 300 {
		var top struct {
			Cameras []struct {
				Streams map[string]struct {
					DirError string `json:"dirError"`
				} `json:"streams"`
			} `json:"cameras"`
		}
		if err := json.Unmarshal(get(t, address+"/api/"), &top); err != nil {
			t.Fatal(err)
		}
		if s := top.Cameras[0].Streams["main"].DirError; want(s) {
			return s
		}
		<-time.After(100 * time.Millisecond)
	}
	t.Fatal("the directory does not get there in 30 s")
	return ""
}
