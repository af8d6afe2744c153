/* A thread waits inside a function that is replaced, over any number of updates, and says which version it
   wakes in. Its sum is in its frame. -DVERSION=1, 2, 3: each has more in its loop than the one before. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

static int to_waiter[2], from_waiter[2];
static volatile long spare;

static NOINLINE long receive(void) {
    long number = 0;
    if (read(to_waiter[0], &number, sizeof number) != (ssize_t)sizeof number)
        return -1;
    return number;
}

static NOINLINE void send_answer(long sum, long version) {
    long answer[2] = {sum, version};
    if (write(from_waiter[1], answer, sizeof answer) != (ssize_t)sizeof answer)
        spare = 1;
}

static NOINLINE void *waiter(void *argument) {
    long sum = (long)argument;
    for (;;) {
        long number = receive();
        if (number < 0)
            return NULL;
        sum += number;
#if VERSION >= 2
        spare++;
#endif
#if VERSION >= 3
        if (spare < 0)
            sum = 0;
        spare += 2;
#endif
        send_answer(sum, VERSION);
    }
}

int main(void) {
    char line[16];
    pthread_t thread;
    long number = 0, answer[2];

    if (pipe(to_waiter) || pipe(from_waiter) || pthread_create(&thread, NULL, waiter, (void *)100))
        return 3;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        number++;
        if (write(to_waiter[1], &number, sizeof number) != (ssize_t)sizeof number)
            return 3;
        if (read(from_waiter[0], answer, sizeof answer) != (ssize_t)sizeof answer)
            return 3;
        printf("sum %ld version %ld\n", answer[0], answer[1]);
        fflush(stdout);
    }
    close(to_waiter[1]);
    pthread_join(thread, NULL);
    return 0;
}
