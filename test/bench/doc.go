// Package bench is what the benchmarks of the whole system share: thousands of routes with a host each, the change of
// one of them until it is served, the same change at an Envoy alone (the floor), what a process costs, and the table
// that the figures come out in.
package bench
