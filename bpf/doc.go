// Package bpf is the room of the XDP program, its committed object and its Go
// bindings. It is empty until the node agent is built.
package bpf
