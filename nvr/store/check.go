package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store/internal/sampledir"
)

// CheckConfig says what to compare, and what to repair.
type CheckConfig struct {
	Dir string // the data directory
	Log *slog.Logger

	// Quick compares files by their size only. Without it every byte of every
	// file is read.
	Quick bool

	// Repairs. None of them is made unless it is asked for.
	RepairSums        bool // totals of streams that are not the sums of their rows, counters that are too low
	RewriteRows       bool // rows and indexes that differ from a file that is whole: the file counts
	CutTails          bool // bytes of a file behind what its row says
	TrashCorruptRows  bool // recordings whose files are damaged: rows and files go
	DeleteOrphanRows  bool // rows whose files are gone, garbage rows that would hit a recording
	DeleteOrphanFiles bool // files without a row that no start would adopt
	Force             bool // also when that is more than 1 % of the rows
	Found             func(Finding)
	Progress          func(CheckProgress)
}

// Finding is one thing that does not agree.
type Finding struct {
	What   string // doubt, database, schema, meta, directory, stream, row, index, file, orphan row, orphan file, garbage
	Object string
	Why    string
	Note   bool // nothing is wrong: the next start puts it in order
}

// String is one line, whatever a name or an error holds.
func (f Finding) String() string { return oneLine.Replace(f.What + " " + f.Object + ": " + f.Why) }

var oneLine = strings.NewReplacer("\n", `\n`, "\r", `\r`, "\x1b", `\x1b`)

// CheckProgress is how far a check is.
type CheckProgress struct {
	Rows, TotalRows int
	Bytes           int64 // of sample files read
}

// CheckResult adds up a check.
type CheckResult struct {
	Rows     int
	Bytes    int64 // of sample files read
	Findings int
	Repaired int // recordings, files and totals that were repaired
}

// ErrTooMuch: the repairs asked for are more than 1 % of the rows. Nothing was
// repaired.
var ErrTooMuch = errors.New("repairs would change more than 1 % of the recordings")

// checker is a check under way.
type checker struct {
	cfg   CheckConfig
	db    *db.DB
	state *db.State
	dirs  map[int32]*checkedDir
	opens map[int32]string // uuids
	res   CheckResult

	// What the repairs would change.
	mend        db.Mend
	tails       []tailCut
	orphans     []orphan
	repairs     int // of rows and files
	repairsSums int

	entries entryTable
}

type checkedDir struct {
	row   db.Dir
	path  string
	disk  *sampledir.Disk // nil when it cannot be used
	ids   []int64         // of its sample files, ascending
	taken []bool          // of those, which have a row
	block int64
}

type tailCut struct {
	d    *checkedDir
	id   int64
	size int64
}

type orphan struct {
	d  *checkedDir
	id int64
}

// Check compares the database of a data directory with itself and with its
// sample directories, and calls cfg.Found with each thing that does not agree.
// It takes the lock of the recorder, which must not run. When it returns an
// error, the check was not finished.
func Check(ctx context.Context, cfg CheckConfig) (CheckResult, error) {
	if cfg.Progress == nil {
		cfg.Progress = func(CheckProgress) {}
	}
	c := &checker{cfg: cfg, dirs: make(map[int32]*checkedDir), opens: make(map[int32]string)}
	path := filepath.Join(cfg.Dir, "db")
	d, err := db.Inspect(ctx, db.Config{Path: path, Log: cfg.Log})
	if db.Damaged(err) {
		c.found("database", path, "%v; restore it from a backup by starting the recorder, or run nvr rebuild", err)
		return c.res, nil
	}
	if err != nil {
		return c.res, err
	}
	c.db = d
	err = c.run(ctx)
	for _, k := range c.dirs {
		if k.disk != nil {
			k.disk.Close()
		}
	}
	if err := errors.Join(err, d.Close()); err != nil {
		return c.res, err
	}
	return c.res, nil
}

