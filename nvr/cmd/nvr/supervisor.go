package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"holdfast/nvr/web"
)

// What passes between the recorder and whoever supervises it: systemd, or
// process 1 of the appliance. Without either, none of it happens.

// secureName is that of a passed socket that is for TLS.
const secureName = "https"

// listen returns the sockets to serve on, plain and over TLS: those that the
// supervisor passed, whatever the addresses, else new ones. Without one that was
// passed, and without an address, secure is nil.
func listen(http, https string) (plain, secure net.Listener, err error) {
	for _, f := range activation.Files(true) {
		l, err := net.FileListener(f)
		if err != nil {
			return nil, nil, errors.New("passed socket: nobody can connect to it; a listening stream is needed")
		}
		to := &plain
		if f.Name() == secureName {
			to = &secure
		}
		if *to != nil {
			return nil, nil, fmt.Errorf("passed sockets: there are two named %s; one is served on, and one named %s for TLS", f.Name(), secureName)
		}
		*to = l
		f.Close()
	}
	if plain == nil {
		if plain, err = net.Listen("tcp", http); err != nil {
			return nil, nil, listenError(err, http, "-http")
		}
	}
	if secure == nil && https != "" {
		if secure, err = net.Listen("tcp", https); err != nil {
			return nil, nil, listenError(err, https, "-https")
		}
	}
	return plain, secure, nil
}

// listenError says which flag gave the address that cannot be listened on.
func listenError(err error, address, flag string) error {
	if wrong, ok := errors.AsType[*net.AddrError](err); ok {
		return fmt.Errorf("%w: %s %s: %s: expected HOST:PORT", errUsage, flag, address, wrong.Err)
	}
	if wrong, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("listen on %s: %s: choose another with %s", address, wrong.Err, flag)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	return fmt.Errorf("listen on %s: %w: choose another with %s", address, err, flag)
}

// Times of a start, while the store brings in what is on the disks.
const (
	startTurn    = 10 * time.Second // between two words to the supervisor
	startExtend  = 60 * time.Second // more time, each turn
	startSilence = 5 * time.Minute  // without progress it gets no more
)

// starting asks the supervisor for more time, as long as the start makes
// progress, until ctx is done. Progress is reported by calling the function it
// returns, from anywhere.
func starting(ctx context.Context, notify func(string)) (progress func()) {
	began := time.Now()
	var last atomic.Int64
	go func() {
		t := time.NewTicker(startTurn)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			if time.Since(began)-time.Duration(last.Load()) < startSilence {
				notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", startExtend.Microseconds()))
			}
		}
	}()
	return func() { last.Store(int64(time.Since(began))) }
}

// watchdog tells the supervisor that recording makes progress, three times in
// each interval, as long as it does.
func watchdog(ctx context.Context, interval time.Duration, healthy func(context.Context) error, notify func(string), log *slog.Logger) {
	t := time.NewTicker(interval / 3)
	defer t.Stop()
	for {
		if err := healthy(ctx); err == nil {
			notify(daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			log.Error("not well; the supervisor is not told otherwise", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// watchdogInterval is how often the supervisor wants to hear that all is well;
// 0 when it does not.
func watchdogInterval(log *slog.Logger) time.Duration {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the supervisor's watchdog is not understood", "err", err)
	}
	return interval
}

// notifier speaks to the supervisor, if there is one.
func notifier(log *slog.Logger) func(string) {
	return func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.Warn("notify supervisor", "err", err)
		}
	}
}

// maxMachine bounds the file that describes the machine.
const maxMachine = 64 << 10

// machine reads what the appliance says of itself and of its last resets; nil
// where there is no appliance.
func machine(path string) (*web.Machine, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read description of machine: %w", err)
	}
	defer f.Close()
	m := new(web.Machine)
	if err := json.NewDecoder(io.LimitReader(f, maxMachine)).Decode(m); err != nil {
		return nil, fmt.Errorf("read description of machine: %s: %w", path, err)
	}
	return m, nil
}
