package admin_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/twinbay/twinbay/simulator/admin"
)

func TestFaults(t *testing.T) {
	_, c := serve(t)
	ctx := t.Context()
	for _, f := range []admin.Fault{
		{On: "publish", Who: "d/*", Do: "drop", P: 0.5, For: "1h0m0s"},
		{ID: "slow", On: "report", Do: "delay", Delay: "1s", After: 2, Times: 3},
		{On: "connect", Do: "refuse", Connack: 3},
		{On: "connect", Do: "refuse", Connack: 136},
	} {
		if err := c.AddFault(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.AddFault(ctx, admin.Fault{On: "connect", Do: "refuse", Connack: 6}); err == nil || !strings.Contains(err.Error(), "connack") {
		t.Errorf("a code that there is not: %v", err)
	}
	if err := c.AddFault(ctx, admin.Fault{On: "tea", Do: "drop"}); err == nil || !strings.Contains(err.Error(), "tea") {
		t.Errorf("an event that there is not: %v", err)
	}
	want := []admin.FaultState{
		{Fault: admin.Fault{ID: "1", On: "publish", Who: "d/*", Do: "drop", P: 0.5, For: "1h0m0s"}},
		{Fault: admin.Fault{ID: "slow", On: "report", Do: "delay", Delay: "1s", After: 2, Times: 3}},
		{Fault: admin.Fault{ID: "2", On: "connect", Do: "refuse", Connack: 3}},
		{Fault: admin.Fault{ID: "3", On: "connect", Do: "refuse", Connack: 136}},
	}
	got, err := c.Faults(ctx)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	if err := c.ClearFaults(ctx, "slow"); err != nil {
		t.Error(err)
	}
	if err := c.ClearFaults(ctx, "slow"); err == nil || !strings.Contains(err.Error(), "no fault rule slow") {
		t.Errorf("a rule that is gone: %v", err)
	}
	if err := c.ClearFaults(ctx, ""); err != nil {
		t.Error(err)
	}
	if got, err := c.Faults(ctx); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v after clearing", got, err)
	}
}
