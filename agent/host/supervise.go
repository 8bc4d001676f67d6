package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/twinbay/twinbay/modules/modkit"
)

// What the supervisor waits for.
const (
	pingEvery    = time.Second
	hungAfter    = 3 * time.Second         // without a Pong
	overdueGrace = time.Second             // a wire call ends at its deadline by itself; one that outlives it by this much hangs
	runBudget    = 10 * time.Second        // from Run to Started: the module applies its settings
	endGrace     = 700 * time.Millisecond  // from the end of Run to the end of the process
	stopBudget   = 1250 * time.Millisecond // of a module that is asked to stop
	queue        = 256                     // of events not yet taken; more than the 64 messages that the contract lets a module hand over
)

// Instance is a started module: a [*Process], or in a test something in the same process.
type Instance interface {
	Remote() *modkit.Remote
	Description() modkit.Description
	PID() int
	Limits() []Limit
	Done() <-chan struct{}
	Exit() Exit
	Kill(reason string)
	Stop(ctx context.Context)
}

// Exit says why a module ended.
type Exit struct {
	Reason string // one line: why the agent ended it, or the signal, or the exit status and its last words
	Stack  string // what it wrote beside its log at the end: of a panic the stack; bounded
}

// Event is something that a supervisor tells its component: Ready, Started, Said or Ended, in the order in which they
// happened.
type Event interface{ event() }

// Ready says that a module has described itself and asks what to start it with. An error of the answer is a failed
// start. The order of events makes sure that all the module's predecessor said is known by then. Answer may be called
// once, and never blocks.
type Ready struct {
	Description modkit.Description
	Answer      func(modkit.Start, error)
}

// Started says that the module runs.
type Started struct {
	PID     int
	Remote  *modkit.Remote
	Running *modkit.Running
	Limits  []Limit // in force
	Kill    func(reason string)
}

// Said is what a running module says: a modkit.Sent, modkit.Health or modkit.Reported.
type Said struct {
	Running *modkit.Running
	Up      modkit.Up
}

// Ended says that the module could not be started, or has ended.
type Ended struct {
	Exit        Exit
	Ran         bool      // it had started
	Retry       time.Time // of the next start; zero when it is quarantined
	Asked       bool      // somebody wants it started again: see [Supervisor.Restart]
	Quarantined string    // why it is not started again, "" when it is
}

func (Ready) event()   {}
func (Started) event() {}
func (Said) event()    {}
func (Ended) event()   {}

// Supervisor keeps one module running: it starts it, asks for its heartbeat, kills it when it hangs and starts it again,
// for as long as its Restarts say.
type Supervisor struct {
	start    func(context.Context) (Instance, error)
	log      *slog.Logger
	events   chan Event
	again    chan struct{} // capacity one: somebody wants it started again
	restarts *Restarts
}

// NewSupervisor returns a supervisor of the module that start starts.
func NewSupervisor(start func(context.Context) (Instance, error), restarts *Restarts, log *slog.Logger) *Supervisor {
	return &Supervisor{start: start, log: log, events: make(chan Event, queue), again: make(chan struct{}, 1), restarts: restarts}
}

// Events is where the supervisor tells what happens. It is closed when Run returns. A reader that stops reading stops
// the module.
func (s *Supervisor) Events() <-chan Event { return s.events }

// Run keeps the module running until ctx ends. Then it asks the module to stop, hands on what it still says, and returns
// when nothing is left of it.
func (s *Supervisor) Run(ctx context.Context) {
	defer close(s.events)
	if s.restarts.verdict != "" { // by an earlier supervisor of the same module
		s.tell(ctx, Ended{Exit: s.restarts.last, Ran: true, Quarantined: s.restarts.verdict})
		s.wait(ctx, 0, false)
	}
	for ctx.Err() == nil {
		began := time.Now()
		exit, ran, asked := s.life(ctx)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		if asked {
			s.restarts.forget()
			s.tell(ctx, Ended{Exit: Exit{Reason: "ended to be started again, as somebody asked"}, Ran: ran, Asked: true, Retry: now})
			continue
		}
		delay, again := s.restarts.after(exit, now.Sub(began), now)
		ended := Ended{Exit: exit, Ran: ran, Quarantined: s.restarts.verdict}
		if again {
			ended.Retry = now.Add(delay)
		}
		s.tell(ctx, ended)
		if !again || delay > 0 {
			s.wait(ctx, delay, again)
		}
	}
}

