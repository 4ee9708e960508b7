package hil

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The scan speaks Ethernet itself, as one more host in the device's network:
// from behind QEMU's own address translation an open port looks like a closed
// one.
var (
	scanMAC  = [6]byte{2, 0, 0, 0, 0, 99}
	scanIP   = [4]byte{10, 0, 2, 99}
	guestMAC = [6]byte{0x52, 0x54, 0, 0x12, 0x34, 0x56} // of QEMU's first network card
	guestIP  = [4]byte{10, 0, 2, 15}
)

const (
	typeIPv4, typeARP = 0x0800, 0x0806
	tcpSYN, tcpACK    = 0x02, 0x10
	scanSource        = 40000
)

func ethernet(kind uint16, to [6]byte) []byte {
	b := append(slices.Clone(to[:]), scanMAC[:]...)
	return binary.BigEndian.AppendUint16(b, kind)
}

// checksum is that of IP and TCP (RFC 1071).
func checksum(parts ...[]byte) uint16 {
	b := slices.Concat(parts...)
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// syn is the frame that asks for a connection to a port of the device.
func syn(port uint16) []byte {
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp[0:], scanSource)
	binary.BigEndian.PutUint16(tcp[2:], port)
	binary.BigEndian.PutUint32(tcp[4:], uint32(port))
	tcp[12], tcp[13] = 5<<4, tcpSYN
	binary.BigEndian.PutUint16(tcp[14:], 1024)
	binary.BigEndian.PutUint16(tcp[16:], checksum(scanIP[:], guestIP[:], []byte{0, 6, 0, 20}, tcp))

	ip := []byte{0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0}
	ip = append(append(ip, scanIP[:]...), guestIP[:]...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	return slices.Concat(ethernet(typeIPv4, guestMAC), ip, tcp)
}

// arpReply answers who has scanIP, when a frame asks for it.
func arpReply(frame []byte) ([]byte, bool) {
	if len(frame) < 42 || binary.BigEndian.Uint16(frame[12:]) != typeARP ||
		binary.BigEndian.Uint16(frame[20:]) != 1 || !bytes.Equal(frame[38:42], scanIP[:]) {
		return nil, false
	}
	var asker [6]byte
	copy(asker[:], frame[22:])
	b := append(ethernet(typeARP, asker), 0, 1, 8, 0, 6, 4, 0, 2)
	b = append(append(b, scanMAC[:]...), scanIP[:]...)
	return append(b, frame[22:32]...), true
}

// answer is what the device said to a SYN: open, or closed.
func answer(frame []byte) (port uint16, open, ok bool) {
	if len(frame) < 54 || binary.BigEndian.Uint16(frame[12:]) != typeIPv4 || frame[23] != 6 || !bytes.Equal(frame[6:12], guestMAC[:]) ||
		!bytes.Equal(frame[26:30], guestIP[:]) || !bytes.Equal(frame[30:34], scanIP[:]) {
		return 0, false, false
	}
	tcp := frame[14+int(frame[14]&15)*4:]
	if len(tcp) < 20 || binary.BigEndian.Uint16(tcp[2:]) != scanSource {
		return 0, false, false
	}
	return binary.BigEndian.Uint16(tcp), tcp[13]&(tcpSYN|tcpACK) == tcpSYN|tcpACK, true
}

// scan knocks at every TCP port of the device until each has answered.
func (v *vm) scan(limit time.Duration) (open []int, err error) {
	end := time.Now().Add(limit)
	answered := make(map[uint16]bool)
	frame := make([]byte, 65536)
	// listen takes what comes until nothing has for a while.
	listen := func(quiet time.Duration) error {
		for {
			if err := v.wire.SetReadDeadline(time.Now().Add(quiet)); err != nil {
				return err
			}
			n, err := v.wire.Read(frame)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			if err != nil {
				return err
			}
			if reply, ok := arpReply(frame[:n]); ok {
				if _, err := v.wire.WriteTo(reply, v.plug); err != nil {
					return err
				}
			}
			if port, isOpen, ok := answer(frame[:n]); ok && !answered[port] {
				answered[port] = true
				if isOpen {
					open = append(open, int(port))
				}
			}
		}
	}
	for len(answered) < 65535 {
		if time.Now().After(end) {
			return nil, fmt.Errorf("scan: %d of 65535 ports answered within %v", len(answered), limit)
		}
		sent := 0
		for port := 1; port <= 65535; port++ {
			if answered[uint16(port)] {
				continue
			}
			if _, err := v.wire.WriteTo(syn(uint16(port)), v.plug); err != nil {
				return nil, err
			}
			if sent++; sent%64 == 0 {
				if err := listen(5 * time.Millisecond); err != nil {
					return nil, err
				}
			}
		}
		if err := listen(300 * time.Millisecond); err != nil {
			return nil, err
		}
	}
	slices.Sort(open)
	return open, nil
}

func TestScanTellsOpenFromClosed(t *testing.T) {
	from := func(mac [6]byte, flags byte) []byte {
		b := syn(8443)
		copy(b[6:], mac[:])
		copy(b[26:], guestIP[:])
		copy(b[30:], scanIP[:])
		copy(b[34:], []byte{8443 >> 8, 8443 & 0xff, scanSource >> 8, scanSource & 0xff})
		b[47] = flags
		return b
	}
	if port, open, ok := answer(from(guestMAC, tcpSYN|tcpACK)); port != 8443 || !open || !ok {
		t.Errorf("an open port gave %d, %v, %v", port, open, ok)
	}
	if port, open, ok := answer(from(guestMAC, 4|tcpACK)); port != 8443 || open || !ok {
		t.Errorf("a closed port gave %d, %v, %v", port, open, ok)
	}
	if _, _, ok := answer(from(scanMAC, tcpSYN|tcpACK)); ok {
		t.Error("the answer of another host was taken for the device's")
	}
	b := syn(80)
	if got := checksum(b[14:34]); got != 0 {
		t.Errorf("IP header sums to %04x", got)
	}
	if got := checksum(scanIP[:], guestIP[:], []byte{0, 6, 0, 20}, b[34:]); got != 0 {
		t.Errorf("TCP header sums to %04x", got)
	}
}

// TestOnlyTheRecorderListens knocks at the image that people get.
func TestOnlyTheRecorderListens(t *testing.T) {
	needs(t, true)
	hasTools(t, lanes[0])
	v := newVM(t, machine{lane: lanes[0], image: releasedImage(t, "amd64"), tap: true})
	d := newDevice(t, v)
	d.powerOn()
	d.shows("/healthz", `"board":"amd64"`, 60*time.Second)
	open, err := v.scan(4 * time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(open)
	if !slices.Equal(open, []int{guestPort, guestTLSPort}) {
		t.Errorf("%d TCP ports are open, want %d and %d alone: %.200s", len(open), guestPort, guestTLSPort, fmt.Sprint(open))
	}
	note(t, lanes[0].name, "scan of 65535 TCP ports, as released", "open", "%.200s", fmt.Sprint(open))
	for _, path := range []string{"/api/", "/api/cameras/00000000-0000-4000-8000-000000000000/main/view.mp4"} {
		if err := d.do("GET", path, nil, nil); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("GET %s of a device without users: %v, want 401", path, err)
		}
	}
}

// listening is a socket that takes what strangers send it.
type listening struct {
	protocol string
	address  string // as the kernel writes it: hexadecimal, host:port
}

// strangersReach reads /proc/net/{tcp,udp,udplite,raw}[6], one after the other
// with its name before it.
func strangersReach(table string) (list []listening) {
	const listens, unconnected = "0A", "07"
	protocol := ""
	for l := range strings.Lines(table) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(l), "/proc/net/"); ok {
			protocol = name
			continue
		}
		f := strings.Fields(l) // sl local_address rem_address st …
		if len(f) < 4 || !strings.HasSuffix(f[0], ":") {
			continue
		}
		tcp := strings.HasPrefix(protocol, "tcp")
		if tcp && f[3] == listens || !tcp && f[3] == unconnected {
			list = append(list, listening{protocol, f[1]})
		}
	}
	return list
}

