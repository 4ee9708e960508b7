// Package nbd is a disk for the lab whose power can be cut: a server of the
// network block device protocol with a volatile write cache.
//
// A process that is killed loses nothing that it wrote, and a virtual machine
// that is killed neither: the host has it. What a drive had not been told to
// flush is lost only here. Between two flushes each sector of 512 bytes is kept
// apart, and a cut decides by a seed which of them the medium has:
//
//	guest ─ write ─► sectors that wait, in order ─ flush ─► medium
//	                          └──── cut: some of them ────►
//
// A disk may have faults (Fault): pieces that cannot be read or written, requests
// that take a minute, connections that end. One that is pulled out is a disk whose
// power is cut and whose server is closed; with a new server at the same socket it
// is back.
//
// It is written for one client, QEMU or anything that speaks the fixed newstyle
// handshake, over a unix socket. It knows nothing of what is on the disk.
package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// The numbers of the protocol.
const (
	magicServer = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption = 0x49484156454f5054 // "IHAVEOPT"
	magicAnswer = 0x0003e889045565a9

	magicRequest = 0x25609513
	magicReply   = 0x67446698

	handshakeFixed    = 1 << 0
	handshakeNoZeroes = 1 << 1

	optionExportName = 1
	optionAbort      = 2
	optionList       = 3
	optionInfo       = 6
	optionGo         = 7

	answerAck         = 1
	answerServer      = 2
	answerInfo        = 3
	answerUnsupported = 1<<31 | 1
	answerInvalid     = 1<<31 | 3

	infoExport    = 0
	infoBlockSize = 3

	commandRead        = 0
	commandWrite       = 1
	commandDisconnect  = 2
	commandFlush       = 3
	commandTrim        = 4
	commandWriteZeroes = 6

	flagFUA = 1 << 0

	// There are flags, flush, FUA, trim and write zeroes.
	transmissionFlags = 1<<0 | 1<<2 | 1<<3 | 1<<5 | 1<<6

	maxRequest = 32 << 20
	maxOption  = 4096
)

// Server offers one disk.
type Server struct {
	disk     *Disk
	listener net.Listener
	serving  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

// Listen offers the disk at a unix socket, under any export name. The path must
// not exist. When the power of the disk is cut, requests are not answered any
// more; Close ends the connections.
func Listen(socket string, d *Disk) (*Server, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	s := &Server{disk: d, listener: l, conns: map[net.Conn]struct{}{}}
	s.serving.Go(s.accept)
	return s, nil
}

// Close ends all connections and waits for them. It does not cut the power.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	err := s.listener.Close()
	s.serving.Wait()
	return err
}

