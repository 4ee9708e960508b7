package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"

	"holdfast/nvr/media"
)

// ErrStop, returned by the function given to Recordings or RecordingsByNo,
// ends the reading without an error.
var ErrStop = errors.New("stop")

// readStatements are prepared on the reading connections.
type readStatements struct {
	byTime, byNo, playback, ends   *sql.Stmt
	spans, clipSpan, gaps, lastGap *sql.Stmt
}

const (
	byTimeSQL = `SELECT composite_id, ` + recordingColumns + ` FROM recording INDEXED BY recording_cover
		WHERE stream_id = ? AND start_time_90k > ? AND start_time_90k < ? ORDER BY start_time_90k`
	byNoSQL = `SELECT composite_id, ` + recordingColumns + ` FROM recording
		WHERE composite_id >= ? AND composite_id < ? ORDER BY composite_id`
	playbackSQL = `SELECT video, offsets, audio, fragments FROM recording_playback WHERE composite_id = ?`

	// The last to end began less than MaxRecording before the last to begin.
	endsSQL = `SELECT
		(SELECT min(start_time_90k) FROM recording INDEXED BY recording_cover WHERE stream_id = ?1),
		(SELECT max(start_time_90k + wall_duration_90k) FROM recording INDEXED BY recording_cover
			WHERE stream_id = ?1 AND start_time_90k >
				(SELECT max(start_time_90k) FROM recording INDEXED BY recording_cover WHERE stream_id = ?1) - ?2)`
)

func (r *readStatements) prepare(ctx context.Context, p *sql.DB) error {
	for _, s := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&r.byTime, byTimeSQL},
		{&r.byNo, byNoSQL},
		{&r.playback, playbackSQL},
		{&r.ends, endsSQL},
		{&r.spans, spansSQL},
		{&r.clipSpan, clipSpanSQL},
		{&r.gaps, gapsSQL},
		{&r.lastGap, lastGapSQL},
	} {
		var err error
		if *s.to, err = p.PrepareContext(ctx, s.sql); err != nil {
			return fmt.Errorf("prepare %q: %w", s.sql, err)
		}
	}
	return nil
}

// Recordings calls f with each committed recording of the stream that has a
// part in [from, to), in order of their starts. A recording of duration 0
// has its start. The recording is valid until f returns.
//
// All rows come from one read transaction, which keeps the log from being
// taken over into the database: f should not wait for anybody.
func (d *DB) Recordings(ctx context.Context, streamID int32, from, to media.Time, f func(*Recording) error) error {
	if from >= to {
		return nil
	}
	after := media.Time(math.MinInt64)
	if from > after.Add(media.MaxRecording) {
		after = from.Add(-media.MaxRecording)
	}
	err := d.each(ctx, d.r.byTime, []any{streamID, after, to}, func(r *Recording) error {
		if r.End() <= from && r.Start < from {
			return nil
		}
		return f(r)
	})
	if err != nil {
		return fmt.Errorf("list recordings of %s: %w", d.streamName(streamID), err)
	}
	return nil
}

// RecordingsByNo calls f with each committed recording of the stream whose
// number is in [fromNo, toNo), in ascending order, as Recordings does.
func (d *DB) RecordingsByNo(ctx context.Context, streamID, fromNo, toNo int32, f func(*Recording) error) error {
	if err := d.each(ctx, d.r.byNo, []any{CompositeID(streamID, max(fromNo, 0)), CompositeID(streamID, max(toNo, 0))}, f); err != nil {
		return fmt.Errorf("list recordings %d … of %s: %w", fromNo, d.streamName(streamID), err)
	}
	return nil
}

func (d *DB) each(ctx context.Context, s *sql.Stmt, args []any, f func(*Recording) error) error {
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return d.readError(err)
	}
	defer rows.Close()
	var row [recordingFields]any
	var dest [recordingFields]any
	for i := range row {
		dest[i] = &row[i]
	}
	var r Recording
	for rows.Next() {
		if err := rows.Scan(dest[:]...); err != nil {
			return err
		}
		r = recordingOf(&row)
		if err := f(&r); err != nil {
			if errors.Is(err, ErrStop) {
				err = nil
			}
			return errors.Join(err, rows.Close())
		}
	}
	return d.readError(rows.Err())
}

// recordingFields is how many columns a query for recordings has:
// composite_id and recordingColumns.
const recordingFields = 21

// recordingOf makes a recording of a row. The tables are STRICT, so a value has
// the type of its column; database/sql would convert each through text, which
// takes most of the time of a list.
func recordingOf(row *[recordingFields]any) Recording {
	n := func(i int) int64 { v, _ := row[i].(int64); return v } // null is 0
	r := Recording{
		ID: n(0), OpenID: int32(n(1)), DirID: int32(n(2)), RunOffset: int32(n(3)), Flags: uint32(n(4)),
		FileBytes: n(5), FSBytes: n(6), Start: media.Time(n(7)), PrevMedia: media.Duration(n(8)), PrevRuns: int32(n(9)),
		WallDuration: media.Duration(n(10)), MediaDelta: media.Duration(n(11)),
		VideoSamples: int32(n(12)), KeySamples: int32(n(13)), VideoBytes: n(14),
		AudioSamples: int32(n(15)), AudioBytes: n(16), Fragments: int32(n(17)),
		VideoEntry: int32(n(18)), AudioEntry: int32(n(19)),
	}
	r.EndReason, _ = row[20].(string)
	return r
}

