package access

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// cost is that of a password hash: what OWASP advises, 52 ms on a small amd64
// core (reliability.md 5.1).
type cost struct {
	memory uint32 // KiB
	passes uint32
}

var usualCost = cost{19456, 2}

const (
	saltBytes, keyBytes = 16, 32

	// LeastPassword is how short a password can be, characters.
	LeastPassword = 8   // characters
	mostPassword  = 256 // bytes
)

// signedIn stands for an address where somebody who is signed in has a password
// set or compared: no crowd that wants to sign in keeps those out.
const signedIn = ""

// hasher makes and compares password hashes, a few at a time. from is the
// address of who wants to sign in.
type hasher struct {
	cost  cost
	turns *turns
	dummy string // compared with for names that are not there
}

func newHasher() hasher {
	h := hasher{cost: usualCost, turns: new(turns)}
	// Nobody knows a password for it, so it need not be made of one.
	h.dummy = phc(h.cost, random(saltBytes), random(keyBytes))
	return h
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

var base64Raw = base64.RawStdEncoding

// phc writes a hash in the PHC string format.
func phc(c cost, salt, key []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, c.memory, c.passes,
		base64Raw.EncodeToString(salt), base64Raw.EncodeToString(key))
}

// parsePHC reads what phc wrote, by this program or an earlier one.
func parsePHC(text string) (c cost, salt, key []byte, ok bool) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return c, nil, nil, false
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=1", &c.memory, &c.passes); n != 2 || err != nil {
		return c, nil, nil, false
	}
	salt, err := base64Raw.DecodeString(parts[4])
	key, err2 := base64Raw.DecodeString(parts[5])
	// Whoever writes to the database must not make us take all memory.
	ok = err == nil && err2 == nil && len(salt) > 0 && len(key) == keyBytes && c.passes > 0 && c.passes <= 16 && c.memory >= 8 && c.memory <= 1<<17
	return c, salt, key, ok
}

// work waits for its turn and computes.
func (h *hasher) work(ctx context.Context, c cost, password string, salt []byte, from string) ([]byte, error) {
	if err := h.turns.wait(ctx, from); err != nil {
		return nil, err
	}
	defer h.turns.done()
	return argon2.IDKey([]byte(password), salt, c.passes, c.memory, 1, keyBytes), nil
}

// hash makes the hash of a password.
func (h *hasher) hash(ctx context.Context, password, from string) (string, error) {
	salt := random(saltBytes)
	key, err := h.work(ctx, h.cost, password, salt, from)
	if err != nil {
		return "", err
	}
	return phc(h.cost, salt, key), nil
}

// verify compares a password with a hash, "" when there is none, with the same
// work whatever the outcome. stale says that the hash is of another cost.
func (h *hasher) verify(ctx context.Context, hash, password, from string) (right, stale bool, err error) {
	c, salt, key, ok := parsePHC(hash)
	if !ok {
		c, salt, key, _ = parsePHC(h.dummy)
	}
	got, err := h.work(ctx, c, password, salt, from)
	if err != nil {
		return false, false, err
	}
	right = subtle.ConstantTimeCompare(got, key) == 1 && ok
	return right, right && c != h.cost, nil
}

func checkPassword(name, password string) error {
	switch {
	case !utf8.ValidString(password):
		return &InvalidError{"the password is not text"}
	case utf8.RuneCountInString(password) < LeastPassword:
		return &InvalidError{fmt.Sprintf("the password is shorter than %d characters", LeastPassword)}
	case len(password) > mostPassword:
		return &InvalidError{fmt.Sprintf("the password is longer than %d bytes", mostPassword)}
	case strings.EqualFold(password, name):
		return &InvalidError{"the password is the name"}
	}
	return nil
}

// mostName is that of schema.sql, bytes.
const mostName = 64

func checkName(what, name string) error {
	bad := func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }
	switch {
	case name == "" || len(name) > mostName || !utf8.ValidString(name):
		return &InvalidError{fmt.Sprintf("%s is not a text of 1 to %d bytes", what, mostName)}
	case strings.TrimSpace(name) != name || strings.ContainsFunc(name, bad):
		return &InvalidError{what + " has spaces around it or control characters in it"}
	}
	return nil
}
