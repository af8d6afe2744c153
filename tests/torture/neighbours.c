/* Objects side by side on the stack: what is counted from before one, where one ends and the next begins, addresses
   that are kept for a loop. */
#include "torture.h"

struct pair {
    long first, second;
};

static long *known;

static NOINLINE void set(struct pair *pair, long n) {
    pair->first = n;
    pair->second = n * 3;
}

static NOINLINE long total(const long *from, const long *to) {
    long sum = 0;
    while (from < to)
        sum += *from++;
    return sum;
}

static NOINLINE void know(long *it) {
    known = it;
}

static NOINLINE long step(long by) {
    return *known += by;
}

/* The end of one array is where another object may begin. */
static NOINLINE long ends(unsigned n) {
    struct pair low = {1, 2};
    long some[4] = {3, 4, 5, 6}, more[3] = {7, 8, 9};
    struct pair high = {10, 11};
    long sum = 0;
    for (unsigned i = 0; i < n; i++) {
        set(&low, i);
        some[i % 4] += low.second;
        sum += total(some, some + 4) - total(more, more + 3);
        ADDED(added_counter += sum;)
        set(&high, sum & 15);
        more[i % 3] += high.first;
        sum += total(&low.first, &low.first + 2) + total(&high.first, &high.first + 2);
    }
    return sum;
}

/* Counted from before, and from behind. */
static NOINLINE long biased(unsigned n) {
    struct pair before = {1, 1};
    long row[6] = {0}, ring[4] = {1, 2, 3, 4};
    set(&before, n);
    for (unsigned i = 1; i <= 5; i++) {
        row[i] = row[i - 1] + ring[4 - i % 4 - 1] + step(i);
        ADDED(added_counter++;)
        ring[i - 1 & 3] ^= before.first;
    }
    for (int i = 5; i > 0; i--)
        row[i - 1] += row[i] - step(1);
    return total(row, row + 6) + total(ring, ring + 4) + before.second;
}

/* More addresses than registers: some are kept in slots of the frame. */
static NOINLINE long crowded(unsigned n) {
    struct pair a = {1, 2}, b = {3, 4}, c = {5, 6}, d = {7, 8}, e = {9, 10}, f = {11, 12}, g = {13, 14}, h = {15, 16};
    char text[24] = "";
    long sum = 0;
    for (unsigned i = 0; i < n; i++) {
        set(&a, i + b.second);
        set(&b, a.second - i);
        set(&c, b.first + d.first);
        ADDED(long told = c.second; set(&d, told);)
        EITHER(set(&d, c.second);, )
        set(&e, d.first + (long)strlen(text));
        set(&f, e.second & 63);
        set(&g, f.first + h.first);
        set(&h, g.second & 31);
        text[i % (sizeof text - 1)] = (char)('a' + (h.first & 15));
        sum += total(&a.first, &a.first + 2) ^ total(&g.first, &g.first + 2);
    }
    return sum + text[0] + text[1] * 3 + a.first + b.first + c.first + d.first + e.first + f.first + g.first + h.first;
}

int main(void) {
    long own = 5;
    begin();
    know(&own);
    for (unsigned round = 2; round < 4; round++) {
        say("ends", (uint64_t)ends(round));
        say("biased", (uint64_t)biased(round));
        say("crowded", (uint64_t)crowded(round));
        say("own", (uint64_t)own);
        version();
    }
    END();
}
