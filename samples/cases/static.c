// Without libraries of its own, all of the C library in one image: an old kind of container is full of these.
//# build: gcc -O2 -static -no-pie -fno-pie -Wl,--emit-relocs
//# build: gcc -O2 -static-pie
//# changed: total
//# kept: answer items
//# data: _dl_initial_searchlist kept
//# data: _dl_main_map kept
//# before: 10 => 20 of 2
//# after: 10 => 21 of 2
//# after: 1 => 3 of 2
#include "sample.h"

NOINLINE static int items(const char *list) {
    return (int)strlen(list) + 1;
}

NOINLINE static int total(int price, int count) {
#ifdef NEW
    return price * count + (count > 1); /* shipping */
#else
    return price * count;
#endif
}

void answer(const char *question) {
    int count = items("x");

    printf("%d of %d\n", total(atoi(question), count), count);
}
