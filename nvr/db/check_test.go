package db

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"holdfast/nvr/media"
)

// TestCheckAgreesWithSchema walks every bound of the schema's constraints: at
// the bound, one inside, one outside, and far off. What Check says of a row
// must be what SQLite says when the row is inserted.
func TestCheckAgreesWithSchema(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 10)
	const no = 20
	around := func(bounds ...int64) (values []int64) {
		for _, b := range append(bounds, math.MinInt32, math.MaxInt32) {
			values = append(values, b-1, b, b+1)
		}
		return values
	}
	around64 := func(bounds ...int64) []int64 {
		return append(around(bounds...), math.MinInt64, math.MinInt64+1, math.MaxInt64-1, math.MaxInt64)
	}
	fit32 := func(f func(r *NewRecording, v int32)) func(*NewRecording, int64) bool {
		return func(r *NewRecording, v int64) bool { f(r, int32(v)); return int64(int32(v)) == v }
	}
	is64 := func(f func(r *NewRecording, v int64)) func(*NewRecording, int64) bool {
		return func(r *NewRecording, v int64) bool { f(r, v); return true }
	}
	blob := func(v int64) []byte { return make([]byte, max(0, min(v, 3))) }
	const long = int64(media.MaxRecording)
	accepted, refused := 0, 0
	for _, c := range []struct {
		name   string
		values []int64
		set    func(r *NewRecording, v int64) bool // false: the type has no such value
	}{
		{"id", []int64{CompositeID(h.main.ID, 10), CompositeID(h.main.ID, math.MaxInt32-1), CompositeID(h.main.ID, math.MaxInt32),
			CompositeID(h.main.ID, -1), CompositeID(h.main.ID, math.MinInt32), CompositeID(h.main.ID+1, 0) - 1,
			CompositeID(99, 5), -CompositeID(h.main.ID, 10), 0, 5, -1, math.MinInt64, math.MaxInt64,
			CompositeID(h.main.ID, 9)}, // committed already
			is64(func(r *NewRecording, v int64) { r.ID, r.RunOffset = v, 0 })},
		{"open", around(0, int64(h.open.ID)), fit32(func(r *NewRecording, v int32) { r.OpenID = v })},
		{"dir", around(0, 2), fit32(func(r *NewRecording, v int32) { r.DirID = v })},
		{"run offset", around(0, no), fit32(func(r *NewRecording, v int32) { r.RunOffset = v })},
		{"flags", []int64{0, 1, 7, 8, math.MaxUint32}, is64(func(r *NewRecording, v int64) { r.Flags = uint32(v) })},
		{"file bytes", around64(0, 800, 900, 4096), is64(func(r *NewRecording, v int64) { r.FileBytes = v })},
		{"block bytes", around64(0, 1000), is64(func(r *NewRecording, v int64) { r.FileBytes, r.FSBytes = 1000, v })},
		{"start", around64(0), is64(func(r *NewRecording, v int64) { r.Start = media.Time(v) })},
		{"earlier media", around64(0), is64(func(r *NewRecording, v int64) { r.PrevMedia = media.Duration(v) })},
		{"earlier runs", around(0), fit32(func(r *NewRecording, v int32) { r.PrevRuns = v })},
		{"wall duration", around64(0, long), is64(func(r *NewRecording, v int64) { r.WallDuration, r.MediaDelta = media.Duration(v), 0 })},
		{"wall duration of less media", around64(0, 90, long), is64(func(r *NewRecording, v int64) { r.WallDuration, r.MediaDelta = media.Duration(v), -90 })},
		{"media duration", around64(0, -5_400_000, long-5_400_000), is64(func(r *NewRecording, v int64) { r.WallDuration, r.MediaDelta = 5_400_000, media.Duration(v) })},
		{"media duration of longest", around64(0, -long, 1-long), is64(func(r *NewRecording, v int64) { r.WallDuration, r.MediaDelta = media.MaxRecording-1, media.Duration(v) })},
		{"media duration of none", around64(0, long), is64(func(r *NewRecording, v int64) { r.WallDuration, r.MediaDelta = 0, media.Duration(v) })},
		{"video samples", around(0, 60), fit32(func(r *NewRecording, v int32) { r.VideoSamples = v })},
		{"key samples", around(0, 1800), fit32(func(r *NewRecording, v int32) { r.KeySamples = v })},
		{"video bytes", around64(0, 900, 1000), is64(func(r *NewRecording, v int64) { r.FileBytes, r.VideoBytes = 1000, v })},
		{"video bytes without audio", around64(0, 1000), is64(func(r *NewRecording, v int64) {
			r.FileBytes, r.VideoBytes, r.AudioSamples, r.AudioBytes = 1000, v, 0, 0
		})},
		{"audio samples", around(0), fit32(func(r *NewRecording, v int32) { r.AudioSamples = v })},
		{"audio samples of no bytes", around(0), fit32(func(r *NewRecording, v int32) { r.AudioSamples, r.AudioBytes = v, 0 })},
		{"audio bytes", around64(0, 200), is64(func(r *NewRecording, v int64) { r.FileBytes, r.AudioBytes = 1000, v })},
		{"fragments", around(0), fit32(func(r *NewRecording, v int32) { r.Recording.Fragments = v })},
		{"video entry", around(0), fit32(func(r *NewRecording, v int32) { r.VideoEntry = v })},
		{"audio entry", around(0), fit32(func(r *NewRecording, v int32) { r.AudioEntry = v })},
		{"audio entry of no audio", around(0), fit32(func(r *NewRecording, v int32) { r.AudioEntry, r.AudioSamples, r.AudioBytes = v, 0, 0 })},
		{"end reason", []int64{0, 1, maxEndReason - 1, maxEndReason, maxEndReason + 1}, is64(func(r *NewRecording, v int64) { r.EndReason = strings.Repeat("x", int(v)) })},
		{"end reason beyond ASCII", []int64{0, maxEndReason / 2, maxEndReason/2 + 1}, is64(func(r *NewRecording, v int64) { r.EndReason = strings.Repeat("ü", int(v)) })},
		{"end reason that is no text", []int64{1, maxEndReason, maxEndReason + 1}, is64(func(r *NewRecording, v int64) { r.EndReason = strings.Repeat("\xff", int(v)) })},
		{"video index", []int64{0, 1}, is64(func(r *NewRecording, v int64) { r.Video = blob(v) })},
		{"offsets", []int64{0, 1}, is64(func(r *NewRecording, v int64) { r.Offsets = blob(v) })},
		{"audio index", []int64{0, 1}, is64(func(r *NewRecording, v int64) { r.Audio = blob(v) })},
		{"fragment index", []int64{0, 1}, is64(func(r *NewRecording, v int64) { r.Playback.Fragments = blob(v) })},
	} {
		for _, v := range c.values {
			r := h.recording(h.main, no)
			if !c.set(&r, v) {
				continue
			}
			check := h.Check(&r)
			insert := h.tryInsert(&r)
			if (check == nil) != (insert == nil) {
				t.Errorf("%s %d: Check says %v, the schema says %v", c.name, v, check, insert)
			}
			if insert == nil {
				accepted++
			} else {
				refused++
			}
		}
	}
	t.Logf("%d rows accepted, %d refused", accepted, refused)
	if accepted < 50 || refused < 50 {
		t.Errorf("%d rows accepted, %d refused: the bounds are not reached", accepted, refused)
	}
}

