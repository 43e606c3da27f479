// Package bpf is the XDP program that limits, filters and counts packets before they cost anything, and the Go
// side of its maps.
//
// A packet meets, in this order: the allow and deny lists and the policies, one longest-prefix match of its
// source; the stateless filters; the limit of its source; SYN cookies; the protocol counters. Each packet counts
// under exactly one reason.
//
// Configuration is a [Ruleset]. [Program.Apply] writes it beside the one in force and switches with a single
// store, so every packet sees one ruleset or the other, whole. What a source has used of its limit belongs to the
// source and survives every switch.
//
// With [Options.PinDir] set, maps and links outlive the process: a dead agent leaves its last ruleset enforced,
// and its successor takes over with [Open], [Program.Apply], [Program.Attach] in that order, without a packet
// unprotected in between.
//
// Kernel: 5.18 or later (XDP with fragments, bpf_xdp_load_bytes); docs/xdp.md says why.
package bpf
