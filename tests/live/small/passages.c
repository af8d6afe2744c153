/* A thread waits in a call that only version 1 makes: OLD's code, from which the frame soon comes to a point where
   it goes on in NEW. What it comes to says in which version it went on: -DVERSION=1, 2, 3. It may also leave the
   frame by longjmp, by ending, or by being cancelled. */
#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <unistd.h>

#define NOINLINE __attribute__((noipa))

static int to_waiter[2], from_waiter[2];
static volatile long limit = 200, undone;
static __thread jmp_buf out;

/* They call something, so that no version keeps anything in registers over them that another one does not. */
static NOINLINE long hook(long n) { return n + 2 + write(-1, (void *)&limit, 0); }
static NOINLINE long last(long n) { return n + 1 + write(-1, (void *)&limit, 0); }

static NOINLINE void tell(char what) {
    if (write(from_waiter[1], &what, 1) != 1)
        limit = -1;
}

/* Waits until it is told how to go on. */
static NOINLINE long probe(long n) {
    char how = 0;
    tell('w');
    if (read(to_waiter[0], &how, 1) != 1 || n < 0)
        return -1;
    if (how == 'j')
        longjmp(out, 1);
    if (how == 'x')
        pthread_exit((void *)7);
    return 100;
}

static NOINLINE long f(long n) {
    for (;;) {
        n = hook(n);
#if VERSION == 1
        n += probe(n);
#elif VERSION == 2
        n += 10;
#else
        n += 20;
#endif
        if (last(n) >= limit)
            return n;
    }
}

static NOINLINE void undo(void *counter) { (*(volatile long *)counter)++; }

static NOINLINE void *work(void *argument) {
    long result = -1;
    pthread_cleanup_push(undo, (void *)&undone);
    if (!setjmp(out))
        result = f((long)argument);
    tell('d');
    pthread_cleanup_pop(0);
    return (void *)result;
}

/* What the thread does next: waits, is done; by itself, or because it is told to. */
static char next(void) {
    char what = 0;
    return read(from_waiter[0], &what, 1) == 1 ? what : 0;
}

int main(void) {
    char line[16], state = 0;
    pthread_t thread = 0;
    void *result;

    if (pipe(to_waiter) || pipe(from_waiter))
        return 3;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (line[0] == 's') {
            if (pthread_create(&thread, NULL, work, NULL))
                return 3;
            state = next();
        } else if (line[0] == 'c') {
            pthread_cancel(thread);
            state = 'd';
        } else if (line[0] == 'x') {
            if (write(to_waiter[1], line, 1) != 1)
                return 3;
            state = 'd';
        } else {
            if (write(to_waiter[1], line, 1) != 1)
                return 3;
            state = next();
        }
        if (state != 'd') {
            puts("waits");
        } else {
            pthread_join(thread, &result);
            printf("%ld undone %ld\n", (long)result, undone);
        }
        fflush(stdout);
    }
    /* Every version has it. */
    return limit < 0 ? (int)probe(limit) : 0;
}
