package access

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

const (
	// A session ends that was not used for so long, and that is so old.
	idleTime = 7 * 24 * time.Hour
	// MostSession is how long a session can last.
	MostSession = 30 * 24 * time.Hour

	secretBytes = 32
	tokenPrefix = "hft_" // so that one that is found somewhere is known for what it is

	// Of one user; the session unused longest makes room for a new one.
	mostSessions, mostTokens = 32, 32
)

// session is a session or token in memory.
type session struct {
	db.Session // its times are guarded by mu; Uses is as of the beginning

	while context.Context // done when it has ended or changed
	end   context.CancelFunc

	mu   sync.Mutex
	uses db.SessionUse

	// Made, used while the clock was not set: dated anew when it is.
	madeUndated, usedUndated bool
}

func (s *session) used() db.SessionUse {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uses
}

// row is the session with what it is at the moment.
func (s *session) row() db.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.Session
	row.Uses = s.uses
	return row
}

// lasts reports whether a session has not expired. A wall clock that is behind,
// or not set yet, ends nothing.
func (a *Access) lasts(s *session, now media.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.unset.Load() || (s.Expires == 0 || now < s.Expires) && (s.Token || now.Sub(s.uses.Time).Std() < idleTime)
}

// dateAnew gives what was made and used while the clock was not set its time,
// when it is. It writes once, and what goes on by a session goes on. The caller
// holds no lock.
func (a *Access) dateAnew() {
	if !a.unset.Load() || !a.cfg.ClockGood() {
		return
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if !a.unset.Load() {
		return // another was faster
	}
	now := a.wall()
	c := &db.AccessChange{}
	for _, s := range a.undated() {
		s.mu.Lock()
		if s.madeUndated {
			if s.Expires != 0 {
				s.Expires = now.Add(s.Expires.Sub(s.Created))
			}
			s.Created = now
			c.Sessions = append(c.Sessions, s.Session)
		}
		if s.usedUndated {
			s.uses.Time = now
			a.db.NoteUse(s.ID, s.uses)
		}
		s.madeUndated, s.usedUndated = false, false
		s.mu.Unlock()
	}
	if len(c.Sessions) > 0 {
		if err := a.db.ApplyAccess(context.Background(), c); err != nil {
			a.log.Error("sessions that were made before the clock was set end at the next start", "cause", err)
			if a.cfg.Failed != nil {
				a.cfg.Failed(err)
			}
		}
	}
	a.unset.Store(false)
}

func (a *Access) undated() (list []*session) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range a.sessions {
		s.mu.Lock()
		if s.madeUndated || s.usedUndated {
			list = append(list, s)
		}
		s.mu.Unlock()
	}
	return list
}

// keep puts a session into memory. The caller holds mu, or is Open.
func (a *Access) keep(s db.Session) *session {
	in := &session{Session: s, uses: s.Uses}
	in.while, in.end = context.WithCancel(context.Background())
	a.sessions[s.SecretHash] = in
	return in
}

