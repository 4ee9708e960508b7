package nbd_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/test/hil/nbd"
)

// answers is what each kind of request gets at each of four sectors, and a flush
// of the disk: "." done, "e" an error, "d" dropped.
func answers(d *nbd.Disk) (shown string) {
	letter := func(err error) {
		switch {
		case err == nil:
			shown += "."
		case errors.Is(err, syscall.EIO):
			shown += "e"
		case errors.Is(err, nbd.ErrDropped):
			shown += "d"
		default:
			shown += fmt.Sprintf("(%v)", err)
		}
	}
	for i := range int64(4) {
		_, err := d.ReadAt(make([]byte, nbd.SectorSize), i*nbd.SectorSize)
		letter(err)
	}
	for i := range int64(4) {
		letter(d.Write(sector('x'), i*nbd.SectorSize, false))
	}
	for i := range int64(4) {
		letter(d.Trim(i*nbd.SectorSize, nbd.SectorSize))
	}
	letter(d.Flush())
	return shown
}

func TestFaultMeetsItsPieceAndKinds(t *testing.T) {
	const s = nbd.SectorSize
	for _, c := range []struct {
		name   string
		fault  nbd.Fault
		read   string
		write  string
		trim   string
		flush  string
		faulty int64
	}{
		{"all of the disk", nbd.Fault{Err: syscall.EIO}, "eeee", "eeee", "eeee", "e", 13},
		{"a piece", nbd.Fault{Err: syscall.EIO, From: s, To: 3 * s}, ".ee.", ".ee.", ".ee.", ".", 6},
		{"from a place to the end", nbd.Fault{Err: syscall.EIO, From: 2 * s}, "..ee", "..ee", "..ee", ".", 6},
		{"writes to a piece", nbd.Fault{Err: syscall.EIO, To: s, Ops: []nbd.Op{nbd.Write}}, "....", "e...", "....", ".", 1},
		{"reads and flushes", nbd.Fault{Err: syscall.EIO, From: 3 * s, Ops: []nbd.Op{nbd.Read, nbd.Flush}}, "...e", "....", "....", "e", 2},
		{"the first two", nbd.Fault{Err: syscall.EIO, Times: 2}, "ee..", "....", "....", ".", 2},
		{"dropped", nbd.Fault{Drop: true, Ops: []nbd.Op{nbd.Trim}}, "....", "....", "dddd", ".", 4},
		{"all but what begins so", nbd.Fault{Err: syscall.EIO, Spares: []byte("xx")}, "eeee", "....", "eeee", "e", 9},
		{"what begins otherwise", nbd.Fault{Err: syscall.EIO, Spares: []byte("xy")}, "eeee", "eeee", "eeee", "e", 13},
		{"counted", nbd.Fault{}, "....", "....", "....", ".", 13},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _ := disk(t, 4, nbd.Config{Faults: []nbd.Fault{c.fault}})
			if got, want := answers(d), c.read+c.write+c.trim+c.flush; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if got := d.Stats().Faulty; got != c.faulty {
				t.Errorf("%d requests met it, want %d", got, c.faulty)
			}
			d.Heal()
			if got := answers(d); got != "............." {
				t.Errorf("healed, %s", got)
			}
		})
	}
}

// What failed was not done, and no flush makes it so later; a request that
// covers a piece only in part fails whole.
func TestFailedWriteIsNotThere(t *testing.T) {
	d, m := disk(t, 4, nbd.Config{})
	write(t, d, 0, "abcd", true)
	d.Break(nbd.Fault{From: 2 * nbd.SectorSize, To: 3 * nbd.SectorSize, Err: syscall.EIO})
	both := append(sector('B'), sector('C')...)
	for _, durable := range []bool{false, true} {
		if err := d.Write(both, nbd.SectorSize, durable); !errors.Is(err, syscall.EIO) {
			t.Errorf("write over the edge: %v", err)
		}
	}
	if err := d.WriteZeroes(2*nbd.SectorSize, nbd.SectorSize, true); !errors.Is(err, syscall.EIO) {
		t.Errorf("zeroes: %v", err)
	}
	write(t, d, 3, "D", false)
	flush(t, d)
	if got := shown(m); got != "abcD" {
		t.Errorf("the medium has %s, want abcD", got)
	}
	d.Heal()
	if err := d.Write(both, nbd.SectorSize, true); err != nil || shown(m) != "aBCD" {
		t.Errorf("healed: %v, the medium has %s", err, shown(m))
	}
}

