package store

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir"
)

// syncEvery is how often a directory writes what its streams have for it and
// makes it durable: with the time of one sync, the most that a power cut costs.
const syncEvery = time.Second

// probeAhead is how many recordings of a stream in a row can be without a
// file on the disk. The start looks that far ahead for files that the
// database does not know; no file is created that it would not reach.
const probeAhead = 16

// directory is a sample directory and the one goroutine that writes to it:
// fragments of all its streams once a second, then their sync, then the
// unlinking of garbage. Whatever fails is tried again at the next tick, in
// the same order; the streams do not wait for it.
type directory struct {
	store     *Store
	id        int32
	uuid      string
	path      string
	blockSize atomic.Int64 // of the file system; 0: not asked yet

	files map[int64]*writeFile // open for writing, by recording

	ends      int       // how often in a row its sync ended the process
	notBefore time.Time // it is not tried
	began     time.Time // when its goroutine first had it to write to

	ending bool // the last steps
	moved  bool // a step has left something to another file
	more   bool // a step that succeeded has left something to the next

	stop  context.CancelFunc // ends its goroutine, and the copy of the database under way
	ended chan struct{}      // closed when its goroutine has ended

	wake   chan chan struct{} // asks for a step now; answered when it is done
	looked time.Time          // when garbage was last looked at

	spell    spell     // of trouble, as the log has it
	saidLost time.Time // when it last said what fell out of memory

	missed     int     // files that were gone before they were unlinked, and were not told yet
	missedIDs  []int64 // the first of them
	saidMissed time.Time

	copying chan struct{} // holds one while the database is copied there, or what it holds goes

	mu sync.Mutex // a leaf: nothing is called under it

	// unavailable says why the directory is not used at all: missing, or not
	// ours. dir is its directory otherwise, which the goroutine, the only one
	// to change it, reads without the lock.
	unavailable error
	dir         sampledir.Dir

	err     error               // of the step that fails now
	away    bool                // that has found it gone, or another in its place
	failing time.Time           // since when its steps fail, and not for want of room
	working time.Time           // since when a step is under way; zero between steps
	garbage []int64             // to unlink; their garbage rows are committed
	gone    []int64             // unlinked durably; their rows can go
	held    map[int64]time.Time // what garbage and gone hold, each id once, and since when
	well    time.Time           // when a step last came to its end behind one that failed
	alarm   string              // why garbage only grows, "" when it does not
	raised  bool                // the log says that it does
	room    room
}

// mostFails is after how many appends that failed a file is given up, as after
// one sync that failed: those behind it wait.
const mostFails = 10

// writeFile is a sample file that is being written.
type writeFile struct {
	sampledir.File
	written int64
	synced  int64 // -1: it was cut since
	fails   int   // appends, one after the other
}

// work is what one step has to write for one recording.
type work struct {
	rec       *recording
	fragments []*fragment // from the first that is not durable
	upTo      int         // how many fragments of the recording are durable after this step
	size      int64       // of its file then
	last      bool        // nothing follows
}

// problem says what keeps the directory from taking writes, "" when nothing.
func (d *directory) problem() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unavailable != nil {
		return d.unavailable.Error()
	}
	if d.err != nil {
		return d.err.Error()
	}
	return ""
}

// run is the directory's goroutine.
func (d *directory) run(ctx context.Context) {
	if !d.await(ctx) {
		return
	}
	d.began = time.Now()
	d.store.running.Go(func() { d.adoptEarlier(ctx) })
	t := time.NewTicker(syncEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			d.finish()
			for _, f := range d.files {
				f.Close()
			}
			return
		case <-t.C:
			d.steps()
		case done := <-d.wake:
			d.steps()
			close(done)
		}
	}
}

// finish runs the last steps: one, and more while something fails. What the disk
// has not taken then goes with the memory.
func (d *directory) finish() {
	d.ending = true
	for range 3 {
		d.moved = false
		if d.steps(); !d.moved && !d.holds() {
			break
		}
	}
	if !d.store.poisoned.Load() {
		for _, st := range d.store.streamsIn(d) {
			for _, rec := range st.giveUp() {
				d.cutOff(rec, rec.size)
			}
		}
	}
}

