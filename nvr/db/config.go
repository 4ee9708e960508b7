package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Change is a change of the configuration. Its parts are applied in the order
// of the fields, so that a name that is given up can be taken again.
type Change struct {
	// DeleteStreams and DeleteCameras name streams and cameras (with all
	// their streams) that go. They are only marked: State tells them as Deleted,
	// and nothing else knows them any more. Batch.Delete takes their recordings,
	// Batch.Gone what is left. The caller has ended what writes to them; files it
	// knows of that are no recordings belong into Garbage.
	DeleteStreams []int32
	DeleteCameras []int32
	Garbage       []Garbage

	// DeleteDirs are sample directories that go, with their garbage rows: what
	// is left there is nobody's. Recordings and streams must not be in them.
	DeleteDirs []int32

	// Dirs are sample directories to insert. ApplyConfig sets ID and UUID.
	// A stream can name a directory only by its id, so a new directory comes
	// with a change before that of its streams.
	Dirs []Dir

	// Cameras are inserted when their ID is 0, else updated.
	Cameras []CameraChange
}

// CameraChange is a camera with those of its streams that are inserted (ID 0)
// or updated. Camera.UUID of a camera that exists, and Stream.Type of a stream
// that exists, cannot change. The counters and totals of Streams are ignored:
// they begin at 0 and belong to Flush. A password that is empty is none, except
// that one that cannot be read (PasswordLost) stays.
type CameraChange struct {
	Camera
	Streams []Stream
}

// ApplyConfig makes all of the change in ONE transaction, or nothing. It sets
// the ids and UUIDs of what it inserts in c. A taken name gives ErrExists, an
// object that is not there ErrNotFound.
func (d *DB) ApplyConfig(ctx context.Context, c *Change) error {
	return d.applyConfig(ctx, c, func(*tx) error { return nil })
}

