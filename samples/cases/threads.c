// Four threads spin through a changed function without pause. After the update every one of them is
// seen to run NEW, and none still runs OLD.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: work
//# kept: spin answer main
//# before: old => 4 of 4
//# after: new => 4 of 4
//# after: old no more => 0 of 4
#include "sample.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define THREADS 4

static struct {
    atomic_long old, new;
    char apart[48];
} counters[THREADS];

NOINLINE long work(long me, long n) {
#ifdef NEW
    atomic_fetch_add_explicit(&counters[me].new, 1, memory_order_relaxed);
    return n * 5 + 1;
#else
    atomic_fetch_add_explicit(&counters[me].old, 1, memory_order_relaxed);
    return n * 3 + 1;
#endif
}

NOINLINE void *spin(void *me) {
    long n = 1;

    for (;;)
        n = work((long)me, n);
    return NULL;
}

/* How many threads run that version now: their counter moves. Who is patient waits up to two seconds
   for each, who expects nothing looks for 50 ms. */
NOINLINE int running(int new, int patient) {
    int seen = 0;

    for (int t = 0; t < THREADS; t++) {
        atomic_long *c = new ? &counters[t].new : &counters[t].old;
        long before = atomic_load(c);
        int i;

        for (i = 0; i < (patient ? 2000 : 50) && atomic_load(c) == before; i++) {
            struct timespec ms = {0, 1000000};
            nanosleep(&ms, NULL);
        }
        seen += atomic_load(c) != before;
    }
    return seen;
}

void answer(const char *question) {
    int of = running(question[0] == 'n', strstr(question, "no more") == NULL);

    printf("%d of %d\n", of, THREADS);
}

int main(void) {
    char line[64];

    for (long t = 0; t < THREADS; t++) {
        pthread_t thread;
        pthread_create(&thread, NULL, spin, (void *)t);
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        answer(line);
        fflush(stdout);
    }
    return 0;
}
