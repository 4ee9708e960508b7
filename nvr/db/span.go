package db

import (
	"context"
	"database/sql"
	"fmt"
	"math"

	"holdfast/nvr/media"
)

// Span stands for recordings of one run that follow each other, in numbers and
// on the wall clock, under one open, with one sample entry, and that begin in
// the same six hours. Which recordings are in one span depends on each two that
// follow each other and on nothing else, so the spans of a stream can be made
// from its recordings at any time.
type Span struct {
	StreamID        int32
	FirstNo, LastNo int32 // numbers of its first and last recording
	RunNo           int32 // number of the first recording of the run
	OpenID          int32
	Start, End      media.Time
	VideoEntry      int32
	VideoSamples    int64
	FileBytes       int64
	TrailingZero    bool   // of the last recording
	EndReason       string // of the last recording
}

func spanOf(r *Recording) Span {
	s := Span{
		StreamID: r.StreamID(), FirstNo: r.No(), RunNo: r.No() - r.RunOffset, OpenID: r.OpenID,
		Start: r.Start, VideoEntry: r.VideoEntry,
	}
	s.take(r)
	return s
}

// takes reports whether the recording goes on where the span ends.
func (s *Span) takes(r *Recording) bool {
	return s.StreamID == r.StreamID() && s.LastNo+1 == r.No() && s.RunNo == r.No()-r.RunOffset && s.OpenID == r.OpenID &&
		s.VideoEntry == r.VideoEntry && s.End == r.Start && s.Start/media.Time(spanBlock) == r.Start/media.Time(spanBlock)
}

func (s *Span) take(r *Recording) {
	s.LastNo, s.End = r.No(), r.End()
	s.VideoSamples += int64(r.VideoSamples)
	s.FileBytes += r.FileBytes
	s.TrailingZero, s.EndReason = r.Flags&TrailingZero != 0, r.EndReason
}

// args are the columns of span, in the order of spanColumns.
func (s *Span) args() []any {
	zero := 0
	if s.TrailingZero {
		zero = 1
	}
	return []any{s.StreamID, s.Start, s.FirstNo, s.LastNo, s.RunNo, s.OpenID, s.End, s.VideoEntry, s.VideoSamples, s.FileBytes,
		zero, sql.Null[string]{V: s.EndReason, Valid: s.EndReason != ""}}
}

const (
	spanColumns = `stream_id, start_time_90k, first_no, last_no, run_no, open_id, end_time_90k, video_sample_entry_id,
		video_samples, file_bytes, trailing_zero, end_reason`
	spanFields = 12

	insertSpanSQL = `INSERT INTO span (` + spanColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	deleteSpanSQL = `DELETE FROM span WHERE stream_id = ? AND start_time_90k = ? AND first_no = ?`
	extendSpanSQL = `UPDATE span SET last_no = ?, end_time_90k = ?, video_samples = ?, file_bytes = ?, trailing_zero = ?, end_reason = ?
		WHERE stream_id = ? AND start_time_90k = ? AND first_no = ?`
	spanOfSQL = `SELECT ` + spanColumns + ` FROM span WHERE stream_id = ? AND first_no <= ? ORDER BY first_no DESC LIMIT 1`

	spansSQL = `SELECT ` + spanColumns + ` FROM span WHERE stream_id = ? AND start_time_90k > ? AND start_time_90k < ?
		ORDER BY start_time_90k`
	// What of a span lies in [?3, ?4).
	clipSpanSQL = `SELECT min(composite_id), max(composite_id), min(start_time_90k), max(start_time_90k + wall_duration_90k),
		sum(video_samples), sum(file_bytes) FROM recording
		WHERE composite_id BETWEEN ?1 AND ?2 AND start_time_90k < ?4
			AND (start_time_90k >= ?3 OR start_time_90k + wall_duration_90k > ?3)`
)

