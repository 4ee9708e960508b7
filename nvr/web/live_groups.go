package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
	"holdfast/nvr/store"
)

// liveGroups answers live.m4s without an upgrade: multipart/mixed (RFC 2046
// section 5.1), a part for each group of pictures when it is complete, until
// something ends it. That is said in a last part of text.
func (s *server) liveGroups(w http.ResponseWriter, r *http.Request) error {
	st, err := s.liveStream(r)
	if err != nil {
		return err
	}
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "multipart/mixed; boundary="+s.boundary)
	h.Set("Cache-Control", "no-store")
	out := newPatient(w, r)
	if r.Method == http.MethodHead {
		return nil
	}
	ctx, end := whileSignedIn(r.Context(), r)
	defer end()
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	resume := out.interruptWhen(ctx)
	defer resume()
	f := st.FollowGroups()
	defer f.Close()
	if _, err := fmt.Fprintf(out, "--%s\r\n", s.boundary); err != nil {
		return nil // the viewer has gone: nobody to tell
	}
	still := s.still(r)
	for err == nil {
		if err = out.rc.Flush(); err == nil {
			err = s.nextGroup(ctx, func() { cut(errViewer) }, r, out, f, still)
		}
	}
	if context.Cause(ctx) == errSignedOut {
		err = errSignedOut
	}
	var said *httpError
	if errors.As(err, &said) && r.Context().Err() == nil {
		resume()
		fmt.Fprintf(out, "Content-Type: text/plain; charset=utf-8\r\n\r\n%s\r\n--%s--\r\n", said.text, s.boundary)
	}
	return nil
}

// nextGroup waits for a group and sends it. still says whether the viewer may go on;
// cut ends ctx, and what is being sent.
func (s *server) nextGroup(ctx context.Context, cut func(), r *http.Request, out *patient, f *store.GroupFollower, still func() error) error {
	for {
		if err := still(); err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, s.lookEvery)
		g, err := f.Next(wait)
		idle := wait.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case errors.Is(err, store.ErrRemoved):
			return errDeleted
		case err != nil && idle && hungUp(r):
			return errViewer
		case err != nil && idle:
			continue
		case err != nil:
			return err
		}
		if g.Dropped > 0 {
			if _, err := fmt.Fprintf(out, "X-Dropped-Frames: %d\r\n", g.Dropped); err != nil {
				return err
			}
		}
		message := g.Message(s.encodeGroup)
		done := s.sending.begin(&sent{who: followerOf(callerOf(r)), group: message, late: f.Late, cut: cut})
		_, err = out.Write(message)
		done()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "\r\n--%s\r\n", s.boundary)
		return err
	}
}

// encodeGroup makes a part of one group of pictures: header lines as a single
// picture has them, and one fragment with all.
func (s *server) encodeGroup(g *store.Group) []byte {
	s.encoded.Add(1)
	var fr mp4.Fragment
	var data [][]byte
	var all media.Duration
	for i := range g.Pictures {
		l := &g.Pictures[i]
		d := lasts(l)
		all += d
		fr.Video, data = append(fr.Video, sampleOf(l, d)), append(data, l.Unit.Data)
	}
	segment := mp4.AppendMediaSegment(nil, 1, &fr, data...)
	b := appendLiveHeader(nil, g.Pictures[0].Unit.Entry, &g.Pictures[0].Place, all)
	b = fmt.Appendf(b, "Content-Length: %d\r\n\r\n", len(segment))
	return append(b, segment...)
}
