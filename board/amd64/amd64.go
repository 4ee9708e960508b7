// Package amd64 is the small amd64 box, with BIOS or UEFI: its value of the
// board type. Consoles, firmware settings and watchdog chips are described for
// people in the README beside it.
//
// Code that drives the machine does not belong here; it is in appliance.
package amd64

import (
	"time"

	"holdfast/board"
)

// Board is what is known of the small amd64 box. Nobody writes to it.
var Board = board.Board{
	Name:   "amd64",
	Title:  "amd64 box",
	GOARCH: "amd64",

	Kernel: "github.com/gokrazy/kernel.amd64",

	SerialConsole: "ttyS0,115200",
	// The kernel's own command line waits ten seconds for a disk, present or
	// not. rootwait waits as long as it takes, which a USB disk needs.
	KernelArgs: []string{"rootdelay=0", "rootwait"},

	Watchdog: board.Watchdog{
		// No iTCO_wdt, wdat_wdt or softdog in this kernel: most Intel boxes
		// have no hardware watchdog here.
		Drivers:        []string{"SP5100 TCO timer", "i6300ESB timer"},
		Timeout:        30 * time.Second,
		LongestTimeout: 60 * time.Second,
		Ping:           time.Second,
	},
	Disks: board.Disks{
		Names:   []string{"sd", "nvme", "vd"},
		Lacking: []string{"SD and eMMC", "USB in UAS mode (plain USB storage works)"},
	},
	Sensors: []board.Sensor{
		// By ACPI, where the box has it; k10temp for AMD. There is no coretemp.
		{Name: "machine", Path: "class/thermal/thermal_zone0/temp", Unit: "m°C"},
		{Name: "processor", Path: "class/hwmon/hwmon*/temp1_input", Unit: "m°C"},
	},
}