// A flush that fails leaves the cache as it was: a later one brings it out, and a
// cut before that may take it.
func TestFailedFlushKeepsTheCache(t *testing.T) {
	d, m := disk(t, 2, nbd.Config{Faults: []nbd.Fault{{Ops: []nbd.Op{nbd.Flush}, Err: syscall.EIO, Times: 1}}})
	write(t, d, 0, "ab", false)
	if err := d.Flush(); !errors.Is(err, syscall.EIO) || shown(m) != ".." {
		t.Fatalf("flush: %v, the medium has %s", err, shown(m))
	}
	flush(t, d)
	if got := shown(m); got != "ab" {
		t.Errorf("the medium has %s, want ab", got)
	}
}

func TestDelayEndsByTimeHealOrCut(t *testing.T) {
	stall := nbd.Fault{Delay: time.Minute}
	for _, c := range []struct {
		name   string
		faults []nbd.Fault
		after  func(d *nbd.Disk)
		took   time.Duration
		err    error
	}{
		{"time", []nbd.Fault{stall}, nil, time.Minute, nil},
		{"two of them", []nbd.Fault{stall, {Delay: time.Second, Ops: []nbd.Op{nbd.Write}}, {Delay: time.Hour, Ops: []nbd.Op{nbd.Read}}}, nil, 61 * time.Second, nil},
		{"late, and an error", []nbd.Fault{stall, {Err: syscall.EIO}}, nil, time.Minute, syscall.EIO},
		{"heal", []nbd.Fault{stall}, (*nbd.Disk).Heal, 10 * time.Second, nil},
		{"cut", []nbd.Fault{stall}, func(d *nbd.Disk) { powerOff(t, d, nbd.Cut{}) }, 10 * time.Second, nbd.ErrPowerOff},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, _ := disk(t, 2, nbd.Config{Faults: c.faults})
				began := time.Now()
				if c.after != nil {
					go func() {
						<-time.After(10 * time.Second)
						c.after(d)
					}()
				}
				if err := d.Write(sector('a'), 0, true); !errors.Is(err, c.err) {
					t.Errorf("got %v, want %v", err, c.err)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %v, want %v", took, c.took)
				}
			})
		})
	}
}

// A dropped connection gets no answer, and leaves the
// server there for the next one.
func TestServerDropsAndTakesTheNextConnection(t *testing.T) {
	d, m := disk(t, 8, nbd.Config{})
	socket := serve(t, d)
	c := dial(t, socket)
	c.option(7, make([]byte, 6))
	d.Break(nbd.Fault{Drop: true, Times: 1})
	c.send(uint32(0x25609513), uint16(0), uint16(1), uint64(1), uint64(0), uint32(512), sector('a'))
	if n, err := c.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		t.Errorf("a dropped request got %d bytes, %v, want the end", n, err)
	}
	next := dial(t, socket)
	next.option(7, make([]byte, 6))
	if number, _ := next.request(1, 1, 512, 512, sector('b')); number != 0 || shown(m) != ".b......" {
		t.Errorf("the next connection got errno %d, the medium has %s", number, shown(m))
	}
	d.Break(nbd.Fault{Ops: []nbd.Op{nbd.Write}, Err: syscall.EIO})
	if number, _ := next.request(1, 1, 0, 512, sector('c')); number != uint32(syscall.EIO) {
		t.Errorf("a write that fails got errno %d, want EIO", number)
	}
}

// A disk that is pulled out loses its cache, and comes back at the same place
// with what its medium has.
func TestDiskVanishesAndComesBack(t *testing.T) {
	d, m := disk(t, 4, nbd.Config{})
	socket := filepath.Join(t.TempDir(), "s")
	s, err := nbd.Listen(socket, d)
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, socket)
	c.option(7, make([]byte, 6))
	c.request(1, 1, 0, 512, sector('a'))
	c.request(0, 1, 512, 512, sector('b'))
	powerOff(t, d, nbd.Cut{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || err != io.EOF {
		t.Errorf("the client got %d bytes, %v, want the end", n, err)
	}
	if gone, err := net.Dial("unix", socket); err == nil {
		gone.Close()
		t.Error("a disk that is gone takes connections")
	}
	again, err := nbd.New(m, d.Size(), nbd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s, err = nbd.Listen(socket, again)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c = dial(t, socket)
	c.option(7, make([]byte, 6))
	if number, b := c.request(0, 0, 0, 1024, nil); number != 0 || b[0] != 'a' || b[512] != 0 {
		t.Errorf("back, the disk reads errno %d, %.1q %.1q, want a and nothing", number, b[:1], b[512:513])
	}
}
