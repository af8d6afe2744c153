// Three versions one after the other in one process, and back to the first, each bundle made from two
// neighbouring builds alone. Version 2 adds a function and a variable that 3 changes and 1 never had: when the
// bundle from 1 to 2 is applied again, it takes the memory of then, and the variable has its last value.
//# build: gcc -O2
//# build: gcc -O0
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# build: clang -O2
//# ladder: 1 2 3 2 1 2
//# changed: price
//# added: rebate
//# data: rebates added
//# changed 2: rebate label
//# changed 3: rebate label
//# changed 4: price
//# removed 4: rebate
//# changed 5: price
//# added 5: rebate
//# data 5: rebates added
//# kept: label answer
//# kept 2: price answer
//# kept 3: price answer
//# kept 4: label answer
//# before: 100 => price 100 yes
//# after: 100 => price 91 yes
//# after: 100 => price 92 yes
//# after 2: 100 => now at 83 yes
//# after 3: 100 => price 94 yes
//# after 4: 100 => price 100 yes
//# after 5: 100 => price 95 yes
#include "sample.h"

#if VERSION >= 2
int rebates;

NOINLINE int rebate(int amount) {
    rebates++;
#if VERSION == 3
    return amount / 5 - rebates;
#else
    return amount / 10 - rebates;
#endif
}
#endif

NOINLINE int price(int amount) {
#if VERSION >= 2
    return amount - rebate(amount);
#else
    return amount + (amount < 0);
#endif
}

NOINLINE const char *label(int amount) {
#if VERSION == 3
    return amount ? "now at" : "free";
#else
    return amount ? "price" : "free";
#endif
}

/* Taken before the first update. */
static int (*first_price)(int);

__attribute__((constructor)) static void remember(void) {
    first_price = price;
}

void answer(const char *question) {
    int amount = atoi(question);

    printf("%s ", label(amount));
    printf("%d ", first_price(amount));
    puts(first_price == price ? "yes" : "no");
}
