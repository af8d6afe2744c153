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
        .long 10, 20, 30, 40
        .long 11, 21, 31, 41
        .asciz "a table"

        .p2align 4
        .globl asm_calls
        .type asm_calls, @function
asm_calls:
        push %rbx
        mov %edi, %ebx
        call before
        add %ebx, %eax
        pop %rbx
        ret
        .size asm_calls, . - asm_calls

        .section .note.GNU-stack, "", @progbits
