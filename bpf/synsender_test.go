package bpf

import (
	"encoding/binary"
	"net"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// synSender sends SYNs to port 8080 of 10.9.0.1 from random addresses of 198.18.0.0/16: the kernel's live frames, which
// reach the peer of a veth without a packet buffer or a system call each.
type synSender struct {
	prog  *ebpf.Program
	frame []byte
	ctx   xdpMD
}

// xdpMD is struct xdp_md.
type xdpMD struct{ Data, DataEnd, DataMeta, IngressIfindex, RxQueueIndex, EgressIfindex uint32 }

// newSender is called inside the namespace of ifname, whose peer has address mac.
func newSender(ifname string, mac net.HardwareAddr) (*synSender, error) {
	iface, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, err
	}
	frame := packet{src: "198.18.0.0", dst: "10.9.0.1", proto: tcp, sport: 1024, dport: 8080, flags: syn}.bytes()
	copy(frame, mac)
	copy(frame[6:], iface.HardwareAddr)
	// The program writes a random half of the source and its complement into these two, so that the checksums stay.
	const source, id, sequence = 14 + 14, 14 + 4, 34 + 6
	copy(frame[id:], "\xff\xff")
	copy(frame[sequence:], "\xff\xff")
	setChecksums(frame)
	program := asm.Instructions{
		asm.LoadMem(asm.R7, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R2, asm.R1, 4, asm.Word),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.Add.Imm(asm.R3, int32(len(frame))),
		asm.JGT.Reg(asm.R3, asm.R2, "send"),
	}
	// The kernel uses its pages again as the receiver left them: the whole frame is written each time.
	for i := 0; i < len(frame); i += 2 {
		program = append(program, asm.StoreImm(asm.R7, int16(i), int64(binary.NativeEndian.Uint16(frame[i:])), asm.Half))
	}
	program = append(program,
		asm.FnGetPrandomU32.Call(),
		asm.StoreMem(asm.R7, source, asm.R0, asm.Half),
		asm.Xor.Imm(asm.R0, -1),
		asm.StoreMem(asm.R7, id, asm.R0, asm.Half),
		asm.StoreMem(asm.R7, sequence, asm.R0, asm.Half),
		asm.Mov.Imm(asm.R0, 3).WithSymbol("send"), // XDP_TX
		asm.Return(),
	)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "syn_flood", Type: ebpf.XDP, License: "GPL",
		Instructions: program,
	})
	if err != nil {
		return nil, err
	}
	return &synSender{prog, frame, xdpMD{Data: 0, DataEnd: uint32(len(frame)), IngressIfindex: uint32(iface.Index)}}, nil
}

// send sends n; what the link has no room for is lost.
func (s *synSender) send(n uint32) error {
	const liveFrames = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
	_, err := s.prog.Run(&ebpf.RunOptions{Data: s.frame, Context: s.ctx, Repeat: n, Flags: liveFrames})
	return err
}

// flood sends from the last core until stop is closed, and closes first when it has begun.
func flood(t *testing.T, mac net.HardwareAddr, first, stop chan struct{}) (sent int) {
	begun := false
	defer func() {
		if !begun {
			close(first)
		}
	}()
	if err := pin(0, runtime.NumCPU()-1); err != nil {
		t.Error(err)
		return 0
	}
	f, err := newSender("out", mac)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer f.prog.Close()
	for {
		select {
		case <-stop:
			return sent
		default:
		}
		if err := f.send(floodChunk); err != nil {
			t.Error(err)
			return sent
		}
		sent += floodChunk
		if !begun {
			begun = true
			close(first)
		}
	}
}

// floodChunk is long against the 16 ms that each call waits at its end, and short against a round.
const floodChunk = 200_000

// setChecksums makes those of a plain TCP over IPv4 frame right.
func setChecksums(frame []byte) {
	sum := func(s uint32, b []byte) uint16 {
		for i := 0; i+1 < len(b); i += 2 {
			s += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		for s > 0xffff {
			s = s>>16 + s&0xffff
		}
		return uint16(s)
	}
	ip, l4 := frame[14:34], frame[34:]
	clear(ip[10:12])
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip))
	binary.BigEndian.PutUint16(l4[16:], ^sum(uint32(len(l4))+tcp+uint32(sum(0, ip[12:20])), l4))
}
