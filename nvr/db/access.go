package db

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"holdfast/nvr/media"
)

// User is who may sign in. What the numbers of rights mean stands in schema.sql;
// package access gives them their names.
type User struct {
	ID           int32 // 0: ApplyAccess inserts it and sets the id
	Name         string
	PasswordHash string // PHC string; "": no password lets in
	Admin        bool
	Disabled     bool
	Rights       uint8           // of every camera
	Cameras      map[int32]uint8 // beside that, by id of the camera; never 0
	Created      media.Time
	PasswordSet  media.Time
	Preferences  string // a JSON object that clients keep; "": {}
}

// Session is what lets a user in without the password: the session of a
// browser, or a token of a program.
type Session struct {
	ID         int32 // 0: ApplyAccess inserts it and sets the id
	UserID     int32 // 0: of the first user of the same change
	SecretHash [32]byte
	Token      bool
	Name       string // of a token
	Scope      uint8

	Created        media.Time
	Expires        media.Time // 0: never
	CreatedAddress string
	CreatedAgent   string

	Uses SessionUse
}

// SessionUse is the last use of a session and how many there were.
type SessionUse struct {
	Time    media.Time
	Address string
	Agent   string
	Count   int64
}

// Access returns all users and sessions, by id. With an error that is Damaged come
// those that could be read.
func (d *DB) Access(ctx context.Context) (users []User, sessions []Session, err error) {
	t, err := d.reader.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, nil, fmt.Errorf("read users: %w", d.readError(err))
	}
	defer t.Rollback()
	var damage error
	for _, q := range []struct {
		sql string
		row func(scan func(...any) error) error
	}{
		{`SELECT id, name, password_hash, admin, disabled, rights, created_time_90k, password_time_90k,
			iif(preferences = '{}', '', preferences) FROM user ORDER BY id`,
			func(scan func(...any) error) error {
				u := User{Cameras: make(map[int32]uint8)}
				err := scan(&u.ID, &u.Name, &u.PasswordHash, &u.Admin, &u.Disabled, &u.Rights, &u.Created, &u.PasswordSet, &u.Preferences)
				users = append(users, u)
				return err
			}},
		{`SELECT user_id, camera_id, rights FROM user_camera`,
			func(scan func(...any) error) error {
				var user, camera int32
				var rights uint8
				if err := scan(&user, &camera, &rights); err != nil {
					return err
				}
				i := slices.IndexFunc(users, func(u User) bool { return u.ID == user })
				if i < 0 && damage != nil {
					return nil
				}
				if i < 0 {
					return fmt.Errorf("rights of user %d: %w", user, ErrNotFound)
				}
				users[i].Cameras[camera] = rights
				return nil
			}},
		{`SELECT id, user_id, secret_hash, token, name, scope, created_time_90k, coalesce(expires_time_90k, 0), created_address,
			created_agent, used_time_90k, used_address, used_agent, uses FROM user_session ORDER BY id`,
			func(scan func(...any) error) error {
				var s Session
				var hash []byte
				err := scan(&s.ID, &s.UserID, &hash, &s.Token, &s.Name, &s.Scope, &s.Created, &s.Expires, &s.CreatedAddress,
					&s.CreatedAgent, &s.Uses.Time, &s.Uses.Address, &s.Uses.Agent, &s.Uses.Count)
				copy(s.SecretHash[:], hash)
				sessions = append(sessions, s)
				return err
			}},
	} {
		err := query(ctx, t, q.sql, nil, q.row)
		switch {
		case err == nil:
		case !Damaged(err):
			return nil, nil, fmt.Errorf("read users: %w", d.readError(err))
		case damage == nil:
			damage = fmt.Errorf("read users: %w", err)
		}
	}
	return users, sessions, damage
}

// AccessChange is a change of who may sign in. Its parts are applied in the
// order of the fields.
type AccessChange struct {
	// First: there must be no user yet who can administer.
	First bool

	// DeleteSessions goes by id; one that is gone already is no error.
	// DeleteUsers go with all that is theirs.
	DeleteSessions []int32
	DeleteUsers    []int32

	// Users are inserted when their ID is 0, else updated in full. Rights to
	// cameras that are not there are left out.
	Users []User

	// Sessions are inserted when their ID is 0. Of one that exists, secret,
	// scope, and the times it was made and expires are updated.
	Sessions []Session
}

// ApplyAccess makes all of the change in ONE transaction, or nothing, and with
// it what NoteUse was told. It sets the ids of what it inserts in c. A taken
// name, and an administrator although First, give ErrExists; what is not there ErrNotFound.
func (d *DB) ApplyAccess(ctx context.Context, c *AccessChange) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	var done AccessChange
	err := d.transactWithUses(ctx, func(t *tx) error {
		done = *c
		done.Users, done.Sessions = slices.Clone(c.Users), slices.Clone(c.Sessions)
		return t.applyAccess(&done)
	})
	if err != nil {
		return fmt.Errorf("change users: %w", err)
	}
	*c = done
	return nil
}

