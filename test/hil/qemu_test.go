package hil

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/test/hil/nbd"
)

const (
	// diskSize is that of a device's disk unless a test says otherwise: larger
	// than the image, as disks are.
	diskSize = 4 << 30
	// guestPort and guestTLSPort are what the recorder listens on.
	guestPort, guestTLSPort = 80, 443
)

// machine says what stands on a bench of software.
type machine struct {
	lane
	image string // file; the disk begins as a copy
	size  int64  // of the disk; 0: diskSize
	disk  nbd.Config
	media int64  // bytes of a second disk, for recordings; 0: there is none
	clock string // that the machine starts with, as -rtc base= has it; empty: the right one
	stuck int    // so many starts do not get to their kernel
	tap   bool   // this process gets a plug in the device's network, vm.wire; there is nothing else in it
}

// vm is a bench in QEMU, without help of the processor: everywhere the same,
// and slow. Its disk is served by this process, so that a power cut is one.
type vm struct {
	machine
	t       *testing.T
	dir     string
	medium  *os.File
	second  *secondDisk // nil without machine.media
	forward map[int]string
	wire    *net.UDPConn // a frame of Ethernet in each packet; nil without tap
	plug    *net.UDPAddr // where frames for the device go

	console *console
	reading chan struct{} // closed when the console has ended
	cmd     *exec.Cmd
	drive   *nbd.Disk
	server  *nbd.Server
	queue   *queue
	on      time.Time
	starts  int
	stalls  int
	silence time.Duration // of a kernel that has not got to process 1 and will not
}

// newVM puts a machine on the bench, without power. When the test fails, it
// shows the end of the console.
func newVM(t *testing.T, m machine) *vm {
	t.Helper()
	if m.size == 0 {
		m.size = diskSize
	}
	v := &vm{machine: m, t: t, dir: t.TempDir(), console: newConsole(), forward: map[int]string{}, silence: time.Minute}
	path := filepath.Join(v.dir, "medium")
	if err := copySparse(path, m.image, 0, -1); err != nil {
		t.Fatal(err)
	}
	var err error
	if v.medium, err = os.OpenFile(path, os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	if err := v.medium.Truncate(m.size); err != nil {
		t.Fatal(err)
	}
	if m.media > 0 {
		v.second = newSecondDisk(t, v.dir, m.media)
	}
	v.forward[guestPort] = freePort(t)
	if m.tap {
		if v.wire, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { v.wire.Close() })
		if v.plug, err = net.ResolveUDPAddr("udp4", freePort(t)); err != nil {
			t.Fatal(err)
		}
	}
	if m.vars != "" {
		if err := copySparse(v.path("vars"), m.vars, 0, -1); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if v.cmd != nil {
			if _, err := v.PowerCut(nbd.Cut{Kept: 1}); err != nil {
				t.Error(err)
			}
		}
		v.medium.Close()
		if t.Failed() {
			t.Logf("the console ended with:\n%s", v.console.tail(60))
		}
		keep(t, "console", func(to string) error { return os.WriteFile(to, []byte(v.console.tail(1<<20)), 0o644) })
		keep(t, "medium", func(to string) error { return copySparse(to, path, 0, -1) })
		if v.second != nil {
			keep(t, "media", func(to string) error { return copySparse(to, v.path("media"), 0, -1) })
		}
	})
	return v
}

func (v *vm) path(name string) string { return filepath.Join(v.dir, name) }

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (v *vm) Console() *console       { return v.console }
func (v *vm) Since() time.Duration    { return time.Since(v.on) }
func (v *vm) Address(port int) string { return v.forward[port] }
func (v *vm) Here() string            { return "10.0.2.2" } // the host, in QEMU's user network

func (v *vm) Busy(d time.Duration) time.Duration { return v.queue.waited(d) }

// PowerOn starts the machine and sees its kernel run process 1. Now and then a
// start gets stuck before, in the emulator: where the kernel brings its
// processors into step, before anything of the device's runs. Nothing has been
// written then, and another start tells of the device. That is noted, and is no
// chance when it is more than one start in a hundred.
func (v *vm) PowerOn() error {
	for {
		from := v.console.here()
		if err := v.start(); err != nil {
			return err
		}
		if v.console.alive(from, "Run /", v.silence) {
			return nil
		}
		v.stalls++
		note(v.t, v.lane.name, "start", "stuck in the emulator", "number %d", v.starts)
		if v.stalls > 1+v.starts/100 {
			return fmt.Errorf("no kernel has run process 1 in %d of %d starts: the console is silent for %v behind %s", v.stalls, v.starts, v.silence, v.console.tail(1))
		}
		if _, err := v.PowerCut(nbd.Cut{Kept: 1}); err != nil {
			return err
		}
	}
}

