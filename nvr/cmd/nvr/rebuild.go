package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/store"
)

func rebuildCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := newFlags("nvr rebuild")
	var cfg store.RebuildConfig
	fs.StringVar(&cfg.Dir, "data", "", "data `directory` of the recorder, which must not be running")
	fs.Func("dir", "sample `directory` outside of the data directory, given again for each (default: those in its file sample-dirs)", func(s string) error {
		path, err := filepath.Abs(s)
		cfg.Dirs = append(cfg.Dirs, path)
		return err
	})
	if _, err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	if cfg.Dir == "" {
		return fmt.Errorf("%w: -data is missing", errUsage)
	}
	cfg.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg.Found = func(f store.Finding) { fmt.Fprintln(stderr, f) }
	last := time.Now()
	cfg.Progress = func(p store.RebuildProgress) {
		if time.Since(last) >= progressEvery && p.TotalFiles > 0 {
			last = time.Now()
			fmt.Fprintf(stderr, "read %d of %d files, %d MB\n", p.Files, p.TotalFiles, p.Bytes/1e6)
		}
	}
	res, err := store.Rebuild(ctx, cfg)
	if errors.Is(err, db.ErrLocked) {
		return fmt.Errorf("%w: rebuild: %w; stop the recorder first", errUsage, err)
	}
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	fmt.Fprintf(stdout, "rebuilt %d recordings of %d cameras from %d MB of files\n", res.Recordings, res.Cameras, res.Bytes/1e6)
	if res.Kept != "" {
		fmt.Fprintf(stdout, "the old database is %s\n", res.Kept)
	}
	if len(res.Streams) > 0 {
		fmt.Fprintf(stdout, "not recorded until their cameras are given again, with url, user, password and limit: %s\n", strings.Join(res.Streams, ", "))
	}
	return nil
}