// tryInsert inserts the recording as Flush does, without its checks, and
// rolls back.
func (h *house) tryInsert(r *NewRecording) error {
	h.t.Helper()
	t, err := h.writer.BeginTx(h.t.Context(), nil)
	h.must(err)
	defer t.Rollback()
	return (&tx{t, h.DB, h.t.Context()}).insertRecording(r)
}

// The id of another stream's number cannot be had through Recording, whose
// stream is part of its id; the schema refuses it all the same.
func TestSchemaRefusesIDOfAnotherStream(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 1)
	_, err := h.writer.Exec(`UPDATE recording SET stream_id = ?`, h.sub.ID)
	if !isCode(err, codeConstraint) || !strings.Contains(err.Error(), "composite_id >> 32 = stream_id") {
		t.Errorf("got %v", err)
	}
}

func TestCheckKnowsTheEntriesOfTheBatch(t *testing.T) {
	h := newHouse(t)
	r := h.recording(h.main, 0)
	if err := h.Check(&r); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, expected %v", err, ErrNotFound)
	}
	h.must(h.Check(&r, videoEntry, audioEntry))
	flat := videoEntry
	flat.Height = 0
	if err := h.Check(&r, flat, audioEntry); err == nil {
		t.Error("an entry that Flush refuses counts as there")
	}
}

