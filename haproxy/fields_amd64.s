#include "textflag.h"

// LOOK takes the 16 bytes at off(SI): it gathers a bit for each comma in R8 and for each line end
// in R9, shifted to their place, and adds quotes to X13.
#define LOOK(off) \
	MOVOU    off(SI), X0 \
	MOVO     X10, X1     \
	PCMPEQB  X0, X1      \
	PMOVMSKB X1, R10     \
	MOVO     X11, X2     \
	PCMPEQB  X0, X2      \
	PMOVMSKB X2, R11     \
	PCMPEQB  X12, X0     \
	POR      X0, X13     \
	SHLQ     $off, R10   \
	SHLQ     $off, R11   \
	ORQ      R10, R8     \
	ORQ      R11, R9

// CHECK sets the zero flag if all eight bytes of x, less the zero's character, are digits: no byte of
// a digit carries into the next, and of others the lowest is found. It changes DX.
#define CHECK(x) \
	MOVQ  $0x0606060606060606, DX \
	ADDQ  x, DX                   \
	ORQ   x, DX                   \
	TESTQ eightDigits<>(SB), DX

// CONVERT makes x, eight digits of a byte each, the number that they are.
#define CONVERT(x) \
	IMUL3Q $2561, x, x    \ // 10<<8 + 1
	SHRQ   $8, x          \
	ANDQ   pairs<>(SB), x \
	IMUL3Q $6553601, x, x \ // 100<<16 + 1
	SHRQ   $16, x         \
	ANDQ   fours<>(SB), x \
	IMULQ  eights<>(SB), x \ // 10000<<32 + 1
	SHRQ   $32, x

// func readFields(row *byte, blocks, offset int, cells *int64, columns int, mask *uint64) (length, n, fields int, odd bool)
//
// SI is the block, CX how many are left, BX the row. R8 has a bit for each comma and line end of
// the block, R12 that of the byte before it, R9 one for each place where a field begins or ends. A
// field begins at R10 and has R11 bytes, of which AX has the first. DI is where the next cell goes.
// R13 counts fields, R15 is 1 if one is odd. R14 is where a field began that goes on from the block
// before, or 0. X10, X11 and X12 are 16 commas, line ends and quotes, X13 is not 0 if a quote was seen.
//
// A function of ABI0 may change any register but SP and BP: R14 and X15 are set again behind it
// (cmd/compile/abi-internal.md). It is never preempted.
TEXT ·readFields(SB), NOSPLIT, $0-73
	MOVQ       row+0(FP), SI
	MOVQ       blocks+8(FP), CX
	MOVQ       cells+24(FP), DI
	MOVQ       SI, BX
	MOVQ       $0x2c2c2c2c2c2c2c2c, AX // commas
	MOVQ       AX, X10
	PUNPCKLQDQ X10, X10
	MOVQ       $0x0a0a0a0a0a0a0a0a, AX // line ends
	MOVQ       AX, X11
	PUNPCKLQDQ X11, X11
	MOVQ       $0x2222222222222222, AX // quotes
	MOVQ       AX, X12
	PUNPCKLQDQ X12, X12
	PXOR       X13, X13
	MOVQ       $-1, length+48(FP)
	MOVQ       $1, R12                 // the first byte is the first of a field
	XORQ       R13, R13
	XORQ       R14, R14
	XORQ       R15, R15

block:
	XORQ  R8, R8
	XORQ  R9, R9
	LOOK(0)
	LOOK(16)
	LOOK(32)
	LOOK(48)
	MOVQ  $-1, AX
	TESTQ R9, R9
	JZ    whole

	// The last block of the row: what is behind its line end is not.
	PMOVMSKB X13, DX
	TESTQ    DX, DX
	JNZ      end
	ORQ      R9, R8
	BSFQ     R9, DX
	LEAQ     -1(R9), AX
	XORQ     R9, AX
	ANDQ     AX, R8
	ADDQ     SI, DX
	SUBQ     BX, DX
	MOVQ     DX, length+48(FP)
	MOVQ     $1, CX

whole:
	// Of two bytes side by side of which one is a comma and the other is not, the second is where a
	// field that is not empty begins or ends. So bits come in pairs, but for one of the block before
	// and one that goes on in the next.
	LEAQ  (R12)(R8*2), R9
	XORQ  R8, R9
	ANDQ  AX, R9
	MOVQ  R8, R12
	SHRQ  $63, R12

	// A bit of the mask for each field: where its comma is, one ends there that is not empty. The
	// bits of the commas, side by side, go to R13 and on, in two words.
	MOVQ  R9, R10
	ANDQ  R8, R10
	PEXTQ R8, R10, R10
	MOVQ  R13, AX
	SHRQ  $6, AX
	MOVQ  mask+40(FP), DX
	LEAQ  (DX)(AX*8), DX
	SHLXQ R13, R10, AX
	ORQ   AX, 0(DX)
	MOVQ  R13, AX
	NOTQ  AX
	SHRQ  $1, R10
	SHRXQ AX, R10, R10
	ORQ   R10, 8(DX)

	POPCNTQ R8, AX
	ADDQ    AX, R13
	CMPQ    R13, columns+32(FP)
	JHI     end

	TESTQ R14, R14
	JZ    field
	TESTQ R9, R9
	JZ    next
	MOVQ  R14, R10
	XORQ  R14, R14
	JMP   behind

