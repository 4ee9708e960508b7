package web

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"holdfast/nvr/access"
	"holdfast/nvr/media"
)

// userJSON is a user as the dialect has it.
type userJSON struct {
	ID   int32      `json:"id"`
	User userSubset `json:"user"`
}

type userSubset struct {
	Username    string          `json:"username"`
	Disabled    bool            `json:"disabled"`
	Password    *string         `json:"password"` // censored; null: none
	Permissions userPermissions `json:"permissions"`

	Preferences json.RawMessage `json:"preferences"`
}

// userPermissions are what a user may: everything, or what is listed of all
// cameras and beside that of some, by their uuid; and as the dialect has it.
type userPermissions struct {
	Administrator bool                `json:"administrator"`
	AllCameras    []string            `json:"allCameras"`
	Cameras       map[string][]string `json:"cameras"`

	ViewVideo         bool `json:"viewVideo"`
	ReadCameraConfigs bool `json:"readCameraConfigs"`
	UpdateSignals     bool `json:"updateSignals"`
	AdminUsers        bool `json:"adminUsers"`
}

const censored = "(censored)"

func (s *server) userJSON(u *access.User) userJSON {
	out := userJSON{u.ID, userSubset{
		Username: u.Name, Disabled: u.Disabled,
		Permissions: userPermissions{
			Administrator: u.Admin, AllCameras: u.Rights.Names(), Cameras: make(map[string][]string),
			ViewVideo: seesVideo(u), ReadCameraConfigs: u.Admin, UpdateSignals: u.Admin, AdminUsers: u.Admin,
		},
		Preferences: u.Preferences.JSON(),
	}}
	if u.Password {
		out.User.Password = new(censored)
	}
	for _, c := range s.Store.Cameras() {
		if r := u.Cameras[c.ID]; r != 0 {
			out.User.Permissions.Cameras[c.UUID] = r.Names()
		}
	}
	return out
}

// userChange is what a body says of a user; what it leaves out stays.
type userChange struct {
	Username    *string            `json:"username"`
	Disabled    *bool              `json:"disabled"`
	Password    newPassword        `json:"password"`
	Permissions *permissionsChange `json:"permissions"`
	Preferences json.RawMessage    `json:"preferences"`
}

// permissionsChange is in our words or in those of the dialect. The latter are
// of all cameras and come all together: what they leave out is false.
type permissionsChange struct {
	Administrator *bool                `json:"administrator"`
	AllCameras    *[]string            `json:"allCameras"`
	Cameras       *map[string][]string `json:"cameras"`

	ViewVideo         *bool `json:"viewVideo"`
	ReadCameraConfigs *bool `json:"readCameraConfigs"`
	UpdateSignals     *bool `json:"updateSignals"`
	AdminUsers        *bool `json:"adminUsers"`
}

// inDialect reports whether any of the dialect's words is there.
func (p *permissionsChange) inDialect() bool {
	return p != nil && cmp.Or(p.ViewVideo, p.ReadCameraConfigs, p.UpdateSignals, p.AdminUsers) != nil
}

// fromDialect is what the dialect's words mean: viewVideo all that a viewer can
// have of every camera, the others together an administrator, since here no one
// else has one of them.
func (p *permissionsChange) fromDialect() (c access.UserChange, err error) {
	said := func(b *bool) bool { return b != nil && *b }
	admin, view := said(p.AdminUsers), access.Rights(0)
	switch {
	case p.Administrator != nil || p.AllCameras != nil || p.Cameras != nil:
		return c, badRequest("permissions has words of two kinds: either administrator, allCameras and cameras, or viewVideo and those beside it")
	case !admin && (said(p.ReadCameraConfigs) || said(p.UpdateSignals)):
		return c, badRequest("permissions: readCameraConfigs and updateSignals are for administrators alone: with adminUsers, or not at all")
	case said(p.ViewVideo):
		view = access.Watching
	}
	return access.UserChange{Admin: &admin, Rights: &view, Cameras: map[int32]access.Rights{}}, nil
}

// seesVideo reports whether a user sees video of any camera.
func seesVideo(u *access.User) bool {
	any := u.Rights
	for _, r := range u.Cameras {
		any |= r
	}
	return u.Admin || any != 0
}

