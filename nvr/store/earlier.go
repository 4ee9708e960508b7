package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store/internal/sampledir"
)

// A database that was restored knows nothing of up to a day of files, which take
// from minutes to hours to read. Nobody waits for that: a stream with more than a
// few files of before the start is recorded at once, in numbers behind them, and
// they are adopted beside it (storage.md, "Adopted beside the recording").
//
// Nothing of this is written down. The next number in the database is that of
// the first file that is not adopted; recordings behind wait for their rows, as
// they are committed in the order of their numbers. So whatever happens, the next
// start finds what is left as any start does.

// besideLimits are the limits of adoption beside the recording.
type besideLimits struct {
	few   int           // files of a stream that are adopted before it is recorded
	part  int           // files of a stream that are adopted at once, about
	rows  int           // recordings that are adopted and have no row
	pause time.Duration // that the disk gets behind each file, at least; else as long as that took
}

// usualLimits: twice as many files as a kill leaves at the usual flush_if_sec are
// read in a second or so.
var usualLimits = besideLimits{few: 8, part: 32, rows: 128, pause: 10 * time.Millisecond}

const (
	earlierFlush  = 30 * time.Second      // what is adopted waits no longer for its row, about
	earlierReport = time.Minute           // how often the log says how far it has come
	earlierLook   = 50 * time.Millisecond // how often it looks whether the flusher has come to it
	earlierRetry  = time.Minute           // after a file that could not be read
	forGood       = 100 * 365 * 24 * time.Hour

	// mostWaiting recordings of a stream may wait for their rows in memory, some
	// 30 kB each. With half of them reading is gentle no longer.
	mostWaiting = 500
)

// earlier are the files of before the start that a stream, which is recorded
// already, has not adopted: numbers from next to below end. Its lock guards it.
type earlier struct {
	next, end int32
	blocks    int64 // that they take, of those that were looked at

	// Those behind count on from here, until it is known what the earlier add
	// up to: no less than that.
	media media.Duration
	runs  int32

	until media.Time // what is adopted ends
	err   error      // why the next cannot be adopted
	retry time.Time  // when it is tried again
}

// adoptFew adopts the files of before the start when they are few. Otherwise the
// stream begins behind them, and its directory adopts them later.
func (s *Store) adoptFew(ctx context.Context, st *Stream) error {
	d := st.dir
	if d == nil || d.dir == nil {
		return nil
	}
	end, many, err := s.findEnd(st)
	if err != nil {
		st.cannotAdopt(err) // nobody knows behind which number to begin
		return nil
	}
	if !many {
		return s.adopt(ctx, st)
	}
	e := &earlier{next: st.nextNo, end: end}
	e.media, e.runs = s.upTo(st, end)
	st.earlier = e
	st.nextNo, st.createdNo, st.cumMedia, st.cumRuns = end, end-1, e.media, e.runs
	s.log.Warn("files of before the start are adopted while the stream is recorded", "camera", st.name, "stream", st.typ,
		"from", e.next, "to", end-1)
	return nil
}

// findEnd finds the number behind the last file of a stream, when there are more
// than a few from its next number on. It asks for no more than some names: no
// more than probeAhead in a row are without a file (storage.md rule 6). A name for
// which the disk does not answer is an error: to read all files instead may take hours.
func (s *Store) findEnd(st *Stream) (end int32, many bool, err error) {
	disk := st.dir.dir
	var failed error
	is := func(no int32) bool {
		s.cfg.Progress()
		f, err := disk.Open(db.CompositeID(st.id, no))
		if err == nil {
			f.Close()
			return true
		}
		if !errors.Is(err, fs.ErrNotExist) {
			failed = err
		}
		return false
	}
	// after is the number behind a file within reach of no, 0 when there is none.
	after := func(no int32) int32 {
		for i := range int32(probeAhead) {
			if failed == nil && is(no+i) {
				return no + i + 1
			}
		}
		return 0
	}
	end = st.nextNo
	for n := 0; n <= s.cfg.beside.few; n++ {
		next := after(end)
		if next == 0 {
			return 0, false, failed
		}
		end = next
	}
	step := int32(1)
	for ; ; step *= 2 {
		next := after(end + step)
		if next == 0 {
			break
		}
		end = next
	}
	for step > 0 { // nothing is within reach of end + step
		if next := after(end + step/2); next != 0 {
			end = next
		}
		step /= 2
	}
	return end, true, failed
}

