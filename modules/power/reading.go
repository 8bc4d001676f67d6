package power

import (
	"fmt"
	"math"

	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/ina219"
)

// Units that a reading has until it is encoded.
type (
	// Volt is a voltage in V.
	Volt float64
	// Ampere is a current in A; negative when it flows back.
	Ampere float64
	// Watt is a power in W.
	Watt float64
)

// reading is one measurement.
type reading struct {
	voltage Volt
	current Ampere
	power   Watt
}

// body is a reading as telemetry.
type body struct {
	Voltage float64 `json:"voltage_v"`
	Current float64 `json:"current_a"`
	Power   float64 `json:"power_w"`
}

func (r reading) body() body {
	return body{round(r.voltage), round(r.current), round(r.power)}
}

// round keeps a thousandth: the chip resolves 4 mV and 10 µV at the shunt.
func round[T ~float64](v T) float64 { return math.Round(float64(v)*1000) / 1000 }

func fromMonitor(pm ina219.PowerMonitor) reading {
	return reading{
		voltage: Volt(float64(pm.Voltage) / float64(physic.Volt)),
		current: Ampere(float64(pm.Current) / float64(physic.Ampere)),
		power:   Watt(float64(pm.Power) / float64(physic.Watt)),
	}
}

const (
	mostVolts = 26.0  // SBOS448G, section 7.3
	mostShunt = 0.319 // V, just below the end of the widest range: section 8.6.2.1, PG
)

// check refuses a reading that cannot be. The chip multiplies by itself: its own current and power must be those of the
// shunt's voltage and of the bus's.
func check(pm ina219.PowerMonitor, s settings) error {
	r := fromMonitor(pm)
	shunt := float64(pm.Shunt) / float64(physic.Volt)
	if math.Abs(shunt) >= mostShunt {
		return errOverload
	}
	if r.voltage < 0 || r.voltage > mostVolts {
		return &implausibleError{fmt.Sprintf("%.2f V, outside 0 to %g", r.voltage, mostVolts)}
	}
	byShunt := shunt / (s.ShuntMOhm / 1000)
	if math.Abs(float64(r.current)-byShunt) > 0.02*math.Abs(byShunt)+0.002*s.MaxA {
		return &implausibleError{fmt.Sprintf("%.3f A, and %.2f mV at the shunt, which are %.3f A", r.current, shunt*1000, byShunt)}
	}
	product := math.Abs(float64(r.voltage) * float64(r.current))
	if math.Abs(float64(r.power)-product) > 0.02*product+0.01*s.MaxA {
		return &implausibleError{fmt.Sprintf("%.3f W of %.2f V and %.3f A", r.power, r.voltage, r.current)}
	}
	return nil
}

// implausibleError is a reading that cannot be.
type implausibleError struct{ what string }

func (e *implausibleError) Error() string { return "the chip says " + e.what }
