package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gokrazy/gokrazy"
	"golang.org/x/sys/unix"

	"holdfast/appliance/disk"
	"holdfast/appliance/watchdog"
	"holdfast/board"
)

// Places of the appliance.
const (
	perm       = "/perm"
	ownDir     = "/perm/holdfast"
	resetsFile = "/perm/holdfast/resets"
	crashFile  = "/perm/holdfast/crash"
	runDir     = "/run/holdfast"
	bootFile   = "/run/holdfast/boot.json"
	notifyPath = "/run/holdfast/notify"
)

// Leases of the watchdog. Each part of the start has its own; the supervisor
// renews a short one each second.
const (
	bootLease   = 3 * time.Minute
	formatLease = 5 * time.Minute // after each write; the last sync is long
	aliveLease  = 20 * time.Second
	rebootLease = time.Minute
)

// formatTime is how long formatting may take, and as long again for each TiB: about
// ten times what a Pi should need.
const formatTime = 15 * time.Minute

// machine is the state of the boot.
type machine struct {
	console *console
	lease   *watchdog.Lease
	device  *watchdog.Device // nil: there is none
	ledger  *ledger

	mounted   bool   // the data partition is, though it may not be of use
	permFault string // why there is no data partition of use; "" when there is one
	rests     bool   // starts that ended without a word: the recorder waits a little
	ready     bool   // the recorder was, in this start
	info      bootInfo
	listening []*os.File // those of webSockets
	crash     chan crash
	output    tail

	command      []string // of the recorder; read once, since the disk may hang later
	commandFault error
}

// bootInfo is what the recorder is told of the machine, and shows.
type bootInfo struct {
	Board     string    `json:"board"`
	Version   string    `json:"version"`
	MachineID string    `json:"machineId,omitempty"`
	Watchdog  string    `json:"watchdog"` // its driver and timeout, or "none: why"
	SafeMode  bool      `json:"safeMode"`
	Resets    []ended   `json:"resets"`             // of the machine, newest first
	Restarts  []ended   `json:"restarts,omitempty"` // of the recorder since this start, newest first
	Started   time.Time `json:"-"`
}

// ended is one end of machine or recorder, with its reason.
type ended struct {
	Time   string `json:"time"` // RFC 3339; "" when the clock was not set
	Reason string `json:"reason"`
}

// crash is what is kept of one.
type crash struct {
	reason string
	output []byte
}

// boot is process 1 from the kernel's exec on. It does not return.
func boot() {
	m := &machine{
		console: newConsole(), lease: watchdog.NewLease(bootLease),
		ledger: newLedger(), crash: make(chan crash, 4),
	}
	m.info.Resets = []ended{}
	m.output.pass = m.console.pass
	m.info.Board, m.info.Version = thisBoard().Name, version()
	m.console.say("init")
	fired := m.takeWatchdog(thisBoard().Watchdog.Always)
	m.mountKernel()
	m.stayResident()
	m.mountPerm()
	// If it came late: gokrazy takes what is there now, and pets it whatever the
	// recorder does.
	fired = m.takeWatchdog(false) || fired
	// Before anything else that may fail, so that it is written and counts.
	m.remember(fired)
	if err := gokrazy.Boot(m.info.Version); err != nil {
		// Without /run or a host name nothing that follows could be seen.
		m.giveUp("gokrazy does not start: " + err.Error())
	}
	debug := debugImage()
	m.harden(debug)
	m.checkPerm()
	notices := m.open()
	services := []*gokrazy.Service{
		gokrazy.NewService(exec.Command("/gokrazy/dhcp")),
		gokrazy.NewService(exec.Command("/gokrazy/randomd")),
	}
	if debug {
		services = append(services, gokrazy.NewService(exec.Command(shell)))
	}
	if err := gokrazy.SuperviseServices(services); err != nil {
		m.console.say("gokrazy's services: %v", err)
	}
	go m.watchAddresses()
	m.takeWatchdog(false) // the last try

	ctx, how := m.orders()
	reason := m.serve(ctx, notices, fired)
	if ctx.Err() != nil && reason == "" {
		m.restart(<-how, "", false)
	}
	m.restart(unix.LINUX_REBOOT_CMD_RESTART, reason, true)
}

// giveUp reboots a machine that cannot even serve its diagnostics. Once the brake
// holds it waits first: it must not reboot for ever.
func (m *machine) giveUp(reason string) {
	if m.info.SafeMode {
		m.console.say("safe mode: %s; reboot in %v", reason, brakeTime)
		for range int(brakeTime / time.Second) {
			m.lease.Renew(aliveLease)
			<-time.After(time.Second)
		}
	}
	m.restart(unix.LINUX_REBOOT_CMD_RESTART, reason, true)
}

