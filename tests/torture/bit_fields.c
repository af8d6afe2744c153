/* Bit-fields, in memory and in structures that live in registers. */
#include "torture.h"

struct flags {
    unsigned low : 3;
    signed middle : 7;
    unsigned : 2;
    unsigned high : 20;
    uint64_t wide : 41;
    unsigned last : 1;
};

struct date {
    unsigned day : 5, month : 4, year : 12;
};

static NOINLINE struct date next(struct date d) {
    if (++d.day > 28) {
        d.day = 1;
        if (++d.month > 12) {
            d.month = 1;
            d.year++;
        }
    }
    ADDED(added_counter++;)
    return d;
}

static NOINLINE void stir(struct flags *f, unsigned by) {
    f->low += by;
    f->middle -= (int)(by & 15);
    f->high = f->high * 5 + f->low;
    f->wide = (f->wide << 3) + f->high;
    f->last ^= f->middle < 0;
    ADDED(if (f->low > 7) _exit(9);)
}

static NOINLINE uint64_t count(const struct flags *f, unsigned n) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < n; i++)
        sum = mix(sum, f[i].low + (uint64_t)(f[i].middle + 64) * 8 + f[i].wide + f[i].last);
    return sum;
}

int main(void) {
    begin();
    struct flags fields[5];
    memset(fields, 0, sizeof fields);
    struct date date = {27, 11, 2024};
    for (unsigned round = 0; round < 60; round++) {
        stir(&fields[round % 5], round);
        date = next(date);
        if (round % 20 == 19) {
            say("fields", count(fields, 5));
            say("date", date.year * 10000u + date.month * 100u + date.day);
            version();
        }
    }
    END();
}
