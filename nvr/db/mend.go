package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
)

// Mend is what brings a database in line with its sample directories again: a
// repair, a new beginning from the directories alone, or the making good of
// what has happened since a backup. Normal running never needs it.
type Mend struct {
	// UUID, if set, becomes that of the database.
	UUID string

	// Opens, Dirs, Cameras and Streams are inserted under the ids they have. An
	// open that is there gets the uuid and the times. Counters of streams count, their
	// totals do not. Streams come without passwords.
	Opens   []OpenRow
	Dirs    []Dir
	Cameras []Camera
	Streams []Stream

	// Complete names directories by ID and sets their LastCompleteOpen.
	Complete []Dir

	// Drop are recordings whose files are gone, Trash are those whose files
	// become garbage. Neither needs to be whole.
	Drop, Trash []int64

	// Rewrite are recordings whose sizes, counts, durations and playback are
	// taken over. What a file does not say of itself stays as it is.
	Rewrite []NewRecording
	Entries []SampleEntry // new ones that Rewrite refers to

	// DropGarbage are garbage rows that go without their files.
	DropGarbage []Garbage

	// Totals has the totals of all streams added up anew, and lifts counters
	// that are below what the recordings say.
	Totals bool

	// NextNo moves the next number of streams, forward only.
	NextNo map[int32]int32

	// RetainBeyond, if set, makes the limit of each stream what it takes now and
	// this much more.
	RetainBeyond int64

	// LastStream: streams that are added later get higher ids.
	LastStream int32

	// EndSessions deletes all sessions and tokens: some may have been revoked
	// since the database was what it is.
	EndSessions bool
}

