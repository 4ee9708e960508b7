package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// sysCall is one by which a process changes its data directory.
type sysCall struct {
	n    int // counted from 1 over all threads
	name string
	path string // within the data directory
}

func (c sysCall) String() string { return fmt.Sprintf("call %d, %s %s", c.n, c.name, c.path) }

// changing are the calls that change files, and what tells which file.
var changing = map[uint64]struct {
	name string
	file operand
}{
	1: {"write", byFD}, 18: {"pwrite64", byFD}, 20: {"writev", byFD}, 296: {"pwritev", byFD}, 74: {"fsync", byFD}, 75: {"fdatasync", byFD},
	77: {"ftruncate", byFD}, 285: {"fallocate", byFD}, 306: {"syncfs", byFD},
	2: {"open", byPath}, 82: {"rename", byPath}, 83: {"mkdir", byPath}, 87: {"unlink", byPath},
	257: {"openat", byPathAt}, 258: {"mkdirat", byPathAt}, 263: {"unlinkat", byPathAt}, 264: {"renameat", byPathAt}, 316: {"renameat2", byPathAt},
}

type operand int

const (
	byFD operand = iota
	byPath
	byPathAt
)

// watchCalls makes this process stop for its tracer before each of those calls,
// and before no other: by a filter (seccomp) for all of its threads.
func watchCalls() error {
	type filter struct {
		code     uint16
		yes, no  uint8
		argument uint32
	}
	const (
		load, equal, give = 0x20, 0x15, 0x06 // of the machine of filters
		allow, tell       = 0x7fff0000, 0x7ff00000
		noNewPrivileges   = 38
		seccomp, set      = 317, 1
		allThreads        = 1
	)
	prog := []filter{{code: load}} // the number
	for nr := range changing {
		prog = append(prog, filter{equal, 0, 1, uint32(nr)}, filter{give, 0, 0, tell})
	}
	prog = append(prog, filter{give, 0, 0, allow})
	p := struct {
		n      uint16
		filter *filter
	}{uint16(len(prog)), &prog[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, noNewPrivileges, 1, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	if _, _, errno := syscall.RawSyscall(seccomp, set, allThreads, uintptr(unsafe.Pointer(&p))); errno != 0 {
		return errno
	}
	return nil
}

// traced is an nvr whose calls are watched.
type traced struct {
	t     *testing.T
	out   *os.File
	pid   int
	ended chan struct{}
	last  sysCall
	ws    syscall.WaitStatus
}

// What at may return in place of a signal: the call is not made, and fails with
// EIO, or its thread stands there, as before a disk that hangs.
const (
	failCall syscall.Signal = -1 - iota
	holdCall
)

// trace starts nvr and calls at before each call that changes the data
// directory; the signal it returns, if any, comes to the process before the
// call. strace counts the calls of each thread by itself, and Go moves its
// work from thread to thread; so this counts, and a process killed at its
// n-th call has made n-1.
func trace(t *testing.T, data string, at func(sysCall) syscall.Signal, args ...string) *traced {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the numbers of system calls are those of amd64")
	}
	data, err := filepath.EvalSymlinks(data)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	p := &traced{t: t, out: out, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // it is the tracer
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), asNVR+"=traced")
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
			_, err = syscall.Wait4(p.pid, &p.ws, 0, nil)
		}
		if err == nil {
			const exitKill, filtered = 1 << 20, 1 << 7
			err = syscall.PtraceSetOptions(p.pid, syscall.PTRACE_O_TRACECLONE|filtered|exitKill)
		}
		started <- err
		if err == nil {
			p.follow(data, at)
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		t.Skipf("needs to be allowed to trace processes: %v", err)
	}
	t.Cleanup(func() {
		syscall.Kill(p.pid, syscall.SIGKILL)
		<-p.ended
		if t.Failed() {
			t.Logf("log of %v, up to %v:\n%s", args, p.last, p.log())
		}
		out.Close()
	})
	return p
}

