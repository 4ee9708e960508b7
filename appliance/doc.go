// Package appliance is the map of the machine around the recorder: what a small
// box needs to record for years though nobody logs in to it. It holds no code.
//
// The places in this folder; cmd/appliance, slot, clock, network, health and
// update are still to come:
//
//	design/         the order of a start, the ladder, the brake, what a power cut leaves
//	init/           PID 1: takes the watchdog, makes and mounts /perm, supervises
//	cmd/appliance/  the daemon: disks, clock, network, health, updates, behind a unix socket
//	watchdog/       the device, the sd_notify socket, the ladder
//	slot/           which root to boot: the trial marker and its two CRC slots
//	disk/           the data partition: grown, formatted, mounted
//	clock/ network/ health/ update/
//
// Nothing here imports nvr, and nvr imports nothing of this: the two meet on
// sockets, so that the recorder also runs on any Linux.
package appliance
