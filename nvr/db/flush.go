package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"

	"holdfast/nvr/media"
)

// Batch is what one flush changes.
type Batch struct {
	// Time, OpenID and OpenDuration bring the open row up to date.
	Time         media.Time     // wall clock now
	OpenID       int32          // the current open
	OpenDuration media.Duration // monotonic time since its beginning

	// Streams has an entry for each stream of Add and Discard, with a NextNo
	// beyond all their numbers, and may have others.
	Streams []StreamUpdate

	// Entries are new sample entries; the caller chose their ids, and has asked
	// CheckEntry.
	Entries []SampleEntry

	// Add are the recordings to insert, those of a stream in the order of
	// their numbers.
	Add []NewRecording

	// Gaps are what streams did not record. A gap that adjoins one of the same
	// cause makes it longer. What Add has of a gap, known before or given here,
	// is taken off it; so are gaps that end before the oldest recording of a
	// stream of which Delete has something. The caller has asked CheckGap.
	Gaps []Gap

	// Delete are recordings that become garbage.
	Delete []int64

	// Gone are deleted streams of which Delete leaves nothing. Their rows go, with
	// their gaps, and the camera with its last one.
	Gone []int32

	// Discard are files that never became recordings and become garbage at
	// once. One that is garbage already stays so.
	Discard []Garbage

	// Collected is garbage whose files are durably gone.
	Collected []Garbage
}

// StreamUpdate sets the counters of a stream that only grow. The totals of
// its recordings follow by themselves.
type StreamUpdate struct {
	ID       int32
	NextNo   int32
	CumMedia media.Duration
	CumRuns  int32
}

// writeStatements are those run in every flush, prepared on the writer.
type writeStatements struct {
	updateOpen, updateStream, addTotals           *sql.Stmt
	insertVideo, insertAudio                      *sql.Stmt
	insertRecording, insertIntegrity              *sql.Stmt
	insertPlayback                                *sql.Stmt
	deleteIntegrity, deletePlayback               *sql.Stmt
	deleteRecording                               *sql.Stmt
	insertGarbage, discardGarbage, collectGarbage *sql.Stmt
	spanOf, insertSpan, extendSpan, deleteSpan    *sql.Stmt
	insertGap, endGap, deleteGap, lastGap         *sql.Stmt
	oldest, retainGaps                            *sql.Stmt
	noteUse                                       *sql.Stmt
}

