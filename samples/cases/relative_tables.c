// clang makes tables of distances of arrays of texts and of switches that choose a text, without a symbol; the
// linker lets a text be the end of another one. Texts change, tables grow, and what is next to them stays.
//# build: clang -O2
//# build: clang -O1
//# build: gcc -O2
//# changed: answer color
//# changed 2: answer color
//# kept: weekday
//# data[clang]: reltable.color added
//# data[clang] 2: reltable.color added
//# ladder: 1 2 1
//# before: 0 => sunday red call of 7
//# before: 2 => tuesday blue return of 7
//# after 1: 0 => sunday red call from 7
//# after 1: 2 => tuesday dark blue return from 7
//# after 1: 3 => wednesday white tail return from 7
//# after 2: 2 => tuesday blue return of 7
//# after 2: 3 => wednesday none tail return of 7
#include "sample.h"

static long rounds = 6;

NOINLINE const char *weekday(unsigned n) {
    static const char *const names[] = {"sunday",   "monday", "tuesday", "wednesday",
                                        "thursday", "friday", "saturday"};
    return names[n % 7];
}

NOINLINE const char *event(unsigned n) {
    switch (n) {
    case 0:
        return "call";
    case 1:
        return "line";
    case 2:
        return "return";
    case 3:
        return "tail return";
    case 4:
        return "count";
    default:
        return "none";
    }
}

NOINLINE const char *color(unsigned n) {
    switch (n) {
    case 0:
        return "red";
    case 1:
        return "green";
    case 2:
#ifdef NEW
        return "dark blue";
    case 3:
        return "white";
#else
        return "blue";
#endif
    case 4:
        return "black";
    case 5:
        return "yellow";
    default:
        return "none";
    }
}

void answer(const char *question) {
    unsigned n = (unsigned)atoi(question);

    if (rounds < 7)
        rounds++;
#ifdef NEW
    printf("%s %s %s from %ld\n", weekday(n), color(n), event(n), rounds);
#else
    printf("%s %s %s of %ld\n", weekday(n), color(n), event(n), rounds);
#endif
}
