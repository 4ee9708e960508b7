package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"holdfast/nvr/db"
)

// upgradeCommand does to the database what the start of the recorder does, and
// nothing else.
func upgradeCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := newFlags("nvr upgrade")
	data := fs.String("data", "", "data `directory` of the recorder, which must not be running")
	if _, err := parse(fs, args, stdout, "",
		"Brings the database of an older version up to date, as the start of the recorder does."); err != nil {
		return err
	}
	if *data == "" {
		return fmt.Errorf("%w: -data is missing", errUsage)
	}
	path := filepath.Join(*data, "db")
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%s is not the data directory of a recorder: %w", *data, err)
	}
	d, err := db.Open(ctx, db.Config{Path: path, Log: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if errors.Is(err, db.ErrLocked) {
		return fmt.Errorf("%w; it upgraded the database when it started", err)
	}
	if err != nil {
		return err
	}
	for _, v := range d.Upgraded() {
		fmt.Fprintf(stdout, "upgraded to version %d in %v: %s\n", v.ID, v.Took.Round(time.Millisecond), v.Notes)
		if kept := fmt.Sprintf("%s.v%d", d.Path(), v.ID-1); exists(kept) {
			fmt.Fprintf(stdout, "the database as it was: %s, for a week\n", kept)
		}
	}
	if len(d.Upgraded()) == 0 {
		fmt.Fprintf(stdout, "the database has version %d, which is that of this program\n", db.SchemaVersion)
	}
	return d.Close()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
