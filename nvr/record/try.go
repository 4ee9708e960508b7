package record

import (
	"context"
	"errors"
	"fmt"
	"time"

	"holdfast/nvr/camera"
	"holdfast/nvr/media"
	"holdfast/nvr/store"
)

// How long a stream is looked at: until two groups of pictures were seen, and for
// a moment at least, but no longer than for tryMost.
const (
	tryLeast  = 3 * media.Second
	tryGroups = 2
	tryMost   = 10 * time.Second
)

var errSeen = errors.New("enough was seen")

// Try plays a stream that need not be one of the store, and measures it. It
// returns ctx.Err() when ctx is done; else an error says, without passwords, what
// is wrong and what to do about it, and the cause is that of the gap which a stream
// from there would have. A password that the camera refused a moment ago is not
// tried: many lock an account after a few tries.
func (r *Recorder) Try(ctx context.Context, src store.Source) (media.Measured, store.Cause, error) {
	if src.NoPassword != "" {
		return media.Measured{}, store.OtherCause, errors.New(src.NoPassword)
	}
	if wait, err := r.admit(ctx, src); err != nil {
		return media.Measured{}, "", err
	} else if wait > 0 {
		return media.Measured{}, store.LoginRefused, fmt.Errorf("the camera refused this password a moment ago: check user and password, or try again in %d s",
			int((wait+time.Second-1)/time.Second))
	}
	var m media.Meter
	var d camera.Description
	looking, enough := context.WithCancel(ctx)
	defer enough()
	var most *time.Timer
	err := camera.Play(looking, camera.Config{
		URL: src.URL, Username: src.Username, Password: src.Password, Transport: src.Transport, DialContext: r.DialContext,
	}, camera.Handler{
		Described: func(got camera.Description) {
			d = got
			r.doors.open(src)
			most = time.AfterFunc(tryMost, enough)
		},
		AccessUnit: func(au media.AccessUnit) error {
			if m.Add(&au); m.Groups() >= tryGroups && m.Duration() >= tryLeast {
				return errSeen
			}
			return nil
		},
	})
	if most != nil {
		most.Stop()
	}
	cerr, _ := errors.AsType[*camera.Error](err)
	if cerr != nil && cerr.Kind == camera.Unauthorized {
		r.doors.refused(src)
	} else {
		r.doors.left(src)
	}
	switch result := m.Result(); {
	case ctx.Err() != nil:
		return media.Measured{}, "", ctx.Err()
	case errors.Is(err, errSeen), result.Pictures > 0 && cerr == nil:
		result.Audio, result.Skipped, result.Transport, result.Server = d.Audio, d.Skipped, d.Transport, d.Server
		return result, "", nil
	case cerr == nil: // tryMost is over
		return media.Measured{}, store.NoFrames, fmt.Errorf("no whole picture came in %v: %s", tryMost, advice(camera.Silent))
	}
	if a := advice(cerr.Kind); a != "" {
		return media.Measured{}, causeOf(cerr), fmt.Errorf("%w: %s", cerr, a)
	}
	return media.Measured{}, causeOf(cerr), cerr
}

// admit waits until it is known whether the camera takes the password of a
// source. It returns for how long it is not to be asked, 0 when it may be; then
// the doors have to be told what came of it.
func (r *Recorder) admit(ctx context.Context, src store.Source) (wait time.Duration, err error) {
	for {
		wait, tried := r.doors.enter(src)
		if tried == nil {
			return wait, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tried:
		}
	}
}

// advice is what to do about the end of a session, empty when what it says is
// enough.
func advice(k camera.Kind) string {
	switch k {
	case camera.Unreachable:
		return "check the address, and that the camera has power and is in this network"
	case camera.Refused:
		return "nothing listens there: check the port, and that RTSP is switched on in the camera's own settings"
	case camera.NotFound:
		return "check the path of the URL, which the camera's manual names"
	case camera.NoVideo:
		return "set this stream to H.264 or H.265 in the camera's own settings"
	case camera.Silent:
		return "the camera answers and sends no pictures; another transport, tcp or udp, may help, or to start the camera anew"
	case camera.Closed:
		return "the camera may have no more connections to give, or not speak RTSP on this port"
	case camera.BadTimestamps:
		return "an update of the camera's software may help"
	case camera.Protocol:
		return "is it an RTSP camera that answers on this port?"
	}
	return ""
}