// Playback returns what playing the recording needs. It gives ErrNotFound
// when there is no such recording.
func (d *DB) Playback(ctx context.Context, id int64) (Playback, error) {
	var p Playback
	err := d.r.playback.QueryRowContext(ctx, id).Scan(&p.Video, &p.Offsets, &p.Audio, &p.Fragments)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		streamID, _ := SplitID(id)
		return Playback{}, fmt.Errorf("read playback of recording %s of %s: %w", idString(id), d.streamName(streamID), d.readError(err))
	}
	return p, nil
}

// Range returns when the first committed recording of the stream begins and
// when the last one ends; ok is false when there is none. It reads only the
// ends of an index.
func (d *DB) Range(ctx context.Context, streamID int32) (first, last media.Time, ok bool, err error) {
	var a, b sql.Null[media.Time]
	if err := d.r.ends.QueryRowContext(ctx, streamID, media.MaxRecording).Scan(&a, &b); err != nil {
		return 0, 0, false, fmt.Errorf("read range of %s: %w", d.streamName(streamID), d.readError(err))
	}
	return a.V, b.V, a.Valid, nil
}

// Integrity runs SQLite's own checks over the whole file, in a read
// transaction, and returns what they find; nothing when all is well. It reads
// every page: minutes on a large database.
func (d *DB) Integrity(ctx context.Context) ([]string, error) {
	found, err := d.integrity(ctx)
	if err != nil {
		return found, fmt.Errorf("check integrity of database %s: %w", d.path, d.readError(err))
	}
	return found, nil
}

func (d *DB) integrity(ctx context.Context) (found []string, err error) {
	t, err := d.reader.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer t.Rollback()
	return findings(ctx, t)
}

// findings are those of SQLite's own checks.
func findings(ctx context.Context, q querier) (found []string, err error) {
	err = query(ctx, q, `PRAGMA integrity_check`, nil, func(scan func(...any) error) error {
		var s string
		if err := scan(&s); err != nil {
			return err
		}
		if s == "ok" {
			return nil
		}
		// Of a table's pages it is many lines, behind one that names the database.
		n := len(found)
		for l := range strings.Lines(s) {
			if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "*** in database ") {
				found = append(found, l)
			}
		}
		if len(found) == n {
			found = append(found, s)
		}
		return nil
	})
	if err != nil {
		return found, err
	}
	err = query(ctx, q, `PRAGMA foreign_key_check`, nil, func(scan func(...any) error) error {
		var table, parent string
		var rowid sql.Null[int64]
		var key int
		if err := scan(&table, &rowid, &parent, &key); err != nil {
			return err
		}
		found = append(found, fmt.Sprintf("row %d of %s refers to a missing row of %s", rowid.V, table, parent))
		return nil
	})
	return found, err
}

// State returns everything a store must know at its start, from one read
// transaction. It reads no recordings: its work grows with cameras, sample
// entries and garbage only.
func (d *DB) State(ctx context.Context) (*State, error) {
	t, err := d.reader.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("read state: %w", d.readError(err))
	}
	defer t.Rollback()
	s, err := readState(ctx, t)
	if err == nil {
		err = query(ctx, t, `SELECT dir_id, composite_id FROM garbage ORDER BY dir_id, composite_id`, nil,
			func(scan func(...any) error) error {
				var r Garbage
				err := scan(&r.DirID, &r.ID)
				s.Garbage = append(s.Garbage, r)
				return err
			})
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", d.readError(err))
	}
	d.openPasswords(s)
	return s, nil
}

// readState reads all of the state but the garbage, of which there may be much.