func TestCheckEntryAgreesWithSchema(t *testing.T) {
	h := newHouse(t)
	for i, spoil := range []func(*SampleEntry){
		func(e *SampleEntry) {},
		func(e *SampleEntry) { e.ID = 0 },
		func(e *SampleEntry) { e.ID = -1 },
		func(e *SampleEntry) { e.ID = math.MaxInt32 },
		func(e *SampleEntry) { e.Format = "" },
		func(e *SampleEntry) { e.Codec = "" },
		func(e *SampleEntry) { e.Timescale = 0 },
		func(e *SampleEntry) { e.Timescale = math.MaxUint32 },
		func(e *SampleEntry) { e.Config = []byte{} },
		func(e *SampleEntry) { e.Width, e.Channels = 0, 0 },
		func(e *SampleEntry) { e.Width, e.Channels = math.MaxUint16, math.MaxUint16 },
		func(e *SampleEntry) { e.Height, e.SampleRate = 0, 0 },
		func(e *SampleEntry) { e.Height, e.SampleRate = math.MaxUint16, math.MaxUint32 },
		func(e *SampleEntry) { e.PaspH = 0 },
		func(e *SampleEntry) { e.PaspV = 0 },
	} {
		for _, e := range []SampleEntry{videoEntry, audioEntry} {
			e.Config = bytes.Clone(e.Config)
			spoil(&e)
			tr, err := h.writer.BeginTx(t.Context(), nil)
			h.must(err)
			insert := (&tx{tr, h.DB, t.Context()}).insertEntry(&e)
			h.must(tr.Rollback())
			if check := CheckEntry(&e); (check == nil) != (insert == nil) {
				t.Errorf("case %d, %v: CheckEntry says %v, the schema says %v", i, e.Kind, check, insert)
			}
		}
	}
}

// Every column of recording is in the index that serves lists.
func TestListsNeverTouchTheTable(t *testing.T) {
	h := newHouse(t)
	h.fill(3, h.main)
	for name, c := range map[string]struct {
		sql  string
		args []any
		want []string
	}{
		"by time": {byTimeSQL, []any{1, 2, 3}, []string{"SEARCH recording USING COVERING INDEX recording_cover (stream_id=? AND start_time_90k>? AND start_time_90k<?)"}},
		"ends": {endsSQL, []any{1, 2}, []string{
			"SCALAR SUBQUERY N", "SEARCH recording USING COVERING INDEX recording_cover (stream_id=?)",
			"SCALAR SUBQUERY N", "SEARCH recording USING COVERING INDEX recording_cover (stream_id=? AND start_time_90k>?)",
			"SCALAR SUBQUERY N", "SEARCH recording USING COVERING INDEX recording_cover (stream_id=?)"}},
		"by number":     {byNoSQL, []any{1, 2}, []string{"SEARCH recording USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"}},
		"delete stream": {`DELETE FROM stream WHERE id = ?`, []any{1}, []string{"SEARCH stream USING INTEGER PRIMARY KEY (rowid=?)"}},
	} {
		got := h.plan(c.sql, c.args...)
		plan := strings.Join(got, "; ")
		if strings.Contains(plan, "SCAN recording") || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s: %s", name, plan)
		}
		uses := 0
		for _, w := range c.want {
			if strings.Contains(plan, strings.TrimSuffix(w, "N")) {
				uses++
			}
		}
		if uses != len(c.want) {
			t.Errorf("%s: the plan is %s, expected %s", name, plan, strings.Join(c.want, "; "))
		}
	}
}

