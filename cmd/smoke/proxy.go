package main

import (
	"net"
	"sync"
	"time"
)

// proxy is the network between the agent and the hub: TCP that can be cut, reset, slow, or half open.
type proxy struct {
	listener net.Listener

	mu     sync.Mutex
	target string
	open   map[*net.TCPConn]bool
	away   bool          // each connection is reset
	hole   chan struct{} // closed when what is sent arrives again; nil while it does
	delay  time.Duration // of each piece, each way
	wg     sync.WaitGroup
}

// newProxy is a network without a hub: aim says where that is.
func newProxy() (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, open: map[*net.TCPConn]bool{}}
	p.wg.Go(p.accept)
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// aim says where connections to come lead.
func (p *proxy) aim(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

func (p *proxy) close() {
	p.listener.Close()
	p.swallow(false)
	p.cut(true)
	p.wg.Wait()
}

// cut resets all connections, and with away those to come too.
func (p *proxy) cut(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
	p.resetAll()
}

// reset resets all connections that there are.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resetAll()
}

func (p *proxy) resetAll() {
	for c := range p.open {
		reset(c)
	}
	clear(p.open)
}

// swallow has nothing arrive any more, in either direction, without anybody being told; false lets it arrive, late.
func (p *proxy) swallow(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case on && p.hole == nil:
		p.hole = make(chan struct{})
	case !on && p.hole != nil:
		close(p.hole)
		p.hole = nil
	}
}

func (p *proxy) slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

func reset(c *net.TCPConn) {
	c.SetLinger(0) // RST instead of FIN
	c.Close()
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.carry(c.(*net.TCPConn)) })
	}
}

// keep takes a connection into those that cut resets; false when the network is away.
func (p *proxy) keep(c *net.TCPConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		reset(c)
		return false
	}
	p.open[c] = true
	return true
}

func (p *proxy) forget(c *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
	reset(c)
}

func (p *proxy) carry(near *net.TCPConn) {
	if !p.keep(near) {
		return
	}
	defer p.forget(near)
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	c, err := net.DialTimeout("tcp", target, time.Second)
	if err != nil {
		return
	}
	far := c.(*net.TCPConn)
	if !p.keep(far) {
		return
	}
	defer p.forget(far)
	var both sync.WaitGroup
	both.Go(func() { p.copy(far, near) })
	p.copy(near, far)
	both.Wait()
}

// copy carries one direction. The end of one is the end of the other: TLS has no half-closed connections.
func (p *proxy) copy(to, from *net.TCPConn) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		p.mu.Lock()
		hole, delay := p.hole, p.delay
		p.mu.Unlock()
		if hole != nil {
			<-hole
		}
		time.Sleep(delay)
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}
