package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

// house is the users of a recorder with the cameras 1 and 2.
type house struct {
	*testing.T
	*Access
	db   *db.DB
	path string
	cfg  Config
	log  *bytes.Buffer
	wall time.Time
	root Subject // the administrator
}

// home is where the administrator signs in from.
var home = Peer{"192.0.2.1", "test"}

const rootPassword = "correct horse"

func newHouse(t *testing.T) *house {
	t.Helper()
	h := unclaimed(t)
	code, _ := h.ClaimCode()
	secret, err := h.Claim(t.Context(), code, "root", rootPassword, home)
	h.must(err)
	h.root = h.session(secret)
	return h
}

func unclaimed(t *testing.T) *house {
	t.Helper()
	dir := t.TempDir()
	h := &house{T: t, path: filepath.Join(dir, "db"), log: new(bytes.Buffer), wall: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	h.cfg = Config{Claim: true, ClaimFile: filepath.Join(dir, "claim-code"), Log: slog.New(slog.NewTextHandler(h.log, nil)),
		Now: func() time.Time { return h.wall }}
	h.open()
	c := &db.Change{Dirs: []db.Dir{{Path: "/disk"}}, Cameras: []db.CameraChange{{Camera: db.Camera{Name: "a"}}, {Camera: db.Camera{Name: "b"}}}}
	h.must(h.db.ApplyConfig(t.Context(), c))
	if c.Cameras[0].ID != 1 || c.Cameras[1].ID != 2 {
		t.Fatalf("cameras: %+v", c.Cameras)
	}
	return h
}

// open opens the database and the users, again when they are open.
func (h *house) open() {
	h.Helper()
	if h.Access != nil {
		h.Access.Close()
		h.must(h.db.Close())
	}
	d, err := db.Open(context.Background(), db.Config{Path: h.path})
	h.must(err)
	h.Cleanup(func() { d.Close() })
	h.db, h.cfg.DB = d, d
	h.Access, err = Open(context.Background(), h.cfg)
	h.must(err)
	for _, l := range []*limiter{&h.addresses, &h.accounts.all, &h.accounts.newcomers, &h.accounts.known} {
		l.cell = apart()
	}
	h.hashing.cost = cost{64, 1} // what is hashed here is no secret
	h.hashing.dummy = phc(h.hashing.cost, random(saltBytes), random(keyBytes))
	h.Cleanup(h.Access.Close)
}

// apart gives each key a cell of its own: else it is chance which share one.
func apart() func(tries) uint64 {
	of := make(map[tries]uint64)
	return func(key tries) uint64 {
		i, ok := of[key]
		if !ok {
			i = uint64(len(of))
			of[key] = i
		}
		return i
	}
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *house) session(secret string) Subject {
	h.Helper()
	s, ok := h.Session(secret, home)
	if !ok {
		h.Fatal("the session lets nobody in")
	}
	return s
}

// viewer makes a user with these rights, who signs in.
func (h *house) viewer(name string, every Rights, cameras map[int32]Rights) (id int32, secret string) {
	h.Helper()
	password := "password of " + name
	id, err := h.AddUser(h.Context(), h.root, UserChange{Name: &name, Password: &password, Rights: &every, Cameras: cameras})
	h.must(err)
	secret, err = h.Login(h.Context(), name, password, home, Subject{})
	h.must(err)
	return id, secret
}

func (h *house) gone(secret string) {
	h.Helper()
	if s, ok := h.Session(secret, home); ok {
		h.Errorf("the session still lets %s in", s.Name)
	}
}

// damage makes each page of the database unreadable that holds some bytes, and
// opens it again.
func (h *house) damage(bytesOf []byte) {
	h.Helper()
	h.Access.Close()
	h.must(h.db.Close())
	h.must(os.Remove(h.path + "-wal")) // has the pages still
	file, err := os.ReadFile(h.path)
	h.must(err)
	pages := 0
	for page := range slices.Chunk(file, 4096) {
		if bytes.Contains(page, bytesOf) {
			copy(page, bytes.Repeat([]byte{0xff}, len(page)))
			pages++
		}
	}
	if pages == 0 {
		h.Fatalf("no page has %q", bytesOf)
	}
	h.must(os.WriteFile(h.path, file, 0o600))
	h.Access = nil
	h.open()
}

// Fails when damaged users or sessions keep the recorder from starting, or have
// somebody else claim it.
func TestDamagedUsersKeepNothingFromGoingOn(t *testing.T) {
	var failed []error
	h := unclaimed(t)
	h.cfg.Failed = func(err error) { failed = append(failed, err) }
	code, _ := h.ClaimCode()
	secret, err := h.Claim(t.Context(), code, "the owner of it all", rootPassword, home)
	h.must(err)
	hash := sha256.Sum256([]byte(secret))
	h.damage(hash[:])
	h.gone(secret)
	if !h.HasUsers() || len(failed) != 1 || !db.Damaged(failed[0]) {
		t.Errorf("users %t, told of %v", h.HasUsers(), failed)
	}
	h.damage([]byte("the owner of it all"))
	if code, _ := h.ClaimCode(); h.HasUsers() || h.Unclaimed() || code != "" || len(failed) != 2 {
		t.Errorf("users %t, to be claimed %t with %q, told of %v", h.HasUsers(), h.Unclaimed(), code, failed)
	}
	if s, ok := h.Session(secret, home); ok || h.Nobody().May(LookAround, 0) {
		t.Errorf("%+v may something", s)
	}
}

// Every action with the cameras 1, 2 and the whole, by every kind of subject.
func TestWhoMayDoWhat(t *testing.T) {
	h := newHouse(t)
	_, a := h.viewer("of a", 0, map[int32]Rights{1: Live})
	_, b := h.viewer("of b", 0, map[int32]Rights{2: Export})
	_, all := h.viewer("of all", Recorded, map[int32]Rights{1: Live})
	_, none := h.viewer("of none", 0, nil)
	token := func(by Subject, scope Rights) Subject {
		t.Helper()
		_, secret, err := h.AddToken(t.Context(), by, fmt.Sprint(scope), scope, 0, home)
		h.must(err)
		s, ok := h.Token(secret, home)
		if !ok {
			t.Fatal("the token lets nobody in")
		}
		return s
	}
	const look, video, live, recorded, take, admin = "l", "v", "L", "R", "T", "A"
	actions := []struct {
		Action
		letter string
	}{{LookAround, look}, {ViewVideo, video}, {ViewLive, live}, {ViewRecorded, recorded}, {TakeRecorded, take}, {Administer, admin}}
	for name, c := range map[string]struct {
		s            Subject
		a, b, whole_ string
		later        string // a camera that comes later
	}{
		"zero":                            {Subject{}, "", "", "", ""},
		"nobody":                          {h.Nobody(), "", "", "", ""},
		"nobody where all may look":       {Nobody(Watching), "lvLRT", "lvLRT", "lvLRT", "lvLRT"},
		"administrator":                   {h.root, "lvLRTA", "lvLRTA", "lvLRTA", "lvLRTA"},
		"viewer of a":                     {h.session(a), "lvL", "", "lvL", ""},
		"viewer of b":                     {h.session(b), "", "lvRT", "lvRT", ""},
		"viewer of all":                   {h.session(all), "lvLR", "lvR", "lvLR", "lvR"},
		"viewer of none":                  {h.session(none), "", "", "l", ""},
		"token for recorded of a":         {token(h.session(a), Recorded), "", "", "l", ""},
		"token for live of a":             {token(h.session(a), Live), "lvL", "", "lvL", ""},
		"token for live of administrator": {token(h.root, Live), "lvL", "lvL", "lvL", "lvL"},
		"token to administer":             {token(h.root, Admin), "lA", "lA", "lA", "lA"},
	} {
		for camera, want := range map[int32]string{0: c.whole_, 1: c.a, 2: c.b, 3: c.later} {
			got := ""
			for _, a := range actions {
				if c.s.May(a.Action, camera) {
					got += a.letter
				}
			}
			if got != want {
				t.Errorf("%s, camera %d: may %q, want %q", name, camera, got, want)
			}
		}
		if got, want := c.s.MayAll(LookAround), c.later != ""; got != want {
			t.Errorf("%s may look at all: %t, want %t", name, got, want)
		}
	}
}

func TestSignInAndOut(t *testing.T) {
	h := newHouse(t)
	for _, c := range [][2]string{{"root", "wrong password"}, {"nobody", rootPassword}, {"root", ""}, {"", ""}} {
		if _, err := h.Login(t.Context(), c[0], c[1], home, Subject{}); !errors.Is(err, ErrDenied) {
			t.Errorf("%q: %v", c, err)
		}
	}
	first, err := h.Login(t.Context(), "root", rootPassword, home, Subject{})
	h.must(err)
	if first == "" || h.session(first).Name != "root" {
		t.Errorf("signed in as %+v", h.session(first))
	}
	// Who signs in again gets another session for the one that was.
	second, err := h.Login(t.Context(), "root", rootPassword, home, h.session(first))
	h.must(err)
	h.gone(first)
	h.open()
	s := h.session(second)
	h.must(h.Logout(t.Context(), s))
	h.gone(second)
	if s.Done().Err() == nil {
		t.Error("what goes on is not ended")
	}
	h.open()
	h.gone(second)

	// Nothing secret is kept or logged.
	h.must(h.db.Close())
	for name, b := range map[string][]byte{"log": h.log.Bytes(), "database": read(t, h.path)} {
		for _, secret := range []string{rootPassword, "wrong password", first, second} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("the %s holds %q", name, secret)
			}
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Fails when a session lives on what it was, or its secret does for a token.
func TestSessionsExpireAndTokensAreNone(t *testing.T) {
	h := newHouse(t)
	login := func() string {
		t.Helper()
		secret, err := h.Login(t.Context(), "root", rootPassword, home, Subject{})
		h.must(err)
		return secret
	}
	idle, used := login(), login()
	_, token, err := h.AddToken(t.Context(), h.session(used), "script", Live, 20*24*time.Hour, home)
	h.must(err)
	for range 4 {
		h.wall = h.wall.Add(6 * 24 * time.Hour)
		h.session(used)
	}
	h.gone(idle)
	if _, ok := h.Token(token, home); ok {
		t.Error("the token is good beyond its days")
	}
	h.wall = h.wall.Add(6*24*time.Hour + time.Second)
	h.gone(used) // it was used, and is a month old
	h.wall = h.wall.Add(-60 * 24 * time.Hour)
	h.session(used) // a clock that is behind ends nothing, nor that it is right again
	h.wall = h.wall.Add(55 * 24 * time.Hour)
	h.session(used)

	_, forever, err := h.AddToken(t.Context(), h.session(used), "forever", Live, 0, home)
	h.must(err)
	if _, ok := h.Session(forever, home); ok {
		t.Error("a token is a session")
	}
	if _, ok := h.Token(used, home); ok {
		t.Error("a session is a token")
	}
	h.wall = h.wall.Add(10 * 365 * 24 * time.Hour)
	s, ok := h.Token(forever, home)
	if !ok {
		t.Fatal("a token without end has ended")
	}
	// What has expired goes with the next change.
	h.must(h.Logout(t.Context(), s))
	secret := login()
	if list, err := h.Sessions(h.session(secret), h.root.UserID); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, rows, err := h.db.Access(t.Context()); err != nil || len(rows) != 2 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
}

// Fails when a session that was made, or used, before the clock was set ends when
// it is; and when a clock that is not known to be right ends one for good.
func TestClockThatIsSetEndsNoSession(t *testing.T) {
	h := newHouse(t)
	root, err := h.Login(t.Context(), "root", rootPassword, home, Subject{})
	h.must(err)
	_, old, err := h.AddToken(t.Context(), h.root, "old", Live, time.Hour, home)
	h.must(err)
	right := h.wall.Add(5 * 24 * time.Hour)

	good := false
	h.cfg.ClockGood = func() bool { return good }
	h.wall = h.wall.Add(100 * 365 * 24 * time.Hour) // it is nonsense, and ahead
	h.open()
	h.root = h.session(root)
	if _, ok := h.Token(old, home); !ok {
		t.Error("a clock that may be wrong ends a token")
	}
	h.viewer("v", Live, nil) // a change: nothing goes with it
	h.wall = time.Date(1970, 1, 1, 0, 2, 0, 0, time.UTC)
	secret, err := h.Login(t.Context(), "root", rootPassword, home, Subject{})
	h.must(err)
	by := h.session(secret)
	_, token, err := h.AddToken(t.Context(), by, "new", Live, 90*24*time.Hour, home)
	h.must(err)

	good, h.wall = true, right
	var many sync.WaitGroup // at the moment that it is set
	for range 4 {
		many.Go(func() {
			if _, ok := h.Session(secret, home); !ok {
				t.Error("the session has ended")
			}
			_, _ = h.Sessions(h.root, h.root.UserID)
		})
	}
	many.Wait()
	if by.Done().Err() != nil || !h.Still(by, home) {
		t.Error("what goes on by the session has ended")
	}
	for range 2 { // also after a restart
		h.session(root)
		h.session(secret)
		if _, ok := h.Token(token, home); !ok {
			t.Error("the token has ended")
		}
		if _, ok := h.Token(old, home); ok {
			t.Error("a token that has expired by a clock that is right lets in")
		}
		list, err := h.Sessions(h.root, h.root.UserID)
		h.must(err)
		for _, s := range list {
			want := media.TimeOf(right).Add(media.DurationOf(MostSession))
			if s.Token {
				want = media.TimeOf(right).Add(media.DurationOf(90 * 24 * time.Hour))
			}
			if s.ID >= by.SessionID && (s.Created != media.TimeOf(right) || s.Expires != want) {
				t.Errorf("%+v, want it made %v, good until %v", s, media.TimeOf(right), want)
			}
		}
		h.open()
	}
	h.wall = right.Add(8 * 24 * time.Hour)
	h.gone(secret)
}

// The last use of a session is written with what is written anyway (R76).
func TestUseIsWrittenWithTheNextChange(t *testing.T) {
	h := newHouse(t)
	rows := func() []db.Session {
		t.Helper()
		_, s, err := h.db.Access(t.Context())
		h.must(err)
		return s
	}
	_, secret := h.viewer("v", Live, nil)
	before := rows()[1].Uses
	h.wall = h.wall.Add(time.Hour)
	for range 3 {
		if _, ok := h.Session(secret, Peer{"2001:db8::1", strings.Repeat("ä", 300)}); !ok {
			t.Fatal("not let in")
		}
	}
	if got := rows()[1].Uses; got != before {
		t.Errorf("a use was a reason to write: %+v", got)
	}
	h.viewer("w", 0, nil)
	want := db.SessionUse{Time: media.TimeOf(h.wall), Address: "2001:db8::1", Agent: strings.Repeat("ä", 128), Count: before.Count + 3}
	if diff := cmp.Diff(want, rows()[1].Uses); diff != "" {
		t.Error(diff)
	}
}

func TestChangeOfRightsEndsSessions(t *testing.T) {
	h := newHouse(t)
	yes, no, other := true, false, "another password"
	for name, c := range map[string]struct {
		change UserChange
		ends   bool
	}{
		"nothing":   {UserChange{}, false},
		"name":      {UserChange{Name: new("anna")}, false},
		"password":  {UserChange{Password: &other}, true},
		"rights":    {UserChange{Rights: new(Live | Recorded)}, true},
		"cameras":   {UserChange{Cameras: map[int32]Rights{2: Live}}, true},
		"admin":     {UserChange{Admin: &yes}, true},
		"disabled":  {UserChange{Disabled: &yes}, true},
		"as it was": {UserChange{Admin: &no, Rights: new(Live)}, false},
	} {
		id, secret := h.viewer("v", Live, nil)
		s := h.session(secret)
		_, token, err := h.AddToken(t.Context(), s, "script", Live, 0, home)
		h.must(err)
		script, _ := h.Token(token, home)
		if _, err := h.ChangeUser(t.Context(), h.root, id, c.change, home); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for range 2 { // also after a restart
			if _, ok := h.Session(secret, home); ok == c.ends {
				t.Errorf("%s: lets in: %t", name, ok)
			}
			if _, ok := h.Token(token, home); ok == (name == "disabled") {
				t.Errorf("%s: token lets in: %t", name, ok)
			}
			if name == "rights" {
				break
			}
		}
		if ended := s.Done().Err() != nil; ended != c.ends {
			t.Errorf("%s: what goes on ended: %t", name, ended)
		}
		if ended := script.Done().Err() != nil; ended != c.ends {
			t.Errorf("%s: what goes on by a token ended: %t", name, ended)
		}
		h.must(h.DeleteUser(t.Context(), h.root, id))
		h.gone(secret)
	}
}

// Fails when what has expired, and goes with the next change, keeps that change
// from being made.
func TestExpiredTokenKeepsNoUserFromChange(t *testing.T) {
	h := newHouse(t)
	id, secret := h.viewer("v", Live, nil)
	_, token, err := h.AddToken(t.Context(), h.session(secret), "script", Live, 24*time.Hour, home)
	h.must(err)
	_, lasting, err := h.AddToken(t.Context(), h.session(secret), "other", Live, 0, home)
	h.must(err)
	h.wall = h.wall.Add(48 * time.Hour)
	yes := true
	if _, err := h.ChangeUser(t.Context(), h.root, id, UserChange{Rights: new(Recorded)}, home); err != nil {
		t.Errorf("other rights: %v", err)
	}
	if s, ok := h.Token(lasting, home); !ok || s.May(ViewLive, 0) {
		t.Errorf("the token that lasts: %+v, %t", s, ok)
	}
	if _, err := h.ChangeUser(t.Context(), h.root, id, UserChange{Disabled: &yes}, home); err != nil {
		t.Errorf("disable: %v", err)
	}
	h.gone(secret)
	h.open()
	h.gone(secret)
	if _, ok := h.Token(token, home); ok {
		t.Error("the expired token lets in")
	}
}

// Fails when a browser that was left open is enough to take over a user.
func TestOwnPassword(t *testing.T) {
	h := newHouse(t)
	id, secret := h.viewer("v", Live, nil)
	_, elsewhere := h.viewer("w", Live, nil)
	there, err := h.Login(t.Context(), "v", "password of v", Peer{"192.0.2.9", ""}, Subject{})
	h.must(err)
	s := h.session(secret)
	next, wrong, old := "a new password", "not the old one", "password of v"
	if _, err := h.ChangeUser(t.Context(), s, id, UserChange{Password: &next}, home); !errors.As(err, new(*InvalidError)) {
		t.Errorf("without the old one: %v", err)
	}
	if _, err := h.ChangeUser(t.Context(), s, id, UserChange{Password: &next, If: &UserChange{Password: &wrong}}, home); !errors.As(err, new(*PreconditionError)) {
		t.Errorf("with a wrong one: %v", err)
	}
	renewed, err := h.ChangeUser(t.Context(), s, id, UserChange{Password: &next, If: &UserChange{Password: &old}}, home)
	h.must(err)
	h.gone(secret)
	h.gone(there)
	h.session(renewed)
	h.session(elsewhere)
	if _, err := h.Login(t.Context(), "v", old, home, Subject{}); !errors.Is(err, ErrDenied) {
		t.Errorf("the old password: %v", err)
	}
	if _, err := h.Login(t.Context(), "v", next, home, Subject{}); err != nil {
		t.Errorf("the new one: %v", err)
	}
}

// Fails when something changes of a user who is not what the change is for,
// whoever makes it.
func TestPreconditionsOfAUserHold(t *testing.T) {
	h := newHouse(t)
	id, _ := h.viewer("v", Live, map[int32]Rights{1: Export})
	bare, err := h.AddUser(t.Context(), h.root, UserChange{Name: new("w"), Password: new("")})
	h.must(err)
	for name, c := range map[string]struct {
		id    int32
		is    UserChange
		field string // that does not hold; "": all do
	}{
		"nothing":                  {id, UserChange{}, ""},
		"all":                      {id, UserChange{Name: new("v"), Password: new("password of v"), Admin: new(false), Disabled: new(false), Rights: new(Live), Cameras: map[int32]Rights{1: Export | Recorded}}, ""},
		"no password":              {bare, UserChange{Password: new("")}, ""},
		"other name":               {id, UserChange{Name: new("w")}, "username"},
		"disabled":                 {id, UserChange{Disabled: new(true)}, "disabled"},
		"administrator":            {id, UserChange{Admin: new(true)}, "permissions"},
		"other rights":             {id, UserChange{Rights: new(Recorded)}, "permissions"},
		"rights to no camera":      {id, UserChange{Cameras: map[int32]Rights{}}, "permissions"},
		"wrong password":           {id, UserChange{Password: new("password of w")}, "password"},
		"no password where is one": {id, UserChange{Password: new("")}, "password"},
		"password where is none":   {bare, UserChange{Password: new("password of v")}, "password"},
	} {
		was, err := h.User(h.root, c.id)
		h.must(err)
		want := was
		want.Rights ^= Recorded
		_, err = h.ChangeUser(t.Context(), h.root, c.id, UserChange{Rights: &want.Rights, If: &c.is}, home)
		failed, ok := errors.AsType[*PreconditionError](err)
		if c.field == "" && err != nil || c.field != "" && (!ok || failed.Field != c.field) {
			t.Errorf("%s: %v, want one of %q", name, err, c.field)
		}
		if c.field != "" {
			want = was
		}
		if now, err := h.User(h.root, c.id); err != nil || !cmp.Equal(now, want) {
			t.Errorf("%s: %+v, %v, want %+v", name, now, err, want)
		}
		_, err = h.ChangeUser(t.Context(), h.root, c.id, UserChange{Rights: &was.Rights}, home)
		h.must(err)
	}
}

// Fails when a precondition lets passwords be tried without end.
func TestPreconditionIsATry(t *testing.T) {
	h := newHouse(t)
	id, _ := h.viewer("v", Live, nil)
	for range 2 * accountBurst { // some come back meanwhile
		_, err := h.ChangeUser(t.Context(), h.root, id, UserChange{If: &UserChange{Password: new("a guess")}}, home)
		if errors.As(err, new(*LimitError)) {
			return
		}
		if !errors.As(err, new(*PreconditionError)) {
			t.Fatal(err)
		}
	}
	t.Error("there is no limit")
}

func TestUsersMayOnlyWhatIsTheirs(t *testing.T) {
	h := newHouse(t)
	id, secret := h.viewer("v", Live, nil)
	other, _ := h.viewer("w", Live, nil)
	s := h.session(secret)
	_, token, err := h.AddToken(t.Context(), s, "script", Live, 0, home)
	h.must(err)
	script, _ := h.Token(token, home)
	yes, password := true, "a new password"
	for name, f := range map[string]func(by Subject) error{
		"list":        func(by Subject) error { _, err := h.Users(by); return err },
		"see another": func(by Subject) error { _, err := h.User(by, other); return err },
		"add":         func(by Subject) error { _, err := h.AddUser(t.Context(), by, UserChange{Name: new("x")}); return err },
		"make an admin": func(by Subject) error {
			_, err := h.ChangeUser(t.Context(), by, id, UserChange{Admin: &yes}, home)
			return err
		},
		"more rights": func(by Subject) error {
			_, err := h.ChangeUser(t.Context(), by, id, UserChange{Rights: new(Export)}, home)
			return err
		},
		"other name": func(by Subject) error {
			_, err := h.ChangeUser(t.Context(), by, id, UserChange{Name: new("root2")}, home)
			return err
		},
		"other's": func(by Subject) error {
			_, err := h.ChangeUser(t.Context(), by, other, UserChange{Password: &password}, home)
			return err
		},
		"delete":          func(by Subject) error { return h.DeleteUser(t.Context(), by, id) },
		"revoke other's":  func(by Subject) error { return h.Revoke(t.Context(), by, other, 0) },
		"list other's":    func(by Subject) error { _, err := h.Sessions(by, other); return err },
		"token to admin":  func(by Subject) error { _, _, err := h.AddToken(t.Context(), by, "x", Admin, 0, home); return err },
		"not its session": func(by Subject) error { return h.Revoke(t.Context(), by, h.root.UserID, h.root.SessionID) },
	} {
		for _, by := range []Subject{s, script, h.Nobody(), {}} {
			if err := f(by); !errors.Is(err, ErrForbidden) {
				t.Errorf("%s as %q (token %t): %v", name, by.Name, by.Token, err)
			}
		}
	}
	// A token does not reach for its user either.
	for name, err := range map[string]error{
		"list":     errOf(h.Sessions(script, id)),
		"see":      errOf(h.User(script, id)),
		"revoke":   h.Revoke(t.Context(), script, id, 0),
		"password": errOf(h.ChangeUser(t.Context(), script, id, UserChange{Password: &password, If: &UserChange{Password: &password}}, home)),
		"token":    func() error { _, _, err := h.AddToken(t.Context(), script, "x", Live, 0, home); return err }(),
	} {
		if !errors.Is(err, ErrForbidden) {
			t.Errorf("%s by a token: %v", name, err)
		}
	}
	h.must(h.Revoke(t.Context(), s, id, 0))
	h.gone(secret)
	if _, ok := h.Token(token, home); ok {
		t.Error("all were revoked but the token")
	}
}

// Fails when a token that may administer gives itself, or anybody, a way in that
// outlasts it.
func TestTokenToAdministerLetsNobodyIn(t *testing.T) {
	h := newHouse(t)
	id, secret := h.viewer("v", Live, nil)
	_, token, err := h.AddToken(t.Context(), h.root, "script", Admin, 0, home)
	h.must(err)
	by, _ := h.Token(token, home)
	yes, no, none, password := true, false, "", "a new password"
	for name, c := range map[string]UserChange{"password": {Password: &password}, "no password": {Password: &none}, "administrator": {Admin: &yes}} {
		if _, err := h.ChangeUser(t.Context(), by, id, c, home); !errors.Is(err, ErrForbidden) {
			t.Errorf("change, %s: %v", name, err)
		}
		c.Name = &name
		if c.Password == &none {
			continue // what a new user has anyway
		}
		if _, err := h.AddUser(t.Context(), by, c); !errors.Is(err, ErrForbidden) {
			t.Errorf("add, %s: %v", name, err)
		}
	}
	h.session(secret)
	// The rest is what it is for.
	other, err := h.AddUser(t.Context(), by, UserChange{Name: new("w"), Admin: &no})
	h.must(err)
	_, err = h.ChangeUser(t.Context(), by, id, UserChange{Disabled: &yes, Rights: new(Recorded)}, home)
	h.must(err)
	h.must(h.DeleteUser(t.Context(), by, other))

	// Who is disabled stays that, whatever lets in; who is not may be said to be so.
	_, err = h.ChangeUser(t.Context(), by, id, UserChange{Disabled: &no}, home)
	if !errors.Is(err, ErrForbidden) {
		t.Errorf("enable who has a password: %v", err)
	}
	_, err = h.ChangeUser(t.Context(), h.root, id, UserChange{Password: &none}, home)
	h.must(err)
	if _, err = h.ChangeUser(t.Context(), by, id, UserChange{Disabled: &no}, home); !errors.Is(err, ErrForbidden) {
		t.Errorf("enable who may have a token: %v", err)
	}
	_, err = h.ChangeUser(t.Context(), h.root, id, UserChange{Disabled: &no}, home)
	h.must(err)
	_, err = h.ChangeUser(t.Context(), by, id, UserChange{Disabled: &no}, home)
	h.must(err)
}

// Fails when what was decided before the session ended, and comes to be done
// after that, is done.
func TestWhoWasRevokedCompletesNothing(t *testing.T) {
	h := newHouse(t)
	yes, password := true, "a new password"
	viewer, _ := h.viewer("v", Live, nil)
	for name, end := range map[string]func(boss int32) error{
		"revoked": func(boss int32) error { return h.Revoke(t.Context(), h.root, boss, 0) },
		"changed": func(boss int32) error {
			return errOf(h.ChangeUser(t.Context(), h.root, boss, UserChange{Admin: new(false)}, home))
		},
		"deleted": func(boss int32) error { return h.DeleteUser(t.Context(), h.root, boss) },
	} {
		boss, err := h.AddUser(t.Context(), h.root, UserChange{Name: &name, Password: &password, Admin: &yes})
		h.must(err)
		secret, err := h.Login(t.Context(), name, password, home, Subject{})
		h.must(err)
		by := h.session(secret)
		h.must(end(boss))
		for what, err := range map[string]error{
			"adds":    errOf(h.AddUser(t.Context(), by, UserChange{Name: new("x"), Admin: &yes})),
			"changes": errOf(h.ChangeUser(t.Context(), by, viewer, UserChange{Admin: &yes}, home)),
			"revokes": h.Revoke(t.Context(), by, viewer, 0),
			"deletes": h.DeleteUser(t.Context(), by, viewer),
			"token":   func() error { _, _, err := h.AddToken(t.Context(), by, "x", Live, 0, home); return err }(),
		} {
			if !errors.Is(err, ErrForbidden) {
				t.Errorf("who was %s %s: %v", name, what, err)
			}
		}
	}
}

func errOf[T any](_ T, err error) error { return err }

func TestLastAdministratorStays(t *testing.T) {
	h := newHouse(t)
	root := h.root.UserID
	no, yes, none, old := false, true, "", rootPassword
	refused := func(when string) {
		t.Helper()
		for name, c := range map[string]UserChange{"no admin": {Admin: &no}, "disabled": {Disabled: &yes}, "no password": {Password: &none, If: &UserChange{Password: &old}}} {
			if _, err := h.ChangeUser(t.Context(), h.root, root, c, home); !errors.As(err, new(*InvalidError)) {
				t.Errorf("%s, %s: %v", when, name, err)
			}
		}
		if err := h.DeleteUser(t.Context(), h.root, root); !errors.As(err, new(*InvalidError)) {
			t.Errorf("%s, delete: %v", when, err)
		}
	}
	refused("alone")
	id, err := h.AddUser(t.Context(), h.root, UserChange{Name: new("second"), Admin: &yes})
	h.must(err)
	refused("with one who has no password")
	_, err = h.ChangeUser(t.Context(), h.root, id, UserChange{Password: new("long enough")}, home)
	h.must(err)
	h.must(h.DeleteUser(t.Context(), h.root, root))
}

func TestBadUsersAreRefused(t *testing.T) {
	h := newHouse(t)
	for name, c := range map[string]UserChange{
		"no name":        {},
		"empty name":     {Name: new("")},
		"long name":      {Name: new(strings.Repeat("x", 65))},
		"spaces":         {Name: new(" x")},
		"line":           {Name: new("x\ny")},
		"not UTF-8":      {Name: new("\xff")},
		"short password": {Name: new("x"), Password: new("1234567")},
		"long password":  {Name: new("x"), Password: new(strings.Repeat("x", 257))},
		"name as such":   {Name: new("password1"), Password: new("Password1")},
		"no right":       {Name: new("x"), Rights: new(Admin)},
		"nor of one":     {Name: new("x"), Cameras: map[int32]Rights{1: Admin}},
	} {
		if _, err := h.AddUser(t.Context(), h.root, c); !errors.As(err, new(*InvalidError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.AddUser(t.Context(), h.root, UserChange{Name: new("root")}); !errors.Is(err, ErrExists) {
		t.Errorf("taken name: %v", err)
	}
}

// Fails when tries are not counted, when one address uses up all, and when a
// stranger can keep a user out who is signed in.
func TestTriesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		try := func(name, password, address string) error {
			_, err := h.Login(t.Context(), name, password, Peer{address, ""}, Subject{})
			return err
		}
		limited := func(err error) bool { return errors.As(err, new(*LimitError)) }
		// One name from many addresses, newcomers all.
		n := 0
		for ; n < 100 && !limited(try("root", "wrong", fmt.Sprintf("198.51.100.%d", n))); n++ {
		}
		if n != 2*accountBurst {
			t.Errorf("%d tries for one name", n)
		}
		if err := try("root", rootPassword, "198.51.100.200"); !limited(err) {
			t.Errorf("the right password over the limit: %v", err)
		}
		if err := try("root", rootPassword, home.Address); err != nil {
			t.Errorf("from where the user is signed in: %v", err)
		}
		// No name that can be typed takes those tries away.
		for i := range 2 * accountBurst {
			for _, name := range []string{"root\x00" + home.Address, "root " + home.Address, "root" + home.Address} {
				_ = try(name, "wrong", fmt.Sprintf("198.51.%d.1", i))
			}
		}
		if err := try("root", rootPassword, home.Address); err != nil {
			t.Errorf("after tries of names like the user's: %v", err)
		}
		time.Sleep(accountEvery)
		if err := try("root", rootPassword, "198.51.100.200"); err != nil {
			t.Errorf("later: %v", err)
		}
		// Many names from one network.
		for n = 0; n < 100 && !limited(try(fmt.Sprint(n), "wrong", fmt.Sprintf("2001:db8:0:1::%x", n))); n++ {
		}
		if n != addressBurst {
			t.Errorf("%d tries from one network", n)
		}
		if err := try("x", "wrong", "2001:db8:0:2::1"); !errors.Is(err, ErrDenied) {
			t.Errorf("from another: %v", err)
		}
		time.Sleep(addressEvery)
		if err := try("y", "wrong", "2001:db8:0:1::1"); !errors.Is(err, ErrDenied) {
			t.Errorf("later: %v", err)
		}
	})
}

// Fails when one address that polls, or one line with many, keeps the owner from
// signing in elsewhere, or gets more tries by it.
func TestOnePollerKeepsNobodyOut(t *testing.T) {
	for name, poller := range map[string]func(i int) string{
		"address": func(int) string { return "198.51.100.7" },
		"line":    func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				const each = 3 * time.Second
				n, let := 0, 0
				poll := func(d time.Duration) {
					t.Helper()
					for end := n + int(d/each); n < end; n++ {
						time.Sleep(each)
						_, err := h.Login(t.Context(), "root", "wrong", Peer{poller(n), ""}, Subject{})
						if errors.Is(err, ErrDenied) {
							let++
						}
					}
				}
				poll(10 * time.Minute)
				for i := range 20 {
					if _, err := h.Login(t.Context(), "root", rootPassword, Peer{fmt.Sprintf("203.0.113.%d", i), ""}, Subject{}); err != nil {
						t.Errorf("newcomer %d: %v", i, err)
					}
					poll(30 * time.Second)
				}
				// Those that come back, those there were, and one for each time that it is new.
				if most := int(20*time.Minute/accountEvery) + accountBurst + int(20*time.Minute/newcomerEvery) + 1; let > most {
					t.Errorf("the poller had %d tries, want %d at most", let, most)
				}
			})
		})
	}
}

