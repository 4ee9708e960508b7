package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// launchCommand makes this program start another in its own place. Between
// fork and exec stands what only the new process can do for itself.
const launchCommand = "launch"

// launch becomes the program argv[0]. It returns only with an error.
func launch(argv []string) error {
	if len(argv) == 0 {
		return fmt.Errorf("init: launch: no program")
	}
	unix.Umask(0o077)
	// Nothing that this program starts can gain rights again.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("init: launch: %w", err)
	}
	env := os.Environ()
	for i, e := range env {
		if strings.HasPrefix(e, "LISTEN_PID=") {
			// Sockets are passed to one process, by its number.
			env[i] = "LISTEN_PID=" + strconv.Itoa(os.Getpid())
		}
	}
	return fmt.Errorf("init: launch %s: %w", argv[0], unix.Exec(argv[0], argv, env))
}
