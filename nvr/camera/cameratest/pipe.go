package cameratest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// pipeBuffer is what one direction of a connection holds before a writer has
// to wait: about what a kernel gives a TCP connection on loopback.
const pipeBuffer = 256 << 10

// Pipe is a network in memory: what Listen offers, DialContext reaches.
// Connections are buffered, keep deadlines and look like TCP, but no goroutine
// waiting on them waits for anything outside the process, so that inside a
// testing/synctest bubble a wait lets fake time pass. A Pipe belongs to the
// bubble that made it. It has no UDP.
type Pipe struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
	port      int // the last one given to a listener or a dialler that named none
}

// NewPipe returns a network without listeners.
func NewPipe() *Pipe {
	return &Pipe{listeners: make(map[string]*pipeListener), port: 40000}
}

// Listen has the signature of net.Listen. Port 0 takes a free one.
func (p *Pipe) Listen(network, address string) (net.Listener, error) {
	addr := tcpAddr(address)
	p.mu.Lock()
	defer p.mu.Unlock()
	if addr.Port == 0 {
		p.port++
		addr.Port = p.port
	}
	if p.listeners[addr.String()] != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: addr, Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	l := &pipeListener{pipe: p, addr: addr, backlog: make(chan *pipeConn, 64), done: make(chan struct{})}
	p.listeners[addr.String()] = l
	return l, nil
}

// DialContext has the signature of net.Dialer.DialContext. Where nobody
// listens, the connection is refused.
func (p *Pipe) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	addr := tcpAddr(address)
	if err := ctx.Err(); err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: addr, Err: err}
	}
	refused := &net.OpError{Op: "dial", Net: network, Addr: addr, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.listeners[addr.String()]
	if l == nil {
		return nil, refused
	}
	p.port++
	there, here := newFlow(), newFlow()
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: p.port}
	client := &pipeConn{read: here, write: there, local: from, remote: addr}
	server := &pipeConn{read: there, write: here, local: addr, remote: from}
	select {
	case l.backlog <- server:
		return client, nil
	default:
		return nil, refused
	}
}

// tcpAddr reads host:port. A host that is a name becomes 127.0.0.1: nothing is
// looked up, and the RTSP library wants an IP address at both ends.
func tcpAddr(address string) *net.TCPAddr {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	n, _ := strconv.Atoi(port)
	ip := net.ParseIP(host)
	if ip == nil {
		ip = net.IPv4(127, 0, 0, 1)
	}
	return &net.TCPAddr{IP: ip, Port: n}
}

type pipeListener struct {
	pipe    *Pipe
	addr    *net.TCPAddr
	backlog chan *pipeConn
	done    chan struct{}
	once    sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() {
		// Under the lock no dial can put a connection behind the ones closed here.
		l.pipe.mu.Lock()
		defer l.pipe.mu.Unlock()
		delete(l.pipe.listeners, l.addr.String())
		close(l.done)
		for {
			select {
			case c := <-l.backlog:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

func (l *pipeListener) Addr() net.Addr { return l.addr }

// flow is one direction of a connection.
type flow struct {
	mu      sync.Mutex
	changed *sync.Cond

	data        []byte
	shut        bool // the writer closed: EOF after data
	broken      bool // the reader closed: writing is an error
	readBefore  time.Time
	writeBefore time.Time
}

func newFlow() *flow {
	f := &flow{}
	f.changed = sync.NewCond(&f.mu)
	return f
}

// wait waits for a change, no longer than until the deadline. A timer is made
// only here, as deadlines are set for each packet and hardly ever reached.
func (f *flow) wait(deadline time.Time) {
	if deadline.IsZero() {
		f.changed.Wait()
		return
	}
	t := time.AfterFunc(time.Until(deadline), func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	})
	f.changed.Wait()
	t.Stop()
}

func passed(deadline time.Time) bool {
	return !deadline.IsZero() && !time.Now().Before(deadline)
}

// pipeConn is one end of a connection.
type pipeConn struct {
	read, write   *flow
	local, remote *net.TCPAddr

	mu     sync.Mutex
	closed bool
}

func (c *pipeConn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *pipeConn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

func (c *pipeConn) Read(b []byte) (int, error) {
	f := c.read
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case c.isClosed():
			return 0, c.fail("read", net.ErrClosed)
		case passed(f.readBefore):
			return 0, c.fail("read", os.ErrDeadlineExceeded)
		case len(f.data) > 0:
			n := copy(b, f.data)
			f.data = f.data[n:]
			if len(f.data) == 0 {
				f.data = nil
			}
			f.changed.Broadcast()
			return n, nil
		case f.shut:
			return 0, io.EOF
		case len(b) == 0:
			return 0, nil
		}
		f.wait(f.readBefore)
	}
}

func (c *pipeConn) Write(b []byte) (int, error) {
	f := c.write
	f.mu.Lock()
	defer f.mu.Unlock()
	// A write is not mixed with another one of the same end: the writers that
	// wait take what is free in turn, so the whole must fit before any goes in.
	for {
		switch {
		case c.isClosed():
			return 0, c.fail("write", net.ErrClosed)
		case f.broken:
			return 0, c.fail("write", os.NewSyscallError("write", syscall.EPIPE))
		case passed(f.writeBefore):
			return 0, c.fail("write", os.ErrDeadlineExceeded)
		case len(f.data) == 0 || len(f.data)+len(b) <= pipeBuffer:
			f.data = append(f.data, b...)
			f.changed.Broadcast()
			return len(b), nil
		}
		f.wait(f.writeBefore)
	}
}

func (c *pipeConn) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	if again {
		return c.fail("close", net.ErrClosed)
	}
	for _, f := range []*flow{c.read, c.write} {
		f.mu.Lock()
		if f == c.read {
			f.broken, f.data = true, nil
		} else {
			f.shut = true
		}
		f.changed.Broadcast()
		f.mu.Unlock()
	}
	return nil
}

func (c *pipeConn) LocalAddr() net.Addr  { return c.local }
func (c *pipeConn) RemoteAddr() net.Addr { return c.remote }

func (c *pipeConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *pipeConn) SetReadDeadline(t time.Time) error {
	return c.read.set(&c.read.readBefore, t)
}

func (c *pipeConn) SetWriteDeadline(t time.Time) error {
	return c.write.set(&c.write.writeBefore, t)
}

// set changes a deadline. Whoever waits looks at it again.
func (f *flow) set(deadline *time.Time, t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	*deadline = t
	f.changed.Broadcast()
	return nil
}
