package cctalk

import "fmt"

// errorNames are the event codes of header 229, part 3, table 2. Makes differ in the less common ones (Money Controls
// uses 23 for a coin that reached the credit sensor too early): the raw code is always told too.
var errorNames = map[byte]string{
	1: "reject coin", 2: "inhibited coin", 3: "multiple window", 4: "wake-up timeout", 5: "validation timeout",
	6: "credit sensor timeout", 7: "sorter opto timeout", 8: "second close coin", 9: "accept gate not ready",
	10: "credit sensor not ready", 11: "sorter not ready", 12: "reject coin not cleared", 13: "validation sensor not ready",
	14: "credit sensor blocked", 15: "sorter opto blocked", 16: "credit sequence error", 17: "coin going backwards",
	18: "coin too fast", 19: "coin too slow", 20: "coin-on-string mechanism activated", 21: "dce opto timeout",
	22: "dce opto not seen", 23: "credit sensor reached too early", 24: "reject coin, repeated sequential trip",
	25: "reject slug", 26: "reject sensor blocked", 27: "games overload", 28: "max coin meter pulses exceeded",
	254: "coin return lever", 255: "unspecified alarm",
}

func errorName(code byte) string {
	if code >= 128 && code <= 159 {
		return fmt.Sprintf("inhibited coin %d", code-127)
	}
	if name, ok := errorNames[code]; ok {
		return name
	}
	return fmt.Sprintf("code %d", code)
}

// alarming is whether somebody may be at work on the machine: a coin on a string, a coin that goes back.
func alarming(code byte) bool { return code == 17 || code == 20 }

// faultNames are the answers of header 232, part 3, table 3, as far as makes agree.
var faultNames = map[byte]string{
	1: "EEPROM checksum", 2: "inductive coils", 3: "credit sensor", 4: "piezo sensor", 5: "reflective sensor",
	6: "diameter sensor", 7: "wake-up sensor", 8: "sorter exit sensors", 9: "NVRAM checksum", 21: "keypad",
	22: "thermistor", 30: "ROM checksum", 34: "temperature outside limits",
}

func faultName(code byte) string {
	switch name, ok := faultNames[code]; {
	case code == 0:
		return "none"
	case ok:
		return name
	}
	return fmt.Sprintf("code %d", code)
}
