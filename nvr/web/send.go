package web

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"holdfast/nvr/mp4"
)

// body is a virtual file as http.ServeContent reads it. It remembers why
// reading ended, which ServeContent does not tell.
type body struct {
	*mp4.Reader
	err error
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// send writes the next n bytes to w, samples from file to socket.
func (b *body) send(w io.Writer, n int64) (int64, error) {
	n, err := b.CopyN(w, n)
	if err != nil {
		b.err = err
	}
	return n, err
}

// clientGone reports whether an answer ended because nobody takes it any more.
func clientGone(r *http.Request, err error) bool {
	return r.Context().Err() != nil || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed)
}

// patient gives the client time for each piece of a long answer and none for
// standing still: who takes nothing for answerTime is cut off, and a player
// that was paused asks again by range.
type patient struct {
	http.ResponseWriter
	rc *http.ResponseController
}

const patientPiece = 256 << 10

func newPatient(w http.ResponseWriter) *patient {
	return &patient{w, http.NewResponseController(w)}
}

func (p *patient) more() { _ = p.rc.SetWriteDeadline(time.Now().Add(answerTime)) }

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
	for left.N > 0 {
		piece := &io.LimitedReader{R: left.R, N: min(left.N, patientPiece)}
		want := piece.N
		p.more()
		m, err := io.Copy(p.ResponseWriter, piece)
		n, left.N = n+m, left.N-m
		if err != nil || m < want {
			return n, err
		}
	}
	return n, nil
}

func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }
