package hil

// noSync is a recorder that does not sync its files.
var noSync = []mutant{{
	file: "nvr/store/internal/sampledir/disk.go",
	old:  "err := unix.Fdatasync(f.fd)",
	new:  "err := error(nil)",
}, {
	file: "nvr/store/internal/sampledir/disk.go",
	old:  "err := unix.Syncfs(int(d.dir.Fd()))",
	new:  "err := error(nil)",
}, {
	file: "nvr/store/internal/sampledir/disk.go",
	old:  "\t\twriteOut(files, errs)\n",
	new:  "",
}}

// noDirSync is a recorder that does not sync a directory.
var noDirSync = []mutant{{
	file: "nvr/store/internal/sampledir/disk.go",
	old:  "err := bare(d.dir.Sync())",
	new:  "err := error(nil)",
}}

// commitFirst is a recorder that calls durable, and commits, what it syncs only
// two seconds later.
var commitFirst = []mutant{{
	file: "nvr/store/directory.go",
	old:  "\terrs, entries := d.dir.SyncFiles(files)\n",
	new:  "\tfor _, w := range written {\n\t\td.settle(w)\n\t}\n\t<-time.After(2 * time.Second)\n\terrs, entries := d.dir.SyncFiles(files)\n",
}, {
	file: "nvr/store/directory.go",
	old:  "\tif w.last {\n\t\td.close(rec.id())\n\t}\n}\n",
	new:  "}\n",
}, {
	file: "nvr/store/directory.go",
	old:  "\tfor _, w := range good {\n\t\td.settle(w)\n\t}\n",
	new:  "\t_ = good\n",
}}

// trustSync is a recorder that takes a sync that failed for one that did not.
var trustSync = []mutant{{
	file: "nvr/store/internal/sampledir/disk.go",
	old:  "err := unix.Fdatasync(f.fd)\n\t\tif err == nil {",
	new:  "err := unix.Fdatasync(f.fd)\n\t\tif err == nil || err == unix.EIO {",
}, {
	file: "nvr/store/internal/sampledir/disk.go",
	old:  "err := unix.Syncfs(int(d.dir.Fd())); err != unix.EINTR {",
	new:  "err := unix.Syncfs(int(d.dir.Fd())); err == unix.EIO {\n\t\t\treturn nil\n\t\t} else if err != unix.EINTR {",
}, {
	file: "nvr/store/internal/sampledir/disk.go",
	old:  "\t\twriteOut(files, errs)\n",
	new:  "\t\twriteOut(files, make([]error, len(files)))\n",
}}

// copySoon is a recorder that copies its database a minute after the start.
var copySoon = []mutant{{
	file: "nvr/store/backup.go",
	old:  "backupFirst = 10 * time.Minute",
	new:  "backupFirst = time.Minute",
}}

// staleCopy is a recorder that puts a copy in the place of its database and does
// not bring it up to the directories.
var staleCopy = []mutant{{
	file: "nvr/store/restore.go",
	old:  "\t\terr = d.Mend(ctx, m)\n",
	new:  "\t\tm = &db.Mend{EndSessions: true}\n\t\terr = d.Mend(ctx, m)\n",
}}

// noDrop is a process 1 that says that it has dropped the page cache.
var noDrop = []mutant{{
	file: "appliance/init/boot.go",
	old:  `return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0)`,
	new:  "return nil",
}}

// trustJournal is a recorder that does not ask whether a journal gave up under a sync.
var trustJournal = []mutant{{
	file: "nvr/store/internal/sampledir/alive.go",
	old:  "if err == unix.EIO || err == unix.EROFS {\n\t\treturn err",
	new:  "if err == unix.EIO || err == unix.EROFS {\n\t\treturn nil",
}}

