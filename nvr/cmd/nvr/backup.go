package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/store"
)

// backupCommand copies the database to a file, and restoreCommand brings it back.
func backupCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	data, file, err := backupFlags("nvr backup", "to", args, stdout)
	if err != nil {
		return err
	}
	last := time.Now()
	err = store.Backup(ctx, data, file, func(done, total int) {
		if time.Since(last) >= progressEvery {
			last = time.Now()
			fmt.Fprintf(stderr, "copied %d of %d pages\n", done, total)
		}
	})
	if errors.Is(err, db.ErrLocked) {
		return fmt.Errorf("%w: backup: %w; stop the recorder first, or take the copy that it keeps in each sample directory", errUsage, err)
	}
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	fmt.Fprintf(stdout, "backed up to %s; passwords of cameras can be read from it with the key file alone, %s, which is not in it\n", file, filepath.Join(data, "db.key"))
	return nil
}

func restoreCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	data, file, err := backupFlags("nvr restore", "from", args, stdout)
	if err != nil {
		return err
	}
	kept, err := store.Restore(ctx, data, file, slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if errors.Is(err, db.ErrLocked) {
		return fmt.Errorf("%w: restore: %w; stop the recorder first", errUsage, err)
	}
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	fmt.Fprintf(stdout, "restored from %s; what was recorded since comes in with the next start\n", file)
	if kept != "" {
		fmt.Fprintf(stdout, "the old database is %s\n", kept)
	}
	return nil
}

func backupFlags(name, flagName string, args []string, stdout io.Writer) (data, file string, err error) {
	fs := newFlags(name)
	fs.StringVar(&data, "data", "", "data `directory` of the recorder, which must not be running")
	fs.StringVar(&file, flagName, "", "`file` of the copy")
	if _, err := parse(fs, args, stdout, ""); err != nil {
		return "", "", err
	}
	for flagName, value := range map[string]string{"data": data, flagName: file} {
		if value == "" {
			return "", "", fmt.Errorf("%w: -%s is missing", errUsage, flagName)
		}
	}
	return data, file, nil
}
