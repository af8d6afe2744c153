/* State outside of frames: globals, statics of functions, thread-locals, volatiles. */
#include "torture.h"

static unsigned long hits;
static volatile unsigned pulse;
static __thread uint64_t mine = 5;
static uint32_t history[16];
uint64_t (*chosen)(uint64_t);

static NOINLINE uint64_t next_id(void) {
    static uint64_t last = 100;
    ADDED(added_counter++;)
    return last += hits % 3 + 1;
}

static NOINLINE uint64_t by_history(uint64_t value) {
    static unsigned at;
    history[at++ % 16] += (uint32_t)value;
    uint64_t sum = 0;
    for (unsigned i = 0; i < 16; i++) {
        sum = sum * 3 + history[i];
        hits++;
    }
    return sum;
}

static NOINLINE uint64_t by_pulse(uint64_t value) {
    for (unsigned i = 0; i < 6; i++) {
        pulse = pulse * 5 + (unsigned)value;
        mine ^= pulse;
        ADDED(if (i > 6) _exit(9);)
    }
    return mine + next_id();
}

static NOINLINE uint64_t drive(unsigned n) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < n; i++) {
        chosen = sum & 4 ? by_history : by_pulse;
        sum = mix(sum, chosen(i + hits));
        if (sum & 1)
            hits += next_id() & 7;
    }
    return sum;
}

int main(void) {
    begin();
    for (unsigned round = 0; round < 4; round++) {
        say("drive", drive(10));
        say("hits", hits);
        say("mine", mine);
        version();
    }
    END();
}