// newPassword is a password that null takes away, as the empty one does, and that
// stays when nothing is said of it.
type newPassword struct{ text *string }

func (p *newPassword) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		p.text = new("")
		return nil
	}
	return json.Unmarshal(b, &p.text)
}

func (s *server) userChange(in *userChange) (c access.UserChange, err error) {
	c = access.UserChange{Name: in.Username, Disabled: in.Disabled, Password: in.Password.text}
	if in.Preferences != nil {
		p, err := access.ParsePreferences(in.Preferences)
		if err != nil {
			return c, err
		}
		c.Preferences = &p
	}
	p := in.Permissions
	if p == nil {
		return c, nil
	}
	if p.inDialect() {
		d, err := p.fromDialect()
		c.Admin, c.Rights, c.Cameras = d.Admin, d.Rights, d.Cameras
		return c, err
	}
	c.Admin = p.Administrator
	if p.AllCameras != nil {
		r, err := access.ParseRights(*p.AllCameras)
		if err != nil {
			return c, err
		}
		c.Rights = &r
	}
	if p.Cameras != nil {
		c.Cameras = make(map[int32]access.Rights)
		for uuid, names := range *p.Cameras {
			cam, ok := s.Store.Camera(uuid)
			if !ok {
				return c, badRequest("permissions.cameras: there is no camera %q", uuid)
			}
			if c.Cameras[cam.ID], err = access.ParseRights(names); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

// pathID reads an id of the path.
func pathID(r *http.Request, name string) (int32, error) {
	n, err := strconv.ParseInt(r.PathValue(name), 10, 32)
	if err != nil || n <= 0 {
		return 0, access.ErrNotFound
	}
	return int32(n), nil
}

func (s *server) listUsers(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	users, err := s.Access.Users(callerOf(r).Subject)
	if err != nil {
		return err
	}
	out := struct {
		Users []userJSON `json:"users"`
	}{[]userJSON{}}
	for i := range users {
		out.Users = append(out.Users, s.userJSON(&users[i]))
	}
	return writeJSON(w, http.StatusOK, out)
}

func (s *server) addUser(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		CSRF string     `json:"csrf"`
		User userChange `json:"user"`
	}
	c, err := readSigned(r, &in, &in.CSRF)
	if err != nil {
		return err
	}
	change, err := s.userChange(&in.User)
	if err != nil {
		return err
	}
	id, err := s.Access.AddUser(r.Context(), c.Subject, change)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/users/"+strconv.Itoa(int(id)))
	return writeJSON(w, http.StatusCreated, map[string]int32{"id": id})
}

func (s *server) oneUser(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	id, err := pathID(r, "user")
	if err != nil {
		return err
	}
	u, err := s.Access.User(callerOf(r).Subject, id)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, s.userJSON(&u).User)
}

func (s *server) changeUser(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		CSRF         string     `json:"csrf"`
		Update       userChange `json:"update"`
		Precondition userChange `json:"precondition"`
	}
	id, err := pathID(r, "user")
	if err != nil {
		return err
	}
	c, err := readSigned(r, &in, &in.CSRF)
	if err != nil {
		return err
	}
	if (in.Update.Permissions != nil || in.Precondition.Permissions != nil) && !c.May(access.Administer, 0) {
		return access.ErrForbidden // before an answer tells which cameras there are
	}
	change, err := s.userChange(&in.Update)
	if err != nil {
		return err
	}
	precondition, err := s.precondition(c, id, &in.Precondition)
	if err != nil {
		return err
	}
	change.If = &precondition
	secret, err := s.Access.ChangeUser(r.Context(), c.Subject, id, change, c.peer)
	if err != nil {
		return err
	}
	if secret != "" {
		setCookie(w, c, secret)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// precondition is what a body says of a user until now. Several permissions of
// ours are one in the dialect: there it holds when the user is shown so, and must
// then go on to be what it is.
func (s *server) precondition(by *caller, id int32, in *userChange) (c access.UserChange, err error) {
	c, err = s.userChange(in)
	if err != nil || !in.Permissions.inDialect() {
		return c, err
	}
	u, err := s.Access.User(by.Subject, id)
	if err != nil {
		return c, err
	}
	is, p := s.userJSON(&u).User.Permissions, in.Permissions
	for _, f := range []struct {
		want *bool
		is   bool
	}{{p.ViewVideo, is.ViewVideo}, {p.ReadCameraConfigs, is.ReadCameraConfigs}, {p.UpdateSignals, is.UpdateSignals}, {p.AdminUsers, is.AdminUsers}} {
		if (f.want != nil && *f.want) != f.is {
			return c, &access.PreconditionError{Field: "permissions"}
		}
	}
	c.Admin, c.Rights, c.Cameras = &u.Admin, &u.Rights, u.Cameras
	return c, nil
}

func (s *server) deleteUser(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	id, err := pathID(r, "user")
	if err == nil {
		err = s.Access.DeleteUser(r.Context(), callerOf(r).Subject, id)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

type sessionJSON struct {
	ID      int32      `json:"id"`
	Kind    string     `json:"kind"` // session or token
	Current bool       `json:"current,omitempty"`
	Name    string     `json:"name,omitempty"`
	Scope   []string   `json:"scope,omitempty"`
	Created media.Time `json:"createdTime90k"`
	Expires media.Time `json:"expiresTime90k,omitempty"`
	From    peerJSON   `json:"createdFrom"`
	Used    media.Time `json:"lastUsedTime90k,omitempty"`
	UsedBy  peerJSON   `json:"lastUsedFrom"`
	Uses    int64      `json:"uses"`
}

type peerJSON struct {
	Address string `json:"address"`
	Agent   string `json:"userAgent"`
}

func (s *server) listSessions(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	user, err := pathID(r, "user")
	if err != nil {
		return err
	}
	c := callerOf(r)
	list, err := s.Access.Sessions(c.Subject, user)
	if err != nil {
		return err
	}
	out := struct {
		Sessions []sessionJSON `json:"sessions"`
	}{[]sessionJSON{}}
	for _, i := range list {
		j := sessionJSON{
			ID: i.ID, Kind: "session", Current: i.ID == c.SessionID, Name: i.Name, Created: i.Created, Expires: i.Expires,
			From: peerJSON(i.CreatedFrom), Used: i.Used, UsedBy: peerJSON(i.UsedFrom), Uses: i.Uses,
		}
		if i.Token {
			j.Kind, j.Scope = "token", i.Scope.Names()
		}
		out.Sessions = append(out.Sessions, j)
	}
	return writeJSON(w, http.StatusOK, out)
}

// revoke ends one session or token, or all of a user where the path names none.
func (s *server) revoke(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	user, err := pathID(r, "user")
	session := int32(0)
	if err == nil && r.PathValue("session") != "" {
		session, err = pathID(r, "session")
	}
	if err == nil {
		err = s.Access.Revoke(r.Context(), callerOf(r).Subject, user, session)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) addToken(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		CSRF  string   `json:"csrf"`
		Name  string   `json:"name"`
		Scope []string `json:"scope"`
		Days  int      `json:"days"`
	}
	user, err := pathID(r, "user")
	if err != nil {
		return err
	}
	c, err := readSigned(r, &in, &in.CSRF)
	if err != nil {
		return err
	}
	if c.UserID != user {
		return access.ErrForbidden // a token is of who makes it
	}
	scope, err := access.ParseRights(in.Scope)
	if err != nil {
		return err
	}
	const mostDays = 36500
	if in.Days < 0 || in.Days > mostDays {
		return badRequest("days is %d, not 0 to %d", in.Days, mostDays)
	}
	id, secret, err := s.Access.AddToken(r.Context(), c.Subject, in.Name, scope, time.Duration(in.Days)*24*time.Hour, c.peer)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, http.StatusCreated, map[string]any{"id": id, "token": secret})
}

// callerJSON is the user of GET /api/.
type callerJSON struct {
	ID      int32  `json:"id"`
	Name    string `json:"name"`
	Session struct {
		CSRF string `json:"csrf,omitempty"`
	} `json:"session"`
	Preferences json.RawMessage `json:"preferences,omitempty"`
}

func userOfCaller(c *caller) *callerJSON {
	if c.UserID == 0 {
		return nil
	}
	out := &callerJSON{ID: c.UserID, Name: c.Name}
	if !c.Token { // a program has what its scope says
		out.Preferences = c.Preferences.JSON()
	}
	if c.secret != "" {
		out.Session.CSRF = c.csrf()
	}
	return out
}
