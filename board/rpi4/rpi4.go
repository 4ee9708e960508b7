// Package rpi4 is the Raspberry Pi 4: its value of the board type. The pins of
// the serial console, the order in which it boots and its disks are described
// for people in the README beside it.
//
// Code that drives the machine does not belong here; it is in appliance.
package rpi4

import (
	"time"

	"holdfast/board"
)

// Board is what is known of the Raspberry Pi 4. Nobody writes to it.
var Board = board.Board{
	Name:   "rpi4",
	Title:  "Raspberry Pi 4",
	GOARCH: "arm64",

	Kernel:   "github.com/gokrazy/kernel.rpi",
	Firmware: "github.com/gokrazy/firmware",
	EEPROM:   "github.com/gokrazy/rpi-eeprom",

	// The firmware puts the name of the UART on the pins here.
	SerialConsole: "serial0,115200",

	Watchdog: board.Watchdog{
		Drivers: []string{"Broadcom BCM2835 Watchdog timer"},
		// The counter has 20 bits of 1/65536 s. The driver takes more than
		// 15 s and wraps around, so that the machine is reset at once.
		Timeout:        15 * time.Second,
		LongestTimeout: 15 * time.Second,
		Ping:           time.Second,
		Always:         true,
	},
	Disks: board.Disks{
		Names: []string{"mmcblk", "sd", "nvme", "vd"},
	},
	Sensors: []board.Sensor{
		{Name: "processor", Path: "class/thermal/thermal_zone0/temp", Unit: "m°C"},
		{Name: "supply voltage too low", Path: "class/hwmon/hwmon*/in0_lcrit_alarm", Unit: "0 or 1"},
	},
}
