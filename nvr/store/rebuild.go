package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store/internal/sampledir"
)

// RebuildConfig says what to make a database of.
type RebuildConfig struct {
	Dir  string   // the data directory
	Dirs []string // sample directories outside of it; none: those it had when the recorder last ran
	Log  *slog.Logger

	Found    func(Finding) // a file or directory that is left out, and why
	Progress func(RebuildProgress)

	at func(point string) // as that of Config
}

// RebuildProgress is how far a rebuild is.
type RebuildProgress struct {
	Files, TotalFiles int
	Bytes             int64
}

// RebuildResult is what became of it.
type RebuildResult struct {
	Cameras, Recordings int
	Streams             []string // by name: each needs its URL again
	Bytes               int64
	LeftOut             int
	TornBytes           int64
	Kept                string // where the old database is, "" when there was none
}

// slackAfterRebuild is what a stream may take beyond what it has, so that what
// the next start adopts pushes nothing out.
const slackAfterRebuild = 1 << 30

// rowsAtOnce is how many rows a rebuild commits together.
const rowsAtOnce = 256

// rebuilder is a rebuild under way.
type rebuilder struct {
	cfg RebuildConfig
	s   *Store // never opened: it lends adoption its parts
	db  *db.DB
	res RebuildResult

	uuid    string // of the database
	dirs    []*rebuiltDir
	files   []rebuiltFile // by id
	opens   map[int32]*db.OpenRow
	anchors anchorsOf
	fresh   map[int32]bool // opens that have no row yet
	batch   db.Batch
	streams map[int32]*rebuiltStream
}

type rebuiltDir struct {
	row   db.Dir
	path  string
	disk  *sampledir.Disk
	meta  sampledir.Meta
	known bool // its meta file is whole
	block int64
}

type rebuiltFile struct {
	id  int64
	dir *rebuiltDir
}

// anchors are what the files of an open say of its beginning: more than one when
// its clock was set. The one of the last file is right.
type anchors struct {
	start  media.Time
	openID int32          // of that file
	since  media.Duration // when it was begun
	files  []anchored
}

type anchorsOf map[int32]*anchors // by open

func (m anchorsOf) of(openID int32) *anchors {
	if m[openID] == nil {
		m[openID] = new(anchors)
	}
	return m[openID]
}

// take takes over what a file says, unless a later one has said it.
func (k *anchors) take(a *mp4.About, start90k int64) {
	since := media.Duration(a.SinceOpen90k)
	if a.OpenID > k.openID || a.OpenID == k.openID && since >= k.since {
		k.start, k.openID, k.since = media.Time(start90k), a.OpenID, since
	}
}

// anchored are recordings of a stream that follow each other and whose files
// have one anchor.
type anchored struct {
	streamID, first, last int32
	start                 media.Time
}

// rebuiltStream goes through the files of a stream.
type rebuiltStream struct {
	about mp4.About // of its newest file
	row   db.Stream
	name  string
	dir   *rebuiltDir
	last  *readFile // waits for the next one, which says when it ended
	empty []db.Garbage
}

// readFile is a recording as its file tells it.
type readFile struct {
	rec  *recording
	dir  *rebuiltDir
	torn int64 // bytes behind the last whole fragment
	cut  bool  // or behind where another file goes on, see reconcile
}

