// A string literal, shorter in one place and longer in another; every other string moves by it.
//# build: gcc -O2
//# build: gcc -O0
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# build: clang -O2
//# changed: greeting
//# kept: farewell answer
//# before: hello => good day!
//# before: bye => good bye
//# after: hello => a very good morning to you!
//# after: bye => good bye
#include "sample.h"

NOINLINE void greeting(void) {
#ifdef NEW
    puts("a very good morning to you!");
#else
    puts("good day!");
#endif
}

NOINLINE void farewell(void) {
    puts("good bye");
}

void answer(const char *question) {
    if (strcmp(question, "hello") == 0)
        greeting();
    else
        farewell();
}
