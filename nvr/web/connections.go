package web

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// mostConnections are open at once. Each may read a sample file beside it: that
// is a quarter of the 4096 descriptors that a process has on Linux when nobody
// says otherwise. The others are for cameras and what is recorded, which fails
// without.
const mostConnections = 512

// mostOfOne of them are from one address, or from one IPv6 network, which one
// machine has all of: a browser that shows every camera has a third of that, and
// eight such addresses still have their place. Whoever has more is hung up on.
const mostOfOne = 64

// Limit puts a limit around listeners: together they accept no more connections
// at once than leave the recorder the descriptors it needs. More wait in the
// kernel until one is closed; so that nobody takes them all, one address has a
// part of them. This host, and the proxies, through which many come, have all.
func Limit(listeners []net.Listener, proxies ...netip.Prefix) []net.Listener {
	return limit(mostConnections, mostOfOne, proxies, listeners...)
}

func limit(most, ofOne int, proxies []netip.Prefix, listeners ...net.Listener) (out []net.Listener) {
	all := &places{open: make(chan struct{}, most), most: ofOne, proxies: proxies, from: make(map[netip.Prefix]int)}
	for _, l := range listeners {
		out = append(out, &limited{Listener: l, places: all, closed: make(chan struct{})})
	}
	return out
}

// places are those of the connections of several listeners.
type places struct {
	open    chan struct{} // holds one for each connection, and each Accept that waits
	most    int           // of one address
	proxies []netip.Prefix

	mu   sync.Mutex
	from map[netip.Prefix]int // how many are open, where they count
}

type limited struct {
	net.Listener
	*places
	once   sync.Once
	closed chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.open <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.open
			return nil, err
		}
		leave, ok := l.enter(c.RemoteAddr())
		if !ok {
			c.Close()
			continue
		}
		return &counted{Conn: c, gone: sync.OnceFunc(func() { leave(); <-l.open })}, nil
	}
}

// enter counts a connection from an address, until leave is called; ok is false
// when there are enough.
func (p *places) enter(addr net.Addr) (leave func(), ok bool) {
	tcp, isTCP := addr.(*net.TCPAddr)
	if !isTCP {
		return func() {}, true
	}
	from := tcp.AddrPort().Addr().Unmap().WithZone("")
	if !from.IsValid() || from.IsLoopback() || contains(p.proxies, from) {
		return func() {}, true
	}
	bits := 32
	if from.Is6() {
		bits = 64
	}
	network, err := from.Prefix(bits)
	if err != nil {
		return func() {}, true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.from[network] >= p.most {
		return nil, false
	}
	p.from[network]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.from[network]--; p.from[network] == 0 {
			delete(p.from, network)
		}
	}, true
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// counted is a connection of a limited listener.
type counted struct {
	net.Conn
	gone func()
}

func (c *counted) Close() error {
	defer c.gone()
	return c.Conn.Close()
}

// ReadFrom keeps the way open by which the kernel copies from a file to the
// socket.
func (c *counted) ReadFrom(src io.Reader) (int64, error) { return io.Copy(c.Conn, src) }

type connKey struct{}

// cork has the connection of a request send full segments alone, however short
// the pieces are that it is given to copy, until release is called.
func cork(r *http.Request) (release func()) {
	set := func(int) {}
	if c, ok := r.Context().Value(connKey{}).(*counted); ok {
		set = func(on int) { // one that is closed meanwhile needs none
			c.control(func(fd int) { _ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_CORK, on) })
		}
	}
	set(1)
	return func() { set(0) }
}

// control gives f the socket of the connection, if it has one that is open.
func (c *counted) control(f func(fd int)) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := s.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// hungUp reports whether the client has closed its side of the connection of a
// request. net/http ends the request then, but not when something came behind it:
// that is the next request, and nothing more is read until the answer has ended.
func hungUp(r *http.Request) bool {
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn()
	}
	const established = 1 // TCP_ESTABLISHED of the kernel
	state := established
	if c, ok := conn.(*counted); ok {
		c.control(func(fd int) {
			// The state is the first byte of what the kernel says.
			if v, err := syscall.GetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_INFO); err == nil {
				state = v & 0xff
			}
		})
	}
	return state != established
}

// CloseWrite lets the server wait until the client has the end of an answer.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// limitBody gives the client bodyTime to send the body of a request. Without,
// net/http waits for the rest of one that the handler did not read, after the
// answer and for ever. It takes the limit off when the body has come; only a
// connection on which that came while it was read is used again.
func limitBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	// A ResponseRecorder of a test has no deadline.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	w.Header().Set("Connection", "close")
	r.Body = &incoming{r.Body, w.Header()}
}

// incoming is a body whose connection may be used again when it was read to its
// end.
type incoming struct {
	io.ReadCloser
	answer http.Header
}

func (b *incoming) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.answer.Del("Connection")
	}
	return n, err
}
