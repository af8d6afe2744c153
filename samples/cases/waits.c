// A thread is inside the changed function most of the time, asleep there, but comes out now and then:
// apply waits for such a moment.
//# build: gcc -O2
//# build: clang -O2
//# changed: nap
//# kept: sleeper answer
//# before: old => yes
//# after: new => yes
//# after: old => no
#include "sample.h"
#include <pthread.h>
#include <time.h>

static volatile long old_naps, new_naps;

NOINLINE void nap(const struct timespec *how_long) {
    nanosleep(how_long, NULL);
#ifdef NEW
    new_naps++;
#else
    old_naps++;
#endif
}

NOINLINE void *sleeper(void *unused) {
    struct timespec ten_ms = {0, 10000000}, two_ms = {0, 2000000};

    for (;;) {
        nap(&ten_ms);
        nanosleep(&two_ms, NULL);
    }
    return unused;
}

__attribute__((constructor)) static void start(void) {
    pthread_t thread;

    pthread_create(&thread, NULL, sleeper, NULL);
}

/* Two naps may have been under way; a third one in three seconds tells which version naps. */
void answer(const char *question) {
    volatile long *naps = question[0] == 'o' ? &old_naps : &new_naps;
    volatile long *others = question[0] == 'o' ? &new_naps : &old_naps;
    long before = *naps, others_before = *others;
    struct timespec ms = {0, 1000000};

    for (int i = 0; i < 3000 && *naps < before + 3 && *others < others_before + 3; i++)
        nanosleep(&ms, NULL);
    puts(*naps >= before + 3 ? "yes" : "no");
}
