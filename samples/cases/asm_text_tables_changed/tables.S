        .text
        .globl asm_low
        .type asm_low, @function
asm_low:
        movslq %edi, %rdi
        lea .Ltable+16(%rip), %rax
        mov -16(%rax,%rdi,4), %eax
        ret
        .size asm_low, . - asm_low

        .globl asm_high
        .type asm_high, @function
asm_high:
        movslq %edi, %rdi
        lea .Ltable+16(%rip), %rax
        mov (%rax,%rdi,4), %eax
        ret
        .size asm_high, . - asm_high

        .p2align 6
.Ltable:
#ifdef NEW
        .long 10, 20, 33, 40
#else
        .long 10, 20, 30, 40
#endif
        .long 11, 21, 31, 41
        .asciz "a table"

        .section .note.GNU-stack, "", @progbits
