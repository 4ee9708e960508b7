package recordtest

import (
	"slices"
	"strings"
	"testing"

	"holdfast/nvr/mp4"
)

// made is a file of pictures that last 100 each, five to a fragment; it begins
// with frame first.
func made(no, runOffset int32, first, frames int, rewrites *mp4.Rewrites) *file {
	f := &file{About: &mp4.About{RecordingNo: no, RunOffset: runOffset, OpenUUID: "open", Rewrites: rewrites}}
	for i := range frames {
		if i%5 == 0 {
			f.pieces = append(f.pieces, piece{at: f.end})
		}
		frame := Frame{Recording: no, Duration: 100}
		frame.Frame = uint64(first + i)
		p := &f.pieces[len(f.pieces)-1]
		p.frames = append(p.frames, frame)
		f.end += 100
	}
	return f
}

// Of what was written again, the files hold each picture twice, or hardly once.
func TestWhatWasWrittenAgainCountsOnce(t *testing.T) {
	from := func(no int32, at int64) *mp4.Rewrites { return &mp4.Rewrites{RecordingNo: no, From90k: at} }
	other := func(f *file) *file { f.OpenUUID = "another"; return f }
	for _, c := range []struct {
		name   string
		files  []*file
		frames int // from 0 on, without a hole
		runs   int
		from   []int32 // the recordings that they are of
		err    string
	}{
		{"nothing was", []*file{made(1, 0, 0, 20, nil), made(2, 1, 20, 20, nil)}, 40, 1, []int32{1, 2}, ""},
		{"the group that was durable, too", []*file{made(1, 0, 0, 20, nil), made(2, 1, 10, 20, from(1, 1000))}, 30, 1, []int32{1, 2}, ""},
		{"the first reaches further", []*file{made(1, 0, 0, 20, nil), made(2, 1, 10, 5, from(1, 1000))}, 20, 1, []int32{1}, ""},
		{"all of it", []*file{made(1, 0, 0, 10, nil), made(2, 0, 0, 20, from(1, 0))}, 20, 1, []int32{2}, ""},
		{"it had no fragment", []*file{made(1, 0, 0, 0, nil), made(2, 0, 0, 20, from(1, 0))}, 20, 1, []int32{2}, ""},
		{"the second try failed, too", []*file{made(1, 0, 0, 20, nil), made(2, 1, 10, 15, from(1, 1000)), made(3, 1, 10, 20, from(1, 1000))},
			30, 1, []int32{1, 3}, ""},
		{"the second try is torn", []*file{made(1, 0, 0, 20, nil), made(2, 1, 10, 15, from(1, 1000)), made(3, 1, 10, 5, from(1, 1000))},
			25, 1, []int32{1, 2}, ""},
		{"the new file is empty", []*file{made(1, 0, 0, 20, nil), made(2, 1, 10, 0, from(1, 1000))}, 20, 1, []int32{1}, ""},
		{"one between moved behind it", []*file{made(1, 0, 0, 20, nil), made(2, 1, 20, 15, nil), made(3, 0, 10, 10, from(1, 1000)), made(4, 1, 20, 20, from(2, 0))},
			40, 2, []int32{1, 3, 4}, ""},
		{"an open before had the number", []*file{other(made(1, 0, 0, 20, nil)), made(2, 0, 20, 10, from(1, 1000))}, 30, 2, []int32{1, 2}, ""},
		{"a picture that was not durable", []*file{made(1, 0, 0, 20, nil), made(2, 1, 15, 20, from(1, 1000))}, 0, 0, nil, "another picture"},
		{"from within a group", []*file{made(1, 0, 0, 20, nil), made(2, 1, 12, 20, from(1, 1200))}, 0, 0, nil, "another picture"},
		{"twice without a word", []*file{made(1, 0, 0, 20, nil), made(2, 1, 10, 20, nil)}, 0, 0, nil, "frame 10 after frame 19"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := &Stream{}
			once, err := withoutCopies(c.files)
			if err == nil {
				err = st.take(once, map[string]*anchor{"open": {}, "another": {}})
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var from []int32
			for i, f := range st.Frames {
				if f.Frame != uint64(i) {
					t.Fatalf("picture %d is frame %d", i, f.Frame)
				}
				from = append(from, f.Recording)
			}
			if runs := st.Frames[len(st.Frames)-1].Run + 1; len(st.Frames) != c.frames || runs != c.runs {
				t.Errorf("%d pictures in %d runs, want %d in %d", len(st.Frames), runs, c.frames, c.runs)
			}
			if from = slices.Compact(from); !slices.Equal(from, c.from) {
				t.Errorf("they are of recordings %d, want %d", from, c.from)
			}
		})
	}
}
