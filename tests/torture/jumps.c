/* setjmp and longjmp: out of loops, over several frames, again and again. */
#include "torture.h"
#include <setjmp.h>

static jmp_buf failed;

static NOINLINE unsigned risky(unsigned depth, unsigned value) {
    if (depth == 0) {
        if (value % 3 == 1)
            longjmp(failed, (int)(value % 7 + 1));
        ADDED(added_counter++;)
        return value * 2;
    }
    return risky(depth - 1, value + depth) + 1;
}

static NOINLINE unsigned attempt(unsigned value) {
    volatile unsigned tries = 0;
    int code = setjmp(failed);
    tries++;
    if (code && tries > 1)
        return (unsigned)code * 100 + tries;
    ADDED(if (tries > 5) _exit(9);)
    return risky(value % 5, value);
}

/* The frame that waits calls the one that sets the trap in a loop. */
static NOINLINE uint64_t many(unsigned n) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned result = attempt(i);
        sum = mix(sum, result);
        if (i % 8 == 7) {
            say("sum", sum);
            version();
        }
    }
    return sum;
}

/* A generator of sorts: the handler goes round in the function that set the trap. */
static NOINLINE uint64_t rounds(void) {
    static volatile unsigned count;
    static volatile uint64_t sum;
    count = 0;
    sum = 5;
    setjmp(failed);
    if (count < 12) {
        count = count + 1;
        sum = sum * 3 + count;
        ADDED(added_counter++;)
        longjmp(failed, 1);
    }
    return sum;
}

int main(void) {
    begin();
    say("many", many(32));
    say("rounds", rounds());
    version();
    END();
}
