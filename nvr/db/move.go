package db

import (
	"context"
	"errors"
	"fmt"
	"math"

	"holdfast/nvr/media"
)

// Move puts the recordings of opens at other times: their clock was set.
type Move struct {
	Opens   []OpenRow // with their times as they are to be; their ids follow each other
	Streams []StreamMove
}

// StreamMove moves recordings of a stream.
type StreamMove struct {
	ID          int32
	First, Next int32 // numbers of the first, and behind the last; other opens' stay
	By          media.Duration

	// OwedFrom, unless 0, is the new one.
	OwedFrom media.Time

	// Gaps, unless GapsFrom is 0, stand in the place of all gaps from there on.
	// The caller has asked CheckGap.
	GapsFrom media.Time
	Gaps     []Gap
}

// Move makes all of the change in ONE transaction, or nothing. What recordings
// have of a gap at their new place is taken off it. Its work grows with the
// number of recordings.
func (d *DB) Move(ctx context.Context, m *Move) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if len(m.Opens) == 0 {
		return errors.New("move recordings: of no open")
	}
	if err := d.transact(ctx, func(t *tx) error { return t.move(m) }); err != nil {
		return fmt.Errorf("move recordings: %w", err)
	}
	return nil
}

func (t *tx) move(m *Move) error {
	for i := range m.Opens {
		o := &m.Opens[i]
		if o.ID != m.Opens[0].ID+int32(i) {
			return fmt.Errorf("open %d does not follow the one before", o.ID)
		}
		r, err := t.ExecContext(t.ctx, `UPDATE open SET start_time_90k = ?, end_time_90k = ?, duration_90k = ? WHERE id = ?`,
			o.Start, o.End, o.Duration, o.ID)
		if err == nil {
			err = one(r)
		}
		if err != nil {
			return fmt.Errorf("open %d: %w", o.ID, err)
		}
	}
	for i := range m.Streams {
		if err := t.moveStream(m.Opens, &m.Streams[i]); err != nil {
			return fmt.Errorf("%s: %w", t.d.known.streamName(m.Streams[i].ID), err)
		}
	}
	return nil
}

func (t *tx) moveStream(opens []OpenRow, m *StreamMove) error {
	if _, ok := t.d.known.streams[m.ID]; !ok {
		return ErrNotFound
	}
	if m.OwedFrom != 0 {
		if _, err := t.ExecContext(t.ctx, `UPDATE stream SET owed_from_90k = ? WHERE id = ?`, m.OwedFrom, m.ID); err != nil {
			return err
		}
	}
	if m.GapsFrom != 0 {
		if err := t.cutGaps(m.ID, m.GapsFrom, math.MaxInt64); err != nil {
			return err
		}
	}
	if m.First < m.Next {
		first, next := CompositeID(m.ID, m.First), CompositeID(m.ID, m.Next)
		if _, err := t.ExecContext(t.ctx, `UPDATE recording SET start_time_90k = start_time_90k + ?
			WHERE composite_id >= ? AND composite_id < ? AND open_id BETWEEN ? AND ?`,
			m.By, first, next, opens[0].ID, opens[len(opens)-1].ID); err != nil {
			return err
		}
		if err := t.moveSpans(m); err != nil {
			return err
		}
	}
	for i := range m.Gaps {
		g := &m.Gaps[i]
		if g.StreamID != m.ID || g.Start < m.GapsFrom || m.GapsFrom == 0 {
			return errors.New("a gap is not of what is replaced")
		}
		if err := t.putGap(g); err != nil {
			return err
		}
	}
	return nil
}

// moveSpans makes the spans of moved recordings anew, for they end at other
// hours now, and takes their time off the gaps. No span reaches out of the range:
// one is of one open and one run.
func (t *tx) moveSpans(m *StreamMove) error {
	if _, err := t.ExecContext(t.ctx, `DELETE FROM span WHERE stream_id = ? AND first_no >= ? AND first_no < ?`,
		m.ID, m.First, m.Next); err != nil {
		return err
	}
	if err := t.makeSpans(m.ID, m.First, m.Next-1); err != nil {
		return err
	}
	var spans [][2]media.Time
	err := query(t.ctx, t, `SELECT start_time_90k, end_time_90k FROM span WHERE stream_id = ? AND first_no >= ? AND first_no < ?`,
		[]any{m.ID, m.First, m.Next}, func(scan func(...any) error) error {
			var s [2]media.Time
			err := scan(&s[0], &s[1])
			spans = append(spans, s)
			return err
		})
	for i := 0; err == nil && i < len(spans); i++ {
		err = t.cutGaps(m.ID, spans[i][0], spans[i][1])
	}
	return err
}
