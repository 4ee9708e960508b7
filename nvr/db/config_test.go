package db

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStreamIDsNeverComeBack(t *testing.T) {
	h := newHouse(t)
	last := h.sub.ID
	for range 3 {
		h.must(h.ApplyConfig(t.Context(), &Change{DeleteCameras: []int32{h.front.ID}}))
		h.reopen()
		c := h.addCamera("front")
		if c.Streams[0].ID <= last || c.Camera.ID <= h.front.ID {
			t.Fatalf("camera %d with stream %d after camera %d with stream %d", c.Camera.ID, c.Streams[0].ID, h.front.ID, last)
		}
		h.front, last = c.Camera, c.Streams[1].ID
	}
	// Nor does the id of a stream that was last when it was deleted alone.
	h.must(h.ApplyConfig(t.Context(), &Change{DeleteStreams: []int32{last}}))
	c := &Change{Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{{Type: "sub", DirID: 1}}}}}
	h.must(h.ApplyConfig(t.Context(), c))
	if got := c.Cameras[0].Streams[0].ID; got <= last {
		t.Errorf("stream %d after stream %d", got, last)
	}
}

// A deleted camera is out of sight at once, and what it had can be given again;
// its recordings go with later flushes, and what is left with the last of them.
func TestDeletedCameraGoesByAndBy(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 3)
	h.add(h.sub, 0, 2)
	h.flushGaps(h.gap(h.main, 4, 5, "unreachable"))
	other := h.addCamera("other")
	h.add(other.Streams[0], 0, 1)
	h.changeUsers(AccessChange{Users: []User{{Name: "ben", PasswordHash: "x", Cameras: map[int32]uint8{h.front.ID: 1}}}})
	unborn := Garbage{h.main.DirID, CompositeID(h.main.ID, 3)} // a file without a row
	h.must(h.ApplyConfig(t.Context(), &Change{DeleteCameras: []int32{h.front.ID}, Garbage: []Garbage{unborn}}))
	h.must(h.ApplyConfig(t.Context(), &Change{Cameras: []CameraChange{{Camera: Camera{Name: "front", UUID: h.front.UUID},
		Streams: []Stream{{Type: "main", DirID: h.dirs[0].ID}}}}}))
	for range 2 {
		s := h.state()
		if diff := cmp.Diff([]Garbage{unborn}, s.Garbage); diff != "" {
			t.Error(diff)
		}
		if len(s.Cameras) != 2 || s.Cameras[0].Name != "front" || s.Cameras[1].Name != "other" || len(s.Streams) != 3 {
			t.Errorf("cameras %v, streams %v", s.Cameras, s.Streams)
		}
		if len(s.Deleted) != 2 || s.Deleted[0].ID != h.main.ID || s.Deleted[0].Recordings != 3 || s.Deleted[0].Record || s.Deleted[0].URL != "" {
			t.Fatalf("deleted %+v", s.Deleted)
		}
		if users, _ := h.access(); len(users) != 1 || len(users[0].Cameras) != 0 {
			t.Errorf("users %+v", users)
		}
		r := h.recording(h.main, 4)
		if err := h.Check(&r); !errors.Is(err, ErrNotFound) {
			t.Errorf("check of a recording of a deleted stream: got %v, expected %v", err, ErrNotFound)
		}
		g := h.gap(h.main, 8, 9, "other")
		if err := h.CheckGap(&g); !errors.Is(err, ErrNotFound) {
			t.Errorf("check of a gap of a deleted stream: got %v, expected %v", err, ErrNotFound)
		}
		for _, c := range []Change{{DeleteStreams: []int32{h.main.ID}}, {DeleteCameras: []int32{h.front.ID}}} {
			if err := h.ApplyConfig(t.Context(), &c); !errors.Is(err, ErrNotFound) {
				t.Errorf("deleted again: %v", err)
			}
		}
		h.sane()
		h.reopen()
	}
	if err := h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Gone: []int32{h.main.ID}}); err == nil {
		t.Error("a stream goes before its recordings")
	}
	if err := h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Gone: []int32{other.Streams[0].ID}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a stream goes that is not deleted: %v", err)
	}
	ids := func(s Stream, numbers ...int32) (list []int64) {
		for _, no := range numbers {
			list = append(list, CompositeID(s.ID, no))
		}
		return list
	}
	h.must(h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Delete: ids(h.main, 0, 1)}))
	h.sane()
	h.must(h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Delete: ids(h.main, 2), Gone: []int32{h.main.ID}}))
	h.sane()
	if s := h.state(); len(s.Deleted) != 1 || s.Deleted[0].ID != h.sub.ID {
		t.Errorf("deleted %+v", s.Deleted)
	}
	h.must(h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Delete: ids(h.sub, 0, 1), Gone: []int32{h.sub.ID}}))
	s := h.state()
	if len(s.Deleted) != 0 || len(s.Garbage) != 6 {
		t.Errorf("deleted %+v, garbage %v", s.Deleted, s.Garbage)
	}
	if rows := h.rows("camera", "gap"); len(rows) != 2 {
		t.Errorf("rows are left: %v", rows)
	}
	h.must(h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Collected: s.Garbage}))
	if got := h.state().Garbage; len(got) != 0 {
		t.Errorf("garbage %v", got)
	}
	if diff := cmp.Diff([]int32{0}, h.numbers(other.Streams[0])); diff != "" {
		t.Error(diff)
	}
	h.sane()
}

