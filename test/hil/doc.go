// Package hil is the lab: tests that boot the real images beside emulated
// cameras and look at them from outside only, over serial console, HTTP, RTSP,
// the wire, and the disk when the power is off.
//
//	cameras (this process) ─ RTSP ─► image in QEMU ─► disk (nbd, this process)
//	       └────────── frame numbers: sent ═══ kept ──────────┘
//
// What was kept is proven by the numbers that the cameras put into their
// pictures, read from the sample files alone. A test here never imports what it
// tests; of the recorder it uses the emulated camera, and the readers of sample
// files that the recorder's own tests trust. What can be proven without a
// machine is proven beside the code instead.
//
// A second disk, for recordings alone, has a cache of its own and loses its power
// at a moment of its own; it may also be broken in pieces, stall, fill up, or be
// pulled out (second_disk_test.go). The recorder's part of it is real; what mounts
// it is a hook, until the appliance takes disks of the user. The disk with the
// database is broken in pieces, too.
//
// Nothing is booted unless -hil says so: "part" is what `make hil-part` runs, "all"
// is `make hil`, "disk" is `make hil-disk`, and `make powercut N=1000` cuts the power as often as asked.
// Images are built for the lab by gokrazy-config/mkimage; where a test needs a
// recorder that hangs, or one that does not sync, a changed source is laid over
// the real one for that image (mutants_test.go), so that none of it ships.
//
// The device stands on a bench (bench_test.go): power, console, network, disk.
// There is one in QEMU. A relay, a serial adapter and a card reader can be
// another. QEMU runs without help of the processor: everywhere the same, and
// several times slower than the machines that it stands for. Times that the lab
// prints are of the host it ran on, which should do nothing else meanwhile.
//
// One of hundreds of starts ended in the kernel's "Oops: int3" at an instruction that is
// whole again in the dump: it seems that the other processor had just patched it (a
// static key of the network), and that the emulator ran a breakpoint of before. The
// kernel panics then, and the device comes up by itself; cutting.again allows that once
// in a hundred starts and shows the console.
//
// What the lab cannot see: the loader and the firmware of a Raspberry Pi, its
// watchdog, SD cards that wear or lie, real drives' way of losing a cache. Until
// there is the daemon that sets the clock, a hook in process 1 does.
package hil
