/* alloca and arrays of variable length. */
#include "torture.h"
#include <alloca.h>

static NOINLINE uint64_t fold(const uint32_t *values, unsigned count) {
    uint64_t sum = count;
    for (unsigned i = 0; i < count; i++)
        sum = sum * 5 + values[i];
    ADDED(added_counter += count;)
    return sum;
}

static NOINLINE uint64_t array(unsigned n, uint64_t seed) {
    uint32_t values[n], other[n + 3];
    for (unsigned i = 0; i < n; i++) {
        values[i] = (uint32_t)(seed >> (i & 31)) + i;
        other[i] = values[i] ^ n;
    }
    other[n] = other[n + 1] = other[n + 2] = 5;
    ADDED(if (n > 100) _exit(9);)
    uint64_t a = fold(values, n);
    return mix(a, fold(other, n + 3));
}

struct link {
    struct link *next;
    unsigned value;
};

/* The frame grows while the loop runs. */
static NOINLINE uint64_t chain(unsigned n) {
    struct link *head = NULL;
    for (unsigned i = 0; i < n; i++) {
        struct link *link = alloca(sizeof *link + i);
        link->next = head;
        link->value = i * i;
        head = link;
        ADDED(added_counter++;)
    }
    uint64_t sum = 0;
    for (struct link *l = head; l; l = l->next)
        sum = mix(sum, l->value);
    return sum;
}

static NOINLINE uint64_t nested(unsigned depth) {
    char *space = alloca(16 + depth * 8);
    memset(space, (int)depth, 16);
    uint64_t below = depth ? nested(depth - 1) : 1;
    return below * 3 + (unsigned char)space[depth % 16];
}

int main(void) {
    begin();
    for (unsigned round = 2; round < 8; round++) {
        say("array", array(round * 3, round * 0x123456789abu));
        say("chain", chain(round * 4));
        say("nested", nested(round));
        version();
    }
    END();
}