// Rebuild makes a database of the sample directories alone and puts it in the
// place of the old one, which is kept. What files do not say of themselves
// does not come back: URLs, passwords, limits, and whether to record.
// The recorder must not run. ErrPoisoned, and nothing is done, while what is read
// of the files may not be on the disk.
func Rebuild(ctx context.Context, cfg RebuildConfig) (res RebuildResult, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil { // as Dirs are, with which it is compared
		return res, err
	}
	if _, err := os.Stat(cfg.Dir); err != nil {
		return res, err
	}
	lock, err := db.Lock(filepath.Join(cfg.Dir, "db"))
	if err != nil {
		return res, err
	}
	defer lock.Close()
	ends := endings{path: filepath.Join(cfg.Dir, endsName)}
	if ends.of(doubtEnds) > 0 {
		return res, fmt.Errorf("%w; restart the machine, or drop its page cache, and remove %s", errDoubt, ends.path)
	}
	r := &rebuilder{
		cfg: cfg, s: &Store{cfg: Config{Dir: cfg.Dir}, log: cfg.Log},
		opens: make(map[int32]*db.OpenRow), anchors: make(anchorsOf), fresh: make(map[int32]bool), streams: make(map[int32]*rebuiltStream),
	}
	defer func() {
		for _, d := range r.dirs {
			d.disk.Close()
		}
	}()
	if err := r.list(); err != nil {
		return r.res, err
	}
	if err := r.newest(); err != nil {
		return r.res, err
	}
	path := filepath.Join(cfg.Dir, "db.rebuilding")
	removeDatabase(path, false)
	defer func() {
		if err != nil {
			removeDatabase(path, false)
		}
	}()
	if err := r.fill(ctx, path); err != nil {
		return r.res, err
	}
	passed(cfg.at, "filled")
	if _, err := db.Verify(ctx, path, r.uuid); err != nil {
		return r.res, err
	}
	for _, d := range r.dirs {
		if !d.known {
			if err := d.disk.ReplaceMeta(d.meta); err != nil {
				return r.res, err
			}
		}
	}
	r.res.Kept, err = replaceDatabase(cfg.Dir, path, cfg.at)
	return r.res, err
}

func (r *rebuilder) leaveOut(what, object, format string, args ...any) {
	r.res.LeftOut++
	r.cfg.Found(Finding{What: what, Object: object, Why: fmt.Sprintf(format, args...)})
}

// list opens the directories and finds their files. All must be of one
// database.
func (r *rebuilder) list() error {
	for _, p := range knownDirs(r.cfg.Dir, r.cfg.Dirs...) {
		d := &rebuiltDir{path: resolvePath(r.cfg.Dir, p), row: db.Dir{Path: p}, block: 4096}
		disk, err := sampledir.OpenDisk(d.path)
		if errors.Is(err, fs.ErrNotExist) && p == defaultDir {
			continue
		}
		if err != nil {
			return err
		}
		d.disk = disk
		r.dirs = append(r.dirs, d)
		if sp, err := disk.Space(); err == nil && sp.BlockSize > 0 {
			d.block = sp.BlockSize
		}
		d.meta, err = disk.ReadMeta()
		switch {
		case err == nil:
			d.known = true
			if r.uuid != "" && r.uuid != d.meta.DatabaseUUID {
				return fmt.Errorf("sample directory %s is of database %s, others are of %s; rebuild each installation for itself", d.path, d.meta.DatabaseUUID, r.uuid)
			}
			r.uuid = d.meta.DatabaseUUID
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, sampledir.ErrMeta):
			return err
		}
		for _, o := range r.dirs[:len(r.dirs)-1] {
			if d.known && o.known && o.meta.DirUUID == d.meta.DirUUID {
				return fmt.Errorf("sample directories %s and %s are the same one, or one is a copy", o.path, d.path)
			}
		}
		ids, foreign, err := disk.List(func(n int) { r.cfg.Progress(RebuildProgress{}) })
		if err != nil {
			return err
		}
		for _, name := range foreign {
			r.leaveOut("directory", d.path, "%s is not of the recorder; it is left alone", name)
		}
		for _, id := range ids {
			r.files = append(r.files, rebuiltFile{id, d})
		}
	}
	if len(r.dirs) == 0 {
		return fmt.Errorf("%s has no sample directory; name them with -dir", r.cfg.Dir)
	}
	slices.SortStableFunc(r.files, func(a, b rebuiltFile) int {
		switch {
		case a.id < b.id:
			return -1
		case a.id > b.id:
			return 1
		}
		return 0
	})
	return nil
}

// initBytes is enough of a sample file for what it says of itself.
const initBytes = 2 << 20

// about reads the beginning of a file.
func (r *rebuilder) about(f rebuiltFile) (mp4.About, error) {
	file, err := f.dir.disk.Open(f.id)
	if err != nil {
		return mp4.About{}, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return mp4.About{}, err
	}
	sf, err := mp4.ReadSampleFile(file, min(size, initBytes))
	if err != nil {
		return mp4.About{}, err
	}
	if sf.About.ID() != f.id {
		return mp4.About{}, fmt.Errorf("it says that it is recording %s", idString(sf.About.ID()))
	}
	return sf.About, nil
}

