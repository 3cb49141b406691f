#include "textflag.h"

// entry is where the program begins when it was linked with -E main.entry: see front.go.
// Nothing of the runtime is there yet. Of a command line that is but `-o OPTIONS` and
// paths, without debug, and so goes into the background, a process is forked that goes on as every
// program does; this one waits for it, and ends or goes on, too.
//
//	R12 argc   R13 argv   R14 the next argument   R15 how many -o there were

#define SYS_read 0
#define SYS_close 3
#define SYS_poll 7
#define SYS_rt_sigaction 13
#define SYS_rt_sigprocmask 14
#define SYS_clone 56
#define SYS_kill 62
#define SYS_setsid 112
#define SYS_exit_group 231
#define SYS_signalfd4 289
#define SYS_pipe2 293

#define O_CLOEXEC 0x80000
#define SIGTERM 15
#define SIGCHLD 17

TEXT ·entry(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVQ 0(SP), R12
	LEAQ 8(SP), R13
	MOVQ $1, R14
	XORQ R15, R15
argument:
	CMPQ R14, R12
	JGE  read
	MOVQ (R13)(R14*8), AX
	INCQ R14
	CMPB (AX), $'-'
	JNE  argument
	CMPB 1(AX), $'o'
	JNE  go
	CMPB 2(AX), $0
	JNE  go
	INCQ R14             // its value
	CMPQ R14, R12
	JGT  go              // which is not there
	INCQ R15
	// With "debug" in it, it may be for the foreground.
	MOVQ -8(R13)(R14*8), AX
letter:
	CMPB (AX), $0
	JEQ  argument
	CMPL (AX), $0x75626564 // debu: some bytes after the end, as below
	JEQ  go
	INCQ AX
	JMP  letter
read:
	TESTQ R15, R15
	JEQ   go

	// With PLYFS_READY in the environment it is package detach's second process.
	LEAQ 8(R13)(R12*8), BX
	MOVQ $0x45525f5346594c50, CX // PLYFS_RE
variable:
	MOVQ  (BX), AX
	ADDQ  $8, BX
	TESTQ AX, AX
	JEQ   fork
	CMPQ  (AX), CX       // some bytes after a short one: the last are the kernel's
	JNE   variable
	CMPL  8(AX), $0x3d594441 // ADY=
	JEQ   go
	JMP   variable
fork:
	MOVL $SYS_pipe2, AX
	LEAQ ·frontPipe(SB), DI
	MOVL $O_CLOEXEC, SI
	SYSCALL
	TESTQ AX, AX
	JNE   undone

	// SIGHUP, SIGINT and SIGTERM (1, 2, 15) are for the poll below.
	MOVQ $0x4003, AX
	MOVQ AX, ·frontMask(SB)
	MOVL $SYS_rt_sigprocmask, AX
	MOVL $0, DI          // SIG_BLOCK
	LEAQ ·frontMask(SB), SI
	LEAQ ·frontOld(SB), DX
	MOVL $8, R10
	SYSCALL

	CMPL ·frontPipe(SB), $3 // standard input and output are closed: the runtime opens them
	JLT  alone
	CMPL ·frontPipe+4(SB), $3
	JLT  alone

	// The end of the second process is waited for, also where the caller ignores those
	// of its own: as the runtime would, which is not there yet.
	MOVL $SYS_rt_sigaction, AX
	MOVL $SIGCHLD, DI
	LEAQ ·frontInfo(SB), SI // zeros: SIG_DFL, and no flags
	XORL DX, DX
	MOVL $8, R10
	SYSCALL

	MOVL $SYS_clone, AX
	MOVL $SIGCHLD, DI
	XORL SI, SI
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	SYSCALL
	TESTQ AX, AX
	JEQ   second
	JLT   alone

	MOVQ AX, ·frontSecond(SB)
	MOVL $SYS_close, AX
	MOVL ·frontPipe+4(SB), DI
	SYSCALL
	MOVL $SYS_signalfd4, AX
	MOVQ $-1, DI
	LEAQ ·frontMask(SB), SI
	MOVL $8, DX
	MOVL $O_CLOEXEC, R10
	SYSCALL
	// struct pollfd: int fd; short events, revents. A descriptor below zero is none.
	MOVL AX, ·frontPoll+8(SB)
	MOVL $1, ·frontPoll+12(SB) // POLLIN
	MOVL ·frontPipe(SB), AX
	MOVL AX, ·frontPoll(SB)
	MOVL $1, ·frontPoll+4(SB)
wait:
	MOVL $SYS_poll, AX
	LEAQ ·frontPoll(SB), DI
	MOVL $2, SI
	MOVQ $-1, DX
	SYSCALL
	CMPQ AX, $-4         // EINTR
	JEQ  wait
	MOVL ·frontPoll+12(SB), AX
	SHRL $16, AX
	JNE  told
	MOVL $SYS_read, AX
	MOVL ·frontPipe(SB), DI
	LEAQ ·frontMask(SB), SI // one byte, read or not
	MOVL $1, DX
	SYSCALL
	CMPQ AX, $1
	JNE  ended
	MOVL $SYS_exit_group, AX
	XORL DI, DI
	SYSCALL
	INT  $3
told:
	MOVQ $1, ·frontTold(SB)
	MOVL $SYS_read, AX
	MOVL ·frontPoll+8(SB), DI
	LEAQ ·frontInfo(SB), SI
	MOVL $128, DX        // struct signalfd_siginfo
	SYSCALL
	// Now: a further signal ends this process as soon as none is held back.
	MOVL $SYS_kill, AX
	MOVQ ·frontSecond(SB), DI
	MOVL $SIGTERM, SI
	SYSCALL
	JMP  ended

second:
	MOVQ $1, ·frontBehind(SB)
	MOVL $SYS_setsid, AX
	SYSCALL
	MOVL $SYS_close, AX
	MOVL ·frontPipe(SB), DI
	SYSCALL
	JMP  ended

alone:
	MOVL $SYS_close, AX
	MOVL ·frontPipe(SB), DI
	SYSCALL
	MOVL $SYS_close, AX
	MOVL ·frontPipe+4(SB), DI
	SYSCALL
ended:
	MOVL $SYS_rt_sigprocmask, AX
	MOVL $2, DI          // SIG_SETMASK
	LEAQ ·frontOld(SB), SI
	XORL DX, DX
	MOVL $8, R10
	SYSCALL
undone:
go:
	JMP _rt0_amd64_linux(SB)
