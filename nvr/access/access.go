// Package access knows who may do what: users, the sessions and tokens that let
// them in, and the one decision subject × camera × action (nvr/design/access.md).
// It knows nothing of HTTP, and of a camera only its id.
//
//	name, password ─► Login ──► secret ─► cookie  ─┐
//	code ───────────► Claim ──► secret ─► cookie  ─┼─► Session, Token ─► Subject ─► May(action, camera)
//	                  AddToken ► secret ─► program ─┤
//	                  Ticket ──► secret ─► once ────┘
//
// All users and sessions are in memory, so that a request costs no query; the
// database has them first. Of a secret only its SHA-256 is kept, of a password
// its Argon2id hash; neither is logged, nor in any error.
package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

// Rights are what somebody may see of a camera. The numbers are those of
// schema.sql.
type Rights uint8

const (
	Live     Rights = 1 << iota // live video
	Recorded                    // what was recorded
	Export                      // take that away as a file; implies Recorded
	Admin                       // of a scope and of everybody: to administer

	// Watching is what a viewer can have.
	Watching = Live | Recorded | Export

	all = Watching | Admin
)

var rightNames = []struct {
	r    Rights
	name string
}{{Live, "live"}, {Recorded, "recorded"}, {Export, "export"}, {Admin, "administer"}}

// Names are those of the rights, in the order of their numbers.
func (r Rights) Names() []string {
	names := []string{}
	for _, n := range rightNames {
		if r&n.r != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

// ParseRights is the other direction of Names.
func ParseRights(names []string) (r Rights, err error) {
	for _, name := range names {
		i := slices.IndexFunc(rightNames, func(n struct {
			r    Rights
			name string
		}) bool {
			return n.name == name
		})
		if i < 0 {
			return 0, &InvalidError{fmt.Sprintf("there is no right %q: it is live, recorded, export or, of a scope, administer", name)}
		}
		r |= rightNames[i].r
	}
	return r.complete(), nil
}

// complete adds what other rights imply.
func (r Rights) complete() Rights {
	if r&Export != 0 {
		r |= Recorded
	}
	return r
}

// Action is what a subject wants to do.
type Action int

const (
	LookAround   Action = iota // see that a camera is there, and how it does
	ViewVideo                  // see either of the next two
	ViewLive                   // see live video
	ViewRecorded               // list and see what was recorded
	TakeRecorded               // have it as a file to be handed on
	Administer                 // all else: cameras, their configuration, users
)

// Subject is who asks. The zero value is nobody and may do nothing.
type Subject struct {
	UserID    int32 // 0: nobody
	Name      string
	SessionID int32
	Token     bool // a program's, not a browser's

	Preferences Preferences // of the user

	everybody Rights // what any caller may
	admin     bool
	rights    Rights
	cameras   map[int32]Rights // never changed
	scope     Rights
	session   *session
}

// May is the one decision. camera is the id of the camera that was loaded, 0 for
// the recorder as a whole: there it asks whether there may be any camera at all
// for which the answer is yes. To look around there, it is enough to be somebody.
func (s Subject) May(a Action, camera int32) bool {
	granted := s.granted(camera)
	switch a {
	case LookAround:
		return granted != 0 || camera == 0 && s.UserID != 0
	case ViewVideo:
		return granted&(Live|Recorded) != 0
	case ViewLive:
		return granted&Live != 0
	case ViewRecorded:
		return granted&Recorded != 0
	case TakeRecorded:
		return granted&Export != 0
	case Administer:
		return granted&Admin != 0
	}
	return false
}

// Rights are those that the subject has to a camera, for a page that shows only
// what is of use. They decide nothing: that is May.
func (s Subject) Rights(camera int32) Rights { return s.granted(camera) & Watching }

func (s Subject) granted(camera int32) Rights {
	if s.UserID == 0 {
		return s.everybody
	}
	own := s.rights
	switch {
	case s.admin:
		own = all
	case camera != 0:
		own |= s.cameras[camera]
	default:
		for _, r := range s.cameras {
			own |= r
		}
	}
	return s.everybody | own&s.scope
}

// MayAll reports whether the subject may do a thing with every camera, also with
// those that come later.
func (s Subject) MayAll(a Action) bool {
	s.cameras = nil
	return s.granted(0) != 0 && s.May(a, 0)
}

// Done is done when the subject is no longer who it was: its session has ended,
// or its user may other things now. What goes on for long has to end then.
func (s Subject) Done() context.Context {
	if s.session == nil {
		return context.Background()
	}
	return s.session.while
}

// ended reports whether the subject is no longer who it was. What changes
// something asks that again, holding changing: the decision may be as old as the
// body of the request was slow.
func (s Subject) ended() bool { return s.Done().Err() != nil }

// Config says how to open.
type Config struct {
	DB  *db.DB
	Log *slog.Logger // nil: no log

	// Failed, if set, is told of errors of the database, whose owner may have to
	// end the process.
	Failed func(error)

	// Everybody is what callers may do who have not signed in.
	Everybody Rights

	// Claim: the recorder can be claimed while it has no administrator and
	// everybody may nothing. ClaimFile, if set, is where the code is written then, readable by
	// nobody else.
	Claim     bool
	ClaimFile string

	// Now is the wall clock; nil is time.Now. Nothing waits by it. ClockGood
	// reports whether it is known to be right, and stays true then; nil: it is.
	Now       func() time.Time
	ClockGood func() bool
}

// Access is the users of a recorder. Its methods may be called from any
// goroutine.
type Access struct {
	cfg Config
	db  *db.DB
	log *slog.Logger
	now func() time.Time

	hashing   hasher
	addresses limiter // tries to sign in, by address
	accounts  nameLimiter
	claim     *claim // nil: there is none in this process
	tickets   tickets

	unset atomic.Bool // the clock was not set yet, when we last looked

	changing sync.Mutex // held by what changes the database

	mu       sync.RWMutex // guards what follows; taken inside changing
	users    map[int32]*db.User
	sessions map[[32]byte]*session
}

// Open reads the users. Damage of their tables is told to Failed and keeps
// nothing from going on: who cannot be read cannot sign in.
func Open(ctx context.Context, cfg Config) (*Access, error) {
	a := &Access{
		cfg: cfg, db: cfg.DB, log: cfg.Log, now: cfg.Now,
		hashing:   newHasher(),
		addresses: newLimiter(addressEvery, addressBurst),
		accounts:  newNameLimiter(),
		tickets:   tickets{open: make(map[[32]byte]ticket)},
		users:     make(map[int32]*db.User),
		sessions:  make(map[[32]byte]*session),
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	a.unset.Store(cfg.ClockGood != nil && !cfg.ClockGood())
	users, sessions, err := a.db.Access(ctx)
	damaged := db.Damaged(err)
	if err != nil && !damaged {
		return nil, err
	}
	if damaged {
		a.log.Error("users or sessions are damaged: some cannot sign in, and nobody can claim", "err", err)
		if cfg.Failed != nil {
			cfg.Failed(err)
		}
	}
	for i := range users {
		a.users[users[i].ID] = &users[i]
	}
	for i := range sessions {
		if a.users[sessions[i].UserID] != nil {
			a.keep(sessions[i])
		}
	}
	a.openClaim(damaged)
	return a, nil
}

// Close forgets the code of a claim. Nothing else is open.
func (a *Access) Close() { a.endClaim() }

// Nobody is the subject of a request without a session, where everybody may
// that much.
func Nobody(everybody Rights) Subject { return Subject{everybody: everybody} }

// Nobody is the subject of a request without a session.
func (a *Access) Nobody() Subject { return Nobody(a.cfg.Everybody) }

// HasUsers reports whether there is anybody who can sign in.
func (a *Access) HasUsers() bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, u := range a.users {
		if canSignIn(u) {
			return true
		}
	}
	return false
}

// Errors of the methods.
var (
	// ErrDenied: the name or the password is wrong, and nobody is told which.
	ErrDenied = errors.New("name or password is wrong")
	// ErrForbidden: the subject may not do that.
	ErrForbidden = errors.New("this is not allowed to you")
	// ErrNotFound: there is no such user or session.
	ErrNotFound = errors.New("there is no such user or session")
	// ErrExists: the name is taken.
	ErrExists = errors.New("there is a user of this name already")
	// ErrChanged: somebody else was faster.
	ErrChanged = errors.New("the user was changed by somebody else at the same moment: look again")
	// ErrBusy: too many want to sign in at this moment.
	ErrBusy = errors.New("too many are signing in at this moment: try again")
)

// InvalidError is a value that cannot be taken. Its text is for people.
type InvalidError struct{ Text string }

func (e *InvalidError) Error() string { return e.Text }

// LimitError says that there were too many tries, and when the next may be.
type LimitError struct{ After time.Duration }

func (e *LimitError) Error() string {
	return fmt.Sprintf("too many tries: try again in %v", max(e.After.Round(time.Second), time.Second))
}

// Peer is where a request comes from.
type Peer struct {
	Address string // IP address
	Agent   string // what the program calls itself
}

// short is the peer as the database takes it.
func (p Peer) short() Peer {
	return Peer{cut(p.Address, 64), cut(p.Agent, 256)}
}

// cut shortens text to n bytes, and to whole characters.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && text[n]&0xc0 == 0x80 {
		n--
	}
	return text[:n]
}

