/* Small functions dissolved into larger ones, several levels, in several contexts. */
#include "torture.h"

struct ring {
    unsigned head, tail;
    uint32_t slots[16];
};

INLINE unsigned size(const struct ring *r) { return r->tail - r->head; }
INLINE int is_full(const struct ring *r) { return size(r) == 16; }

INLINE void push(struct ring *r, uint32_t value) {
    r->slots[r->tail++ % 16] = value;
    ADDED(added_counter++;)
}

INLINE uint32_t pop(struct ring *r) { return r->slots[r->head++ % 16]; }

INLINE uint32_t turn(uint32_t value, unsigned by) {
    by &= 31;
    return by ? value << by | value >> (32 - by) : value;
}

INLINE uint64_t average(struct ring *r) {
    uint64_t sum = 0;
    for (unsigned i = r->head; i != r->tail; i++)
        sum += r->slots[i % 16];
    return size(r) ? sum / size(r) : 0;
}

static NOINLINE void spill(struct ring *r, uint64_t *sum) { *sum = mix(*sum, pop(r)); }

static NOINLINE uint64_t produce(struct ring *r, unsigned n) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < n; i++) {
        if (is_full(r)) {
            ADDED(if (size(r) > 16) _exit(9);)
            spill(r, &sum);
        }
        push(r, turn(i * 0x9e3779b1u, i));
        if (i % 5 == 4)
            sum = mix(sum, average(r));
        if (i % 7 == 6)
            sum += turn(pop(r), i / 2);
    }
    while (size(r))
        spill(r, &sum);
    return sum;
}

int main(void) {
    begin();
    struct ring ring = {0};
    for (unsigned round = 1; round <= 4; round++) {
        say("produce", produce(&ring, 16 * round));
        version();
    }
    END();
}
