package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/appliance/watchdog"
)

// Each step of a reboot may hang, fail, or be done. While it waits for the
// kernel the watchdog must run, or run again, and petting must end.
func TestRebootThatHangsAnywhereEndsInAReset(t *testing.T) {
	for name, c := range map[string]struct {
		hang, fail string // the steps that do
		off        bool   // power off
		want       string
	}{
		"sync hangs":                {hang: "sync", want: "sync unmount expire sysrq"},
		"unmount hangs":             {hang: "unmount", want: "sync unmount expire sysrq"},
		"unmount fails":             {fail: "unmount", hang: "reboot", want: "sync unmount reboot rearm expire sysrq"},
		"reboot hangs":              {hang: "reboot", want: "sync unmount reboot rearm expire sysrq"},
		"reboot fails":              {fail: "reboot", want: "sync unmount reboot rearm expire sysrq"},
		"all hang":                  {hang: "sync unmount reboot rearm sysrq", want: "sync unmount expire sysrq"},
		"the kernel hangs":          {hang: "reboot rearm sysrq", want: "sync unmount reboot rearm expire sysrq"},
		"off, and the disk hangs":   {hang: "sync unmount", off: true, want: "sync unmount reboot rearm expire"},
		"off, and the kernel hangs": {hang: "reboot rearm", off: true, want: "sync unmount reboot rearm expire"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var took []string
				step := func(name string) func() error {
					return func() error {
						mu.Lock()
						took = append(took, name)
						mu.Unlock()
						switch {
						case strings.Contains(c.hang, name):
							<-t.Context().Done()
						case strings.Contains(c.fail, name):
							return errors.New("device or resource busy")
						}
						return nil
					}
				}
				var said []string
				w := wayOut{
					say:  func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) },
					sync: step("sync"), unmount: step("unmount"), reboot: step("reboot"), rearm: step("rearm"),
					expire: func() { _ = step("expire")() },
				}
				if !c.off {
					w.sysrq = step("sysrq")
				}
				began := time.Now()
				w.take()
				mu.Lock()
				defer mu.Unlock()
				if got := strings.Join(took, " "); got != c.want {
					t.Errorf("steps: %s; want: %s", got, c.want)
				}
				// The reason and SIGTERM come before.
				if d := time.Since(began); d > rebootLease-writeTime-termTime {
					t.Errorf("it took %v, longer than the lease", d)
				}
				if c.hang == "sync" && !slices.Contains(said, "sync: not done after 5s") {
					t.Errorf("it says %q", said)
				}
			})
		})
	}
}

// A partition that is full, or cannot be written, is mounted all the same: it is
// unmounted at the end, and nobody is told that it is damaged.
func TestPartitionOfNoUseIsUnmounted(t *testing.T) {
	root := filepath.Join(t.TempDir(), "perm")
	if err := os.WriteFile(root, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := &machine{console: &console{ours: make(chan string, 8)}, lease: watchdog.NewLease(time.Hour), mounted: true}
	if m.identify(root) {
		t.Fatal("an identity was made in a file")
	}
	if got := m.fault(); strings.Contains(got, "damaged") || !strings.Contains(got, "prepare: mkdir ") || !strings.Contains(got, "not a directory") {
		t.Errorf("fault %q", got)
	}
	if m.wayOut(unix.LINUX_REBOOT_CMD_RESTART).unmount == nil {
		t.Error("it is not unmounted")
	}
	m.mounted = false
	if got := m.fault(); !strings.Contains(got, "damaged") {
		t.Errorf("fault of one that is not mounted: %q", got)
	}
	if m.wayOut(unix.LINUX_REBOOT_CMD_RESTART).unmount != nil {
		t.Error("what is not mounted is unmounted")
	}
}