// change applies a change to the database and then to memory. The caller holds
// changing.
func (a *Access) change(ctx context.Context, c *db.AccessChange) error {
	expired := a.expired()
	c.DeleteSessions = append(c.DeleteSessions, expired...)
	// What goes cannot be changed: the database would find no row, and refuse all.
	c.Sessions = slices.DeleteFunc(c.Sessions, func(s db.Session) bool { return slices.Contains(expired, s.ID) })
	err := a.db.ApplyAccess(ctx, c)
	switch {
	case errors.Is(err, db.ErrExists):
		return ErrExists
	case errors.Is(err, db.ErrNotFound):
		return ErrNotFound
	case err != nil:
		if a.cfg.Failed != nil {
			a.cfg.Failed(err)
		}
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for hash, s := range a.sessions {
		if slices.Contains(c.DeleteSessions, s.ID) || slices.Contains(c.DeleteUsers, s.UserID) {
			delete(a.sessions, hash)
			s.end()
		}
	}
	for _, id := range c.DeleteUsers {
		delete(a.users, id)
	}
	for i := range c.Users {
		a.users[c.Users[i].ID] = &c.Users[i]
	}
	for _, s := range c.Sessions {
		made, used := a.unset.Load(), a.unset.Load()
		for hash, old := range a.sessions {
			if old.ID == s.ID {
				s.Uses = old.used()
				made, used = old.madeUndated, old.usedUndated
				delete(a.sessions, hash)
				old.end()
			}
		}
		in := a.keep(s)
		in.madeUndated, in.usedUndated = made, used
	}
	return nil
}

// user returns a user by name, nil when there is none.
func (a *Access) user(name string) *db.User {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, u := range a.users {
		if u.Name == name {
			return u
		}
	}
	return nil
}

func (a *Access) wall() media.Time { return media.TimeOf(a.now()) }
