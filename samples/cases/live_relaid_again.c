// A frame that will go on in a copy of NEW's code, as objects of it lie elsewhere in NEW's own, is in the way of an
// update that changes this function again: what that knows is of NEW's own frames. Also while it still waits in OLD's.
//# build: gcc -O2 -fno-omit-frame-pointer
//# build-args: --init-new-locals
//# ladder: 1 2 3
//# changed: serve
//# changed 2: serve
//# before: 5 => 5 is 5
//# apply 2: 17
//# apply-args 2: --timeout 300
//# blocker 2: serve
//# says 2: since an earlier update
//# after 2: 7 => 7 makes 12 in 1
//# after 2: quit => left 12
//# after 2: 4 => 4 makes 4 in 1
#include "sample.h"

struct account {
    long total;
    long last;
};

static struct account *open_account;
static char *open_line;

NOINLINE void begin(struct account *account, char *line) {
    open_account = account;
    open_line = line;
}

NOINLINE void add(long amount) {
    open_account->total += amount;
    open_account->last = amount;
}

NOINLINE long total(struct account *account, char *line) {
    return account == open_account && line == open_line ? account->total : -1;
}

NOINLINE long serve(void) {
    struct account account = {0};
    char line[40];

#if VERSION > 1
    long rounds = 0;
#endif
    begin(&account, line);
    while (fgets(line, sizeof line, stdin) && *line != 'q') {
        line[strcspn(line, "\n")] = 0;
        add(atoi(line));
#if VERSION == 1
        printf("%s is %ld\n", line, total(&account, line));
#else
        rounds += VERSION - 1;
        printf("%s makes %ld in %ld\n", line, total(&account, line), rounds);
#endif
    }
    return account.total;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (!feof(stdin))
        printf("left %ld\n", serve());
    return 0;
}
