package bpf

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// coarseClock measures the length of a jiffy, and what jiffies64 was when CLOCK_MONOTONIC was 0, so that the program's
// two clocks agree to a jiffy. Both are moved by the same interrupt, but jiffies begin later in a boot, by 0.14 s where
// this was tried: a source whose policy changes from one clock to the other would be held back that long, or let off
// it.
func coarseClock() (tick time.Duration, initial uint64, err error) {
	fail := func(err error) (time.Duration, uint64, error) { return 0, 0, fmt.Errorf("clock of jiffies: %w", err) }
	var res unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &res); err != nil {
		return fail(err)
	}
	tick = time.Duration(res.Nano())
	read, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "jiffies", Type: ebpf.XDP,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, 0, asm.Word), // data
			asm.LoadMem(asm.R2, asm.R1, 4, asm.Word), // data_end
			asm.Mov.Reg(asm.R3, asm.R6),
			asm.Add.Imm(asm.R3, 24),
			asm.JGT.Reg(asm.R3, asm.R2, "out"),
			asm.FnJiffies64.Call(),
			asm.StoreMem(asm.R6, 0, asm.R0, asm.DWord),
			asm.FnKtimeGetCoarseNs.Call(),
			asm.StoreMem(asm.R6, 8, asm.R0, asm.DWord),
			asm.FnJiffies64.Call(),
			asm.StoreMem(asm.R6, 16, asm.R0, asm.DWord),
			asm.Mov.Imm(asm.R0, 1).WithSymbol("out"),
			asm.Return(),
		},
	})
	if err != nil {
		return 0, 0, loadError(err)
	}
	defer read.Close()
	for {
		_, out, err := read.Test(make([]byte, 24))
		if err != nil {
			return fail(err)
		}
		u64 := binary.NativeEndian.Uint64
		if u64(out) == u64(out[16:]) { // or the interrupt came between
			return tick, u64(out) - u64(out[8:])/uint64(tick), nil
		}
	}
}