// Mend makes all of the change in ONE transaction, or nothing.
func (d *DB) Mend(ctx context.Context, m *Mend) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if d.writer == nil { // of Inspect
		w, err := d.openPool(writerDSN(d.path), 1, d.setUpWriter)
		if err != nil {
			return fmt.Errorf("mend database %s: %w", d.path, err)
		}
		d.writer = w
		if err := d.w.prepare(ctx, w); err != nil {
			return fmt.Errorf("mend database %s: %w", d.path, err)
		}
	}
	if err := d.transact(ctx, func(t *tx) error { return t.mend(m) }); err != nil {
		return fmt.Errorf("mend database %s: %w", d.path, err)
	}
	k, err := d.readKnown(ctx)
	if err != nil {
		return fmt.Errorf("mend database %s: %w", d.path, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known = k
	if m.UUID != "" {
		d.uuid = m.UUID
	}
	return nil
}

func (t *tx) mend(m *Mend) error {
	if m.UUID != "" {
		if err := t.change(`UPDATE meta SET uuid = ?`, m.UUID); err != nil {
			return fmt.Errorf("set uuid: %w", err)
		}
	}
	for _, o := range m.Opens {
		if err := t.change(`INSERT INTO open (id, uuid, boot_id, start_time_90k, end_time_90k, duration_90k)
			VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET uuid = excluded.uuid, start_time_90k = excluded.start_time_90k,
			end_time_90k = excluded.end_time_90k, duration_90k = excluded.duration_90k`, o.ID, orNewUUID(o.UUID), o.BootID, o.Start, max(o.Start, o.End), o.Duration); err != nil {
			return fmt.Errorf("insert open %d: %w", o.ID, err)
		}
	}
	for _, r := range m.Dirs {
		if err := t.change(`INSERT INTO sample_file_dir (id, uuid, path, last_complete_open_id) VALUES (?, ?, ?, ?)`,
			r.ID, orNewUUID(r.UUID), r.Path, idOrNull(r.LastCompleteOpen)); err != nil {
			return fmt.Errorf("insert sample directory %s: %w", r.Path, err)
		}
	}
	for _, c := range m.Cameras {
		if err := t.change(`INSERT INTO camera (id, uuid, name, description) VALUES (?, ?, ?, ?)`,
			c.ID, orNewUUID(c.UUID), c.Name, c.Description); err != nil {
			return fmt.Errorf("insert camera %q: %w", c.Name, err)
		}
	}
	for _, s := range m.Streams {
		if err := t.change(`INSERT INTO stream (id, camera_id, type, dir_id, url, username, transport,
				record, retain_bytes, flush_if_sec, cum_recordings, cum_media_duration_90k, cum_runs,
				total_recordings, total_file_bytes, total_fs_bytes, total_wall_duration_90k)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0)`,
			s.ID, s.CameraID, s.Type, s.DirID, s.URL, s.Username, s.Transport,
			s.Record, s.RetainBytes, s.FlushIfSec, s.NextNo, s.CumMedia, s.CumRuns); err != nil {
			return fmt.Errorf("insert stream %d: %w", s.ID, err)
		}
	}
	for _, r := range m.Complete {
		if err := t.change(`UPDATE sample_file_dir SET last_complete_open_id = ? WHERE id = ?`, idOrNull(r.LastCompleteOpen), r.ID); err != nil {
			return fmt.Errorf("complete open of sample directory %d: %w", r.ID, err)
		}
	}
	for i, ids := range [][]int64{m.Drop, m.Trash} {
		for _, id := range ids {
			if err := t.removeRecording(id, i == 1); err != nil {
				return t.d.known.recordingError("remove", id, err)
			}
		}
	}
	for i := range m.Entries {
		if err := t.insertEntry(&m.Entries[i]); err != nil {
			return fmt.Errorf("insert %v sample entry %d: %w", m.Entries[i].Kind, m.Entries[i].ID, err)
		}
	}
	for i := range m.Rewrite {
		if err := t.rewriteRecording(&m.Rewrite[i]); err != nil {
			return t.d.known.recordingError("rewrite", m.Rewrite[i].ID, err)
		}
	}
	for _, g := range m.DropGarbage {
		if err := t.change(`DELETE FROM garbage WHERE dir_id = ? AND composite_id = ?`, g.DirID, g.ID); err != nil {
			return fmt.Errorf("drop garbage %s: %w", idString(g.ID), err)
		}
	}
	for id, no := range m.NextNo {
		if err := t.change(`UPDATE stream SET cum_recordings = max(cum_recordings, ?) WHERE id = ?`, no, id); err != nil {
			return fmt.Errorf("set next recording of %s: %w", t.d.known.streamName(id), err)
		}
	}
	if m.LastStream > 0 {
		// AUTOINCREMENT goes by this row, which is there once a stream was.
		r, err := t.ExecContext(t.ctx, `UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'stream'`, m.LastStream)
		if err == nil {
			var n int64
			if n, err = r.RowsAffected(); err == nil && n == 0 {
				_, err = t.ExecContext(t.ctx, `INSERT INTO sqlite_sequence (name, seq) VALUES ('stream', ?)`, m.LastStream)
			}
		}
		if err != nil {
			return fmt.Errorf("set the last id of streams: %w", err)
		}
	}
	if m.Totals || len(m.Drop) > 0 || len(m.Trash) > 0 || len(m.Rewrite) > 0 {
		if err := t.addUp(m.Totals); err != nil {
			return err
		}
		if err := t.remakeSpans(); err != nil {
			return fmt.Errorf("make spans anew: %w", err)
		}
	}
	if m.EndSessions {
		if _, err := t.ExecContext(t.ctx, `DELETE FROM user_session`); err != nil {
			return fmt.Errorf("end sessions: %w", err)
		}
	}
	if m.RetainBeyond > 0 {
		if _, err := t.ExecContext(t.ctx, `UPDATE stream SET retain_bytes = total_fs_bytes + ?`, m.RetainBeyond); err != nil {
			return fmt.Errorf("set limits of streams: %w", err)
		}
	}
	return nil
}

// Checkpoint takes the whole log over into the database file, so that the file
// alone is the database. Nobody may read meanwhile.
func (d *DB) Checkpoint(ctx context.Context) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	var busy, log, done int64
	err := d.writer.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &log, &done)
	if err == nil && busy != 0 {
		err = errors.New("somebody reads it")
	}
	if err != nil {
		return fmt.Errorf("checkpoint of database %s: %w", d.path, err)
	}
	return nil
}

