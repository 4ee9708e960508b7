package nbd_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/test/hil/nbd"
)

// client speaks the protocol by hand.
type client struct {
	t *testing.T
	net.Conn
	cookie uint64
}

func serve(t *testing.T, d *nbd.Disk) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	s, err := nbd.Listen(socket, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return socket
}

func dial(t *testing.T, socket string) *client {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	cl := &client{t: t, Conn: c}
	if got := string(cl.take(16)); got != "NBDMAGICIHAVEOPT" {
		t.Fatalf("the server begins with %q", got)
	}
	cl.take(2)
	cl.send(uint32(3))
	return cl
}

func (c *client) send(values ...any) {
	c.t.Helper()
	var b bytes.Buffer
	for _, v := range values {
		if err := binary.Write(&b, binary.BigEndian, v); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := c.Write(b.Bytes()); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) take(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// option sends an option and returns the kinds of the answers to it, up to the
// last one, and the body of the first.
func (c *client) option(number uint32, data []byte) (kinds []uint32, first []byte) {
	c.t.Helper()
	c.send(uint64(0x49484156454f5054), number, uint32(len(data)), data)
	for {
		head := c.take(20)
		kind := binary.BigEndian.Uint32(head[12:])
		body := c.take(int(binary.BigEndian.Uint32(head[16:])))
		kinds = append(kinds, kind)
		if first == nil {
			first = body
		}
		if kind == 1 || kind&(1<<31) != 0 {
			return kinds, first
		}
	}
}

// request sends a request and returns the error number of the reply, and what
// was read.
func (c *client) request(flags, command uint16, offset int64, length uint32, data []byte) (uint32, []byte) {
	c.t.Helper()
	c.cookie++
	c.send(uint32(0x25609513), flags, command, c.cookie, uint64(offset), length, data)
	head := c.take(16)
	if m := binary.BigEndian.Uint32(head); m != 0x67446698 {
		c.t.Fatalf("reply begins with %x", m)
	}
	if got := binary.BigEndian.Uint64(head[8:]); got != c.cookie {
		c.t.Fatalf("reply to request %d, want %d", got, c.cookie)
	}
	number := binary.BigEndian.Uint32(head[4:])
	if command == 0 && number == 0 {
		return 0, c.take(int(length))
	}
	return number, nil
}

func TestHandshakeAnswersEachOption(t *testing.T) {
	d, _ := disk(t, 8, nbd.Config{})
	c := dial(t, serve(t, d))
	if kinds, _ := c.option(8, nil); len(kinds) != 1 || kinds[0] != 1<<31|1 {
		t.Errorf("structured replies: %x, want unsupported", kinds)
	}
	if kinds, _ := c.option(3, nil); len(kinds) != 2 || kinds[0] != 2 {
		t.Errorf("list: %x, want a server and the end", kinds)
	}
	if kinds, _ := c.option(6, []byte{0, 0, 0, 9}); len(kinds) != 1 || kinds[0] != 1<<31|3 {
		t.Errorf("info that is cut off: %x, want invalid", kinds)
	}
	kinds, info := c.option(7, []byte{0, 0, 0, 1, 'x', 0, 0})
	if len(kinds) != 3 || kinds[0] != 3 || kinds[2] != 1 {
		t.Fatalf("go: %x, want two infos and the end", kinds)
	}
	if size := binary.BigEndian.Uint64(info[2:]); size != 8*nbd.SectorSize {
		t.Errorf("the export has %d bytes, want %d", size, 8*nbd.SectorSize)
	}
	if flags := binary.BigEndian.Uint16(info[10:]); flags != 0b1101101 {
		t.Errorf("transmission flags %b, want flush, FUA, trim and write zeroes", flags)
	}
	if number, _ := c.request(0, 99, 0, 0, nil); number != uint32(syscall.EINVAL) {
		t.Errorf("unknown command: errno %d, want EINVAL", number)
	}
}

func TestRequestsReachTheDisk(t *testing.T) {
	const durable = 1
	d, m := disk(t, 8, nbd.Config{})
	c := dial(t, serve(t, d))
	c.send(uint64(0x49484156454f5054), uint32(1), uint32(0)) // export name: no answer but the export
	c.take(10)
	if number, _ := c.request(0, 1, 0, 1024, append(sector('a'), sector('b')...)); number != 0 {
		t.Fatalf("write: errno %d", number)
	}
	if got := shown(m); got != "........" {
		t.Fatalf("the medium has %s before a flush", got)
	}
	if number, b := c.request(0, 0, 512, 512, nil); number != 0 || !bytes.Equal(b, sector('b')) {
		t.Errorf("read: errno %d, %.4q", number, b)
	}
	c.request(0, 3, 0, 0, nil)
	c.request(durable, 1, 1024, 512, sector('c'))
	c.request(durable, 6, 0, 512, nil)
	if got := shown(m); got != ".bc....." {
		t.Errorf("the medium has %s after flush, FUA and zeroes, want .bc.....", got)
	}
	c.request(0, 4, 512, 512, nil)
	c.request(0, 3, 0, 0, nil)
	if got := shown(m); got != "..c....." {
		t.Errorf("the medium has %s after a trim, want ..c.....", got)
	}
	if number, _ := c.request(0, 1, 4096, 512, sector('x')); number != uint32(syscall.ENOSPC) {
		t.Errorf("write behind the end: errno %d, want ENOSPC", number)
	}
	if number, _ := c.request(0, 0, 4096, 512, nil); number == 0 {
		t.Error("read behind the end was answered")
	}
}

func TestDiskWithoutPowerDoesNotAnswer(t *testing.T) {
	d, _ := disk(t, 8, nbd.Config{})
	c := dial(t, serve(t, d))
	c.option(7, make([]byte, 6))
	powerOff(t, d, nbd.Cut{})
	c.send(uint32(0x25609513), uint16(0), uint16(3), uint64(1), uint64(0), uint32(0))
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || !os.IsTimeout(err) {
		t.Errorf("a flush without power got %d bytes, %v", n, err)
	}
}

func TestRealClientAgrees(t *testing.T) {
	tool, err := exec.LookPath("qemu-io")
	if err != nil {
		t.Skip("qemu-io is not installed (Debian package qemu-utils)")
	}
	d, m := disk(t, 64, nbd.Config{})
	socket := serve(t, d)
	qemu := func(commands ...string) string {
		t.Helper()
		args := []string{"-f", "raw", "-t", "none"}
		for _, c := range commands {
			args = append(args, "-c", c)
		}
		out, err := exec.Command(tool, append(args, "nbd+unix:///?socket="+socket)...).CombinedOutput()
		if err != nil || strings.Contains(string(out), "failed") {
			t.Fatalf("qemu-io %v: %v\n%s", commands, err, out)
		}
		return string(out)
	}
	qemu("write -P 97 0 1k", "flush", "write -f -P 98 2k 512", "read -P 97 0 1k", "read -P 98 2k 512", "discard 0 512", "flush")
	if got := shown(m[:5*nbd.SectorSize]); got != ".a..b" {
		t.Errorf("the medium has %s, want .a..b", got)
	}
	if s := d.Stats(); s.Flushes < 2 || s.Writes != 2 || s.Written != 1536 {
		t.Errorf("counted %+v", s)
	}
}