// upTo is what the recordings of a stream with numbers below end add up to, at
// most, by what the last of their files says of itself.
func (s *Store) upTo(st *Stream, end int32) (media.Duration, int32) {
	for no := end - 1; no >= end-probeAhead && no >= st.nextNo; no-- {
		a, _, err := beginning(st.dir.dir, db.CompositeID(st.id, no))
		if err == nil && a.DatabaseUUID == s.db.UUID() && a.RecordingNo == no {
			n := media.Duration(end - no)
			return max(st.cumMedia, media.Duration(a.PrevMediaDuration90k)) + n*media.MaxRecording, max(st.cumRuns, a.PrevRuns) + int32(n)
		}
	}
	n := end - st.nextNo
	return st.cumMedia + media.Duration(n)*media.MaxRecording, st.cumRuns + n
}

// earlierAdoption is how far the directory's goroutine for it has come with a
// stream. Each part begins with the last recording of the one before, which says
// how that ends only when the next is known.
type earlierAdoption struct {
	stream *Stream
	looked bool            // at all of the files
	ties   []tie           // of what is not adopted yet
	sizes  map[int32]int64 // whole blocks
	from   int32           // the next file
	media  media.Duration  // before it
	runs   int32
	prev   *recording // before it
	shift  int32
	off    media.Duration
}

// tie says that file no holds again what the one of number first holds, or
// some of those between. They have to be adopted together.
type tie struct{ first, no int32 }

// apart reports whether the files before no and the others have nothing to do
// with each other.
func (a *earlierAdoption) apart(no int32) bool {
	return !slices.ContainsFunc(a.ties, func(t tie) bool { return t.first < no && no <= t.no })
}

// adoptEarlier is the goroutine of a directory that adopts beside the recording,
// the oldest first, whichever stream it is of.
func (d *directory) adoptEarlier(ctx context.Context) {
	s := d.store
	under := make(map[*Stream]*earlierAdoption)
	began, said, flushed := time.Now(), time.Now(), time.Now()
	files, fresh := 0, 0 // adopted; of them without a row
	flush := func() {
		// The flusher tries it until it succeeds; nothing more is read meanwhile.
		s.plan(nil, earlierPlan, time.Now())
		for s.plans.holds(earlierPlan) && ctx.Err() == nil && !s.poisoned.Load() {
			wait(ctx, earlierLook)
		}
		flushed, fresh = time.Now(), 0
	}
	for ctx.Err() == nil && !s.poisoned.Load() {
		st, again := d.nextEarlier()
		if st == nil {
			if again == 0 {
				break
			}
			if fresh > 0 {
				flush()
			}
			wait(ctx, again)
			continue
		}
		a := under[st]
		if a == nil {
			a = st.beginEarlier()
			under[st] = a
		}
		n, err := d.adoptPart(ctx, a)
		if ctx.Err() != nil {
			return
		}
		files, fresh = files+n, fresh+n
		st.earlierTried(err)
		if fresh >= s.cfg.beside.rows || fresh > 0 && time.Since(flushed) >= earlierFlush {
			flush()
		}
		if time.Since(said) >= earlierReport {
			said = time.Now()
			s.log.Info("adopting files of before the start", "dir", d.path, "adopted", files, "left", d.left())
		}
	}
	if files == 0 || ctx.Err() != nil || s.poisoned.Load() {
		return
	}
	flush()
	s.log.Info("adopted all files of before the start", "dir", d.path, "files", files, "took", time.Since(began).Round(time.Second))
}

// wait waits, and no longer than ctx.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// nextEarlier is the stream of which the oldest files are to be adopted. When
// each has to be tried again later, it says when; 0: none has any left.
func (d *directory) nextEarlier() (oldest *Stream, again time.Duration) {
	var from media.Time
	for _, st := range d.store.streamsIn(d) {
		st.mu.Lock()
		if e := st.earlier; e != nil && !st.removed {
			w := time.Until(e.retry)
			if st.removing {
				w = max(w, time.Second) // unless that fails
			}
			switch {
			case w > 0 && (again == 0 || w < again):
				again = w
			case w <= 0 && (oldest == nil || e.until < from):
				oldest, from = st, e.until
			}
		}
		st.mu.Unlock()
	}
	return oldest, again
}

