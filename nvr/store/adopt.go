package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store/internal/sampledir"
)

// found is a copy of the stream for adopt to fill: what is not proven to be
// durable goes with it. The caller holds mu.
func (st *Stream) found() *Stream {
	return &Stream{
		store: st.store, id: st.id, typ: st.typ, uuid: st.uuid, name: st.name, dir: st.dir, cfg: st.cfg,
		nextNo: st.nextNo, cumMedia: st.cumMedia, cumRuns: st.cumRuns, createdNo: st.createdNo,
	}
}

// takeOver makes what was adopted part of the stream. Where a file could not be
// read that is nothing: whoever tries again begins with the first one. The caller
// holds mu.
func (st *Stream) takeOver(found *Stream) {
	if st.unusable = found.unusable; st.unusable != nil {
		return
	}
	for _, rec := range found.recent {
		rec.st = st
	}
	st.recent = append(st.recent, found.recent...) // behind what an earlier try adopted
	st.nextNo, st.cumMedia, st.cumRuns, st.createdNo = found.nextNo, found.cumMedia, found.cumRuns, found.createdNo
	if found.earlier != nil {
		st.earlier, found.earlier.until = found.earlier, st.last
	}
	st.stays(found.recent)
	st.tellAdopted(found.recent)
}

// adopt brings in the files that a process before this one left without rows:
// those at and after the stream's next number. A file is kept up to its last
// whole fragment, so nothing that was durable is lost. They are found by
// their names; no directory is listed. ErrUnsynced: they are in the page cache,
// and nobody knows whether they are in the directory.
func (s *Store) adopt(ctx context.Context, st *Stream) error {
	d := st.dir
	if d == nil || d.dir == nil {
		return nil
	}
	missing := 0
	a := adoption{st: st}
	for no := st.nextNo; missing < probeAhead; no++ {
		err := a.file(ctx, no)
		s.cfg.Progress()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing++
			continue
		case err != nil:
			// The file stays as it is, and nothing is written at its place.
			if errors.Is(err, sampledir.ErrUnsynced) {
				s.doubts(err)
			}
			st.cannotAdopt(err)
			return nil
		}
		// Numbers before it without a file are skipped for ever.
		missing = 0
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if len(st.recent) == 0 {
		return nil
	}
	a.link()
	if err := a.sync(); err != nil {
		return err
	}
	frames, cut := 0, int64(0)
	for _, rec := range st.recent {
		frames += rec.video.Samples
		cut += rec.cutBytes
	}
	s.log.Info("adopted recordings of an unclean stop", "camera", st.name, "stream", st.typ,
		"recordings", len(st.recent), "frames", frames, "torn_bytes", cut)
	return nil
}

// cannotAdopt gives up what was adopted of a stream, which is not recorded.
func (st *Stream) cannotAdopt(err error) {
	st.unusable, st.recent = err, nil
	st.store.log.Error("stream is not recorded", "camera", st.name, "stream", st.typ, "err", err)
}

// adoption is the way of the files of one stream into memory, in the order of their
// numbers. The stream is the real one, or stands for it while that one records.
type adoption struct {
	st    *Stream
	cuts  []*recording   // their files end earlier now, see reconcile
	shift int32          // of the offsets of the run that the last file belongs to
	off   media.Duration // by which the files of that run count other media before them than we do

	// Of an adoption that goes in parts: the last recording of the part before,
	// as it was then.
	prev *recording
}

// last is the recording that was adopted last, nil when there is none.
func (a *adoption) last() *recording {
	if n := len(a.st.recent); n > 0 {
		return a.st.recent[n-1]
	}
	return a.prev
}

