package nbd

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
)

// SectorSize is what a drive writes whole or not at all.
const SectorSize = 512

// maxTrim is the longest trim that is carried out. A drive may ignore a trim,
// and this one keeps an entry for each sector of it.
const maxTrim = 16 << 20

// ErrPowerOff is what a disk answers once its power was cut.
var ErrPowerOff = errors.New("the disk has no power")

// Medium is what keeps its bytes without power.
type Medium interface {
	io.ReaderAt
	io.WriterAt
}

// Op is a kind of request.
type Op uint8

// The requests.
const (
	Read Op = iota
	Write
	Flush
	Trim
)

func (o Op) String() string {
	return [...]string{"read", "write", "flush", "trim"}[o]
}

// Config says how a disk behaves. The zero value is an honest, fast one.
type Config struct {
	// Lie answers a flush, and a write that must be durable, and does nothing
	// for it: what a drive does that was made for benchmarks.
	Lie bool
	// Faults are there from the start.
	Faults []Fault
}

// Disk is a drive with a volatile write cache. What was written since the last
// flush is kept apart from the medium, sector by sector and in order, until a
// flush, or until a cut decides its fate. All methods may be called from any
// goroutine.
type Disk struct {
	cfg  Config
	size int64

	mu      sync.Mutex
	medium  Medium
	pending []*sector         // in the order of writing; the same place may come again
	newest  map[int64]*sector // by number: what a read sees
	stats   Stats
	off     bool
	faults  []*Fault      // nil where one is over
	healed  chan struct{} // closed by the next Heal

	cutAt   int64 // the write request that power is cut at; 0: none
	cutFull int   // or when so many sectors wait; 0: never
	cut     Cut
	onCut   func()
	done    chan struct{} // closed by the cut
	outcome Outcome
}

// sector is one write of one sector that no flush has confirmed.
type sector struct {
	number int64
	data   [SectorSize]byte
}

// Stats counts what a disk was asked.
type Stats struct {
	Reads, Writes, Flushes int64 // requests
	Written                int64 // bytes
	MostPending            int   // sectors that waited at once, as for CutFull
	Faulty                 int64 // requests that met a fault; those that failed count nowhere else
}

// Cut says what becomes of the sectors that wait for a flush when the power
// goes.
type Cut struct {
	// Kept is the share that had reached the medium, 0 to 1.
	Kept float64
	// Shuffled: any of them; otherwise the oldest.
	Shuffled bool
	// Seed chooses which.
	Seed uint64
}

func (c Cut) String() string {
	order := "in order"
	if c.Shuffled {
		order = "shuffled"
	}
	return fmt.Sprintf("%.0f%% %s", 100*c.Kept, order)
}

// Shares are the shares of pending sectors that a test tries to keep.
var Shares = [...]float64{0, .1, .5, .9, 1}

// RandomCut is one of the cuts that a test should try.
func RandomCut(r *rand.Rand) Cut {
	return Cut{Kept: Shares[r.IntN(len(Shares))], Shuffled: r.IntN(2) == 1, Seed: r.Uint64()}
}

// Outcome is what a cut did.
type Outcome struct {
	Cut
	Write   int64 // the write request at which it came, counted from 1
	Pending int   // sectors that waited for a flush
	Applied int   // of these, how many the medium has
}

// New makes a disk of size bytes, which must be whole sectors. The medium
// belongs to the disk until the power is cut.
func New(medium Medium, size int64, cfg Config) (*Disk, error) {
	if size <= 0 || size%SectorSize != 0 {
		return nil, fmt.Errorf("disk of %d bytes: not whole sectors of %d", size, SectorSize)
	}
	d := &Disk{
		cfg: cfg, size: size, medium: medium, newest: map[int64]*sector{},
		healed: make(chan struct{}), done: make(chan struct{}),
	}
	d.Break(cfg.Faults...)
	return d, nil
}

// Size is in bytes.
func (d *Disk) Size() int64 { return d.size }

// Stats returns what was counted so far.
func (d *Disk) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

func (d *Disk) check(offset int64, length int) error {
	if d.off {
		return ErrPowerOff
	}
	if offset < 0 || length < 0 || offset > d.size || int64(length) > d.size-offset {
		return fmt.Errorf("%d bytes at %d of a disk of %d: %w", length, offset, d.size, io.ErrUnexpectedEOF)
	}
	if offset%SectorSize != 0 || length%SectorSize != 0 {
		return fmt.Errorf("%d bytes at %d: not whole sectors", length, offset)
	}
	return nil
}

// ReadAt reads what was written last, durable or not. Offset and length must
// be whole sectors.
func (d *Disk) ReadAt(b []byte, offset int64) (int, error) {
	if err := d.begin(Read, offset, len(b), nil); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(offset, len(b)); err != nil {
		return 0, err
	}
	d.stats.Reads++
	if n, err := d.medium.ReadAt(b, offset); err != nil && !(err == io.EOF && n == len(b)) {
		return 0, err
	}
	if len(d.newest) > 0 {
		for i := 0; i < len(b); i += SectorSize {
			if s := d.newest[(offset+int64(i))/SectorSize]; s != nil {
				copy(b[i:], s.data[:])
			}
		}
	}
	return len(b), nil
}

