package main

import (
	"fmt"
	"strings"
)

// creation is what an identity is made with, beyond its ids.
type creation struct {
	thumbprints []string
	authority   bool
	edge        bool
}

// body is the identity as the service API takes it. Thumbprints may have the colons that openssl puts there.
func (c *creation) body() (map[string]any, error) {
	body := map[string]any{}
	if c.edge {
		body["capabilities"] = map[string]any{"iotEdge": true}
	}
	switch n := len(c.thumbprints); {
	case n > 2:
		return nil, fmt.Errorf("%d thumbprints: an identity has two; %w", n, errUsage)
	case n > 0 && c.authority:
		return nil, fmt.Errorf("--thumbprint and --x509-ca: an identity proves itself by the one or the other; %w", errUsage)
	case c.authority:
		body["authentication"] = map[string]any{"type": "certificateAuthority"}
	case n > 0:
		prints := map[string]any{}
		for i, name := range []string{"primaryThumbprint", "secondaryThumbprint"}[:n] {
			prints[name] = strings.ReplaceAll(c.thumbprints[i], ":", "")
		}
		body["authentication"] = map[string]any{"type": "selfSigned", "x509Thumbprint": prints}
	}
	return body, nil
}