func (v *vm) start() (err error) {
	if v.cmd != nil {
		panic("hil: power on twice")
	}
	if v.drive, err = nbd.New(v.medium, v.size, v.disk); err != nil {
		return err
	}
	v.starts++
	socket := v.path("disk" + strconv.Itoa(v.starts))
	if v.server, err = nbd.Listen(socket, v.drive); err != nil {
		return err
	}
	if v.second != nil {
		if err := v.second.plug(); err != nil {
			return err
		}
	}
	args, err := v.arguments(socket)
	if err != nil {
		return err
	}
	// QEMU takes all there is of the host. The cameras, in this process, have
	// to keep time beside it.
	v.cmd = exec.Command("nice", append([]string{"-n", "10"}, args...)...)
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	v.cmd.Stderr = &stderr
	v.on = time.Now()
	if err := v.cmd.Start(); err != nil {
		v.cmd = nil
		return errors.Join(err, v.server.Close())
	}
	v.queue = watchQueue(v.cmd.Process.Pid)
	v.reading = make(chan struct{})
	go func() {
		defer close(v.reading)
		v.console.read(out)
		for l := range strings.Lines(stderr.String()) {
			v.console.add("qemu: " + strings.TrimSpace(l))
		}
	}()
	return nil
}

func (v *vm) PowerCut(c nbd.Cut) (nbd.Outcome, error) {
	if v.cmd == nil {
		panic("hil: power cut without power")
	}
	o, err := v.drive.PowerOff(c)
	if v.second != nil {
		c.Seed++
		_, perr := v.second.drive.PowerOff(c)
		err = errors.Join(err, perr)
	}
	v.queue.close()
	v.cmd.Process.Kill()
	<-v.reading
	v.cmd.Wait() // killed: it has nothing to say
	v.cmd = nil
	if v.second != nil {
		_, perr := v.second.pull(c)
		err = errors.Join(err, perr)
	}
	return o, errors.Join(err, v.server.Close())
}

func (v *vm) arguments(socket string) ([]string, error) {
	forward := "user,id=n0"
	for port, address := range v.forward {
		forward += fmt.Sprintf(",hostfwd=tcp:%s-:%d", address, port)
	}
	clock := v.clock
	if clock == "" {
		clock = "utc"
	}
	args := []string{
		"-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024",
		"-display", "none", "-monitor", "none", "-serial", "stdio",
		"-rtc", "base=" + clock,
		"-drive", "file=nbd+unix:///?socket=" + socket + ",format=raw,if=none,id=d0,cache=writeback,discard=unmap,werror=report",
		"-device", "virtio-blk-pci,drive=d0",
		"-device", "i6300esb", "-action", "watchdog=reset",
	}
	if v.starts <= v.stuck {
		args = append(args, "-S")
	}
	if v.second != nil {
		args = append(args, v.second.arguments()...)
	}
	if v.wire == nil {
		args = append(args, "-netdev", forward)
	} else {
		args = append(args,
			// restrict: or QEMU would take what we send for the device's own, and
			// connect from this host.
			"-netdev", strings.Replace(forward, "id=n0", "id=u0,restrict=on", 1), "-netdev", "hubport,id=h1,hubid=0,netdev=u0",
			"-netdev", fmt.Sprintf("socket,id=s0,udp=%s,localaddr=%s", v.wire.LocalAddr(), v.plug), "-netdev", "hubport,id=h2,hubid=0,netdev=s0",
			"-netdev", "hubport,id=n0,hubid=0")
	}
	if !v.arm {
		args = append([]string{"qemu-system-x86_64"}, append(args, "-device", "virtio-net-pci,netdev=n0")...)
		if v.firmware != "" {
			args = append(args, "-drive", "if=pflash,format=raw,readonly=on,file="+v.firmware,
				"-drive", "if=pflash,format=raw,file="+v.path("vars"))
		}
		return args, nil
	}
	// The loader of a Raspberry Pi is not emulated: take what it would load.
	for _, name := range []string{"vmlinuz", "cmdline.txt"} {
		if err := v.copyBoot(name); err != nil {
			return nil, err
		}
	}
	line, err := os.ReadFile(v.path("cmdline.txt"))
	if err != nil {
		return nil, err
	}
	return append([]string{"qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72",
		"-kernel", v.path("vmlinuz"), "-append", string(bytes.TrimSpace(line)) + " console=ttyAMA0,115200",
		"-device", "e1000,netdev=n0"}, args...), nil
}