// newest reads the newest file of each stream, which knows the names best.
func (r *rebuilder) newest() error {
	for i := len(r.files) - 1; i >= 0; i-- {
		f := r.files[i]
		id, _ := db.SplitID(f.id)
		if r.streams[id] != nil {
			continue
		}
		a, err := r.about(f)
		if err != nil {
			continue // said when its turn comes
		}
		if r.uuid == "" {
			r.uuid = a.DatabaseUUID
		}
		if a.DatabaseUUID == r.uuid {
			r.streams[id] = &rebuiltStream{about: a, dir: f.dir}
		}
	}
	if r.uuid == "" {
		return errors.New("no sample directory and no sample file says which database it is of; there is nothing to rebuild")
	}
	return nil
}

// fill makes the new database.
func (r *rebuilder) fill(ctx context.Context, path string) error {
	d, err := db.Open(ctx, db.Config{Path: path, Log: r.cfg.Log})
	if err != nil {
		return err
	}
	r.db = d
	err = func() error {
		if err := r.begin(ctx); err != nil {
			return err
		}
		for i := range r.files {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := r.file(ctx, i); err != nil {
				return err
			}
			r.cfg.Progress(RebuildProgress{Files: i + 1, TotalFiles: len(r.files), Bytes: r.res.Bytes})
		}
		for _, st := range r.ordered() {
			if err := r.emit(ctx, st, nil); err != nil {
				return err
			}
		}
		if err := r.flush(ctx); err != nil {
			return err
		}
		if err := r.place(ctx); err != nil {
			return err
		}
		return r.finish(ctx)
	}()
	return errors.Join(err, d.Close())
}

// ordered returns the streams by their ids.
func (r *rebuilder) ordered() (out []*rebuiltStream) {
	for _, st := range r.streams {
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b *rebuiltStream) int { return int(a.about.StreamID) - int(b.about.StreamID) })
	return out
}

// begin inserts directories, cameras and streams. A camera gets its id from
// the order of its streams.
func (r *rebuilder) begin(ctx context.Context) error {
	m := &db.Mend{UUID: r.uuid}
	for i, d := range r.dirs {
		d.row.ID = int32(i + 1)
		if d.known {
			d.row.UUID = d.meta.DirUUID
			// So that the directory and this database are of the same time.
			d.row.LastCompleteOpen = max(d.meta.CompleteOpen, 0)
			for _, id := range []int32{d.meta.CompleteOpen, d.meta.InProgressOpen} {
				if id > 0 {
					r.noteOpen(db.OpenRow{ID: id})
				}
			}
		}
	}
	taken := make(map[string]bool)  // names
	have := make(map[string]int32)  // cameras by uuid
	types := make(map[[2]any]int32) // streams by camera and type
	streams := r.ordered()
	slices.Reverse(streams) // where two streams are one of a camera, the later is
	for _, st := range streams {
		key := [2]any{st.about.CameraUUID, st.about.Stream}
		if newer, twice := types[key]; twice {
			r.cfg.Found(Finding{What: "stream", Object: fmt.Sprint(st.about.StreamID), Note: true,
				Why: fmt.Sprintf("it was replaced by stream %d; its recordings are in a camera of their own", newer)})
			st.about.CameraUUID = ""
			st.about.CameraName = fmt.Sprintf("%s (stream %d)", st.about.CameraName, st.about.StreamID)
			continue
		}
		types[key] = st.about.StreamID
	}
	for _, st := range r.ordered() {
		a := &st.about
		camera, ok := have[a.CameraUUID]
		if !ok || a.CameraUUID == "" {
			camera = int32(len(m.Cameras) + 1)
			name := r.cameraName(a.CameraUUID, a.CameraName)
			for n := 2; taken[name]; n++ {
				name = fmt.Sprintf("%s (%d)", a.CameraName, n)
			}
			taken[name] = true
			have[a.CameraUUID] = camera
			m.Cameras = append(m.Cameras, db.Camera{ID: camera, UUID: a.CameraUUID, Name: name})
		}
		st.name = m.Cameras[camera-1].Name + " " + a.Stream
		st.row = db.Stream{ID: a.StreamID, CameraID: camera, Type: a.Stream, DirID: st.dir.row.ID, Transport: "tcp",
			FlushIfSec: defaultFlushIfSec}
		m.Streams = append(m.Streams, st.row)
		r.res.Streams = append(r.res.Streams, st.name)
	}
	r.res.Cameras = len(m.Cameras)
	m.Opens = r.newOpens()
	for _, d := range r.dirs {
		m.Dirs = append(m.Dirs, d.row)
	}
	if err := r.db.Mend(ctx, m); err != nil {
		return err
	}
	// Directories without a meta file have been given a uuid.
	state, err := r.db.State(ctx)
	if err != nil {
		return err
	}
	for i, d := range r.dirs {
		if !d.known {
			d.row.UUID = state.Dirs[i].UUID
			d.meta = sampledir.Meta{DatabaseUUID: r.uuid, DirUUID: d.row.UUID}
		}
	}
	return nil
}

