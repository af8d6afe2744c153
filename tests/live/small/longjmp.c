/* A loop that never returns and comes back to itself by longjmp. */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#define NOINLINE __attribute__((noinline, noclone))

static jmp_buf again;
static char line[16];
static volatile long failures;

static NOINLINE void ask(void) {
    if (!fgets(line, sizeof line, stdin))
        return;
    if (!strcmp(line, "fail\n"))
        longjmp(again, 1);
}

static NOINLINE void serve(void) {
    for (;;) {
        if (setjmp(again)) {
            failures++;
#ifdef NEW
            printf("failed %ld times, in NEW\n", failures);
#else
            printf("failed %ld times\n", failures);
#endif
            fflush(stdout);
        }
        ask();
        if (feof(stdin))
            return;
        if (strcmp(line, "fail\n")) {
#ifdef NEW
            puts("fine, in NEW");
#else
            puts("fine");
#endif
            fflush(stdout);
        }
    }
}

int main(void) {
    puts("ready");
    fflush(stdout);
    serve();
    return 0;
}
