package main

import (
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// watchAddresses says each address that the machine gets: a person at the
// console opens it in a browser.
func (m *machine) watchAddresses() {
	var said []string
	look := func() {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return
		}
		var now []string
		for _, a := range addrs {
			ip, ok := a.(*net.IPNet)
			if !ok || !ip.IP.IsGlobalUnicast() {
				continue
			}
			now = append(now, ip.IP.String())
			if !slices.Contains(said, ip.IP.String()) {
				m.console.say("address %s", ip.IP)
			}
		}
		said = now
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{
			Family: unix.AF_NETLINK, Groups: 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1),
		})
	}
	look()
	if err != nil {
		m.console.say("addresses: %v", err)
		for range time.Tick(5 * time.Second) {
			look()
		}
	}
	b := make([]byte, os.Getpagesize())
	for {
		if _, _, err := unix.Recvfrom(fd, b, 0); err != nil && err != unix.EINTR && err != unix.ENOBUFS {
			m.console.say("addresses: %v", err)
			return
		}
		look()
	}
}
