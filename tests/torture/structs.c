/* Structures by value: in registers, in memory, as results. */
#include "torture.h"

struct pair { int64_t a, b; };
struct mixed { double x; int32_t n; };
struct big { uint64_t part[9]; };
struct tiny { unsigned char r, g, b; };

static NOINLINE struct pair add(struct pair p, struct pair q) {
    ADDED(added_counter++;)
    return (struct pair){p.a + q.b, p.b - q.a};
}

static NOINLINE struct mixed scale(struct mixed m, double by) {
    m.x *= by;
    m.n += (int32_t)by;
    return m;
}

static NOINLINE struct big rotate(struct big big, unsigned by) {
    struct big result;
    for (unsigned i = 0; i < 9; i++)
        result.part[(i + by) % 9] = big.part[i] + by;
    ADDED(if (by > 1000) _exit(9);)
    return result;
}

static NOINLINE struct tiny darker(struct tiny c) {
    return (struct tiny){c.r / 2, (unsigned char)(c.g - c.g / 4), (unsigned char)(c.b ^ c.r)};
}

static NOINLINE struct big twice(struct big big) {
    big = rotate(big, 2);
    big.part[4] ^= 0x77;
    return rotate(big, 5);
}

int main(void) {
    begin();
    struct pair p = {1, 2};
    struct mixed m = {0.75, 3};
    struct big big = {{1, 2, 3, 4, 5, 6, 7, 8, 9}};
    struct tiny c = {200, 100, 50};
    for (int round = 0; round < 12; round++) {
        p = add(p, add((struct pair){round, 5}, p));
        m = scale(m, 1.5);
        big = twice(big);
        c = darker(c);
        if (round % 4 == 3) {
            say("pair", (uint64_t)(p.a * 3 + p.b));
            say("mixed", bits(m.x) + (uint64_t)m.n);
            say("big", mix(big.part[round % 9], big.part[0]));
            say("tiny", c.r * 65536u + c.g * 256u + c.b);
            version();
        }
        ADDED(added_counter += (unsigned long)round;)
    }
    END();
}
