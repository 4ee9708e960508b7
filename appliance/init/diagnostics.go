package main

import (
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// checkTime is how often the diagnostics ask whether they are over.
const checkTime = 10 * time.Second

// diagnose serves the diagnostics in the recorder's place, and pets, until
// over says so or ctx is done.
func (m *machine) diagnose(ctx context.Context, fault string, over func() bool) {
	l, err := net.FileListener(m.listening[0])
	if err != nil {
		m.console.say("diagnostics: %v", err)
	} else {
		defer hangUp(m.listening[1:])()
		// What is served may outlast the fault: a copy, made now.
		permFault, info := m.permFault, m.info
		page := diagnostics{Fault: fault, Info: &info}
		page.Crash = func() string {
			if permFault != "" {
				return ""
			}
			return lastCrash(crashFile)
		}
		page.Disk = func() string { return diskState(permFault) }
		server := &http.Server{
			Handler: page.handler(), ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		}
		go func() { _ = server.Serve(l) }()
		// The socket stays open for the recorder: this closes a copy.
		defer server.Close()
		m.console.say("diagnostics are served: %s", fault)
	}
	alive := time.NewTicker(time.Second)
	defer alive.Stop()
	check := time.NewTicker(checkTime)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-alive.C:
			m.lease.Renew(aliveLease)
		case <-check.C:
			if over() {
				return
			}
		}
	}
}

// hangUp has who comes to other sockets told at once that nobody is there: what
// they want is the recorder's alone. The function it returns ends that.
func hangUp(sockets []*os.File) (end func()) {
	var open []net.Listener
	for _, s := range sockets {
		l, err := net.FileListener(s)
		if err != nil {
			continue
		}
		open = append(open, l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	}
	return func() {
		for _, l := range open {
			l.Close()
		}
	}
}

// diagnostics is the page of a machine that does not record. It takes no
// orders: a person pulls the plug to have another try. Everybody on the network
// sees it, so it tells nothing of what the recorder recorded.
type diagnostics struct {
	Fault string
	Info  *bootInfo
	Crash func() string
	Disk  func() string
}

var diagnosticsPage = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Holdfast does not record</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}pre{overflow:auto;background:#eee;color:#000;padding:1rem}</style>
<h1>This device does not record</h1>
<p>{{.Fault}}</p>
{{if .Info.SafeMode}}<p>It tries again by itself after an hour of running. To try at once, switch it off and on.</p>{{end}}
<h2>Disk</h2><p>{{.DiskState}}</p>
<h2>Resets</h2>
{{with .Info.Resets}}<ul>{{range .}}<li>{{with .Time}}{{.}}: {{end}}{{.Reason}}</li>{{end}}</ul>{{else}}<p>None are known.</p>{{end}}
<h2>Last crash</h2>{{with .LastCrash}}<pre>{{.}}</pre>{{else}}<p>None is known.</p>{{end}}
<p>Holdfast {{.Info.Version}} on {{.Info.Board}}; watchdog: {{.Info.Watchdog}}</p>
</html>
`))

// handler serves the page, and /healthz in the form that the recorder has.
func (d diagnostics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		type check struct {
			Name  string `json:"name"`
			OK    bool   `json:"ok"`
			Cause string `json:"cause,omitempty"`
		}
		type streams struct {
			Wanted    int `json:"wanted"`
			Recording int `json:"recording"`
		}
		type machine struct {
			Board    string  `json:"board"`
			Version  string  `json:"version"`
			Watchdog string  `json:"watchdog"`
			Resets   []ended `json:"resets"`
			Restarts []ended `json:"restarts"`
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(struct { // who asked has gone: nobody to tell
			OK           bool     `json:"ok"`
			Checks       []check  `json:"checks"`
			Streams      streams  `json:"streams"` // nobody knows
			NotRecording []string `json:"notRecording"`
			Disk         string   `json:"disk"` // the state of the data partition
			Machine      machine  `json:"machine"`
		}{
			false, []check{{"recorder", false, "not recording: " + d.Fault}}, streams{}, []string{}, d.Disk(),
			machine{d.Info.Board, d.Info.Version, d.Info.Watchdog, append([]ended{}, d.Info.Resets...), append([]ended{}, d.Info.Restarts...)},
		})
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = diagnosticsPage.Execute(w, struct {
			diagnostics
			DiskState, LastCrash string
		}{d, d.Disk(), d.Crash()})
	})
	return mux
}

// readOnly says that the data partition has become read-only, or "". ext4 makes
// it so when it cannot write its journal, and then only a mount makes it writable.
// The kernel knows without asking the disk.
func readOnly() string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	return readOnlyIn(string(mounts), perm)
}

// readOnlyIn looks for a mount point among mounts as proc(5) shows them. Since
// Linux 6.15 ext4 tells of an error by a word of its own among the options behind
// the dash, and statfs(2) does not tell.
func readOnlyIn(mounts, at string) string {
	said := ""
	for line := range strings.Lines(mounts) {
		before, after, _ := strings.Cut(line, " - ")
		fields, super := strings.Fields(before), strings.Fields(after)
		if len(fields) < 6 || len(super) < 3 || fields[4] != at {
			continue
		}
		said = "" // of several the last lies on top
		for _, o := range strings.Split(fields[5]+","+super[2], ",") {
			if slices.Contains([]string{"ro", "emergency_ro", "shutdown"}, o) {
				said = "the data partition is read-only after an error (" + o + ")"
			}
		}
	}
	return said
}

// diskState describes the data partition.
func diskState(fault string) string {
	if fault != "" {
		return fault
	}
	var st unix.Statfs_t
	if err := within(5*time.Second, func() error { return unix.Statfs(perm, &st) }); err != nil {
		return "it does not answer: " + err.Error()
	}
	state := "mounted"
	if readOnly() != "" {
		state = "read-only after an error"
	}
	size := uint64(st.Bsize)
	return fmt.Sprintf("%s, %d of %d MiB free", state, st.Bavail*size>>20, st.Blocks*size>>20)
}
