package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// memory is a disk that remembers which sectors were written since the last
// sync, so that a power cut can take any of them.
type memory struct {
	durable []byte
	pending map[int64][]byte // by sector
	order   []int64

	writes, syncs int
	cutAt         int // no write and no sync succeeds after so many; 0: never
}

var errCut = errors.New("power cut")

func newMemory(sectors int) *memory {
	return &memory{durable: make([]byte, sectors*sector), pending: map[int64][]byte{}}
}

// sector returns what is read of a sector now.
func (m *memory) sector(n int64) []byte {
	if p, ok := m.pending[n]; ok {
		return p
	}
	return m.durable[n*sector : (n+1)*sector]
}

func (m *memory) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > int64(len(m.durable)) {
		return 0, io.ErrUnexpectedEOF
	}
	for n := 0; n < len(b); {
		pos := at + int64(n)
		n += copy(b[n:], m.sector(pos / sector)[pos%sector:])
	}
	return len(b), nil
}

func (m *memory) step() bool {
	return m.cutAt != 0 && m.writes+m.syncs >= m.cutAt
}

func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if m.step() {
		return 0, errCut
	}
	m.writes++
	if at < 0 || at+int64(len(b)) > int64(len(m.durable)) {
		return 0, fmt.Errorf("write of %d bytes at %d", len(b), at)
	}
	for n := 0; n < len(b); {
		pos := at + int64(n)
		i := pos / sector
		if _, ok := m.pending[i]; !ok {
			m.order = append(m.order, i)
			m.pending[i] = bytes.Clone(m.sector(i))
		}
		n += copy(m.pending[i][pos%sector:], b[n:])
	}
	return len(b), nil
}

func (m *memory) Sync() error {
	if m.step() {
		return errCut
	}
	m.syncs++
	m.lose(func() bool { return true })
	return nil
}

// lose makes durable of what is pending only what keep says.
func (m *memory) lose(keep func() bool) {
	for _, n := range m.order {
		if keep() {
			copy(m.durable[n*sector:], m.pending[n])
		}
	}
	m.pending, m.order = map[int64][]byte{}, nil
}

// Places of an image, small.
const (
	imageSectors = 4096
	permStart    = 2048
)

// image writes the partition table of an image to a disk that is larger.
func image(d table) {
	array := make([]byte, entries*entrySize)
	for i, p := range [][2]uint64{{64, 1023}, {1024, 1535}, {1536, 2047}, {permStart, imageSectors - 34}} {
		e := array[i*entrySize:]
		for j := range 32 {
			e[j] = byte(16*i + j + 1)
		}
		binary.LittleEndian.PutUint64(e[32:], p[0])
		binary.LittleEndian.PutUint64(e[40:], p[1])
	}
	h := header{
		Revision: 0x10000, Size: headerSize, Self: headerLBA, Alternate: imageSectors - 1, FirstUsable: 34, LastUse: imageSectors - 34,
		Entries: entriesLBA, Count: entries, EntrySize: entrySize, EntriesCRC: crc32.ChecksumIEEE(array),
	}
	copy(h.Signature[:], "EFI PART")
	must := func(_ int, err error) {
		if err != nil {
			panic(err)
		}
	}
	must(d.WriteAt(h.bytes(), headerLBA*sector))
	must(d.WriteAt(array, entriesLBA*sector))
	h.Self, h.Alternate, h.Entries = h.Alternate, h.Self, imageSectors-33
	must(d.WriteAt(array, (imageSectors-33)*sector))
	must(d.WriteAt(h.bytes(), (imageSectors-1)*sector))
	if err := d.Sync(); err != nil {
		panic(err)
	}
}

func TestPartitionGrowsToTheEndOfTheDisk(t *testing.T) {
	const sectors = 3 * imageSectors
	m := newMemory(sectors)
	image(m)
	before := bytes.Clone(m.durable[entriesLBA*sector : (entriesLBA+1)*sector])
	start, length, err := grow(m, sectors, 4)
	if err != nil {
		t.Fatal(err)
	}
	if want := uint64(sectors - 33 - permStart); start != permStart || length != want {
		t.Errorf("from %d, %d sectors; want %d from %d", start, length, want, permStart)
	}
	h, array, err := readTable(m)
	if err != nil {
		t.Fatal(err)
	}
	if h.Entries != entriesLBA || h.Alternate != sectors-1 || h.LastUse != sectors-34 {
		t.Errorf("first table: %+v", h)
	}
	if !bytes.Equal(array[:3*entrySize], before[:3*entrySize]) || !bytes.Equal(array[3*entrySize:3*entrySize+40], before[3*entrySize:3*entrySize+40]) {
		t.Error("another partition, or the name of this one, changed")
	}
	writes := m.writes
	if _, _, err := grow(m, sectors, 4); err != nil || m.writes != writes {
		t.Errorf("a partition that fills its disk: %d writes, %v", m.writes-writes, err)
	}
}