func (w *writeStatements) prepare(ctx context.Context, p *sql.DB) error {
	for _, s := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&w.updateOpen, `UPDATE open SET end_time_90k = ?, duration_90k = ? WHERE id = ?`},
		{&w.updateStream, `UPDATE stream SET cum_recordings = ?, cum_media_duration_90k = ?, cum_runs = ? WHERE id = ?`},
		{&w.addTotals, `UPDATE stream SET
			total_recordings = total_recordings + ?,
			total_file_bytes = total_file_bytes + ?,
			total_fs_bytes = total_fs_bytes + ?,
			total_wall_duration_90k = total_wall_duration_90k + ? WHERE id = ?`},
		{&w.insertVideo, `INSERT INTO video_sample_entry
			(id, format, codec, timescale, config, width, height, pasp_h, pasp_v)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&w.insertAudio, `INSERT INTO audio_sample_entry
			(id, format, codec, timescale, config, channels, sample_rate) VALUES (?, ?, ?, ?, ?, ?, ?)`},
		{&w.insertRecording, `INSERT INTO recording (composite_id, stream_id, ` + recordingColumns + `)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&w.insertIntegrity, `INSERT INTO recording_integrity
			(composite_id, local_time_delta_90k, monotonic_since_open_90k, wall_end_delta_90k) VALUES (?, ?, ?, ?)`},
		{&w.insertPlayback, `INSERT INTO recording_playback
			(composite_id, video, offsets, audio, fragments) VALUES (?, ?, ?, ?, ?)`},
		{&w.deleteIntegrity, `DELETE FROM recording_integrity WHERE composite_id = ?`},
		{&w.deletePlayback, `DELETE FROM recording_playback WHERE composite_id = ?`},
		{&w.deleteRecording, `DELETE FROM recording WHERE composite_id = ?
			RETURNING dir_id, file_bytes, fs_bytes, start_time_90k, wall_duration_90k, video_samples`},
		{&w.insertGarbage, `INSERT INTO garbage (dir_id, composite_id) VALUES (?, ?)`},
		{&w.discardGarbage, `INSERT INTO garbage (dir_id, composite_id) VALUES (?, ?) ON CONFLICT DO NOTHING`},
		{&w.collectGarbage, `DELETE FROM garbage WHERE dir_id = ? AND composite_id = ?`},
		{&w.spanOf, spanOfSQL},
		{&w.insertSpan, insertSpanSQL},
		{&w.extendSpan, extendSpanSQL},
		{&w.deleteSpan, deleteSpanSQL},
		{&w.insertGap, insertGapSQL},
		{&w.endGap, endGapSQL},
		{&w.deleteGap, deleteGapSQL},
		{&w.lastGap, lastGapSQL},
		{&w.oldest, `SELECT min(start_time_90k) FROM recording INDEXED BY recording_cover WHERE stream_id = ?`},
		{&w.retainGaps, retainGapsSQL},
		{&w.noteUse, `UPDATE user_session SET used_time_90k = ?, used_address = ?, used_agent = ?, uses = ? WHERE id = ?`},
	} {
		var err error
		if *s.to, err = p.PrepareContext(ctx, s.sql); err != nil {
			return fmt.Errorf("prepare %q: %w", s.sql, err)
		}
	}
	return nil
}

// Flush makes all changes of the batch in ONE transaction, or none, and writes
// in it what NoteUse was told. Once the transaction has begun ctx does not end
// it: it runs to its end.
//
// A recording that cannot be inserted or deleted gives a *RecordingError that
// names it. Every change must hit exactly the rows it means.
func (d *DB) Flush(ctx context.Context, b *Batch) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.checkBatch(b); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	if err := d.transactWithUses(ctx, func(t *tx) error { return t.flush(b) }); err != nil {
		return fmt.Errorf("flush: %w", err)
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range b.Streams {
		k := d.known.streams[s.ID]
		k.nextNo = s.NextNo
		d.known.streams[s.ID] = k
	}
	for _, id := range b.Gone {
		delete(d.known.streams, id)
	}
	for _, e := range b.Entries {
		d.known.entries(e.Kind)[e.ID] = true
	}
	return nil
}

func (k *known) entries(kind media.Kind) map[int32]bool {
	if kind == media.Audio {
		return k.audio
	}
	return k.video
}

