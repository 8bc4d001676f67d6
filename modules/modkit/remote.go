package modkit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/twinbay/twinbay/modules/modkit/internal/modpb"
)

// Remote is the agent's end of one module process: what go-plugin's Dispense(PluginName) answers.
//
// An error of its methods is the process's: gone, hung beyond ctx, or refusing the call. It says which call failed;
// the end of ctx is ctx's error under errors.Is, a process that has gone is ErrEnded, and an answer of more bytes than the
// connection takes is ErrTooLarge: the module runs on.
type Remote struct {
	client modpb.ModuleClient
}

// NewRemote returns the agent's end of the module at the other end of conn.
func NewRemote(conn grpc.ClientConnInterface) *Remote {
	return &Remote{client: modpb.NewModuleClient(conn)}
}

// Describe asks the module what it is.
func (r *Remote) Describe(ctx context.Context) (Description, error) {
	p, err := r.client.Describe(ctx, &modpb.DescribeRequest{})
	if err != nil {
		return Description{}, plain("describe", err)
	}
	return descriptionFromPB(p), nil
}

// Apply hands the module a whole settings document and answers what is in force.
func (r *Remote) Apply(ctx context.Context, s Settings) (Applied, error) {
	p, err := r.client.Apply(ctx, &modpb.ApplyRequest{Settings: s.Doc, Version: s.Version})
	if err != nil {
		return nil, plain("apply", err)
	}
	return appliedFromPB(p), nil
}

// Invoke calls a direct method. What the module makes of it is in the answer's status: 404 a method that it does
// not have, 500 its failure, 504 its own deadline.
func (r *Remote) Invoke(ctx context.Context, method string, payload json.RawMessage) (Answer, error) {
	p, err := r.client.Invoke(ctx, &modpb.InvokeRequest{Method: method, Payload: payload})
	if err != nil {
		return Answer{}, plain("invoke "+method, err)
	}
	return Answer{Status: int(p.GetStatus()), Payload: p.GetPayload()}, nil
}

// Start is what a Run begins with.
type Start struct {
	Wiring   json.RawMessage // the wiring table, defaults filled in
	Settings Settings        // applied before the module touches hardware
	State    []byte          // the module's last durable state, nil if none
	Inputs   []Input         // each input that is linked, as it stands
}

// Run starts the module and returns once it has answered with the settings in force. The end of ctx ends the run.
func (r *Remote) Run(ctx context.Context, s Start) (*Running, error) {
	stream, err := r.client.Run(ctx)
	if err != nil {
		return nil, plain("run", err)
	}
	start := &modpb.Start{Wiring: s.Wiring, Settings: s.Settings.Doc, Version: s.Settings.Version, State: s.State}
	for _, in := range s.Inputs {
		start.Inputs = append(start.Inputs, inputToPB(in))
	}
	// The reason of a failed Send is told by Recv.
	if err := stream.Send(&modpb.Down{Kind: &modpb.Down_Start{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, plain("run", err)
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, plain("run", err)
	}
	started := first.GetStarted()
	if started == nil {
		return nil, fmt.Errorf("run: the module's first message is %T, expected Started: it speaks another version of the contract", first.GetKind())
	}
	return &Running{Applied: appliedFromPB(started.GetApplied()), stream: stream}, nil
}

// Running is a module at work. Next belongs to one goroutine; the other methods may be called from any.
type Running struct {
	Applied Applied // what is in force of the settings that Start brought

	stream grpc.BidiStreamingClient[modpb.Down, modpb.Up]
	mu     sync.Mutex // a gRPC stream has one sender at a time
}

// Up is what a running module says: [Sent], [Pong], [Health], [Output] or [Reported].
type Up interface{ up() }

// Sent is a message that the module handed over. It waits for Accept or Refuse.
type Sent struct {
	Seq     uint64
	Message Message
}

// Pong answers Ping. Modkit answers it, not the module: a Pong with an overdue call is a module that hangs.
type Pong struct {
	ID      uint64
	Overdue Overdue
}

// Reported is the module's whole document of reported properties that are no settings.
type Reported struct {
	Properties json.RawMessage
}

func (Sent) up()     {}
func (Pong) up()     {}
func (Health) up()   {}
func (Reported) up() {}

// Next waits for what the module says next. io.EOF is a Run that ended as asked; any other error is its failure, or
// the end of the process.
func (r *Running) Next() (Up, error) {
	for {
		p, err := r.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		if err != nil {
			return nil, plain("run", err)
		}
		if up := upFromPB(p); up != nil {
			return up, nil
		}
	}
}

// Accept says that message seq and its state will not be lost any more.
func (r *Running) Accept(seq uint64) error {
	return r.send("accept", &modpb.Down{Kind: &modpb.Down_Accepted{Accepted: &modpb.Accepted{Seq: seq}}})
}

// Refuse says that message seq will never be taken, and why, for a person. An empty reason is one too.
func (r *Running) Refuse(seq uint64, reason string) error {
	if reason == "" {
		reason = "no reason given" // on the wire, empty means accepted
	}
	return r.send("refuse", &modpb.Down{Kind: &modpb.Down_Accepted{Accepted: &modpb.Accepted{Seq: seq, Refused: reason}}})
}

// Input brings a value over a link.
func (r *Running) Input(in Input) error {
	return r.send("input "+in.Name, &modpb.Down{Kind: &modpb.Down_Input{Input: inputToPB(in)}})
}

// Ping asks for a Pong with the same id.
func (r *Running) Ping(id uint64) error {
	return r.send("ping", &modpb.Down{Kind: &modpb.Down_Ping{Ping: &modpb.Ping{Id: id}}})
}

func (r *Running) send(what string, d *modpb.Down) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.stream.Send(d)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", what, ErrEnded) // Next tells why
	}
	if err != nil {
		return plain(what, err)
	}
	return nil
}

// plain turns a gRPC status into an error that reads like one of ours.
func plain(what string, err error) error {
	st, ok := status.FromError(err)
	if !ok {
		return fmt.Errorf("%s: %w", what, err)
	}
	switch st.Code() {
	case codes.Canceled:
		return fmt.Errorf("%s: %w", what, context.Canceled)
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w", what, context.DeadlineExceeded)
	case codes.Unavailable:
		return fmt.Errorf("%s: %w: the module process does not answer: %s", what, ErrEnded, st.Message())
	case codes.ResourceExhausted:
		// What grpc-go says of a message beyond the receiver's bound, or the sender's (rpc_util.go, recvMsg and prepareMsg).
		if strings.Contains(st.Message(), "larger than max") {
			return fmt.Errorf("%s: %w: %s", what, ErrTooLarge, st.Message())
		}
	}
	return fmt.Errorf("%s: %s", what, st.Message())
}
