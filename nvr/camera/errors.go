package camera

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"unicode"

	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/liberrors"
)

// Kind says what ended a session, for callers that act on it: a recorder tries
// again later after Unauthorized than after Closed.
type Kind uint8

const (
	// BadURL is a URL or configuration that is not one of an RTSP camera.
	// Nothing was connected to.
	BadURL Kind = iota + 1
	// Unreachable is a host that was not found or does not answer.
	Unreachable
	// Refused is a host that answers, with nothing listening on the port.
	Refused
	// Unauthorized is a login that the camera does not take, or misses.
	Unauthorized
	// NotFound is a camera that has no such stream.
	NotFound
	// NoVideo is a stream without H.264 or H.265 video.
	NoVideo
	// NoTransport is a stream that is not sent over Config.Transport.
	NoTransport
	// Silent is a camera that sent no whole picture for Config.Silence.
	Silent
	// Closed is a connection that the camera, or the network, ended.
	Closed
	// BadTimestamps is video whose decode times do not rise.
	BadTimestamps
	// Protocol is anything else that the camera should not have sent.
	Protocol
	// Receiver is an error that Handler.AccessUnit returned.
	Receiver
)

var kindNames = [...]string{
	BadURL: "bad URL", Unreachable: "unreachable", Refused: "refused", Unauthorized: "unauthorized",
	NotFound: "not found", NoVideo: "no video", NoTransport: "no transport", Silent: "silent", Closed: "closed",
	BadTimestamps: "bad timestamps", Protocol: "protocol", Receiver: "receiver",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is why a session ended. Play returns no other type unless its context
// ended.
type Error struct {
	Kind    Kind
	URL     string // without credentials and tokens, for logs and administrators
	Problem string // one line: what, and why; with no address, for all
	Err     error  // the cause, where there is one
}

func (e *Error) Error() string { return e.URL + ": " + e.Problem }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// problem is an Error on its way up to where the URL is known.
func problem(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Problem: fmt.Sprintf(format, args...)}
}

// maxProblem bounds what a camera can make us log.
const maxProblem = 300

// located puts the URL in, and takes out what nobody may see: passwords and
// tokens, addresses that a camera or a library repeats, line ends, and any length
// a camera likes.
func (e *Error) located(a *address) *Error {
	e.URL = a.shown + e.URL
	text := e.Problem
	for _, secret := range a.secrets {
		text = strings.ReplaceAll(text, secret, "***")
	}
	e.Problem = oneLine(anyURL.ReplaceAllString(text, "***"))
	return e
}

var anyURL = regexp.MustCompile(`[A-Za-z]+://[^\s"]*`)

func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxProblem {
		text = strings.ToValidUTF8(text[:maxProblem], "") + "…"
	}
	return text
}

// failure makes an Error of what the RTSP library returned from step, which is
// the name of a request, or "" while the stream runs.
func failure(step string, err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	during := ""
	if step != "" {
		during = " during " + step
	}
	e := func(k Kind, format string, args ...any) *Error {
		p := problem(k, format, args...)
		p.Err = err
		return p
	}

	var status liberrors.ErrClientBadStatusCode
	var login liberrors.ErrClientAuthSetup
	var dns *net.DNSError
	switch {
	case errors.As(err, &status):
		switch status.Code {
		case base.StatusUnauthorized:
			return e(Unauthorized, "login refused (401): check user and password")
		case base.StatusForbidden:
			return e(Unauthorized, "access denied (403)")
		case base.StatusNotFound:
			return e(NotFound, "no such stream (404)")
		case base.StatusUnsupportedTransport:
			return e(NoTransport, "does not send this stream over the transport that is set (461): choose the other of tcp and udp")
		}
		return e(Protocol, "%s answered with %d %s", orRequest(step), status.Code, status.Message)
	case errors.As(err, &login):
		return e(Unauthorized, "login asked for in a way that is not supported (401)")
	case errors.As(err, &dns):
		return e(Unreachable, "its host is not found: check the name in the URL")
	case errors.Is(err, syscall.ECONNREFUSED):
		return e(Refused, "connection refused")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed):
		return e(Closed, "connection closed by the camera%s", during)
	case errors.As(err, new(liberrors.ErrClientTCPTimeout)), errors.As(err, new(liberrors.ErrClientUDPTimeout)):
		return e(Silent, "nothing arrives")
	case errors.As(err, new(liberrors.ErrClientRequestTimedOut)):
		return e(Unreachable, "no answer to %s within %v", orRequest(step), requestTimeout)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return e(Unreachable, "no answer%s", during)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		if op.Op == "dial" {
			return e(Unreachable, "no connection: %v", op.Err)
		}
		return e(Closed, "connection lost%s: %v", during, op.Err)
	}
	return e(Protocol, "%s: %v", orStream(step), err)
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func orRequest(step string) string {
	if step == "" {
		return "a request"
	}
	return step
}

func orStream(step string) string {
	if step == "" {
		return "stream"
	}
	return step
}
