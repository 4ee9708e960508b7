// Package store keeps what the cameras send: it turns access units into
// durable sample files, knows which recordings there are, deletes the oldest,
// and finds everything again after a power cut. It is the owner of every
// invariant of nvr/design/storage.md; most functions here carry one.
//
// The way of the data, and who goes it:
//
//	camera's goroutine     Run.Append       unit ─► recording in memory         never waits for a disk
//	one per directory      directory.run    units ─► fragment ─► file ─► sync   once a second
//	flusher                Store.serve      synced recordings ─► one transaction for all streams
//	one per request        Stream.List …    rows and memory, merged
//
// Locks, in the order in which they are taken: Store.flushing, Store.mu,
// Stream.mu, and then the leaves (directory.mu, planner.mu, entryTable.mu, pulse.mu,
// notices.mu).
// ballast.mu and endings.mu are leaves, too, under which their own files are touched
// and nothing else.
// No file and no SQL is touched under Stream.mu or a leaf.
//
// HTTP, RTSP and users do not belong here, nor does any SQL (package db) or
// any byte of MP4 (package mp4).
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/store/internal/sampledir"
)

// ErrPoisoned is the kind of an error after which the process must end without
// closing the database: the kernel may hold data that is not on the disk and
// never will be. Whoever starts it again has to drop the page cache first
// (reliability.md finding 2).
var ErrPoisoned = errors.New("storage cannot be trusted until the page cache is dropped")

// Config says how to open a store.
type Config struct {
	// Dir is the data directory: the database lives there, and the sample
	// directory that streams use unless they name another.
	Dir string

	Log *slog.Logger

	// Now is the wall clock; nil is time.Now. Nothing waits by it.
	Now func() time.Time

	// ClockNotBefore is the least that a clock shows which was set; zero is 1971.
	ClockNotBefore time.Time

	// TimeZone is that of days; nil is UTC.
	TimeZone *time.Location

	// RingBytes bounds the samples in memory that no disk has taken yet, for
	// all streams together. 0 is 256 MiB.
	RingBytes int64

	// ByHand says that nobody drops the page cache when this process ends with
	// ErrPoisoned.
	ByHand bool

	// DirRoots are the directories below which sample directories may be added
	// beside the recording; nil: anywhere.
	DirRoots []string

	// OwnNames are entries of Dir that others have for themselves, beside those of
	// OwnName: no sample directory may be there.
	OwnNames []string

	// Progress, if set, is called while Open works, each time it got further.
	// It must not wait, and may be called from two goroutines at once.
	Progress func()

	// openDir opens a sample directory; tests put a fake in.
	openDir func(path string) (sampledir.Dir, error)

	// bootID is what the kernel calls this boot, unless a test says so.
	bootID string

	// beside are the limits of adoption beside the recording, unless a test says so.
	beside besideLimits

	// noBallast spares tests that open thousands of stores its file.
	noBallast bool

	// mostDeletions bounds what one flush deletes, so that no transaction takes
	// long; the next flush goes on. 0 is 2000: tests have few recordings.
	mostDeletions int

	// at, unless nil, is called at each point at which a kill leaves other files
	// of the database than at the one before.
	at func(point string)

	// openDB opens the database; tests put faults below it.
	openDB func(context.Context, db.Config) (*db.DB, error)

	// readable reads the files of the database from end to end; tests fail it.
	readable func(ctx context.Context, path string) error
}