field:
	TESTQ  R9, R9
	JZ     next
	TZCNTQ R9, R10
	MOVQ   (SI)(R10*1), AX
	CMPQ   R10, $56
	JHI    one

	// Four fields of a digit each, up to the fourth's comma, are the most common there are. Eight
	// bytes of them less 0,0,0,0, are four words that are numbers.
	MOVQ     $0x2c302c302c302c30, DX
	XORQ     AX, DX
	MOVQ     $0x0006000600060006, R8
	ADDQ     DX, R8
	ORQ      DX, R8
	TESTQ    fourDigits<>(SB), R8
	JNZ      one
	MOVQ     DX, X0
	PMOVZXWQ X0, X1
	PSRLQ    $32, X0
	PMOVZXWQ X0, X2
	MOVOU    X1, 0(DI)
	MOVOU    X2, 16(DI)
	ADDQ     $32, DI
	SHRXQ    R10, R9, R9
	SHRQ     $8, R9
	SHLQ     $8, R9
	SHLXQ    R10, R9, R9
	JMP      field

one:
	ADDQ  SI, R10
	BLSRQ R9, R9
	TESTQ R9, R9
	JZ    open

behind:
	TZCNTQ R9, R11
	BLSRQ  R9, R9
	ADDQ   SI, R11
	SUBQ   R10, R11
	MOVQ   (R10), AX
	CMPQ   R11, $1
	JNE    several
	MOVBLZX AX, DX
	SUBL   $0x30, DX
	CMPL   DX, $9
	JHI    plain
	MOVQ   DX, 0(DI)
	ADDQ   $8, DI
	JMP    field

several:
	CMPB AX, $0x30
	JEQ  plain
	CMPQ R11, $8
	JHI  long

	// Of eight bytes those that are not the field's become leading zeros.
	MOVQ  R11, DX
	SHLQ  $3, DX
	NEGQ  DX
	MOVQ  $0x3030303030303030, R8
	XORQ  AX, R8
	SHLXQ DX, R8, R8
	CHECK(R8)
	JNZ   text
	CONVERT(R8)
	MOVQ  R8, 0(DI)
	ADDQ  $8, DI
	JMP   field

	// The last eight bytes, and what is before them. The cell is written twice.
long:
	CMPQ  R11, $16
	JHI   longer
	MOVQ  R11, DX
	SHLQ  $3, DX
	NEGQ  DX
	MOVQ  $0x3030303030303030, R8
	XORQ  AX, R8
	SHLXQ DX, R8, R8
	CHECK(R8)
	JNZ   text
	CONVERT(R8)
	MOVQ  R8, 0(DI)
	MOVQ  $0x3030303030303030, R8
	XORQ  -8(R10)(R11*1), R8
	CHECK(R8)
	JNZ   text
	CONVERT(R8)
	IMUL3Q $100000000, 0(DI), DX
	ADDQ  DX, R8
	MOVQ  R8, 0(DI)
	ADDQ  $8, DI
	JMP   field

	// Of more than 16 bytes only the first eight are looked at: Go reads the number, if it is one.
longer:
	MOVQ $0x3030303030303030, R8
	XORQ AX, R8
	CHECK(R8)
	JZ   odd

text:
	CMPB AX, $0x2d // a minus
	JNE  plain
	CMPQ R11, $2
	JNE  odd

	// Many a field is -1.
	SHRL    $8, AX
	MOVBLZX AX, AX
	SUBL    $0x31, AX
	CMPL    AX, $8
	JHI     odd
	NOTQ    AX // 0 to 8 become -1 to -9
	MOVQ    AX, 0(DI)
	ADDQ    $8, DI
	JMP     field

odd:
	MOVQ $1, R15

	// Text, as textCell has it.
plain:
	SUBQ BX, R10
	ADDQ offset+16(FP), R10
	SHLQ $28, R10
	ORQ  R11, R10
	BTSQ $62, R10
	MOVQ R10, 0(DI)
	ADDQ $8, DI
	JMP  field

open:
	MOVQ R10, R14

next:
	ADDQ $64, SI
	DECQ CX
	JNZ  block
	JMP  done

end:
	MOVQ $-1, length+48(FP)

done:
	SUBQ cells+24(FP), DI
	SHRQ $3, DI
	MOVQ DI, n+56(FP)
	MOVQ R13, fields+64(FP)
	MOVB R15, odd+72(FP)
	RET

DATA fourDigits<>+0(SB)/8, $0xfff0fff0fff0fff0
GLOBL fourDigits<>(SB), RODATA, $8
DATA eightDigits<>+0(SB)/8, $0xf0f0f0f0f0f0f0f0
GLOBL eightDigits<>(SB), RODATA, $8
DATA pairs<>+0(SB)/8, $0x00ff00ff00ff00ff
GLOBL pairs<>(SB), RODATA, $8
DATA fours<>+0(SB)/8, $0x0000ffff0000ffff
GLOBL fours<>(SB), RODATA, $8
DATA eights<>+0(SB)/8, $0x0000271000000001
GLOBL eights<>(SB), RODATA, $8

// func bitInstructions() bool
TEXT ·bitInstructions(SB), NOSPLIT, $0-1
	MOVB  $0, ret+0(FP)
	XORL  AX, AX
	CPUID
	CMPL  AX, $7
	JLT   no
	MOVL  $1, AX
	XORL  CX, CX
	CPUID
	ANDL  $(1<<19 | 1<<23), CX  // SSE4.1 and POPCNT
	CMPL  CX, $(1<<19 | 1<<23)
	JNE   no
	MOVL  $7, AX
	XORL  CX, CX
	CPUID
	ANDL  $(1<<3 | 1<<8), BX    // BMI1 and BMI2
	CMPL  BX, $(1<<3 | 1<<8)
	JNE   no
	MOVB  $1, ret+0(FP)

no:
	RET