// spanFrom makes a span of a row.
func spanFrom(row *[spanFields]any) Span {
	n := func(i int) int64 { v, _ := row[i].(int64); return v }
	s := Span{
		StreamID: int32(n(0)), Start: media.Time(n(1)), FirstNo: int32(n(2)), LastNo: int32(n(3)), RunNo: int32(n(4)), OpenID: int32(n(5)),
		End: media.Time(n(6)), VideoEntry: int32(n(7)), VideoSamples: n(8), FileBytes: n(9), TrailingZero: n(10) != 0,
	}
	s.EndReason, _ = row[11].(string)
	return s
}

// Spans calls f with each span of the stream that has a part in [from, to), in
// order of their starts, without the recordings that are outside of it or whose
// number is not below belowNo. It is valid until f returns.
func (d *DB) Spans(ctx context.Context, streamID int32, from, to media.Time, belowNo int32, f func(*Span) error) error {
	if err := d.spans(ctx, streamID, from, to, belowNo, f); err != nil {
		return fmt.Errorf("list spans of %s: %w", d.streamName(streamID), d.readError(err))
	}
	return nil
}

func (d *DB) spans(ctx context.Context, streamID int32, from, to media.Time, belowNo int32, f func(*Span) error) error {
	if from >= to {
		return nil
	}
	const longest = spanBlock + media.MaxRecording
	after := media.Time(math.MinInt64)
	if from > after.Add(longest) {
		after = from.Add(-longest)
	}
	t, err := d.reader.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer t.Rollback()
	rows, err := t.StmtContext(ctx, d.r.spans).QueryContext(ctx, streamID, after, to)
	if err != nil {
		return err
	}
	defer rows.Close()
	var row, dest [spanFields]any
	for i := range row {
		dest[i] = &row[i]
	}
	for rows.Next() {
		if err := rows.Scan(dest[:]...); err != nil {
			return err
		}
		s := spanFrom(&row)
		if s.FirstNo >= belowNo || s.End < from {
			continue
		}
		if s.Start < from || s.End >= to || s.LastNo >= belowNo {
			ok, err := d.clip(ctx, t, &s, from, to, belowNo)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
		}
		if err := f(&s); err != nil {
			return err
		}
	}
	return rows.Err()
}

// clip takes off a span what is not in the range; ok is false when nothing is
// left.
func (d *DB) clip(ctx context.Context, t *sql.Tx, s *Span, from, to media.Time, belowNo int32) (ok bool, err error) {
	var first, last, samples, bytes sql.Null[int64]
	var start, end sql.Null[media.Time]
	err = t.StmtContext(ctx, d.r.clipSpan).QueryRowContext(ctx, CompositeID(s.StreamID, s.FirstNo),
		CompositeID(s.StreamID, min(s.LastNo, belowNo-1)), from, to).Scan(&first, &last, &start, &end, &samples, &bytes)
	if err != nil || !first.Valid {
		return false, err
	}
	_, s.FirstNo = SplitID(first.V)
	if _, no := SplitID(last.V); no != s.LastNo {
		s.LastNo, s.TrailingZero, s.EndReason = no, false, ""
	}
	s.Start, s.End, s.VideoSamples, s.FileBytes = start.V, end.V, samples.V, bytes.V
	return true, nil
}

// spanOf returns the span that the recording is in, or would go on.
func (t *tx) spanOf(streamID, no int32) (s Span, ok bool, err error) {
	rows, err := t.StmtContext(t.ctx, t.d.w.spanOf).QueryContext(t.ctx, streamID, no)
	if err != nil {
		return s, false, err
	}
	defer rows.Close()
	if !rows.Next() {
		return s, false, rows.Err()
	}
	var row, dest [spanFields]any
	for i := range row {
		dest[i] = &row[i]
	}
	if err := rows.Scan(dest[:]...); err != nil {
		return s, false, err
	}
	return spanFrom(&row), true, nil
}

func (t *tx) insertSpan(s *Span) error { return t.exec(t.d.w.insertSpan, s.args()...) }