// Store is an open store.
type Store struct {
	cfg Config
	log *slog.Logger
	now func() time.Time

	db     *db.DB
	asked  chan struct{} // holds one for each list that reads the database, see ask
	open   db.OpenRow    // its start changes when the clock is set: guarded by flushing, or any stream's lock
	opened time.Time     // monotonic

	ring    atomic.Int64 // bytes of samples that are not durable
	streams atomic.Int64 // how many there are
	entries entryTable
	ages    atomic.Pointer[ages]
	clock   wallClock
	plans   planner
	notices notices

	pulse pulse

	ballast ballast
	copies  copies

	restored string // what Restored says; Open's

	flushing sync.Mutex  // held by a flush and by a change of configuration
	flushes  int64       // guarded by flushing
	going    []*going    // deleted streams that have rows still; guarded by flushing
	kept     atomic.Bool // the last flush left a deleted stream out

	mu      sync.RWMutex // guards what follows; taken after flushing
	cameras []*Camera    // by name
	dirs    []*directory
	claimed map[string]struct{} // paths of directories that are being added or deleted
	changed chan struct{}       // closed at the next change of the configuration

	ends     endings
	unsynced atomic.Pointer[error] // see doubts
	doubted  chan struct{}         // closed with the first
	again    chan error            // see Again

	damage   damage
	poisoned atomic.Bool     // nothing is written any more
	fatal    chan error      // the first error that poisons
	stopped  chan struct{}   // closed when the directories have ended
	run      context.Context // of the goroutines
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// Open opens the data directory, creates what is missing, brings in what an
// earlier process left on the disks, and starts the goroutines of the store.
// ctx bounds the opening only. A sample directory that is missing or that
// belongs to another installation is logged and left alone; its streams do
// not record, the others do. ErrPoisoned, once, when the process before this one
// was killed after a sync that failed at its start.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.ClockNotBefore.IsZero() {
		cfg.ClockNotBefore = time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if cfg.TimeZone == nil {
		cfg.TimeZone = time.UTC
	}
	if cfg.RingBytes == 0 {
		cfg.RingBytes = 256 << 20
	}
	if cfg.Progress == nil {
		cfg.Progress = func() {}
	}
	if cfg.bootID == "" {
		cfg.bootID = bootID()
	}
	if cfg.openDir == nil {
		cfg.openDir = func(path string) (sampledir.Dir, error) { return sampledir.OpenDisk(path) }
	}
	if cfg.beside == (besideLimits{}) {
		cfg.beside = usualLimits
	}
	if cfg.mostDeletions == 0 {
		cfg.mostDeletions = 2000
	}
	if cfg.openDB == nil {
		cfg.openDB = db.Open
	}
	if cfg.readable == nil {
		cfg.readable = db.Readable
	}
	if err := makeDir(cfg.Dir); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	s := &Store{
		cfg: cfg, log: cfg.Log, now: cfg.Now, opened: time.Now(),
		asked: make(chan struct{}, mostAsked), changed: make(chan struct{}), claimed: make(map[string]struct{}), fatal: make(chan error, 1), stopped: make(chan struct{}),
		doubted: make(chan struct{}), again: make(chan error, 1),
	}
	s.plans.init()
	s.ends.path = filepath.Join(cfg.Dir, endsName)
	s.ballast.path, s.ballast.log, s.ballast.off = filepath.Join(cfg.Dir, ballastName), cfg.Log, cfg.noBallast
	s.damage.init()
	if err = s.restoreIfLost(ctx); (diskFull(err) || db.Full(err)) && s.ballast.release(err) {
		err = s.restoreIfLost(ctx)
	}
	if with, ok := errors.AsType[*beginsWith](err); ok {
		cfg.Log.Error("the database is damaged, and no copy takes its place: starting with it; run nvr rebuild -data "+cfg.Dir, "damage", with.damage, "err", with.err)
		s.damage.startsWith(with.damage)
		err = nil
	}
	if err != nil {
		if db.Poisoned(err) && !errors.Is(err, ErrPoisoned) {
			err = fmt.Errorf("%w: %w", ErrPoisoned, err)
		}
		return nil, err
	}
	dbConfig := db.Config{
		Path: filepath.Join(cfg.Dir, "db"), Log: cfg.Log, Now: cfg.Now, Progress: cfg.Progress, Full: s.ballast.release,
	}
	if s.db, err = cfg.openDB(ctx, dbConfig); db.Full(err) && s.ballast.release(err) {
		s.db, err = cfg.openDB(ctx, dbConfig)
	}
	if err != nil {
		if db.Poisoned(err) {
			err = fmt.Errorf("%w: %w", ErrPoisoned, err)
		}
		return nil, err
	}
	cfg.Progress()
	if s.ends.of(doubtEnds) > 0 {
		err := errors.Join(errDoubt, s.db.Close())
		s.settleDoubt()
		return nil, err
	}
	s.ballast.keep()
	defer func() {
		if err != nil {
			for _, d := range s.dirs {
				if d.dir != nil {
					d.dir.Close()
				}
			}
			if !errors.Is(err, ErrPoisoned) {
				s.db.Close()
			}
			if err = s.inDoubt(err); errors.Is(err, ErrPoisoned) {
				s.settleDoubt()
			}
		}
	}()
	now := media.TimeOf(s.now())
	start := now.Add(-media.DurationOf(time.Since(s.opened)))
	if s.open, err = s.db.BeginOpen(ctx, db.OpenRow{Start: max(1, start), BootID: cfg.bootID}); err != nil {
		return nil, s.verdict(fmt.Errorf("open data directory %s: %w", cfg.Dir, err))
	}
	past, err := s.readAges(ctx, []db.OpenRow{s.open})
	if err != nil {
		return nil, s.verdict(fmt.Errorf("open data directory %s: %w", cfg.Dir, err))
	}
	s.ages.Store(past)
	s.initClock(now, start)
	if err := s.load(ctx); err != nil {
		return nil, s.verdict(fmt.Errorf("open data directory %s: %w", cfg.Dir, err))
	}
	s.run, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	for _, d := range s.dirs {
		s.start(d)
	}
	s.running.Go(func() { s.serve(s.run) })
	s.running.Go(func() { s.watchClock(s.run) })
	s.running.Go(func() { s.watchDirs(s.run) })
	s.running.Go(func() { s.askAgain(s.run) })
	return s, nil
}