func (t *tx) applyAccess(c *AccessChange) error {
	if c.First {
		var n int
		if err := t.QueryRowContext(t.ctx, `SELECT count(*) FROM user WHERE admin AND NOT disabled AND password_hash != ''`).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("a first administrator: one %w", ErrExists)
		}
	}
	for _, id := range c.DeleteSessions {
		if _, err := t.ExecContext(t.ctx, `DELETE FROM user_session WHERE id = ?`, id); err != nil {
			return fmt.Errorf("delete session %d: %w", id, err)
		}
	}
	for _, id := range c.DeleteUsers {
		for _, s := range []string{`DELETE FROM user_session WHERE user_id = ?`, `DELETE FROM user_camera WHERE user_id = ?`} {
			if _, err := t.ExecContext(t.ctx, s, id); err != nil {
				return fmt.Errorf("delete user %d: %w", id, err)
			}
		}
		if err := t.change(`DELETE FROM user WHERE id = ?`, id); err != nil {
			return fmt.Errorf("delete user %d: %w", id, err)
		}
	}
	for i := range c.Users {
		if err := t.putUser(&c.Users[i]); err != nil {
			return fmt.Errorf("user %q: %w", c.Users[i].Name, exists(err))
		}
	}
	for i := range c.Sessions {
		s := &c.Sessions[i]
		if s.UserID == 0 && len(c.Users) > 0 {
			s.UserID = c.Users[0].ID
		}
		if err := t.putSession(s); err != nil {
			return fmt.Errorf("session of user %d: %w", s.UserID, exists(err))
		}
	}
	return nil
}

func (t *tx) putUser(u *User) error {
	preferences := cmp.Or(u.Preferences, "{}")
	var err error
	if u.ID == 0 {
		err = t.QueryRowContext(t.ctx, `INSERT INTO user (name, password_hash, admin, disabled, rights, created_time_90k, password_time_90k, preferences)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
			u.Name, u.PasswordHash, u.Admin, u.Disabled, u.Rights, u.Created, u.PasswordSet, preferences).Scan(&u.ID)
	} else {
		err = t.change(`UPDATE user SET name = ?, password_hash = ?, admin = ?, disabled = ?, rights = ?, password_time_90k = ?, preferences = ? WHERE id = ?`,
			u.Name, u.PasswordHash, u.Admin, u.Disabled, u.Rights, u.PasswordSet, preferences, u.ID)
	}
	if err == nil {
		_, err = t.ExecContext(t.ctx, `DELETE FROM user_camera WHERE user_id = ?`, u.ID)
	}
	for camera, rights := range u.Cameras {
		if _, there := t.d.known.cameras[camera]; !there || rights == 0 || err != nil {
			continue
		}
		_, err = t.ExecContext(t.ctx, `INSERT INTO user_camera (user_id, camera_id, rights) VALUES (?, ?, ?)`, u.ID, camera, rights)
	}
	return err
}

func (t *tx) putSession(s *Session) error {
	expires := sql.Null[media.Time]{V: s.Expires, Valid: s.Expires != 0}
	if s.ID != 0 {
		return t.change(`UPDATE user_session SET secret_hash = ?, scope = ?, created_time_90k = ?, expires_time_90k = ? WHERE id = ?`,
			s.SecretHash[:], s.Scope, s.Created, expires, s.ID)
	}
	return t.QueryRowContext(t.ctx, `INSERT INTO user_session (user_id, secret_hash, token, name, scope, created_time_90k, expires_time_90k,
			created_address, created_agent, used_time_90k, used_address, used_agent, uses)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
		s.UserID, s.SecretHash[:], s.Token, s.Name, s.Scope, s.Created, expires,
		s.CreatedAddress, s.CreatedAgent, s.Uses.Time, s.Uses.Address, s.Uses.Agent, s.Uses.Count).Scan(&s.ID)
}

// NoteUse takes down the last use of a session. It is written with the next
// flush or change of users, and is no reason for either (R76). There are at
// most as many as sessions.
func (d *DB) NoteUse(session int32, u SessionUse) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.uses == nil {
		d.uses = make(map[int32]SessionUse)
	}
	d.uses[session] = u
}

// transactWithUses runs f in a transaction that writes what NoteUse was told,
// too, and keeps that for the next one when it fails. No use is worth what it
// rides on: when their table is damaged they are let go and f runs again in a
// transaction without them, since SQLite commits none that has seen damage.
func (d *DB) transactWithUses(ctx context.Context, f func(*tx) error) error {
	d.mu.Lock()
	uses := d.uses
	d.uses = nil
	d.mu.Unlock()
	var damage error
	err := d.transact(ctx, func(t *tx) error {
		if err := f(t); err != nil {
			return err
		}
		err := t.noteUses(uses)
		if Damaged(err) {
			damage = err
		}
		return err
	})
	if damage != nil {
		d.usesDamaged.Do(func() {
			d.log.Error("the table of sessions is damaged: last uses are not kept", "err", damage)
		})
		return d.transact(ctx, f)
	}
	if err == nil || len(uses) == 0 {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, u := range d.uses {
		uses[id] = u // newer
	}
	d.uses = uses
	return err
}

// noteUses writes uses. One of a session that is gone is let go; so is one that
// the schema does not take.
func (t *tx) noteUses(uses map[int32]SessionUse) error {
	for id, u := range uses {
		err := t.exec(t.d.w.noteUse, u.Time, u.Address, u.Agent, u.Count, id)
		if err != nil && !errors.Is(err, ErrNotFound) && !isCode(err, codeConstraint) {
			return fmt.Errorf("last use of session %d: %w", id, err)
		}
	}
	return nil
}