// Fails when names or addresses that nobody has keep others from their tries: a
// thousand new ones a second, for a minute.
func TestCrowdOfNamesTakesNobodysTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(accountEvery, accountBurst)
		refused := 0
		for i := range 60 * 1000 {
			if l.take(tries{name: fmt.Sprint(i)}) != nil {
				refused++
			}
			if i%5000 == 4999 {
				if err := l.take(tries{name: "root"}); err != nil {
					t.Errorf("after %d others: %v", i, err)
				}
			}
			time.Sleep(time.Millisecond)
		}
		if refused > 0 || len(l.full) != cells {
			t.Errorf("%d of the crowd were refused, %d cells", refused, len(l.full))
		}
	})
}

// Fails without the bound on hashes at a time, and on those that wait.
func TestHashesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHasher()
		h.cost = cost{64, 1}
		for range mostHashes {
			_ = h.turns.wait(t.Context(), home.Address) // all at work
		}
		ctx, cancel := context.WithCancel(t.Context())
		var waiting sync.WaitGroup
		for range mostWaiting {
			waiting.Go(func() {
				if _, err := h.hash(ctx, "x", home.Address); !errors.Is(err, context.Canceled) {
					t.Errorf("a waiting one: %v", err)
				}
			})
		}
		synctest.Wait()
		if _, _, err := h.verify(ctx, "", "x", home.Address); !errors.Is(err, ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		cancel()
		waiting.Wait()
		h.turns.done()
		for range 3 { // each gives its turn back
			if _, err := h.hash(t.Context(), "x", home.Address); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		}
		if h.turns.working != mostHashes-1 || len(h.turns.waiting) != 0 {
			t.Errorf("%d work and %d wait in the end", h.turns.working, len(h.turns.waiting))
		}
	})
}