// start runs the goroutines of a directory.
func (s *Store) start(d *directory) {
	ctx, stop := context.WithCancel(s.run)
	d.stop, d.ended = stop, make(chan struct{})
	s.running.Go(func() {
		defer close(d.ended)
		defer stop()
		d.run(ctx)
	})
	s.running.Go(func() { d.copies(ctx) })
}

// load reads the configuration, opens the sample directories and adopts the
// files that have no row yet, where they are few. Its work grows with the number
// of streams.
func (s *Store) load(ctx context.Context) error {
	state, err := s.db.State(ctx)
	if err != nil {
		return err
	}
	if len(state.Dirs) == 0 {
		if err := s.db.ApplyConfig(ctx, &db.Change{Dirs: []db.Dir{{Path: defaultDir}}}); err != nil {
			return err
		}
		if state, err = s.db.State(ctx); err != nil {
			return err
		}
	}
	s.entries.load(state.Entries)
	if _, err := s.openDirs(ctx, state.Dirs); err != nil {
		return err
	}
	s.build(state)
	s.takeGoing(state.Deleted)
	s.discard(state.Garbage)
	for _, st := range s.allStreams() {
		if st.first, st.last, _, err = s.db.Range(ctx, st.id); err != nil {
			return err
		}
		if err := s.resume(ctx, st); err != nil {
			return err
		}
		found := st.found()
		if err := s.adoptFew(ctx, found); errors.Is(err, sampledir.ErrUnsynced) {
			st.dir.refuse(err)
			continue
		} else if err != nil {
			return err
		}
		st.takeOver(found)
	}
	if err = s.flush(ctx, "start"); db.Damaged(err) && !errors.Is(err, ErrPoisoned) {
		// Which is looked into while it records.
		s.log.Error("the start's flush failed; retrying in a minute", "err", err)
		s.plan(nil, earlierPlan, time.Now().Add(flushRetry))
		return nil
	}
	return err
}

// resume takes the ledger of a stream up where the database ends: since then
// the recorder was down, until the stream records or says why it does not.
func (s *Store) resume(ctx context.Context, st *Stream) error {
	end, _, err := s.db.LastGap(ctx, st.id)
	if err != nil {
		return err
	}
	st.until = max(st.last, end, st.cfg.OwedFrom)
	if st.here = st.until == 0; st.here {
		st.until = s.wall() // nothing is known of before
	}
	st.floor, st.began = st.until, st.until
	s.resumeClock(st)
	if st.owed = st.cfg.Record; st.owed {
		st.notes = []note{{cause: RecorderDown}}
		st.absence = Gap{Start: st.until, Cause: RecorderDown, Growing: true}
		st.planGaps()
	}
	return nil
}

// build makes cameras and streams of the rows, and keeps the streams that are
// there already.
func (s *Store) build(state *db.State) {
	old := make(map[int32]*Stream)
	type slot struct {
		camera int32
		typ    string
	}
	was := make(map[slot]*Stream)
	for _, c := range s.cameras {
		for _, st := range c.Streams {
			old[st.id] = st
			was[slot{c.ID, st.typ}] = st
		}
	}
	byCamera := make(map[int32]*Camera)
	s.cameras = s.cameras[:0:0]
	for _, c := range state.Cameras {
		cam := &Camera{ID: c.ID, UUID: c.UUID, Name: c.Name, Description: c.Description}
		byCamera[c.ID] = cam
		s.cameras = append(s.cameras, cam)
	}
	n := 0
	for _, row := range state.Streams {
		cam := byCamera[row.CameraID]
		st := old[row.ID]
		if st == nil {
			st = &Stream{
				store: s, id: row.ID, typ: row.Type, uuid: cam.UUID, name: new(name), dir: s.directory(row.DirID), cfg: row,
				nextNo: row.NextNo, cumMedia: row.CumMedia, cumRuns: row.CumRuns,
				committedNo: row.NextNo, createdNo: row.NextNo - 1,
				recordings: row.Recordings, bytes: row.Bytes, fsBytes: row.FSBytes, duration: row.Duration,
				state: State{Phase: Off, Since: s.wall()},
			}
			if gone := was[slot{cam.ID, row.Type}]; gone != nil {
				st.inherit(gone)
			}
		}
		st.name.Store(&cam.Name)
		st.mu.Lock()
		st.cfg = row
		st.owe(row.Record, row.OwedFrom, s.wall())
		if !row.Record {
			st.tellPresence(s.wall())
		}
		st.mu.Unlock()
		cam.Streams = append(cam.Streams, st)
		n++
	}
	order := []string{"main", "sub", "ext"}
	for _, c := range s.cameras {
		slices.SortFunc(c.Streams, func(a, b *Stream) int { return slices.Index(order, a.typ) - slices.Index(order, b.typ) })
	}
	s.streams.Store(int64(n))
}

