// Package record keeps the streams of a store recording: it plays each
// camera, hands its access units to a run of the stream, and when the session
// ends notes why, waits, and tries again. It is the only package that knows
// both cameras and the store; it knows neither RTSP nor disks.
package record

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"holdfast/nvr/camera"
	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// Pauses between sessions of a stream. A camera that refuses the password is
// asked rarely, for many lock an account after a few tries; one that answered
// before it failed is asked again soon.
const (
	firstPause = time.Second
	longPause  = 30 * time.Second
	loginPause = 30 * time.Second

	// steady is how long a session must have delivered for the next failure
	// to count as the first.
	steady = 30 * time.Second
)

// Recorder records the streams of a store.
type Recorder struct {
	Store *store.Store
	Log   *slog.Logger

	// DialContext reaches the cameras; nil is the network.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	doors doors
}

// doors keeps the streams of one camera from trying passwords that it has
// refused more than once in loginPause, all together. A password that was not
// refused yet, as one just put right, is tried at once, by one stream: the
// others that have it wait for what comes of it.
type doors struct {
	mu sync.Mutex
	at map[string]*door
}

// door is one login: a user at a host and port.
type door struct {
	next    time.Time                // when a refused password may be tried again
	refused map[string]bool          // passwords
	taken   map[string]bool          // passwords
	trying  map[string]chan struct{} // passwords of which neither is known; closed when one is
}

func doorOf(src store.Source) string {
	u, err := url.Parse(src.URL)
	if err != nil {
		return src.URL
	}
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "rtsps":
		port = "322"
	default:
		port = "554"
	}
	return src.Username + "@" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// enter returns 0 and nil when the camera may be asked now: refused, open or
// left has to say what came of it. Else it returns how long to wait before asking
// here again, or what to wait for.
func (d *doors) enter(src store.Source) (wait time.Duration, tried <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at == nil {
		d.at = make(map[string]*door)
	}
	o := d.at[doorOf(src)]
	if o == nil {
		d.forget()
		o = &door{refused: make(map[string]bool), taken: make(map[string]bool), trying: make(map[string]chan struct{})}
		d.at[doorOf(src)] = o
	}
	switch {
	case o.refused[src.Password]:
		if wait := time.Until(o.next); wait > 0 {
			return wait, nil
		}
		o.next = time.Now().Add(loginPause)
	case o.taken[src.Password] || src.Username == "" && src.Password == "":
	case o.trying[src.Password] != nil:
		return 0, o.trying[src.Password]
	default:
		o.trying[src.Password] = make(chan struct{})
	}
	return 0, nil
}

// mostDoors are more than cameras have: streams that are only tried have some.
const mostDoors = 1024

// forget makes room for one more door: those at which nobody waits, and nothing
// was refused lately, go.
func (d *doors) forget() {
	if len(d.at) < mostDoors {
		return
	}
	for name, o := range d.at {
		if len(o.trying) == 0 && time.Until(o.next) <= 0 {
			delete(d.at, name)
		}
	}
}

// refused closes the door to a password for a while.
func (d *doors) refused(src store.Source) {
	d.learned(src, func(o *door) {
		delete(o.taken, src.Password)
		o.refused[src.Password] = true
		o.next = time.Now().Add(loginPause)
	})
}

// open opens it.
func (d *doors) open(src store.Source) {
	d.learned(src, func(o *door) {
		delete(o.refused, src.Password)
		o.taken[src.Password] = true
	})
}

// left says that nothing was learned of the password.
func (d *doors) left(src store.Source) { d.learned(src, func(*door) {}) }

func (d *doors) learned(src store.Source, what func(*door)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := d.at[doorOf(src)]
	if o == nil {
		return // forgotten: nobody waits for what comes of it
	}
	what(o)
	if tried := o.trying[src.Password]; tried != nil {
		close(tried)
		delete(o.trying, src.Password)
	}
}

// wait is how long enter would wait.
func (d *doors) wait(src store.Source) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o := d.at[doorOf(src)]; o != nil && o.refused[src.Password] {
		return time.Until(o.next)
	}
	return 0
}

// Serve records every stream that is set to record, follows changes of the
// configuration, and returns when ctx is done and all runs have ended. reason
// is given as the reason of their end.
func (r *Recorder) Serve(ctx context.Context, reason string) {
	type session struct {
		src  store.Source
		stop context.CancelCauseFunc
		done chan struct{}
	}
	sessions := make(map[*store.Stream]*session)
	var all sync.WaitGroup
	for {
		changed := r.Store.Changed()
		want := make(map[*store.Stream]store.Source)
		for _, c := range r.Store.Cameras() {
			for _, st := range c.Streams {
				if src, ok := st.Source(); ok {
					want[st] = src
				} else {
					st.SetState(store.Off, "", nil)
				}
			}
		}
		for st, s := range sessions {
			if src, ok := want[st]; !ok || src != s.src {
				s.stop(errors.New("configuration changed"))
				<-s.done
				delete(sessions, st)
			}
		}
		for _, c := range r.Store.Cameras() {
			for _, st := range c.Streams {
				src, ok := want[st]
				if _, runs := sessions[st]; !ok || runs {
					continue
				}
				sctx, stop := context.WithCancelCause(ctx)
				s := &session{src: src, stop: stop, done: make(chan struct{})}
				sessions[st] = s
				log := r.Log.With("camera", c.Name, "stream", st.Type())
				all.Go(func() {
					defer close(s.done)
					r.keep(sctx, st, src, log, reason)
				})
			}
		}
		select {
		case <-ctx.Done():
			all.Wait()
			for _, s := range sessions {
				s.stop(nil)
			}
			return
		case <-changed:
		}
	}
}

