package access

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"holdfast/nvr/db"
)

// User is a user as others may see it.
type User struct {
	ID       int32
	Name     string
	Admin    bool
	Disabled bool
	Password bool // there is one
	Rights   Rights
	Cameras  map[int32]Rights

	Preferences Preferences
}

// UserChange is what changes of a user; what is nil stays.
type UserChange struct {
	Name     *string
	Password *string // "": none, so that nobody can sign in with one
	Admin    *bool
	Disabled *bool
	Rights   *Rights
	Cameras  map[int32]Rights

	Preferences *Preferences

	// If is what must hold of the user until now, else nothing changes: a
	// *PreconditionError. Who changes the own password must give it there.
	If *UserChange
}

// PreconditionError is a precondition that does not hold.
type PreconditionError struct{ Field string }

func (e *PreconditionError) Error() string {
	return "precondition." + e.Field + " is not what it is until now: nothing was changed"
}

func (a *Access) userByID(id int32) *db.User {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.users[id]
}

// mayManage lets administrators at every user, and users at themselves, but not
// by a token.
func (a *Access) mayManage(by Subject, user int32) error {
	if !by.May(Administer, 0) && (by.UserID != user || by.Token) {
		return ErrForbidden
	}
	if a.userByID(user) == nil {
		return ErrNotFound
	}
	return nil
}