// follow lets the process run until its end.
func (p *traced) follow(data string, at func(sysCall) syscall.Signal) {
	const filteredEvent = 7
	seen := map[int]bool{p.pid: true}
	tid, signal, held := p.pid, 0, false
	for {
		if !held {
			syscall.PtraceCont(tid, signal) // one that was killed answers by its end
		}
		held = false
		var ws syscall.WaitStatus
		for {
			var err error
			tid, err = syscall.Wait4(-p.pid, &ws, syscall.WALL, nil) // all threads of its group
			if err == syscall.EINTR {
				continue
			}
			if err != nil {
				return
			}
			if !ws.Exited() && !ws.Signaled() {
				break
			}
			if tid == p.pid {
				p.ws = ws
			}
		}
		signal = 0
		switch s := ws.StopSignal(); {
		case s == syscall.SIGTRAP && ws.TrapCause() == filteredEvent:
			if c, ok := p.call(tid, data); ok {
				c.n = p.last.n + 1
				p.last = c
				switch kill := at(c); kill {
				case 0:
				case failCall:
					p.fail(tid)
				case holdCall:
					held = true
				default:
					syscall.Kill(p.pid, kill)
				}
			}
		case s == syscall.SIGTRAP: // a new thread, or the beginning
		case s == syscall.SIGSTOP && !seen[tid]:
			seen[tid] = true
		default:
			signal = int(s)
		}
	}
}

// fail lets the call that a thread is about to make return EIO: there is no call
// of number -1, and what it returns stands already where it is looked for.
func (p *traced) fail(tid int) {
	const pokeUser, rax, origRax = 6, 10 * 8, 15 * 8 // struct user_regs_struct
	none, eio := -1, -int(syscall.EIO)
	for at, value := range map[uintptr]int{origRax: none, rax: eio} {
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, pokeUser, uintptr(tid), at, uintptr(value), 0, 0); errno != 0 {
			p.t.Errorf("registers: %v", errno)
		}
	}
}

// call reads what a thread is about to do, if it changes the data directory.
func (p *traced) call(tid int, data string) (c sysCall, ok bool) {
	var info struct { // struct ptrace_syscall_info
		op                 uint8
		_                  [7]byte
		instruction, stack uint64
		nr                 uint64
		args               [6]uint64
		_                  [8]byte
	}
	const getSyscallInfo, filtered = 0x420e, 3
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, getSyscallInfo, uintptr(tid),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0); errno != 0 || info.op != filtered {
		return c, false
	}
	kind, ok := changing[info.nr]
	if !ok {
		return c, false
	}
	var name string
	switch kind.file {
	case byFD:
		name, _ = os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.pid, info.args[0]))
	case byPath:
		name = p.text(info.args[0])
	case byPathAt:
		name = p.text(info.args[1])
		if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.pid, int32(info.args[0]))); err == nil && !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
	}
	flags := info.args[1]
	if kind.name == "openat" {
		flags = info.args[2]
	}
	if (kind.name == "open" || kind.name == "openat") && flags&(syscall.O_CREAT|syscall.O_TRUNC) == 0 {
		return c, false
	}
	name, ok = strings.CutPrefix(name, data+"/")
	return sysCall{name: kind.name, path: name}, ok
}

// text reads a string of the process.
func (p *traced) text(at uint64) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.pid))
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 512)
	n, _ := f.ReadAt(b, int64(at))
	text, _, _ := bytes.Cut(b[:n], []byte{0})
	return string(text)
}

func (p *traced) log() string {
	b, _ := os.ReadFile(p.out.Name())
	return string(b)
}

// wait waits for its end and returns how it ended.
func (p *traced) wait() syscall.WaitStatus {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(3 * time.Minute):
		syscall.Kill(p.pid, syscall.SIGKILL)
		<-p.ended
		p.t.Errorf("it does not end; %v was its last\n%s", p.last, p.log())
	}
	if strings.HasPrefix(p.log(), "watch calls:") {
		p.t.Skip("needs filters of system calls: " + p.log())
	}
	return p.ws
}

// address waits until it serves.
func (p *traced) address() string {
	p.t.Helper()
	for limit := time.Now().Add(time.Minute); ; {
		if _, after, ok := strings.Cut(p.log(), "serving "); ok && strings.Contains(after, "\n") {
			address, _, _ := strings.Cut(after, "\n")
			return address
		}
		select {
		case <-p.ended:
			p.wait()
			p.t.Fatalf("it ended: %s", p.log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(limit) {
			p.t.Fatalf("it does not serve: %s", p.log())
		}
	}
}
