package camera

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// dialer connects for one session. The RTSP library follows a redirect by
// connecting again, without end and with the same credentials; here is where
// that is bounded.
type dialer struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	addr *address

	mu      sync.Mutex
	count   int
	first   string
	refused *Error
	leaving bool
	conns   []*conn
}

// refusal is why the dialer did not connect, when it was its own decision.
func (d *dialer) refusal() *Error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused
}

func (d *dialer) dialTCP(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.connect(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return d.keep(c), nil
}

// dialTLS does the handshake here, where it has a deadline. Within the library
// it would happen in the first write, and wait for a silent camera for ever.
func (d *dialer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.connect(ctx, network, address)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(address)
	t := tls.Client(c, &tls.Config{
		ServerName:         host,
		InsecureSkipVerify: true, // see Config.URL
		MinVersion:         tls.VersionTLS12,
	})
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return d.keep(t), nil
}

func (d *dialer) connect(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	d.count++
	if d.count == 1 {
		d.first = address
	}
	// One redirect, and with a password only within the same host: a camera
	// must not make us show it to another.
	switch {
	case d.count > 2:
		d.refused = problem(Protocol, "redirects more than once")
	case !sameHost(d.first, address) && d.addr.url.User != nil:
		d.refused = problem(Protocol, "redirects to another host, which gets no password")
		d.refused.URL = " to " + oneLine(address)
	}
	refused := d.refused
	d.mu.Unlock()
	if refused != nil {
		return nil, refused
	}

	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	dial := d.dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return dial(ctx, network, address)
}

func sameHost(a, b string) bool {
	ha, _, _ := net.SplitHostPort(a)
	hb, _, _ := net.SplitHostPort(b)
	return ha == hb
}

func (d *dialer) keep(c net.Conn) net.Conn {
	k := &conn{Conn: c}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, k)
	if d.leaving {
		k.hurry()
	}
	return k
}

// hurry makes every write from now on end soon: the library gives each one ten
// seconds, also the TEARDOWN to a camera that stopped reading.
func (d *dialer) hurry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaving = true
	for _, c := range d.conns {
		c.hurry()
	}
}

// conn is a connection whose write deadline can be drawn near for good.
type conn struct {
	net.Conn
	mu    sync.Mutex
	limit time.Time
}

func (c *conn) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.limit.IsZero() {
		c.limit = time.Now().Add(farewell)
		c.Conn.SetWriteDeadline(c.limit)
	}
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.limit.IsZero() && (t.IsZero() || t.After(c.limit)) {
		t = c.limit
	}
	return c.Conn.SetWriteDeadline(t)
}

// listenPacket asks for room for a burst of a few key pictures. The kernel
// grants what net.core.rmem_max allows; the library's own setting would fail
// instead.
func listenPacket(network, address string) (net.PacketConn, error) {
	pc, err := net.ListenPacket(network, address)
	if err != nil {
		return nil, err
	}
	if u, ok := pc.(*net.UDPConn); ok {
		u.SetReadBuffer(2 << 20)
	}
	return pc, nil
}