// A power cut at each step, with any sectors lost that were not synced: the
// first table holds, names the partition with its old or its new size, and the
// next start finishes the work.
func TestPowerCutWhileGrowingLeavesATableThatHolds(t *testing.T) {
	const sectors = 3 * imageSectors
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for cut := 1; ; cut++ {
		done := false
		for range 50 {
			m := newMemory(sectors)
			image(m)
			m.writes, m.syncs, m.cutAt = 0, 0, cut
			_, _, err := grow(m, sectors, 4)
			if done = err == nil; done {
				break
			}
			if !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			m.lose(func() bool { return rnd.IntN(2) == 0 })
			m.cutAt = 0
			_, array, err := readTable(m)
			if err != nil {
				t.Fatalf("cut after %d steps: %v", cut, err)
			}
			switch end := binary.LittleEndian.Uint64(array[3*entrySize+40:]); end {
			case imageSectors - 34, sectors - 34:
			default:
				t.Fatalf("cut after %d steps: the partition ends at %d", cut, end)
			}
			if _, _, err := grow(m, sectors, 4); err != nil {
				t.Fatalf("cut after %d steps, then again: %v", cut, err)
			}
			if h, _, err := readTable(m); err != nil || h.Entries != entriesLBA || h.LastUse != sectors-34 {
				t.Fatalf("cut after %d steps, then again: %+v, %v", cut, h, err)
			}
		}
		if done {
			if cut < 8 {
				t.Errorf("only %d steps: does it sync between?", cut)
			}
			return
		}
	}
}

func TestOnlyTheTableOfAnImageIsRewritten(t *testing.T) {
	const sectors = 3 * imageSectors
	for name, break_ := range map[string]func(m *memory){
		"no table":        func(m *memory) { clear(m.durable) },
		"header damaged":  func(m *memory) { m.durable[headerLBA*sector+60] ^= 1 },
		"entries damaged": func(m *memory) { m.durable[entriesLBA*sector+200] ^= 1 },
	} {
		m := newMemory(sectors)
		image(m)
		break_(m)
		m.writes = 0
		if _, _, err := grow(m, sectors, 4); err == nil || m.writes > 0 {
			t.Errorf("%s: %v, %d writes", name, err, m.writes)
		}
	}
	m := newMemory(sectors)
	image(m)
	m.writes = 0
	for _, number := range []int{3, 5} {
		if _, _, err := grow(m, sectors, number); err == nil || m.writes > 0 {
			t.Errorf("partition %d: %v, %d writes", number, err, m.writes)
		}
	}
	if _, _, err := grow(m, imageSectors-100, 4); err == nil || m.writes > 0 {
		t.Errorf("disk smaller than the image: %v, %d writes", err, m.writes)
	}
}

func marked(m *memory) {
	b := make([]byte, 4096)
	copy(b, Marker)
	copy(m.durable, b)
}

const fsSize = 64 << 20

func goOn() error { return nil }

// Whoever watches over the work sees each write come, and can end it.
func TestFormattingTellsItsProgress(t *testing.T) {
	m := newMemory(fsSize / sector)
	marked(m)
	calls := 0
	progress := func() error {
		if calls++; m.writes > calls {
			t.Fatalf("%d writes, told of %d", m.writes, calls)
		}
		return nil
	}
	if err := format(m, fsSize, label, progress); err != nil || m.writes > calls || m.writes == 0 {
		t.Fatalf("%d writes, told of %d: %v", m.writes, calls, err)
	}
	all := calls
	for _, last := range []int{1, all / 2, all - 1} {
		m := newMemory(fsSize / sector)
		marked(m)
		calls = 0
		err := format(m, fsSize, label, func() error {
			if calls++; calls > last {
				return errors.New("too long")
			}
			return nil
		})
		// go-diskfs does not wrap the cause.
		if err == nil || !strings.Contains(err.Error(), "too long") || calls > last+1 {
			t.Errorf("ended after %d: %v, and told of %d", last, err, calls)
		}
		if is, err := fresh(m); err != nil || !is {
			t.Errorf("ended after %d: fresh %v, %v", last, is, err)
		}
	}
}

func TestFreshPartitionIsRecognisedByItsFirstSectorAlone(t *testing.T) {
	m := newMemory(16)
	for name, c := range map[string]struct {
		change func()
		want   bool
	}{
		"marker":               {func() {}, true},
		"superblock behind it": {func() { m.durable[1024] = 1 }, true},
		"marker cut":           {func() { m.durable[21] = 0 }, false},
		"more behind it":       {func() { m.durable[500] = 1 }, false},
		"nothing":              {func() { clear(m.durable) }, false},
	} {
		clear(m.durable)
		marked(m)
		c.change()
		if got, err := fresh(m); err != nil || got != c.want {
			t.Errorf("%s: fresh %v, %v; want %v", name, got, err, c.want)
		}
	}
}

