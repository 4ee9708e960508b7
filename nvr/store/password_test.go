package store

import (
	"os"
	"path/filepath"
	"testing"
)

// A configuration that is exported and imported while the key is away leaves what
// it could not hold where it is: with the key back, the password is.
func TestPasswordThatCannotBeReadOutlivesAnImport(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "db.key")
	open := func() *Store {
		t.Helper()
		s, err := Open(t.Context(), Config{Dir: dir, noBallast: true})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	end := func(s *Store) {
		t.Helper()
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s := open()
	if _, err := s.AddCamera(t.Context(), CameraConfig{ShortName: "front", Streams: map[string]StreamConfig{
		"main": {URL: "rtsp://admin:geheim@10.0.0.7/main"}}}); err != nil {
		t.Fatal(err)
	}
	end(s)
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	s = open()
	set := s.Export()
	if got := set.Cameras[0].Streams["main"]; got.Username != "admin" || got.Password != "" {
		t.Errorf("exported %+v", got)
	}
	if err := s.Import(t.Context(), set); err != nil {
		t.Error(err)
	}
	end(s)
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	s = open()
	if got := s.Export().Cameras[0].Streams["main"].Password; got != "geheim" {
		t.Errorf("with the key back: %q", got)
	}
	// Of another user it is another password.
	set.Cameras[0].Streams["main"] = StreamConfig{URL: "rtsp://10.0.0.7/main", Username: "guest"}
	if err := s.Import(t.Context(), set); err != nil {
		t.Error(err)
	}
	end(s)
	s = open()
	if got := s.Export().Cameras[0].Streams["main"]; got.Username != "guest" || got.Password != "" {
		t.Errorf("another user: %+v", got)
	}
	end(s)
}
