package agent

import (
	"context"
	"io"
	"path"
	"reflect"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// direct joins the two ends of a gRPC service without HTTP/2 and encoding between them. A day of fifty modules has nine
// million heartbeats and answers, and those two take most of the time of each.
type direct struct {
	ctx  context.Context // ends with the connection
	end  context.CancelFunc
	desc *grpc.ServiceDesc
	impl any
}

var (
	_ grpc.ServiceRegistrar    = (*direct)(nil)
	_ grpc.ClientConnInterface = (*direct)(nil)
)

func newDirect() *direct {
	d := &direct{}
	d.ctx, d.end = context.WithCancel(context.Background())
	return d
}

// Close ends the connection, and what runs over it.
func (d *direct) Close() error { d.end(); return nil }

// RegisterService implements [grpc.ServiceRegistrar], for one service.
func (d *direct) RegisterService(desc *grpc.ServiceDesc, impl any) { d.desc, d.impl = desc, impl }

// join is ctx, which also ends with the connection.
func (d *direct) join(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(d.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// Invoke implements [grpc.ClientConnInterface].
func (d *direct) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	ctx, cancel := d.join(ctx)
	defer cancel()
	for _, m := range d.desc.Methods {
		if m.MethodName != path.Base(method) {
			continue
		}
		answers := make(chan error, 1)
		go func() {
			answer, err := m.Handler(d.impl, ctx, func(in any) error { return hand(in, args) }, nil)
			if err == nil {
				err = hand(reply, answer)
			}
			answers <- err
		}()
		select {
		case err := <-answers:
			return asStatus(err)
		case <-ctx.Done():
			<-answers // reply is the handler's until then, and handlers end with ctx
			return d.ended(ctx)
		}
	}
	return status.Errorf(codes.Unimplemented, "no method %s", method)
}

// ended is what the end of ctx is to a caller.
func (d *direct) ended(ctx context.Context) error {
	if d.ctx.Err() != nil {
		return status.Error(codes.Unavailable, "the connection is closed")
	}
	return status.FromContextError(ctx.Err()).Err()
}

// NewStream implements [grpc.ClientConnInterface].
func (d *direct) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	if d.ctx.Err() != nil {
		return nil, d.ended(d.ctx)
	}
	for _, s := range d.desc.Streams {
		if s.StreamName != path.Base(method) {
			continue
		}
		ctx, cancel := d.join(ctx)
		toModule, fromModule := newPost(), newPost()
		context.AfterFunc(ctx, func() { toModule.close(); fromModule.close() })
		over := &ending{done: make(chan struct{})}
		go func() {
			defer cancel()
			over.err = asStatus(s.Handler(d.impl, &directServer{directEnd{d, ctx, toModule, fromModule, nil}}))
			close(over.done)
		}()
		return &directClient{directEnd{d, ctx, fromModule, toModule, over}}, nil
	}
	return nil, status.Errorf(codes.Unimplemented, "no stream %s", method)
}

// ending is how a handler has ended.
type ending struct {
	done chan struct{}
	err  error
}

// post is one way of a stream.
type post struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting []any
	closed  bool
}

func newPost() *post {
	p := &post{}
	p.changed.L = &p.mu
	return p
}

// send blocks, as flow control does, while the other end does not read.
func (p *post) send(m any) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.waiting) >= 1000 && !p.closed {
		p.changed.Wait()
	}
	if p.closed {
		return false
	}
	p.waiting = append(p.waiting, m)
	p.changed.Signal()
	return true
}

// receive answers nil at the end. What was sent before the end comes before it.
func (p *post) receive() any {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.waiting) == 0 && !p.closed {
		p.changed.Wait()
	}
	if len(p.waiting) == 0 {
		return nil
	}
	m := p.waiting[0]
	p.waiting = append(p.waiting[:0], p.waiting[1:]...)
	p.changed.Signal()
	return m
}

func (p *post) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.changed.Broadcast()
}

// directEnd is one end of a stream.
type directEnd struct {
	conn *direct
	ctx  context.Context
	in   *post
	out  *post
	over *ending // of the handler; nil at its own end
}

func (e *directEnd) Context() context.Context { return e.ctx }

// SendMsg hands m over as it is. Whoever sends has no more use for it.
func (e *directEnd) SendMsg(m any) error {
	switch {
	case e.out.send(m):
		return nil
	case e.over != nil:
		return io.EOF // RecvMsg tells why
	}
	return e.conn.ended(e.ctx)
}

func (e *directEnd) RecvMsg(m any) error {
	if from := e.in.receive(); from != nil {
		reflect.ValueOf(m).Elem().Set(reflect.ValueOf(from).Elem())
		return nil
	}
	if e.over != nil {
		<-e.over.done
		switch {
		case e.conn.ctx.Err() != nil:
		case e.over.err == nil:
			return io.EOF
		default:
			return e.over.err
		}
	}
	return e.conn.ended(e.ctx)
}

// directClient and directServer have what this service does not use: headers, trailers and the half close.
type directClient struct{ directEnd }

func (*directClient) Header() (metadata.MD, error) { return nil, nil }
func (*directClient) Trailer() metadata.MD         { return nil }
func (*directClient) CloseSend() error             { return nil }

type directServer struct{ directEnd }

func (*directServer) SetHeader(metadata.MD) error  { return nil }
func (*directServer) SendHeader(metadata.MD) error { return nil }
func (*directServer) SetTrailer(metadata.MD)       {}

// hand copies a message by its encoding.
func hand(to, from any) error {
	b, err := proto.Marshal(from.(proto.Message))
	if err != nil {
		return err
	}
	return proto.Unmarshal(b, to.(proto.Message))
}

// asStatus is what a gRPC server makes of a handler's error.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	return status.Convert(err).Err()
}