// copyBoot copies a file of the boot partition, as it is on the medium now.
func (v *vm) copyBoot(name string) error {
	part, err := partition(v.medium, 1)
	if err != nil {
		return err
	}
	out, err := exec.Command("mcopy", "-o", "-n", "-i", fmt.Sprintf("%s@@%d", v.medium.Name(), part.start), "::"+name, v.path(name)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s from the boot partition: %w: %s", name, err, out)
	}
	return nil
}

func (v *vm) Perm(dir string) error {
	if v.cmd != nil {
		panic("hil: disk read with power on")
	}
	err := v.withPerm("perm", func(copied string, _ int64) error { return extract(copied, dir) })
	if err != nil || v.second == nil {
		return err
	}
	// The second disk stands where it is mounted.
	mounted := filepath.Join(dir, strings.TrimPrefix(mediaDir, "/perm"))
	if err := os.Remove(mounted); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	copied := v.path("media-copy")
	if err := copySparse(copied, v.path("media"), 0, -1); err != nil {
		return err
	}
	defer os.Remove(copied)
	return extract(copied, mounted)
}

// withPerm calls f with a copy of the data partition, as it is on the medium now,
// and with the byte of the disk at which the partition begins.
func (v *vm) withPerm(name string, f func(copied string, start int64) error) error {
	part, err := partition(v.medium, 4)
	if err != nil {
		return err
	}
	copied := v.path(name)
	if err := copySparse(copied, v.medium.Name(), part.start, part.size); err != nil {
		return err
	}
	defer os.Remove(copied)
	return f(copied, part.start)
}

// damage overwrites a piece of a partition.
func (v *vm) damage(number int, offset int64, with []byte) error {
	part, err := partition(v.medium, number)
	if err != nil {
		return err
	}
	_, err = v.medium.WriteAt(with, part.start+offset)
	return err
}

// hasTools skips a test when what it needs is not installed.
func hasTools(t *testing.T, l lane) {
	t.Helper()
	tools := []string{"e2fsck", "debugfs", "qemu-system-x86_64"}
	if l.arm {
		tools = append(tools, "qemu-system-aarch64", "mcopy")
	}
	for _, tool := range tools {
		if _, err := lookPath(tool); err != nil {
			t.Fatalf("%v: make hil-setup installs it", err)
		}
	}
	for _, file := range []string{l.firmware, l.vars} {
		if _, err := os.Stat(file); file != "" && err != nil {
			t.Fatalf("%v: make hil-setup installs it", err)
		}
	}
}

// lookPath also finds what only root has in its path.
func lookPath(tool string) (string, error) {
	if path, err := exec.LookPath(tool); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, tool)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", tool)
}

// copySparse copies size bytes of a file from offset on, to its end when size
// is negative, without the holes.
func copySparse(to, from string, offset, size int64) error {
	const data, hole = 3, 4 // SEEK_DATA, SEEK_HOLE
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if size < 0 {
		fi, err := in.Stat()
		if err != nil {
			return err
		}
		size = fi.Size() - offset
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(size); err != nil {
		return err
	}
	for at := offset; at < offset+size; {
		begin, err := in.Seek(at, data)
		if err != nil || begin >= offset+size {
			break // ENXIO: no data behind
		}
		end, err := in.Seek(begin, hole)
		if err != nil {
			return err
		}
		end = min(end, offset+size)
		if _, err := in.Seek(begin, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(begin-offset, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, end-begin); err != nil {
			return err
		}
		at = end
	}
	return out.Close()
}

func TestSparseCopyIsTheSame(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	f, err := os.Create(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(8 << 20); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 1 << 20, 5<<20 + 4096, 8<<20 - 4} {
		if _, err := f.WriteAt([]byte("data"), at); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	if err := copySparse(to, from, 1<<20, 6<<20); err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(from)
	got, _ := os.ReadFile(to)
	if !slices.Equal(got, whole[1<<20:7<<20]) {
		t.Error("the copy differs")
	}
}