// addUp makes the totals of streams what their rows add up to, and with
// counters lifts those.
func (t *tx) addUp(counters bool) error {
	if _, err := t.ExecContext(t.ctx, `UPDATE stream SET
		(total_recordings, total_file_bytes, total_fs_bytes, total_wall_duration_90k) =
		(SELECT count(*), coalesce(sum(file_bytes), 0), coalesce(sum(fs_bytes), 0), coalesce(sum(wall_duration_90k), 0)
			FROM recording r WHERE r.stream_id = stream.id)`); err != nil {
		return fmt.Errorf("add up streams: %w", err)
	}
	if !counters {
		return nil
	}
	if _, err := t.ExecContext(t.ctx, `UPDATE stream SET
		(cum_recordings, cum_media_duration_90k, cum_runs) =
		(SELECT max(cum_recordings, coalesce(max((composite_id & 0x7fffffff) + 1), 0)),
			max(cum_media_duration_90k, coalesce(max(prev_media_duration_90k + wall_duration_90k + media_duration_delta_90k), 0)),
			max(cum_runs, coalesce(max(prev_runs + (run_offset = 0)), 0))
			FROM recording r WHERE r.stream_id = stream.id)`); err != nil {
		return fmt.Errorf("lift counters of streams: %w", err)
	}
	return nil
}

// remakeSpans makes the spans of all streams anew from their recordings: a mend
// removes and rewrites these anywhere.
func (t *tx) remakeSpans() error {
	if _, err := t.ExecContext(t.ctx, `DELETE FROM span`); err != nil {
		return err
	}
	var streams []int32
	err := query(t.ctx, t, `SELECT id FROM stream`, nil, func(scan func(...any) error) error {
		var id int32
		err := scan(&id)
		streams = append(streams, id)
		return err
	})
	for _, id := range streams {
		if err == nil {
			err = t.makeSpans(id, 0, math.MaxInt32)
		}
	}
	return err
}

// removeRecording takes away whatever there is of a recording.
func (t *tx) removeRecording(id int64, garbage bool) error {
	for _, s := range []string{
		`DELETE FROM recording_integrity WHERE composite_id = ?`,
		`DELETE FROM recording_playback WHERE composite_id = ?`,
	} {
		if _, err := t.ExecContext(t.ctx, s, id); err != nil {
			return err
		}
	}
	var dirID int32
	err := t.QueryRowContext(t.ctx, `DELETE FROM recording WHERE composite_id = ? RETURNING dir_id`, id).Scan(&dirID)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	if err == nil && garbage {
		_, err = t.ExecContext(t.ctx, `INSERT INTO garbage (dir_id, composite_id) VALUES (?, ?) ON CONFLICT DO NOTHING`, dirID, id)
	}
	return err
}

func (t *tx) rewriteRecording(r *NewRecording) error {
	err := t.change(`UPDATE recording SET flags = ?, file_bytes = ?, fs_bytes = ?,
			wall_duration_90k = ?, media_duration_delta_90k = ?, video_samples = ?, key_samples = ?, video_bytes = ?,
			audio_samples = ?, audio_bytes = ?, fragments = ?, video_sample_entry_id = ?, audio_sample_entry_id = ?
		WHERE composite_id = ?`, r.Flags, r.FileBytes, r.FSBytes,
		r.WallDuration, r.MediaDelta, r.VideoSamples, r.KeySamples, r.VideoBytes,
		r.AudioSamples, r.AudioBytes, r.Recording.Fragments, r.VideoEntry, idOrNull(r.AudioEntry), r.ID)
	if err != nil {
		return err
	}
	p := &r.Playback
	if err := t.change(`INSERT OR REPLACE INTO recording_playback (composite_id, video, offsets, audio, fragments)
		VALUES (?, ?, ?, ?, ?)`, r.ID, p.Video, orNull(p.Offsets), orNull(p.Audio), p.Fragments); err != nil {
		return fmt.Errorf("playback: %w", err)
	}
	if _, err := t.ExecContext(t.ctx, `INSERT OR IGNORE INTO recording_integrity
		(composite_id, local_time_delta_90k, monotonic_since_open_90k, wall_end_delta_90k) VALUES (?, NULL, ?, NULL)`,
		r.ID, r.MonotonicSinceOpen); err != nil {
		return fmt.Errorf("integrity: %w", err)
	}
	return nil
}

func orNewUUID(uuid string) string {
	if uuid == "" {
		return newUUID()
	}
	return uuid
}

func idOrNull(id int32) sql.Null[int32] { return sql.Null[int32]{V: id, Valid: id != 0} }
