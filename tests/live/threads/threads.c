/* 64 threads and more: mutexes, condition variables, spin locks, read-write locks, barriers, a pool,
   pipes, and threads that come and go. Every loop is a function of its own that never returns while the
   program runs, and that holds its lock over calls that block. With -DNEW each of them has a statement, a
   check and a local more, and counts in another row.

   Money moves and is never made: at the end, and whenever it is asked, the sums must be what they were. It
   answers one line for each line of its input; at the input's end it stops all threads, checks again, and
   ends with 0. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

#ifdef NEW
#define VERSION 1
#define ADDED(...) __VA_ARGS__
#else
#define VERSION 0
#define ADDED(...)
#endif

enum { MUTEX, CONDITION, SPIN, READ, WRITE, BARRIER, POOL, PIPE, SPAWN, SHORT, KINDS };
enum { EACH = 8, ACCOUNTS = 64, MONEY = 1000, ROOM = 16, TASKS = 32 };

/* Rounds by version and kind; a row moves only when its version's code runs. */
static volatile unsigned long rounds[2][KINDS];
static volatile unsigned long torn;
static volatile int stop;

static NOINLINE void count(int version, int kind) {
    __atomic_fetch_add(&rounds[version][kind], 1, __ATOMIC_RELAXED);
}

/* What NEW checks more; never true. */
static volatile int noted;

static NOINLINE void complain(const char *what) {
    fprintf(stderr, "torn: %s\n", what);
    __atomic_fetch_add(&torn, 1, __ATOMIC_RELAXED);
}

static unsigned next(unsigned *seed) {
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 8;
}

/* Mutexes: two accounts are locked in order, and money moves after a sleep. */
static pthread_mutex_t account_lock[ACCOUNTS];
static long account[ACCOUNTS];

static NOINLINE void transfer(unsigned *seed, int sleep_us) {
    unsigned from = next(seed) % ACCOUNTS, to = next(seed) % ACCOUNTS;
    if (from == to)
        to = (to + 1) % ACCOUNTS;
    unsigned first = from < to ? from : to, second = from < to ? to : from;
    pthread_mutex_lock(&account_lock[first]);
    pthread_mutex_lock(&account_lock[second]);
    long amount = account[from] / 2;
    account[from] -= amount;
    if (sleep_us > 0)
        usleep(sleep_us);
    account[to] += amount;
    ADDED(noted |= account[to] < amount;)
    pthread_mutex_unlock(&account_lock[second]);
    pthread_mutex_unlock(&account_lock[first]);
}

/* Not on the stack: an object there has to stay where it is, and NEW's frames are larger. */
static unsigned seeds[2 * EACH];

static NOINLINE void *mutex_loop(void *argument) {
    unsigned *seed = &seeds[(long)argument];
    while (!stop) {
        transfer(seed, 100);
        count(VERSION, MUTEX);
        usleep(5000);
    }
    return NULL;
}

/* Condition variables: a ring of numbers; what was put in is what comes out. */
static pthread_mutex_t ring_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ring_filled = PTHREAD_COND_INITIALIZER;
static pthread_cond_t ring_emptied = PTHREAD_COND_INITIALIZER;
static unsigned ring[ROOM];
static int ring_first, ring_used;
static unsigned long ring_in, ring_out;

static NOINLINE void *producer_loop(void *argument) {
    unsigned seed = (unsigned)(long)argument;
    while (!stop) {
        unsigned number = next(&seed);
        pthread_mutex_lock(&ring_lock);
        while (ring_used == ROOM && !stop)
            pthread_cond_wait(&ring_emptied, &ring_lock);
        if (ring_used < ROOM) {
            ADDED(int last = ring_first + ring_used;)
            ring[(ring_first + ring_used) % ROOM] = number;
            ring_used++;
            ring_in += number;
            ADDED(noted |= last < 0;)
        }
        pthread_cond_signal(&ring_filled);
        pthread_mutex_unlock(&ring_lock);
        count(VERSION, CONDITION);
        usleep(8000);
    }
    return NULL;
}

static NOINLINE void *consumer_loop(void *argument) {
    unsigned long taken = 0;
    (void)argument;
    while (!stop) {
        pthread_mutex_lock(&ring_lock);
        while (ring_used == 0 && !stop)
            pthread_cond_wait(&ring_filled, &ring_lock);
        if (ring_used > 0) {
            unsigned number = ring[ring_first];
            ring_first = (ring_first + 1) % ROOM;
            ring_used--;
            ring_out += number;
            taken++;
            ADDED(noted |= ring_used < 0;)
        }
        pthread_cond_signal(&ring_emptied);
        pthread_mutex_unlock(&ring_lock);
        count(VERSION, CONDITION);
    }
    return (void *)taken;
}

