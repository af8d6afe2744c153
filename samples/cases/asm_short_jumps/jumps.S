        .text
        .globl store
        .type store, @function
store:  test %edi, %edi
        js load
        xor %eax, %eax
        ret
        .size store, . - store

        .globl load
        .type load, @function
load:   cmp $255, %edi
        jg clamp                        # two bytes: the target is near
        mov %edi, %eax
        ret
        .size load, . - load

        .globl clamp
        .type clamp, @function
clamp:  cmp $255, %edi
        jle load
#ifdef NEW
        mov $99, %eax
#else
        mov $255, %eax
#endif
        ret
        .size clamp, . - clamp

        .section .note.GNU-stack, "", @progbits