// Write writes whole sectors. durable (FUA) puts them on the medium before it
// returns; it says nothing about writes before it.
func (d *Disk) Write(b []byte, offset int64, durable bool) error {
	if err := d.begin(Write, offset, len(b), b); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(offset, len(b)); err != nil {
		return err
	}
	d.stats.Writes++
	d.stats.Written += int64(len(b))
	d.remember(offset, len(b), b)
	if d.stats.Writes == d.cutAt || d.cutFull > 0 && len(d.pending) >= d.cutFull {
		// This very write is torn: the cut chooses among its sectors too.
		return errors.Join(d.powerOff(), ErrPowerOff)
	}
	if durable && !d.cfg.Lie {
		return d.through(b, offset)
	}
	return nil
}

// WriteZeroes writes length bytes of nothing.
func (d *Disk) WriteZeroes(offset int64, length int, durable bool) error {
	return d.Write(make([]byte, length), offset, durable)
}

// Trim forgets what stands there: it reads as zeros, now and, after a cut,
// perhaps. A long trim is ignored, as drives may.
func (d *Disk) Trim(offset int64, length int) error {
	if err := d.begin(Trim, offset, length, nil); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.check(offset, length); err != nil {
		return err
	}
	if length <= maxTrim {
		d.remember(offset, length, nil)
	}
	return nil
}

// remember notes the sectors of a write, zeros when b is nil.
func (d *Disk) remember(offset int64, length int, b []byte) {
	for i := 0; i < length; i += SectorSize {
		s := &sector{number: (offset + int64(i)) / SectorSize}
		if b != nil {
			copy(s.data[:], b[i:])
		}
		d.pending = append(d.pending, s)
		d.newest[s.number] = s
	}
	d.stats.MostPending = max(d.stats.MostPending, len(d.pending))
}

// through puts a write on the medium past the cache. What the cache holds of
// its sectors is out of date, and waits no more.
func (d *Disk) through(b []byte, offset int64) error {
	if _, err := d.medium.WriteAt(b, offset); err != nil {
		return err
	}
	first, last := offset/SectorSize, (offset+int64(len(b))-1)/SectorSize
	d.pending = slices.DeleteFunc(d.pending, func(s *sector) bool { return s.number >= first && s.number <= last })
	for n := first; n <= last; n++ {
		delete(d.newest, n)
	}
	return nil
}

// Flush makes all durable that was written before.
func (d *Disk) Flush() error {
	if err := d.begin(Flush, 0, 0, nil); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return ErrPowerOff
	}
	d.stats.Flushes++
	if d.cfg.Lie {
		return nil
	}
	return d.flush()
}

func (d *Disk) flush() error {
	// Neighbours go out together: a medium that is a file is slow otherwise.
	var run []byte
	var at int64
	out := func() error {
		if len(run) == 0 {
			return nil
		}
		_, err := d.medium.WriteAt(run, at)
		run = run[:0]
		return err
	}
	for _, s := range d.pending {
		if pos := s.number * SectorSize; len(run) == 0 || pos != at+int64(len(run)) {
			if err := out(); err != nil {
				return err
			}
			at = pos
		}
		run = append(run, s.data[:]...)
	}
	if err := out(); err != nil {
		return err
	}
	d.pending = nil
	clear(d.newest)
	return nil
}

// OnCut has f called at the instant of the cut, whoever cuts, before anything is
// decided. f must not call the disk.
func (d *Disk) OnCut(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onCut = f
}

// CutAt cuts the power at a write request: the n-th from now on, 1 the next.
func (d *Disk) CutAt(n int64, c Cut) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n < 1 {
		panic("nbd: cut at a write that is past")
	}
	d.cutAt, d.cut = d.stats.Writes+n, c
}

// CutFull cuts the power at the first write during which n sectors or more wait,
// its own among them: most writes come when hardly any do.
func (d *Disk) CutFull(n int, c Cut) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n < 1 {
		panic("nbd: cut when nothing waits")
	}
	d.cutFull, d.cut = n, c
}

// PowerOff cuts the power now, unless it is cut already. What was planned is
// void.
func (d *Disk) PowerOff(c Cut) (Outcome, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return d.outcome, nil
	}
	d.cut = c
	err := d.powerOff()
	return d.outcome, err
}

// Off is closed when the power is cut.
func (d *Disk) Off() <-chan struct{} { return d.done }

// powerOff decides what the medium has of the sectors that wait. It is called
// with the lock held, once.
func (d *Disk) powerOff() error {
	d.off = true
	defer close(d.done)
	if d.onCut != nil {
		d.onCut()
	}
	waiting := d.pending
	// A drive may write any version of a sector that it held, and drops the
	// older one when it has written the newer.
	keep := make([]bool, len(waiting))
	n := int(d.cut.Kept*float64(len(waiting)) + .5)
	order := make([]int, len(waiting))
	for i := range order {
		order[i] = i
	}
	if d.cut.Shuffled {
		r := rand.New(rand.NewPCG(d.cut.Seed, 1))
		r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	for _, i := range order[:n] {
		keep[i] = true
	}
	d.outcome = Outcome{Cut: d.cut, Write: d.stats.Writes, Pending: len(waiting), Applied: n}
	d.pending, d.newest = nil, nil
	for i, s := range waiting {
		if !keep[i] {
			continue
		}
		if _, err := d.medium.WriteAt(s.data[:], s.number*SectorSize); err != nil {
			return err
		}
	}
	return nil
}
