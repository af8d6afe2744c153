/* Function pointers: tables, callbacks with a context, pointers in the heap and in frames. */
#include "torture.h"

struct shape {
    uint64_t (*area)(const struct shape *);
    void (*grow)(struct shape *, unsigned);
    unsigned a, b;
};

static uint64_t square_area(const struct shape *s) { return (uint64_t)s->a * s->a; }
static uint64_t box_area(const struct shape *s) {
    ADDED(added_counter++;)
    return (uint64_t)s->a * s->b;
}
static void square_grow(struct shape *s, unsigned by) { s->a += by; }
static void box_grow(struct shape *s, unsigned by) {
    s->a += by;
    s->b += by * 2;
    ADDED(if (s->b > 1000000) _exit(9);)
}

struct visit {
    uint64_t sum;
    unsigned seen, skipped;
};

static NOINLINE void each(struct shape **shapes, unsigned n, void (*what)(struct shape *, void *),
                          void *context) {
    for (unsigned i = 0; i < n; i++) {
        if (shapes[i]->a % 11 == 10)
            continue;
        what(shapes[i], context);
    }
}

static void measure(struct shape *s, void *context) {
    struct visit *v = context;
    v->sum = mix(v->sum, s->area(s));
    v->seen++;
    ADDED(added_counter += v->seen;)
}

static void change(struct shape *s, void *context) {
    const unsigned *by = context;
    s->grow(s, *by);
}

int main(void) {
    begin();
    struct shape *shapes[10];
    for (unsigned i = 0; i < 10; i++) {
        shapes[i] = malloc(sizeof **shapes);
        if (!shapes[i])
            _exit(5);
        *shapes[i] = i % 3 ? (struct shape){square_area, square_grow, i, 0}
                           : (struct shape){box_area, box_grow, i, i + 1};
    }
    struct visit visit = {0};
    for (unsigned round = 1; round < 9; round++) {
        each(shapes, 10, change, &round);
        each(shapes, 10, measure, &visit);
        if (round % 2 == 0) {
            say("sum", visit.sum);
            say("seen", visit.seen);
            version();
        }
    }
    for (unsigned i = 0; i < 10; i++)
        free(shapes[i]);
    END();
}
