// A frame that goes on in NEW at every call, though NEW's layout has the object whose address is known nearer to
// the CFA: NEW saves fewer registers. Its frame stands lower, and the object keeps its address. The next
// update finds it there, and it returns by way of what is left over from OLD's frame.
//# build: gcc -O2
//# build: gcc -O2 -fno-omit-frame-pointer
//# ladder: 1 2 3
//# changed: serve
//# changed 2: serve
//# kept: main add total
//# before: 5 => 5 17
//# before: 6 => 11 15
//# after: 7 => 18 of 18
//# after: quit => left 18
//# after: 1 => 1 of 1
//# after 2: 2 => 3
//# after 2: quit => left 3
//# after 2: 4 => 4
#include "sample.h"

struct account {
    long total;
    char name[40];
};

static struct account *open_account;

NOINLINE void add(long amount) {
    open_account->total += amount;
}

NOINLINE long total(struct account *account) {
    return account == open_account ? account->total : -1;
}

NOINLINE long serve(long a, long b, long c, long d, long e) {
    struct account account = {0};
    char line[64];

    open_account = &account;
    for (long round = 1; fgets(line, sizeof line, stdin) && *line != 'q'; round++) {
        add(atoi(line));
#if VERSION == 1
        printf("%ld %ld\n", total(&account), (a ^ round) + (b ^ round) + (c ^ round) + (d ^ round) + e);
#elif VERSION == 2
        printf("%ld of %ld\n", total(&account), total(&account) + 0 * round);
#else
        printf("%ld\n", total(&account));
#endif
    }
    return account.total;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (!feof(stdin))
        printf("left %ld\n", serve(3, 4, 4, 2, 2));
    return 0;
}