// What no scan sees within minutes, UDP, raw sockets and IPv6, the kernel tells.
func TestNothingElseTakesWhatStrangersSend(t *testing.T) {
	needs(t, true)
	hasTools(t, lanes[0])
	v := newVM(t, machine{lane: lanes[0], image: image(t, "amd64", hooks...)})
	d := newDevice(t, v)
	d.powerOn()
	d.until("serve", 60*time.Second, func() error { _, err := d.top(); return err })
	table, err := d.page("/lab/sockets")
	if err != nil {
		t.Fatal(err)
	}
	got := strangersReach(table)
	slices.SortFunc(got, func(a, b listening) int { return cmp.Compare(a.protocol+a.address, b.protocol+b.address) })
	const all = "00000000000000000000000000000000" // of both families
	want := []listening{{"tcp6", all + ":0050"}, {"tcp6", all + ":01BB"}}
	if !slices.Equal(got, want) {
		t.Errorf("sockets that strangers reach: %v, want %v; all:\n%s", got, want, table)
	}
	note(t, lanes[0].name, "sockets, IPv4 and IPv6, TCP, UDP and raw", "reached by strangers", "%v", got)
}

func TestSocketsOfTheKernelAreRead(t *testing.T) {
	const table = `/proc/net/tcp
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0F02000A:0050 0202000A:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1
/proc/net/udp
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  123: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 3 2 0 0
  124: 0F02000A:C001 0302000A:0035 01 00000000:00000000 00:00000000 00000000     0        0 4 2 0 0
`
	want := []listening{{"tcp", "0100007F:1F90"}, {"udp", "00000000:0044"}}
	if got := strangersReach(table); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
