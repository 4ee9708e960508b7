package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"holdfast/nvr/access"
	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// Limits of who follows events.
const (
	mostFollowers    = 128 // at once; a connection each, see mostConnections
	mostFollowersOne = 16  // of one user, or of one address where nobody has signed in

	// Proxies and routers give up a connection on which nothing happens for longer.
	heartbeat = 20 * time.Second
)

// events answers /api/events: server-sent events (HTML section 9.2) of everything
// that changes, beginning with the whole state. The store keeps what was told once for
// all; nothing is kept for a follower, and nobody waits for one.
func (s *server) events(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	gone, err := s.followers.take(followerOf(callerOf(r)))
	if err != nil {
		return err
	}
	defer gone()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would collect them
	if r.Method == http.MethodHead {
		return nil
	}
	ctx, end := whileSignedIn(r.Context(), r)
	defer end()
	out := newPatient(w, r)
	resume := out.interruptWhen(ctx)
	defer resume()
	err = s.sendEvents(ctx, out, r)
	if context.Cause(ctx) == errSignedOut {
		err = errSignedOut
	}
	var said *httpError
	if errors.As(err, &said) && r.Context().Err() == nil {
		resume()
		b := appendEvent(nil, "session", "", endedEvent{Ended: true, Message: said.text})
		if _, err := out.Write(b); err == nil {
			_ = out.rc.Flush() // the follower has gone: nobody to tell
		}
	}
	return nil
}

// sendEvents sends events until something ends it.
func (s *server) sendEvents(ctx context.Context, out *patient, r *http.Request) error {
	c, still := callerOf(r), s.still(r)
	b := []byte("retry: 2000\n\n")
	from, ok := s.eventsFrom(r.Header.Get("Last-Event-ID"))
	if !ok {
		from = s.Store.Watch()
		b = s.appendState(b, r, from.Last())
	}
	for {
		if len(b) > 0 {
			if _, err := out.Write(b); err != nil {
				return err
			}
			if err := out.rc.Flush(); err != nil {
				return err
			}
		}
		beat := time.Now().Add(heartbeat)
		for b = b[:0]; len(b) == 0; {
			if err := still(); err != nil {
				return err
			}
			wait, cancel := context.WithDeadline(ctx, beat)
			told, lost, err := from.Next(wait)
			cancel()
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				b = append(b, ":\n\n"...)
			case lost:
				b = appendEvent(b, "resync", s.eventID(from.Last()), struct{}{})
			default:
				b = s.appendEvents(b, c, told)
			}
		}
	}
}

// eventID names a notice of the store, or the moment behind it.
func (s *server) eventID(id uint64) string {
	return fmt.Sprintf("%d.%d", s.Store.OpenID(), id)
}

// eventsFrom goes on behind the event that a client has seen last, if all that
// came since is still known.
func (s *server) eventsFrom(id string) (*store.Watcher, bool) {
	open, no, _ := strings.Cut(id, ".")
	n, err := strconv.ParseUint(no, 10, 64)
	if err != nil || open != strconv.Itoa(int(s.Store.OpenID())) {
		return nil, false
	}
	return s.Store.WatchFrom(n)
}

// appendState appends the event that has the state as a whole: the answer of GET /api/.
func (s *server) appendState(b []byte, r *http.Request, id uint64) []byte {
	return appendEvent(b, "state", s.eventID(id), s.topFor(r, false))
}

// Events that are no answer of another path.
type (
	streamEvent struct {
		Camera string `json:"camera"` // its uuid
		Stream string `json:"stream"` // main, sub or ext
		streamJSON
	}
	recordingsEvent struct {
		Camera string `json:"camera"`
		Stream string `json:"stream"`
		recordingsJSON
	}
	gapsEvent struct {
		Camera string    `json:"camera"`
		Stream string    `json:"stream"`
		Gaps   []gapJSON `json:"gaps"`
	}
	listsEvent struct {
		Camera string     `json:"camera"`
		Stream string     `json:"stream"`
		Start  media.Time `json:"startTime90k"`
	}
	streamDeletedJSON struct {
		Camera string `json:"camera"`
		Stream string `json:"stream"`
		ID     int32  `json:"id"`
	}
	dirDeletedJSON struct {
		ID   int32  `json:"id"`
		Path string `json:"path"`
	}
	cameraDeletedJSON struct {
		UUID string `json:"uuid"`
		ID   int32  `json:"id"`
	}
	clockEvent struct {
		clockJSON
		Now media.Time `json:"now90k"`
	}
	endedEvent struct {
		Ended   bool   `json:"ended"`
		Message string `json:"message"`
	}
)