func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			c.Close()
			return
		}
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		s.serving.Go(func() {
			// What ends a connection is the client's to see.
			_ = s.serve(c)
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

func (s *Server) serve(c net.Conn) error {
	start, err := s.handshake(c)
	if err != nil || !start {
		return err
	}
	return s.transmit(c)
}

// handshake agrees on the export. start is false when the client only looked.
func (s *Server) handshake(c net.Conn) (start bool, err error) {
	hello := binary.BigEndian.AppendUint64(nil, magicServer)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint16(hello, handshakeFixed|handshakeNoZeroes)
	if _, err := c.Write(hello); err != nil {
		return false, err
	}
	var word [16]byte
	if _, err := io.ReadFull(c, word[:4]); err != nil {
		return false, err
	}
	client := binary.BigEndian.Uint32(word[:])
	if client&handshakeFixed == 0 {
		return false, errors.New("nbd: the client does not speak fixed newstyle")
	}
	for {
		if _, err := io.ReadFull(c, word[:]); err != nil {
			return false, err
		}
		if m := binary.BigEndian.Uint64(word[:]); m != magicOption {
			return false, fmt.Errorf("nbd: option begins with %x, expected %x", m, uint64(magicOption))
		}
		option, length := binary.BigEndian.Uint32(word[8:]), binary.BigEndian.Uint32(word[12:])
		if length > maxOption {
			return false, fmt.Errorf("nbd: option %d of %d bytes", option, length)
		}
		data := make([]byte, length)
		if _, err := io.ReadFull(c, data); err != nil {
			return false, err
		}
		answer := func(kind uint32, body ...byte) error {
			b := binary.BigEndian.AppendUint64(nil, magicAnswer)
			b = binary.BigEndian.AppendUint32(b, option)
			b = binary.BigEndian.AppendUint32(b, kind)
			b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
			_, err := c.Write(append(b, body...))
			return err
		}
		switch option {
		case optionExportName:
			_, err := c.Write(append(s.export(nil), make([]byte, map[bool]int{false: 124}[client&handshakeNoZeroes != 0])...))
			return true, err
		case optionAbort:
			return false, answer(answerAck)
		case optionList:
			if err := errors.Join(answer(answerServer, 0, 0, 0, 0), answer(answerAck)); err != nil {
				return false, err
			}
		case optionInfo, optionGo:
			if len(data) < 6 || uint64(binary.BigEndian.Uint32(data))+6 > uint64(len(data)) {
				if err := answer(answerInvalid); err != nil {
					return false, err
				}
				continue
			}
			sizes := binary.BigEndian.AppendUint16(nil, infoBlockSize)
			for _, n := range []uint32{SectorSize, 4096, maxRequest} { // least, best, most
				sizes = binary.BigEndian.AppendUint32(sizes, n)
			}
			err := errors.Join(
				answer(answerInfo, s.export(binary.BigEndian.AppendUint16(nil, infoExport))...),
				answer(answerInfo, sizes...),
				answer(answerAck))
			if err != nil || option == optionGo {
				return true, err
			}
		default:
			if err := answer(answerUnsupported); err != nil {
				return false, err
			}
		}
	}
}

func (s *Server) export(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(s.disk.Size()))
	return binary.BigEndian.AppendUint16(b, transmissionFlags)
}

// transmit answers one request after the other, so that a slow one holds up
// those behind it, as a drive that stalls does.
func (s *Server) transmit(c net.Conn) error {
	var head [28]byte
	var data []byte
	for {
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return err
		}
		if m := binary.BigEndian.Uint32(head[:]); m != magicRequest {
			return fmt.Errorf("nbd: request begins with %x, expected %x", m, magicRequest)
		}
		flags, command := binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint16(head[6:])
		offset, length := int64(binary.BigEndian.Uint64(head[16:])), binary.BigEndian.Uint32(head[24:])
		durable := flags&flagFUA != 0
		if (command == commandRead || command == commandWrite) && length > maxRequest {
			return fmt.Errorf("nbd: request of %d bytes", length)
		}
		data = data[:0]
		if command == commandRead || command == commandWrite {
			if cap(data) < int(length) {
				data = make([]byte, length)
			}
			data = data[:length]
		}
		if command == commandWrite {
			if _, err := io.ReadFull(c, data); err != nil {
				return err
			}
		}
		var err error
		switch command {
		case commandRead:
			_, err = s.disk.ReadAt(data, offset)
		case commandWrite:
			err = s.disk.Write(data, offset, durable)
			data = data[:0]
		case commandFlush:
			err = s.disk.Flush()
		case commandTrim:
			err = s.disk.Trim(offset, int(min(length, 1<<31-1)))
		case commandWriteZeroes:
			if length > maxRequest {
				err = syscall.EINVAL
				break
			}
			err = s.disk.WriteZeroes(offset, int(length), durable)
		case commandDisconnect:
			return nil
		default:
			err = syscall.EINVAL
		}
		if errors.Is(err, ErrDropped) {
			return err
		}
		if errors.Is(err, ErrPowerOff) {
			// A drive without power does not answer.
			_, err := io.Copy(io.Discard, c)
			return err
		}
		reply := binary.BigEndian.AppendUint32(nil, magicReply)
		reply = binary.BigEndian.AppendUint32(reply, errorNumber(err))
		reply = append(reply, head[8:16]...)
		if err == nil && command == commandRead {
			reply = append(reply, data...)
		}
		if _, err := c.Write(reply); err != nil {
			return err
		}
	}
}

// errorNumber is an error as the protocol knows it: an errno of Linux.
func errorNumber(err error) uint32 {
	var number syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &number):
		return uint32(number)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return uint32(syscall.ENOSPC)
	}
	return uint32(syscall.EIO)
}
