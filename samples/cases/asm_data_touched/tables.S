        .text
        .globl asm_double
        .type asm_double, @function
asm_double:
        lea 1f(%rip), %rax
        mov (%rax,%rdi,4), %eax
        ret
1:      .long 10, 20, 30, 40            # bytes that are not instructions
        .size asm_double, . - asm_double

        .globl asm_rotate
        .type asm_rotate, @function
asm_rotate:
        lea 1f(%rip), %rax
        mov (%rax,%rdi,4), %eax
        ret
#ifdef NEW
1:      .long 12, 113, 14, 15
#else
1:      .long 12, 13, 14, 15
#endif
        .size asm_rotate, . - asm_rotate

        .section .note.GNU-stack, "", @progbits
