package access

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"holdfast/nvr/db"
)

// ClaimTime is how long after its start a recorder can be claimed. Who has no
// access to the machine cannot begin it anew.
const ClaimTime = 15 * time.Minute

// Errors of Claim.
var (
	// ErrClaimed: there is an administrator, or the recorder is not to be claimed.
	ErrClaimed = errors.New("this recorder is not to be claimed")
	// ErrClaimOver: the time to claim is over.
	ErrClaimOver = fmt.Errorf("the time to claim is over: it is %d minutes from the recorder's start, so start it again", int(ClaimTime.Minutes()))
	// ErrCode: the code is wrong.
	ErrCode = errors.New("the code is wrong: it is the one on the recorder's console")
)

// claim is the one-time code. It is in no database, and of this process alone.
type claim struct {
	file   string    // "": there is none
	opened time.Time // monotonic
	timer  *time.Timer

	mu   sync.Mutex
	code string // "": used, or over
}

// codeLetters are 32, of which no two look alike: ten of them are 50 bits.
const codeLetters = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"

func newCode() string {
	b := random(10)
	for i := range b {
		b[i] = codeLetters[b[i]%32]
	}
	return string(b)
}

// plain is a code as people may type it, without dashes, spaces and small
// letters.
func plain(code string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' {
			return -1
		}
		return r
	}, strings.ToUpper(strings.TrimSpace(code)))
}

// openClaim makes the code when the recorder is to be claimed. A file of an
// earlier start goes in any case. A disk that takes or gives no file is no reason
// not to record: the code is on the console, too. Where users may be there that
// cannot be read, there is nothing to claim.
func (a *Access) openClaim(damaged bool) {
	if a.cfg.ClaimFile != "" {
		if err := os.Remove(a.cfg.ClaimFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			a.log.Warn("the file of an old claim code stays", "path", a.cfg.ClaimFile, "cause", err)
		}
	}
	if damaged || !a.cfg.Claim || a.cfg.Everybody != 0 || a.administrators() > 0 {
		return
	}
	c := &claim{opened: time.Now(), code: newCode()}
	if a.cfg.ClaimFile != "" {
		if err := c.write(a.cfg.ClaimFile); err != nil {
			a.log.Warn("the claim code is on the console and in no file", "path", a.cfg.ClaimFile, "cause", err)
		}
	}
	c.mu.Lock() // over reads timer
	c.timer = time.AfterFunc(ClaimTime, func() { c.over(a) })
	c.mu.Unlock()
	a.claim = c
}

// write writes the code to a file, or leaves none.
func (c *claim) write(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, shown(c.code))
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	c.file = path
	return nil
}

func shown(code string) string { return code[:5] + "-" + code[5:] }

// over forgets the code, and its file.
func (c *claim) over(a *Access) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.code = ""
	c.timer.Stop()
	if c.file == "" {
		return
	}
	if err := os.Remove(c.file); err != nil && !errors.Is(err, os.ErrNotExist) {
		a.log.Warn("the file of the claim code stays", "path", c.file, "cause", err)
	}
}

func (a *Access) endClaim() {
	if a.claim != nil {
		a.claim.over(a)
	}
}

// Unclaimed reports whether the recorder waits to be claimed: it has no
// administrator, and everybody may nothing.
func (a *Access) Unclaimed() bool { return a.claim != nil && a.administrators() == 0 }

// ClaimCode returns the code for the console and how long it is good for; ""
// when there is none.
func (a *Access) ClaimCode() (code string, left time.Duration) {
	if !a.Unclaimed() {
		return "", 0
	}
	a.claim.mu.Lock()
	defer a.claim.mu.Unlock()
	if left = ClaimTime - time.Since(a.claim.opened); a.claim.code == "" || left <= 0 {
		return "", 0
	}
	return shown(a.claim.code), left
}

// Claim makes the first administrator and returns the secret of its
// session. It is for who knows the code.
func (a *Access) Claim(ctx context.Context, code, name, password string, from Peer) (secret string, err error) {
	if !a.Unclaimed() {
		return "", ErrClaimed
	}
	if err := a.addresses.take(tries{address: block(from.Address, 64)}); err != nil {
		return "", err
	}
	want, _ := a.ClaimCode()
	if want == "" {
		return "", ErrClaimOver
	}
	if subtle.ConstantTimeCompare([]byte(plain(code)), []byte(plain(want))) != 1 {
		a.log.Warn("refused to claim", "from", from.Address)
		return "", ErrCode
	}
	if password == "" {
		return "", &InvalidError{"the password is missing"}
	}
	u, err := a.changed(ctx, db.User{Admin: true, Created: a.wall()}, UserChange{Name: &name, Password: &password})
	if err != nil {
		return "", err
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if !a.Unclaimed() {
		return "", ErrClaimed // somebody was faster
	}
	secret, s := a.newSession(0, from)
	if err := a.change(ctx, &db.AccessChange{First: true, Users: []db.User{u}, Sessions: []db.Session{s}}); err != nil {
		return "", err
	}
	a.endClaim()
	a.log.Info("claimed", "user", u.Name, "from", from.Address)
	return secret, nil
}