// hooks are a recorder that hangs when told to over HTTP, and a process 1 that
// stops petting when the recorder tells it to by a file.
//
//	POST /lab/stop      SIGSTOP to itself
//	POST /lab/deadlock  locks that every stream needs are taken for ever
//	POST /lab/poisoned  it ends as one that does not trust the page cache
//	POST /lab/unpet     process 1 pets no more
//	POST /lab/clock     process 1 sets the clock: seconds since 1970 as the body
//	POST /lab/fill      process 1 takes all room on the second disk
//	POST /lab/room      and gives it back
//	POST /lab/unplug    process 1 tells the kernel that the second disk is gone
//	POST /lab/rescan    and to look for it again
//	POST /lab/drop      process 1 drops the page cache
//	POST /lab/mount     process 1 mounts all disks anew with the options of the body
//	POST /lab/pages     the log is taken over into the database when it has so many pages
//	GET  /lab/usage     what the kernel says of the process and the processors
//	GET  /lab/sockets   what the kernel says of the sockets of all processes
var hooks = []mutant{{
	file: "nvr/web/web.go",
	old:  "\tui := s.UI\n",
	new:  "\tlabHook(mux, s)\n\tui := s.UI\n",
}, {
	file: "nvr/web/lab_hook.go",
	new: `package web

import (
	"io"
	"net/http"
	"os"
	"strconv"
	"syscall"

	"holdfast/nvr/db"
)

func labHook(mux *http.ServeMux, s *server) {
	mux.HandleFunc("POST /lab/stop", func(http.ResponseWriter, *http.Request) {
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	})
	mux.HandleFunc("POST /lab/deadlock", func(http.ResponseWriter, *http.Request) { s.Store.LabDeadlock() })
	mux.HandleFunc("POST /lab/poisoned", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	show := func(files ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for _, name := range files {
				b, _ := os.ReadFile(name)
				io.WriteString(w, name+"\n")
				w.Write(b)
			}
		}
	}
	mux.HandleFunc("GET /lab/usage", show("/proc/self/stat", "/proc/self/status", "/proc/stat"))
	mux.HandleFunc("GET /lab/sockets", show("/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6",
		"/proc/net/udplite", "/proc/net/udplite6", "/proc/net/raw", "/proc/net/raw6"))
	order := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if err == nil {
				err = os.WriteFile("/perm/nvr/lab-new", b, 0o600)
			}
			if err == nil {
				err = os.Rename("/perm/nvr/lab-new", "/perm/nvr/"+name)
			}
			if err != nil {
				http.Error(w, err.Error(), 500)
			}
		}
	}
	mux.HandleFunc("POST /lab/unpet", order("lab-unpet"))
	mux.HandleFunc("POST /lab/clock", order("lab-clock"))
	mux.HandleFunc("POST /lab/fill", order("lab-fill"))
	mux.HandleFunc("POST /lab/room", order("lab-room"))
	mux.HandleFunc("POST /lab/unplug", order("lab-unplug"))
	mux.HandleFunc("POST /lab/rescan", order("lab-rescan"))
	mux.HandleFunc("POST /lab/drop", order("lab-drop"))
	mux.HandleFunc("POST /lab/mount", order("lab-mount"))
	mux.HandleFunc("POST /lab/pages", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		n, err := strconv.Atoi(string(b))
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		db.LabPages.Store(int64(n))
	})
}
`,
}, {
	file: "nvr/db/flush.go",
	old:  "d.checkpoint(ctx, checkpointAt)",
	new:  "d.checkpoint(ctx, labPages())",
}, {
	file: "nvr/db/lab_hook.go",
	new: `package db

import (
	"cmp"
	"sync/atomic"
)

var LabPages atomic.Int64

func labPages() int { return cmp.Or(int(LabPages.Load()), checkpointAt) }
`,
}, {
	file: "nvr/store/lab_hook.go",
	new: `package store

func (s *Store) LabDeadlock() {
	for _, st := range s.allStreams() {
		st.mu.Lock()
	}
}
`,
}, {
	file: "appliance/init/boot.go",
	old:  "\tnotices := m.open()\n",
	new:  "\tnotices := m.open()\n\tm.labMedia()\n\tgo m.labHook()\n",
}, {
	file: "appliance/init/boot.go",
	old:  "\t\tm.mounted, m.permFault = true, \"\"\n",
	new:  "\t\tm.mounted, m.permFault = true, \"\"\n\t\tm.labMedia()\n",
}, {
	file: "appliance/init/lab_hook.go",
	new: `package main

import (
	"encoding/json"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func (m *machine) labHook() {
	const mount = "/perm/nvr/lab-mount"
	const clock = "/perm/nvr/lab-clock"
	for os.Remove("/perm/nvr/lab-unpet") != nil {
		if b, err := os.ReadFile(clock); err == nil {
			os.Remove(clock)
			seconds, err := strconv.ParseInt(string(b), 10, 64)
			if err == nil {
				err = syscall.Settimeofday(&syscall.Timeval{Sec: seconds})
			}
			m.console.say("clock set: %v %v", seconds, err)
		}
		if b, err := os.ReadFile(mount); err == nil {
			os.Remove(mount)
			var options string
			err := json.Unmarshal(b, &options)
			for _, at := range []string{"/perm", "/perm/media"} {
				if err == nil {
					err = unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_NOATIME|unix.MS_LAZYTIME|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, options)
				}
			}
			m.console.say("mounted with %s: %v", options, err)
		}
		if os.Remove("/perm/nvr/lab-drop") == nil {
			syscall.Sync()
			m.console.say("memory dropped: %v", os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0))
		}
		time.Sleep(200 * time.Millisecond)
	}
	m.lease.End()
}
`,
}, {
	// It mounts the disk that calls itself media, and again when that was pulled
	// out and is back: what the appliance's daemon will do.
	file: "appliance/init/lab_media.go",
	new: `package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/appliance/disk"
)

const (
	labMedia  = "/perm/media"
	labBallast = labMedia + "/ballast"
)

func (m *machine) labMedia() {
	if !m.mounted {
		return
	}
	os.Mkdir(labMedia, 0o755)
	said := m.labMount("")
	go func() {
		for range time.Tick(200 * time.Millisecond) {
			said = m.labMount(said)
			if os.Remove("/perm/nvr/lab-fill") == nil {
				m.console.say("media filled: %v", labFill())
			}
			if os.Remove("/perm/nvr/lab-room") == nil {
				m.console.say("media has room: %v", os.Remove(labBallast))
			}
			if os.Remove("/perm/nvr/lab-unplug") == nil {
				bus, err := filepath.EvalSymlinks("/sys/block/" + filepath.Base(labDisk()) + "/device")
				if err == nil {
					err = os.WriteFile(filepath.Dir(bus)+"/remove", []byte("1"), 0)
				}
				m.console.say("media unplugged: %v", err)
			}
			if os.Remove("/perm/nvr/lab-rescan") == nil {
				m.console.say("bus looked at again: %v", os.WriteFile("/sys/bus/pci/rescan", []byte("1"), 0))
			}
		}
	}()
}

// labMount returns what it had to say, which it says once.
func (m *machine) labMount(before string) string {
	say := func(text string) string {
		if text != before {
			m.console.say("%s", text)
		}
		return text
	}
	dev := labDisk()
	if dev == "" {
		return before
	}
	p := disk.Perm{Partition: dev}
	if ours, err := p.MountedAt(labMedia); err != nil || ours {
		return before
	}
	var here, perm unix.Stat_t
	if unix.Stat(labMedia, &here) == nil && unix.Stat("/perm", &perm) == nil && here.Dev != perm.Dev {
		m.console.say("media of old unmounted: %v", unix.Unmount(labMedia, unix.MNT_DETACH))
	}
	if err := p.Mount(labMedia); err != nil {
		return say("media: " + err.Error())
	}
	samples := filepath.Join(labMedia, "nvr")
	if err := os.Mkdir(samples, 0o700); err == nil {
		os.Chown(samples, nvrUID, nvrGID)
	}
	m.console.say("media mounted: %s", dev)
	return ""
}

func labDisk() (dev string) {
	names, _ := filepath.Glob("/sys/block/vd*")
	for _, name := range names {
		if b, err := os.ReadFile(name + "/serial"); err == nil && strings.TrimSpace(string(b)) == "media" {
			dev = "/dev/" + filepath.Base(name)
		}
	}
	return dev
}

// labFill leaves less than a block.
func labFill() error {
	f, err := os.Create(labBallast)
	if err != nil {
		return err
	}
	defer f.Close()
	var at int64
	for size := int64(1) << 30; size >= 4096; {
		if unix.Fallocate(int(f.Fd()), 0, at, size) == nil {
			at += size
		} else {
			size /= 2
		}
	}
	return f.Sync()
}
`,
}}

// smallRing is a recorder whose memory holds half a minute of one camera, which
// sends 52 KB/s.
var smallRing = []mutant{{
	file: "nvr/store/store.go",
	old:  "cfg.RingBytes = 256 << 20",
	new:  "cfg.RingBytes = 3 << 19",
}}

// lazy mounts the second disk so that ext4 writes its journal when it is told to,
// and hardly ever by itself.
var lazy = []mutant{{
	file: "appliance/init/lab_media.go",
	old:  "\tsamples := filepath.Join(labMedia, \"nvr\")\n",
	new:  "\tm.console.say(\"media is lazy: %v\", unix.Mount(\"\", labMedia, \"\", unix.MS_REMOUNT, \"commit=300\"))\n\tsamples := filepath.Join(labMedia, \"nvr\")\n",
}}