// watchdogTime is how long a watchdog that each machine of the board has is
// waited for: its driver may be late.
const (
	watchdogTime = 5 * time.Second
	watchdogTurn = 100 * time.Millisecond
)

// openWatchdog calls open once, or until there is a device, but not for longer
// than limit.
func openWatchdog(limit time.Duration, open func() (*watchdog.Device, error)) (*watchdog.Device, error) {
	for began := time.Now(); ; <-time.After(watchdogTurn) {
		d, err := open()
		if d != nil || time.Since(began) >= limit {
			return d, err
		}
	}
}

// noWatchdog says why there is none.
func noWatchdog(b board.Watchdog, err error) string {
	switch {
	case b.Always:
		return "none: each machine of this board has one, so this is a fault: " + err.Error()
	case errors.Is(err, os.ErrNotExist):
		return "none: the kernel has no driver for one in this machine"
	}
	return "none: " + err.Error()
}

// takeWatchdog opens the hardware watchdog before gokrazy can, and pets it
// while the lease lasts. It does nothing once that was done. With wait it gives
// the driver time. fired is its word that it reset the machine.
func (m *machine) takeWatchdog(wait bool) (fired bool) {
	if m.device != nil || !m.lease.Valid() { // one that nobody may pet would reset a machine that works
		return false
	}
	b := thisBoard().Watchdog
	limit := time.Duration(0)
	if wait {
		limit = watchdogTime
	}
	d, err := openWatchdog(limit, func() (*watchdog.Device, error) {
		return watchdog.Open("/dev/watchdog", min(b.Timeout, b.LongestTimeout))
	})
	if d == nil {
		none := noWatchdog(b, err)
		if none != m.info.Watchdog {
			m.console.say("watchdog %s; a hang of the whole machine lasts until somebody acts", none)
		}
		m.info.Watchdog = none
		return false
	}
	m.device = d
	m.info.Watchdog = fmt.Sprintf("%s, %v", d.Identity, d.Timeout)
	m.console.say("watchdog %s", m.info.Watchdog)
	go func() {
		watchdog.Keep(context.Background(), m.lease, b.Ping, d.Pet)
		// The lease is over, for good. This goroutine may wait for a console
		// and a disk: it pets no more.
		m.console.say("petting stopped: the hardware resets the machine in %v", d.Timeout)
		_ = m.ledger.end("process 1 hung; petting stopped", true)
	}()
	return d.Fired
}

// mountKernel mounts what is needed to find the own disk. gokrazy finds it
// mounted and goes on.
func (m *machine) mountKernel() {
	for _, fs := range []string{"proc", "sysfs"} {
		target := map[string]string{"proc": "/proc", "sysfs": "/sys"}[fs]
		if err := unix.Mount(fs, target, fs, unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, ""); err != nil && err != unix.EBUSY {
			m.console.say("mount %s: %v", target, err)
		}
	}
}

// mountPerm mounts the data partition, after making it on the first start.
func (m *machine) mountPerm() {
	p, err := disk.Find()
	if err != nil {
		m.permFault = err.Error()
		m.console.say("perm damaged: %s", m.permFault)
		return
	}
	fresh, err := p.Fresh()
	if fresh {
		m.console.say("perm is fresh: formatting %s", p.Partition)
		began := time.Now()
		var size int64
		if size, err = p.Make(m.formatting(began)); err == nil {
			m.console.say("perm formatted: %s, %d MiB in %v", p.Partition, size>>20, time.Since(began).Round(time.Millisecond))
		}
		m.lease.Renew(bootLease)
	}
	if err == nil {
		err = p.Mount(perm)
	}
	if err != nil {
		m.permFault = err.Error()
		m.console.say("perm damaged: %s", m.permFault)
		return
	}
	m.mounted = true
	if !fresh {
		m.console.say("perm mounted: %s", p.Partition)
	}
}

// mountAgain mounts a data partition that has been made before.
func mountAgain() error {
	p, err := disk.Find()
	if err != nil {
		return err
	}
	switch fresh, err := p.Fresh(); {
	case err != nil:
		return err
	case fresh:
		return errors.New("it is not made") // mountPerm says why
	}
	return p.Mount(perm)
}

// Pauses between tries to mount a data partition after all.
const (
	firstMount = 5 * time.Second
	lastMount  = 10 * time.Minute
)

// later tries until mount succeeds, and returns what tells that it did: a disk
// may answer late, and nobody is there to pull the plug. The tries have a
// goroutine of their own, since each may hang.
func later(ctx context.Context, mount func() error) func() bool {
	var mounted atomic.Bool
	go func() {
		for pause := firstMount; ; pause = min(2*pause, lastMount) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			if mount() == nil {
				mounted.Store(true)
				return
			}
		}
	}()
	return mounted.Load
}