func (t *tx) deleteSpan(s *Span) error {
	return t.exec(t.d.w.deleteSpan, s.StreamID, s.Start, s.FirstNo)
}

// addToSpans brings the spans up to date with recordings that were inserted
// behind all others of their streams.
func (t *tx) addToSpans(add []NewRecording) error {
	type growing struct {
		Span
		isRow bool
	}
	ends := make(map[int32]*growing)
	write := func(s *growing) error {
		if !s.isRow {
			return t.insertSpan(&s.Span)
		}
		a := s.args()
		return t.exec(t.d.w.extendSpan, a[3], a[6], a[8], a[9], a[10], a[11], s.StreamID, s.Start, s.FirstNo)
	}
	for i := range add {
		r := &add[i].Recording
		end := ends[r.StreamID()]
		if end == nil {
			s, ok, err := t.spanOf(r.StreamID(), r.No())
			if err != nil {
				return err
			}
			if end = (&growing{s, true}); ok {
				ends[s.StreamID] = end
			}
		}
		if end.takes(r) {
			end.take(r)
			continue
		}
		if end.StreamID != 0 {
			if err := write(end); err != nil {
				return err
			}
		}
		ends[r.StreamID()] = &growing{spanOf(r), false}
	}
	for _, s := range ends {
		if err := write(s); err != nil {
			return err
		}
	}
	return nil
}

// deleted is a recording whose row is gone.
type deleted struct {
	id      int64
	end     media.Time
	samples int64
	bytes   int64
}

// takeFromSpans brings the spans up to date with recordings that were deleted:
// mostly the first ones of a span, in their order. of is a recording of the stream
// that an error is about.
func (t *tx) takeFromSpans(gone []deleted) (of int64, err error) {
	var old, s Span // as in the database, and as it is to be
	write := func() error {
		if s == old {
			return nil
		}
		if err := t.deleteSpan(&old); err != nil || s.FirstNo > s.LastNo {
			return err
		}
		return t.insertSpan(&s)
	}
	for _, g := range gone {
		streamID, no := SplitID(g.id)
		if s.StreamID != streamID || s.FirstNo > no || s.LastNo < no {
			if err := write(); err != nil {
				return CompositeID(old.StreamID, 0), err
			}
			var ok bool
			if s, ok, err = t.spanOf(streamID, no); err != nil {
				return g.id, err
			}
			if old = s; !ok || s.LastNo < no {
				s, old = Span{}, Span{} // a damaged database; nvr check says so
				continue
			}
		}
		if no == s.FirstNo {
			s.FirstNo++
			s.Start = g.end
			s.VideoSamples -= g.samples
			s.FileBytes -= g.bytes
			continue
		}
		// From within: what is left is read again.
		if err := t.deleteSpan(&old); err != nil {
			return g.id, err
		}
		if err := t.makeSpans(streamID, s.FirstNo, s.LastNo); err != nil {
			return g.id, err
		}
		s, old = Span{}, Span{}
	}
	return CompositeID(old.StreamID, 0), write()
}

// makeSpans makes the spans of recordings [first, last], which are in none.
func (t *tx) makeSpans(streamID, first, last int32) error {
	var spans []Span
	err := query(t.ctx, t, `SELECT composite_id, `+recordingColumns+` FROM recording WHERE composite_id BETWEEN ? AND ? ORDER BY composite_id`,
		[]any{CompositeID(streamID, first), CompositeID(streamID, last)}, func(scan func(...any) error) error {
			var row, dest [recordingFields]any
			for i := range row {
				dest[i] = &row[i]
			}
			if err := scan(dest[:]...); err != nil {
				return err
			}
			r := recordingOf(&row)
			if n := len(spans); n > 0 && spans[n-1].takes(&r) {
				spans[n-1].take(&r)
			} else {
				spans = append(spans, spanOf(&r))
			}
			return nil
		})
	if err != nil {
		return err
	}
	for i := range spans {
		if err := t.insertSpan(&spans[i]); err != nil {
			return err
		}
	}
	return nil
}
