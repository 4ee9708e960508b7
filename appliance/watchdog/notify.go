package watchdog

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Notice is one message of sd_notify(3): what a process says about itself.
type Notice struct {
	PID int // who sent it, as the kernel knows it

	Ready    bool
	Watchdog bool // all is well
	Trigger  bool // WATCHDOG=trigger: it asks to be treated as hung
	Stopping bool
	Status   string        // "" when the message holds none
	Extend   time.Duration // how much longer it needs; 0 when the message holds none
}

// most is the length of a message; a longer one is cut.
const most = 4096

// maxExtend bounds what a process may ask for at once: a wrong unit must not
// switch the watchdog off.
const maxExtend = 15 * time.Minute

// parseNotice reads a message. What it does not know it passes over, as
// sd_notify asks for.
func parseNotice(pid int, message string) Notice {
	n := Notice{PID: pid}
	for line := range strings.Lines(message) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "=")
		if !ok {
			continue
		}
		switch key {
		case "READY":
			n.Ready = value == "1"
		case "STOPPING":
			n.Stopping = value == "1"
		case "WATCHDOG":
			n.Watchdog, n.Trigger = value == "1", value == "trigger"
		case "STATUS":
			n.Status = printable(value, 200)
		case "EXTEND_TIMEOUT_USEC":
			if us, err := strconv.ParseInt(value, 10, 64); err == nil && us > 0 {
				n.Extend = maxExtend
				if us < int64(maxExtend/time.Microsecond) {
					n.Extend = time.Duration(us) * time.Microsecond
				}
			}
		}
	}
	return n
}

// printable cuts text to n bytes and takes control characters out: it is shown
// on a console.
func printable(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > n {
		text = strings.ToValidUTF8(text[:n], "")
	}
	return text
}

// Socket is NOTIFY_SOCKET.
type Socket struct {
	conn *net.UnixConn
}

// Listen makes the socket at path, where the user uid may write to it.
func Listen(path string, uid, gid int) (*Socket, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen for notices: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for notices: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var opt error
		// The kernel then says who sent each message; a process cannot lie
		// about it.
		err = errors.Join(raw.Control(func(fd uintptr) {
			opt = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		}), opt)
	}
	err = errors.Join(err, os.Chmod(path, 0o600), os.Chown(path, uid, gid))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("listen for notices: %w", err)
	}
	return &Socket{conn: conn}, nil
}

// Receive hands each message to take, which must not wait for long, until the
// socket is closed. Messages without a sender are dropped.
func (s *Socket) Receive(take func(Notice)) error {
	message := make([]byte, most)
	oob := make([]byte, 256)
	for {
		n, m, _, _, err := s.conn.ReadMsgUnix(message, oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("receive notice: %w", err)
		}
		if pid := sender(oob[:m]); pid > 0 {
			take(parseNotice(pid, string(message[:n])))
		}
	}
}

// Close ends Receive.
func (s *Socket) Close() error { return s.conn.Close() }

// sender is the process that sent a message, 0 when the kernel does not say.
// File descriptors that came along are closed: they would pile up.
func sender(oob []byte) int {
	pid := 0
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
		if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			pid = int(cred.Pid)
		}
	}
	return pid
}
