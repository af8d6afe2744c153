// A thread sleeps inside the changed function for good, and another deep in a recursion: their frames go
// on in NEW when they wake, with what they counted, there and back.
//# build: gcc -O2
//# build: gcc -O1
//# build: clang -O2
//# changed: linger dig
//# changed 2: linger dig
//# kept: answer
//# ladder: 1 2 1
//# before: a => 1
//# before: b => 2
//# after 1: c => 12
//# after 1: d => 22
//# after 1: dig => 555
//# after 2: e => 23
#include "sample.h"
#include <pthread.h>
#include <unistd.h>

static volatile int calls, depth_sum, woken;
static int bytes[2], deep[2];

NOINLINE void linger(void) {
    char c;
    int mine = 0;

    while (read(bytes[0], &c, 1) == 1) {
#ifdef NEW
        mine += 10;
#else
        mine += 1;
#endif
        calls = mine;
    }
}

/* five frames wait below the innermost one */
NOINLINE int dig(int depth) {
    char c;
    int sum;

    if (depth == 0)
        return (int)read(deep[0], &c, 1) - 1;
    sum = dig(depth - 1);
    woken++; /* so that this stays a recursion */
#ifdef NEW
    return sum + 111;
#else
    return sum + 1;
#endif
}

static void *wait_there(void *unused) {
    linger();
    return unused;
}

static void *wait_below(void *unused) {
    depth_sum = dig(5);
    return unused;
}

__attribute__((constructor)) static void start(void) {
    pthread_t thread;

    if (pipe(bytes) != 0 || pipe(deep) != 0)
        abort();
    pthread_create(&thread, NULL, wait_there, NULL);
    pthread_create(&thread, NULL, wait_below, NULL);
}

void answer(const char *question) {
    volatile int *counter = strcmp(question, "dig") == 0 ? &depth_sum : &calls;
    int before = *counter;

    if (write(counter == &calls ? bytes[1] : deep[1], "x", 1) != 1)
        abort();
    while (*counter == before)
        usleep(100);
    printf("%d\n", *counter);
}
