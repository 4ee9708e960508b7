//go:build neverbuilt

// Package gokrazyconfig only keeps in go.mod what an image is made of beside our
// own programs: kernels, firmware and the programs of gokrazy. No build has its
// tag; `go mod tidy` reads it all the same. The instances that name the packages
// are in the subfolders, the command that makes images in mkimage.
package gokrazyconfig

import (
	_ "github.com/gokrazy/firmware"
	_ "github.com/gokrazy/gokrazy/cmd/dhcp"
	_ "github.com/gokrazy/gokrazy/cmd/randomd"
	_ "github.com/gokrazy/kernel.amd64"
	_ "github.com/gokrazy/kernel.rpi"
	_ "github.com/gokrazy/rpi-eeprom"
	_ "github.com/gokrazy/serial-busybox"
)