// found reports one thing.
func (c *checker) found(what, object, format string, args ...any) {
	c.res.Findings++
	c.cfg.Found(Finding{What: what, Object: object, Why: fmt.Sprintf(format, args...)})
}

func (c *checker) note(what, object, format string, args ...any) {
	c.cfg.Found(Finding{What: what, Object: object, Why: fmt.Sprintf(format, args...), Note: true})
}

func (c *checker) run(ctx context.Context) error {
	sound, err := c.database(ctx)
	if err != nil || !sound {
		return err
	}
	if c.state, err = c.db.State(ctx); err != nil {
		return err
	}
	c.entries.load(c.state.Entries)
	if err := c.db.Opens(ctx, func(o db.OpenRow) error { c.opens[o.ID] = o.UUID; return nil }); err != nil {
		return err
	}
	for _, row := range c.state.Dirs {
		if err := c.directory(row); err != nil {
			return err
		}
	}
	dirs := make(map[string]string)
	for _, row := range c.state.Dirs {
		dirs[row.UUID] = c.dirs[row.ID].path
	}
	ends := endings{path: filepath.Join(c.cfg.Dir, endsName)}
	ends.doubt(dirs, c.found, c.note)
	if ends.of(doubtEnds) > 0 && c.repairing() {
		return fmt.Errorf("nothing is repaired: %w", errDoubt)
	}
	total := 0
	withRows := slices.Concat(c.state.Streams, c.state.Deleted)
	for i := range withRows {
		total += int(withRows[i].Recordings)
	}
	c.cfg.Progress(CheckProgress{TotalRows: total})
	for i := range withRows {
		if err := c.stream(ctx, &withRows[i], total); err != nil {
			return err
		}
	}
	c.garbage()
	c.files()
	return c.repair(ctx)
}

// repairing reports whether a repair is asked for.
func (c *checker) repairing() bool {
	f := &c.cfg
	return f.RepairSums || f.RewriteRows || f.CutTails || f.TrashCorruptRows || f.DeleteOrphanRows || f.DeleteOrphanFiles
}

// database has SQLite check its file. When that finds damage nothing else can
// be relied on.
func (c *checker) database(ctx context.Context) (sound bool, err error) {
	path := c.db.Path()
	lines, err := c.db.Integrity(ctx)
	if err != nil && !db.Damaged(err) {
		return false, err
	}
	for _, l := range lines {
		c.found("database", path, "%s", strings.TrimSpace(l))
	}
	if err != nil {
		c.found("database", path, "%v", err)
	}
	if len(lines) > 0 || err != nil {
		return false, nil
	}
	lines, err = c.db.SchemaDifferences(ctx)
	if err != nil {
		return false, err
	}
	for _, l := range lines {
		c.found("schema", path, "%s", l)
	}
	if err := c.db.Load(ctx); err != nil && len(lines) > 0 {
		return false, nil // said above
	} else if err != nil {
		return false, err
	}
	problem, err := c.db.HistoryProblem(ctx)
	if err != nil {
		return false, err
	}
	if problem != "" {
		c.found("database", path, "%s", problem)
	}
	err = c.db.Incomplete(ctx, func(id int64) {
		c.found("row", idString(id), "it has no row in recording_integrity")
		if c.cfg.RewriteRows {
			c.repairs++
			c.mend.Rewrite = append(c.mend.Rewrite, db.NewRecording{Recording: db.Recording{ID: id}})
		}
	})
	return true, err
}

