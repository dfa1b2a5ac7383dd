package deploy

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The places of a system call's number and arguments in what a filter sees (struct
// seccomp_data of seccomp(2)), on a machine of little endian.
const (
	offsetNumber   = 0
	offsetArgument = 16
	argumentBytes  = 8
)

// The answers of a filter.
const (
	allow          = unix.SECCOMP_RET_ALLOW
	notPermitted   = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	noSuchCall     = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	noSuchFamily   = unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)
	newNamespaces  = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP
	writeAndExec   = unix.PROT_WRITE | unix.PROT_EXEC
	loadWord       = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	jumpIfEqual    = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jumpIfAnyOf    = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
	answer         = unix.BPF_RET | unix.BPF_K
	keepBits       = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	argumentMemory = 2 // of mmap and mprotect: the protection
)

// program returns the filter that systemd makes of SystemCallFilter=,
// RestrictAddressFamilies=, RestrictNamespaces=yes and MemoryDenyWriteExecute=yes.
func (c confinement) program() []unix.SockFilter {
	argument := func(n uint32) unix.SockFilter {
		return unix.SockFilter{Code: loadWord, K: offsetArgument + n*argumentBytes}
	}
	// of runs the part that follows for one system call, and skips it for others.
	of := func(number uint32, part ...unix.SockFilter) []unix.SockFilter {
		return append([]unix.SockFilter{{Code: jumpIfEqual, K: number, Jf: uint8(len(part))}}, part...)
	}
	number := unix.SockFilter{Code: loadWord, K: offsetNumber}
	p := []unix.SockFilter{number}

	families := []unix.SockFilter{argument(0)}
	for _, f := range c.Families {
		families = append(families, unix.SockFilter{Code: jumpIfEqual, K: f, Jf: 1}, unix.SockFilter{Code: answer, K: allow})
	}
	p = append(p, of(unix.SYS_SOCKET, append(families, unix.SockFilter{Code: answer, K: noSuchFamily})...)...)
	p = append(p, of(unix.SYS_MMAP, argument(argumentMemory), unix.SockFilter{Code: keepBits, K: writeAndExec},
		unix.SockFilter{Code: jumpIfEqual, K: writeAndExec, Jf: 1}, unix.SockFilter{Code: answer, K: notPermitted}, number)...)
	p = append(p, of(unix.SYS_MPROTECT, argument(argumentMemory),
		unix.SockFilter{Code: jumpIfAnyOf, K: unix.PROT_EXEC, Jf: 1}, unix.SockFilter{Code: answer, K: notPermitted}, number)...)
	p = append(p, of(unix.SYS_CLONE, argument(0),
		unix.SockFilter{Code: jumpIfAnyOf, K: newNamespaces, Jf: 1}, unix.SockFilter{Code: answer, K: notPermitted}, number)...)
	// Its flags are in memory, which a filter cannot read, so systemd says that there is no such call.
	p = append(p, of(unix.SYS_CLONE3, unix.SockFilter{Code: answer, K: noSuchCall})...)
	for _, call := range c.Calls {
		p = append(p, of(call, unix.SockFilter{Code: answer, K: allow})...)
	}
	return append(p, unix.SockFilter{Code: answer, K: notPermitted})
}

// apply confines the calling thread, which keeps that over an exec.
func (c confinement) apply() error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := c.program()
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	//nolint:gosec // The kernel reads the program during the call.
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	runtime.KeepAlive(filter)
	return err
}
