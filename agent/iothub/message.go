package iothub

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// check refuses what the hub would: it would close the connection without a word, and again at each new try. It answers
// the size as the hub counts it: the body, the values of system properties, the names and values of the others.
func (m Message) check() (size int, err error) {
	size = len(m.Body) + len(m.ID) + len("application/json") + len("utf-8") + len("2006-01-02T15:04:05.000Z")
	if err := property("message id", m.ID); err != nil {
		return 0, err
	}
	if len(m.ID) > 128 {
		return 0, fmt.Errorf("%w: message id of %d characters: 128 are allowed", ErrRejected, len(m.ID))
	}
	for name, value := range m.Properties {
		if name == "" {
			return 0, fmt.Errorf("%w: message %s has a property without a name", ErrRejected, m.ID)
		}
		if strings.HasPrefix(name, "$") {
			return 0, fmt.Errorf("%w: property %q: names with $ belong to the hub", ErrRejected, name)
		}
		for _, text := range []string{name, value} {
			if err := property(name, text); err != nil {
				return 0, err
			}
		}
		size += len(name) + len(value)
	}
	if size > MaxMessageSize {
		return 0, fmt.Errorf("%w: message %s of %d bytes: %d are allowed", ErrRejected, m.ID, size, MaxMessageSize)
	}
	return size, nil
}

// property refuses what an MQTT string must not hold (MQTT 5.0, section 1.5.4).
func property(name, text string) error {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return fmt.Errorf("%w: %q holds what is not text in UTF-8", ErrRejected, name)
	}
	return nil
}
