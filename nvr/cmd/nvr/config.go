package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"holdfast/nvr/db"
	"holdfast/nvr/store"
)

func configCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	about := map[string]string{
		"import": "Takes over the cameras of FILE by their names: one that is there is changed,\n" +
			"any other added, and what FILE does not name stays.",
		"export": "Writes all cameras to FILE, with their passwords; to the screen when it is -.",
	}
	if len(args) > 0 && slices.Contains([]string{"-h", "-help", "--help"}, args[0]) {
		args = []string{"import", "-h"}
		fmt.Fprintf(stdout, "usage: nvr config export [flags] FILE\n%s\n", about["export"])
	}
	if len(args) == 0 || about[args[0]] == "" {
		return fmt.Errorf("%w: nvr config: import or export is missing; nvr config -h says more", errUsage)
	}
	verb := args[0]
	fs := newFlags("nvr config " + verb)
	data := fs.String("data", "", "data `directory` of the recorder, which must not be running")
	words, err := parse(fs, args[1:], stdout, "FILE", about[verb])
	if err != nil {
		return err
	}
	file := words[0]
	if *data == "" {
		return fmt.Errorf("%w: -data is missing", errUsage)
	}
	var set store.Settings
	if verb == "import" {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if set, err = store.ParseSettings(b); err != nil {
			return fmt.Errorf("config %s: %w", file, err)
		}
	} else if _, err := os.Stat(filepath.Join(*data, "db")); err != nil {
		return fmt.Errorf("%s is not the data directory of a recorder: %w", *data, err)
	}
	if err := refuseForeign(*data); err != nil {
		return err
	}
	s, err := store.Open(ctx, store.Config{Dir: *data, ByHand: true, Log: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if errors.Is(err, db.ErrLocked) && verb == "export" {
		return fmt.Errorf("%w; stop the recorder first", err)
	}
	if errors.Is(err, db.ErrLocked) {
		return fmt.Errorf("%w; while the recorder runs, cameras are changed over HTTP (POST /api/cameras/)", err)
	}
	if err != nil {
		return err
	}
	before := s.Export().Cameras
	err = func() error {
		if verb == "import" {
			if err := s.Import(ctx, set); err != nil {
				return fmt.Errorf("config %s: %w", file, err)
			}
			return nil
		}
		b, err := json.MarshalIndent(s.Export(), "", "  ")
		if err != nil {
			return err
		}
		b = append(b, '\n')
		if file == "-" {
			_, err := stdout.Write(b)
			return err
		}
		// Passwords are in it.
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		return errors.Join(f.Chmod(0o600), err, f.Close())
	}()
	if err := errors.Join(err, closeStore(s)); err != nil {
		return err
	}
	switch after := s.Export().Cameras; {
	case verb == "import":
		fmt.Fprintln(stdout, merged(before, after, set.Cameras))
	case file != "-":
		fmt.Fprintf(stdout, "exported %s\n", count(len(after)))
	}
	return nil
}

// merged says what an import of cameras from a file did.
func merged(before, after, file []store.CameraConfig) string {
	byName := func(list []store.CameraConfig) map[string]store.CameraConfig {
		m := make(map[string]store.CameraConfig)
		for _, c := range list {
			m[c.ShortName] = c
		}
		return m
	}
	was, is := byName(before), byName(after)
	var added, changed, same int
	for _, c := range file {
		old, there := was[c.ShortName]
		switch {
		case !there:
			added++
		case reflect.DeepEqual(old, is[c.ShortName]):
			same++
		default:
			changed++
		}
	}
	text := fmt.Sprintf("%s: %d added, %d changed, %d the same", count(len(file)), added, changed, same)
	if others := len(after) - len(file); others > 0 {
		text += fmt.Sprintf("; %d not in the file stay", others)
	}
	return text
}

func count(cameras int) string {
	if cameras == 1 {
		return "1 camera"
	}
	return fmt.Sprintf("%d cameras", cameras)
}
