// One of three threads sleeps inside the changed function for good, and no frame is to be carried over.
// The update is refused with its name and line; the others are left as they were. (A frame that waits
// there for a moment delays it only.)
//# build: gcc -O2
//# build: clang -O2
//# build-args: --no-live-frames
//# changed: linger
//# kept: brief answer
//# apply: 17
//# apply-args: --timeout 200
//# blocker: linger
//# says: blocked_thread.c
//# before: a => 1
//# after: b => 2
#include "sample.h"
#include <pthread.h>
#include <unistd.h>

static int calls;
static int never[2];

NOINLINE void linger(void) {
    char c;

    while (read(never[0], &c, 1) == 1)
#ifdef NEW
        calls += 2;
#else
        calls += 1;
#endif
}

NOINLINE int brief(void) {
    return ++calls;
}

static void *wait_there(void *unused) {
    linger();
    return unused;
}

static void *wait_here(void *unused) {
    pause();
    return unused;
}

__attribute__((constructor)) static void start(void) {
    pthread_t thread;

    if (pipe(never) != 0)
        abort();
    pthread_create(&thread, NULL, wait_there, NULL);
    pthread_create(&thread, NULL, wait_here, NULL);
    /* once it has counted a byte, it is inside for good */
    if (write(never[1], "x", 1) != 1)
        abort();
    while (*(volatile int *)&calls == 0)
        usleep(100);
    calls = 0;
}

void answer(const char *question) {
    (void)question;
    printf("%d\n", brief());
}
