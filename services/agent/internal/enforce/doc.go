// Package enforce keeps the kernel equal to the rate limit policies that select this node.
//
// Policies come from the event stream's replay, or at the start from the last good state on disk; they are put
// together to one ruleset, which the program takes whole or not at all. The interface is attached after
// the first ruleset is in force, so that no packet meets half of one. The program and its maps are pinned:
// when the agent ends, however it ends, the kernel goes on with what it was told last.
//
//	disk ─► ruleset ─► Open, Apply, Attach ─► live ─► update: Apply ─► status
//	                         │                          │
//	                         └── failed: reason, again in five seconds
package enforce
