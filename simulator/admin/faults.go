package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// Fault is a fault rule of a simulated hub: what goes wrong, for whom, and how often. The simulator's package hub says
// what each of On and Do means. Delay and For are durations like 250ms.
type Fault struct {
	ID    string  `json:"id,omitempty"` // "" gets a number
	On    string  `json:"on"`
	Who   string  `json:"who,omitempty"` // "device" or "device/module" with *; "" means everybody
	After int     `json:"after,omitempty"`
	Times int     `json:"times,omitempty"`       // 0 means always
	P     float64 `json:"probability,omitempty"` // 0 means 1
	Do    string  `json:"do"`
	Delay string  `json:"delay,omitempty"`
	For   string  `json:"for,omitempty"`

	Connack int `json:"connack,omitempty"` // with connect and refuse: CONNACK code 1 to 5 of MQTT 3.1.1, 128 or more of MQTT 5
}

// FaultState is a rule in force and what it has seen.
type FaultState struct {
	Fault
	Passed int `json:"passed"`
	Acted  int `json:"acted"`
}

const faultPath = "/_sim/faults"

// AddFault adds a rule behind those that are there.
func (c *Client) AddFault(ctx context.Context, f Fault) error {
	_, err := c.call(ctx, request{method: http.MethodPost, path: faultPath, body: f})
	return simulatedOnly("add a fault rule", err)
}

// Faults lists the rules in force.
func (c *Client) Faults(ctx context.Context) ([]FaultState, error) {
	answer, err := c.call(ctx, request{method: http.MethodGet, path: faultPath})
	if err != nil {
		return nil, simulatedOnly("list fault rules", err)
	}
	var all []FaultState
	if err := json.Unmarshal(answer, &all); err != nil {
		return nil, fmt.Errorf("admin: list fault rules: %w", err)
	}
	return all, nil
}

// ClearFaults removes the rule of this name, or all rules with "".
func (c *Client) ClearFaults(ctx context.Context, id string) error {
	path := faultPath
	if id != "" {
		path += "/" + url.PathEscape(id)
	}
	_, err := c.call(ctx, request{method: http.MethodDelete, path: path})
	return simulatedOnly("clear fault rules", err)
}

// simulatedOnly explains the answer of a hub in the cloud.
func simulatedOnly(what string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Code != "ArgumentInvalid" && e.Code != "FaultNotFound" {
		return fmt.Errorf("admin: %s: %w; only a simulated hub has fault rules, for the policy iothubowner", what, err)
	}
	if err != nil {
		return fmt.Errorf("admin: %s: %w", what, err)
	}
	return nil
}
