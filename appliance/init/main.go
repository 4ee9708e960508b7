// Command init is PID 1 of the appliance: it takes the hardware watchdog, makes
// and mounts the data partition, lets gokrazy bring up the machine, and keeps
// the recorder running. It holds only what must not die.
//
//	watchdog ─► /proc /sys ─► /perm ─► identity, resets ─► gokrazy.Boot ─► :80 ─► services ─► recorder
//	                                              └─ three resets in an hour: safe mode
//
// What it says goes to the console in lines that begin with "holdfast: ". The
// order, the ladder, the brake and what a power cut leaves at each step are in
// appliance/design/boot.md.
//
// Rules of the watchdog and of the ladder are in appliance/watchdog, partitions
// and file systems in appliance/disk. Clock, network settings, disks of the user
// and updates do not belong here: they come with the appliance's daemon.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == launchCommand {
		fmt.Fprintln(os.Stderr, launch(os.Args[2:]))
		os.Exit(1)
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: not started by the kernel: this program is process 1 of the appliance")
		os.Exit(2)
	}
	boot()
}

// versionFile is written by whoever makes the image.
const versionFile = "/etc/holdfast/version"

// version is that of the image, else that of this program.
func version() string {
	if b, err := os.ReadFile(versionFile); err == nil {
		return strings.TrimSpace(string(b))
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return info.Main.Version
}