/* A spin lock around two numbers whose sum stays. */
static pthread_spinlock_t spin;
static long spun[2] = {MONEY, MONEY};

static NOINLINE void *spin_loop(void *argument) {
    unsigned seed = (unsigned)(long)argument;
    while (!stop) {
        long amount = next(&seed) % 10;
        pthread_spin_lock(&spin);
        spun[0] -= amount;
        for (volatile int i = 0; i < 50; i++)
            ;
        spun[1] += amount;
        ADDED(noted |= spun[0] + spun[1] != 2 * MONEY;)
        pthread_spin_unlock(&spin);
        count(VERSION, SPIN);
        usleep(7000);
    }
    return NULL;
}

/* A read-write lock: readers must never see the sum while a writer sleeps inside. */
static pthread_rwlock_t rw;
static long left = MONEY, right = MONEY;

static NOINLINE void *reader_loop(void *argument) {
    long seen = 0;
    (void)argument;
    while (!stop) {
        pthread_rwlock_rdlock(&rw);
        if (left + right != 2 * MONEY)
            complain("reader_loop");
        usleep(100);
        seen += left;
        ADDED(noted |= left + right != 2 * MONEY;)
        pthread_rwlock_unlock(&rw);
        count(VERSION, READ);
        usleep(7000);
    }
    return (void *)seen;
}

static NOINLINE void *writer_loop(void *argument) {
    unsigned seed = (unsigned)(long)argument;
    while (!stop) {
        long amount = next(&seed) % 100;
        pthread_rwlock_wrlock(&rw);
        left -= amount;
        usleep(100);
        right += amount;
        ADDED(noted |= left + right != 2 * MONEY;)
        pthread_rwlock_unlock(&rw);
        count(VERSION, WRITE);
        usleep(20000);
    }
    return NULL;
}

/* A barrier: all are in the same round, or one has been lost. */
static pthread_barrier_t barrier;
static volatile unsigned long arrived[EACH];
static volatile int barrier_over;

static NOINLINE void *barrier_loop(void *argument) {
    long number = (long)argument;
    unsigned long round = 0;
    for (;;) {
        arrived[number] = ++round;
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
            barrier_over = stop;
        for (int i = 0; i < EACH; i++)
            if (arrived[i] != round)
                complain("barrier_loop");
        ADDED(noted |= round == 0;)
        count(VERSION, BARRIER);
        pthread_barrier_wait(&barrier);
        if (barrier_over)
            return NULL;
        usleep(10000);
    }
}

/* A pool: tasks are functions that wait in a list. */
struct task {
    void (*work)(unsigned *);
    unsigned seed;
};
static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t pool_filled = PTHREAD_COND_INITIALIZER;
static struct task tasks[TASKS];
static int task_count;
static unsigned long tasks_given, tasks_done;

static NOINLINE void task_transfer(unsigned *seed) {
    transfer(seed, 0);
    ADDED(noted |= *seed == 0;)
}

static NOINLINE void *pool_loop(void *argument) {
    (void)argument;
    for (;;) {
        pthread_mutex_lock(&pool_lock);
        while (task_count == 0 && !stop)
            pthread_cond_wait(&pool_filled, &pool_lock);
        if (task_count == 0) {
            pthread_mutex_unlock(&pool_lock);
            return NULL;
        }
        struct task task = tasks[--task_count];
        pthread_mutex_unlock(&pool_lock);
        task.work(&task.seed);
        __atomic_fetch_add(&tasks_done, 1, __ATOMIC_RELAXED);
        ADDED(noted |= task.work == NULL;)
        count(VERSION, POOL);
    }
}

static NOINLINE void give_tasks(unsigned *seed) {
    pthread_mutex_lock(&pool_lock);
    while (task_count < TASKS / 2) {
        tasks[task_count++] = (struct task){task_transfer, next(seed)};
        tasks_given++;
    }
    pthread_cond_broadcast(&pool_filled);
    pthread_mutex_unlock(&pool_lock);
    ADDED(noted |= seed == NULL;)
}

/* Pipes in a ring: a token goes around, every thread waits in a read for it. */
static int pipes[EACH][2];
static volatile unsigned long token_at;

static NOINLINE void *pipe_loop(void *argument) {
    long number = (long)argument;
    unsigned long token;
    for (;;) {
        if (read(pipes[number][0], &token, sizeof token) != (ssize_t)sizeof token)
            return NULL;
        if (token != token_at)
            complain("pipe_loop");
        token_at = token + 1;
        token = token + 1;
        ADDED(noted |= token == 0;)
        count(VERSION, PIPE);
        if (stop)
            return NULL;
        usleep(1000);
        if (write(pipes[(number + 1) % EACH][1], &token, sizeof token) != (ssize_t)sizeof token)
            return NULL;
    }
}

