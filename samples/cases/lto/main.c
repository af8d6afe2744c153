// Link-time optimization: one unit for all, clones and functions moved between files.
//# build: gcc -O2 -flto
//# build: clang -O2 -flto -fuse-ld=lld
//# changed: encode
//# kept: decode answer
//# before: abc => bcd abc
//# after: abc => cde bcd
#include "sample.h"

void encode(char *text);
void decode(char *text);

void answer(const char *question) {
    char text[256];

    strcpy(text, question);
    encode(text);
    printf("%s ", text);
    decode(text);
    puts(text);
}
