//go:build !linux

package linux

// On other systems the drivers are there, so that programs build, and each of their wires is hal.ErrUnsupported.
type (
	I2C    struct{ none }
	Serial struct{ none }
	GPIO   struct{ none }
)