// cameraName is the name in the newest of the newest files of a camera.
func (r *rebuilder) cameraName(uuid, name string) string {
	var at int64
	for _, st := range r.streams {
		if uuid != "" && st.about.CameraUUID == uuid && st.about.StartTime90k > at {
			at, name = st.about.StartTime90k, st.about.CameraName
		}
	}
	if name == "" {
		name = "camera"
	}
	return name
}

// noteOpen keeps what is known of an open.
func (r *rebuilder) noteOpen(o db.OpenRow) *db.OpenRow {
	k := r.opens[o.ID]
	if k == nil {
		k = &o
		r.opens[o.ID] = k
		r.fresh[o.ID] = true
		return k
	}
	if k.UUID == "" && o.UUID != "" {
		k.UUID = o.UUID
		r.fresh[o.ID] = true
	}
	if o.Start != 0 && (k.Start == 0 || o.Start < k.Start) {
		k.Start = o.Start
	}
	k.End = max(k.End, o.End)
	k.Duration = max(k.Duration, o.Duration)
	return k
}

// noteAnchor keeps what a file says of the beginning of its open.
func (r *rebuilder) noteAnchor(a *mp4.About) {
	if a.OpenStart90k == 0 {
		return
	}
	for _, o := range a.OpensBefore {
		r.anchors.of(o.OpenID).take(a, o.Start90k)
	}
	k := r.anchors.of(a.OpenID)
	k.take(a, a.OpenStart90k)
	start := media.Time(a.OpenStart90k)
	if n := len(k.files); n > 0 {
		if f := &k.files[n-1]; f.streamID == a.StreamID && f.start == start {
			f.last = a.RecordingNo
			return
		}
	}
	k.files = append(k.files, anchored{a.StreamID, a.RecordingNo, a.RecordingNo, start})
}

