#include "textflag.h"

// CONSTANTS fills registers with spaces, quotes and backslashes, and empties X13.
#define CONSTANTS \
	MOVQ       $0x2020202020202020, AX \
	MOVQ       AX, X10                 \
	PUNPCKLQDQ X10, X10                \
	MOVQ       $0x2222222222222222, AX \
	MOVQ       AX, X11                 \
	PUNPCKLQDQ X11, X11                \
	MOVQ       $0x5c5c5c5c5c5c5c5c, AX \
	MOVQ       AX, X12                 \
	PUNPCKLQDQ X12, X12                \
	PXOR       X13, X13

// MARK takes the 16 bytes at off(SI): it gathers a bit for each space in R8 and for each quote
// in R9, shifted to their place, and adds to X13 what is special: below 0x20 as a signed
// number, which bytes outside of ASCII are too, or a backslash.
#define MARK(off) \
	MOVOU    off(SI), X0 \
	MOVO     X10, X1     \
	PCMPEQB  X0, X1      \
	PMOVMSKB X1, R10     \
	MOVO     X11, X2     \
	PCMPEQB  X0, X2      \
	PMOVMSKB X2, R11     \
	MOVO     X12, X3     \
	PCMPEQB  X0, X3      \
	POR      X3, X13     \
	MOVO     X10, X4     \
	PCMPGTB  X0, X4      \
	POR      X4, X13     \
	SHLQ     $off, R10   \
	SHLQ     $off, R11   \
	ORQ      R10, R8     \
	ORQ      R11, R9

// func markBlocks(p *byte, blocks int, to *marks) (special uint64)
TEXT ·markBlocks(SB), NOSPLIT, $0-32
	MOVQ p+0(FP), SI
	MOVQ blocks+8(FP), CX
	MOVQ to+16(FP), DI
	CONSTANTS

loop:
	XORQ R8, R8
	XORQ R9, R9
	MARK(0)
	MARK(16)
	MARK(32)
	MARK(48)
	MOVQ R8, 0(DI)
	MOVQ R9, 8(DI)
	ADDQ $64, SI
	ADDQ $16, DI
	DECQ CX
	JNZ  loop

	PMOVMSKB X13, AX
	MOVQ     AX, special+24(FP)
	RET

// LOOK takes the 16 bytes at off(SI): it adds to X13 what is special, as MARK does, and to X5
// the quotes, for which a comparison gives -1.
#define LOOK(off) \
	MOVOU   off(SI), X0 \
	MOVO    X11, X2     \
	PCMPEQB X0, X2      \
	PSUBB   X2, X5      \
	MOVO    X12, X3     \
	PCMPEQB X0, X3      \
	POR     X3, X13     \
	MOVO    X10, X4     \
	PCMPGTB X0, X4      \
	POR     X4, X13

// func lookAtBlocks(p *byte, blocks int) (special, quotes uint64)
TEXT ·lookAtBlocks(SB), NOSPLIT, $0-32
	MOVQ p+0(FP), SI
	MOVQ blocks+8(FP), CX
	CONSTANTS
	PXOR X14, X14

look:
	PXOR   X5, X5
	LOOK(0)
	LOOK(16)
	LOOK(32)
	LOOK(48)
	PXOR   X6, X6
	PSADBW X6, X5 // the sums of eight bytes each
	PADDQ  X5, X14
	ADDQ   $64, SI
	DECQ   CX
	JNZ    look

	PMOVMSKB X13, AX
	MOVQ     AX, special+16(FP)
	MOVQ     X14, BX
	PSRLDQ   $8, X14
	MOVQ     X14, CX
	ADDQ     CX, BX
	MOVQ     BX, quotes+24(FP)
	RET
