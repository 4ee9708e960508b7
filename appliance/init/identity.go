package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Owner of the recorder's process and of its data.
const (
	nvrUID = 1000
	nvrGID = 1000
)

// prepare makes what a device keeps of itself below root: its identity, a
// place for keys, and the recorder's directory. All of it is made on the device;
// nothing secret comes with the image. It returns the machine's id.
func prepare(root string) (string, error) {
	own := filepath.Join(root, "holdfast")
	for _, dir := range []string{own, filepath.Join(own, "keys")} {
		if err := makeDir(dir); err != nil {
			return "", err
		}
	}
	data := filepath.Join(root, "nvr")
	if err := makeDir(data); err != nil {
		return "", err
	}
	// Only the directory itself: what is in it is the recorder's own.
	if err := os.Chown(data, nvrUID, nvrGID); err != nil {
		return "", fmt.Errorf("prepare: %w", err)
	}
	return machineID(filepath.Join(own, "machine-id"))
}

func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = syncDir(filepath.Dir(dir))
	} else if errors.Is(err, os.ErrExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	return nil
}

// machineID reads the id, 32 hexadecimal digits, and makes it on first start.
func machineID(path string) (string, error) {
	if b, err := os.ReadFile(path); err == nil {
		id := strings.TrimSpace(string(b))
		if raw, err := hex.DecodeString(id); err == nil && len(raw) == 16 {
			return id, nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read machine id: %w", err)
	}
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // never fails, and waits until there is randomness
	id := hex.EncodeToString(raw)
	if err := writeFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write machine id: %w", err)
	}
	return id, nil
}
