package web

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"holdfast/nvr/mp4"
)

// body is a virtual file as http.ServeContent reads it. It remembers why
// reading ended, which ServeContent does not tell. For several ranges
// ServeContent reads in a goroutine of its own, which may go on when it has
// returned: the body is for two goroutines.
type body struct {
	mu  sync.Mutex
	r   *mp4.Reader
	err error
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.r.Read(p)
	if err != io.EOF {
		b.note(err)
	}
	return n, err
}

func (b *body) Seek(offset int64, whence int) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.r.Seek(offset, whence)
}

// send writes the next n bytes to w, samples from file to socket.
func (b *body) send(w io.Writer, n int64) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.r.CopyN(w, n)
	b.note(err)
	return n, err
}

// note keeps why reading ended. Whoever holds mu calls it.
func (b *body) note(err error) {
	if err != nil && b.err == nil {
		b.err = err
	}
}

// end waits for who reads and closes the file. It returns why reading ended
// early, nil when it did not.
func (b *body) end() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return cmp.Or(b.err, b.r.Close())
}

// clientGone reports whether an answer ended because nobody takes it any more.
func clientGone(r *http.Request, err error) bool {
	return r.Context().Err() != nil || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed)
}

// patient gives the client time for each piece of a long answer and none for
// standing still: who takes less than a piece in answerTime is cut off, and a
// player that was paused asks again by range.
type patient struct {
	http.ResponseWriter
	rc *http.ResponseController

	// kernel says that the kernel may copy from a file to the client. What it is
	// late with can then go on where it was, which TLS and buffers cannot.
	kernel      bool
	interrupted atomic.Bool // no more time is given
}

const (
	patientPiece = 64 << 10 // bytes; api.md names them
	kernelPiece  = 4 << 20  // that the kernel is given to copy at a time
)

func newPatient(w http.ResponseWriter, r *http.Request) *patient {
	return &patient{ResponseWriter: w, rc: http.NewResponseController(w), kernel: r.TLS == nil && r.ProtoMajor == 1}
}

func (p *patient) more() {
	if !p.interrupted.Load() {
		_ = p.rc.SetWriteDeadline(time.Now().Add(answerTime))
	}
}

// interruptWhen ends a write that waits for the client when ctx does, and lets none
// follow. resume gives time again, for a last word: after a write that was ended
// halfway the server lets none through.
func (p *patient) interruptWhen(ctx context.Context) (resume func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		p.interrupted.Store(true)
		_ = p.rc.SetWriteDeadline(time.Now())
	})
	return sync.OnceFunc(func() {
		if !stop() {
			<-done
		}
		p.interrupted.Store(false)
		p.more()
	})
}

// WriteHeader makes an answer that refuses one for people (api.md rule 3): of a
// tag that is not that of the file ServeContent says nothing, as if it came with
// a video, and of a range that is none as if it were a download.
func (p *patient) WriteHeader(status int) {
	if status >= 400 {
		withoutVideo(p.Header())
	}
	if status == http.StatusPreconditionFailed {
		http.Error(p.ResponseWriter, "the video has none of the tags of If-Match", status)
		return
	}
	p.ResponseWriter.WriteHeader(status)
}

func (p *patient) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		var m int
		p.more()
		m, err = p.ResponseWriter.Write(b[:min(len(b), patientPiece)])
		n, b = n+m, b[m:]
	}
	return n, err
}

// ReadFrom keeps the way open by which the kernel copies from a file to the
// socket: the server has to see a file, or a limit around one. ServeContent
// hands over a limit around the body, which knows where its files are.
func (p *patient) ReadFrom(src io.Reader) (n int64, err error) {
	left := &io.LimitedReader{R: src, N: 1<<63 - 1}
	if l, ok := src.(*io.LimitedReader); ok {
		left = l
	}
	if b, ok := left.R.(*body); ok {
		n, err = b.send(p, left.N)
		left.N -= n
		return n, err
	}
	most, late := int64(patientPiece), false
	if _, file := left.R.(*os.File); file && p.kernel {
		most, late = kernelPiece, true
	}
	for left.N > 0 {
		piece := &io.LimitedReader{R: left.R, N: min(left.N, most)}
		want := piece.N
		p.more()
		m, err := io.Copy(p.ResponseWriter, piece)
		n, left.N = n+m, left.N-m
		if late && m >= patientPiece && errors.Is(err, os.ErrDeadlineExceeded) {
			continue // slow, and not standing still
		}
		if err != nil || m < want {
			return n, err
		}
	}
	return n, nil
}

func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }
