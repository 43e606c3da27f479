package bootstrap

// labels are those of our filters' figures.
var labels = []string{"service", "route", "method", "status", "decision", "reason"}

// Tags are the bootstrap's stats_tags: they make labels of what the filters write into a figure's name, as
// `;label=value;`. Envoy reads them at its start only.
func Tags() []map[string]any {
	var out []object
	for _, label := range labels {
		out = append(out, object{"tag_name": label, "regex": `^wasmcustom\.marchproxy_[^;]+.*?(;` + label + `=([^;]*);)`})
	}
	return out
}

// Buckets are the bootstrap's histogram_bucket_settings: for our durations, which are in microseconds, 100 µs to a
// minute; and for those of a listener's requests the bounds by which they are shown (status.TimeBounds). Those Envoy
// counts in whole milliseconds, rounded down: below 2 ms is what it counts as 1, and so as less than 1.5.
func Buckets() []map[string]any {
	return []object{{
		"match": object{"suffix": ".downstream_rq_time"},
		"buckets": []float64{
			0.5, 1.5, 2.5, 4.5, 7.5, 11.5, 19.5, 29.5, 49.5, 79.5, 119.5, 199.5, 299.5, 499.5, 799.5, 1199.5, 1999.5,
			2999.5, 4999.5, 7999.5, 11999.5, 19999.5, 29999.5, 59999.5,
		},
	}, {
		"match": object{"prefix": "wasmcustom.marchproxy_request_duration_us"},
		"buckets": []int{
			100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000,
			5000000, 10000000, 60000000,
		},
	}}
}