// expired lists sessions that nobody can use any more: they go with the next
// change.
func (a *Access) expired() (ids []int32) {
	now := a.wall()
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range a.sessions {
		if !a.lasts(s, now) {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

func newSecret(token bool) (secret string, hash [32]byte) {
	secret = base64.RawURLEncoding.EncodeToString(random(secretBytes))
	if token {
		secret = tokenPrefix + secret
	}
	return secret, sha256.Sum256([]byte(secret))
}

// Session returns the subject of a session by the secret of its cookie, and
// takes down that it was used. It is false when that lets nobody in.
func (a *Access) Session(secret string, from Peer) (Subject, bool) {
	return a.subject(secret, false, from)
}

// Token does the same for a token.
func (a *Access) Token(secret string, from Peer) (Subject, bool) {
	return a.subject(secret, true, from)
}

func (a *Access) subject(secret string, token bool, from Peer) (Subject, bool) {
	if len(secret) > 128 {
		return Subject{}, false
	}
	a.dateAnew()
	hash := sha256.Sum256([]byte(secret))
	a.mu.RLock()
	defer a.mu.RUnlock()
	s := a.sessions[hash]
	if s == nil || s.Token != token || !a.use(s, from) {
		return Subject{}, false
	}
	return a.subjectOf(s), true
}

// Still reports whether a subject is who it was, and takes down that its
// session was used: for what goes on for long.
func (a *Access) Still(s Subject, from Peer) bool {
	if s.session == nil {
		return s.UserID == 0
	}
	a.dateAnew()
	a.mu.RLock()
	defer a.mu.RUnlock()
	return s.session.while.Err() == nil && a.use(s.session, from)
}

// use takes down a use, unless the session lets nobody in. The caller holds mu.
func (a *Access) use(s *session, from Peer) bool {
	now := a.wall()
	u := a.users[s.UserID]
	if u == nil || u.Disabled || !a.lasts(s, now) {
		return false
	}
	from = from.short()
	s.mu.Lock()
	defer s.mu.Unlock()
	// A clock that is behind for a while does not make it unused.
	s.uses = db.SessionUse{Time: max(now, s.uses.Time), Address: from.Address, Agent: from.Agent, Count: s.uses.Count + 1}
	s.usedUndated = a.unset.Load()
	a.db.NoteUse(s.ID, s.uses)
	return true
}

// subjectOf makes the subject of a session. The caller holds mu.
func (a *Access) subjectOf(s *session) Subject {
	u := a.users[s.UserID]
	cameras := make(map[int32]Rights, len(u.Cameras))
	for id, r := range u.Cameras {
		cameras[id] = Rights(r)
	}
	return Subject{
		UserID: u.ID, Name: u.Name, SessionID: s.ID, Token: s.Token, Preferences: Preferences(u.Preferences),
		everybody: a.cfg.Everybody, admin: u.Admin, rights: Rights(u.Rights), cameras: cameras, scope: Rights(s.Scope), session: s,
	}
}

// Login lets a user in and returns the secret of a new session. The session
// old, if there is one, ends. A wrong name or password is ErrDenied, too many
// tries a *LimitError.
func (a *Access) Login(ctx context.Context, name, password string, from Peer, old Subject) (secret string, err error) {
	if err := a.addresses.take(tries{address: block(from.Address, 64)}); err != nil {
		return "", err
	}
	u := a.user(name)
	if err := a.accounts.take(a.account(name, u, from), from.Address); err != nil {
		return "", err
	}
	hash := ""
	if u != nil {
		hash = u.PasswordHash
	}
	right, stale, err := a.hashing.verify(ctx, hash, password, from.Address)
	if err != nil {
		return "", err
	}
	if !right || u.Disabled {
		known := "unknown" // what was typed may be a password
		if u != nil {
			known = u.Name
		}
		a.log.Warn("refused to sign in", "user", known, "from", from.Address)
		return "", ErrDenied
	}
	renewed := ""
	if stale {
		if renewed, err = a.hashing.hash(ctx, password, from.Address); err != nil {
			return "", err
		}
	}

	a.changing.Lock()
	defer a.changing.Unlock()
	now := a.userByID(u.ID)
	if now == nil || now.PasswordHash != u.PasswordHash || now.Disabled {
		return "", ErrDenied // it changed meanwhile
	}
	secret, s := a.newSession(u.ID, from)
	c := &db.AccessChange{Sessions: []db.Session{s}, DeleteSessions: a.surplus(u.ID)}
	if old.session != nil && !old.Token {
		c.DeleteSessions = append(c.DeleteSessions, old.SessionID)
	}
	if renewed != "" {
		next := *now
		next.PasswordHash = renewed
		c.Users = []db.User{next}
	}
	if err := a.change(ctx, c); err != nil {
		return "", err
	}
	a.log.Info("signed in", "user", u.Name, "from", from.Address)
	return secret, nil
}

// account is the bucket of tries for a name. An address that the user is signed
// in from has one of its own, so that others cannot keep the user out there.
func (a *Access) account(name string, u *db.User, from Peer) tries {
	if u == nil {
		return tries{name: cut(name, mostName)}
	}
	now := a.wall()
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range a.sessions {
		if s.UserID == u.ID && !s.Token && a.lasts(s, now) && s.used().Address == from.Address {
			return tries{u.Name, from.Address}
		}
	}
	return tries{name: u.Name}
}

func (a *Access) newSession(user int32, from Peer) (secret string, s db.Session) {
	from = from.short()
	secret, hash := newSecret(false)
	now := a.wall()
	return secret, db.Session{
		UserID: user, SecretHash: hash, Scope: uint8(all), Created: now, Expires: now.Add(media.DurationOf(MostSession)),
		CreatedAddress: from.Address, CreatedAgent: from.Agent,
		Uses: db.SessionUse{Time: now, Address: from.Address, Agent: from.Agent},
	}
}

// surplus names the session that has to make room for another, if one has.
func (a *Access) surplus(user int32) []int32 {
	list := a.sessionsOf(user, func(s *session) bool { return !s.Token })
	if len(list) < mostSessions {
		return nil
	}
	oldest := slices.MinFunc(list, func(x, y *session) int { return cmp.Compare(x.used().Time, y.used().Time) })
	return []int32{oldest.ID}
}

func (a *Access) sessionsOf(user int32, of func(*session) bool) (list []*session) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range a.sessions {
		if s.UserID == user && of(s) {
			list = append(list, s)
		}
	}
	return list
}

// Logout ends the session of a subject.
func (a *Access) Logout(ctx context.Context, s Subject) error {
	if s.session == nil || s.Token {
		return nil
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	a.log.Info("signed out", "user", s.Name)
	return a.change(ctx, &db.AccessChange{DeleteSessions: []int32{s.SessionID}})
}

// SessionInfo is what there is to say of a session or token.
type SessionInfo struct {
	ID               int32
	Token            bool
	Name             string // of a token
	Scope            Rights // of a token
	Created, Expires media.Time
	CreatedFrom      Peer
	Used             media.Time
	UsedFrom         Peer
	Uses             int64
}

// Sessions lists the sessions and tokens of a user, the newest first, to the
// user and to administrators.
func (a *Access) Sessions(by Subject, user int32) ([]SessionInfo, error) {
	if err := a.mayManage(by, user); err != nil {
		return nil, err
	}
	now := a.wall()
	list := a.sessionsOf(user, func(s *session) bool { return a.lasts(s, now) })
	slices.SortFunc(list, func(x, y *session) int { return cmp.Compare(y.ID, x.ID) })
	out := make([]SessionInfo, len(list))
	for i := range list {
		s := list[i].row()
		u := s.Uses
		out[i] = SessionInfo{
			ID: s.ID, Token: s.Token, Name: s.Name, Created: s.Created, Expires: s.Expires,
			CreatedFrom: Peer{s.CreatedAddress, s.CreatedAgent}, Used: u.Time, UsedFrom: Peer{u.Address, u.Agent}, Uses: u.Count,
		}
		if s.Token {
			out[i].Scope = Rights(s.Scope)
		}
	}
	return out, nil
}

// Revoke ends a session or token of a user, or with id 0 all its sessions and
// tokens.
func (a *Access) Revoke(ctx context.Context, by Subject, user, id int32) error {
	if err := a.mayManage(by, user); err != nil {
		return err
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if by.ended() {
		return ErrForbidden
	}
	c := &db.AccessChange{}
	for _, s := range a.sessionsOf(user, func(s *session) bool { return id == 0 || s.ID == id }) {
		c.DeleteSessions = append(c.DeleteSessions, s.ID)
	}
	if id != 0 && len(c.DeleteSessions) == 0 {
		return ErrNotFound
	}
	a.log.Info("revoked sessions", "user", user, "by", by.Name, "sessions", len(c.DeleteSessions))
	return a.change(ctx, c)
}

// AddToken makes a token of the subject's own user, and returns its secret,
// which is told once. It may do what is in its scope, of what the user may. With
// lasts 0 it does not expire. A token makes no tokens.
func (a *Access) AddToken(ctx context.Context, by Subject, name string, scope Rights, lasts time.Duration, from Peer) (id int32, secret string, err error) {
	switch {
	case by.UserID == 0 || by.Token:
		return 0, "", ErrForbidden
	case scope == 0:
		return 0, "", &InvalidError{"the scope is empty: the token could do nothing"}
	case scope&Admin != 0 && !by.admin:
		return 0, "", ErrForbidden
	case lasts < 0:
		return 0, "", &InvalidError{"the token would have expired"}
	}
	if err := checkName("name", name); err != nil {
		return 0, "", err
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if by.ended() {
		return 0, "", ErrForbidden
	}
	tokens := a.sessionsOf(by.UserID, func(s *session) bool { return s.Token })
	if len(tokens) >= mostTokens {
		return 0, "", &InvalidError{fmt.Sprintf("there are %d tokens already: revoke one first", len(tokens))}
	}
	if slices.ContainsFunc(tokens, func(s *session) bool { return s.Name == name }) {
		return 0, "", &InvalidError{"there is a token of this name already"}
	}
	from = from.short()
	now := a.wall()
	secret, hash := newSecret(true)
	s := db.Session{UserID: by.UserID, SecretHash: hash, Token: true, Name: name, Scope: uint8(scope.complete()), Created: now,
		CreatedAddress: from.Address, CreatedAgent: from.Agent}
	if lasts > 0 {
		s.Expires = now.Add(media.DurationOf(lasts))
	}
	c := &db.AccessChange{Sessions: []db.Session{s}}
	if err := a.change(ctx, c); err != nil {
		return 0, "", err
	}
	a.log.Info("made token", "user", by.Name, "token", name, "scope", strings.Join(scope.Names(), " "))
	return c.Sessions[0].ID, secret, nil
}
