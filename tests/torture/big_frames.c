/* Frames of several kilobytes, some of it known to others. */
#include "torture.h"

struct table {
    uint16_t cells[600];
    unsigned used;
    uint64_t total;
};

static NOINLINE void put(struct table *table, unsigned value) {
    table->cells[table->used % 600] = (uint16_t)value;
    table->used += 7;
    table->total = mix(table->total, value);
    ADDED(added_counter++;)
}

static NOINLINE uint64_t fill(unsigned seed) {
    struct table table = {.used = seed};
    uint32_t squares[500];
    unsigned char marks[1000];
    memset(marks, 0, sizeof marks);
    for (unsigned i = 0; i < 100; i++) {
        squares[(i * 17) % 500] = i * i + seed;
        marks[(i * i) % 1000] = (unsigned char)i;
        put(&table, squares[(i * 17) % 500] ^ marks[(i * 3) % 1000]);
        ADDED(if (table.used > 10000) _exit(9);)
    }
    uint64_t sum = table.total;
    for (unsigned i = 0; i < 100; i += 3)
        sum += squares[(i * 17) % 500] + table.cells[i * 5] * (unsigned)marks[i * 9];
    return sum;
}

static NOINLINE uint64_t outer(unsigned round) {
    uint64_t notes[300];
    for (unsigned i = 0; i < 300; i += 50)
        notes[i] = i * round;
    uint64_t a = fill(round), b = fill(round + 1);
    for (unsigned i = 0; i < 300; i += 50)
        a = mix(a, notes[i]);
    return a ^ b;
}

int main(void) {
    begin();
    for (unsigned round = 0; round < 3; round++) {
        say("outer", outer(round));
        version();
    }
    END();
}