func readState(ctx context.Context, t *sql.Tx) (*State, error) {
	s := new(State)
	for _, q := range []struct {
		sql string
		row func(scan func(...any) error) error
	}{
		{`SELECT d.id, d.uuid, d.path, coalesce(o.id, 0), coalesce(o.uuid, '')
			FROM sample_file_dir d LEFT JOIN open o ON o.id = d.last_complete_open_id ORDER BY d.id`,
			func(scan func(...any) error) error {
				var r Dir
				err := scan(&r.ID, &r.UUID, &r.Path, &r.LastCompleteOpen, &r.LastCompleteOpenUUID)
				s.Dirs = append(s.Dirs, r)
				return err
			}},
		{`SELECT id, uuid, name, description FROM camera WHERE deleted = 0 ORDER BY name`,
			func(scan func(...any) error) error {
				var r Camera
				err := scan(&r.ID, &r.UUID, &r.Name, &r.Description)
				s.Cameras = append(s.Cameras, r)
				return err
			}},
		{`SELECT s.id, camera_id, dir_id, type, url, username, transport, record, retain_bytes, flush_if_sec,
			cum_recordings, cum_media_duration_90k, cum_runs,
			total_recordings, total_file_bytes, total_fs_bytes, total_wall_duration_90k, coalesce(retain_days, 0), owed_from_90k, sealed_password,
			c.deleted FROM stream s JOIN camera c ON c.id = s.camera_id ORDER BY s.id`,
			func(scan func(...any) error) error {
				var r Stream
				var sealed []byte
				var deleted bool
				err := scan(&r.ID, &r.CameraID, &r.DirID, &r.Type, &r.URL, &r.Username, &r.Transport, &r.Record,
					&r.RetainBytes, &r.FlushIfSec, &r.NextNo, &r.CumMedia, &r.CumRuns,
					&r.Recordings, &r.Bytes, &r.FSBytes, &r.Duration, &r.RetainDays, &r.OwedFrom, &sealed, &deleted)
				if deleted {
					s.Deleted = append(s.Deleted, r)
					return err
				}
				s.sealed = append(s.sealed, sealed)
				s.Streams = append(s.Streams, r)
				return err
			}},
		{`SELECT id, format, codec, timescale, config, width, height, pasp_h, pasp_v FROM video_sample_entry ORDER BY id`,
			func(scan func(...any) error) error {
				r := SampleEntry{SampleEntry: media.SampleEntry{Kind: media.Video}}
				err := scan(&r.ID, &r.Format, &r.Codec, &r.Timescale, &r.Config, &r.Width, &r.Height, &r.PaspH, &r.PaspV)
				s.Entries = append(s.Entries, r)
				return err
			}},
		{`SELECT id, format, codec, timescale, config, channels, sample_rate FROM audio_sample_entry ORDER BY id`,
			func(scan func(...any) error) error {
				r := SampleEntry{SampleEntry: media.SampleEntry{Kind: media.Audio}}
				err := scan(&r.ID, &r.Format, &r.Codec, &r.Timescale, &r.Config, &r.Channels, &r.SampleRate)
				s.Entries = append(s.Entries, r)
				return err
			}},
	} {
		if err := query(ctx, t, q.sql, nil, q.row); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (d *DB) readKnown(ctx context.Context) (known, error) {
	s, err := d.State(ctx)
	if err != nil {
		return known{}, err
	}
	k := known{
		opens:   make(map[int32]bool),
		dirs:    make(map[int32]bool),
		cameras: make(map[int32]string),
		streams: make(map[int32]knownStream),
		video:   make(map[int32]bool),
		audio:   make(map[int32]bool),
	}
	for _, r := range s.Dirs {
		k.dirs[r.ID] = true
	}
	for _, r := range s.Cameras {
		k.cameras[r.ID] = r.Name
	}
	for _, r := range s.Streams {
		k.streams[r.ID] = knownStream{
			name: k.cameras[r.CameraID] + " " + r.Type, cameraID: r.CameraID, typ: r.Type, nextNo: r.NextNo,
		}
	}
	for _, r := range s.Deleted {
		k.streams[r.ID] = knownStream{
			name: "a deleted camera's " + r.Type, cameraID: r.CameraID, typ: r.Type, nextNo: math.MaxInt32, deleted: true,
		}
	}
	for _, r := range s.Entries {
		k.entries(r.Kind)[r.ID] = true
	}
	err = query(ctx, d.reader, `SELECT id FROM open`, nil, func(scan func(...any) error) error {
		var id int32
		err := scan(&id)
		k.opens[id] = true
		return err
	})
	return k, err
}

// Opens calls f with each open, the newest first, until it returns ErrStop.
func (d *DB) Opens(ctx context.Context, f func(OpenRow) error) error {
	err := query(ctx, d.reader, `SELECT id, uuid, boot_id, start_time_90k, end_time_90k, duration_90k FROM open ORDER BY id DESC`, nil,
		func(scan func(...any) error) error {
			var o OpenRow
			if err := scan(&o.ID, &o.UUID, &o.BootID, &o.Start, &o.End, &o.Duration); err != nil {
				return err
			}
			return f(o)
		})
	if err != nil && !errors.Is(err, ErrStop) {
		return fmt.Errorf("list opens: %w", d.readError(err))
	}
	return nil
}

// querier is a pool or a transaction.
type querier interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}

// query runs a query and calls row for each row of the answer.
func query(ctx context.Context, q querier, text string, args []any, row func(scan func(...any) error) error) error {
	rows, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// readError gives the error of a read after Close its name.
func (d *DB) readError(err error) error {
	if err != nil && d.closed.Load() {
		return ErrClosed
	}
	return err
}

func (d *DB) streamName(id int32) string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.known.streamName(id)
}
