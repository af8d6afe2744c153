/* A coroutine that is suspended where it cannot be carried over: NEW has a variable that is live there and
   that OLD has never computed. Nothing may be committed while it is suspended there. */
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#define NOINLINE __attribute__((noinline, noclone))
enum { STACK = 64 << 10 };

static ucontext_t main_context, context;
static volatile long input = 7, rounds = 2;
static long produced;

static NOINLINE void yield(long number) {
    produced = number;
    swapcontext(&context, &main_context);
}

/* It waits in a loop, which OLD's code is not left to go around. */
static NOINLINE void generate(void) {
    for (long i = 1;; i++) {
#ifdef NEW
        long before = input * i;
#endif
        for (long round = 0; round < rounds; round++) yield(i);
#ifdef NEW
        input = before;
#endif
    }
}

int main(void) {
    char line[16];

    getcontext(&context);
    context.uc_stack.ss_sp = malloc(STACK);
    context.uc_stack.ss_size = STACK;
    makecontext(&context, generate, 0);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        swapcontext(&main_context, &context);
        printf("%ld\n", produced);
        fflush(stdout);
    }
    return 0;
}