// Reconfigure is ApplyConfig for who has to know all that is configured behind
// it: the state is read in the same transaction, so there is no change without it.
// It is without garbage, which a change adds only what it names to.
func (d *DB) Reconfigure(ctx context.Context, c *Change) (*State, error) {
	var s *State
	err := d.applyConfig(ctx, c, func(t *tx) (err error) {
		if s, err = readState(t.ctx, t.Tx); err != nil {
			return fmt.Errorf("read state: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.openPasswords(s)
	return s, nil
}

// applyConfig calls last at the end of the transaction.
func (d *DB) applyConfig(ctx context.Context, c *Change, last func(*tx) error) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.checkChange(c); err != nil {
		return fmt.Errorf("apply configuration: %w", err)
	}
	var next known
	var done Change
	err := d.transact(ctx, func(t *tx) error {
		next, done = d.known.clone(), c.clone() // without what an earlier try has set
		if err := t.apply(&done, &next); err != nil {
			return err
		}
		return last(t)
	})
	if err != nil {
		return fmt.Errorf("apply configuration: %w", err)
	}
	*c = done
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known = next
	return nil
}

// clone copies what apply writes to.
func (c *Change) clone() Change {
	done := *c
	done.Dirs = slices.Clone(c.Dirs)
	done.Cameras = slices.Clone(c.Cameras)
	for i := range done.Cameras {
		done.Cameras[i].Streams = slices.Clone(done.Cameras[i].Streams)
	}
	return done
}

func (k known) clone() known {
	k.opens = maps.Clone(k.opens)
	k.dirs = maps.Clone(k.dirs)
	k.cameras = maps.Clone(k.cameras)
	k.streams = maps.Clone(k.streams)
	k.video = maps.Clone(k.video)
	k.audio = maps.Clone(k.audio)
	return k
}

// checkChange finds objects that are not there and values the schema does not
// take. The caller holds writing.
func (d *DB) checkChange(c *Change) error {
	k := &d.known
	streamGone := make(map[int32]bool)
	for _, id := range c.DeleteStreams {
		if s, ok := k.streams[id]; !ok || s.deleted || streamGone[id] {
			return fmt.Errorf("delete stream %d: %w", id, ErrNotFound)
		}
		streamGone[id] = true
	}
	cameraGone := make(map[int32]bool)
	for _, id := range c.DeleteCameras {
		if _, ok := k.cameras[id]; !ok || cameraGone[id] {
			return fmt.Errorf("delete camera %d: %w", id, ErrNotFound)
		}
		cameraGone[id] = true
	}
	if err := k.checkChangeGarbage(c.Garbage, streamGone, cameraGone); err != nil {
		return err
	}
	for _, id := range c.DeleteDirs {
		if !k.dirs[id] {
			return fmt.Errorf("delete sample directory %d: %w", id, ErrNotFound)
		}
	}
	for i := range c.Dirs {
		r := &c.Dirs[i]
		switch {
		case r.ID != 0:
			return fmt.Errorf("insert sample directory %s: it has id %d", r.Path, r.ID)
		case r.LastCompleteOpen != 0:
			return fmt.Errorf("insert sample directory %s: it names open %d", r.Path, r.LastCompleteOpen)
		case r.Path == "":
			return errors.New("insert sample directory: empty path")
		case r.UUID != "" && len(r.UUID) != 36:
			return fmt.Errorf("insert sample directory %s: uuid %q", r.Path, r.UUID)
		}
	}
	for i := range c.Cameras {
		cam := &c.Cameras[i]
		op := "insert"
		if cam.ID != 0 {
			op = "update"
		}
		if err := k.checkCamera(cam, cameraGone, streamGone); err != nil {
			return fmt.Errorf("%s camera %q: %w", op, cam.Name, err)
		}
	}
	return nil
}

// checkChangeGarbage lets streams that go discard any number.
func (k *known) checkChangeGarbage(garbage []Garbage, streamGone, cameraGone map[int32]bool) error {
	next := make(map[int32]int32)
	for id, s := range k.streams {
		if streamGone[id] || cameraGone[s.cameraID] {
			next[id] = math.MaxInt32
		}
	}
	return k.checkDiscard(garbage, next)
}

// maxRetainDays stands in the schema, too.
const maxRetainDays = 36500

func (k *known) checkCamera(c *CameraChange, cameraGone, streamGone map[int32]bool) error {
	if _, ok := k.cameras[c.ID]; c.ID != 0 && (!ok || cameraGone[c.ID]) {
		return fmt.Errorf("camera %d: %w", c.ID, ErrNotFound)
	}
	if c.Name == "" {
		return errors.New("empty name")
	}
	if c.UUID != "" && len(c.UUID) != 36 {
		return fmt.Errorf("uuid %q", c.UUID)
	}
	for i := range c.Streams {
		s := &c.Streams[i]
		if old, ok := k.streams[s.ID]; s.ID != 0 {
			switch {
			case !ok || streamGone[s.ID] || old.cameraID != c.ID:
				return fmt.Errorf("stream %d: %w", s.ID, ErrNotFound)
			case old.typ != s.Type:
				return fmt.Errorf("stream %s: it cannot become %q", old.typ, s.Type)
			}
		}
		var err error
		switch {
		case !slices.Contains([]string{"main", "sub", "ext"}, s.Type):
			err = errors.New("its type is not main, sub or ext")
		case !k.dirs[s.DirID]:
			err = fmt.Errorf("sample directory %d: %w", s.DirID, ErrNotFound)
		case !slices.Contains([]string{"", "tcp", "udp"}, s.Transport):
			err = fmt.Errorf("transport %q is not tcp or udp", s.Transport)
		case s.Record && s.URL == "":
			err = errors.New("it is to be recorded and has no url")
		case s.RetainBytes < 0:
			err = fmt.Errorf("retain %d bytes", s.RetainBytes)
		case s.RetainDays < 0 || s.RetainDays > maxRetainDays:
			err = fmt.Errorf("retain %d days", s.RetainDays)
		case s.GapsOf != 0 && (s.ID != 0 || !streamGone[s.GapsOf] || k.streams[s.GapsOf].cameraID != c.ID):
			err = fmt.Errorf("gaps of stream %d, which does not make way for it: %w", s.GapsOf, ErrNotFound)
		case s.OwedFrom < 0:
			err = fmt.Errorf("owed from %d", int64(s.OwedFrom))
		case s.FlushIfSec < 0:
			err = fmt.Errorf("flush after %d seconds", s.FlushIfSec)
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", s.Type, err)
		}
	}
	return nil
}

// apply makes the change and keeps k, which becomes known on success.
func (t *tx) apply(c *Change, k *known) error {
	if err := t.keepGaps(c); err != nil {
		return err
	}
	for _, id := range c.DeleteStreams {
		if err := t.deleteStream(id, k); err != nil {
			return err
		}
	}
	for _, id := range c.DeleteCameras {
		if err := t.deleteCamera(id, k); err != nil {
			return err
		}
	}
	if err := t.discard(c.Garbage); err != nil {
		return err
	}
	for _, id := range c.DeleteDirs {
		_, err := t.ExecContext(t.ctx, `DELETE FROM garbage WHERE dir_id = ?`, id)
		if err == nil {
			err = t.change(`DELETE FROM sample_file_dir WHERE id = ?`, id)
		}
		if err != nil {
			return fmt.Errorf("delete sample directory %d: %w", id, err)
		}
		delete(k.dirs, id)
	}
	for i := range c.Dirs {
		if err := t.insertDir(&c.Dirs[i], k); err != nil {
			return fmt.Errorf("insert sample directory %s: %w", c.Dirs[i].Path, exists(err))
		}
	}
	for i := range c.Cameras {
		if err := t.putCamera(&c.Cameras[i], k); err != nil {
			return err
		}
	}
	return nil
}

// keepGaps puts the gaps aside that another stream gets, under an id that none
// has: it cannot be inserted before the one that they are of is gone. Whether all
// came to a stream is asked by the commit.
func (t *tx) keepGaps(c *Change) error {
	for i := range c.Cameras {
		for _, s := range c.Cameras[i].Streams {
			if s.GapsOf == 0 {
				continue
			}
			_, err := t.ExecContext(t.ctx, `PRAGMA defer_foreign_keys = 1`)
			if err == nil {
				err = t.moveGaps(s.GapsOf, -s.GapsOf)
			}
			if err != nil {
				return fmt.Errorf("keep gaps of stream %d: %w", s.GapsOf, err)
			}
		}
	}
	return nil
}

func (t *tx) moveGaps(from, to int32) error {
	_, err := t.ExecContext(t.ctx, `UPDATE gap SET stream_id = ? WHERE stream_id = ?`, to, from)
	return err
}

// deleteCamera marks a camera and its streams as deleted. Its row goes with the
// last of theirs; at once when it has no stream.
func (t *tx) deleteCamera(id int32, k *known) error {
	_, err := t.ExecContext(t.ctx, `DELETE FROM user_camera WHERE camera_id = ?`, id)
	if err == nil {
		uuid, name := deletedName()
		err = t.change(`UPDATE camera SET deleted = 1, uuid = ?, name = ?, description = '' WHERE id = ?`, uuid, name, id)
	}
	n := 0
	for _, streamID := range slices.Sorted(maps.Keys(k.streams)) {
		if k.streams[streamID].cameraID == id && err == nil {
			n++
			err = t.markStream(streamID, id, k)
		}
	}
	if err == nil && n == 0 {
		err = t.change(`DELETE FROM camera WHERE id = ?`, id)
	}
	if err != nil {
		return fmt.Errorf("delete camera %q: %w", k.cameras[id], err)
	}
	delete(k.cameras, id)
	return nil
}

// deleteStream marks a stream as deleted, by giving it to a camera that is, so
// that its camera may have another of its type.
func (t *tx) deleteStream(id int32, k *known) error {
	uuid, name := deletedName()
	var cameraID int32
	err := t.QueryRowContext(t.ctx, `INSERT INTO camera (uuid, name, description, deleted) VALUES (?, ?, '', 1) RETURNING id`,
		uuid, name).Scan(&cameraID)
	if err == nil {
		err = t.markStream(id, cameraID, k)
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", k.streamName(id), err)
	}
	return nil
}

// deletedName is what a camera that is deleted has, so that what it had can be given
// again. No name that somebody gives begins with a space.
func deletedName() (uuid, name string) {
	uuid = newUUID()
	return uuid, " " + uuid
}

// markStream takes from a stream all that it has no use for, and gives it to a
// camera that is deleted.
func (t *tx) markStream(id, cameraID int32, k *known) error {
	err := t.change(`UPDATE stream SET camera_id = ?, record = 0, url = '', username = '', sealed_password = NULL WHERE id = ?`, cameraID, id)
	s := k.streams[id]
	s.cameraID, s.nextNo, s.deleted = cameraID, math.MaxInt32, true
	k.streams[id] = s
	return err
}

// dropStream deletes a deleted stream that has no recordings any more, and its
// camera behind its last.
func (t *tx) dropStream(id int32) error {
	for _, s := range []string{`DELETE FROM gap WHERE stream_id = ?`, `DELETE FROM span WHERE stream_id = ?`} {
		if _, err := t.ExecContext(t.ctx, s, id); err != nil {
			return err
		}
	}
	var cameraID int32
	err := t.QueryRowContext(t.ctx, `DELETE FROM stream WHERE id = ? RETURNING camera_id`, id).Scan(&cameraID)
	if err == nil {
		_, err = t.ExecContext(t.ctx, `DELETE FROM camera WHERE id = ?1 AND deleted = 1
			AND NOT EXISTS (SELECT 1 FROM stream WHERE camera_id = ?1)`, cameraID)
	}
	return err
}

func (t *tx) insertDir(r *Dir, k *known) error {
	if r.UUID == "" {
		r.UUID = newUUID()
	}
	err := t.QueryRowContext(t.ctx, `INSERT INTO sample_file_dir (uuid, path) VALUES (?, ?) RETURNING id`,
		r.UUID, r.Path).Scan(&r.ID)
	if err == nil {
		k.dirs[r.ID] = true
	}
	return err
}

func (t *tx) putCamera(c *CameraChange, k *known) error {
	var err error
	op := "insert"
	if c.ID != 0 {
		op = "update"
		err = t.QueryRowContext(t.ctx, `UPDATE camera SET name = ?, description = ? WHERE id = ? RETURNING uuid`,
			c.Name, c.Description, c.ID).Scan(&c.UUID)
	} else {
		if c.UUID == "" {
			c.UUID = newUUID()
		}
		err = t.QueryRowContext(t.ctx, `INSERT INTO camera (uuid, name, description) VALUES (?, ?, ?) RETURNING id`,
			c.UUID, c.Name, c.Description).Scan(&c.ID)
	}
	if err != nil {
		return fmt.Errorf("%s camera %q: %w", op, c.Name, exists(err))
	}
	k.cameras[c.ID] = c.Name
	for i := range c.Streams {
		if err := t.putStream(&c.Camera, &c.Streams[i], k); err != nil {
			return fmt.Errorf("%s camera %q: stream %s: %w", op, c.Name, c.Streams[i].Type, exists(err))
		}
	}
	// The name is in the names of its streams, of those too that stay.
	for id, s := range k.streams {
		if s.cameraID == c.ID {
			s.name = c.Name + " " + s.typ
			k.streams[id] = s
		}
	}
	return nil
}

func (t *tx) putStream(c *Camera, s *Stream, k *known) error {
	if s.Transport == "" {
		s.Transport = "tcp"
	}
	s.CameraID = c.ID
	typ := s.Type
	if s.ID != 0 {
		typ = k.streams[s.ID].typ
	}
	sealed, err := t.d.key.seal(s.Password, c.UUID, typ)
	if err != nil {
		return err
	}
	keep := s.Password == "" && s.PasswordLost != ""
	days := sql.Null[int32]{V: s.RetainDays, Valid: s.RetainDays != 0}
	if s.ID != 0 {
		return t.change(`UPDATE stream SET dir_id = ?, url = ?, username = ?, sealed_password = iif(?, sealed_password, ?), transport = ?,
			record = ?, retain_bytes = ?, retain_days = ?, owed_from_90k = ?, flush_if_sec = ? WHERE id = ?`,
			s.DirID, s.URL, s.Username, keep, sealed, s.Transport, s.Record, s.RetainBytes, days, s.OwedFrom, s.FlushIfSec, s.ID)
	}
	err = t.QueryRowContext(t.ctx, `INSERT INTO stream (camera_id, type, dir_id, url, username, sealed_password, transport,
			record, retain_bytes, retain_days, owed_from_90k, flush_if_sec, cum_recordings, cum_media_duration_90k, cum_runs,
			total_recordings, total_file_bytes, total_fs_bytes, total_wall_duration_90k)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, 0) RETURNING id`,
		c.ID, s.Type, s.DirID, s.URL, s.Username, sealed, s.Transport, s.Record, s.RetainBytes, days, s.OwedFrom, s.FlushIfSec).Scan(&s.ID)
	if err != nil {
		return err
	}
	k.streams[s.ID] = knownStream{cameraID: c.ID, typ: s.Type}
	if s.GapsOf != 0 {
		return t.moveGaps(-s.GapsOf, s.ID)
	}
	return nil
}

// change runs a statement that is used too seldom to be prepared, and that
// must change exactly one row.
func (t *tx) change(text string, args ...any) error {
	r, err := t.ExecContext(t.ctx, text, args...)
	if err != nil {
		return err
	}
	return one(r)
}

// exists gives the error of a taken name its own.
func exists(err error) error {
	if code := sqliteCode(err); code == codeConstraintUnique || code == codeConstraintPrimary {
		return fmt.Errorf("it %w: %w", ErrExists, err)
	}
	return err
}