func (s *Store) directory(id int32) *directory {
	for _, d := range s.dirs {
		if d.id == id {
			return d
		}
	}
	return nil
}

// Cameras returns the cameras by name.
func (s *Store) Cameras() []*Camera {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.cameras)
}

// Camera returns the camera with the uuid.
func (s *Store) Camera(uuid string) (*Camera, bool) {
	for _, c := range s.Cameras() {
		if strings.EqualFold(c.UUID, uuid) {
			return c, true
		}
	}
	return nil, false
}

func (s *Store) allStreams() []*Stream {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*Stream
	for _, c := range s.cameras {
		out = append(out, c.Streams...)
	}
	return out
}

// streamsIn returns the streams that record to a directory.
func (s *Store) streamsIn(d *directory) []*Stream {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*Stream
	for _, c := range s.cameras {
		for _, st := range c.Streams {
			if st.dir == d {
				out = append(out, st)
			}
		}
	}
	return out
}

// Changed is closed when the configuration changes. Take it before reading
// the configuration.
func (s *Store) Changed() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changed
}

// TimeZone is that of days.
func (s *Store) TimeZone() *time.Location { return s.cfg.TimeZone }

// OpenID is the number of this opening of the database.
func (s *Store) OpenID() int32 { return s.open.ID }

// UUID is that of the database.
func (s *Store) UUID() string { return s.db.UUID() }

// Fatal delivers an error of kind ErrPoisoned when one has happened. The
// process has to end then, without calling Close.
func (s *Store) Fatal() <-chan error { return s.fatal }

// Database is the database of the store, for package access, whose tables are in
// it. Nobody else may use it: what the other tables hold is the store's.
func (s *Store) Database() *db.DB { return s.db }

// DatabaseFailed takes an error of the database that Database's user got, and
// stops all writing when the error calls for that.
func (s *Store) DatabaseFailed(err error) { s.verdict(err) }

// poison stops all writing: what is written from now on could claim that
// something is durable which is not.
func (s *Store) poison(err error) {
	s.poisoned.Store(true)
	select {
	case s.fatal <- fmt.Errorf("%w: %w", ErrPoisoned, err):
	default:
	}
}

// verdict adds ErrPoisoned to an error of a write to the database that calls for
// it, and stops all writing then. Damage is noted.
func (s *Store) verdict(err error) error {
	if db.Poisoned(err) {
		s.poison(err)
		return fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	s.readVerdict(err)
	return err
}

// readVerdict is verdict on an error of a read: nothing was written that is in
// doubt now, but the database may be damaged.
func (s *Store) readVerdict(err error) {
	if db.Damaged(err) {
		s.suspect(err)
	}
}

// Close makes everything that was appended durable, commits it, and closes
// the database. All runs must have been ended. A disk that does not answer
// holds it up only until ctx is done; what it did not take is adopted or lost
// at the next start, as after a power cut. An error of kind ErrPoisoned, with
// the database closed all the same where it answers, says that a sync failed at the start: the
// next one has to see what is on the disk.
func (s *Store) Close(ctx context.Context) error {
	s.stop()
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(s.stopped)
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return s.inDoubt(fmt.Errorf("close store: a disk does not answer: %w", ctx.Err()))
	}
	closed := make(chan error, 1)
	go func() { closed <- s.finish(context.WithoutCancel(ctx)) }()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return s.inDoubt(fmt.Errorf("close store: the database does not answer: %w", ctx.Err()))
	}
}

// finish commits what is durable and lets go of everything.
func (s *Store) finish(ctx context.Context) error {
	var errs []error
	if err := s.lookAtClock(ctx); err != nil {
		errs = append(errs, err)
	}
	if err := s.flush(ctx, "stop"); err != nil {
		errs = append(errs, err)
	}
	for _, d := range s.dirs {
		if d.dir != nil {
			errs = append(errs, d.dir.Close())
		}
	}
	err := errors.Join(errs...)
	if s.poisoned.Load() || db.Poisoned(err) {
		err = s.verdict(err)
	} else {
		err = s.inDoubt(errors.Join(err, s.db.Close()))
	}
	if errors.Is(err, ErrPoisoned) {
		s.settleDoubt()
	}
	return err
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // not Linux, or no /proc: the open row goes without
	}
	return strings.TrimSpace(string(b))
}