// file adopts the next file. fs.ErrNotExist when there is none of that number.
func (a *adoption) file(ctx context.Context, no int32) error {
	st := a.st
	rec, before, err := st.store.adoptFile(st, no)
	if err != nil {
		return err
	}
	rec.moved = len(rec.taken) == 0 // a file of nothing is no run
	a.cuts = append(a.cuts, st.reconcile(rec)...)
	last := a.last()
	if last == nil && rec.runOffset > 0 && before != st.cumMedia {
		if err := a.behindRow(ctx, no-1); err != nil {
			return err
		}
	}
	switch {
	case rec.runOffset == 0:
		a.shift, a.off = 0, before-st.cumMedia
	case no != st.nextNo || before-a.off != st.cumMedia || last != nil && !last.continues(rec, a.shift):
		// The end of the one before it is lost, so the rest is a run of its
		// own.
		a.shift, a.off = rec.runOffset, before-st.cumMedia
	}
	rec.runOffset -= a.shift
	rec.follows = rec.runOffset > 0
	st.recent = append(st.recent, rec)
	st.nextNo = no + 1
	st.createdNo = no
	if rec.runOffset == 0 && !rec.moved {
		st.cumRuns++
	}
	st.cumMedia = rec.prevMedia + rec.mediaDuration()
	return nil
}

// behindRow learns by how much the files of a run count other media before them
// than we do, from the recording of a number that has its row: before the first
// that is adopted.
func (a *adoption) behindRow(ctx context.Context, no int32) error {
	st := a.st
	return st.store.db.RecordingsByNo(ctx, st.id, no, no+1, func(r *db.Recording) error {
		if about, _, err := beginning(st.dir.dir, r.ID); err == nil && r.EndReason == "" && about.ID() == r.ID && about.OpenID == r.OpenID {
			a.shift, a.off = about.RunOffset-r.RunOffset, media.Duration(about.PrevMediaDuration90k)-r.PrevMedia
		}
		return nil
	})
}

// link settles how what was adopted ends, and why there is nothing between.
func (a *adoption) link() {
	recent := a.st.recent
	// Within a run the next start is this one's end, to the unit.
	for i, rec := range recent[:len(recent)-1] {
		next := recent[i+1]
		if next.follows {
			rec.localStart = rec.start + media.Time(next.start.Sub(rec.start)-rec.mediaDuration())
		} else if rec.endReason == "" {
			rec.endReason = reasonUnclean
		}
	}
	if last := recent[len(recent)-1]; last.endReason == "" {
		last.endReason = reasonUnclean
	}
	prev := a.prev
	for _, rec := range recent {
		// Whatever the recorder knew of it went with its memory.
		why := note{cause: UnknownCause}
		if prev != nil {
			why.detail = prev.endReason
		}
		if prev == nil || prev.endReason != "" {
			rec.before = []note{why}
		}
		prev = rec
	}
}

// sync makes the entries of the files durable, and cuts what another one holds.
// ErrUnsynced: nobody knows whether they are in the directory.
func (a *adoption) sync() error {
	d := a.st.dir
	if err := d.dir.Sync(); err != nil {
		return fmt.Errorf("%w: %w", sampledir.ErrUnsynced, err)
	}
	for _, rec := range a.cuts {
		// Only now is it sure that the other file is there.
		if err := cutFile(d.dir, rec.id(), rec.size); err != nil {
			d.store.log.Warn("sample file keeps a tail that does not count", "recording", idString(rec.id()), "err", err)
		}
	}
	return nil
}

// continues reports whether next, whose file has the given shift to its offset,
// is of the same run.
func (rec *recording) continues(next *recording, shift int32) bool {
	return len(rec.taken) > 0 && rec.open.ID == next.open.ID && rec.runOffset+1 == next.runOffset-shift
}

