package web

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
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

// Limit returns a listener of l that accepts no more than so many connections
// at once as leave the recorder the descriptors it needs. More wait in the
// kernel until one is closed; so that nobody takes them all, one address has a
// part of them. This host, and the proxies, through which many come, have all.
func Limit(l net.Listener, proxies ...netip.Prefix) net.Listener {
	return limit(l, mostConnections, mostOfOne, proxies)
}

func limit(l net.Listener, most, ofOne int, proxies []netip.Prefix) net.Listener {
	return &limited{
		Listener: l, open: make(chan struct{}, most), closed: make(chan struct{}), most: ofOne, proxies: proxies, from: make(map[netip.Prefix]int),
	}
}

type limited struct {
	net.Listener
	open   chan struct{} // holds one for each connection
	once   sync.Once
	closed chan struct{}

	most    int // of one address
	proxies []netip.Prefix

	mu   sync.Mutex
	from map[netip.Prefix]int // how many are open, where they count
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
func (l *limited) enter(addr net.Addr) (leave func(), ok bool) {
	tcp, isTCP := addr.(*net.TCPAddr)
	if !isTCP {
		return func() {}, true
	}
	from := tcp.AddrPort().Addr().Unmap().WithZone("")
	if !from.IsValid() || from.IsLoopback() || contains(l.proxies, from) {
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.from[network] >= l.most {
		return nil, false
	}
	l.from[network]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.from[network]--; l.from[network] == 0 {
			delete(l.from, network)
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