// formatting returns what keeps the lease while formatting advances. It ends
// what takes too long: a reset would not help, since it only began again.
func (m *machine) formatting(began time.Time) func(size int64) error {
	return func(size int64) error {
		limit := formatTime + time.Duration(float64(formatTime)*float64(size)/(1<<40))
		if time.Since(began) > limit {
			return fmt.Errorf("not done after %v", limit.Round(time.Second))
		}
		m.lease.Renew(formatLease)
		return nil
	}
}

// checkPerm undoes what gokrazy may have mounted in the place of the data
// partition: its search takes the last disk that looks like ours, and tries file
// systems that we did not make.
func (m *machine) checkPerm() {
	var here, root unix.Stat_t
	if unix.Stat(perm, &here) != nil || unix.Stat("/", &root) != nil || here.Dev == root.Dev {
		return
	}
	if p, err := disk.Find(); err == nil && m.mounted {
		if ours, err := p.MountedAt(perm); err != nil || ours {
			return
		}
	}
	err := unix.Unmount(perm, unix.MNT_DETACH)
	m.console.say("took back %s: another file system was mounted there (%v)", perm, err)
}

// remember reads what the device knows of its past, makes its identity, and
// decides about safe mode.
func (m *machine) remember(fired bool) {
	if m.permFault != "" || !m.identify(perm) {
		return
	}
	go m.keepCrashes()
	if err := m.ledger.open(resetsFile); err != nil {
		m.console.say("resets are not remembered: %v", err)
	}
	if err := m.ledger.change(func(h *history, now time.Time) { m.info.SafeMode, m.rests = h.begin(now, fired), h.Rest }); err != nil {
		m.console.say("resets are not remembered: %v", err)
	}
	resets := m.ledger.snapshot().Resets
	for _, r := range slices.Backward(resets) {
		m.info.Resets = append(m.info.Resets, ended{r.Time, r.Reason})
	}
	if len(resets) > 0 {
		m.console.say("last reset: %s", m.info.Resets[0].Reason)
	}
	go func() {
		// How long the device has run is what the brake counts by.
		for range time.Tick(10 * time.Minute) {
			_ = m.ledger.change(func(*history, time.Time) {})
		}
	}()
}

// identify makes or reads the identity below root, and reports whether it could.
func (m *machine) identify(root string) bool {
	id, err := prepare(root)
	if err != nil {
		m.permFault = err.Error()
		m.console.say("perm of no use: %s", m.permFault)
		return false
	}
	m.info.MachineID = id
	return true
}

// open makes what the recorder gets from process 1: its command line, its socket
// to speak on and its socket to serve on.
func (m *machine) open() <-chan watchdog.Notice {
	m.command, m.commandFault = recorderArgs("/etc/holdfast/nvr.args")
	notices := make(chan watchdog.Notice, 64)
	err := os.MkdirAll(runDir, 0o755)
	if err == nil {
		var s *watchdog.Socket
		if s, err = watchdog.Listen(notifyPath, nvrUID, nvrGID); err == nil {
			go func() {
				err := s.Receive(func(n watchdog.Notice) {
					select {
					case notices <- n:
					default: // the supervisor lags; the next one comes in seconds
					}
				})
				m.console.say("notices: %v", err)
			}()
		}
	}
	if err != nil {
		m.giveUp(err.Error())
	}
	for _, s := range webSockets {
		l, err := net.Listen("tcp", s.address)
		var file *os.File
		if err == nil {
			file, err = l.(*net.TCPListener).File()
			l.Close()
		}
		if err != nil {
			m.giveUp("listen on " + s.address + ": " + err.Error())
		}
		m.listening = append(m.listening, file)
	}
	return notices
}