// adoptFile reads one file and makes what is whole of it durable. before is
// what the recordings before it added up to when it was begun.
func (s *Store) adoptFile(st *Stream, no int32) (rec *recording, before media.Duration, err error) {
	f, err := st.dir.dir.Recover(db.CompositeID(st.id, no))
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, 0, err
	}
	rec = &recording{
		st: st, no: no, open: &s.open, recovered: true, created: true, sealed: true, settled: true,
		received: time.Now(), cutBytes: size,
		prevMedia: st.cumMedia, prevRuns: st.cumRuns,
	}
	sf, err := mp4.ReadSampleFile(f, size)
	if errors.Is(err, mp4.ErrNotSampleFile) || err == nil && (len(sf.Fragments) == 0 || s.stale(rec, &sf.About)) {
		// Nothing in it was ever durable: it becomes garbage at the first flush.
		return rec, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	if err := s.belongs(st, no, sf); err != nil {
		return nil, 0, err
	}
	if err := rec.restore(s, sf); err != nil {
		return nil, 0, err
	}
	rec.place(&sf.About, s.ages.Load().opens[rec.open.ID])
	rec.cutBytes = size - sf.Good
	if rec.cutBytes > 0 {
		if err := f.Truncate(sf.Good); err != nil {
			return nil, 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", sampledir.ErrUnsynced, err)
	}
	return rec, media.Duration(sf.About.PrevMediaDuration90k), nil
}

// stale reports whether a file begins with blocks that were those of another
// recording before: it was never synced (P4).
func (s *Store) stale(rec *recording, a *mp4.About) bool {
	return a.DatabaseUUID == s.db.UUID() && a.ID() != rec.id()
}

// belongs makes sure that a file is of this installation, and of its past.
func (s *Store) belongs(st *Stream, no int32, sf *mp4.SampleFile) error {
	a := &sf.About
	name := st.dir.path + "/" + sampledir.Name(db.CompositeID(st.id, no))
	switch {
	case a.DatabaseUUID != s.db.UUID():
		return fmt.Errorf("sample file %s belongs to another installation (database %s, ours is %s)", name, a.DatabaseUUID, s.db.UUID())
	case a.OpenID > s.open.ID:
		return fmt.Errorf("sample file %s was written under open %d, the database knows up to %d: it is an old copy", name, a.OpenID, s.open.ID)
	}
	return nil
}

// place moves a recording whose file was begun before the clock of its open was
// set (time.md rule 15). The row of the open may be that of a backup, and know
// of no set: a file from behind its last flush that has a later start of the open
// has the better clock of the two.
func (rec *recording) place(a *mp4.About, o pastOpen) {
	start := media.Time(a.OpenStart90k)
	if start == 0 || o.Start == 0 || start > o.Start && rec.sinceOpen > o.Duration {
		return
	}
	by := o.Start.Sub(start)
	rec.start, rec.localStart = rec.start.Add(by), rec.localStart.Add(by)
}

// stays notes that adopted recordings stay where they are when the clock is set:
// those that went by another clock.
func (st *Stream) stays(adopted []*recording) {
	c := &st.store.clock
	for _, rec := range adopted {
		if rec.open.ID < c.first(&st.store.open).ID {
			st.floor, st.here = max(st.floor, rec.start.Add(rec.wallDuration())), false
			st.began = st.floor
		}
	}
}

// restore fills the recording from its file.
func (rec *recording) restore(s *Store, sf *mp4.SampleFile) error {
	a := &sf.About
	rec.open = &db.OpenRow{ID: a.OpenID, UUID: a.OpenUUID}
	rec.runOffset, rec.rewrites = a.RunOffset, a.Rewrites
	rec.videoEntry, rec.audioEntry = sf.Video, sf.Audio
	for _, e := range []*media.SampleEntry{sf.Video, sf.Audio} {
		if e == nil {
			continue
		}
		if err := db.CheckEntry(&db.SampleEntry{ID: 1, SampleEntry: *e}); err != nil {
			return fmt.Errorf("sample file of recording %s: %w", idString(rec.id()), err)
		}
	}
	rec.sinceOpen = media.Duration(a.SinceOpen90k)
	rec.videoID, rec.audioID = s.entries.id(sf.Video), s.entries.id(sf.Audio)
	rec.init = make([]byte, sf.InitSize)
	rec.size = sf.Good
	for i := range sf.Fragments {
		fi := &sf.Fragments[i]
		for _, sample := range fi.Video {
			rec.video.Append(sample)
			rec.trailingZero = sample.Duration == 0
		}
		for _, sample := range fi.Audio {
			rec.audio.Append(sample)
		}
		rec.start = fi.Start
		rec.endReason = fi.EndReason
		rec.taken = append(rec.taken, &fragment{
			Fragment: fi.Fragment, pos: fi.Pos, headerSize: fi.HeaderSize, size: fi.Size, videoEnd: rec.video.Duration,
		})
	}
	rec.durable = len(rec.taken)
	rec.localStart = rec.start
	return nil
}
