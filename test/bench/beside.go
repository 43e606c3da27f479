package bench

import "fmt"

// Beside adds what changes cost beside ever more hosts. Slack is 1 on an idle machine; times may be so many times as
// long as their bars where it is more.
func (t *Table) Beside(rows []Beside, slack float64) {
	for _, b := range rows {
		what := fmt.Sprintf("one change, %d hosts: wait=live, p50", b.Hosts)
		live, seen, floor := Pct(b.Live, .5), Pct(b.Seen, .5), Pct(b.Floor, .5)
		most := 1.5
		if b.Hosts >= 100000 {
			most = 1.8
		}
		t.Bar(what, fmt.Sprintf("≤ %.1f × floor", most), live <= slack*most*floor,
			"%.1f ms, %.2f × the floor's %.1f (a request sees it: %.1f)", live, live/floor, floor, seen)
		t.Bar(fmt.Sprintf("one change, %d hosts: wait=live, p99", b.Hosts), "< 50 ms", Pct(b.Live, .99) < slack*50,
			"%.1f ms (floor %.1f; a request sees it: %.1f)", Pct(b.Live, .99), Pct(b.Floor, .99), Pct(b.Seen, .99))
		what = fmt.Sprintf("CPU a change, %d hosts: api + xds", b.Hosts)
		figure := fmt.Sprintf("%.2f ms: api %.2f, xds %.2f (Envoy %.2f, the floor's %.2f)", b.API+b.XDS, b.API, b.XDS,
			b.Envoy, b.FloorEnvoy)
		if b.Hosts >= 10000 || slack > 1 {
			t.Bar(what, "≤ 2 ms", b.API+b.XDS <= slack*2, "%s", figure)
		} else {
			t.Note(what, "%s", figure)
		}
		t.Note(fmt.Sprintf("made for a change, %d hosts", b.Hosts), "api %.0f KB, xds %.0f KB; garbage collected %.0f and "+
			"%.0f times in %d changes", b.Garbage[0], b.Garbage[1], b.Collections[0], b.Collections[1], len(b.Live))
	}
	if len(rows) < 2 {
		return
	}
	few, last, before := rows[0], rows[len(rows)-1], rows[len(rows)-2]
	add := func(b Beside) float64 { return Pct(b.Live, .5) - Pct(b.Floor, .5) }
	t.Bar(fmt.Sprintf("what is added to the floor, %d hosts to %d", last.Hosts,
		few.Hosts), "≤ 1.3 ×", add(last) <= 1.3*max(add(few), 0)+(slack-1)*10,
		"%.2f ×: %.1f and %.1f ms", add(last)/add(few), add(last), add(few))
	t.Bar(fmt.Sprintf("CPU a change, %d hosts to %d", last.Hosts, before.Hosts), "within 20 %", last.API+
		last.XDS <= slack*1.2*(before.API+before.XDS),
		"%.2f ×", (last.API+last.XDS)/(before.API+before.XDS))
}