// place moves the recordings of opens whose clock was set to where they belong.
func (r *rebuilder) place(ctx context.Context) error {
	for id, k := range r.anchors {
		o := r.opens[id]
		if o == nil {
			continue // nothing is left of it
		}
		o.Start = k.start
		o.End = max(k.start.Add(o.Duration), o.End)
		m := &db.Move{Opens: []db.OpenRow{*o}}
		for _, f := range k.files {
			if by := k.start.Sub(f.start); by != 0 {
				m.Streams = append(m.Streams, db.StreamMove{ID: f.streamID, First: f.first, Next: f.last + 1, By: by})
			}
		}
		if len(m.Streams) == 0 {
			continue
		}
		r.cfg.Log.Info("clock was set during an open; what was recorded before was moved", "open", id, "start", k.start)
		if err := r.db.Move(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// newOpens returns the opens that are to be inserted.
func (r *rebuilder) newOpens() (rows []db.OpenRow) {
	for id := range r.fresh {
		rows = append(rows, *r.opens[id])
	}
	slices.SortFunc(rows, func(a, b db.OpenRow) int { return int(a.ID - b.ID) })
	clear(r.fresh)
	return rows
}

// file reads one file and gives the one before it its row.
func (r *rebuilder) file(ctx context.Context, i int) error {
	f := r.files[i]
	name := filepath.Join(f.dir.path, sampledir.Name(f.id))
	streamID, no := db.SplitID(f.id)
	st := r.streams[streamID]
	if st == nil {
		r.leaveOut("file", name, "%s", r.why(f))
		return nil
	}
	got, err := r.read(st, f, no)
	if err != nil {
		r.leaveOut("file", name, "%v; it is left alone", err)
		return nil
	}
	if got == nil {
		st.empty = append(st.empty, db.Garbage{DirID: f.dir.row.ID, ID: f.id})
		return nil
	}
	if st.last != nil && st.last.rec.no == no {
		// A copy. The later open wrote the right one; else the longer one.
		a, b := st.last, got
		if b.rec.open.ID > a.rec.open.ID || b.rec.open.ID == a.rec.open.ID && b.rec.size > a.rec.size {
			st.last = b
			a, b = b, a
		}
		r.leaveOut("file", filepath.Join(b.dir.path, sampledir.Name(f.id)), "there is a better one of the same recording in %s; it is left alone", a.dir.path)
		return nil
	}
	if !st.reconcile(got) {
		return nil
	}
	return r.emit(ctx, st, got)
}

// reconcile does what adoption does with a file that holds again what those
// before it held, and reports whether there is anything left of it. The one
// before waits for its row still; those before that one have been cut.
func (st *rebuiltStream) reconcile(next *readFile) bool {
	w := next.rec.rewrites
	if st.last == nil || !next.rec.repeats(st.last.rec) {
		return true
	}
	last := st.last.rec
	empty := func(f *readFile) {
		st.empty = append(st.empty, db.Garbage{DirID: f.dir.row.ID, ID: f.rec.id()})
	}
	if last.reach(w) > next.rec.reach(w) {
		empty(next)
		return false
	}
	size := last.size
	if last.no == w.RecordingNo && (last.cutAt(w.From90k) || len(last.taken) > 0) {
		st.last.torn += size - last.size
		st.last.cut = size > last.size
		return true
	}
	empty(st.last)
	st.last = nil
	return true
}

// why says what is wrong with a file of no stream.
func (r *rebuilder) why(f rebuiltFile) string {
	a, err := r.about(f)
	if err == nil && a.DatabaseUUID != r.uuid {
		err = fmt.Errorf("it belongs to another installation (database %s, ours is %s)", a.DatabaseUUID, r.uuid)
	}
	return fmt.Sprintf("%v; it is left alone", err)
}

// read makes a recording of a file as adoption does; nil when nothing is in it.
func (r *rebuilder) read(st *rebuiltStream, f rebuiltFile, no int32) (*readFile, error) {
	file, err := f.dir.disk.Open(f.id)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil || size == 0 {
		return nil, err
	}
	r.res.Bytes += size
	sf, err := mp4.ReadSampleFile(file, size)
	if err != nil {
		return nil, err
	}
	a := &sf.About
	switch {
	case a.DatabaseUUID != r.uuid:
		return nil, fmt.Errorf("it belongs to another installation (database %s, ours is %s)", a.DatabaseUUID, r.uuid)
	case a.ID() != f.id:
		return nil, fmt.Errorf("it says that it is recording %s", idString(a.ID()))
	case a.OpenID <= 0:
		return nil, fmt.Errorf("it was written under open %d", a.OpenID)
	case len(sf.Fragments) == 0:
		return nil, nil
	}
	open := r.noteOpen(db.OpenRow{ID: a.OpenID, UUID: a.OpenUUID, Start: media.Time(max(1, a.StartTime90k-a.SinceOpen90k))})
	if open.UUID != a.OpenUUID {
		return nil, fmt.Errorf("it was written under open %d with uuid %s, others under %s", a.OpenID, a.OpenUUID, open.UUID)
	}
	r.noteAnchor(a)
	dir := &directory{id: f.dir.row.ID}
	dir.blockSize.Store(f.dir.block)
	rec := &recording{
		st: &Stream{store: r.s, id: a.StreamID, dir: dir},
		no: no, recovered: true, created: true, sealed: true, settled: true,
	}
	if err := rec.restore(r.s, sf); err != nil {
		return nil, err
	}
	// What went before it is known from the file alone.
	rec.follows = rec.runOffset > 0
	rec.prevMedia, rec.prevRuns = media.Duration(a.PrevMediaDuration90k), a.PrevRuns
	open.End = max(open.End, rec.start.Add(rec.mediaDuration()))
	open.Duration = max(open.Duration, rec.sinceOpen+rec.mediaDuration())
	return &readFile{rec: rec, dir: f.dir, torn: size - sf.Good}, nil
}

// emit gives the waiting recording of a stream its row, now that next, the one
// behind it, is known; nil when there is none.
func (r *rebuilder) emit(ctx context.Context, st *rebuiltStream, next *readFile) error {
	f := st.last
	st.last = next
	if f == nil {
		return nil
	}
	rec := f.rec
	goesOn := next != nil && next.rec.runOffset == rec.runOffset+1 && next.rec.open.ID == rec.open.ID && next.rec.no == rec.no+1
	if goesOn {
		// Within a run the next start is this one's end, to the unit.
		rec.localStart = rec.start + media.Time(next.rec.start.Sub(rec.start)-rec.mediaDuration())
		if f.torn > 0 && !f.cut {
			r.cfg.Found(Finding{What: "file", Object: filepath.Join(f.dir.path, sampledir.Name(rec.id())),
				Why: fmt.Sprintf("it is damaged in its middle; what is behind byte %d has no row", rec.size)})
		}
	} else {
		if rec.endReason == "" {
			rec.endReason = reasonUnclean
		}
	}
	if f.torn > 0 && (f.cut || !goesOn) {
		// As adoption would: nothing that counts is behind it.
		if err := cutFile(f.dir.disk, rec.id(), rec.size); err != nil {
			return err
		}
		r.res.TornBytes += f.torn
	}
	// A file may have been begun when less was known to be before it: behind what
	// was adopted, or was written again.
	rec.prevMedia = max(rec.prevMedia, st.row.CumMedia)
	row := rec.row()
	entries, _ := r.s.entries.unsaved()
	b := &r.batch
	b.Discard = append(b.Discard, st.emptyBefore(rec.id())...)
	st.row.NextNo = rec.no + 1
	st.row.CumMedia = max(st.row.CumMedia, rec.prevMedia+rec.mediaDuration())
	st.row.CumRuns = max(st.row.CumRuns, rec.prevRuns)
	if rec.runOffset == 0 {
		st.row.CumRuns = max(st.row.CumRuns, rec.prevRuns+1)
	}
	if err := r.openRows(ctx); err != nil {
		return err
	}
	if err := r.db.Check(&row, entries...); err != nil {
		r.leaveOut("file", filepath.Join(f.dir.path, sampledir.Name(rec.id())), "%v; it is left alone", err)
		return nil
	}
	b.Add = append(b.Add, row)
	b.OpenID = rec.open.ID
	r.res.Recordings++
	if len(b.Add) >= rowsAtOnce {
		return r.flush(ctx)
	}
	return nil
}

// emptyBefore takes the files without contents before a recording: they
// become garbage.
func (st *rebuiltStream) emptyBefore(id int64) []db.Garbage {
	n := 0
	for n < len(st.empty) && st.empty[n].ID < id {
		n++
	}
	out := st.empty[:n]
	st.empty = st.empty[n:]
	return out
}

// openRows inserts opens that rows of the batch refer to.
func (r *rebuilder) openRows(ctx context.Context) error {
	if len(r.fresh) == 0 {
		return nil
	}
	return r.db.Mend(ctx, &db.Mend{Opens: r.newOpens()})
}

func (r *rebuilder) flush(ctx context.Context) error {
	b := &r.batch
	if len(b.Add) == 0 {
		return nil
	}
	entries, saved := r.s.entries.unsaved()
	b.Entries = entries
	for _, st := range r.ordered() {
		b.Streams = append(b.Streams, db.StreamUpdate{ID: st.row.ID, NextNo: st.row.NextNo, CumMedia: st.row.CumMedia, CumRuns: st.row.CumRuns})
	}
	o := r.opens[b.OpenID]
	b.Time, b.OpenDuration = o.End, o.Duration
	if err := r.db.Flush(ctx, b); err != nil {
		return err
	}
	saved()
	r.batch = db.Batch{}
	return nil
}

// finish sets what is known only at the end, and makes the file complete
// without its log.
func (r *rebuilder) finish(ctx context.Context) error {
	m := &db.Mend{RetainBeyond: slackAfterRebuild}
	for id := range r.opens {
		r.fresh[id] = true
	}
	m.Opens = r.newOpens()
	if err := r.db.Mend(ctx, m); err != nil {
		return err
	}
	return r.db.Checkpoint(ctx)
}
