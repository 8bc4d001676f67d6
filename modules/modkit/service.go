package modkit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/twinbay/twinbay/hal"
	"github.com/twinbay/twinbay/modules/modkit/internal/modpb"
)

// drain is how long the end of a Run waits for an agent that reads slowly to take the last messages.
const drain = time.Second

// Service is a module behind gRPC. [Serve] makes one; so do tests, which need no process.
type Service struct {
	modpb.UnimplementedModuleServer

	module  Module
	drivers map[string]hal.Driver
	log     *slog.Logger
	ended   func(error) // told how each Run ended

	mu      sync.Mutex
	running chan struct{} // closed when the Run that is on has ended; nil when none is on
	cancel  context.CancelFunc
	stopped bool
}

// NewService puts m behind gRPC. ended, which may be nil, is told of the end of each Run with the module's error.
func NewService(m Module, drivers map[string]hal.Driver, log *slog.Logger, ended func(error)) *Service {
	if ended == nil {
		ended = func(error) {}
	}
	return &Service{module: m, drivers: drivers, log: log, ended: ended}
}

// Register adds the service to a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	modpb.RegisterModuleServer(r, s)
}

// Stop ends the Run that is on, refuses another one, and waits for the module to put its hardware down, or for ctx.
func (s *Service) Stop(ctx context.Context) {
	s.mu.Lock()
	s.stopped = true
	running, cancel := s.running, s.cancel
	s.mu.Unlock()
	if running == nil {
		return
	}
	cancel()
	select {
	case <-running:
	case <-ctx.Done():
	}
}

// Describe answers the agent; see [Module].
func (s *Service) Describe(context.Context, *modpb.DescribeRequest) (*modpb.Description, error) {
	return descriptionToPB(s.module.Describe()), nil
}

// Apply answers the agent; see [Module].
func (s *Service) Apply(ctx context.Context, r *modpb.ApplyRequest) (*modpb.ApplyResponse, error) {
	applied, err := s.module.Apply(ctx, Settings{Doc: r.GetSettings(), Version: r.GetVersion()})
	if err != nil {
		return nil, err
	}
	return appliedToPB(applied), nil
}

// Invoke answers the agent; see [Module]. A module's error becomes a status of the method, not of the call: an error
// of the call means that the process did not answer.
func (s *Service) Invoke(ctx context.Context, r *modpb.InvokeRequest) (*modpb.InvokeResponse, error) {
	a, err := s.module.Invoke(ctx, r.GetMethod(), r.GetPayload())
	switch {
	case err == nil:
		return &modpb.InvokeResponse{Status: int32(a.Status), Payload: a.Payload}, nil
	case errors.Is(err, ErrNoMethod):
		return failure(404, fmt.Errorf("%s: %w", r.GetMethod(), err)), nil
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err() // the agent knows the deadline, and says so better
	case errors.Is(err, context.DeadlineExceeded):
		return failure(504, err), nil
	}
	return failure(500, err), nil
}

func failure(code int32, err error) *modpb.InvokeResponse {
	payload, _ := json.Marshal(map[string]string{"error": err.Error()}) // a map of strings always has a JSON form
	return &modpb.InvokeResponse{Status: code, Payload: payload}
}

// Run answers the agent; see [Module].
func (s *Service) Run(stream grpc.BidiStreamingServer[modpb.Down, modpb.Up]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	ended := make(chan struct{})
	if err := s.begin(ended, cancel); err != nil {
		return err
	}
	start, err := s.start(ctx, stream)
	if err != nil {
		s.finish(ended)
		return err
	}
	err = s.run(ctx, cancel, stream, start)
	s.finish(ended)
	s.ended(err) // last, so that whoever hears of it may start the next Run
	return err
}

// begin takes the module for one Run: there is one piece of hardware.
func (s *Service) begin(ended chan struct{}, cancel context.CancelFunc) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopped:
		return status.Error(codes.Unavailable, "the module is stopping")
	case s.running != nil:
		return status.Error(codes.FailedPrecondition, "the module runs already: end that Run first")
	}
	s.running, s.cancel = ended, cancel
	return nil
}

func (s *Service) finish(ended chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.cancel = nil, nil
	close(ended)
}

// start takes the first message down, applies its settings and answers Started.
func (s *Service) start(ctx context.Context, stream grpc.BidiStreamingServer[modpb.Down, modpb.Up]) (*modpb.Start, error) {
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	start := first.GetStart()
	if start == nil {
		return nil, status.Errorf(codes.InvalidArgument, "the first message down is %T, expected Start", first.GetKind())
	}
	applied, err := s.module.Apply(ctx, Settings{Doc: start.GetSettings(), Version: start.GetVersion()})
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "apply the settings of Start: %v", err)
	}
	started := &modpb.Started{Applied: appliedToPB(applied)}
	return start, stream.Send(&modpb.Up{Kind: &modpb.Up_Started{Started: started}})
}

// run is the module's Run with its reader, its writer and its inputs around it; none of them outlives it.
func (s *Service) run(ctx context.Context, cancel context.CancelFunc, stream grpc.BidiStreamingServer[modpb.Down, modpb.Up], start *modpb.Start) error {
	up, in := newLink(), newInputs()
	bay := &Bay{
		Wires: &hal.Wires{Drivers: s.drivers}, Wiring: start.GetWiring(),
		Inputs: in.out, Log: s.log, link: up,
	}
	if len(start.GetState()) > 0 {
		bay.State = start.GetState()
	}
	for _, i := range start.GetInputs() {
		bay.Linked = append(bay.Linked, inputFromPB(i))
	}
	quit, written := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(written)
		if err := up.write(stream.Send, quit); err != nil {
			cancel()
		}
	}()
	go func() {
		defer cancel()
		read(stream, up, in, bay.Wires)
	}()
	var feeding sync.WaitGroup
	feeding.Go(func() { in.run(ctx) })

	err := s.module.Run(ctx, bay)

	cancel()
	feeding.Wait()
	close(quit)
	select {
	case <-written:
	case <-stream.Context().Done():
	case <-time.After(drain):
	}
	up.end()
	return err
}

// read takes what comes down until the stream ends. It never waits for the module.
func read(stream grpc.BidiStreamingServer[modpb.Down, modpb.Up], up *link, in *inputs, wires *hal.Wires) {
	for {
		down, err := stream.Recv()
		if err != nil {
			return
		}
		switch k := down.GetKind().(type) {
		case *modpb.Down_Accepted:
			up.accepted(k.Accepted)
		case *modpb.Down_Input:
			in.put(inputFromPB(k.Input))
		case *modpb.Down_Ping:
			call, by := wires.Overdue(time.Now())
			up.pong(&modpb.Pong{Id: k.Ping.GetId(), OverdueCall: call, OverdueByMs: by.Milliseconds()})
		}
	}
}
