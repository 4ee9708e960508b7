package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store/internal/sampledir"
)

// ErrDatabaseLost: the database is damaged or missing, while sample directories
// hold footage of it, and there is no copy to go back to.
var ErrDatabaseLost = errors.New("the database is lost")

// restorer brings back the database of a data directory.
type restorer struct {
	data     string
	log      *slog.Logger
	progress func()
	at       func(point string) // of Config
	readable func(ctx context.Context, path string) error
	dirs     []*restoredDir // whose meta file is whole
	uuid     string         // of the database, as they name it

	loads bool              // what a start reads of the database can be read
	own   string            // what it calls itself, once lost has read it
	rows  map[string]db.Dir // of its sample directories, by UUID
}

type restoredDir struct {
	disk *sampledir.Disk
	path string
	meta sampledir.Meta
}

// candidate is a copy of the database.
type candidate struct {
	dir  *restoredDir // nil: file is a plain database
	file string
	b    sampledir.Backup

	rotten error // what is damaged in it, when that is nevertheless to be used
}

// restoreIfLost restores the database from the newest good copy in the sample
// directories when it is damaged or missing although a sample directory names
// it. A data directory that is new, and one that is well, are left as they are.
// For the cost of a start it looks only where a start looks, and at all of it
// when damage was seen before. That may take long, and it is said that it gets
// further. Where no copy takes its place, but a start can read what it needs, the error
// is a *beginsWith: the footage is what counts, and can be rebuilt from. A copy with
// damaged indexes is taken before none, and is damage that the start goes on with.
func (s *Store) restoreIfLost(ctx context.Context) error {
	return db.AtWork(s.cfg.Progress, func() error { return s.restoreAtWork(ctx) })
}

func (s *Store) restoreAtWork(ctx context.Context) error {
	cfg := &s.cfg
	r := &restorer{data: cfg.Dir, log: cfg.Log, progress: cfg.Progress, at: cfg.at, readable: cfg.readable}
	defer r.close()
	path := filepath.Join(cfg.Dir, "db")
	why, err := r.lost(ctx, path)
	if err != nil {
		return err
	}
	if err := r.open(); err != nil {
		return err
	}
	if len(r.dirs) == 0 {
		return nil // nothing was recorded, so nothing is lost
	}
	var own *db.OpenRow // the last of the database, where that is to be used
	if why == nil {
		if why, own, err = r.older(ctx, path); why == nil || err != nil {
			return err
		}
	}
	lock, err := db.Lock(path)
	if err != nil {
		return err
	}
	defer func() { lock.Close() }()
	rotten, err := s.restoreNewest(ctx, r, r.candidates(own), why)
	if err == nil || ctx.Err() != nil || db.Poisoned(err) || errors.Is(err, ErrPoisoned) {
		return err
	}
	if own != nil || r.loads {
		lock.Close() // to be taken by who opens it
	}
	switch {
	case own != nil && exists(path):
		return s.bringUp(ctx, r, why)
	case r.loads && exists(path):
		if older, last, err := r.older(ctx, path); last != nil && err == nil {
			if err := s.bringUp(ctx, r, older); err != nil {
				return err
			}
		}
		return &beginsWith{why, err}
	case !errors.Is(err, errBadCopy):
		return err
	}
	if len(rotten) > 0 {
		c := rotten[0]
		if err := s.restoreFrom(ctx, r, c, why); err != nil {
			return err
		}
		s.damage.startsWith(c.rotten)
		return s.leave(suspectName, c.rotten.Error()) // the next start shows it, too
	}
	return fmt.Errorf("%w: %s: %w; the footage in %s is there, and no copy of the database is: run nvr rebuild -data %s", ErrDatabaseLost, path, why, r.dirs[0].path, cfg.Dir)
}