// Fails when many who want to sign in keep out one from another network: the
// last one of the crowd is sent away for it, and it does not wait for the others.
func TestCrowdKeepsNobodyElseOut(t *testing.T) {
	for name, crowd := range map[string]func(i int) string{
		"of one address":      func(int) string { return "198.51.100.7" },
		"of a network":        func(i int) string { return fmt.Sprintf("198.51.%d.%d", i%7, i/7) },
		"of an IPv6 network":  func(i int) string { return fmt.Sprintf("2001:db8:%x:%x::1", i%7, i) },
		"of no address":       func(i int) string { return fmt.Sprint("unix ", i) },
		"of several networks": func(i int) string { return fmt.Sprintf("%d.51.100.%d", 100+i%15, i/15) },
	} {
		synctest.Test(t, func(t *testing.T) {
			q := new(turns)
			for range mostHashes {
				_ = q.wait(t.Context(), home.Address)
			}
			var sent atomic.Int64
			var order []string // whoever has a turn adds to it
			ask := func(from string) {
				go func() {
					switch err := q.wait(t.Context(), from); {
					case errors.Is(err, ErrBusy):
						if from == home.Address {
							t.Errorf("%s: the one from elsewhere was sent away", name)
						}
						sent.Add(1)
					case err != nil:
						t.Error(err)
					default:
						order = append(order, from)
						q.done()
					}
				}()
				synctest.Wait()
			}
			const many = 200
			for i := range many {
				ask(crowd(i))
			}
			ask(home.Address)
			for i := range many {
				ask(crowd(many + i))
			}
			if n := len(q.waiting); n != mostWaiting || int(sent.Load()) != 2*many+1-n {
				t.Errorf("%s: %d wait, %d were sent away", name, n, sent.Load())
			}
			q.done()
			synctest.Wait()
			// Who is alone is first, but for others who are; then who came first.
			i := slices.Index(order, home.Address)
			if len(order) != mostWaiting || i < 0 || i > 0 && name != "of several networks" || i == 0 && order[1] != crowd(0) {
				t.Errorf("%s: turns went to %v", name, order)
			}
			q.done()
			if q.working != 0 {
				t.Errorf("%s: %d work in the end", name, q.working)
			}
		})
	}
}

