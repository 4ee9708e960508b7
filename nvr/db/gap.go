package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"holdfast/nvr/media"
)

// Gap is time in which a stream should have recorded and did not.
type Gap struct {
	StreamID   int32
	Start, End media.Time
	Cause      string // one of Causes
	Detail     string // for people; may be empty
}

// Causes returns what the schema knows as the cause of a gap.
func Causes() []string {
	return []string{"unreachable", "login_refused", "no_frames", "bad_timestamps", "camera_ended",
		"disk_slow", "disk_full", "disk_error", "recorder_down", "clock", "other", "unknown"}
}

// MaxGapDetail is how long a detail may be, bytes.
const MaxGapDetail = 300

// CheckGap returns what Flush would refuse about a gap, which would keep it from
// inserting anything at all.
func (d *DB) CheckGap(g *Gap) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.known.checkGap(g)
}

func (k *known) checkGap(g *Gap) error {
	switch s, ok := k.streams[g.StreamID]; {
	case !ok || s.deleted:
		return fmt.Errorf("stream %d: %w", g.StreamID, ErrNotFound)
	case g.Start <= 0:
		return fmt.Errorf("start time %d is not after 1970", int64(g.Start))
	case g.End <= g.Start:
		return fmt.Errorf("it ends at %d and begins at %d", int64(g.End), int64(g.Start))
	case !slices.Contains(Causes(), g.Cause):
		return fmt.Errorf("cause %q is not known", g.Cause)
	case len(g.Detail) > MaxGapDetail || !utf8.ValidString(g.Detail):
		return fmt.Errorf("detail of %d bytes: at most %d fit, of valid text", len(g.Detail), MaxGapDetail)
	}
	return nil
}

const (
	gapColumns = `stream_id, start_time_90k, end_time_90k, cause, detail`

	insertGapSQL = `INSERT INTO gap (` + gapColumns + `) VALUES (?, ?, ?, ?, ?)`
	deleteGapSQL = `DELETE FROM gap WHERE stream_id = ? AND start_time_90k = ?`
	endGapSQL    = `UPDATE gap SET end_time_90k = ? WHERE stream_id = ? AND start_time_90k = ?`
	lastGapSQL   = `SELECT ` + gapColumns + ` FROM gap WHERE stream_id = ? AND start_time_90k < ? ORDER BY start_time_90k DESC LIMIT 1`

	// Gaps from before the oldest recording explain nothing any more.
	retainGapsSQL = `DELETE FROM gap WHERE stream_id = ?1 AND start_time_90k < ?2 AND end_time_90k <= ?2`

	// Gaps do not overlap, so at most one that begins before the range ends in it.
	gapsSQL = `SELECT ` + gapColumns + ` FROM gap WHERE stream_id = ?1 AND start_time_90k < ?3 AND end_time_90k > ?2
		AND start_time_90k >= coalesce((SELECT max(start_time_90k) FROM gap WHERE stream_id = ?1 AND start_time_90k <= ?2), ?2)
		ORDER BY start_time_90k`
)

// Gaps calls f with each committed gap of the stream that has a part in
// [from, to), in their order.
func (d *DB) Gaps(ctx context.Context, streamID int32, from, to media.Time, f func(*Gap) error) error {
	if from >= to {
		return nil
	}
	rows, err := d.r.gaps.QueryContext(ctx, streamID, from, to)
	if err == nil {
		err = func() error {
			defer rows.Close()
			for rows.Next() {
				var g Gap
				if err := rows.Scan(&g.StreamID, &g.Start, &g.End, &g.Cause, &g.Detail); err != nil {
					return err
				}
				if err := f(&g); err != nil {
					return err
				}
			}
			return rows.Err()
		}()
	}
	if err != nil {
		return fmt.Errorf("list gaps of %s: %w", d.streamName(streamID), d.readError(err))
	}
	return nil
}

// LastGap returns when the last gap of the stream ends; ok is false when there
// is none.
func (d *DB) LastGap(ctx context.Context, streamID int32) (end media.Time, ok bool, err error) {
	var g Gap
	err = d.r.lastGap.QueryRowContext(ctx, streamID, int64(math.MaxInt64)).Scan(&g.StreamID, &g.Start, &g.End, &g.Cause, &g.Detail)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read last gap of %s: %w", d.streamName(streamID), d.readError(err))
	}
	return g.End, true, nil
}

// lastGap returns the last gap of the stream that begins before a time.
func (t *tx) lastGap(streamID int32, before media.Time) (g Gap, ok bool, err error) {
	err = t.StmtContext(t.ctx, t.d.w.lastGap).QueryRowContext(t.ctx, streamID, before).Scan(&g.StreamID, &g.Start, &g.End, &g.Cause, &g.Detail)
	if errors.Is(err, sql.ErrNoRows) {
		return g, false, nil
	}
	return g, err == nil, err
}

// putGap inserts a gap, or makes the one before it longer that it adjoins and
// that has the same cause. What was known of its time before is replaced.
func (t *tx) putGap(g *Gap) error {
	if err := t.cutGaps(g.StreamID, g.Start, g.End); err != nil {
		return err
	}
	old, ok, err := t.lastGap(g.StreamID, g.Start)
	if err != nil {
		return err
	}
	if ok && old.End == g.Start && old.Cause == g.Cause {
		return t.exec(t.d.w.endGap, g.End, g.StreamID, old.Start)
	}
	return t.exec(t.d.w.insertGap, g.StreamID, g.Start, g.End, g.Cause, g.Detail)
}

// cutGaps takes [from, to) off the gaps of the stream: it was recorded.
func (t *tx) cutGaps(streamID int32, from, to media.Time) error {
	w := &t.d.w
	for {
		g, ok, err := t.lastGap(streamID, to)
		if err != nil || !ok || g.End <= from {
			return err
		}
		if g.Start < from {
			err = t.exec(w.endGap, from, streamID, g.Start)
		} else {
			err = t.exec(w.deleteGap, streamID, g.Start)
		}
		if err == nil && g.End > to {
			err = t.exec(w.insertGap, streamID, to, g.End, g.Cause, g.Detail)
		}
		if err != nil {
			return err
		}
	}
}

// retainGaps deletes the gaps that are older than the oldest recording of the
// stream.
func (t *tx) retainGaps(streamID int32) error {
	var oldest sql.Null[media.Time]
	if err := t.StmtContext(t.ctx, t.d.w.oldest).QueryRowContext(t.ctx, streamID).Scan(&oldest); err != nil || !oldest.Valid {
		return err
	}
	_, err := t.StmtContext(t.ctx, t.d.w.retainGaps).ExecContext(t.ctx, streamID, oldest.V)
	return err
}
