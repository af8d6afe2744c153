        .text
        .globl asm_called
        .type asm_called, @function
asm_called:
        call square
        ret
        .size asm_called, . - asm_called

        .globl asm_twice
        .type asm_twice, @function
asm_twice:
        call square
        mov %eax, %ecx
        call .Lnameless
        add %ecx, %eax
        ret
        .size asm_twice, . - asm_twice

        .globl asm_sum
        .type asm_sum, @function
asm_sum:
        mov %edi, %eax
        jmp .Linside
        .size asm_sum, . - asm_sum

        .p2align 5
square: mov %edi, %eax
        imul %edi, %eax
#ifdef NEW
        add $1, %eax
#else
        add $0, %eax
#endif
        ret
.Linside:
        imul %edi, %eax
        add %edi, %eax
#ifdef NEW
        add $1, %eax
#else
        add $0, %eax
#endif
        ret
        .size square, . - square

        .p2align 5
.Lnameless:
#ifdef NEW
        lea 114(%rdi), %eax
#else
        lea 14(%rdi), %eax
#endif
        ret

        .section .note.GNU-stack, "", @progbits