// appendEvents appends the events of notices, as far as the caller may know of them.
// What a notice leaves out is as of now, so of several that say the same the last is enough.
func (s *server) appendEvents(b []byte, c *caller, told []store.Notice) []byte {
	type subject struct {
		change         store.Change
		camera, stream string
	}
	last := make(map[subject]uint64)
	of := func(n *store.Notice) subject { return subject{n.Change, n.CameraUUID, n.Stream} }
	for i := range told {
		last[of(&told[i])] = told[i].ID
	}
	for i := range told {
		n := &told[i]
		if (n.Change == store.CameraChanged || n.Change == store.StreamChanged) && last[of(n)] != n.ID {
			continue
		}
		if name, data := s.event(c, n); name != "" {
			b = appendEvent(b, name, s.eventID(n.ID), data)
		}
	}
	return b
}

// event is what a notice is to a caller; no name: nothing.
func (s *server) event(c *caller, n *store.Notice) (name string, data any) {
	action := access.LookAround
	switch n.Change {
	case store.RecordingsChanged, store.GapChanged, store.ListsChanged:
		action = access.ViewRecorded
	case store.DirChanged, store.DirDeleted:
		action = access.Administer
	}
	if !c.May(action, n.CameraID) {
		return "", nil
	}
	switch n.Change {
	case store.CameraDeleted:
		return "cameraDeleted", cameraDeletedJSON{n.CameraUUID, n.CameraID}
	case store.DirChanged:
		return "directory", describeDir(&n.Dir)
	case store.DirDeleted:
		return "directoryDeleted", dirDeletedJSON{n.Dir.ID, n.Dir.Path}
	case store.StreamDeleted:
		return "streamDeleted", streamDeletedJSON{n.CameraUUID, n.Stream, n.StreamID}
	case store.ClockChanged:
		return "clock", clockEvent{clockJSON{s.Store.ClockGood()}, media.TimeOf(s.Now())}
	}
	cam, ok := s.Store.Camera(n.CameraUUID)
	if !ok {
		return "", nil // it was deleted since, which is told, too
	}
	if n.Change == store.CameraChanged {
		return "camera", describe(c, cam, false)
	}
	st := cam.Stream(n.Stream)
	if st == nil {
		return "", nil
	}
	switch n.Change {
	case store.StreamChanged:
		return "stream", streamEvent{n.CameraUUID, n.Stream, describeStream(st, false)}
	case store.RecordingsChanged:
		out := recordingsJSON{Recordings: []row{}, VideoEntries: map[string]entryJSON{}}
		for i := range n.Recordings {
			out.Recordings = append(out.Recordings, newRow(&n.Recordings[i]))
		}
		s.nameEntries(&out)
		return "recordings", recordingsEvent{n.CameraUUID, n.Stream, out}
	case store.GapChanged:
		return "gaps", gapsEvent{n.CameraUUID, n.Stream, []gapJSON{describeGap(&n.Gap)}}
	case store.ListsChanged:
		return "lists", listsEvent{n.CameraUUID, n.Stream, n.From}
	}
	return "", nil
}

// appendEvent appends one event. JSON has no line breaks.
func appendEvent(b []byte, name, id string, data any) []byte {
	j, err := json.Marshal(data)
	if err != nil {
		panic("web: event " + name + ": " + err.Error())
	}
	b = fmt.Appendf(b, "event: %s\n", name)
	if id != "" {
		b = fmt.Appendf(b, "id: %s\n", id)
	}
	return fmt.Appendf(b, "data: %s\n\n", j)
}

// followers counts who follows events.
type followers struct {
	mu  sync.Mutex
	n   int
	one map[string]int // by user or address
}

// followerOf is whom a caller counts as.
func followerOf(c *caller) string {
	if c.UserID != 0 {
		return strconv.Itoa(int(c.UserID))
	}
	return "from " + c.peer.Address
}

// take counts one in; gone counts it out.
func (f *followers) take(who string) (gone func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.n >= mostFollowers:
		return nil, &httpError{http.StatusServiceUnavailable, "too many follow events at this moment"}
	case f.one[who] >= mostFollowersOne:
		return nil, &httpError{http.StatusTooManyRequests, "you follow events too often already: close some pages"}
	}
	if f.one == nil {
		f.one = make(map[string]int)
	}
	f.n++
	f.one[who]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.n--
		if f.one[who]--; f.one[who] == 0 {
			delete(f.one, who)
		}
	}, nil
}
