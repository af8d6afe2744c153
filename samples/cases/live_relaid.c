// A frame that goes on in NEW at every call, though NEW's layout has the objects whose addresses are known further
// from the CFA, by no multiple of 16: NEW saves another register for a counter. It goes on in a copy of NEW's code,
// in which they are where they were. The next update changes what that code calls, and finds the objects there, too.
//# build: gcc -O2
//# build: gcc -O2 -fno-omit-frame-pointer
//# ladder: 1 2 3
//# changed: serve
//# build-args: --init-new-locals
//# changed 2: add
//# before: 5 => 5 is 5
//# before: 6 => 6 is 11
//# after: 7 => 7 makes 18 in 1
//# after: 8 => 8 makes 26 in 2
//# after 2: 2 => 2 makes 30 in 3
//# after 2: quit => left 30
//# after 2: 4 => 4 makes 8 in 1
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
#if VERSION == 3
    amount *= 2;
#endif
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
        rounds++;
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
