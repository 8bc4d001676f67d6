package modkit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbay/twinbay/modules/modkit"
	"github.com/twinbay/twinbay/modules/modtest"
)

func TestValueTypes(t *testing.T) {
	for _, row := range []struct {
		kind  modkit.ValueType
		value string
		want  bool
	}{
		{modkit.Boolean, "true", true}, {modkit.Boolean, " false\n", true}, {modkit.Boolean, "null", false}, {modkit.Boolean, "1", false},
		{modkit.Boolean, "tru", false}, {modkit.Boolean, "", false}, {modkit.Boolean, " ", false},
		{modkit.Number, "-1.5e3", true}, {modkit.Number, "0", true}, {modkit.Number, `"0"`, false}, {modkit.Number, "01", false},
		{modkit.Text, `"a"`, true}, {modkit.Text, "\"\xff\"", false}, {modkit.Text, "[]", false},
		{modkit.Text, `"` + strings.Repeat("a", modkit.MaxValue) + `"`, false},
		{"object", "{}", false},
	} {
		if got := row.kind.Holds(json.RawMessage(row.value)); got != row.want {
			t.Errorf("%s holds %.20q: %v, want %v", row.kind, row.value, got, row.want)
		}
	}
}

func TestLinkedInputsAreThereAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(chan []modkit.Input, 1)
		m := &plain{run: func(ctx context.Context, b *modkit.Bay) error {
			got <- b.Linked
			<-ctx.Done()
			return nil
		}}
		at := time.Now().Add(-time.Minute)
		want := []modkit.Input{
			{Name: "door", Value: json.RawMessage("true"), At: at, Quality: modkit.Good},
			{Name: "lamp", At: at, Reason: "lamp has no module"},
		}
		modtest.Run(t, m, modtest.Config{Linked: want})
		have := <-got
		if len(have) != 2 || !have[0].At.Equal(at) || string(have[0].Value) != "true" || have[0].Quality != modkit.Good ||
			have[1].Quality != modkit.Unknown || have[1].Value != nil || have[1].Reason != "lamp has no module" {
			t.Errorf("linked %+v, want %+v", have, want)
		}
	})
}

func TestOutputsSayTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &plain{run: func(ctx context.Context, b *modkit.Bay) error {
			for i := range 1000 {
				b.Output(modkit.Output{Name: "level", Value: json.RawMessage(fmt.Sprint(i)), Quality: modkit.Good, ValidFor: 1500 * time.Millisecond})
			}
			b.Output(modkit.Output{Name: "lamp", Reason: "it is dark"})
			<-ctx.Done()
			return nil
		}}
		b := modtest.Run(t, m, modtest.Config{})
		o := b.WaitOutput("level", func(o modkit.Output) bool { return string(o.Value) == "999" })
		if o.Quality != modkit.Good || o.ValidFor != 1500*time.Millisecond || !o.At.Equal(time.Now()) {
			t.Errorf("output %+v", o)
		}
		o = b.WaitOutput("lamp", func(modkit.Output) bool { return true })
		if o.Quality != modkit.Unknown || o.Reason != "it is dark" || o.Value != nil {
			t.Errorf("output %+v", o)
		}
	})
}

func FuzzValueTypes(f *testing.F) {
	for _, seed := range []string{"true", "-1", `"x"`, "", " ", "{", "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		var v any
		n := 0
		for _, kind := range []modkit.ValueType{modkit.Boolean, modkit.Number, modkit.Text} {
			if kind.Holds(value) {
				n++
				if err := json.Unmarshal(value, &v); err != nil && kind != modkit.Number { // 1e999 is JSON, and no float64
					t.Errorf("%s holds %q: %v", kind, value, err)
				}
			}
		}
		if n > 1 {
			t.Errorf("%q is of %d types", value, n)
		}
	})
}
