package watchdog

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNoticeIsRead(t *testing.T) {
	for message, want := range map[string]Notice{
		"READY=1": {Ready: true},
		"READY=1\nSTATUS=8 cameras\nWATCHDOG=1\n":  {Ready: true, Watchdog: true, Status: "8 cameras"},
		"WATCHDOG=trigger":                         {Trigger: true},
		"STOPPING=1":                               {Stopping: true},
		"READY=0\nWATCHDOG=\nnonsense\n=\nX_Y=1":   {},
		"EXTEND_TIMEOUT_USEC=30000000":             {Extend: 30 * time.Second},
		"EXTEND_TIMEOUT_USEC=-1":                   {},
		"EXTEND_TIMEOUT_USEC=9223372036854775807":  {Extend: maxExtend},
		"EXTEND_TIMEOUT_USEC=99999999999999999999": {},
		"STATUS=\x1b[2Jgone\x00":                   {Status: " [2Jgone "},
		"STATUS=" + strings.Repeat("ü", 200):       {Status: strings.Repeat("ü", 100)},
		"":                                         {},
	} {
		want.PID = 7
		if diff := cmp.Diff(want, parseNotice(7, message)); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", message, diff)
		}
	}
}

func FuzzNotice(f *testing.F) {
	f.Add("READY=1\nSTATUS=x\nEXTEND_TIMEOUT_USEC=5")
	f.Fuzz(func(t *testing.T, message string) {
		n := parseNotice(1, message)
		if n.Extend < 0 || n.Extend > maxExtend || len(n.Status) > 200 || strings.ContainsAny(n.Status, "\n\x1b\x00") {
			t.Errorf("%q gives %+v", message, n)
		}
	})
}

func TestSocketNamesTheSender(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	// What a process before this one left there is no hindrance.
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(path, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v (%v), want 0600", st.Mode(), err)
	}
	got := make(chan Notice)
	ended := make(chan error)
	go func() { ended <- s.Receive(func(n Notice) { got <- n }) }()
	c, err := net.Dial("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("WATCHDOG=1")); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n.PID != os.Getpid() || !n.Watchdog {
		t.Errorf("got %+v from process %d", n, os.Getpid())
	}
	s.Close()
	if err := <-ended; err != nil {
		t.Errorf("closed socket: %v", err)
	}
}
