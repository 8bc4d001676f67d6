package hal

import "errors"

// Errors that a caller branches on. Drivers wrap them, with who, what and where; errors.Is finds them.
var (
	ErrAbsent      = errors.New("nothing answers at this address") // I²C: no acknowledge
	ErrTimeout     = errors.New("the wire did not answer in time") // a bus or a line held by somebody
	ErrArbitration = errors.New("another master took the bus")     // I²C: try again
	ErrGone        = errors.New("the device is gone")              // unplugged: close, and open again later
	ErrBusy        = errors.New("the wire is in use by another")   // owned by another process or kernel driver
	ErrUnsupported = errors.New("this wire cannot do that")        // or there is no such kind of wire here
	ErrDenied      = errors.New("no permission to open the wire")  // groups i2c, gpio, dialout
	ErrClosed      = errors.New("the wire is closed")              // by this process
	ErrBadURI      = errors.New("not the URI of a wire")
)