// directory looks whose a sample directory is, and what is in it.
func (c *checker) directory(row db.Dir) error {
	k := &checkedDir{row: row, path: resolvePath(c.cfg.Dir, row.Path), block: 4096}
	c.dirs[row.ID] = k
	disk, err := sampledir.OpenDisk(k.path)
	if err != nil {
		c.found("directory", k.path, "%v; its recordings are not checked", err)
		return nil
	}
	m, err := disk.ReadMeta()
	if row.LastCompleteOpen == 0 && errors.Is(err, fs.ErrNotExist) {
		m.DatabaseUUID, m.DirUUID, err = c.db.UUID(), row.UUID, nil // never used
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = errors.New("it has no meta file: its disk is not mounted, or it is another one")
	case err != nil:
	case m.DatabaseUUID != c.db.UUID():
		err = fmt.Errorf("it belongs to another installation (database %s, ours is %s)", m.DatabaseUUID, c.db.UUID())
	case m.DirUUID != row.UUID:
		err = fmt.Errorf("it is another one of this installation (%s, expected %s)", m.DirUUID, row.UUID)
	case row.LastCompleteOpen != 0 && m.CompleteOpen != row.LastCompleteOpen && m.InProgressOpen != row.LastCompleteOpen:
		err = fmt.Errorf("it and the database are not of the same time (directory: open %d, database: open %d): one of them is an old copy",
			m.CompleteOpen, row.LastCompleteOpen)
	}
	if err != nil {
		c.found("directory", k.path, "%v; its recordings are not checked", err)
		return disk.Close()
	}
	k.disk = disk
	if sp, err := disk.Space(); err == nil && sp.BlockSize > 0 {
		k.block = sp.BlockSize
	}
	var foreign []string
	if k.ids, foreign, err = disk.List(func(int) { c.cfg.Progress(CheckProgress{}) }); err != nil {
		return err
	}
	k.taken = make([]bool, len(k.ids))
	for _, name := range foreign {
		c.found("directory", k.path, "%s is not of the recorder; it is left alone", name)
	}
	return nil
}

// take notes that a file has a row, and reports whether it is there.
func (k *checkedDir) take(id int64) bool {
	i, ok := slices.BinarySearch(k.ids, id)
	if ok {
		k.taken[i] = true
	}
	return ok
}

func (c *checker) streamName(s *db.Stream) string {
	for _, cam := range c.state.Cameras {
		if cam.ID == s.CameraID {
			return cam.Name + " " + s.Type
		}
	}
	return fmt.Sprintf("%d", s.ID)
}

