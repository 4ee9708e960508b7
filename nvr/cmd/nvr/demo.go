package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"syscall"

	"holdfast/nvr/camera/cameratest"
	"holdfast/nvr/store"
)

// demoRetain is how much the demo keeps of each stream, bytes.
const demoRetain = 1 << 30

func demoCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := options{data: "data/demo", http: "127.0.0.1:8080", anonymous: "admin"}
	fs := newFlags("nvr demo")
	o.flags(fs)
	n := fs.Int("cameras", 2, "`number` of emulated cameras")
	if _, err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	if *n < 1 || *n > 64 {
		return fmt.Errorf("%w: -cameras %d: it is 1 to 64", errUsage, *n)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	cams, err := cameratest.Start(cameratest.Config{Listen: "127.0.0.1:0", Cameras: *n, Log: log})
	if err != nil {
		return err
	}
	defer cams.Close()

	o.prepare = func(ctx context.Context, s *store.Store) error {
		set := demoSettings(cams, *n)
		if err := demoMay(s.Export(), set); err != nil {
			return fmt.Errorf("data directory %s: %w", o.data, err)
		}
		return s.Import(ctx, demoAgain(s.Export(), set))
	}
	o.ready = func(s serving) {
		fmt.Fprintf(stdout, "\n  Holdfast records %d emulated cameras to %s\n\n  open     http://%s\n  sign in  %s\n  stop     Ctrl-C\n\n",
			*n, o.data, s.http, signIn(o.anonymous, s.claim))
	}
	err = run(ctx, o, log)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w (make demo HTTP=…)", err)
	}
	return err
}

func signIn(anonymous, claim string) string {
	switch {
	case anonymous != "":
		return "not needed: everybody who reaches this address may " + map[string]string{"view": "watch", "admin": "watch and change cameras"}[anonymous]
	case claim != "":
		return "the first time at /claim, with the code " + claim
	}
	return "at /login"
}

// emulated describes the cameras of the demo; it knows them by that.
const emulated = "emulated"

// demoMay keeps the demo out of a recorder that is somebody's own. A camera
// that was added to a demo stays.
func demoMay(there, demo store.Settings) error {
	own, ours := "", false
	for _, c := range there.Cameras {
		if c.Description == emulated {
			ours = true
			continue
		}
		own = c.ShortName
		if slices.ContainsFunc(demo.Cameras, func(d store.CameraConfig) bool { return d.ShortName == c.ShortName }) {
			ours = false
			break
		}
	}
	if own != "" && !ours {
		return fmt.Errorf("it records a camera %q that is not the demo's: name another directory with -data, or record to it with nvr run", own)
	}
	return nil
}

// demoAgain is what a start of the demo changes: the cameras that are not there
// yet come as they are, of the others only the addresses are new, so that what
// was set since stays.
func demoAgain(there, demo store.Settings) store.Settings {
	for i, d := range demo.Cameras {
		was := slices.IndexFunc(there.Cameras, func(c store.CameraConfig) bool { return c.ShortName == d.ShortName })
		if was < 0 {
			continue
		}
		c := there.Cameras[was]
		for typ, s := range d.Streams {
			if kept, ok := c.Streams[typ]; ok {
				kept.URL = s.URL
				c.Streams[typ] = kept
			}
		}
		demo.Cameras[i] = c
	}
	return demo
}

// demoSettings are the emulated cameras, named for their place.
func demoSettings(cams *cameratest.Server, n int) store.Settings {
	names := []string{"front door", "garden", "garage", "hall"}
	var set store.Settings
	for i := range n {
		name := fmt.Sprintf("camera %d", i+1)
		if i < len(names) {
			name = names[i]
		}
		prefix := ""
		if n > 1 {
			prefix = fmt.Sprintf("%d/", i+1)
		}
		streams := make(map[string]store.StreamConfig)
		for _, typ := range []string{"main", "sub"} {
			streams[typ] = store.StreamConfig{URL: cams.URL(prefix + typ), Record: true, RetainBytes: demoRetain}
		}
		set.Cameras = append(set.Cameras, store.CameraConfig{ShortName: name, Description: emulated, Streams: streams})
	}
	return set
}