// checkBatch finds what can be found without the database, so that no
// transaction is begun for a batch that cannot be committed. The caller holds
// writing, so known does not change.
func (d *DB) checkBatch(b *Batch) error {
	k := &d.known
	if !k.opens[b.OpenID] {
		return fmt.Errorf("open %d: %w", b.OpenID, ErrNotFound)
	}
	next := make(map[int32]int32, len(b.Streams))
	for _, s := range b.Streams {
		old, ok := k.streams[s.ID]
		if !ok {
			return fmt.Errorf("update stream %d: %w", s.ID, ErrNotFound)
		}
		if _, twice := next[s.ID]; twice {
			return fmt.Errorf("update %s: it is in the batch twice", old.name)
		}
		if s.NextNo < old.nextNo {
			return fmt.Errorf("update %s: next recording %d is before %d", old.name, s.NextNo, old.nextNo)
		}
		next[s.ID] = s.NextNo
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		err := CheckEntry(e)
		if err == nil && (k.entries(e.Kind)[e.ID] || has(b.Entries[:i], e.Kind, e.ID)) {
			err = fmt.Errorf("it %w", ErrExists)
		}
		if err != nil {
			return fmt.Errorf("insert %v sample entry %d: %w", e.Kind, e.ID, err)
		}
	}
	last := make(map[int32]int32)
	for i := range b.Add {
		r := &b.Add[i]
		streamID, no := SplitID(r.ID)
		err := k.check(r, b.Entries)
		if err == nil {
			if n, ok := next[streamID]; !ok || no >= n {
				err = fmt.Errorf("the stream's next recording is not set beyond %d", no)
			} else if l, ok := last[streamID]; ok && no <= l {
				err = fmt.Errorf("it comes after %d", l)
			}
		}
		if err != nil {
			return k.recordingError("insert", r.ID, err)
		}
		last[streamID] = no
	}
	for _, id := range b.Gone {
		if s, ok := k.streams[id]; !ok || !s.deleted {
			return fmt.Errorf("%s goes: as a deleted stream it is %w", k.streamName(id), ErrNotFound)
		}
	}
	for i := range b.Gaps {
		if err := k.checkGap(&b.Gaps[i]); err != nil {
			return fmt.Errorf("insert gap of %s: %w", k.streamName(b.Gaps[i].StreamID), err)
		}
	}
	return k.checkDiscard(b.Discard, next)
}

// checkDiscard finds garbage whose number its stream may still give to a
// recording, whose file would then be unlinked. next has the numbers that the
// same batch sets.
func (k *known) checkDiscard(garbage []Garbage, next map[int32]int32) error {
	for _, g := range garbage {
		streamID, no := SplitID(g.ID)
		var err error
		if s, ok := k.streams[streamID]; ok && int64(uint32(no)) >= int64(max(s.nextNo, next[streamID])) {
			err = fmt.Errorf("the stream's next recording is not set beyond %d", uint32(no))
		}
		if !k.dirs[g.DirID] {
			err = fmt.Errorf("sample directory %d: %w", g.DirID, ErrNotFound)
		}
		if err != nil {
			return k.recordingError("discard", g.ID, err)
		}
	}
	return nil
}

// tx is a write transaction.
type tx struct {
	*sql.Tx
	d   *DB
	ctx context.Context
}