// Users lists all users by name, to administrators.
func (a *Access) Users(by Subject) ([]User, error) {
	if !by.May(Administer, 0) {
		return nil, ErrForbidden
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	list := make([]User, 0, len(a.users))
	for _, u := range a.users {
		list = append(list, userOf(u))
	}
	slices.SortFunc(list, func(x, y User) int { return cmp.Compare(x.Name, y.Name) })
	return list, nil
}

// User returns a user to administrators and to that user.
func (a *Access) User(by Subject, id int32) (User, error) {
	if err := a.mayManage(by, id); err != nil {
		return User{}, err
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	u := a.users[id]
	if u == nil {
		return User{}, ErrNotFound
	}
	return userOf(u), nil
}

func userOf(u *db.User) User {
	out := User{
		ID: u.ID, Name: u.Name, Admin: u.Admin, Disabled: u.Disabled, Password: u.PasswordHash != "",
		Rights: Rights(u.Rights), Cameras: make(map[int32]Rights, len(u.Cameras)),
		Preferences: Preferences(u.Preferences),
	}
	for id, r := range u.Cameras {
		out.Cameras[id] = Rights(r)
	}
	return out
}

// letsIn reports whether a change gives somebody a way in, or makes an
// administrator. That is not for tokens: what they did would outlast them. was is
// the user until now; who was disabled may have a password, or tokens.
func (c *UserChange) letsIn(was *db.User) bool {
	return c.Password != nil || c.Admin != nil && *c.Admin || was.Disabled && c.Disabled != nil && !*c.Disabled
}

// AddUser adds a user, by an administrator; by a token only a viewer without a
// password.
func (a *Access) AddUser(ctx context.Context, by Subject, c UserChange) (id int32, err error) {
	if c.Password != nil && *c.Password == "" {
		c.Password = nil // a new user has none
	}
	if !by.May(Administer, 0) || by.Token && c.letsIn(&db.User{}) {
		return 0, ErrForbidden
	}
	if c.Name == nil {
		return 0, &InvalidError{"username is missing"}
	}
	u, err := a.changed(ctx, db.User{Created: a.wall()}, c)
	if err != nil {
		return 0, err
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if by.ended() {
		return 0, ErrForbidden
	}
	change := &db.AccessChange{Users: []db.User{u}}
	if err := a.change(ctx, change); err != nil {
		return 0, err
	}
	a.log.Info("added user", "user", u.Name, "admin", u.Admin, "by", by.Name)
	return change.Users[0].ID, nil
}

// ChangeUser changes a user: all of it by an administrator, the own password and
// preferences by anybody; a token sets no password, makes no administrator and
// lets nobody in who is disabled. Who may other things now, or has another
// password, has to sign in again: its sessions end. That of the subject goes on
// with a new secret, which is returned; else that is empty.
func (a *Access) ChangeUser(ctx context.Context, by Subject, id int32, c UserChange, from Peer) (secret string, err error) {
	if err := a.mayManage(by, id); err != nil {
		return "", err
	}
	own := by.UserID == id
	other := c.Name != nil || c.Admin != nil || c.Disabled != nil || c.Rights != nil || c.Cameras != nil
	was := a.userByID(id)
	if was == nil {
		return "", ErrNotFound
	}
	if other && !by.May(Administer, 0) || by.Token && c.letsIn(was) {
		return "", ErrForbidden
	}
	if c.If == nil {
		c.If = &UserChange{}
	}
	// A browser that was left open must not be enough to change the password.
	// A user without one has nothing to prove.
	if own && c.Password != nil && c.If.Password == nil && was.PasswordHash != "" {
		return "", &InvalidError{"precondition.password, the password until now, is missing"}
	}
	if err := a.holds(ctx, c.If, was, from); err != nil {
		return "", err
	}
	next, err := a.changed(ctx, *was, c)
	if err != nil {
		return "", err
	}

	a.changing.Lock()
	defer a.changing.Unlock()
	if by.ended() {
		return "", ErrForbidden
	}
	if a.userByID(id) != was {
		return "", ErrChanged
	}
	if administers(was) && !administers(&next) && a.administrators() == 1 {
		return "", &InvalidError{"this is the last administrator: nobody could undo it"}
	}
	change := &db.AccessChange{Users: []db.User{next}}
	if next.PasswordHash != was.PasswordHash || next.Admin != was.Admin || next.Disabled != was.Disabled ||
		next.Rights != was.Rights || !maps.Equal(next.Cameras, was.Cameras) {
		for _, s := range a.sessionsOf(id, func(s *session) bool { return true }) {
			switch {
			case s.Token: // it goes on, and what it was let do before ends
				change.Sessions = append(change.Sessions, s.row())
			case own && s.ID == by.SessionID && !next.Disabled:
				renewed := s.row()
				secret, renewed.SecretHash = newSecret(false)
				change.Sessions = append(change.Sessions, renewed)
			default:
				change.DeleteSessions = append(change.DeleteSessions, s.ID)
			}
		}
	}
	if err := a.change(ctx, change); err != nil {
		return "", err
	}
	a.log.Info("changed user", "user", next.Name, "by", by.Name, "sessions_ended", len(change.DeleteSessions))
	return secret, nil
}

// holds checks every precondition that is given. The password comes last: it
// costs work, and a try.
func (a *Access) holds(ctx context.Context, c *UserChange, u *db.User, from Peer) error {
	is := userOf(u)
	for _, f := range []struct {
		name  string
		holds bool
	}{
		{"username", c.Name == nil || *c.Name == is.Name},
		{"disabled", c.Disabled == nil || *c.Disabled == is.Disabled},
		{"permissions", c.Admin == nil || *c.Admin == is.Admin},
		{"permissions", c.Rights == nil || c.Rights.complete() == is.Rights},
		{"permissions", c.Cameras == nil || maps.Equal(c.Cameras, is.Cameras)},
		{"preferences", c.Preferences == nil || *c.Preferences == is.Preferences},
	} {
		if !f.holds {
			return &PreconditionError{f.name}
		}
	}
	wrong := &PreconditionError{"password"}
	switch {
	case c.Password == nil:
		return nil
	case *c.Password == "" || u.PasswordHash == "":
		if *c.Password != "" || u.PasswordHash != "" {
			return wrong
		}
		return nil
	}
	if err := a.accounts.take(a.account(u.Name, u, from), from.Address); err != nil {
		return err
	}
	right, _, err := a.hashing.verify(ctx, u.PasswordHash, *c.Password, signedIn)
	if err == nil && !right {
		err = wrong
	}
	return err
}

// DeleteUser deletes a user with all sessions, by an administrator.
func (a *Access) DeleteUser(ctx context.Context, by Subject, id int32) error {
	if !by.May(Administer, 0) {
		return ErrForbidden
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if by.ended() {
		return ErrForbidden
	}
	u := a.userByID(id)
	if u == nil {
		return ErrNotFound
	}
	if administers(u) && a.administrators() == 1 {
		return &InvalidError{"this is the last administrator: nobody could undo it"}
	}
	if err := a.change(ctx, &db.AccessChange{DeleteUsers: []int32{id}}); err != nil {
		return err
	}
	a.log.Info("deleted user", "user", u.Name, "by", by.Name)
	return nil
}

func canSignIn(u *db.User) bool { return !u.Disabled && u.PasswordHash != "" }

// administers reports whether a user can sign in and administer.
func administers(u *db.User) bool { return u.Admin && canSignIn(u) }

func (a *Access) administrators() (n int) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, u := range a.users {
		if administers(u) {
			n++
		}
	}
	return n
}

// changed applies a change to a copy of a user. It hashes, so it is called
// without any lock.
func (a *Access) changed(ctx context.Context, u db.User, c UserChange) (db.User, error) {
	if c.Name != nil {
		if err := checkName("username", *c.Name); err != nil {
			return u, err
		}
		u.Name = *c.Name
	}
	u.Admin = *cmp.Or(c.Admin, &u.Admin)
	u.Disabled = *cmp.Or(c.Disabled, &u.Disabled)
	if c.Preferences != nil {
		u.Preferences = string(*c.Preferences)
	}
	if c.Rights != nil {
		if *c.Rights&^Watching != 0 {
			return u, errNoRight
		}
		u.Rights = uint8(c.Rights.complete())
	}
	if c.Cameras != nil {
		u.Cameras = make(map[int32]uint8, len(c.Cameras))
		for id, r := range c.Cameras {
			if r&^Watching != 0 {
				return u, errNoRight
			}
			if r != 0 {
				u.Cameras[id] = uint8(r.complete())
			}
		}
	}
	if c.Password == nil {
		return u, nil
	}
	u.PasswordSet = a.wall()
	if *c.Password == "" {
		u.PasswordHash = ""
		return u, nil
	}
	err := checkPassword(u.Name, *c.Password)
	if err == nil {
		u.PasswordHash, err = a.hashing.hash(ctx, *c.Password, signedIn)
	}
	return u, err
}

var errNoRight = &InvalidError{"a right to a camera is live, recorded or export"}
