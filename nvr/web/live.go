package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"holdfast/nvr/access"
	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store"
)

const (
	// Browsers give up a socket on which nothing happens for a minute.
	pingAfter = 30 * time.Second
	// A viewer who takes nothing for so long is gone.
	sendTime = 10 * time.Second
	// A picture of which nobody knows how long it lasts.
	nominalPicture = media.Second / 30
)

// live answers live.m4s: a WebSocket message for each picture, beginning with
// the group of pictures that goes on at this moment. Everything that goes
// wrong is said inside the socket, as browsers show a script nothing else;
// only a request of another site is refused before. Without an upgrade it sends
// group by group.
func (s *server) live(w http.ResponseWriter, r *http.Request) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return s.liveGroups(w, r)
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Upgrade", "websocket")
		return &httpError{http.StatusUpgradeRequired, "an upgrade to a WebSocket is asked for with GET"}
	}
	// Accept refuses an Origin that is not this host.
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		s.log.Debug("live view refused", "from", r.RemoteAddr, "err", err)
		return nil // Accept has answered
	}
	defer c.CloseNow()
	ctx := c.CloseRead(r.Context())
	r, err = s.withTicket(r)
	following, end := whileSignedIn(ctx, r)
	defer end()
	if err == nil {
		err = s.follow(ctx, following, c, r)
	}
	if context.Cause(following) == errSignedOut {
		err = errSignedOut
	}
	switch {
	case ctx.Err() != nil:
		c.Close(websocket.StatusGoingAway, "")
	case err != nil && !errors.Is(err, errViewer):
		status, text := s.refusal(r, err)
		_ = sendJSON(ctx, c, map[string]any{"type": "error", "status": status, "message": text})
		c.Close(websocket.StatusNormalClosure, "")
	}
	return nil
}

// liveTicket makes what live.m4s of the same stream takes once in place of the
// cookie: some browsers do not send a SameSite=Strict one with an upgrade (R70).
func (s *server) liveTicket(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		CSRF string `json:"csrf"`
	}
	c, err := readSigned(r, &in, &in.CSRF)
	if err != nil {
		return err
	}
	if _, _, err := s.streamOf(r); err != nil {
		return err
	}
	ticket, err := s.Access.Ticket(c.Subject, liveOf(r))
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, http.StatusOK, ticketJSON{ticket, int(access.TicketTime.Seconds())})
}

type ticketJSON struct {
	Ticket  string `json:"ticket"`
	Seconds int    `json:"seconds"` // that it is good for
}

// liveOf is what a ticket is for: the stream that the path of a request names.
func liveOf(r *http.Request) string { return r.PathValue("uuid") + "/" + r.PathValue("stream") }

// withTicket returns the request as one of whom its ticket is for, when it has
// one.
func (s *server) withTicket(r *http.Request) (*http.Request, error) {
	q, err := parameters(r, []string{"ticket"})
	if err != nil || !q.Has("ticket") {
		return r, err
	}
	c := &caller{peer: callerOf(r).peer, secure: callerOf(r).secure}
	ok := false
	if s.Access != nil {
		c.Subject, ok = s.Access.Redeem(q.Get("ticket"), liveOf(r), c.peer)
	}
	if !ok {
		return r, &httpError{http.StatusUnauthorized, "the ticket is not for this stream, was used, or is too old"}
	}
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c)), nil
}

// errViewer says that a message could not be sent. That is no error of ours.
var errViewer = errors.New("viewer is gone")

var errDeleted error = &httpError{http.StatusNotFound, "the camera was deleted"}

// liveStream decides whether the caller may see the stream live that the path
// names.
func (s *server) liveStream(r *http.Request) (*store.Stream, error) {
	cam, err := s.decide(r, access.ViewLive)
	if err != nil {
		return nil, err
	}
	return streamOfCamera(r, cam)
}

// follow sends live video until something ends it. ctx is that of the connection;
// following ends with the session, too, and what is being sent then still is:
// a message that is given up takes the connection with it, and nobody would
// learn why.
func (s *server) follow(ctx, following context.Context, c *websocket.Conn, r *http.Request) error {
	st, err := s.liveStream(r)
	if err != nil {
		return err
	}
	still := s.still(r)
	f := st.Follow()
	defer f.Close()
	for {
		l, err := next(following, c, f, still)
		if errors.Is(err, store.ErrRemoved) {
			return errDeleted
		}
		if err != nil {
			return err
		}
		if l.Dropped > 0 {
			if err := sendJSON(ctx, c, map[string]any{"type": "dropped", "frames": l.Dropped}); err != nil {
				return err
			}
		}
		if err := send(ctx, c, websocket.MessageBinary, l.Message(s.encodeLive)); err != nil {
			return err
		}
	}
}

// next waits for the next picture, and pings while none comes. still says
// whether the viewer may go on.
func next(ctx context.Context, c *websocket.Conn, f *store.Follower, still func() error) (store.Live, error) {
	for {
		if err := still(); err != nil {
			return store.Live{}, err
		}
		wait, cancel := context.WithTimeout(ctx, pingAfter)
		l, err := f.Next(wait)
		idle := wait.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil || !idle {
			return l, err
		}
		answer, cancel := context.WithTimeout(ctx, sendTime)
		err = c.Ping(answer)
		cancel()
		if err != nil {
			return store.Live{}, fmt.Errorf("%w: %w", errViewer, err)
		}
	}
}

// encodeLive makes the message of one picture: header lines, an empty line,
// and its fragment, whose time is always 0 so that it is the same for every
// viewer (api.md, "live.m4s").
func (s *server) encodeLive(l *store.Live) []byte {
	s.encoded.Add(1)
	d := lasts(l)
	b := appendLiveHeader(nil, l.Unit.Entry, &l.Place, d)
	b = append(b, "\r\n"...)
	return mp4.AppendMediaSegment(b, 1, &mp4.Fragment{Video: []media.Sample{sampleOf(l, d)}}, l.Unit.Data)
}

func lasts(l *store.Live) media.Duration {
	if l.Duration <= 0 {
		return nominalPicture
	}
	return l.Duration
}

func sampleOf(l *store.Live, d media.Duration) media.Sample {
	return media.Sample{Duration: int32(d), Size: int32(len(l.Unit.Data)), Offset: int32(l.Unit.PTS - l.Unit.DTS), Key: l.Unit.Key}
}

// appendLiveHeader appends the header lines of what begins at a place and lasts
// so long.
func appendLiveHeader(b []byte, entry *media.SampleEntry, at *store.Place, lasts media.Duration) []byte {
	return fmt.Appendf(b, "Content-Type: %s\r\n"+
		"X-Recording-Start: %d\r\n"+
		"X-Recording-Id: %d.%d\r\n"+
		"X-Media-Time-Range: %d-%d\r\n"+
		"X-Prev-Media-Duration: %d\r\n"+
		"X-Runs: %d\r\n"+
		"X-Video-Sample-Entry-Id: %d\r\n",
		mp4.ContentType(entry), at.RecordingStart, at.OpenID, at.RecordingNo,
		at.MediaStart, at.MediaStart+lasts, at.PrevMedia, at.Runs, at.EntryID)
}

func sendJSON(ctx context.Context, c *websocket.Conn, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return send(ctx, c, websocket.MessageText, b)
}

func send(ctx context.Context, c *websocket.Conn, typ websocket.MessageType, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	if err := c.Write(ctx, typ, b); err != nil {
		return fmt.Errorf("%w: %w", errViewer, err)
	}
	return nil
}