func (h *house) plan(text string, args ...any) (steps []string) {
	h.t.Helper()
	h.must(query(h.t.Context(), h.reader, "EXPLAIN QUERY PLAN "+text, args, func(scan func(...any) error) error {
		var id, parent, unused any
		var step string
		err := scan(&id, &parent, &unused, &step)
		steps = append(steps, step)
		return err
	}))
	return steps
}

func TestListHasWhatOverlapsTheRange(t *testing.T) {
	h := newHouse(t)
	b := h.batch(h.main, 0, 4)
	at := func(minutes float64) media.Time {
		return testEpoch.Add(media.Duration(minutes * float64(media.Minute)))
	}
	for i, r := range []struct {
		start media.Time
		wall  media.Duration
	}{
		{at(0), media.MaxRecording - 1}, // reaches over the next
		{at(1), media.Minute},
		{at(2), 0}, // one sample
		{at(10), media.Minute},
	} {
		b.Add[i].Start, b.Add[i].WallDuration, b.Add[i].MediaDelta = r.start, r.wall, 0
	}
	h.must(h.Flush(t.Context(), b))
	h.add(h.sub, 0, 20)
	for _, c := range []struct {
		from, to media.Time
		want     []int32
	}{
		{math.MinInt64, math.MaxInt64, []int32{0, 1, 2, 3}},
		{0, at(0), nil},
		{0, at(0) + 1, []int32{0}},
		{at(1), at(2), []int32{0, 1}},
		{at(2), at(2) + 1, []int32{0, 2}},
		{at(2) + 1, at(3), []int32{0}},
		{at(2), at(2), nil},
		{at(5) - 2, at(10), []int32{0}},
		{at(5) - 1, at(10), nil},
		{at(11) - 1, at(20), []int32{3}},
		{at(11), at(20), nil},
	} {
		var got []int32
		h.must(h.Recordings(t.Context(), h.main.ID, c.from, c.to, func(r *Recording) error { got = append(got, r.No()); return nil }))
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("[%v, %v): recordings %v, expected %v", c.from, c.to, got, c.want)
		}
	}
	first, last, ok, err := h.Range(t.Context(), h.main.ID)
	if first != at(0) || last != at(11) || !ok || err != nil {
		t.Errorf("range is %v, %v, %v, %v", first, last, ok, err)
	}
}

func TestRangeEndsWithTheLastToEnd(t *testing.T) {
	h := newHouse(t)
	if _, _, ok, err := h.Range(t.Context(), h.main.ID); ok || err != nil {
		t.Errorf("empty stream: %v, %v", ok, err)
	}
	b := h.batch(h.main, 0, 2)
	b.Add[0].WallDuration = 4 * media.Minute
	h.must(h.Flush(t.Context(), b))
	if _, last, _, err := h.Range(t.Context(), h.main.ID); last != b.Add[0].End() || err != nil {
		t.Errorf("last end is %v, %v, expected %v", last, err, b.Add[0].End())
	}
}

func TestReadingStopsWhenTold(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 5)
	n := 0
	h.must(h.RecordingsByNo(t.Context(), h.main.ID, 1, 4, func(r *Recording) error {
		n++
		if r.No() == 2 {
			return ErrStop
		}
		return nil
	}))
	if n != 2 {
		t.Errorf("%d recordings read, expected 2", n)
	}
	mine := errors.New("mine")
	if err := h.RecordingsByNo(t.Context(), h.main.ID, 0, 9, func(*Recording) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("got %v, expected %v", err, mine)
	}
	open := h.reader.Stats()
	if open.InUse != 0 {
		t.Errorf("%d connections still in use", open.InUse)
	}
}