// keep plays the stream again and again until ctx is done.
func (r *Recorder) keep(ctx context.Context, st *store.Stream, src store.Source, log *slog.Logger, reason string) {
	defer st.SetState(store.Off, "", nil)
	for said := ""; ; {
		err := st.Unavailable()
		if err == nil {
			break
		}
		if said != err.Error() {
			said = err.Error()
			st.Wait(store.DiskError, said)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
	if src.NoPassword != "" {
		// It gets better with another configuration only, for which ctx ends.
		st.Wait(store.OtherCause, src.NoPassword)
		log.Error("stream cannot be recorded", "err", src.NoPassword)
		<-ctx.Done()
		return
	}
	pause := firstPause
	last := "" // why it is not recording
	for {
		if !r.enter(ctx, st, src, last) {
			return
		}
		st.SetState(store.Connecting, last, nil)
		lasted, err := r.play(ctx, st, src, log, reason)
		var cerr *camera.Error
		if errors.As(err, &cerr) && cerr.Kind == camera.Unauthorized {
			r.doors.refused(src)
		} else {
			r.doors.left(src)
		}
		if ctx.Err() != nil {
			return
		}
		if lasted >= steady {
			pause = firstPause
		}
		wait := pause - rand.N(pause/4)
		switch {
		case errors.Is(err, store.ErrRemoved):
			return
		case errors.As(err, &cerr) && cerr.Kind == camera.BadURL:
			// It cannot get better by itself.
			st.Wait(store.OtherCause, inWords(err))
			log.Error("stream cannot be recorded", "err", err)
			<-ctx.Done()
			return
		case errors.As(err, &cerr) && cerr.Kind == camera.Unauthorized:
			wait = 0 // the door says when
		case lasted > 0:
			// It answered: it is not away, so it is asked again soon.
			wait = firstPause
		}
		pause = min(2*pause, longPause)
		last = inWords(err)
		st.Wait(causeOf(err), last)
		log.Warn("session ended", "err", err, "lasted", lasted.Round(time.Millisecond), "again_in", max(wait, r.doors.wait(src)).Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// enter waits until the camera may be asked, and says so meanwhile. It returns
// false when ctx is done before that.
func (r *Recorder) enter(ctx context.Context, st *store.Stream, src store.Source, last string) bool {
	for noted := false; ; {
		wait, tried := r.doors.enter(src)
		switch {
		case tried != nil:
			st.SetState(store.Connecting, last, nil)
			select {
			case <-ctx.Done():
				return false
			case <-tried:
			}
			continue
		case wait <= 0:
			if ctx.Err() != nil {
				r.doors.left(src)
				return false
			}
			return true
		}
		reason := last
		if reason == "" { // it was another stream, or this one as it was set before
			reason = "login refused a moment ago: check user and password"
			if noted { // the gap keeps the first reason, and seconds would be wrong there
				reason += fmt.Sprintf("; next try in %d s", int((wait+time.Second-1)/time.Second))
			}
		}
		st.Wait(store.LoginRefused, reason)
		noted = true
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(wait, time.Second)): // the seconds are counted down
		}
	}
}

// inWords is an error as viewers of the camera may see it: without its address,
// which is for the log and for administrators.
func inWords(err error) string {
	if cerr, ok := errors.AsType[*camera.Error](err); ok {
		return cerr.Problem
	}
	return err.Error()
}

// causeOf is what the end of a session means for the time until the next.
func causeOf(err error) store.Cause {
	var cerr *camera.Error
	switch {
	case errors.Is(err, store.ErrBackward), errors.Is(err, store.ErrTooLong):
		return store.BadTimestamps
	case !errors.As(err, &cerr):
		return store.OtherCause
	}
	switch cerr.Kind {
	case camera.Unreachable, camera.Refused:
		return store.CameraUnreachable
	case camera.Unauthorized:
		return store.LoginRefused
	case camera.Silent, camera.NoVideo:
		return store.NoFrames
	case camera.BadTimestamps:
		return store.BadTimestamps
	case camera.Closed, camera.NotFound, camera.NoTransport, camera.Protocol:
		return store.CameraEnded
	}
	return store.OtherCause
}

// play runs one session and records it as one run. It returns for how long
// pictures came.
func (r *Recorder) play(ctx context.Context, st *store.Stream, src store.Source, log *slog.Logger, reason string) (lasted time.Duration, err error) {
	var run *store.Run
	var began time.Time
	var d camera.Description
	err = camera.Play(ctx, camera.Config{
		URL: src.URL, Username: src.Username, Password: src.Password, Transport: src.Transport,
		Log: log, DialContext: r.DialContext,
	}, camera.Handler{
		Described: func(got camera.Description) {
			d = got
			r.doors.open(src)
			run = st.Begin(d.Audio)
		},
		AccessUnit: func(au media.AccessUnit) error {
			if err := run.Append(au); err != nil {
				return err
			}
			if began.IsZero() && au.Kind == media.Video {
				began = time.Now()
				st.SetState(store.Recording, "", d.Skipped)
				log.Info("recording", "codec", au.Entry.Codec, "size", fmt.Sprintf("%dx%d", au.Entry.Width, au.Entry.Height),
					"audio", codecOf(d.Audio), "skipped", d.Skipped)
			}
			return nil
		},
	})
	if !began.IsZero() {
		lasted = time.Since(began)
	}
	if run != nil {
		switch {
		case ctx.Err() == nil:
			run.End(inWords(err))
		case context.Cause(ctx) != ctx.Err():
			run.End(context.Cause(ctx).Error())
		default:
			run.End(reason)
		}
	}
	return lasted, err
}

func codecOf(e *media.SampleEntry) string {
	if e == nil {
		return "none"
	}
	return e.Codec
}
