/* Variables that one compiler keeps in registers for a whole loop and stores behind it, while another
   stores them in each pass: alone, over calls that the compiler sees through, with arrays beside them, in
   loops that may be unrolled, peeled or vectorized. */
#include "torture.h"

uint64_t total;
static uint64_t hidden, passes;
static uint32_t cells[64];
static int16_t small[64];
double average;

static NOINLINE uint64_t look(uint64_t x) { return x * 3 + 1; }
static NOINLINE uint64_t count(uint64_t x) { passes++; return x ^ passes; }

static NOINLINE void sums(int n) {
    for (int i = 0; i < n; i++) {
        total += (uint64_t)i * n ^ total >> 7;
        ADDED(added_counter++;)
    }
}

static NOINLINE void over_calls(int n) {
    for (int i = 0; i < n; i++) {
        hidden += look(hidden + i);
        if (hidden & 64)
            hidden ^= count(i);
    }
}

static NOINLINE void conditional(int n) {
    for (int i = 0; i < n; i++)
        if (cells[i & 63] & 1)
            total = mix(total, cells[i & 63]);
}

static NOINLINE void arrays(int n) {
    for (int i = 0; i < 64; i++)
        cells[i] = cells[i] * 3 + n;
    for (int i = 0; i < 64; i++)
        small[i] = (int16_t)(small[i] + cells[i]);
    for (int i = 1; i < 64; i++)
        cells[i] += cells[i - 1] ^ (uint32_t)small[i];
}

static NOINLINE uint64_t reduce(const uint32_t *values, int n) {
    uint32_t sum = 0, most = 0;
    for (int i = 0; i < n; i++) {
        sum += values[i];
        most = values[i] > most ? values[i] : most;
    }
    return look((uint64_t)most << 32 | sum);
}

/* The first pass is another one than those behind it; the last three are always made. */
static NOINLINE uint64_t first(int n) {
    uint64_t sum = 0, before = 7;
    int fresh = 1;
    for (int i = 0; i < n; i++) {
        uint64_t now = look(before + i);
        sum += fresh ? now : now ^ before;
        before = now;
        fresh = 0;
    }
    for (int i = 0; i < 3; i++)
        sum = mix(sum, count(before + i));
    return sum;
}

static NOINLINE void floating(int n) {
    for (int i = 1; i <= n; i++)
        average += (i - average) / (i + 1);
}

int main(void) {
    begin();
    version();
    for (int round = 0; round < 3; round++) {
        sums(20 + round);
        say("total", total);
        over_calls(17 + round);
        say("hidden", hidden);
        arrays(round);
        conditional(40);
        say("cells", total ^ cells[63]);
        say("reduce", reduce(cells, 61 + round));
        say("first", first(round * 5));
        floating(13);
        say("average", bits(average));
        say("passes", passes);
        version();
    }
    END();
}
