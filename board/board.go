// Package board says what differs between the machines an image is made for,
// as data: kernel, firmware, serial console, watchdog, disks, sensors. One value
// of the type stands in each subfolder, and beside it a README for people:
// wiring, flashing, booting, known limits.
//
// It is a leaf: it imports nothing of ours and does no input or output. Code
// that behaves differently on a board takes the difference from here; a branch
// on the name of a board belongs nowhere. What gokrazy needs to know stands a
// second time in gokrazy-config, and a test holds the two together.
package board

import "time"

// A Board is a kind of machine. Its fields never change while it runs.
type Board struct {
	Name   string // as in `make image BOARD=`, in file names and on the page
	Title  string // for people
	GOARCH string

	// Import paths of the packages whose files the image carries. The version
	// is that of go.mod. Firmware and EEPROM are empty where the machine brings
	// its own.
	Kernel, Firmware, EEPROM string

	// SerialConsole is the kernel's name of the serial port that shows the boot,
	// with its speed. The screen shows the kernel's messages too.
	SerialConsole string

	// KernelArgs stand last on the kernel's command line, so they win.
	KernelArgs []string

	Watchdog Watchdog
	Disks    Disks
	Sensors  []Sensor
}

// Watchdog is the hardware that resets a machine on which nothing pets it. A
// kernel may have several drivers; which one found its chip is known only on the
// machine, and there may be none.
type Watchdog struct {
	// Drivers are the identities, as WDIOC_GETSUPPORT gives them, of the drivers
	// that the board's kernel has and that some machine of the board may need.
	Drivers []string

	// Timeout is what to ask for, LongestTimeout what no driver of the board may
	// be asked to exceed: a longer one is refused, or worse, wraps around.
	Timeout, LongestTimeout time.Duration

	// Ping is how often to pet: often enough that one late turn does no harm.
	Ping time.Duration

	// Always says that each machine of the board has a watchdog, so that its
	// absence is a fault to report and not merely a fact.
	Always bool
}

// Disks says how the kernel of a board names what can carry the image or
// recordings, and what it cannot drive.
type Disks struct {
	Names   []string // prefixes below /dev, whole disks
	Lacking []string // for people: kinds without a driver in the board's kernel
}

// A Sensor is a value that the machine measures about itself.
type Sensor struct {
	Name string // for people
	Path string // below /sys; a glob, since the numbers in it differ between boots
	Unit string // of the file's integer
}
