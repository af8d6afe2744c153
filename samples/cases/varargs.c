// A function with a variable argument list: its entry saves registers, by the count in %al.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: say
//# kept: answer
//# before: 7 => 7 and 2.5
//# after: 7 => [7 and 2.5]
#include "sample.h"
#include <stdarg.h>

NOINLINE void say(const char *format, ...) {
    va_list list;

    va_start(list, format);
#ifdef NEW
    putchar('[');
    vprintf(format, list);
    puts("]");
#else
    vprintf(format, list);
    puts("");
#endif
    va_end(list);
}

void answer(const char *question) {
    say("%d and %.1f", atoi(question), 2.5);
}
