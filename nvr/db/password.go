package db

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// Passwords of cameras are encrypted in the database with a key that is in a
// file of its own beside it and in no copy of the database (access.md, Passwords
// of cameras). That guards copies and disks that are handed on. It does not guard
// a data directory that is taken as a whole: the recorder has to start alone.
//
// What is kept of a password:
//
//	format 1 │ nonce 12 │ AES-256-GCM of the password, tag 16
//
// The camera, the stream and the format go into the tag, so that one put into
// another row does not open.
const (
	keyName      = "db.key"
	keySize      = 32
	sealedFormat = 1
	leastSealed  = 1 + 12 + 16
)

// Why passwords cannot be read. They stay as they are.
var (
	errKeyMissing = errors.New("the key file " + keyName + " is missing")
	errKeyDamaged = errors.New("the key file " + keyName + " is damaged")
	errKeyOther   = errors.New("the key file " + keyName + " is another one")
)

// passwordKey is the key file of a database. Once it was read or made, it counts
// as long as the process lives.
type passwordKey struct {
	path string

	mu   sync.Mutex // a leaf, under which its file is touched and nothing else
	aead cipher.AEAD
}

func keyBeside(database string) *passwordKey {
	return &passwordKey{path: filepath.Join(filepath.Dir(database), keyName)}
}

// load reads the key. The caller holds mu.
func (k *passwordKey) load() error {
	if k.aead != nil {
		return nil
	}
	b, err := os.ReadFile(k.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errKeyMissing
	case err != nil:
		return err
	case len(b) != keySize:
		return fmt.Errorf("%w: it has %d bytes, expected %d", errKeyDamaged, len(b), keySize)
	}
	block, err := aes.NewCipher(b)
	if err == nil {
		k.aead, err = cipher.NewGCM(block)
	}
	return err
}

// ensure makes a key where there is none, durably, so that nothing is ever
// encrypted with one that a power cut takes. A file that is no key steps aside.
func (k *passwordKey) ensure() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.load()
	if errors.Is(err, errKeyDamaged) {
		if err := os.Rename(k.path, k.path+".damaged"); err != nil {
			return err
		}
		err = errKeyMissing
	}
	if !errors.Is(err, errKeyMissing) {
		return err
	}
	if err := k.write(); err != nil {
		return fmt.Errorf("make the key file of passwords: %w", err)
	}
	return k.load()
}

func (k *passwordKey) write() error {
	key := make([]byte, keySize)
	rand.Read(key)
	name := k.path + ".new"
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // with whatever mode it has
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(key)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(name, k.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(name))
	}
	if err := syncDir(filepath.Dir(k.path)); err != nil {
		// A second sync would prove nothing (storage.md rule 14).
		return &poisonError{err}
	}
	return nil
}

// place is what a password belongs to.
func place(cameraUUID, stream string) []byte {
	return fmt.Appendf(nil, "holdfast camera %s stream.%s.password format %d", cameraUUID, stream, sealedFormat)
}

// seal encrypts a password, nil when there is none. It makes the key when there
// is none yet.
func (k *passwordKey) seal(password, cameraUUID, stream string) ([]byte, error) {
	if password == "" {
		return nil, nil
	}
	if err := k.ensure(); err != nil {
		return nil, err
	}
	out := make([]byte, 1+k.aead.NonceSize(), leastSealed+len(password))
	out[0] = sealedFormat
	rand.Read(out[1:])
	return k.aead.Seal(out, out[1:], []byte(password), place(cameraUUID, stream)), nil
}

// open is the password that was sealed.
func (k *passwordKey) open(sealed []byte, cameraUUID, stream string) (string, error) {
	if len(sealed) == 0 {
		return "", nil
	}
	k.mu.Lock()
	err := k.load()
	k.mu.Unlock()
	if err != nil {
		return "", err
	}
	if len(sealed) < leastSealed || sealed[0] != sealedFormat {
		return "", fmt.Errorf("it has %d bytes in format %d", len(sealed), sealed[0])
	}
	nonce := sealed[1 : 1+k.aead.NonceSize()]
	b, err := k.aead.Open(nil, nonce, sealed[1+len(nonce):], place(cameraUUID, stream))
	if err != nil {
		return "", errKeyOther // or the row was changed by hand
	}
	return string(b), nil
}

// openPasswords gives the streams of a state their passwords. One that cannot be
// read is no error: what needs none goes on, and the others are told apart.
func (d *DB) openPasswords(s *State) {
	uuids := make(map[int32]string, len(s.Cameras))
	for _, c := range s.Cameras {
		uuids[c.ID] = c.UUID
	}
	for i := range s.Streams {
		st := &s.Streams[i]
		var err error
		if st.Password, err = d.key.open(s.sealed[i], uuids[st.CameraID], st.Type); err != nil {
			st.PasswordLost = err.Error()
		}
	}
}

// warnOfPasswords says once which passwords cannot be read.
func (d *DB) warnOfPasswords(ctx context.Context) error {
	s, err := d.State(ctx)
	if err != nil {
		return err
	}
	lost, why := 0, ""
	for _, st := range s.Streams {
		if st.PasswordLost != "" {
			lost, why = lost+1, st.PasswordLost
		}
	}
	if lost > 0 {
		d.log.Warn("passwords of cameras cannot be read; they have to be entered again, or the key file put back",
			"streams", lost, "cause", why, "path", d.key.path)
	}
	return nil
}

// sealPasswords makes encrypted passwords of those in clear, in the step to
// version 4. Its statements are those of that version.
func sealPasswords(ctx context.Context, d *DB, t *sql.Tx, progress func()) error {
	if err := d.key.ensure(); err != nil {
		return err
	}
	type row struct {
		id                   int32
		uuid, typ, inTheOpen string
	}
	var rows []row
	err := query(ctx, t, `SELECT s.id, c.uuid, s.type, s.password FROM stream s JOIN camera c ON c.id = s.camera_id
		WHERE s.password != '' ORDER BY s.id`, nil, func(scan func(...any) error) error {
		var r row
		err := scan(&r.id, &r.uuid, &r.typ, &r.inTheOpen)
		rows = append(rows, r)
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range rows {
		sealed, err := d.key.seal(r.inTheOpen, r.uuid, r.typ)
		if err != nil {
			return err
		}
		if _, err := t.ExecContext(ctx, `UPDATE stream SET sealed_password = ? WHERE id = ?`, sealed, r.id); err != nil {
			return err
		}
	}
	progress()
	return nil
}
