package host

// Limits bound what a module, with all that it starts, may use of the device. 0 is no limit.
type Limits struct {
	Memory int64 // bytes
	Tasks  int   // processes and threads
	CPU    int   // per cent of one processor; 200 is two
	Files  int   // open at once, of each process
}

// Names of limits.
const (
	LimitMemory = "memory"
	LimitTasks  = "tasks"
	LimitCPU    = "cpu"
	LimitFiles  = "files"
)

// Means by which a limit is in force.
const (
	ByCgroup = "cgroup" // the kernel counts the module with all that it starts
	ByRlimit = "rlimit" // the kernel counts each process for itself
	ByAgent  = "agent"  // the agent looks once a second at the module's own process
)

// Limit is one limit of a running module as it is in force.
type Limit struct {
	Of    string
	Value int64  // bytes of memory, a number of tasks or files, per cent of one processor
	By    string // "" when it is not in force
	Note  string // why not, and what to do
}
