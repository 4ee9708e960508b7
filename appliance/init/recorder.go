package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"holdfast/appliance/watchdog"
)

// silence is how often the recorder has to report, at least.
const silence = 20 * time.Second

// recorderArgs is the command line of the recorder. A file in the image may add
// arguments, one a line; release images have none. Disks for recordings are
// mounted at /perm/media.
func recorderArgs(extra string) ([]string, error) {
	argv := []string{"/user/nvr", "run", "-data", "/perm/nvr", "-sample-dirs", "/perm/media"}
	b, err := os.ReadFile(extra)
	if errors.Is(err, os.ErrNotExist) {
		return argv, nil
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" {
			argv = append(argv, line)
		}
	}
	return argv, err
}

// webSockets are what the recorder serves on, by the names that it knows them by.
var webSockets = [...]struct{ name, address string }{{"http", ":80"}, {"https", ":443"}}

// recorderCommand is the recorder as a process: it gets the sockets to serve on
// and the socket to report to, as from systemd, and a process group of its own.
func recorderCommand(argv []string, listening []*os.File, output io.Writer) *exec.Cmd {
	var names []string
	for _, s := range webSockets {
		names = append(names, s.name)
	}
	return &exec.Cmd{
		Path: "/proc/self/exe",
		Args: append([]string{"init", launchCommand}, argv...),
		Dir:  "/",
		Env: []string{
			"PATH=/user:/gokrazy",
			"HOME=/perm/nvr",
			"GOTRACEBACK=all",
			"SSL_CERT_FILE=/etc/ssl/ca-bundle.pem",
			"HOLDFAST_BOOT=" + bootFile,
			"NOTIFY_SOCKET=" + notifyPath,
			// No WATCHDOG_PID: go-systemd takes a number that is not its own
			// for a watchdog that is off.
			fmt.Sprintf("WATCHDOG_USEC=%d", silence.Microseconds()),
			fmt.Sprintf("LISTEN_FDS=%d", len(listening)),
			"LISTEN_FDNAMES=" + strings.Join(names, ":"),
			"LISTEN_PID=", // set by launch
		},
		ExtraFiles:  listening,
		Stdout:      output,
		Stderr:      output,
		WaitDelay:   2 * time.Second, // for output that somebody else holds open
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
}

// startProcess starts a command that leads a process group.
func startProcess(cmd *exec.Cmd) (watchdog.Process, error) {
	if err := cmd.Start(); err != nil {
		return watchdog.Process{}, err
	}
	done := make(chan watchdog.Exit, 1)
	pid := cmd.Process.Pid
	go func() {
		err := cmd.Wait()
		// What it started and left behind ends with it. Process 1 inherits it,
		// and has to wait for it.
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		done <- exit(cmd.ProcessState, err)
		for {
			if _, err := syscall.Wait4(-pid, nil, 0, nil); err != nil && err != syscall.EINTR {
				return
			}
		}
	}()
	return watchdog.Process{
		PID:    pid,
		Signal: func(sig syscall.Signal) error { return syscall.Kill(-pid, sig) },
		Done:   done,
	}, nil
}

func exit(state *os.ProcessState, err error) watchdog.Exit {
	if state == nil {
		return watchdog.Exit{Code: -1, Err: err}
	}
	e := watchdog.Exit{Code: state.ExitCode()}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = ws.Signal()
	}
	return e
}
