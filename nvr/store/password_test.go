package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// keyed is a store whose key can be taken away from beside its database.
type keyed struct {
	testing.TB
	s        *Store
	dir, key string
}

func newKeyed(t *testing.T) *keyed {
	dir := t.TempDir()
	k := &keyed{TB: t, dir: dir, key: filepath.Join(dir, "db.key")}
	k.open()
	if _, err := k.s.AddCamera(t.Context(), CameraConfig{ShortName: "front", Streams: map[string]StreamConfig{
		"main": {URL: "rtsp://admin:geheim@10.0.0.7/main"}}}); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *keyed) open() {
	k.Helper()
	var err error
	if k.s, err = Open(k.Context(), Config{Dir: k.dir, noBallast: true}); err != nil {
		k.Fatal(err)
	}
}

func (k *keyed) end() {
	k.Helper()
	if err := k.s.Close(k.Context()); err != nil {
		k.Fatal(err)
	}
}

// move opens the store anew, with the key file called otherwise.
func (k *keyed) move(from, to string) {
	k.Helper()
	k.end()
	if err := os.Rename(from, to); err != nil {
		k.Fatal(err)
	}
	k.open()
}

// change changes the stream as PATCH does.
func (k *keyed) change(sc StreamChange) error {
	return k.s.ChangeCamera(k.Context(), k.s.named("front").UUID, CameraChange{Streams: map[string]StreamChange{"main": sc}}, CameraChange{})
}

func (k *keyed) main() StreamConfig { return k.s.Export().Cameras[0].Streams["main"] }

// A change that leaves out a password which cannot be read leaves it where it is,
// and takes it to no other place and no other user; one that gives another, or
// none, makes it that.
func TestChangeWithoutTheKeyKeepsThePassword(t *testing.T) {
	k := newKeyed(t)
	k.move(k.key, k.key+".away")
	if err := k.change(StreamChange{URL: new("rtsp://10.0.0.7/other"), Record: new(true)}); err != nil {
		t.Error(err)
	}
	for what, sc := range map[string]StreamChange{
		"host": {URL: new("rtsp://10.0.0.8/main")},
		"user": {Username: new("guest")},
	} {
		if e, ok := errors.AsType[*ConfigError](k.change(sc)); !ok || e.Field != "streams.main.password" {
			t.Errorf("another %s: %v", what, e)
		}
	}
	src, _ := k.s.named("front").Stream("main").Source()
	tried, err := k.s.SourceOf(k.s.named("front"), "main", StreamChange{URL: new("rtsp://10.0.0.7/third")})
	if err != nil || tried.NoPassword == "" || tried.NoPassword != src.NoPassword {
		t.Errorf("tried is %+v, %v", tried, err)
	}
	if tried, err = k.s.SourceOf(k.s.named("front"), "main", StreamChange{Password: new("neu")}); err != nil || tried.NoPassword != "" || tried.Password != "neu" {
		t.Errorf("with another password, tried is %+v, %v", tried, err)
	}
	k.move(k.key+".away", k.key)
	if got := k.main(); got.Password != "geheim" || got.URL != "rtsp://10.0.0.7/other" || !got.Record || got.Username != "admin" {
		t.Errorf("with the key back: %+v", got)
	}
	k.end()
}

func TestChangeWithoutTheKeySetsThePassword(t *testing.T) {
	for _, password := range []string{"neu", ""} {
		k := newKeyed(t)
		k.move(k.key, k.key+".away")
		if err := k.change(StreamChange{Password: &password}); err != nil {
			t.Error(err)
		}
		src, _ := k.s.named("front").Stream("main").Source()
		if src.NoPassword != "" || src.Password != password || src.Username != "admin" {
			t.Errorf("%q: %+v", password, src)
		}
		k.end()
		k.open()
		if got := k.main(); got.Password != password || got.lost != "" {
			t.Errorf("%q: opened again %+v", password, got)
		}
		k.end()
	}
}

// A configuration that is exported and imported while the key is away leaves what
// it could not hold where it is: with the key back, the password is.
func TestPasswordThatCannotBeReadOutlivesAnImport(t *testing.T) {
	k := newKeyed(t)
	k.move(k.key, k.key+".away")
	set := k.s.Export()
	if got := set.Cameras[0].Streams["main"]; got.Username != "admin" || got.Password != "" {
		t.Errorf("exported %+v", got)
	}
	if err := k.s.Import(t.Context(), set); err != nil {
		t.Error(err)
	}
	k.move(k.key+".away", k.key)
	if got := k.main().Password; got != "geheim" {
		t.Errorf("with the key back: %q", got)
	}
	// Of another user it is another password.
	set.Cameras[0].Streams["main"] = StreamConfig{URL: "rtsp://10.0.0.7/main", Username: "guest"}
	if err := k.s.Import(t.Context(), set); err != nil {
		t.Error(err)
	}
	k.end()
	k.open()
	if got := k.main(); got.Username != "guest" || got.Password != "" {
		t.Errorf("another user: %+v", got)
	}
	k.end()
}
