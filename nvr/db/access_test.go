package db

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/media"
)

func (h *house) access() (users []User, sessions []Session) {
	h.t.Helper()
	users, sessions, err := h.Access(h.t.Context())
	h.must(err)
	return users, sessions
}

func (h *house) changeUsers(c AccessChange) AccessChange {
	h.t.Helper()
	h.must(h.ApplyAccess(h.t.Context(), &c))
	return c
}

var anna = User{Name: "anna", PasswordHash: "$argon2id$", Rights: 1, Created: 5, PasswordSet: 6}

func TestUsersAndSessionsAreKept(t *testing.T) {
	h := newHouse(t)
	back := h.addCamera("back")
	u := anna
	u.Cameras = map[int32]uint8{h.front.ID: 7, back.ID: 2, 99: 7} // there is no camera 99
	s := Session{SecretHash: [32]byte{1, 2}, Scope: 15, Created: 7, Expires: 8, CreatedAddress: "::1", CreatedAgent: "curl",
		Uses: SessionUse{9, "::1", "curl", 1}}
	token := Session{SecretHash: [32]byte{3}, Token: true, Name: "script", Scope: 1, Created: 7}
	c := h.changeUsers(AccessChange{First: true, Users: []User{u}, Sessions: []Session{s, token}})
	delete(u.Cameras, 99)
	u.ID, s.ID, s.UserID, token.ID, token.UserID = 1, 1, 1, 2, 1
	if c.Users[0].ID != 1 || c.Sessions[1].ID != 2 {
		t.Errorf("ids: %+v", c)
	}
	check := func() {
		t.Helper()
		users, sessions := h.access()
		if diff := cmp.Diff([]User{u}, users); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]Session{s, token}, sessions); diff != "" {
			t.Error(diff)
		}
	}
	check()
	h.reopen()
	check()

	// Rights go with their camera.
	h.must(h.ApplyConfig(t.Context(), &Change{DeleteCameras: []int32{back.ID}}))
	delete(u.Cameras, back.ID)
	check()

	u.Preferences = `{"a":1}`
	u.Name, u.Admin, u.Disabled, u.PasswordHash, u.PasswordSet, u.Cameras = "anne", true, true, "", 10, map[int32]uint8{h.front.ID: 1}
	s.SecretHash[0], s.Expires, s.Scope = 77, 0, 3
	h.changeUsers(AccessChange{Users: []User{u}, Sessions: []Session{s}})
	check()

	h.changeUsers(AccessChange{DeleteSessions: []int32{2, 2, 50}})
	if _, sessions := h.access(); len(sessions) != 1 {
		t.Errorf("sessions: %+v", sessions)
	}
	h.changeUsers(AccessChange{DeleteUsers: []int32{1}})
	if users, sessions := h.access(); len(users)+len(sessions) != 0 {
		t.Errorf("left: %+v, %+v", users, sessions)
	}
	h.sane()
}

