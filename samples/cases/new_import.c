// NEW calls a function of libc that OLD does not import: an ordinary one, one that is chosen at run
// time (IFUNC), and one through a pointer.
//# build: gcc -O2
//# build: gcc -O0 -fno-builtin
//# build: gcc -O2 -fno-plt
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# build: gcc -O2 -Wl,-z,lazy
//# build: clang -O2
//# build: clang -O2 -fuse-ld=lld
//# changed: number
//# kept: answer
//# before: 0x10 => 0
//# after: 0x10 => 16 2 3
//# after: 12 => 12 -1 1
#include "sample.h"

NOINLINE void number(const char *text) {
#ifdef NEW
    const char *x = memchr(text, 'x', 4);
    size_t (*volatile span)(const char *, const char *) = strspn;

    printf("%ld %d %zu\n", strtol(text, NULL, 0), x ? (int)(x - text) + 1 : -1, span(text, "01x") - (x != NULL));
#else
    printf("%d\n", atoi(text));
#endif
}

void answer(const char *question) {
    number(question);
}