// holds reports whether memory holds what the disk has not taken.
func (d *directory) holds() bool {
	return slices.ContainsFunc(d.store.streamsIn(d), func(st *Stream) bool {
		st.mu.Lock()
		defer st.mu.Unlock()
		return st.unsyncedBytes > 0
	})
}

// giveUp ends the recordings of a stream where they are durable, for the last
// flush, and notes what kept the rest from the disk: a gap. It returns those whose
// files may hold more. One that holds again what another file holds already, and
// not as much of it yet, is left for the next start to compare, with all behind it.
func (st *Stream) giveUp() (cut []*recording) {
	lost, _ := st.diskCause()
	reason := reasonDiskError
	if lost.cause == DiskSlow {
		reason = reasonSlowDisk
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, rec := range slices.Clone(st.recent) {
		if rec.settled || rec.broken { // a broken one waits for the one that was made for it
			continue
		}
		if !rec.sealed || rec.durable < rec.promised {
			break
		}
		if rec.durable < len(rec.taken) || len(rec.pending)+len(rec.pendingAudio) > 0 {
			frames := rec.video.Samples
			st.shorten(rec, rec.durable, reason)
			st.lostFrames += frames - rec.video.Samples
			rec.lost = lost
			rec.lost.at = rec.start
		}
		st.settled(rec)
		cut = append(cut, rec)
	}
	if len(cut) > 0 && len(st.notes) == 0 {
		st.notes = []note{{st.store.wall(), RecorderDown, ""}} // up to here it was the disk
	}
	return cut
}

// steps runs a step, and others as long as there is more than one takes.
func (d *directory) steps() {
	for d.step(); d.more; {
		d.step()
	}
}

// stepNow runs a step and waits for it.
func (d *directory) stepNow(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case d.wake <- done:
	case <-ctx.Done():
		return ctx.Err()
	case <-d.store.stopped:
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// step writes, syncs and collects once. The error state of the directory is
// that of the last step.
func (d *directory) step() {
	d.more = false
	if d.store.poisoned.Load() {
		return
	}
	d.mu.Lock()
	d.working = time.Now()
	err := d.err
	d.mu.Unlock()
	away := false
	if err != nil && (!diskFull(err) || d.dir.Moved()) {
		err = d.prove()
		away = err != nil
	} else {
		err = nil
	}
	if err == nil {
		if err = d.look(); err == nil || d.ending && d.fits() {
			err = d.write(false)
		} else if werr := d.write(true); werr != nil {
			err = werr
		}
		// On a full disk this is what makes room.
		if cerr := d.collect(); err == nil {
			err = cerr
		}
	}
	d.mu.Lock()
	d.working = time.Time{}
	was := d.err
	d.err, d.away = err, away
	if err == nil || diskFull(err) {
		d.failing = time.Time{}
	} else if d.failing.IsZero() {
		d.failing = time.Now()
	}
	d.more = d.more && err == nil
	if was != nil && err == nil {
		d.well = time.Now()
	}
	d.mu.Unlock()
	d.lookAtGarbage()
	d.reportMissed()
	d.report(err)
}

// reportLost says what fell out of memory while the disk took nothing.
func (d *directory) reportLost() {
	if time.Since(d.saidLost) < spellOver {
		return
	}
	d.saidLost = time.Now()
	for _, st := range d.store.streamsIn(d) {
		st.mu.Lock()
		lost := st.lostFrames
		st.lostFrames = 0
		st.mu.Unlock()
		if lost > 0 {
			d.store.log.Warn("pictures fell out of memory before the disk took them", "camera", st.name, "stream", st.typ, "frames", lost)
		}
	}
}

// write makes durable what the streams have given so far. While recording pauses
// it only ends recordings of which all is durable that is left: once they are
// committed, they can go.
func (d *directory) write(paused bool) error {
	d.sweep()
	jobs, waiting := d.take(paused)
	defer func() {
		for _, w := range jobs {
			st := w.rec.st
			st.mu.Lock()
			w.rec.inWork = w.rec.durable
			st.mu.Unlock()
		}
	}()
	// An error is of one file, or of the whole disk: the other files show
	// which. What failed is tried again in the next step.
	failed := waiting
	fail := func(err error) {
		if failed == nil {
			failed = err
		}
	}
	made := false              // a new file, whose entry in the directory is not durable yet
	var there, written []*work // files that are there; those that took what there is
	var behind *Stream         // one of its files was not written: those behind it wait
	for _, w := range jobs {
		if w.rec.st == behind || !w.begin() {
			continue
		}
		created, err := d.append(w)
		made = made || created
		if created {
			there = append(there, w) // whatever it took
		}
		if errors.Is(err, fs.ErrExist) {
			d.yield(w, err)
		} else if err != nil {
			behind = w.rec.st
			fail(err)
			f := d.files[w.rec.id()]
			if f != nil && !diskFull(err) {
				f.fails++
			}
			if f != nil && f.fails >= mostFails && !d.ending {
				d.abandon(w, err) // the blocks it has may never take it
			} else if w.asFarAs(f) {
				written = append(written, w)
			}
		} else {
			if f := d.files[w.rec.id()]; f != nil {
				f.fails = 0
			}
			written = append(written, w)
		}
	}
	var good, dirty []*work
	var files []sampledir.File
	for _, w := range written {
		f := d.files[w.rec.id()]
		if f != nil {
			there = append(there, w)
		}
		if f != nil && f.synced != f.written {
			dirty, files = append(dirty, w), append(files, f.File)
		} else {
			good = append(good, w)
		}
	}
	errs, entries := d.dir.SyncFiles(files)
	for i, err := range errs {
		w := dirty[i]
		if err != nil {
			d.abandon(w, err)
			fail(err)
			continue
		}
		f := d.files[w.rec.id()]
		f.synced = f.written
		good = append(good, w)
	}
	if made && entries {
		d.synced()
	} else if made {
		if err := d.sync(); err != nil {
			return err
		}
	}
	for _, w := range there {
		w.rec.st.hasEntry(w.rec.no)
	}
	for _, w := range good {
		d.settle(w)
	}
	return failed
}

// leastWork is what a step takes of a stream in any case, bytes in memory.
const leastWork = 1 << 20

// take gives all units that the directory's streams have collected their place
// in the files. waiting is why one of the streams is not asked now. Of a stream
// that has much, because its disk took nothing for a while, it takes a fourth of
// what the memory has for each: when that is full, the rest can fall out of it,
// and not what comes now.
func (d *directory) take(paused bool) (jobs []*work, waiting error) {
	s := d.store
	for _, st := range s.streamsIn(d) {
		room := max(leastWork, s.cfg.RingBytes/(4*max(1, s.streams.Load())))
		st.mu.Lock()
		if st.syncFails > 0 && time.Now().Before(st.syncAgain) && !d.ending {
			waiting = st.syncErr
			st.mu.Unlock()
			continue
		}
		for _, rec := range st.recent {
			if st.removing || rec.settled || rec.broken {
				continue
			}
			if !rec.created && rec.no-st.createdNo > probeAhead {
				// The database has to know first that those before have no file.
				d.store.plan(st, rec.no-1, time.Now())
				break
			}
			if paused && (!rec.sealed || rec.durable < len(rec.taken) || len(rec.pending)+len(rec.pendingAudio) > 0) {
				break
			}
			rec.takeFragments()
			last := rec.sealed && len(rec.pending) == 0
			if rec.durable == len(rec.taken) && !last {
				continue
			}
			n, size := rec.durable, rec.size
			for ; n < len(rec.taken) && room > 0; n++ {
				room -= rec.taken[n].cost
			}
			whole := n == len(rec.taken)
			if !whole {
				size = rec.taken[n].pos
			}
			rec.inWork = n
			jobs = append(jobs, &work{
				rec: rec, fragments: rec.taken[rec.durable:n], upTo: n, size: size, last: last && whole,
			})
			if !whole {
				d.more = true
				break
			}
			if st.syncFails > 0 && !d.ending {
				break // one file shows whether the disk syncs again
			}
		}
		st.mu.Unlock()
	}
	return jobs, waiting
}

// sweep closes the files of recordings that ended without the directory: they
// were cut where they are durable.
func (d *directory) sweep() {
	open := make(map[int64]struct{})
	for _, st := range d.store.streamsIn(d) {
		st.mu.Lock()
		for _, rec := range st.recent {
			if !rec.settled {
				open[rec.id()] = struct{}{}
			}
		}
		st.mu.Unlock()
	}
	for id := range d.files {
		if _, ok := open[id]; !ok {
			d.close(id)
		}
	}
}

// begin notes that the file of a recording may exist from now on, and not before
// it is tried: one behind others that cannot be written keeps a number that may
// change. It reports whether there is something to do: the recording may have
// moved, or its camera is being deleted and no file is begun.
func (w *work) begin() bool {
	rec, st := w.rec, w.rec.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if rec.broken || !rec.created && st.removing {
		return false
	}
	rec.created = rec.created || w.upTo > 0
	return true
}

// asFarAs makes it the work of a step to make durable what a file took before it
// failed. It reports whether that is anything.
func (w *work) asFarAs(f *writeFile) bool {
	n := 0
	for f != nil && n < len(w.fragments) && w.fragments[n].pos+w.fragments[n].size <= f.written {
		n++
	}
	w.upTo, w.last = w.upTo-len(w.fragments)+n, false
	return n > 0
}

// append brings the file of a recording up to its last fragment, from the
// byte that an earlier try reached. One of which nothing is left needs none.
func (d *directory) append(w *work) (created bool, err error) {
	id := w.rec.id()
	f := d.files[id]
	if w.upTo == 0 {
		return false, nil
	}
	if f == nil {
		file, err := d.dir.Create(id)
		if err != nil {
			return false, err
		}
		f = &writeFile{File: file}
		d.files[id] = f
		created = true
	}
	if init := w.rec.init; f.written < int64(len(init)) {
		got, err := f.Append(f.written, init[f.written:])
		f.written += got
		if err != nil {
			return created, err
		}
	}
	for _, fr := range w.fragments {
		if f.written >= fr.pos+fr.size {
			continue
		}
		bufs := make([][]byte, 0, 1+len(fr.payload))
		bufs = append(bufs, fr.AppendHeader(make([]byte, 0, fr.headerSize), fr.payload...))
		bufs = append(bufs, fr.payload...)
		got, err := f.Append(f.written, skip(bufs, f.written-fr.pos)...)
		f.written += got
		if err != nil {
			return created, err
		}
	}
	if w.last && f.written > w.size {
		// A fragment was begun that fell out of memory since.
		if err := f.Truncate(w.size); err != nil {
			return created, err
		}
		f.written, f.synced = w.size, -1
	}
	return created, nil
}

// skip takes the first n bytes off bufs.
func skip(bufs [][]byte, n int64) [][]byte {
	for n > 0 {
		if n < int64(len(bufs[0])) {
			bufs[0] = bufs[0][n:]
			break
		}
		n -= int64(len(bufs[0]))
		bufs = bufs[1:]
	}
	return bufs
}

// yield gives up a recording whose place is taken by a file that nobody knows
// of. That file is left alone; the stream goes on with the next number.
func (d *directory) yield(w *work, err error) {
	st, rec := w.rec.st, w.rec
	st.mu.Lock()
	rec.created = false
	if rec.promised > 0 {
		st.rewrite(rec, err)
		st.mu.Unlock()
		return
	}
	rec.broken = true
	rec.cut(0)
	rec.lost = note{rec.start, DiskError, shorten(err.Error())}
	if rec.sealed {
		st.settled(rec)
	}
	st.mu.Unlock()
	d.store.log.Error("recording given up: there is a file in its place", "camera", st.name, "stream", st.typ,
		"recording", rec.no, "err", err)
}

// settle notes what has become durable, and lets go of its bytes.
func (d *directory) settle(w *work) {
	st, rec := w.rec.st, w.rec
	st.mu.Lock()
	if rec.broken {
		st.mu.Unlock()
		return
	}
	progress := w.upTo > rec.durable
	for _, f := range rec.taken[rec.durable:w.upTo] {
		st.unsynced(-f.cost)
		// What is written again is durable already. The wall clock does not tell
		// that: behind a step back the newest picture stands before older ones.
		if to := rec.received.Add(media.Duration(f.videoEnd).Std()); to.After(st.durableTo) {
			st.durableTo, st.watermark = to, rec.start.Add(media.Duration(f.videoEnd))
		}
	}
	if progress && st.unsyncedBytes == 0 {
		st.undurable.Store(0)
	} else if progress {
		st.undurable.Store(int64(time.Since(d.store.opened))) // what is left has waited from now
	}
	rec.durable = w.upTo
	st.syncFails = 0
	released := rec.keepPromise()
	rec.keepGroup()
	if w.last {
		st.settled(rec)
	}
	st.mu.Unlock()
	for _, old := range released {
		d.cutOff(old, old.size)
	}
	if w.last {
		d.close(rec.id())
	}
}

// abandon ends a recording whose file failed to sync, or takes nothing. The bytes behind what is
// durable may be lost though a second sync would report success (reliability.md
// finding 1), so there is none: they are written again, to another file.
func (d *directory) abandon(w *work, err error) {
	st, rec := w.rec.st, w.rec
	st.mu.Lock()
	if rec.broken { // moved with the one before it
		st.mu.Unlock()
		d.cutOff(rec, 0) // the next start would read it from the page cache, and sync it again
		return
	}
	durable := rec.durableSize()
	frames := rec.video.Samples
	st.backOff(err)
	next := st.rewrite(rec, err)
	if next != nil {
		frames -= rec.video.Samples + next.video.Samples
	} else {
		rec.broken = true
		st.shorten(rec, rec.durable, reasonDiskError)
		rec.lost = diskNote(err)
		rec.lost.at = rec.start
		frames -= rec.video.Samples
		if rec.sealed {
			st.settled(rec)
		}
	}
	st.mu.Unlock()
	args := []any{"camera", st.name, "stream", st.typ, "recording", rec.no, "lost_frames", max(0, frames), "err", shorten(err.Error())}
	if next != nil {
		d.moved = true
		d.detail(slog.LevelError, "sample file is given up; what is not durable is written to another", append(args, "again", next.no)...)
	} else {
		d.detail(slog.LevelError, "sample file is given up; its end that is not durable is lost", args...)
	}
	if next != nil {
		if f := d.files[rec.id()]; f != nil {
			d.truncate(rec, f, durable)
		}
		return
	}
	d.cutOff(rec, durable)
}

// cutOff takes what does not count off the file of a recording that has ended
// early, and closes it. Nobody relies on that.
func (d *directory) cutOff(rec *recording, size int64) {
	if f := d.files[rec.id()]; f != nil {
		d.truncate(rec, f, size)
		d.close(rec.id())
	}
}

func (d *directory) truncate(rec *recording, f *writeFile, size int64) {
	if err := f.Truncate(size); err != nil {
		d.detail(slog.LevelWarn, "sample file keeps a tail that does not count", "recording", idString(rec.id()), "err", shorten(err.Error()))
	}
}

func (d *directory) close(id int64) {
	if f := d.files[id]; f != nil {
		if err := f.Close(); err != nil {
			d.detail(slog.LevelWarn, "close sample file", "recording", idString(id), "err", shorten(err.Error()))
		}
		delete(d.files, id)
	}
}

// hangs reports for how long the directory has been at one step. A step that
// fails is no hang: it is tried again.
func (d *directory) hangs() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.working.IsZero() {
		return 0
	}
	return time.Since(d.working)
}
