        .text
        .globl before
        .type before, @function
before: mov $VERSION, %eax
#ifdef NEW
        .rept 8
        lea 1(%rax), %rax
        lea -1(%rax), %rax
        .endr
#endif
        ret
        .size before, . - before

        .globl asm_twice
        .type asm_twice, @function
asm_twice:
        call square                     # a label with no .type
        mov %eax, %ecx
        call .Lnameless                 # and one that leaves no symbol
        add %ecx, %eax
        ret
        .size asm_twice, . - asm_twice

        .globl asm_sum
        .type asm_sum, @function
asm_sum:
        mov %edi, %eax
        imul %edi, %eax
        jmp .Linside
        .size asm_sum, . - asm_sum

        .p2align 5
square: mov %edi, %eax
        imul %edi, %eax
        ret
.Linside:
        call before                     # what is behind the entry refers to what moves
        mov %edi, %eax
        imul %edi, %eax
        add %edi, %eax
        ret
        .size square, . - square

        .p2align 5
.Lnameless:
        call before
        lea 14(%rdi), %eax
        ret

        .section .note.GNU-stack, "", @progbits