// Fails when an answer tells, by how soon it comes, that there is no such user.
func TestEveryTryCostsAHash(t *testing.T) {
	h := newHouse(t)
	yes := true
	for name, c := range map[string]UserChange{"without password": {}, "disabled": {Password: new("long enough"), Disabled: &yes}} {
		c.Name = &name
		_, err := h.AddUser(t.Context(), h.root, c)
		h.must(err)
	}
	for range mostHashes {
		_ = h.hashing.turns.wait(t.Context(), home.Address) // no hash can begin
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for _, name := range []string{"root", "unknown", "without password", "disabled", ""} {
		if _, err := h.Login(ended, name, "long enough", home, Subject{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestPasswordHash(t *testing.T) {
	h := newHasher()
	if h.cost != (cost{19456, 2}) || mostHashes != 2 {
		t.Errorf("cost is %+v, %d at a time", h.cost, mostHashes)
	}
	text, err := h.hash(t.Context(), "geheim", home.Address)
	if err != nil || !strings.HasPrefix(text, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("%q, %v", text, err)
	}
	weak := newHasher()
	weak.cost = cost{64, 1}
	old, err := weak.hash(t.Context(), "geheim", home.Address)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		hash, password string
		right, stale   bool
	}{
		{text, "geheim", true, false}, {text, "Geheim", false, false}, {text, "", false, false},
		{old, "geheim", true, true}, {old, "falsch", false, false},
		{"", "geheim", false, false}, {"", "", false, false}, {h.dummy, "geheim", false, false},
		{strings.Replace(text, "19456", "9999999", 1), "geheim", false, false}, {"$argon2id$", "geheim", false, false},
	} {
		right, stale, err := h.verify(t.Context(), c.hash, c.password, home.Address)
		if right != c.right || stale != c.stale || err != nil {
			t.Errorf("%s, %q: %t, %t, %v", c.hash, c.password, right, stale, err)
		}
	}
}

// What the database did not take has not happened, and its owner is told.
func TestChangeThatFailsIsNone(t *testing.T) {
	h := newHouse(t)
	_, secret := h.viewer("v", Live, nil)
	var told error
	h.Access.cfg.Failed = func(err error) { told = err }
	h.must(h.db.Close())
	if _, err := h.Login(t.Context(), "root", rootPassword, home, Subject{}); !errors.Is(err, db.ErrClosed) || told != err {
		t.Errorf("%v, told %v", err, told)
	}
	if err := h.Revoke(t.Context(), h.root, 2, 0); !errors.Is(err, db.ErrClosed) {
		t.Error(err)
	}
	if s := h.session(secret); s.Done().Err() != nil || len(h.sessions) != 2 {
		t.Errorf("%d sessions", len(h.sessions))
	}
}

// A hash of another cost is renewed when its password comes along.
func TestStaleHashIsRenewed(t *testing.T) {
	h := newHouse(t)
	h.hashing.cost = cost{128, 1}
	secret, err := h.Login(t.Context(), "root", rootPassword, home, Subject{})
	h.must(err)
	if got := h.user("root").PasswordHash; !strings.Contains(got, "m=128,t=1") {
		t.Errorf("hash is %s", got)
	}
	h.session(secret)
	h.open()
	h.session(secret)
}

func TestClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := unclaimed(t)
		code, left := h.ClaimCode()
		if len(code) != 11 || left != ClaimTime || !h.Unclaimed() {
			t.Fatalf("code %q, %v", code, left)
		}
		fi, err := os.Stat(h.cfg.ClaimFile)
		h.must(err)
		if got := string(read(t, h.cfg.ClaimFile)); got != code+"\n" || fi.Mode().Perm() != 0o600 {
			t.Errorf("file holds %q, mode %v", got, fi.Mode())
		}
		claim := func(code, name, password string) error {
			_, err := h.Claim(t.Context(), code, name, password, home)
			return err
		}
		if err := claim("AAAAA-AAAAA", "root", rootPassword); !errors.Is(err, ErrCode) {
			t.Errorf("wrong code: %v", err)
		}
		if err := claim(code, "root", "short"); !errors.As(err, new(*InvalidError)) {
			t.Errorf("bad password: %v", err)
		}
		if err := claim(code, "root", ""); !errors.As(err, new(*InvalidError)) {
			t.Errorf("no password: %v", err)
		}
		// Of many at once, one.
		results := make(chan error)
		for i := range 5 {
			go func() {
				results <- claim(" "+strings.ToLower(strings.ReplaceAll(code, "-", " ")), fmt.Sprint("root", i), rootPassword)
			}()
		}
		won := 0
		for range 5 {
			switch err := <-results; {
			case err == nil:
				won++
			case !errors.Is(err, ErrClaimed) && !errors.Is(err, ErrClaimOver):
				t.Error(err)
			}
		}
		if won != 1 || h.Unclaimed() || len(h.users) != 1 {
			t.Errorf("%d claims, %d users", won, len(h.users))
		}
		gone := func() {
			t.Helper()
			if err := claim(code, "eve", rootPassword); !errors.Is(err, ErrClaimed) {
				t.Errorf("a second time: %v", err)
			}
			if code, _ := h.ClaimCode(); code != "" {
				t.Error("there is still a code")
			}
			if _, err := os.Stat(h.cfg.ClaimFile); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the file is there: %v", err)
			}
		}
		gone()
		h.open()
		gone()
	})
}

func TestTimeToClaimEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := unclaimed(t)
		old, _ := h.ClaimCode()
		time.Sleep(ClaimTime)
		synctest.Wait()
		if _, err := h.Claim(t.Context(), old, "root", rootPassword, home); !errors.Is(err, ErrClaimOver) || !h.Unclaimed() {
			t.Errorf("after the time: %v", err)
		}
		if _, err := os.Stat(h.cfg.ClaimFile); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is there: %v", err)
		}
		// A kill leaves the file; the next start makes another code.
		h.must(os.WriteFile(h.cfg.ClaimFile, []byte("old"), 0o644))
		h.open()
		code, left := h.ClaimCode()
		if code == old || left != ClaimTime {
			t.Errorf("code %q, %v", code, left)
		}
		if fi, err := os.Stat(h.cfg.ClaimFile); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", fi, err)
		}
		if _, err := h.Claim(t.Context(), old, "root", rootPassword, home); !errors.Is(err, ErrCode) {
			t.Errorf("the code of the start before: %v", err)
		}
		// Where everybody may look, there is nothing to claim.
		h.cfg.Everybody = Live
		h.open()
		if code, _ := h.ClaimCode(); code != "" || h.Unclaimed() {
			t.Errorf("code %q", code)
		}
	})
}

// Fails when a disk that takes no file, or does not let go of one, keeps the
// recorder from starting.
func TestClaimWithoutItsFile(t *testing.T) {
	for name, path := range map[string]func(dir string) string{
		"nowhere to write": func(dir string) string { return filepath.Join(dir, "not", "there") },
		"not to be removed": func(dir string) string {
			if err := os.MkdirAll(filepath.Join(dir, "claim-code", "full"), 0o700); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(dir, "claim-code")
		},
	} {
		h := unclaimed(t)
		h.cfg.ClaimFile = path(t.TempDir())
		h.open()
		code, _ := h.ClaimCode()
		if code == "" || !strings.Contains(h.log.String(), "level=WARN") || strings.Contains(h.log.String(), code) {
			t.Errorf("%s: code %q, log %s", name, code, h.log)
		}
		if _, err := h.Claim(t.Context(), code, "root", rootPassword, home); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