// left is how many files of before the start are not adopted, about.
func (d *directory) left() (n int) {
	for _, st := range d.store.streamsIn(d) {
		st.mu.Lock()
		n += st.toAdopt()
		st.mu.Unlock()
	}
	return n
}

// toAdopt is how many files of before the start are not adopted, about. The
// caller holds the lock.
func (st *Stream) toAdopt() int {
	if st.earlier == nil {
		return 0
	}
	return int(st.earlier.end - st.earlier.next)
}

// beginEarlier begins where the database ends.
func (st *Stream) beginEarlier() *earlierAdoption {
	st.mu.Lock()
	defer st.mu.Unlock()
	return &earlierAdoption{stream: st, from: st.earlier.next, media: st.cfg.CumMedia, runs: st.cfg.CumRuns}
}

// earlierTried notes how a part ended.
func (st *Stream) earlierTried(err error) {
	st.mu.Lock()
	e := st.earlier
	if e == nil {
		st.unusable = nil
		st.mu.Unlock()
		return
	}
	was := e.err
	if e.err = err; err != nil {
		e.retry = time.Now().Add(earlierRetry)
	}
	what := "a file of before the start cannot be adopted; trying again every minute"
	unsynced := errors.Is(err, sampledir.ErrUnsynced)
	if unsynced {
		// A second sync proves nothing.
		e.retry = time.Now().Add(forGood)
		what = "a file of before the start did not sync; the next start adopts it"
	}
	st.holdBack()
	st.mu.Unlock()
	if unsynced && !st.store.poisoned.Load() {
		st.store.doubts(err)
	}
	if err != nil && (was == nil || was.Error() != err.Error()) {
		st.store.log.Error(what, "camera", st.name, "stream", st.typ, "err", err)
	}
}

// holdBack keeps a stream from being recorded while a file cannot be adopted and too
// many recordings wait behind it: memory holds all of them. The caller holds the lock.
func (st *Stream) holdBack() {
	e, n := st.earlier, 0
	for _, rec := range st.recent {
		if rec.no >= e.end && rec.settled {
			n++
		}
	}
	if st.unusable = nil; e.err != nil && n >= mostWaiting {
		st.unusable = fmt.Errorf("%d recordings wait for their rows: a file of before the start cannot be adopted: %w", n, e.err)
	}
}

// look reads what the files say of themselves: which of them are tied.
func (a *earlierAdoption) look(ctx context.Context, d *directory, disk sampledir.Dir, end int32) error {
	if a.looked {
		return nil
	}
	a.ties, a.sizes = nil, make(map[int32]int64)
	sum := int64(0)
	for no := a.from; no < end; no++ {
		began := time.Now()
		about, size, err := beginning(disk, db.CompositeID(a.stream.id, no))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil && !errors.Is(err, mp4.ErrNotSampleFile) {
			return err // it may be read later, and say that it is tied
		}
		if w := about.Rewrites; w != nil {
			a.ties = append(a.ties, tie{w.RecordingNo, no})
		}
		a.sizes[no] = a.stream.blocks(size)
		sum += a.sizes[no]
		if err := d.pause(ctx, a.stream, time.Since(began), 0); err != nil {
			return err
		}
	}
	a.looked = true
	a.stream.mu.Lock()
	a.stream.earlier.blocks = sum
	a.stream.mu.Unlock()
	return nil
}

// pause leaves the disk to recording for as long as adoption has had it, and
// until a step that is under way has ended. Adoption that has kept recordings
// waiting for long does not pause.
func (d *directory) pause(ctx context.Context, st *Stream, took, least time.Duration) error {
	st.mu.Lock()
	hurry := len(st.recent) > mostWaiting/2
	st.mu.Unlock()
	if took = min(max(took, least), syncEvery); took > 0 && !hurry {
		wait(ctx, took)
	}
	for ctx.Err() == nil && d.hangs() > syncEvery {
		wait(ctx, syncEvery/4)
	}
	return ctx.Err()
}

