// Package supervisor keeps a child process running: `marchproxy dev` has a [Child] for each part of the system, and the
// agent one for Envoy.
//
//	         ┌──────────── pause ◄─────────────┐
//	         ▼                                 │ it ends by itself, or does not start
//	Run ─► start ─► running ───────────────────┘
//	                   │ the context ends
//	                   ▼
//	                 drain ─► SIGTERM ─► grace ─► SIGKILL ─► Run returns
//	                   └─────────┴─────────┴─ it has ended ────▲
//
// What is promised:
//
//   - A child that ends, with whatever status, is started again after a pause, which doubles each time and is the
//     shortest again after a run that was longer than [Steady].
//   - A stop is for the child first: it alone gets SIGTERM, so that it ends what it has started in its own order. After
//     the grace its whole process group gets SIGKILL (what systemd calls KillMode=mixed).
//   - What a child leaves behind in its process group is killed when the child has ended, however it did: it would hold
//     the ports that the next one wants. A daemon, which makes a session of its own, stays.
//   - Signals of the terminal do not reach a child, which has a process group of its own: Ctrl-C is for the parent,
//     which stops its children in order.
//   - A child is killed when its parent ends, also by kill -9 (Linux' parent death signal, PR_SET_PDEATHSIG). That is
//     for the child alone and not for what it has started, and a child that gets more rights by its program's file has
//     to ask for it itself.
package supervisor