// stream checks the rows of a stream, and what the stream says of them.
func (c *checker) stream(ctx context.Context, s *db.Stream, total int) error {
	var sum sums
	low := db.Stream{NextNo: s.NextNo, CumMedia: s.CumMedia, CumRuns: s.CumRuns}
	var prev *db.Recording
	err := c.db.RecordingsByNo(ctx, s.ID, 0, math.MaxInt32, func(r *db.Recording) error {
		sum.add(r)
		runs := r.PrevRuns
		if r.RunOffset == 0 {
			runs++
		}
		low.NextNo = max(low.NextNo, r.No()+1)
		low.CumMedia = max(low.CumMedia, r.PrevMedia+r.MediaDuration())
		low.CumRuns = max(low.CumRuns, runs)
		if prev != nil && r.PrevMedia < prev.PrevMedia+prev.MediaDuration() {
			c.found("row", idString(r.ID), "it stands at %v of the stream's media, where recording %s ends at %v",
				r.PrevMedia, idString(prev.ID), prev.PrevMedia+prev.MediaDuration())
		}
		copied := *r
		prev = &copied
		if err := c.recording(ctx, r); err != nil {
			return err
		}
		c.res.Rows++
		c.cfg.Progress(CheckProgress{Rows: c.res.Rows, TotalRows: total, Bytes: c.res.Bytes})
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	name := c.streamName(s)
	before := c.res.Findings
	for _, d := range []struct {
		what      string
		got, want int64
	}{
		{"recordings", int64(s.Recordings), int64(sum.n)},
		{"bytes", s.Bytes, sum.bytes},
		{"bytes in blocks", s.FSBytes, sum.fsBytes},
		{"units of wall duration", int64(s.Duration), int64(sum.duration)},
	} {
		if d.got != d.want {
			c.found("stream", name, "its total is %d %s, its rows add up to %d", d.got, d.what, d.want)
		}
	}
	if low.NextNo != s.NextNo {
		c.found("stream", name, "its next recording is %d, it has rows up to %d", s.NextNo, low.NextNo-1)
	}
	if low.CumMedia != s.CumMedia {
		c.found("stream", name, "its media duration is %v, its rows go up to %v", s.CumMedia, low.CumMedia)
	}
	if low.CumRuns != s.CumRuns {
		c.found("stream", name, "it counts %d runs, its rows %d", s.CumRuns, low.CumRuns)
	}
	if c.cfg.RepairSums && c.res.Findings > before {
		c.mend.Totals = true
		c.repairsSums += c.res.Findings - before
	}
	return nil
}

// recording compares a row with its indexes and its file. Where the file is
// whole and differs, it is the truth; what is left is damage.
func (c *checker) recording(ctx context.Context, r *db.Recording) error {
	before := c.res.Findings
	p, err := c.db.Playback(ctx, r.ID)
	switch {
	case errors.Is(err, db.ErrNotFound):
		c.found("index", idString(r.ID), "it has no row in recording_playback")
	case err != nil:
		return err
	default:
		if why := indexProblem(r, &p); why != "" {
			c.found("index", idString(r.ID), "%s", why)
		}
	}
	if d := r.MediaDelta; d > r.MediaDuration()/2000+1 || d < -(r.MediaDuration()/2000+1) {
		c.found("row", idString(r.ID), "its wall duration %v is more than 500 ppm from its media duration %v", r.WallDuration, r.MediaDuration())
	}
	badIndex := c.res.Findings > before
	k := c.dirs[r.DirID]
	if k == nil || k.disk == nil {
		return nil
	}
	if !k.take(r.ID) {
		c.found("orphan row", idString(r.ID), "its file %s is not there", filepath.Join(k.path, sampledir.Name(r.ID)))
		if c.cfg.DeleteOrphanRows {
			c.repairs++
			c.mend.Drop = append(c.mend.Drop, r.ID)
		}
		return nil
	}
	sf, state, err := c.file(k, r, &p, badIndex)
	if err != nil {
		return err
	}
	switch {
	case c.res.Findings == before:
	case state == fileWhole && c.cfg.RewriteRows:
		c.repairs++
		c.rewrite(r, sf, k)
	case state == fileDamaged && c.cfg.TrashCorruptRows:
		c.repairs++
		c.mend.Trash = append(c.mend.Trash, r.ID)
	}
	return nil
}

// What became of reading a file.
type fileState int

const (
	fileUnknown fileState = iota // not read, or the disk does not give it
	fileWhole                    // a row can be made of it
	fileDamaged
)

// file compares a row with its file. A tail counts as a finding of its own.
func (c *checker) file(k *checkedDir, r *db.Recording, p *db.Playback, badIndex bool) (sf *mp4.SampleFile, state fileState, err error) {
	name := filepath.Join(k.path, sampledir.Name(r.ID))
	f, err := k.disk.Open(r.ID)
	if err != nil {
		return nil, fileUnknown, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, fileUnknown, err
	}
	if c.cfg.Quick {
		if size > r.FileBytes && c.expected(k, r) {
			c.note("file", name, "it has %d bytes, its row says %d: the rest did not sync", size, r.FileBytes)
		} else if size != r.FileBytes {
			c.found("file", name, "it has %d bytes, its row says %d", size, r.FileBytes)
		}
		return nil, fileUnknown, nil
	}
	c.res.Bytes += size
	sf, err = mp4.ReadSampleFile(f, size)
	if errors.Is(err, mp4.ErrNotSampleFile) {
		c.found("file", name, "%v", err)
		return nil, fileDamaged, nil
	}
	if err != nil {
		c.found("file", name, "%v", err)
		return nil, fileUnknown, nil
	}
	a := &sf.About
	switch {
	case a.ID() != r.ID:
		c.found("file", name, "it says that it is recording %s", idString(a.ID()))
		return nil, fileDamaged, nil
	case a.DatabaseUUID != c.db.UUID():
		c.found("file", name, "it belongs to another installation (database %s)", a.DatabaseUUID)
		return nil, fileDamaged, nil
	case a.OpenID != r.OpenID || a.OpenUUID != c.opens[r.OpenID]:
		c.found("file", name, "it was written under open %d (%s), its row says open %d (%s)", a.OpenID, a.OpenUUID, r.OpenID, c.opens[r.OpenID])
		return nil, fileDamaged, nil
	}
	switch {
	case sf.Damage == nil && size < r.FileBytes:
		c.found("file", name, "it has %d bytes, its row says %d", size, r.FileBytes)
		return sf, fileWhole, nil // it was cut where a fragment ends
	case sf.Good < r.FileBytes:
		c.found("file", name, "it is whole up to byte %d of %d: %v", sf.Good, r.FileBytes, sf.Damage)
		return sf, fileDamaged, nil
	case size > r.FileBytes && endsAt(sf, r.FileBytes):
		if c.expected(k, r) {
			c.note("file", name, "%d bytes are behind the %d that its row says: they did not sync", size-r.FileBytes, r.FileBytes)
		} else {
			c.found("file", name, "%d bytes are behind the %d that its row says", size-r.FileBytes, r.FileBytes)
		}
		if c.cfg.CutTails {
			c.repairs++
			c.tails = append(c.tails, tailCut{k, r.ID, r.FileBytes})
		}
		for i := range sf.Fragments {
			if sf.Fragments[i].Pos >= r.FileBytes {
				sf.Fragments = sf.Fragments[:i]
				break
			}
		}
		c.compare(r, p, sf, badIndex)
		return nil, fileUnknown, nil
	}
	c.compare(r, p, sf, badIndex)
	if sf.Damage != nil {
		return sf, fileDamaged, nil
	}
	return sf, fileWhole, nil
}

// expected reports whether a file may hold more than its row says: what is behind
// did not sync, and was lost so, or another file holds it again (rule 13). That
// one has the next number, or one behind files that had been begun.
func (c *checker) expected(k *checkedDir, r *db.Recording) bool {
	if r.EndReason == reasonDiskError || r.EndReason == reasonSlowDisk { // what was given up at the end is cut off, and the cut not synced
		return true
	}
	stream, _ := db.SplitID(r.ID)
	i, _ := slices.BinarySearch(k.ids, r.ID+1)
	for _, id := range k.ids[i:min(len(k.ids), i+2*probeAhead)] {
		if of, _ := db.SplitID(id); of != stream {
			break
		}
		if w := c.rewrites(k, id); w != nil && w.RecordingNo == r.No() {
			return true
		}
	}
	return false
}

// rewrites is what a file says that it holds again, nil when it does not.
func (c *checker) rewrites(k *checkedDir, id int64) *mp4.Rewrites {
	f, err := k.disk.Open(id)
	if err != nil {
		return nil
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil
	}
	sf, err := mp4.ReadSampleFile(f, size)
	if err != nil || sf.About.ID() != id || sf.About.DatabaseUUID != c.db.UUID() {
		return nil
	}
	return sf.About.Rewrites
}

// endsAt reports whether a fragment of the file ends at a byte.
func endsAt(sf *mp4.SampleFile, at int64) bool {
	return slices.ContainsFunc(sf.Fragments, func(f mp4.FragmentInfo) bool { return f.Pos+f.Size == at })
}

// compare holds the row and the indexes against what the file says.
func (c *checker) compare(r *db.Recording, p *db.Playback, sf *mp4.SampleFile, badIndex bool) {
	want, s := sf.Playback()
	var diffs []string
	last := sf.InitSize
	if n := len(sf.Fragments); n > 0 {
		last = sf.Fragments[n-1].Pos + sf.Fragments[n-1].Size
	}
	for _, d := range []struct {
		what      string
		row, file int64
	}{
		{"bytes", r.FileBytes, last},
		{"pictures", int64(r.VideoSamples), int64(s.VideoSamples)},
		{"key pictures", int64(r.KeySamples), int64(s.KeySamples)},
		{"bytes of pictures", r.VideoBytes, s.VideoBytes},
		{"units of media duration", int64(r.MediaDuration()), int64(s.Duration)},
		{"sounds", int64(r.AudioSamples), int64(s.AudioSamples)},
		{"bytes of sounds", r.AudioBytes, s.AudioBytes},
		{"fragments", int64(r.Fragments), int64(s.Fragments)},
		{"in flags", int64(r.Flags & (db.TrailingZero | db.HasOffsets)), int64(flagsOf(&s))},
	} {
		if d.row != d.file {
			diffs = append(diffs, fmt.Sprintf("%d %s, the file has %d", d.row, d.what, d.file))
		}
	}
	for _, e := range []struct {
		kind media.Kind
		id   int32
		file *media.SampleEntry
	}{{media.Video, r.VideoEntry, sf.Video}, {media.Audio, r.AudioEntry, sf.Audio}} {
		row, ok := c.entries.get(e.kind, e.id)
		if ok != (e.file != nil) || ok && !row.Equal(e.file) {
			diffs = append(diffs, fmt.Sprintf("%v sample entry %d, which is not that of the file", e.kind, e.id))
		}
	}
	if len(diffs) > 0 && !badIndex {
		c.found("row", idString(r.ID), "it says %s", strings.Join(diffs, "; "))
		return
	}
	if badIndex {
		return // said already
	}
	for _, x := range []struct {
		what      string
		row, file []byte
	}{
		{"index of pictures", p.Video, want.Video},
		{"composition offsets", p.Offsets, want.Offsets},
		{"index of sounds", p.Audio, want.Audio},
		{"index of fragments", p.Fragments, want.Fragments},
	} {
		if !bytes.Equal(x.row, x.file) {
			c.found("index", idString(r.ID), "its %s is not that of the file", x.what)
		}
	}
}

func flagsOf(s *mp4.Summary) (flags uint32) {
	if s.TrailingZero {
		flags |= db.TrailingZero
	}
	if s.HasOffsets {
		flags |= db.HasOffsets
	}
	return flags
}

// indexProblem compares the indexes of a recording with its row.
func indexProblem(r *db.Recording, p *db.Playback) string {
	v := media.NewIndexReader(p.Video, p.Offsets)
	var keys, samples, bytes, duration int64
	for v.Next() {
		samples++
		bytes += int64(v.Sample.Size)
		duration += int64(v.Sample.Duration)
		if v.Sample.Key {
			keys++
		}
	}
	if v.Err() != nil {
		return fmt.Sprintf("its index of pictures: %v", v.Err())
	}
	if samples != int64(r.VideoSamples) || keys != int64(r.KeySamples) || bytes != r.VideoBytes || duration != int64(r.MediaDuration()) {
		return fmt.Sprintf("its index has %d pictures (%d keys), %d bytes, %v; its row %d (%d), %d, %v", samples, keys, bytes,
			media.Duration(duration), r.VideoSamples, r.KeySamples, r.VideoBytes, r.MediaDuration())
	}
	a := media.NewIndexReader(p.Audio, nil)
	samples, bytes = 0, 0
	for a.Next() {
		samples++
		bytes += int64(a.Sample.Size)
	}
	if a.Err() != nil {
		return fmt.Sprintf("its index of sounds: %v", a.Err())
	}
	if samples != int64(r.AudioSamples) || bytes != r.AudioBytes {
		return fmt.Sprintf("its index has %d sounds, %d bytes; its row %d, %d", samples, bytes, r.AudioSamples, r.AudioBytes)
	}
	f := mp4.NewFragmentIndexReader(p.Fragments)
	var n, pictures, sounds int64
	size := f.Init
	for f.Next() {
		n++
		pictures += int64(f.Video)
		sounds += int64(f.Audio)
		size += f.HeaderSize
	}
	if f.Err() != nil {
		return fmt.Sprintf("its index of fragments: %v", f.Err())
	}
	size += r.VideoBytes + r.AudioBytes
	if n != int64(r.Fragments) || pictures != int64(r.VideoSamples) || sounds != int64(r.AudioSamples) || size != r.FileBytes {
		return fmt.Sprintf("its index has %d fragments, %d pictures, %d sounds, in a file of %d bytes; its row %d, %d, %d, %d",
			n, pictures, sounds, size, r.Fragments, r.VideoSamples, r.AudioSamples, r.FileBytes)
	}
	return ""
}

// rewrite makes a row of a whole file.
func (c *checker) rewrite(r *db.Recording, sf *mp4.SampleFile, k *checkedDir) {
	p, s := sf.Playback()
	row := db.NewRecording{Recording: *r, Playback: db.Playback{Video: p.Video, Offsets: p.Offsets, Audio: p.Audio, Fragments: p.Fragments}}
	row.Flags = r.Flags&^(db.TrailingZero|db.HasOffsets) | flagsOf(&s)
	row.FileBytes = sf.Good
	row.FSBytes = (sf.Good + k.block - 1) / k.block * k.block
	row.VideoSamples, row.KeySamples, row.VideoBytes = int32(s.VideoSamples), int32(s.KeySamples), s.VideoBytes
	row.AudioSamples, row.AudioBytes, row.Recording.Fragments = int32(s.AudioSamples), s.AudioBytes, int32(s.Fragments)
	limit := s.Duration / 2000
	row.MediaDelta = min(max(r.MediaDelta, -limit), limit)
	row.WallDuration = min(s.Duration-row.MediaDelta, media.MaxRecording-1)
	row.MediaDelta = s.Duration - row.WallDuration
	row.VideoEntry, row.AudioEntry = c.entries.id(sf.Video), c.entries.id(sf.Audio)
	row.MonotonicSinceOpen = media.Duration(sf.About.SinceOpen90k)
	// One that lacked its integrity is in the list already.
	c.mend.Rewrite = slices.DeleteFunc(c.mend.Rewrite, func(o db.NewRecording) bool { return o.ID == r.ID })
	c.mend.Rewrite = append(c.mend.Rewrite, row)
}

// garbage looks for garbage rows that would take a recording with them.
func (c *checker) garbage() {
	for _, g := range c.state.Garbage {
		object := fmt.Sprintf("%s in directory %d", idString(g.ID), g.DirID)
		streamID, no := db.SplitID(g.ID)
		i := slices.IndexFunc(c.state.Streams, func(s db.Stream) bool { return s.ID == streamID })
		why := ""
		if i >= 0 && no >= c.state.Streams[i].NextNo {
			why = fmt.Sprintf("its number may still be given to a recording: the next is %d", c.state.Streams[i].NextNo)
		}
		k := c.dirs[g.DirID]
		if k != nil && k.disk != nil {
			if j, ok := slices.BinarySearch(k.ids, g.ID); ok {
				if k.taken[j] {
					why = "it has a row as a recording, too"
				}
				k.taken[j] = true
			}
		}
		if why == "" {
			continue
		}
		c.found("garbage", object, "%s", why)
		if c.cfg.DeleteOrphanRows {
			c.repairs++
			c.mend.DropGarbage = append(c.mend.DropGarbage, g)
		}
	}
}

// files looks at the files that no row names.
func (c *checker) files() {
	for _, id := range slices.Sorted(maps.Keys(c.dirs)) {
		k := c.dirs[id]
		missing := make(map[int32]int32) // by stream: the number up to which an adoption comes
		for i, id := range k.ids {
			if k.taken[i] {
				continue
			}
			name := filepath.Join(k.path, sampledir.Name(id))
			streamID, no := db.SplitID(id)
			j := slices.IndexFunc(c.state.Streams, func(s db.Stream) bool { return s.ID == streamID })
			why := ""
			switch {
			case j < 0:
				why = fmt.Sprintf("there is no stream %d", streamID)
			case no < c.state.Streams[j].NextNo:
				why = fmt.Sprintf("it has no row, and the next recording of %s is %d", c.streamName(&c.state.Streams[j]), c.state.Streams[j].NextNo)
			case c.state.Streams[j].DirID != k.row.ID:
				why = fmt.Sprintf("it has no row, and %s records to another directory", c.streamName(&c.state.Streams[j]))
			default:
				if _, ok := missing[streamID]; !ok {
					missing[streamID] = c.state.Streams[j].NextNo
				}
				if no < missing[streamID]+probeAhead {
					missing[streamID] = no + 1
					c.note("file", name, "it has no row yet; the next start adopts it")
					continue
				}
				why = fmt.Sprintf("it has no row, and is too far behind number %d for a start to find it", missing[streamID])
			}
			c.found("orphan file", name, "%s", why)
			if c.cfg.DeleteOrphanFiles {
				c.repairs++
				c.orphans = append(c.orphans, orphan{k, id})
			}
		}
	}
}

// repair does what was asked for, all of it or nothing.
func (c *checker) repair(ctx context.Context) error {
	if c.repairs == 0 && c.repairsSums == 0 {
		return nil
	}
	if c.repairs*100 > c.res.Rows && !c.cfg.Force {
		return fmt.Errorf("%w (%d of %d); if that is meant, give -force", ErrTooMuch, c.repairs, c.res.Rows)
	}
	// A file whose removal is not durable yet could come back without a row.
	for _, k := range c.dirs {
		if k.disk != nil {
			if err := k.disk.Sync(); err != nil {
				return err
			}
		}
	}
	for _, t := range c.tails {
		if err := cutFile(t.d.disk, t.id, t.size); err != nil {
			return err
		}
	}
	// A row without integrity whose file says nothing else gets only that.
	if err := c.completeRewrites(ctx); err != nil {
		return err
	}
	entries, _ := c.entries.unsaved()
	c.mend.Entries = entries
	if err := c.db.Mend(ctx, &c.mend); err != nil {
		return err
	}
	for _, o := range c.orphans {
		if err := o.d.disk.Unlink(o.id); err != nil {
			return err
		}
	}
	for _, k := range c.dirs {
		if k.disk != nil && len(c.orphans) > 0 {
			if err := k.disk.Sync(); err != nil {
				return err
			}
		}
	}
	c.res.Repaired = c.repairs + c.repairsSums
	return nil
}

// completeRewrites fills in the rows that are in the list by their id alone.
func (c *checker) completeRewrites(ctx context.Context) error {
	c.mend.Rewrite = slices.DeleteFunc(c.mend.Rewrite, func(r db.NewRecording) bool {
		return slices.Contains(c.mend.Drop, r.ID) || slices.Contains(c.mend.Trash, r.ID)
	})
	for i := range c.mend.Rewrite {
		r := &c.mend.Rewrite[i]
		if r.FileBytes != 0 {
			continue
		}
		streamID, no := db.SplitID(r.ID)
		if err := c.db.RecordingsByNo(ctx, streamID, no, no+1, func(row *db.Recording) error { r.Recording = *row; return nil }); err != nil {
			return err
		}
		var err error
		if r.Playback, err = c.db.Playback(ctx, r.ID); err != nil {
			return err
		}
	}
	return nil
}

// cutFile cuts a sample file durably.
func cutFile(d sampledir.Dir, id, size int64) error {
	f, err := d.Recover(id)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

// resolvePath makes a sample directory's path absolute, as the store does.
func resolvePath(data, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(data, path)
}