// A power cut at each step of formatting: while the marker is there the next
// start formats again; without it there is a whole file system.
func TestPowerCutWhileFormattingLeavesMarkerOrFileSystem(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	whole := newMemory(fsSize / sector)
	marked(whole)
	if err := format(whole, fsSize, label, goOn); err != nil {
		t.Fatal(err)
	}
	steps := whole.writes + whole.syncs
	gone, kept := 0, 0
	try := func(cut int) {
		m := newMemory(fsSize / sector)
		marked(m)
		m.cutAt = cut
		// go-diskfs does not wrap the cause.
		if err := format(m, fsSize, label, goOn); err == nil || !strings.Contains(err.Error(), errCut.Error()) {
			t.Fatalf("cut after %d of %d steps: %v", cut, steps, err)
		}
		m.lose(func() bool { return rnd.IntN(2) == 0 })
		m.cutAt = 0
		is, err := fresh(m)
		if err != nil {
			t.Fatal(err)
		}
		if is {
			kept++
			return
		}
		gone++
		check(t, m.durable)
	}
	for cut := 1; cut < steps; cut += 1 + rnd.IntN(40) {
		try(cut)
	}
	for cut := steps - 4; cut < steps; cut++ {
		for range 20 {
			try(cut)
		}
	}
	if gone == 0 || kept == 0 {
		t.Errorf("the marker was gone %d times, kept %d times: the test saw only one side", gone, kept)
	}
}

// Cards are seldom new: what lay on the partition before must not shine
// through.
func TestFormattedPartitionIsCleanWhateverLayThere(t *testing.T) {
	for _, size := range []int64{96 << 20, fsSize} {
		m := newMemory(int(size / sector))
		for i := range m.durable {
			m.durable[i] = 0xa5
		}
		marked(m)
		if err := format(m, size, label, goOn); err != nil {
			t.Fatal(err)
		}
		check(t, m.durable)
		behaviour(t, m)
	}
}

func behaviour(t *testing.T, m *memory) {
	t.Helper()
	if got := binary.LittleEndian.Uint16(m.durable[superblock+errorsAt:]); got != remountOnError {
		t.Errorf("behaviour on errors is %d, want %d: read-only", got, remountOnError)
	}
}

// check runs e2fsck over a file system.
func check(t *testing.T, data []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fs")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool(t, "e2fsck"), "-fn", path).CombinedOutput(); err != nil {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
}

func tool(t *testing.T, name string) string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if p := filepath.Join(dir, name); unix.Access(p, unix.X_OK) == nil {
			return p
		}
	}
	t.Skipf("%s is missing (apt-get install e2fsprogs)", name)
	return ""
}

// The root file system leads to the disk, also when a second disk carries the
// same image.
func TestOwnDiskIsTheOneOfTheRootFileSystem(t *testing.T) {
	sys := t.TempDir()
	partition := func(disk, name string, number int, device string) {
		dir := filepath.Join(sys, "devices", disk, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "partition"), fmt.Appendf(nil, "%d\n", number), 0o644); err != nil {
			t.Fatal(err)
		}
		links := filepath.Join(sys, "dev/block")
		if err := os.MkdirAll(links, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(dir, filepath.Join(links, device)); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"mmcblk0p1", "mmcblk0p2", "mmcblk0p3", "mmcblk0p4"} {
		partition("mmcblk0", name, i+1, fmt.Sprintf("179:%d", i+1))
	}
	for i, name := range []string{"sda1", "sda2", "sda3", "sda4"} {
		partition("sda", name, i+1, fmt.Sprintf("8:%d", i+1))
	}
	partition("sdb", "sdb2", 2, "8:18")
	for device, want := range map[uint64]Perm{
		unix.Mkdev(179, 2): {"/dev/mmcblk0", "/dev/mmcblk0p4"},
		unix.Mkdev(8, 3):   {"/dev/sda", "/dev/sda4"},
	} {
		if got, err := find(sys, "/dev", device); err != nil || got != want {
			t.Errorf("device %x: %+v, %v; want %+v", device, got, err, want)
		}
	}
	for device, want := range map[uint64]string{
		unix.Mkdev(8, 1):  "which is not partition 2 or 3",
		unix.Mkdev(8, 18): "sdb has no partition 4",
		unix.Mkdev(7, 0):  "no such file",
	} {
		if got, err := find(sys, "/dev", device); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("device %x: %+v, %v; want %q", device, got, err, want)
		}
	}
}