/* Threads that come and go. */
static NOINLINE void *short_life(void *argument) {
    unsigned seed = (unsigned)(long)argument;
    transfer(&seed, 50);
    count(VERSION, SHORT);
    ADDED(if (seed == 1) seed++;)
    return (void *)(long)(seed | 1);
}

static pthread_t born[EACH];
static void *results[EACH];

static NOINLINE void *spawn_loop(void *argument) {
    long number = (long)argument;
    unsigned *seed = &seeds[EACH + number];
    while (!stop) {
        if (pthread_create(&born[number], NULL, short_life, (void *)(long)next(seed))) {
            complain("pthread_create");
            return NULL;
        }
        give_tasks(seed);
        pthread_join(born[number], &results[number]);
        if (results[number] == NULL)
            complain("spawn_loop");
        ADDED(noted |= *seed == 0;)
        count(VERSION, SPAWN);
        usleep(20000);
    }
    return NULL;
}

/* All sums, while nobody moves anything. */
static NOINLINE int in_order(void) {
    long sum = 0;
    for (int i = 0; i < ACCOUNTS; i++)
        pthread_mutex_lock(&account_lock[i]);
    for (int i = 0; i < ACCOUNTS; i++)
        sum += account[i];
    for (int i = ACCOUNTS - 1; i >= 0; i--)
        pthread_mutex_unlock(&account_lock[i]);
    pthread_mutex_lock(&ring_lock);
    unsigned long waiting = 0;
    for (int i = 0; i < ring_used; i++)
        waiting += ring[(ring_first + i) % ROOM];
    int ring_right = ring_in == ring_out + waiting;
    pthread_mutex_unlock(&ring_lock);
    pthread_spin_lock(&spin);
    long both = spun[0] + spun[1];
    pthread_spin_unlock(&spin);
    return sum == (long)ACCOUNTS * MONEY && ring_right && both == 2 * MONEY && torn == 0 && noted == 0;
}

/* One line: whether all is in order, and the rounds of both versions. */
static NOINLINE void answer(void) {
    printf("%s", in_order() ? "right" : "WRONG");
    for (int version = 0; version < 2; version++)
        for (int kind = 0; kind < KINDS; kind++)
            printf(" %lu", rounds[version][kind]);
    printf("\n");
    fflush(stdout);
}

static pthread_t threads[KINDS * EACH];
static int thread_count;

static void start(void *(*loop)(void *), int how_many) {
    for (long i = 0; i < how_many; i++)
        if (pthread_create(&threads[thread_count++], NULL, loop, (void *)i))
            _exit(3);
}

int main(void) {
    char line[16];
    unsigned long token = 0;

    for (unsigned i = 0; i < 2 * EACH; i++)
        seeds[i] = i + 1;
    for (int i = 0; i < ACCOUNTS; i++) {
        pthread_mutex_init(&account_lock[i], NULL);
        account[i] = MONEY;
    }
    pthread_spin_init(&spin, 0);
    // Writers come in although there is always a reader.
    pthread_rwlockattr_t kind;
    pthread_rwlockattr_init(&kind);
    pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&rw, &kind);
    pthread_barrier_init(&barrier, NULL, EACH);
    for (int i = 0; i < EACH; i++)
        if (pipe(pipes[i]))
            return 3;
    start(mutex_loop, EACH);
    start(producer_loop, EACH / 2);
    start(consumer_loop, EACH / 2);
    start(spin_loop, EACH);
    start(reader_loop, EACH - 2);
    start(writer_loop, 2);
    start(barrier_loop, EACH);
    start(pool_loop, EACH);
    start(pipe_loop, EACH);
    start(spawn_loop, EACH - 1);
    if (write(pipes[0][1], &token, sizeof token) != (ssize_t)sizeof token)
        return 3;
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        answer();

    stop = 1;
    // Whoever waits is woken until all have seen it.
    for (int i = 0; i < 200; i++) {
        pthread_cond_broadcast(&ring_filled);
        pthread_cond_broadcast(&ring_emptied);
        pthread_cond_broadcast(&pool_filled);
        usleep(1000);
    }
    for (int i = 0; i < EACH; i++)
        close(pipes[i][1]);
    for (int i = 0; i < thread_count; i++)
        pthread_join(threads[i], NULL);
    if (tasks_given != tasks_done + (unsigned long)task_count)
        complain("pool");
    answer();
    return in_order() ? 0 : 1;
}