// A stream that is deleted alone makes way for another of its type at once.
func TestDeletedStreamMakesWay(t *testing.T) {
	h := newHouse(t)
	h.add(h.sub, 0, 2)
	h.must(h.ApplyConfig(t.Context(), &Change{DeleteStreams: []int32{h.sub.ID},
		Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{{Type: "sub", DirID: h.dirs[0].ID}}}}}))
	s := h.state()
	if len(s.Cameras) != 1 || len(s.Streams) != 2 || len(s.Deleted) != 1 || s.Deleted[0].ID != h.sub.ID {
		t.Errorf("cameras %v, streams %v, deleted %v", s.Cameras, s.Streams, s.Deleted)
	}
	h.sane()
	h.must(h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Delete: []int64{CompositeID(h.sub.ID, 0), CompositeID(h.sub.ID, 1)}, Gone: []int32{h.sub.ID}}))
	if rows := h.rows("camera"); len(rows) != 1 {
		t.Errorf("cameras: %v", rows)
	}
	h.sane()
}

// A sample directory goes with its garbage rows, and not while anything is in it.
func TestSampleDirectoryGoes(t *testing.T) {
	h := newHouse(t)
	c := &Change{Dirs: []Dir{{Path: "/third"}}}
	h.must(h.ApplyConfig(t.Context(), c))
	before := len(h.state().Dirs)
	if err := h.ApplyConfig(t.Context(), &Change{DeleteDirs: []int32{h.dirs[0].ID}}); err == nil {
		t.Error("a directory with streams goes")
	}
	if err := h.ApplyConfig(t.Context(), &Change{DeleteDirs: []int32{99}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	if got := len(h.state().Dirs); got != before {
		t.Errorf("%d directories, want %d", got, before)
	}
	h.must(h.ApplyConfig(t.Context(), &Change{DeleteDirs: []int32{c.Dirs[0].ID}}))
	if got := len(h.state().Dirs); got != before-1 {
		t.Errorf("%d directories, want %d", got, before-1)
	}
	if err := h.ApplyConfig(t.Context(), &Change{DeleteDirs: []int32{c.Dirs[0].ID}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	h.sane()
}

// The gaps of a stream that makes way for another become those of that one.
func TestGapsGoOverToTheNextStream(t *testing.T) {
	h := newHouse(t)
	h.flushGaps(h.gap(h.main, 0, 2, "unreachable"), h.gap(h.main, 2, 3, "login_refused"), h.gap(h.sub, 1, 2, "unreachable"))
	next := h.main
	next.ID, next.DirID, next.GapsOf = 0, h.dirs[1].ID, h.main.ID
	c := &Change{DeleteStreams: []int32{h.main.ID}, Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{next}}}}
	h.must(h.ApplyConfig(t.Context(), c))
	next = c.Cameras[0].Streams[0]
	h.reopen()
	want := []Gap{h.gap(next, 0, 2, "unreachable"), h.gap(next, 2, 3, "login_refused")}
	if diff := cmp.Diff(want, h.gaps(next)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Gap{h.gap(h.sub, 1, 2, "unreachable")}, h.gaps(h.sub)); diff != "" {
		t.Error(diff)
	}
	h.sane()
}

func TestConfigurationReadsBack(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 2)
	before := h.state().Streams[0]
	change := before
	change.URL, change.Username, change.Password, change.Transport = "rtsp://other/", "u", "p", "udp"
	change.Record, change.RetainBytes, change.FlushIfSec, change.DirID = false, 7, 8, h.dirs[1].ID
	change.RetainDays, change.OwedFrom = 30, testEpoch
	camera := h.front
	camera.Name, camera.Description, camera.UUID = "back", "yard", ""
	c := &Change{Cameras: []CameraChange{{Camera: camera, Streams: []Stream{change, {Type: "ext", DirID: h.dirs[0].ID}}}}}
	c.Cameras[0].Streams[0].NextNo, c.Cameras[0].Streams[0].Bytes = 99, 99 // ignored
	h.must(h.ApplyConfig(t.Context(), c))
	camera.UUID = h.front.UUID
	for range 2 {
		s := h.state()
		if diff := cmp.Diff([]Camera{camera}, s.Cameras); diff != "" {
			t.Error(diff)
		}
		ext := Stream{ID: c.Cameras[0].Streams[1].ID, CameraID: camera.ID, DirID: h.dirs[0].ID, Type: "ext", Transport: "tcp"}
		if diff := cmp.Diff([]Stream{change, s.Streams[1], ext}, s.Streams); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(h.dirs, s.Dirs); diff != "" {
			t.Error(diff)
		}
		h.reopen()
	}
	r := h.recording(h.main, 0)
	if err := h.Check(&r); err == nil || !strings.Contains(err.Error(), "of back main: number 0 is already committed, the next is 2") {
		t.Errorf("errors know the camera by its old name: %v", err)
	}
}

func TestRefusedChangeLeavesNothing(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 2)
	other := h.addCamera("other")
	dir := h.dirs[0].ID
	streams := func(s ...Stream) []CameraChange {
		return []CameraChange{{Camera: Camera{Name: "new"}, Streams: s}}
	}
	for name, c := range map[string]struct {
		change Change
		is     error
		want   string
	}{
		"name taken":              {Change{Cameras: []CameraChange{{Camera: Camera{Name: "new"}}, {Camera: Camera{Name: "front"}}}}, ErrExists, `insert camera "front": it exists already`},
		"name taken by a rename":  {Change{Cameras: []CameraChange{{Camera: Camera{ID: h.front.ID, Name: "other"}}}}, ErrExists, `update camera "other": it exists already`},
		"uuid taken":              {Change{Cameras: []CameraChange{{Camera: Camera{Name: "new", UUID: h.front.UUID}}}}, ErrExists, `insert camera "new": it exists already`},
		"no uuid":                 {Change{Cameras: []CameraChange{{Camera: Camera{Name: "new", UUID: "x"}}}}, nil, `uuid "x"`},
		"no name":                 {Change{Cameras: []CameraChange{{}}}, nil, "empty name"},
		"no camera":               {Change{Cameras: []CameraChange{{Camera: Camera{ID: 99, Name: "new"}}}}, ErrNotFound, "camera 99: not found"},
		"type twice":              {Change{Cameras: streams(Stream{Type: "main", DirID: dir}, Stream{Type: "main", DirID: dir})}, ErrExists, `insert camera "new": stream main: it exists already`},
		"type of a stream":        {Change{Cameras: streams(Stream{Type: "third", DirID: dir})}, nil, `stream third: its type is not main, sub or ext`},
		"type changed":            {Change{Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{{ID: h.main.ID, Type: "ext", DirID: dir}}}}}, nil, `stream main: it cannot become "ext"`},
		"stream of another":       {Change{Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{{ID: other.Streams[0].ID, Type: "main", DirID: dir}}}}}, ErrNotFound, "stream 3: not found"},
		"no stream":               {Change{Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{{ID: 99, Type: "main", DirID: dir}}}}}, ErrNotFound, "stream 99: not found"},
		"no directory":            {Change{Cameras: streams(Stream{Type: "main", DirID: 99})}, ErrNotFound, `stream main: sample directory 99: not found`},
		"transport":               {Change{Cameras: streams(Stream{Type: "main", DirID: dir, Transport: "tls"})}, nil, `transport "tls" is not tcp or udp`},
		"no url":                  {Change{Cameras: streams(Stream{Type: "main", DirID: dir, Record: true})}, nil, "it is to be recorded and has no url"},
		"negative days":           {Change{Cameras: streams(Stream{Type: "main", DirID: dir, RetainDays: -1})}, nil, "retain -1 days"},
		"too many days":           {Change{Cameras: streams(Stream{Type: "main", DirID: dir, RetainDays: 36501})}, nil, "retain 36501 days"},
		"owed from before time":   {Change{Cameras: streams(Stream{Type: "main", DirID: dir, OwedFrom: -1})}, nil, "owed from -1"},
		"negative limit":          {Change{Cameras: streams(Stream{Type: "main", DirID: dir, RetainBytes: -1})}, nil, "retain -1 bytes"},
		"gaps of one that stays":  {Change{Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{{Type: "ext", DirID: dir, GapsOf: h.main.ID}}}}}, ErrNotFound, "stream ext: gaps of stream 1, which does not make way for it"},
		"gaps of another camera":  {Change{DeleteStreams: []int32{h.main.ID}, Cameras: []CameraChange{{Camera: other.Camera, Streams: []Stream{{Type: "ext", DirID: dir, GapsOf: h.main.ID}}}}}, ErrNotFound, "gaps of stream 1"},
		"negative flush":          {Change{Cameras: streams(Stream{Type: "main", DirID: dir, FlushIfSec: -1})}, nil, "flush after -1 seconds"},
		"path taken":              {Change{Dirs: []Dir{{Path: "/disk3"}, {Path: "/disk1"}}}, ErrExists, "insert sample directory /disk1: it exists already"},
		"no path":                 {Change{Dirs: []Dir{{}}}, nil, "empty path"},
		"directory with an open":  {Change{Dirs: []Dir{{Path: "/disk3", LastCompleteOpen: 99}}}, nil, "it names open 99"},
		"delete no camera":        {Change{DeleteCameras: []int32{h.front.ID, 99}}, ErrNotFound, "delete camera 99: not found"},
		"delete a camera twice":   {Change{DeleteCameras: []int32{h.front.ID, h.front.ID}}, ErrNotFound, "delete camera 1: not found"},
		"delete no stream":        {Change{DeleteStreams: []int32{99}}, ErrNotFound, "delete stream 99: not found"},
		"update of what goes":     {Change{DeleteCameras: []int32{h.front.ID}, Cameras: []CameraChange{{Camera: h.front}}}, ErrNotFound, "camera 1: not found"},
		"update of a stream gone": {Change{DeleteStreams: []int32{h.main.ID}, Cameras: []CameraChange{{Camera: h.front, Streams: []Stream{h.main}}}}, ErrNotFound, "stream 1: not found"},
		"garbage of no directory": {Change{Garbage: []Garbage{{99, 1}}}, ErrNotFound, "sample directory 99: not found"},
		"garbage of a recording":  {Change{Garbage: []Garbage{{h.main.DirID, CompositeID(h.main.ID, 1)}}}, nil, "discard recording 1/1 of front main: it is committed"},
		"garbage to come":         {Change{Garbage: []Garbage{{h.main.DirID, CompositeID(h.main.ID, 2)}}}, nil, "the stream's next recording is not set beyond 2"},
	} {
		t.Run(name, func(t *testing.T) {
			before := h.dump()
			given := c.change.clone()
			err := h.ApplyConfig(t.Context(), &given)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, expected %v …%s…", err, c.is, c.want)
			}
			if sqliteCode(err) == codeConstraint|3<<8 {
				t.Errorf("a foreign key was violated: %v", err)
			}
			if diff := cmp.Diff(before, h.dump()); diff != "" {
				t.Errorf("the database changed: %s", diff)
			}
			if diff := cmp.Diff(c.change, given); diff != "" {
				t.Errorf("the change of the caller was half filled in: %s", diff)
			}
		})
	}
	h.add(h.main, 2, 3)
	h.must(h.ApplyConfig(t.Context(), &Change{ // all at once, reusing what goes
		DeleteStreams: []int32{other.Streams[0].ID}, DeleteCameras: []int32{h.front.ID},
		Cameras: []CameraChange{{Camera: Camera{Name: "front"}, Streams: []Stream{{Type: "main", DirID: dir}}}},
	}))
	names := []string{}
	for _, c := range h.state().Cameras {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, []string{"front", "other"}) {
		t.Errorf("cameras %v", names)
	}
	h.sane()
}
