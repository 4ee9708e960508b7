package nbd_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"holdfast/test/hil/nbd"
)

// memory is a medium.
type memory []byte

func (m memory) ReadAt(b []byte, at int64) (int, error)  { return copy(b, m[at:]), nil }
func (m memory) WriteAt(b []byte, at int64) (int, error) { return copy(m[at:], b), nil }

// sector is a sector full of one byte.
func sector(b byte) []byte { return bytes.Repeat([]byte{b}, nbd.SectorSize) }

// shown is the first byte of each sector.
func shown(m memory) string {
	var s []byte
	for i := 0; i < len(m); i += nbd.SectorSize {
		b := m[i]
		if !bytes.Equal(m[i:i+nbd.SectorSize], sector(b)) {
			b = '?' // no drive tears a sector
		}
		if b == 0 {
			b = '.'
		}
		s = append(s, b)
	}
	return string(s)
}

func disk(t *testing.T, sectors int, cfg nbd.Config) (*nbd.Disk, memory) {
	t.Helper()
	m := make(memory, sectors*nbd.SectorSize)
	d, err := nbd.New(m, int64(len(m)), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d, m
}

// write writes a letter to each sector from the given one on.
func write(t *testing.T, d *nbd.Disk, at int, letters string, durable bool) {
	t.Helper()
	var b []byte
	for i := range len(letters) {
		b = append(b, sector(letters[i])...)
	}
	if err := d.Write(b, int64(at)*nbd.SectorSize, durable); err != nil {
		t.Fatal(err)
	}
}

func flush(t *testing.T, d *nbd.Disk) {
	t.Helper()
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
}

func powerOff(t *testing.T, d *nbd.Disk, c nbd.Cut) nbd.Outcome {
	t.Helper()
	o, err := d.PowerOff(c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOnlyWhatWasFlushedIsSure(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  nbd.Cut
		want string
	}{
		{"nothing more is kept", nbd.Cut{Kept: 0}, "ab......"},
		{"the oldest half", nbd.Cut{Kept: .5}, "aBc....."},
		{"all", nbd.Cut{Kept: 1}, "aBcde..."},
		{"all, shuffled", nbd.Cut{Kept: 1, Shuffled: true}, "aBcde..."},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, m := disk(t, 8, nbd.Config{})
			write(t, d, 0, "ab", false)
			flush(t, d)
			write(t, d, 1, "Bc", false)
			write(t, d, 3, "de", false)
			if got := shown(m); got != "ab......" {
				t.Fatalf("before the cut the medium has %s", got)
			}
			o := powerOff(t, d, c.cut)
			if got := shown(m); got != c.want {
				t.Errorf("the medium has %s, want %s", got, c.want)
			}
			if o.Pending != 4 {
				t.Errorf("%d sectors waited, want 4", o.Pending)
			}
			if err := d.Write(sector('x'), 0, true); !errors.Is(err, nbd.ErrPowerOff) {
				t.Errorf("write without power: %v", err)
			}
			if err := d.Flush(); !errors.Is(err, nbd.ErrPowerOff) {
				t.Errorf("flush without power: %v", err)
			}
			if got := shown(m); got != c.want {
				t.Errorf("without power the medium became %s", got)
			}
		})
	}
}

func TestReadSeesWhatWasWrittenLast(t *testing.T) {
	d, _ := disk(t, 4, nbd.Config{})
	write(t, d, 0, "abcd", false)
	flush(t, d)
	write(t, d, 1, "B", false)
	write(t, d, 1, "C", false)
	if err := d.Trim(2*nbd.SectorSize, nbd.SectorSize); err != nil {
		t.Fatal(err)
	}
	got := make(memory, 4*nbd.SectorSize)
	if _, err := d.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if shown(got) != "aC.d" {
		t.Errorf("read %s, want aC.d", shown(got))
	}
}

func TestDurableWriteIsOnTheMedium(t *testing.T) {
	d, m := disk(t, 4, nbd.Config{})
	write(t, d, 0, "ab", false)
	write(t, d, 1, "B", true)
	if got := shown(m); got != ".B.." {
		t.Fatalf("the medium has %s, want .B..", got)
	}
	// The older content of sector 1, kept, must not come back over it.
	o := powerOff(t, d, nbd.Cut{Kept: 1})
	if got := shown(m); got != "aB.." || o.Pending != 1 {
		t.Errorf("the medium has %s with %d waiting, want aB.. with 1", got, o.Pending)
	}
}

func TestLiarLosesWhatItConfirmed(t *testing.T) {
	d, m := disk(t, 4, nbd.Config{Lie: true})
	write(t, d, 0, "ab", false)
	flush(t, d)
	write(t, d, 2, "c", true)
	if o := powerOff(t, d, nbd.Cut{}); o.Pending != 3 {
		t.Errorf("%d sectors waited, want 3", o.Pending)
	}
	if got := shown(m); got != "...." {
		t.Errorf("the medium has %s, want nothing", got)
	}
}

func TestCutTearsTheWriteItComesAt(t *testing.T) {
	d, m := disk(t, 6, nbd.Config{})
	called := 0
	write(t, d, 0, "a", false)
	d.OnCut(func() { called++ })
	d.CutAt(2, nbd.Cut{Kept: .5})
	write(t, d, 1, "b", false)
	var b []byte
	for _, l := range "cdef" {
		b = append(b, sector(byte(l))...)
	}
	if err := d.Write(b, 2*nbd.SectorSize, true); !errors.Is(err, nbd.ErrPowerOff) {
		t.Fatalf("the write at the cut: %v", err)
	}
	<-d.Off()
	if got := shown(m); got != "abc..." || called != 1 {
		t.Errorf("the medium has %s, called %d times; want abc..., once", got, called)
	}
	if o := powerOff(t, d, nbd.Cut{Kept: 1}); o.Write != 3 || o.Pending != 6 || o.Applied != 3 {
		t.Errorf("a second cut says %+v, want what the first one did", o)
	}
}

