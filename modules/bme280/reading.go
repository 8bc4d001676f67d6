package bme280

import (
	"fmt"
	"math"

	"periph.io/x/conn/v3/physic"
)

// Units that a reading has until it is encoded.
type (
	// Celsius is a temperature in °C.
	Celsius float64
	// Percent is a relative humidity in %.
	Percent float64
	// Hectopascal is a pressure in hPa.
	Hectopascal float64
)

// reading is one measurement of all three quantities.
type reading struct {
	temperature Celsius
	humidity    Percent
	pressure    Hectopascal
}

// body is a reading as telemetry.
type body struct {
	Temperature float64  `json:"temperature_c"`
	Humidity    float64  `json:"humidity_pct"`
	Pressure    float64  `json:"pressure_hpa"`
	DewPoint    *float64 `json:"dew_point_c,omitempty"` // none in air without any water
}

func (r reading) body() body {
	b := body{Temperature: round(r.temperature), Humidity: round(r.humidity), Pressure: round(r.pressure)}
	if d, ok := dewPoint(r.temperature, r.humidity); ok {
		v := round(d)
		b.DewPoint = &v
	}
	return b
}

// round keeps a hundredth: the chip resolves 0.01 °C, 0.008 % and 0.18 Pa, and is far less accurate.
func round[T ~float64](v T) float64 {
	return math.Round(float64(v)*100) / 100
}

func fromEnv(e physic.Env) reading {
	return reading{
		temperature: Celsius(e.Temperature.Celsius()),
		humidity:    Percent(float64(e.Humidity) / float64(physic.PercentRH)),
		pressure:    Hectopascal(float64(e.Pressure) / float64(100*physic.Pascal)),
	}
}

// What the chip can measure: DS002, table 1 (pressure and temperature) and table 2 (humidity). A chip that has lost
// its calibration answers -144 to -150 °C, 600 to 720 hPa and 100 %.
func (r reading) check() error {
	switch {
	case math.IsNaN(float64(r.temperature)) || r.temperature < -40 || r.temperature > 85:
		return &implausibleError{fmt.Sprintf("%.2f °C, outside -40 to 85", r.temperature)}
	case math.IsNaN(float64(r.pressure)) || r.pressure < 300 || r.pressure > 1100:
		return &implausibleError{fmt.Sprintf("%.2f hPa, outside 300 to 1100", r.pressure)}
	case math.IsNaN(float64(r.humidity)) || r.humidity < 0 || r.humidity > 100:
		return &implausibleError{fmt.Sprintf("%.2f %%rH, outside 0 to 100", r.humidity)}
	}
	return nil
}

// jumped is whether r is further from last than air gets between two readings: a second look tells a glitch from an
// open door.
func (r reading) jumped(last reading) bool {
	return math.Abs(float64(r.temperature-last.temperature)) > 5 || math.Abs(float64(r.pressure-last.pressure)) > 20
}

// near is whether two readings taken one after the other agree.
func (r reading) near(o reading) bool {
	return math.Abs(float64(r.temperature-o.temperature)) <= 2 && math.Abs(float64(r.pressure-o.pressure)) <= 5
}

// implausibleError is a reading that cannot be.
type implausibleError struct{ what string }

func (e *implausibleError) Error() string { return "the chip says " + e.what }

// dewPoint is the Magnus formula over water, -45 to 60 °C within 0.35 °C: D. Sonntag, Zeitschrift für Meteorologie
// 70 (1990) 5, with a = 17.62 and b = 243.12 °C.
func dewPoint(t Celsius, h Percent) (Celsius, bool) {
	if h <= 0 {
		return 0, false
	}
	const a, b = 17.62, 243.12
	g := math.Log(float64(h)/100) + a*float64(t)/(b+float64(t))
	return Celsius(b * g / (a - g)), true
}
