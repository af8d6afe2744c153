/* Switches that are no tables: sparse values, fall-through, Duff's device, values by table. */
#include "torture.h"

static NOINLINE unsigned weigh(unsigned key) {
    unsigned weight = 1;
    switch (key) {
    case 3: weight += 5;
    /* fall through */
    case 17: weight *= 3; break;
    case 400: weight = 9; break;
    case 65537: return 77;
    case 1u << 30: weight = key >> 3; break;
    case 1000 ... 1023: weight = key - 999; ADDED(added_counter++;) break;
    default: weight = key % 13;
    }
    return weight * 2 + 1;
}

static NOINLINE void copy(uint16_t *to, const uint16_t *from, unsigned count) {
    unsigned rounds = (count + 3) / 4;
    switch (count & 3) {
    case 0: do { *to++ = *from++;
    case 3: *to++ = *from++;
    case 2: *to++ = *from++;
    case 1: *to++ = *from++;
            ADDED(if (rounds > 1000) _exit(9);)
        } while (--rounds);
    }
}

static NOINLINE const char *name(unsigned day) {
    switch (day) {
    case 0: return "monday";
    case 1: return "tuesday";
    case 2: return "wednesday";
    case 3: return "thursday";
    case 4: return "friday";
    default: return EITHER("weekend", "weekend");
    }
}

int main(void) {
    begin();
    static const unsigned keys[] = {3, 17, 400, 65537, 1u << 30, 1003, 1023, 5, 28, 0};
    uint16_t here[31], there[31];
    uint64_t sum = 0;
    for (unsigned round = 1; round < 9; round++) {
        for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
            sum = mix(sum, weigh(keys[i] + round / 4));
        for (unsigned i = 0; i < 31; i++)
            here[i] = (uint16_t)(sum >> (i % 48));
        copy(there, here, 31 - round);
        for (unsigned i = 0; i < 31 - round; i++)
            sum = mix(sum, there[i]);
        for (const char *p = name(round); *p; p++)
            sum = sum * 31 + (unsigned char)*p;
        if (round % 2 == 0) {
            say("sum", sum);
            version();
        }
    }
    END();
}