func TestCutComesWhenTheCacheIsFull(t *testing.T) {
	d, m := disk(t, 8, nbd.Config{})
	d.CutFull(3, nbd.Cut{Kept: 1})
	write(t, d, 0, "ab", false)
	flush(t, d)
	write(t, d, 2, "cd", false)
	select {
	case <-d.Off():
		t.Fatal("the power is cut already")
	default:
	}
	if err := d.Write(sector('e'), 4*nbd.SectorSize, false); !errors.Is(err, nbd.ErrPowerOff) {
		t.Fatalf("the write at the cut: %v", err)
	}
	if got := shown(m); got != "abcde..." {
		t.Errorf("the medium has %s, want abcde...", got)
	}
}

// What a durable write put on the medium waits for no flush, nor do the older
// forms of its sectors.
func TestDurableWritesDoNotFillTheCache(t *testing.T) {
	d, m := disk(t, 8, nbd.Config{})
	d.CutFull(5, nbd.Cut{Kept: 1})
	write(t, d, 0, "ab", false)
	for range 5 {
		write(t, d, 0, "cd", true)
		write(t, d, 5, "e", true)
	}
	if got := d.Stats().MostPending; got != 4 {
		t.Errorf("%d sectors waited at once, want 4: two, and the two that replaced them", got)
	}
	write(t, d, 2, "fgh", false)
	if err := d.Write(append(sector('i'), sector('j')...), 6*nbd.SectorSize, false); !errors.Is(err, nbd.ErrPowerOff) {
		t.Fatalf("the write at the cut: %v", err)
	}
	if o := powerOff(t, d, nbd.Cut{}); o.Pending != 5 || shown(m) != "cdfgheij" {
		t.Errorf("%d sectors waited, the medium has %s; want 5 and cdfgheij", o.Pending, shown(m))
	}
}

func TestOutsideOfTheDiskIsRefused(t *testing.T) {
	d, _ := disk(t, 2, nbd.Config{})
	for _, c := range []struct{ offset, length int }{{-512, 512}, {0, 1536}, {1024, 512}, {1, 512}, {0, 1}} {
		if err := d.Write(make([]byte, c.length), int64(c.offset), false); err == nil {
			t.Errorf("write of %d bytes at %d was taken", c.length, c.offset)
		}
		if _, err := d.ReadAt(make([]byte, c.length), int64(c.offset)); err == nil {
			t.Errorf("read of %d bytes at %d was answered", c.length, c.offset)
		}
	}
	if _, err := nbd.New(memory{}, 100, nbd.Config{}); err == nil {
		t.Error("a disk of a part of a sector was made")
	}
}

// Each sector has after a cut a version that it had since the last flush, and
// of an ordered cut nothing is there that is newer than something missing.
func TestCutLeavesAPossiblePast(t *testing.T) {
	const sectors = 16
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	subsets := map[string]bool{}
	for range 300 {
		d, m := disk(t, sectors, nbd.Config{})
		possible := make([][]byte, sectors) // per sector
		for i := range possible {
			possible[i] = []byte{'.'}
		}
		states := []string{shown(m)} // since the last flush
		now := []byte(states[0])
		for range r.IntN(40) {
			if r.IntN(8) == 0 {
				flush(t, d)
				for i := range possible {
					possible[i] = possible[i][len(possible[i])-1:]
				}
				states = []string{string(now)}
				continue
			}
			i, l := r.IntN(sectors), byte('a'+r.IntN(26))
			write(t, d, i, string(l), false)
			possible[i] = append(possible[i], l)
			now[i] = l
			states = append(states, string(now))
		}
		cut := nbd.RandomCut(r)
		o := powerOff(t, d, cut)
		got := shown(m)
		if o.Pending != len(states)-1 {
			t.Fatalf("%v: %d waited, want %d", cut, o.Pending, len(states)-1)
		}
		for i := range got {
			if !bytes.Contains(possible[i], []byte{got[i]}) {
				t.Fatalf("%v: sector %d has %c, which it was not since the flush: %s", cut, i, got[i], possible[i])
			}
		}
		if !cut.Shuffled && got != states[o.Applied] {
			t.Fatalf("%v: the medium has %s, want %s", cut, got, states[o.Applied])
		}
		if cut.Shuffled && cut.Kept == .5 && o.Pending > 6 {
			subsets[map[bool]string{true: "a past state", false: "a mixture"}[contains(states, got)]] = true
		}
	}
	if !subsets["a mixture"] {
		t.Error("no shuffled cut gave anything but a past state")
	}
}

func contains(states []string, s string) bool {
	for _, x := range states {
		if x == s {
			return true
		}
	}
	return false
}

func TestSameSeedSameCut(t *testing.T) {
	medium := func(seed uint64) string {
		d, m := disk(t, 64, nbd.Config{})
		for i := range 64 {
			write(t, d, i, "x", false)
		}
		powerOff(t, d, nbd.Cut{Kept: .5, Shuffled: true, Seed: seed})
		return shown(m)
	}
	if medium(1) != medium(1) {
		t.Error("one seed, two outcomes")
	}
	if medium(1) == medium(2) {
		t.Error("two seeds, one outcome")
	}
}

var _ io.ReaderAt = (*nbd.Disk)(nil)
