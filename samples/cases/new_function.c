// NEW calls a function that OLD does not have, which calls a static one and one that is kept.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: check
//# added: validate letters
//# kept: length answer
//# before: abc1 => ok 4
//# before: abc => ok 3
//# after: abc1 => bad 4
//# after: abc => ok 3
#include "sample.h"

NOINLINE int length(const char *text) {
    return (int)strlen(text);
}

#ifdef NEW
NOINLINE static int letters(const char *text) {
    int n = 0;

    for (; *text; text++)
        n += *text >= 'a' && *text <= 'z';
    return n;
}

NOINLINE int validate(const char *text) {
    return letters(text) == length(text);
}
#endif

NOINLINE int check(const char *text) {
#ifdef NEW
    return text[0] != 0 && validate(text);
#else
    return text[0] != 0;
#endif
}

void answer(const char *question) {
    printf("%s %d\n", check(question) ? "ok" : "bad", length(question));
}
