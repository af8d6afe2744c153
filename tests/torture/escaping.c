/* Locals whose addresses are kept: in globals, in the heap, in other frames. */
#include "torture.h"

struct scope {
    struct scope *outer;
    const char *name;
    uint64_t value;
};

static struct scope *innermost;
static unsigned *tally;

static NOINLINE uint64_t look_up(const char *name) {
    for (struct scope *s = innermost; s; s = s->outer) {
        ++*tally;
        if (s->name[0] == name[0])
            return s->value;
    }
    return 0;
}

static NOINLINE void assign(const char *name, uint64_t value) {
    for (struct scope *s = innermost; s; s = s->outer)
        if (s->name[0] == name[0]) {
            s->value = value;
            ADDED(added_counter++;)
            return;
        }
}

static NOINLINE uint64_t evaluate(unsigned depth, uint64_t seed) {
    static const char *const names[] = {"alpha", "beta", "gamma", "delta"};
    struct scope mine = {innermost, names[depth % 4], seed};
    uint64_t sum = 0;
    innermost = &mine;
    for (unsigned i = 0; i < 3; i++) {
        ADDED(if (innermost != &mine) _exit(9);)
        assign(names[(depth + i) % 4], look_up(names[i]) + i + 1);
        if (depth < 4)
            sum = mix(sum, evaluate(depth + 1, mine.value ^ i));
        sum += mine.value;
    }
    innermost = mine.outer;
    return sum;
}

static NOINLINE void exchange(long *a, long *b) {
    long t = *a;
    *a = *b + 1;
    *b = t - 1;
}

static NOINLINE uint64_t shuffle(unsigned n) {
    long a = 1, b = 2, c = 3, *which[3] = {&a, &b, &c};
    for (unsigned i = 0; i < n; i++) {
        exchange(which[i % 3], which[(i * 2 + 1) % 3]);
        ADDED(added_counter += i;)
        a += c;
    }
    return (uint64_t)(a * 10000 + b * 100 + c);
}

int main(void) {
    begin();
    unsigned count = 0;
    tally = &count;
    for (unsigned round = 0; round < 2; round++) {
        say("evaluate", evaluate(1, round));
        say("shuffle", shuffle(20));
        say("tally", count);
        version();
    }
    END();
}
