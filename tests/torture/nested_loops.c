/* Loops in loops with values carried by each level. */
#include "torture.h"

static NOINLINE uint64_t cube(unsigned n) {
    uint64_t sum = 1, rows = 0;
    ADDED(unsigned long passes = 0;)
    for (unsigned i = 0; i < n; i++) {
        uint64_t row = i * 7 + 1;
        for (unsigned j = i; j < n + 2; j++) {
            uint64_t cell = row ^ j;
            for (unsigned k = j; k > 0; k -= k > 3 ? 3 : 1) {
                cell = cell * 33 + k;
                if (cell & 8)
                    row += k;
            }
            ADDED(passes++;)
            sum = mix(sum, cell);
        }
        rows += row;
    }
    ADDED(added_counter += passes;)
    return mix(sum, rows);
}

static NOINLINE uint64_t triangle(const unsigned *weights, unsigned n) {
    uint64_t sum = 0;
    unsigned i = 0;
    do {
        unsigned j = 0;
        while (j <= i) {
            if ((i ^ j) % 5 == 4) {
                j += 2;
                continue;
            }
            sum += (uint64_t)weights[j] << (i & 7);
            if (sum >> 60)
                break;
            j++;
        }
        ADDED(if (i > n) _exit(9);)
    } while (++i < n);
    return sum;
}

int main(void) {
    begin();
    unsigned weights[24];
    uint64_t all = 0;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 24; i++)
            weights[i] = (round + 1) * (i * i + 3);
        uint64_t a = cube(6 + round), b = triangle(weights, 24);
        say("cube", a);
        say("triangle", b);
        all = mix(all, a ^ b);
        version();
    }
    say("all", all);
    END();
}
