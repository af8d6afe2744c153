        .text
        .globl asm_table
        .type asm_table, @function
asm_table:
        movslq %edi, %rdi
        lea table(%rip), %rax
        mov (%rax,%rdi,4), %eax
        ret
        .size asm_table, . - asm_table

        .globl asm_until_end
        .type asm_until_end, @function
asm_until_end:
        lea other(%rip), %rdx
        lea other_end(%rip), %rcx       # where a table ends, whatever begins there
        xor %eax, %eax
1:      add (%rdx), %eax
        add $4, %rdx
        cmp %rcx, %rdx
        jb 1b
        ret
        .size asm_until_end, . - asm_until_end

        .section .rodata
        .p2align 4
other:  .long 1, 2, 3, 4
other_end:
        .long VERSION
table:
#ifdef NEW
        .long 11, 21, 36, 41
#else
        .long 11, 21, 31, 41
#endif

        .section .note.GNU-stack, "", @progbits