// adoptPart adopts the next files of a stream, and gives it all of them but the
// last. It returns how many there were. When it fails, nothing has changed.
func (d *directory) adoptPart(ctx context.Context, a *earlierAdoption) (n int, err error) {
	s, st := d.store, a.stream
	steps := s.clock.steps.Load()
	disk, err := d.disk()
	if err != nil {
		return 0, err
	}
	st.mu.Lock()
	end := st.earlier.end
	// It stands for the stream meanwhile, and its directory for the one that may
	// be opened anew when its disk was away.
	found := st.found()
	st.mu.Unlock()
	found.dir = &directory{store: s, id: d.id, path: d.path, dir: disk}
	found.dir.blockSize.Store(d.blockSize.Load())
	found.nextNo, found.cumMedia, found.cumRuns = a.from, a.media, a.runs
	if err := a.look(ctx, d, disk, end); err != nil {
		return 0, err
	}
	part := adoption{st: found, shift: a.shift, off: a.off, prev: a.prev}
	// How things stood before the last recording, with which the next part begins.
	next := *a
	no := a.from
	for whole := false; no < end && !whole; no++ {
		began := time.Now()
		before := next
		before.from, before.media, before.runs, before.shift, before.off = no, found.cumMedia, found.cumRuns, part.shift, part.off
		err := part.file(ctx, no)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		next = before
		whole = len(found.recent) > max(1, s.cfg.beside.part) && a.apart(no)
		if err := d.pause(ctx, st, time.Since(began), s.cfg.beside.pause); err != nil {
			return 0, err
		}
	}
	recs := found.recent
	if len(recs) > 0 {
		part.link()
		if err := part.sync(); err != nil {
			if d.has(disk) {
				d.failed(err) // it is recorded to
			} else if errors.Is(err, fs.ErrClosed) {
				err = fmt.Errorf("the disk was away: %v", err) // nothing was asked of it
			}
			return 0, err
		}
	}
	if no < end {
		recs = recs[:len(recs)-1]
		prev := *recs[len(recs)-1]
		next.prev = &prev
	} else {
		next.from, next.media, next.runs = end, found.cumMedia, found.cumRuns
	}
	s.flushing.Lock() // its camera may be on its way out
	defer s.flushing.Unlock()
	if s.clock.steps.Load() != steps {
		return 0, nil // they stand elsewhere now
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.removing || st.removed {
		return 0, nil
	}
	*a = next
	st.takeEarlier(a, recs)
	return len(recs), nil
}

// has reports whether a directory on its disk is the one in use: none has taken
// its place, as one does when the disk was away.
func (d *directory) has(disk sampledir.Dir) bool {
	now, err := d.disk()
	return err == nil && now == disk
}

// takeEarlier puts recordings that were adopted in front of those that were
// recorded since.
func (st *Stream) takeEarlier(a *earlierAdoption, recs []*recording) {
	e := st.earlier
	at := slices.IndexFunc(st.recent, func(rec *recording) bool { return rec.no >= e.end })
	if at < 0 {
		at = len(st.recent)
	}
	for _, rec := range recs {
		rec.st = st
		e.until = max(e.until, rec.start.Add(rec.wallDuration()))
		e.blocks -= a.sizes[rec.no]
	}
	st.recent = slices.Insert(slices.Clone(st.recent), at, recs...)
	st.stays(recs)
	st.tellAdopted(recs)
	if e.next = a.from; e.next < e.end {
		return
	}
	// Nothing holds those behind up any more, and it is known what they count on
	// from.
	media, runs := a.media-e.media, a.runs-e.runs
	var run *Run
	for _, rec := range st.recent[at+len(recs):] {
		if rec.run != run { // its files go on counting as they did
			run = rec.run
			run.ahead -= media
		}
		rec.prevMedia += media
		rec.prevRuns += runs
	}
	st.cumMedia += media
	st.cumRuns += runs
	st.earlier = nil
	if len(st.ledger.notes) > 0 {
		st.planGaps()
	}
}

// ready are the recordings that may be committed; those behind the earlier files
// wait. What waits, files and recordings, counts against the limit of the stream
// all the same, for it is on the disk: it takes so many blocks. The caller holds
// the stream's lock.
func (e *earlier) ready(st *Stream) (recs []*recording, blocks int64) {
	blocks = e.blocks
	for _, rec := range st.recent {
		if rec.no < e.end {
			recs = append(recs, rec)
		} else if rec.settled {
			blocks += st.blocks(rec.size)
		}
	}
	return recs, blocks
}

// passEarlier leaves out the time of files that are not adopted: it is no gap.
// The caller holds the stream's lock.
func (a *account) passEarlier() {
	a.until, a.notes = max(a.until, a.st.store.open.Start), nil
	a.seenOK = false
}