// candidates are the copies of the database, the newest first; only those newer than
// own, unless that is nil.
func (r *restorer) candidates(own *db.OpenRow) []candidate {
	var all []candidate
	for _, d := range r.dirs {
		for _, b := range d.disk.Backups() {
			if b.DatabaseUUID == r.uuid && (own == nil || newer(b, own)) {
				all = append(all, candidate{dir: d, file: filepath.Join(d.path, b.Name), b: b})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		return -cmp.Or(cmp.Compare(a.b.Open, b.b.Open), cmp.Compare(a.b.Time, b.b.Time))
	})
	return all
}

// restoreNewest restores the newest candidate that is whole. It is errBadCopy when none
// is; rotten are then those that are better than none.
func (s *Store) restoreNewest(ctx context.Context, r *restorer, all []candidate, why error) (rotten []candidate, err error) {
	if len(all) > 0 {
		removeOldDamaged(r.data)
	}
	for _, c := range all {
		err := s.restoreFrom(ctx, r, c, why)
		if err == nil {
			os.Remove(filepath.Join(r.data, suspectName))
			return nil, nil
		}
		if ctx.Err() != nil || !errors.Is(err, errBadCopy) {
			return nil, err
		}
		r.log.Error("a copy of the database is not usable", "copy", c.file, "err", err)
		if errors.Is(err, db.ErrRotten) {
			c.rotten = err
			rotten = append(rotten, c)
		}
	}
	return rotten, errBadCopy
}

// bringUp brings the database, which is older than its directories, up to them.
func (s *Store) bringUp(ctx context.Context, r *restorer, why error) error {
	dropped, err := r.update(ctx, filepath.Join(r.data, "db"))
	if err != nil {
		return fmt.Errorf("database in %s: %w: %w", r.data, why, err)
	}
	s.log.Warn("database was older than its sample directories; what was recorded since comes in from the files", "cause", why, "rows_without_files", dropped)
	s.restored = fmt.Sprintf("the database had lost its newest part (%v): what was set then is gone, recordings come in from their files, and everybody has to sign in again", why)
	return nil
}

// restoreFrom restores a candidate and says so.
func (s *Store) restoreFrom(ctx context.Context, r *restorer, c candidate, why error) error {
	kept, dropped, err := r.restore(ctx, c)
	if err != nil {
		return fmt.Errorf("restore the database of %s from %s: %w", r.data, c.file, err)
	}
	s.log.Warn("database restored from a copy; what was recorded since comes in from the files", "cause", why,
		"copy", c.file, "made", media.Time(c.b.Time), "kept", kept, "rows_without_files", dropped)
	s.restored = fmt.Sprintf("the database was lost (%v) and is restored from its copy of %s: what was set since then is gone, recordings since then come in from their files, and everybody has to sign in again",
		why, media.Time(c.b.Time).Std().UTC().Format("2006-01-02 15:04 MST"))
	return nil
}

// beginsWith is that a database is damaged of which a start can read what it needs, and
// why no copy took its place.
type beginsWith struct{ damage, err error }

func (e *beginsWith) Error() string { return e.err.Error() }
func (e *beginsWith) Unwrap() error { return e.err }

// newer reports whether a copy was made after the last commit of a database whose
// last open this is.
func newer(b sampledir.Backup, last *db.OpenRow) bool {
	return b.Open > last.ID || b.Open == last.ID && media.Time(b.Time) > last.End
}

// startUnread is how long a start waits for a database that cannot be read: a disk
// may come to its senses, a copy is older than what it has.
const startUnread = 2 * time.Minute

// lost says what is wrong with a database, nil when nothing seems to be. Reads that
// fail look like damage; so that is believed of files that can be read from end to
// end, or cannot for minutes.
func (r *restorer) lost(ctx context.Context, path string) (why, err error) {
	readable := false
	var since time.Time // that it could not be read
	for {
		if why, err = r.look(ctx, path); why == nil || err != nil {
			return nil, err
		}
		if readable {
			return why, nil
		}
		unread := r.readable(ctx, path)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if readable = unread == nil; readable {
			continue // it may have been the disk, until just now
		}
		if since.IsZero() {
			since = time.Now()
			r.log.Error("the database cannot be read; waiting for its disk", "err", unread)
		}
		if time.Since(since) >= startUnread {
			return fmt.Errorf("it cannot be read: %w", unread), nil
		}
		r.progress()
		select {
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// look is lost without a second look.
func (r *restorer) look(ctx context.Context, path string) (why, err error) {
	r.loads = false
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("it is missing"), nil
	case err != nil:
		return nil, err
	case fi.Size() == 0:
		return errors.New("it is empty"), nil
	}
	d, err := db.Inspect(ctx, db.Config{Path: path})
	if err == nil {
		defer d.Close()
		if err = d.Load(ctx); err == nil {
			err = r.readEnds(ctx, d)
		}
	}
	if err == nil {
		r.loads = true
		suspect := filepath.Join(r.data, suspectName)
		if !exists(suspect) {
			return nil, nil
		}
		damage, err := damageOf(ctx, d)
		if db.Unread(err) {
			return err, nil
		} else if damage != nil || err != nil {
			return damage, err
		}
		return nil, os.Remove(suspect) // it has come to its senses
	}
	if db.Damaged(err) || db.Unread(err) {
		return err, nil
	}
	return nil, nil // what else is wrong is said when it is opened
}

// older says what of a database is older than a sample directory of it: the disk
// lost the newest part of its log, or somebody put an old copy in its place. last
// is its last open.
func (r *restorer) older(ctx context.Context, path string) (why error, last *db.OpenRow, err error) {
	for _, k := range r.dirs {
		row, ok := r.rows[k.meta.DirUUID]
		if ok && k.meta.CompleteOpen > row.LastCompleteOpen && k.meta.DatabaseUUID == r.own {
			why = fmt.Errorf("its last open is %d, sample directory %s knows of open %d", row.LastCompleteOpen, k.path, k.meta.CompleteOpen)
		}
	}
	if why == nil {
		return nil, nil, nil
	}
	d, err := db.Inspect(ctx, db.Config{Path: path})
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	last = new(db.OpenRow)
	err = d.Opens(ctx, func(o db.OpenRow) error { *last = o; return db.ErrStop })
	return why, last, err
}

// readEnds reads what a start reads of each stream.
func (r *restorer) readEnds(ctx context.Context, d *db.DB) error {
	state, err := d.State(ctx)
	if err != nil {
		return err
	}
	r.own, r.rows = d.UUID(), make(map[string]db.Dir)
	for _, row := range state.Dirs {
		r.rows[row.UUID] = row
	}
	for _, st := range slices.Concat(state.Streams, state.Deleted) {
		if _, _, _, err := d.Range(ctx, st.ID); err != nil {
			return err
		}
	}
	return nil
}

// Restore puts a copy of the database, as Backup makes it, in the place of the
// one in the data directory, and brings it up to the sample directories. The
// recorder must not run. It returns where the old one is.
func Restore(ctx context.Context, data, from string, log *slog.Logger) (kept string, err error) {
	r := &restorer{data: data, log: log, progress: func() {}}
	defer r.close()
	lock, err := db.Lock(filepath.Join(data, "db"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := r.open(); err != nil {
		return "", err
	}
	if len(r.dirs) == 0 {
		return "", fmt.Errorf("%s has no sample directory that says whose it is", data)
	}
	c := candidate{file: from}
	kept, _, err = r.restore(ctx, c)
	if errors.Is(err, db.ErrRotten) { // who gives it has no better one
		log.Warn("the copy is damaged; run nvr rebuild when what it knows has been noted", "copy", from, "err", err)
		c.rotten = err
		kept, _, err = r.restore(ctx, c)
	}
	return kept, err
}

// open opens the sample directories. Those of another database than the first
// names are left out.
func (r *restorer) open() error {
	for _, p := range knownDirs(r.data) {
		path := resolvePath(r.data, p)
		disk, err := sampledir.OpenDisk(path)
		if err != nil {
			continue // it is said when the store opens it
		}
		m, err := disk.ReadMeta()
		if err != nil || r.uuid != "" && m.DatabaseUUID != r.uuid {
			disk.Close()
			continue
		}
		r.uuid = m.DatabaseUUID
		r.dirs = append(r.dirs, &restoredDir{disk: disk, path: path, meta: m})
	}
	return nil
}

func (r *restorer) close() {
	for _, d := range r.dirs {
		d.disk.Close()
	}
}

// errBadCopy: another copy may do.
var errBadCopy = errors.New("bad copy")

// restore makes a database of a copy, brings it up to the directories, and puts
// it in its place. All is done beside it, so that after a power cut the next
// start begins again.
func (r *restorer) restore(ctx context.Context, c candidate) (kept string, dropped int, err error) {
	path := filepath.Join(r.data, "db.restoring")
	removeDatabase(path, false)
	defer func() {
		if err != nil {
			removeDatabase(path, false)
		}
	}()
	if err := r.copyOut(c, path); err != nil {
		return "", 0, err
	}
	passed(r.at, "copied")
	if _, err := db.Verify(ctx, path, r.uuid); err != nil && (c.rotten == nil || !errors.Is(err, db.ErrRotten)) {
		return "", 0, fmt.Errorf("%w: %w", errBadCopy, err)
	}
	r.progress()
	if dropped, err = r.update(ctx, path); err != nil {
		return "", 0, err
	}
	if err := syncFile(path); err != nil {
		return "", 0, err
	}
	kept, err = replaceDatabase(r.data, path, r.at)
	return kept, dropped, err
}

// update brings a database, which it opens, up to the directories.
func (r *restorer) update(ctx context.Context, path string) (dropped int, err error) {
	d, err := db.Open(ctx, db.Config{Path: path, Log: r.log, NoCopy: true})
	if err != nil {
		return 0, err
	}
	passed(r.at, "opened")
	m, err := r.since(ctx, d)
	if err == nil {
		err = d.Mend(ctx, m)
	}
	if err == nil {
		passed(r.at, "mended")
		err = d.Checkpoint(ctx)
	}
	if db.Poisoned(err) {
		return 0, fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	if err := errors.Join(err, d.Close()); err != nil {
		return 0, err
	}
	return len(m.Drop), nil
}

// copyOut copies a candidate to path.
func (r *restorer) copyOut(c candidate, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	passed(r.at, "copy begun")
	if c.dir == nil {
		from, err := os.Open(c.file)
		if err != nil {
			return err
		}
		defer from.Close()
		if _, err := io.Copy(f, from); err != nil {
			return err
		}
		return f.Sync()
	}
	full := false // of our own disk, which another copy does not mend
	w := writerFunc(func(b []byte) (int, error) {
		n, err := f.Write(b)
		full = full || err != nil
		return n, err
	})
	if err := c.dir.disk.ReadBackup(c.b, w, func() error { r.progress(); return nil }); err != nil {
		if !full {
			err = fmt.Errorf("%w: %w", errBadCopy, err)
		}
		return err
	}
	return f.Sync()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// since says what has happened to the directories since the copy was made:
//
//   - opens have gone by, of which files and directories speak, so that the next
//     one gets a number of its own;
//   - files of rows are gone: retention has deleted them;
//   - the first files behind a stream's next number may be gone, too, so that
//     adoption has to begin at the first that is there;
//   - behind them numbers may have no file, more than adoption looks beyond, which
//     only the lost database knew of: empty files bridge them;
//   - streams may have come, whose numbers must not be given again;
//   - sessions may have been revoked, which of them nobody knows: all end.
func (r *restorer) since(ctx context.Context, d *db.DB) (*db.Mend, error) {
	state, err := d.State(ctx)
	if err != nil {
		return nil, err
	}
	m := &db.Mend{NextNo: make(map[int32]int32), Totals: true, EndSessions: true}
	last := int32(0)
	if err := d.Opens(ctx, func(o db.OpenRow) error { last = o.ID; return db.ErrStop }); err != nil {
		return nil, err
	}
	newest := last
	opens, placed := make(map[int32]db.OpenRow), make(anchorsOf)
	unknown := make(map[int32]bool)
	for _, k := range r.dirs {
		newest = max(newest, k.meta.CompleteOpen, k.meta.InProgressOpen)
		i := slices.IndexFunc(state.Dirs, func(row db.Dir) bool { return row.UUID == k.meta.DirUUID })
		if i < 0 {
			r.log.Error("sample directory came after the copy of the database; its recordings are not listed until a rebuild", "dir", k.path)
			continue
		}
		row := state.Dirs[i]
		if oldCopy(k.meta, row) {
			r.log.Error("sample directory is an old copy; rows are not held to its files", "dir", k.path)
			continue // what it lacks may be on the disk that it was made of
		}
		if k.meta.CompleteOpen > row.LastCompleteOpen {
			m.Complete = append(m.Complete, db.Dir{ID: row.ID, LastCompleteOpen: k.meta.CompleteOpen})
		}
		ids, _, err := k.disk.List(func(int) { r.progress() })
		if err != nil {
			return nil, err
		}
		of := func(st *db.Stream) []int64 {
			first, _ := slices.BinarySearch(ids, db.CompositeID(st.ID, 0))
			end, _ := slices.BinarySearch(ids, db.CompositeID(st.ID+1, 0))
			return ids[first:end]
		}
		for _, st := range state.Deleted {
			if err := r.dropped(ctx, d, &st, row.ID, of(&st), m); err != nil {
				return nil, err
			}
		}
		for _, st := range state.Streams {
			files := of(&st)
			if err := r.dropped(ctx, d, &st, row.ID, files, m); err != nil {
				return nil, err
			}
			if st.DirID != row.ID {
				continue
			}
			next, _ := slices.BinarySearch(files, db.CompositeID(st.ID, st.NextNo))
			since := files[next:]
			if len(since) > 0 {
				_, no := db.SplitID(since[0])
				m.NextNo[st.ID] = no
				if err := bridge(k.disk, since); err != nil {
					r.log.Error("files behind numbers without any are not listed until a rebuild", "dir", k.path, "stream", st.ID, "err", err)
				}
			}
			newestOfOpens(k.disk, since, r.uuid, last, r.progress, func(a *mp4.About) {
				newest = max(newest, a.OpenID)
				start, ran := media.Time(max(1, a.StartTime90k-a.SinceOpen90k)), media.Duration(0)
				if a.OpenStart90k != 0 {
					// Later files know better: the clock may have been set.
					start, ran = media.Time(a.OpenStart90k), media.Duration(a.SinceOpen90k)
				}
				for _, o := range a.OpensBefore {
					placed.of(o.OpenID).take(a, o.Start90k)
				}
				if o, ok := opens[a.OpenID]; !ok || ran > o.Duration || ran == o.Duration && start < o.Start {
					opens[a.OpenID] = db.OpenRow{ID: a.OpenID, UUID: a.OpenUUID, Start: start, End: start.Add(ran), Duration: ran}
				}
			})
		}
		for _, id := range ids {
			streamID, _ := db.SplitID(id)
			m.LastStream = max(m.LastStream, streamID)
			if !slices.ContainsFunc(slices.Concat(state.Streams, state.Deleted), func(st db.Stream) bool { return st.ID == streamID }) {
				unknown[streamID] = true
			}
		}
	}
	if len(unknown) > 0 {
		r.log.Error("there are files of streams that came after the copy of the database, or were deleted; they are not listed until a rebuild", "streams", len(unknown))
	}
	for id := last + 1; id <= newest; id++ {
		o := opens[id]
		o.ID = id
		if k := placed[id]; k != nil {
			o.Start, o.End = k.start, k.start.Add(o.Duration)
		}
		m.Opens = append(m.Opens, o)
	}
	return m, nil
}

// mostBridged is the longest row of numbers without a file that is bridged: more
// than any disk fault has left.
const mostBridged = 1 << 16

// bridge makes empty files, so that no more numbers of a stream in a row are
// without one than adoption looks beyond. They become garbage with it.
func bridge(disk sampledir.Dir, ids []int64) error {
	made := false
	for i, id := range ids[1:] {
		prev := ids[i]
		if id-prev > mostBridged {
			return fmt.Errorf("behind recording %s the next is %s", idString(prev), idString(id))
		}
		for prev += probeAhead; prev < id; prev += probeAhead {
			f, err := disk.Create(prev)
			if err != nil {
				return err
			}
			f.Close()
			made = true
		}
	}
	if made {
		return disk.Sync()
	}
	return nil
}

// newestOfOpens calls f with what the last file of a stream under each open says
// of itself, the newest open first, as far as they are behind one. Of a day of
// files that is a few: numbers and opens rise together. A file that says nothing
// is left out; adoption judges it.
func newestOfOpens(disk sampledir.Dir, ids []int64, uuid string, behind int32, progress func(), f func(*mp4.About)) {
	read := func(i int) (mp4.About, bool) {
		progress()
		a, _, err := beginning(disk, ids[i])
		return a, err == nil && a.DatabaseUUID == uuid && a.ID() == ids[i]
	}
	for i := len(ids) - 1; i >= 0; i-- {
		a, ok := read(i)
		if !ok {
			continue
		}
		if a.OpenID <= behind {
			return
		}
		f(&a)
		if a.OpenStart90k == 0 {
			continue // the one before may know better
		}
		i = sort.Search(i, func(n int) bool {
			for ; n < i; n++ {
				if b, ok := read(n); ok {
					return b.OpenID >= a.OpenID
				}
			}
			return true
		})
	}
}

// dropped finds the rows of a stream in a directory whose files are gone.
func (r *restorer) dropped(ctx context.Context, d *db.DB, st *db.Stream, dirID int32, ids []int64, m *db.Mend) error {
	return d.RecordingsByNo(ctx, st.ID, 0, st.NextNo, func(row *db.Recording) error {
		if row.DirID == dirID {
			if _, ok := slices.BinarySearch(ids, row.ID); !ok {
				m.Drop = append(m.Drop, row.ID)
			}
		}
		r.progress()
		return nil
	})
}

// beginning reads what a sample file says of itself, and its size.
func beginning(disk sampledir.Dir, id int64) (a mp4.About, size int64, err error) {
	f, err := disk.Open(id)
	if err != nil {
		return a, 0, err
	}
	defer f.Close()
	if size, err = f.Size(); err != nil {
		return a, 0, err
	}
	sf, err := mp4.ReadSampleFile(f, min(size, 64<<10))
	if errors.Is(err, mp4.ErrNotSampleFile) && size > 64<<10 {
		sf, err = mp4.ReadSampleFile(f, min(size, initBytes))
	}
	if err != nil {
		return a, size, err
	}
	return sf.About, size, nil
}

// removeOldDamaged leaves the newest of the databases that were put aside, so
// that a disk that damages one after the other does not fill with them.
func removeOldDamaged(data string) {
	path := filepath.Join(data, "db.damaged-")
	for i := range lastDamaged(data) {
		os.Remove(fmt.Sprint(path, i))
		os.Remove(fmt.Sprint(path, i, "-wal"))
	}
}