// once is one life of the module.
func (s *Supervisor) once(ctx context.Context) (exit Exit, ran bool) {
	inst, err := s.start(ctx)
	if err != nil {
		return Exit{Reason: err.Error()}, false
	}
	defer func() {
		inst.Kill("") // of no effect unless a panic or an early return left it running
		<-inst.Done()
	}()
	start, err := s.ask(ctx, inst.Description())
	if err != nil {
		s.stop(inst)
		return Exit{Reason: err.Error()}, false
	}
	running, err := s.run(ctx, inst, start)
	if err != nil {
		return s.ended(inst, err), false
	}
	s.tell(ctx, Started{PID: inst.PID(), Remote: inst.Remote(), Running: running, Limits: inst.Limits(), Kill: inst.Kill})
	err = s.listen(ctx, inst, running)
	return s.ended(inst, err), true
}

// ask has the component say what to start the module with.
func (s *Supervisor) ask(ctx context.Context, d modkit.Description) (modkit.Start, error) {
	type answer struct {
		start modkit.Start
		err   error
	}
	answers := make(chan answer, 1)
	s.tell(ctx, Ready{Description: d, Answer: func(start modkit.Start, err error) { answers <- answer{start, err} }})
	select {
	case a := <-answers:
		return a.start, a.err
	case <-ctx.Done():
		return modkit.Start{}, ctx.Err()
	}
}

// run starts the module's work. The stream has a context of its own: at the end of ctx the module is asked to stop and
// may still say something.
func (s *Supervisor) run(ctx context.Context, inst Instance, start modkit.Start) (*modkit.Running, error) {
	late := time.AfterFunc(runBudget, func() {
		inst.Kill(fmt.Sprintf("it did not apply its settings within %v", runBudget))
	})
	defer late.Stop()
	defer context.AfterFunc(ctx, func() { inst.Kill("") })()
	return inst.Remote().Run(context.WithoutCancel(ctx), start)
}

// listen hands on what the module says until its stream ends.
func (s *Supervisor) listen(ctx context.Context, inst Instance, running *modkit.Running) error {
	defer context.AfterFunc(ctx, func() { s.stop(inst) })()
	hung := time.AfterFunc(hungAfter, func() { inst.Kill(fmt.Sprintf("hung: no heartbeat for %v", hungAfter)) })
	defer hung.Stop()

	var wg sync.WaitGroup
	defer wg.Wait()
	over := make(chan struct{})
	defer close(over)
	wg.Go(func() { ping(running, over) })

	for {
		up, err := running.Next()
		if err != nil {
			return err
		}
		if pong, ok := up.(modkit.Pong); ok {
			hung.Reset(hungAfter)
			if pong.Overdue.Call != "" && pong.Overdue.By >= overdueGrace {
				inst.Kill(fmt.Sprintf("hung: %s is %v beyond its deadline", pong.Overdue.Call, pong.Overdue.By.Round(100*time.Millisecond)))
			}
			continue
		}
		select {
		case s.events <- Said{Running: running, Up: up}:
		default:
			// Waiting here would keep the heartbeat from being heard.
			inst.Kill(fmt.Sprintf("it said %d things before the agent could hear the first", queue))
		}
	}
}

// ping asks for a heartbeat until over is closed or the stream has ended. It may block in a stream that nobody reads;
// the missing Pong then ends the module, and that ends the stream.
func ping(running *modkit.Running, over <-chan struct{}) {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	for id := uint64(1); ; id++ {
		if running.Ping(id) != nil {
			return
		}
		select {
		case <-t.C:
		case <-over:
			return
		}
	}
}

// ended waits for the end of a module whose stream has ended, and says why it did.
func (s *Supervisor) ended(inst Instance, err error) Exit {
	select {
	case <-inst.Done():
	case <-time.After(endGrace): // a process that fails by itself tells more than one that was killed
		switch {
		case errors.Is(err, io.EOF):
			inst.Kill("its run ended without being asked to")
		case errors.Is(err, modkit.ErrTooLarge):
			inst.Kill(fmt.Sprintf("it said more at once than the %d MiB that are heard: %v; this is a bug of the module", modkit.MaxSaid>>20, err))
		default:
			inst.Kill(err.Error())
		}
		<-inst.Done()
	}
	return inst.Exit()
}

func (s *Supervisor) stop(inst Instance) {
	ctx, cancel := context.WithTimeout(context.Background(), stopBudget)
	defer cancel()
	inst.Stop(ctx)
}

// tell waits until the component can hear, or is gone.
func (s *Supervisor) tell(ctx context.Context, e Event) {
	select {
	case s.events <- e:
	case <-ctx.Done():
	}
}
