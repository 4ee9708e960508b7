package web

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"holdfast/nvr/access"
)

// cookieName is that of the session. Over TLS its name keeps other hosts of a
// domain, and plain HTTP, from setting it; the plain one does not count there.
func cookieName(secure bool) string {
	if secure {
		return "__Host-s"
	}
	return "s"
}

// setCookie gives the browser a session, or with "" takes it away.
func setCookie(w http.ResponseWriter, c *caller, secret string) {
	cookie := &http.Cookie{
		Name: cookieName(c.secure), Value: secret, Path: "/", MaxAge: int(access.MostSession.Seconds()),
		Secure: c.secure, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	}
	if secret == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
}

// csrf is a word that only who holds the session's cookie, or reads answers of
// GET /api/, knows. Clients of the dialect send it back; the check of Origin and
// the Strict cookie stand without it.
func (c *caller) csrf() string {
	sum := sha256.Sum256([]byte("csrf " + c.secret))
	return base64.RawURLEncoding.EncodeToString(sum[:24])
}

// readBody reads a body of JSON.
func readBody(r *http.Request) ([]byte, error) {
	// A form of another site cannot send this type.
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, badRequest("Content-Type must be application/json")
	}
	b, err := io.ReadAll(r.Body)
	if err != nil && !errors.As(err, new(*http.MaxBytesError)) {
		return nil, badRequest("body: %v", err)
	}
	return b, err
}

// readJSON reads a body of JSON into into, which must have a place for each of
// its fields.
func readJSON(r *http.Request, into any) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	b, err := readBody(r)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err = d.Decode(into); err == nil && d.More() {
		err = errors.New("there is more than one value")
	}
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return badRequest("body: %s is a JSON %s, which does not belong there", cmp.Or(t.Field, "the whole"), t.Value)
	}
	if err != nil {
		return badRequest("body: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// readSigned reads a body that may have the word csrf of its session.
func readSigned(r *http.Request, into any, csrf *string) (*caller, error) {
	if err := readJSON(r, into); err != nil {
		return nil, err
	}
	c := callerOf(r)
	if *csrf != "" && subtle.ConstantTimeCompare([]byte(*csrf), []byte(c.csrf())) != 1 {
		return nil, badRequest("csrf is not that of this session")
	}
	return c, nil
}

// readToChange is readSigned for what the store changes: the decision to let the
// caller in is as old as the begin of the body, and package access, which looks
// again before it changes something, is not asked.
func readToChange(r *http.Request, into any, csrf *string) (*caller, error) {
	c, err := readSigned(r, into, csrf)
	if err == nil && c.Done().Err() != nil {
		return nil, errSignedOut
	}
	return c, err
}

// readBodyOfDelete reads the body that clients of the dialect send with DELETE,
// which need not have one, so that a wrong word is refused as it is elsewhere.
func readBodyOfDelete(r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	var in struct {
		CSRF string `json:"csrf"`
	}
	_, err := readToChange(r, &in, &in.CSRF)
	return err
}

// accessError is the answer to an error of package access.
func accessError(err error) (status int, text string, ok bool) {
	var invalid *access.InvalidError
	var limit *access.LimitError
	var precondition *access.PreconditionError
	switch {
	case errors.As(err, &invalid):
		return http.StatusBadRequest, invalid.Error(), true
	case errors.As(err, &limit):
		return http.StatusTooManyRequests, limit.Error(), true
	case errors.As(err, &precondition):
		return http.StatusPreconditionFailed, precondition.Error(), true
	case errors.Is(err, access.ErrDenied):
		return http.StatusUnauthorized, err.Error(), true
	case errors.Is(err, access.ErrForbidden), errors.Is(err, access.ErrClaimOver), errors.Is(err, access.ErrCode):
		return http.StatusForbidden, err.Error(), true
	case errors.Is(err, access.ErrNotFound), errors.Is(err, access.ErrClaimed):
		return http.StatusNotFound, err.Error(), true
	case errors.Is(err, access.ErrExists), errors.Is(err, access.ErrChanged):
		return http.StatusConflict, err.Error(), true
	case errors.Is(err, access.ErrBusy):
		return http.StatusServiceUnavailable, err.Error(), true
	}
	return 0, "", false
}

// retryAfter says when the next try may be.
func retryAfter(w http.ResponseWriter, err error) {
	if limit, ok := errors.AsType[*access.LimitError](err); ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(limit.After.Seconds())+1))
	}
}

func (s *server) login(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
	if err := readJSON(r, &in); err != nil {
		return err
	}
	c := callerOf(r)
	secret, err := s.Access.Login(r.Context(), in.Username, in.Password, c.peer, c.Subject)
	if err != nil {
		return err
	}
	setCookie(w, c, secret)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) logout(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		CSRF string `json:"csrf"`
	}
	c, err := readSigned(r, &in, &in.CSRF)
	if err != nil {
		return err
	}
	if err := s.Access.Logout(r.Context(), c.Subject); err != nil {
		return err
	}
	setCookie(w, c, "")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

type claimJSON struct {
	SecondsLeft int `json:"secondsLeft"` // 0: the time is over
}

func (s *server) claimState(w http.ResponseWriter, r *http.Request) error {
	if !s.Access.Unclaimed() {
		return access.ErrClaimed
	}
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	_, left := s.Access.ClaimCode()
	return writeJSON(w, http.StatusOK, claimJSON{int(left.Seconds())})
}

func (s *server) claimIt(w http.ResponseWriter, r *http.Request) error {
	if !s.Access.Unclaimed() {
		return access.ErrClaimed
	}
	var in struct {
		Code     string `json:"code"`
		Username string `json:"username"`
		Password string `json:"password"`
	}
	if err := readJSON(r, &in); err != nil {
		return err
	}
	c := callerOf(r)
	secret, err := s.Access.Claim(r.Context(), in.Code, in.Username, in.Password, c.peer)
	if err != nil {
		return err
	}
	setCookie(w, c, secret)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// request tells a caller what the recorder sees of the request, to try a proxy
// with.
func (s *server) request(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	c := callerOf(r)
	who := "nobody"
	switch {
	case c.Token:
		who = "a token of " + c.Name
	case c.UserID != 0:
		who = c.Name
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "time: %s\nhost: %s\naddress: %s\nagent: %q\nsecure: %t\ncaller: %s\n",
		s.Now().UTC().Format(time.RFC3339), r.Host, c.peer.Address, c.peer.Agent, c.secure, who)
	return nil
}
