/* Coroutines of makecontext: suspended ones are on nobody's stack. Each counts in a loop inside a function
   that is replaced, and is resumed once for each line that is asked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define NOINLINE __attribute__((noinline, noclone))
enum { COUNT = 4, STACK = 64 << 10 };

static ucontext_t main_context, contexts[COUNT];
static int current;
static long produced;

/* Gives a number to whoever resumed it, and waits to be resumed. */
static NOINLINE void yield(long number) {
    produced = number;
    swapcontext(&contexts[current], &main_context);
}

/* Never returns; its sum is on the coroutine's own stack. */
static NOINLINE void generate(int which) {
    long sum = which * 1000;
    for (long i = 1;; i++) {
        sum += i;
#ifdef NEW
        yield(-sum);
#else
        yield(sum);
#endif
    }
}

static void begin(int which) { generate(which); }

int main(void) {
    char line[16];

    for (int i = 0; i < COUNT; i++) {
        getcontext(&contexts[i]);
        contexts[i].uc_stack.ss_sp = malloc(STACK);
        contexts[i].uc_stack.ss_size = STACK;
        makecontext(&contexts[i], (void (*)(void))begin, 1, i);
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        for (current = 0; current < COUNT; current++) {
            swapcontext(&main_context, &contexts[current]);
            printf("%s%ld", current ? " " : "", produced);
        }
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
