package exposition_test

import (
	"math"
	"testing"

	"github.com/twinbay/twinbay/agent/exposition"
	"github.com/twinbay/twinbay/agent/exposition/expositiontest"
)

func TestText(t *testing.T) {
	var x exposition.Text
	x.Family("a_total", exposition.Counter, "What is\ncounted, with a \\.")
	x.Add(3)
	x.Add(1<<40, "component", `say "hi"`, "reason", "a\\b\nc")
	x.Family("nothing", exposition.Gauge, "A metric without samples is left out.")
	x.Family("b_seconds", exposition.Gauge, "Seconds.")
	x.Add(-0.25)
	x.Family("c_seconds", exposition.Histogram, "How long.")
	x.AddHistogram([]exposition.Bucket{{Le: 0.001, Count: 1}, {Le: 0.5, Count: 3}}, 1.5, 4, "disk", "sd")
	x.Family("d", exposition.Gauge, "Odd values.")
	x.Add(math.NaN(), "v", "nan")
	x.Add(math.Inf(-1), "v", "inf\xff")
	const want = `# HELP a_total What is\ncounted, with a \\.
# TYPE a_total counter
a_total 3
a_total{component="say \"hi\"",reason="a\\b\nc"} 1099511627776
# HELP b_seconds Seconds.
# TYPE b_seconds gauge
b_seconds -0.25
# HELP c_seconds How long.
# TYPE c_seconds histogram
c_seconds_bucket{disk="sd",le="0.001"} 1
c_seconds_bucket{disk="sd",le="0.5"} 3
c_seconds_bucket{disk="sd",le="+Inf"} 4
c_seconds_sum{disk="sd"} 1.5
c_seconds_count{disk="sd"} 4
# HELP d Odd values.
# TYPE d gauge
d{v="nan"} NaN
d{v="inf` + "\ufffd" + `"} -Inf
`
	if got := string(x.Bytes()); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	families, err := expositiontest.Parse(x.Bytes())
	if err != nil || len(families) != 4 {
		t.Fatalf("%d families, %v", len(families), err)
	}
	if v, ok := families["a_total"].Value("reason", "a\\b\nc", "component", `say "hi"`); !ok || v != 1<<40 {
		t.Errorf("read back: %v, %v", v, ok)
	}
}

func TestStrict(t *testing.T) {
	const head = "# HELP a A.\n# TYPE a gauge\n"
	for _, text := range []string{
		"a 1\n", "# TYPE a gauge\na 1\n", "# HELP a A.\na 1\n", head, head + "a 1", head + "b 1\n", head + "a 1\na 1\n", head + "a{b=\"c\"} 1\na{b=\"c\"} 2\n",
		head + "a  1\n", head + "a 0x1\n", head + "a one\n", head + "a 1 1700000000000\n", head + "a{b=\"c} 1\n", head + "a{b=\"\\t\"} 1\n", head + "a{b=\"c\",b=\"d\"} 1\n",
		head + "a{0=\"c\"} 1\n", head + "a{b=\"c\" 1\n", head + "a 1\n" + head + "a{b=\"c\"} 1\n", head + "\n", "# HELP a_total A.\n# TYPE a_total gauge\na_total 1\n",
		"# HELP a A.\n# TYPE a counter\na 1\n", "# HELP a_total A.\n# TYPE a_total counter\na_total -1\n",
		"# HELP a A.\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
		"# HELP a A.\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n",
		"# HELP a A.\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 2\n",
	} {
		if families, err := expositiontest.Parse([]byte(text)); err == nil {
			t.Errorf("%q is taken as %v", text, families)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("help", "value", 1.5)
	f.Add("a\n# TYPE x counter", "\"} 1\nb 2\n", math.Inf(1))
	f.Fuzz(func(t *testing.T, help, value string, v float64) {
		var x exposition.Text
		x.Family("a", exposition.Gauge, "A "+help)
		x.Add(v, "l", value)
		families, err := expositiontest.Parse(x.Bytes())
		if err != nil || len(families) != 1 || len(families["a"].Samples) != 1 {
			t.Errorf("%q: %v, %v", x.Bytes(), families, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("# HELP a A.\n# TYPE a gauge\na{b=\"c\"} 1\n"))
	f.Add([]byte("# HELP a A.\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		families, err := expositiontest.Parse(text)
		if err != nil {
			return
		}
		for name, f := range families {
			if name != f.Name || len(f.Samples) == 0 {
				t.Errorf("%q: %+v", text, f)
			}
		}
	})
}
