// NEW has a comment, a declaration, a macro and a constant expression of another form.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# nothing-to-do
//# kept: sum answer
#include "sample.h"

#ifdef NEW
/* what this does */
extern int unused(int);
#define TEN (5 * 2)
typedef int number;
#else
#define TEN 10
#endif

NOINLINE int sum(int n) {
    return n + TEN;
}

void answer(const char *question) {
    printf("%d\n", sum(atoi(question)));
}
