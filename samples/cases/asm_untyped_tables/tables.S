#ifdef NEW
#define CHANGE 5
#else
#define CHANGE 0
#endif
        .text
        .globl asm_text_table
        .type asm_text_table, @function
asm_text_table:
        movslq %edi, %rdi
        lea in_text(%rip), %rax
        mov (%rax,%rdi,4), %eax
        ret
        .size asm_text_table, . - asm_text_table

        .p2align 4
in_text:
        .long 10, 20, 30 + CHANGE, 40

        .globl asm_same_table
        .type asm_same_table, @function
asm_same_table:
        movslq %edi, %rdi
        lea same(%rip), %rax
        mov (%rax,%rdi,4), %eax
        ret
        .size asm_same_table, . - asm_same_table

        .section .rodata
        .p2align 4
same:
        .long 12, 22, 32, 42

        .section .note.GNU-stack, "", @progbits