// transact runs f in a write transaction, and once more when the disk was full
// and is not any more. The caller holds writing. An error that is Poisoned may
// come after the commit.
func (d *DB) transact(ctx context.Context, f func(*tx) error) error {
	if d.closed.Load() {
		return ErrClosed
	}
	if p := d.poison.Load(); p != nil {
		return p
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	err := d.attempt(ctx, f)
	if Full(err) && d.full != nil && d.full(err) {
		err = d.attempt(ctx, f)
	}
	if err == nil {
		err = d.checkpoint(ctx, checkpointAt)
	}
	if Poisoned(err) {
		d.poison.Store(&poisonError{err})
	}
	return err
}

func (d *DB) attempt(ctx context.Context, f func(*tx) error) error {
	t, err := d.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(&tx{t, d, ctx}); err != nil {
		if rollback := t.Rollback(); rollback != nil {
			err = fmt.Errorf("%w (and roll back: %w)", err, rollback)
		}
		return err
	}
	return t.Commit()
}

// exec runs a statement that must change exactly one row.
func (t *tx) exec(s *sql.Stmt, args ...any) error {
	r, err := t.StmtContext(t.ctx, s).ExecContext(t.ctx, args...)
	if err != nil {
		return err
	}
	return one(r)
}

func one(r sql.Result) error {
	n, err := r.RowsAffected()
	if err == nil && n != 1 {
		err = fmt.Errorf("%d rows changed, expected 1", n)
	}
	if err == nil || n != 0 {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotFound, err)
}

// totals is what the recordings of a stream change by.
type totals struct {
	recordings, bytes, fsBytes int64
	wall                       media.Duration
	deletes                    bool // recordings that were there before
}

func (t *tx) flush(b *Batch) error {
	w := &t.d.w
	k := &t.d.known
	if err := t.exec(w.updateOpen, b.Time, b.OpenDuration, b.OpenID); err != nil {
		return fmt.Errorf("update open %d: %w", b.OpenID, err)
	}
	for _, s := range b.Streams {
		if err := t.exec(w.updateStream, s.NextNo, s.CumMedia, s.CumRuns, s.ID); err != nil {
			return fmt.Errorf("update %s: %w", k.streamName(s.ID), err)
		}
	}
	for i := range b.Entries {
		if err := t.insertEntry(&b.Entries[i]); err != nil {
			return fmt.Errorf("insert %v sample entry %d: %w", b.Entries[i].Kind, b.Entries[i].ID, err)
		}
	}
	change := make(map[int32]*totals)
	of := func(id int64) *totals {
		streamID, _ := SplitID(id)
		if change[streamID] == nil {
			change[streamID] = new(totals)
		}
		return change[streamID]
	}
	for i := range b.Add {
		r := &b.Add[i]
		if err := t.insertRecording(r); err != nil {
			return k.recordingError("insert", r.ID, err)
		}
		c := of(r.ID)
		c.recordings++
		c.bytes += r.FileBytes
		c.fsBytes += r.FSBytes
		c.wall += r.WallDuration
	}
	if err := t.addToSpans(b.Add); err != nil {
		return fmt.Errorf("add to spans: %w", err)
	}
	var gone []deleted
	for _, id := range b.Delete {
		c := of(id)
		c.deletes = true
		g, err := t.deleteRecording(id, c)
		if err != nil {
			return k.recordingError("delete", id, err)
		}
		gone = append(gone, g)
	}
	if id, err := t.takeFromSpans(gone); err != nil {
		return k.recordingError("delete", id, fmt.Errorf("take from spans: %w", err))
	}
	if err := t.flushGaps(b); err != nil {
		return fmt.Errorf("write gaps: %w", err)
	}
	for id, c := range maps.All(change) {
		if err := t.exec(w.addTotals, c.recordings, c.bytes, c.fsBytes, c.wall, id); err != nil {
			err = fmt.Errorf("update totals: %w", err)
			if !c.deletes {
				return fmt.Errorf("%s: %w", k.streamName(id), err)
			}
			return k.recordingError("delete", CompositeID(id, 0), err)
		}
	}
	for _, id := range b.Gone {
		if err := t.dropStream(id); err != nil {
			return k.recordingError("delete", CompositeID(id, 0), err)
		}
	}
	if err := t.discard(b.Discard); err != nil {
		return err
	}
	for _, g := range b.Collected {
		err := t.exec(w.collectGarbage, g.DirID, g.ID)
		if errors.Is(err, ErrNotFound) && k.dirs[g.DirID] {
			continue // a row that is gone is no reason to hold up everything else
		}
		if err != nil {
			return fmt.Errorf("collect garbage %s of sample directory %d: %w", idString(g.ID), g.DirID, err)
		}
	}
	return nil
}

func (t *tx) insertEntry(e *SampleEntry) error {
	if e.Kind == media.Audio {
		return t.exec(t.d.w.insertAudio, e.ID, e.Format, e.Codec, e.Timescale, e.Config, e.Channels, e.SampleRate)
	}
	return t.exec(t.d.w.insertVideo, e.ID, e.Format, e.Codec, e.Timescale, e.Config, e.Width, e.Height, e.PaspH, e.PaspV)
}

func (t *tx) insertRecording(r *NewRecording) error {
	w := &t.d.w
	if err := t.exec(w.insertRecording, recordingArgs(&r.Recording)...); err != nil {
		return err
	}
	i := &r.Integrity
	if err := t.exec(w.insertIntegrity, r.ID, i.LocalTimeDelta, i.MonotonicSinceOpen, i.WallEndDelta); err != nil {
		return fmt.Errorf("integrity: %w", err)
	}
	p := &r.Playback
	if err := t.exec(w.insertPlayback, r.ID, p.Video, orNull(p.Offsets), orNull(p.Audio), p.Fragments); err != nil {
		return fmt.Errorf("playback: %w", err)
	}
	return nil
}

// recordingColumns are the columns of recording after the stream id, in the
// order of recordingArgs and recordingOf.
const recordingColumns = `open_id, dir_id, run_offset, flags, file_bytes, fs_bytes, start_time_90k,
	prev_media_duration_90k, prev_runs, wall_duration_90k, media_duration_delta_90k,
	video_samples, key_samples, video_bytes, audio_samples, audio_bytes, fragments,
	video_sample_entry_id, audio_sample_entry_id, end_reason`

func recordingArgs(r *Recording) []any {
	return []any{
		r.ID, r.StreamID(), r.OpenID, r.DirID, r.RunOffset, r.Flags, r.FileBytes, r.FSBytes, r.Start,
		r.PrevMedia, r.PrevRuns, r.WallDuration, r.MediaDelta,
		r.VideoSamples, r.KeySamples, r.VideoBytes, r.AudioSamples, r.AudioBytes, r.Fragments,
		r.VideoEntry, sql.Null[int32]{V: r.AudioEntry, Valid: r.AudioEntry != 0},
		sql.Null[string]{V: r.EndReason, Valid: r.EndReason != ""},
	}
}

// orNull makes empty blobs NULL, in which nil and empty are the same.
func orNull(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// deleteRecording turns a recording into garbage and takes it off the totals.
func (t *tx) deleteRecording(id int64, c *totals) (g deleted, err error) {
	w := &t.d.w
	for _, s := range []*sql.Stmt{w.deleteIntegrity, w.deletePlayback} {
		if err := t.exec(s, id); err != nil {
			return g, err
		}
	}
	var dirID int32
	var fsBytes int64
	var start media.Time
	var wall media.Duration
	err = t.StmtContext(t.ctx, w.deleteRecording).QueryRowContext(t.ctx, id).Scan(&dirID, &g.bytes, &fsBytes, &start, &wall, &g.samples)
	if errors.Is(err, sql.ErrNoRows) {
		return g, ErrNotFound
	}
	if err != nil {
		return g, err
	}
	g.id, g.end = id, start.Add(wall)
	c.recordings--
	c.bytes -= g.bytes
	c.fsBytes -= fsBytes
	c.wall -= wall
	return g, t.exec(w.insertGarbage, dirID, id)
}

// flushGaps writes the gaps of a batch whose recordings are written.
func (t *tx) flushGaps(b *Batch) error {
	for i := range b.Gaps {
		if err := t.putGap(&b.Gaps[i]); err != nil {
			return err
		}
	}
	for i := range b.Add {
		r := &b.Add[i]
		if err := t.cutGaps(r.StreamID(), r.Start, r.End()); err != nil {
			return err
		}
	}
	shrunk := make(map[int32]bool)
	for _, id := range b.Delete {
		streamID, _ := SplitID(id)
		shrunk[streamID] = true
	}
	for id := range shrunk {
		if err := t.retainGaps(id); err != nil {
			return t.d.known.recordingError("delete", CompositeID(id, 0), err)
		}
	}
	return nil
}

// discard makes files garbage that are no recordings.
func (t *tx) discard(garbage []Garbage) error {
	for _, g := range garbage {
		var isRecording bool
		err := t.QueryRowContext(t.ctx, `SELECT EXISTS (SELECT 1 FROM recording WHERE composite_id = ? AND dir_id = ?)`,
			g.ID, g.DirID).Scan(&isRecording)
		if err == nil && isRecording {
			err = errors.New("it is committed")
		}
		if err == nil {
			_, err = t.StmtContext(t.ctx, t.d.w.discardGarbage).ExecContext(t.ctx, g.DirID, g.ID)
		}
		if err != nil {
			return t.d.known.recordingError("discard", g.ID, err)
		}
	}
	return nil
}