// Fails with a second transaction, or one that is half done.
func TestChangeOfUsersHappensAsAWholeOrNotAtAll(t *testing.T) {
	h := newHouse(t)
	admin := anna
	admin.Admin = true
	h.changeUsers(AccessChange{First: true, Users: []User{{Name: "bob", PasswordHash: "x"}, {Name: "carl", Admin: true, Disabled: true, PasswordHash: "x"}, {Name: "dora", Admin: true}}})
	h.changeUsers(AccessChange{First: true, Users: []User{admin}, Sessions: []Session{{SecretHash: [32]byte{1}}}})
	before := h.dump()
	for name, c := range map[string]struct {
		change AccessChange
		want   error
	}{
		"a second first one": {AccessChange{First: true, Users: []User{{Name: "eve"}}}, ErrExists},
		"a taken name":       {AccessChange{DeleteSessions: []int32{1}, Users: []User{{Name: "eve"}, anna}}, ErrExists},
		"a taken secret":     {AccessChange{Users: []User{{Name: "eve"}}, Sessions: []Session{{SecretHash: [32]byte{1}}}}, ErrExists},
		"no such user":       {AccessChange{DeleteSessions: []int32{1}, DeleteUsers: []int32{9}}, ErrNotFound},
		"no user to change":  {AccessChange{DeleteSessions: []int32{1}, Users: []User{{ID: 9, Name: "eve"}}}, ErrNotFound},
	} {
		if err := h.ApplyAccess(t.Context(), &c.change); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(before, h.dump()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// R76. Fails when a use begins a transaction, is lost with a flush that fails, or
// holds up a flush when its session is gone.
func TestUseOfASessionRidesOnTheFlush(t *testing.T) {
	h := newHouse(t)
	h.changeUsers(AccessChange{Users: []User{anna}, Sessions: []Session{{SecretHash: [32]byte{1}}, {SecretHash: [32]byte{2}}}})
	uses := func() []SessionUse {
		_, sessions := h.access()
		return []SessionUse{sessions[0].Uses, sessions[1].Uses}
	}
	first, second := SessionUse{10, "192.0.2.1", "a", 1}, SessionUse{20, "192.0.2.2", "b", 2}
	h.NoteUse(1, SessionUse{9, "192.0.2.1", "a", 0})
	h.NoteUse(1, first)
	h.NoteUse(99, first)
	if diff := cmp.Diff([]SessionUse{{}, {}}, uses()); diff != "" {
		t.Errorf("written at once: %s", diff)
	}
	bad := h.batch(h.main, 0, 1)
	bad.Delete = []int64{12345}
	if err := h.Flush(t.Context(), bad); err == nil {
		t.Fatal("a flush of what is not there succeeds")
	}
	h.NoteUse(2, second)
	h.add(h.main, 0, 1)
	if diff := cmp.Diff([]SessionUse{first, second}, uses()); diff != "" {
		t.Error(diff)
	}
	later := SessionUse{30, "192.0.2.2", "b", 3}
	h.NoteUse(2, later)
	h.changeUsers(AccessChange{DeleteSessions: []int32{1}})
	if _, sessions := h.access(); len(sessions) != 1 || sessions[0].Uses != later {
		t.Errorf("with a change of users: %+v", sessions)
	}
}

// Fails when a use that cannot be written keeps recordings from being committed.
func TestBadUseOfASessionFailsNoFlush(t *testing.T) {
	h := newHouse(t)
	h.changeUsers(AccessChange{Users: []User{anna}, Sessions: []Session{{SecretHash: [32]byte{1}}, {SecretHash: [32]byte{2}}}})
	good := SessionUse{20, "192.0.2.2", "b", 2}
	h.NoteUse(1, SessionUse{10, "192.0.2.1", strings.Repeat("x", 300), 1})
	h.NoteUse(2, good)
	h.add(h.main, 0, 1)
	if _, sessions := h.access(); sessions[0].Uses != (SessionUse{}) || sessions[1].Uses != good {
		t.Errorf("%+v", sessions)
	}
	h.NoteUse(1, good)
	h.add(h.main, 1, 2)
	if _, sessions := h.access(); sessions[0].Uses != good {
		t.Errorf("the next: %+v", sessions[0])
	}
}

// Fails when damage of the sessions keeps recordings from being committed.
func TestDamagedSessionsFailNoFlush(t *testing.T) {
	h := newHouse(t)
	h.changeUsers(AccessChange{Users: []User{anna}, Sessions: []Session{{SecretHash: [32]byte{1}}}})
	var page int64
	h.must(h.reader.QueryRow(`SELECT rootpage FROM sqlite_schema WHERE name = 'user_session'`).Scan(&page))
	h.must(h.Close())
	h.must(os.Remove(h.path + "-wal")) // has the pages still
	f, err := os.OpenFile(h.path, os.O_WRONLY, 0)
	h.must(err)
	_, err = f.WriteAt(bytes.Repeat([]byte{0xff}, 4096), (page-1)*4096)
	h.must(errors.Join(err, f.Close()))
	h.reopen()
	if users, sessions, err := h.Access(t.Context()); !Damaged(err) || len(users) != 1 || len(sessions) != 0 {
		t.Fatalf("%d users, %d sessions, %v", len(users), len(sessions), err)
	}
	for no := range int32(2) {
		h.NoteUse(1, SessionUse{10, "192.0.2.1", "a", 1})
		h.add(h.main, no, no+1)
	}
	if got := h.numbers(h.main); len(got) != 2 {
		t.Errorf("committed are %d", got)
	}
}

// A copy does not know what was revoked since it was made.
func TestRestoredDatabaseHasNoSessions(t *testing.T) {
	h := newHouse(t)
	h.changeUsers(AccessChange{Users: []User{anna}, Sessions: []Session{{SecretHash: [32]byte{1}}, {SecretHash: [32]byte{2}, Token: true, Created: media.Time(1)}}})
	h.must(h.Mend(t.Context(), &Mend{EndSessions: true}))
	if users, sessions := h.access(); len(users) != 1 || len(sessions) != 0 {
		t.Errorf("users %+v, sessions %+v", users, sessions)
	}
}
