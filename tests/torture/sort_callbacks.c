/* Callbacks through the C library: a kept frame between frames that are replaced. */
#include "torture.h"

struct item {
    unsigned key;
    char name[8];
};

static unsigned compared;

static int by_key(const void *a, const void *b) {
    const struct item *x = a, *y = b;
    compared++;
    ADDED(if (x == y && compared == 0) _exit(9);)
    return x->key < y->key ? -1 : x->key > y->key;
}

static int by_name(const void *a, const void *b) {
    const struct item *x = a, *y = b;
    ADDED(added_counter++;)
    int order = memcmp(x->name, y->name, 8);
    return order ? order : by_key(a, b);
}

static NOINLINE uint64_t sum_up(const struct item *items, unsigned n) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < n; i++)
        sum = mix(sum, items[i].key + (unsigned char)items[i].name[i % 8]);
    return sum;
}

static NOINLINE uint64_t sorted(unsigned n, unsigned seed) {
    struct item items[24];
    for (unsigned i = 0; i < n; i++) {
        seed = seed * 1103515245 + 12345;
        items[i].key = seed >> 20;
        for (unsigned j = 0; j < 8; j++)
            items[i].name[j] = (char)('a' + (seed >> j) % 3);
    }
    qsort(items, n, sizeof *items, by_key);
    uint64_t sum = sum_up(items, n);
    struct item wanted = items[n / 2];
    const struct item *found = bsearch(&wanted, items, n, sizeof *items, by_key);
    qsort(items, n, sizeof *items, by_name);
    ADDED(added_counter += found != NULL;)
    return mix(sum, sum_up(items, n)) + (uint64_t)(found ? found->key : 0);
}

int main(void) {
    begin();
    for (unsigned round = 1; round <= 4; round++) {
        say("sorted", sorted(6 + 3 * round, round));
        say("compared", compared);
        version();
    }
    END();
}