// orders returns a context that ends when somebody orders the machine to stop,
// and how: a reboot, a halt, or off. gokrazy would obey the same signals, but
// does not know the recorder.
func (m *machine) orders() (context.Context, <-chan int) {
	signal.Reset(unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	ctx, cancel := context.WithCancel(context.Background())
	how := make(chan int, 1)
	go func() {
		switch <-signals {
		case unix.SIGUSR1:
			how <- unix.LINUX_REBOOT_CMD_HALT
		case unix.SIGUSR2:
			how <- unix.LINUX_REBOOT_CMD_POWER_OFF
		default:
			how <- unix.LINUX_REBOOT_CMD_RESTART
		}
		cancel()
	}()
	return ctx, how
}

// serve is the machine at work: the recorder, or in its place the diagnostics.
// It returns when the machine has to end, with the reason unless it was ordered.
func (m *machine) serve(ctx context.Context, notices <-chan watchdog.Notice, fired bool) string {
	for m.permFault != "" {
		over := func() bool { return false } // only a person can help; the machine says so and stays up
		if !m.mounted {
			over = later(ctx, mountAgain)
		}
		m.diagnose(ctx, m.fault(), over)
		if ctx.Err() != nil {
			return ""
		}
		m.console.say("perm mounted after all")
		m.lease.Renew(bootLease)
		m.mounted, m.permFault = true, ""
		m.remember(fired)
	}
	if m.info.SafeMode || m.rests {
		past, then := m.ledger.snapshot(), uptime() // once: the ledger may wait for a disk
		fault := "safe mode: the machine was reset too often, and the recorder waits"
		over := func() bool {
			now := past
			now.Ran += int64((uptime() - then) / time.Second)
			return !now.braked()
		}
		if m.rests {
			fault = fmt.Sprintf("safe mode: %d starts ended without a word before the recorder was ready; it tries again %v after this start, or when switched off and on", restStarts, restTime)
			over = func() bool { return uptime() >= restTime }
			m.console.say("%s", fault)
		} else {
			m.console.say("safe mode: %d resets within %v of running, at last: %s", brakeResets, brakeTime, m.info.Resets[0].Reason)
		}
		m.diagnose(ctx, fault, over)
		if ctx.Err() != nil {
			return ""
		}
		m.info.SafeMode, m.rests = false, false
		go func() { _ = m.ledger.change(func(h *history, _ time.Time) { h.Safe, h.Rest = false, false }) }()
		m.console.say("safe mode is over: the recorder gets another try")
	}
	s := &watchdog.Supervisor{
		Start:   m.startRecorder,
		Notices: notices,
		Alive:   func() { m.lease.Renew(aliveLease) },
		Event:   m.event,
		DropCaches: func() error {
			// 3: names and inodes, too, which a failed sync of a directory is about
			return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0)
		},
		Futile: readOnly,
	}
	return s.Run(ctx)
}

// fault says what is wrong with the data partition.
func (m *machine) fault() string {
	if m.mounted {
		return "the data partition is mounted, but of no use: " + m.permFault
	}
	return "the data partition is damaged: " + m.permFault
}

// startRecorder starts the recorder as its own user. Of the disk it waits for
// exec alone.
func (m *machine) startRecorder() (watchdog.Process, error) {
	if m.commandFault != nil {
		return watchdog.Process{}, fmt.Errorf("start nvr: %w", m.commandFault)
	}
	b, err := json.MarshalIndent(m.info, "", "  ")
	if err == nil {
		err = os.WriteFile(bootFile, append(b, '\n'), 0o644)
	}
	if err != nil {
		return watchdog.Process{}, fmt.Errorf("start nvr: %w", err)
	}
	cmd := recorderCommand(m.command, m.listening, &m.output)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nvrUID, Gid: nvrGID}
	p, err := startProcess(cmd)
	if err != nil {
		return p, fmt.Errorf("start nvr: %w", err)
	}
	return p, nil
}

// event shows what happened to the recorder, and keeps what it wrote when it
// went down.
func (m *machine) event(e watchdog.Event) {
	switch e.Kind {
	case watchdog.Started:
		m.console.say("nvr started")
	case watchdog.Ready:
		m.console.say("nvr ready")
		if !m.ready {
			m.ready = true
			go func() { _ = m.ledger.change(func(h *history, _ time.Time) { h.ready() }) }()
		}
	case watchdog.Status:
		m.console.say("nvr status: %s", e.Text)
	case watchdog.Hangs:
		m.console.say("nvr hangs: %s", e.Text)
	case watchdog.Dropped:
		if e.Text == "" {
			e.Text = "done"
		}
		m.console.say("page cache dropped: %s", e.Text)
	case watchdog.Stops:
		m.console.say("nvr is stopped: %s", e.Text)
	case watchdog.Restarts:
		m.console.say("nvr starts again in %v", e.Pause)
	case watchdog.Ended:
		why := e.Text
		if exit := e.Exit.String(); exit != why {
			why += " (" + exit + ")"
		}
		m.console.say("nvr ended: %s", why)
		r := ended{Reason: shorten(e.Text, 200)}
		if now := time.Now(); now.Year() >= 2025 {
			r.Time = now.UTC().Format(time.RFC3339)
		}
		m.info.Restarts = append([]ended{r}, m.info.Restarts[:min(len(m.info.Restarts), 7)]...)
		output := m.output.take()
		if e.Hung || e.Exit.Code != 0 {
			select {
			case m.crash <- crash{"nvr: " + why, output}:
			default: // the disk does not even take crashes
			}
		}
	}
}

// keepCrashes writes crashes to the data partition.
func (m *machine) keepCrashes() {
	for c := range m.crash {
		if err := writeCrash(crashFile, time.Now(), c.reason, c.output); err != nil {
			m.console.say("%v", err)
		}
	}
}
