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

// Buckets are the bootstrap's histogram_bucket_settings for our durations, which are in microseconds: 100 µs
// to a minute. Envoy's own buckets are for milliseconds.
func Buckets() []map[string]any {
	return []object{{
		"match": object{"prefix": "wasmcustom.marchproxy_request_duration_us"},
		"buckets": []int{
			100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000,
			5000000, 10000000, 60000000,
		},
	}}
}
