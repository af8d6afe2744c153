// THREADS HOT: so many threads, of which HOT spin through functions that are replaced and the others
// wait. Answers "v" with the lowest and highest version that each hot thread saw last.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone, used))

struct state {
  volatile long seen;
  volatile long rounds;
  long value;
};

static struct state states[1024];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t shared = PTHREAD_MUTEX_INITIALIZER;
static volatile long under_lock;
static volatile long handled;
static long before[1024];
static pthread_attr_t detached;

KEEP long inner(struct state *s, long n) {
  for (long i = 0; i < n; i++) s->value = s->value * 6364136223846793005L + VERSION;
  return VERSION;
}

KEEP long middle(struct state *s, long n) {
  long v = inner(s, n);
  s->rounds++;
  return v * 10 + VERSION;
}

KEEP void outer(struct state *s) {
  s->seen = middle(s, 200) * 10 + VERSION;
}

// Recursion: the return address of the outermost frame is passed many times.
KEEP long deep(struct state *s, long n) {
  if (n == 0) return inner(s, 50);
  return deep(s, n - 1) + (s->value & 1) * 0;
}

// Kept: calls out of the image would need the PLT, which the hand-made bundles know nothing of.
KEEP void take(void) { pthread_mutex_lock(&shared); }
KEEP void give(void) { pthread_mutex_unlock(&shared); }

KEEP long locked_step(long x) { return x + VERSION; }

// Takes a lock that all threads fight for, in a function that is replaced.
KEEP void fight(struct state *s) {
  take();
  under_lock = locked_step(under_lock);
  s->seen = VERSION * 111;
  give();
  s->rounds++;
}

// Called by the signal handler.
KEEP void on_signal(void) { handled = handled + VERSION; }

static void handler(int sig) { (void)sig; on_signal(); }

static void *hot(void *p) {
  for (;;) outer(p);
}

static void *fighter(void *p) {
  for (;;) fight(p);
}

static void *diver(void *p) {
  struct state *s = p;
  for (;;) {
    s->seen = deep(s, 30) * 111;
    s->rounds++;
  }
}

static void *brief(void *p) {
  outer(p);
  return 0;
}

KEEP void make_one(struct state *s) {
  pthread_t t;
  if (pthread_create(&t, 0, brief, s) == 0) pthread_join(t, 0);
}

// Makes threads that end soon, all the time.
static void *maker(void *p) {
  for (;;) make_one(p);
}

KEEP void make_late(struct state *s) {
  for (volatile long i = 0; i < 100000; i++) ;
  make_one(s);
}

// The same in a function that is replaced and never left.
KEEP void breed(struct state *s) {
  for (;;) {
    make_late(s);
    s->value = VERSION;
  }
}

static void *breeder(void *p) {
  breed(p);
  return 0;
}

// Makes its successor, and ends.
static void *relay(void *p) {
  struct state *s = p;
  outer(s);
  pthread_t t;
  while (pthread_create(&t, &detached, relay, s)) usleep(100);
  return 0;
}

static void *idle(void *p) {
  (void)p;
  pthread_mutex_lock(&lock);
  return 0;
}

static void *sleeper(void *p) {
  struct state *s = p;
  for (;;) {
    struct timespec t = {0, 300000};
    nanosleep(&t, 0);
    outer(s);
  }
}

// What happens to the process itself, some time after it was asked for.
struct event {
  char what;
  int after_us;
};

static void *happen(void *p) {
  struct event *e = p;
  usleep(e->after_us);
  switch (e->what) {
    case 'E': exit(7);
    case 'G': syscall(SYS_exit_group, 8);
    case 'T': kill(getpid(), SIGTERM); break;
    case 'S': *(volatile int *)8 = 0; break;
    case 'X': execl("/bin/cat", "cat", (char *)0); break;
  }
  return 0;
}

static volatile long children, strays;

// Children that end by themselves, with an error where they have inherited what is not their parent's; or that run
// another program.
static void *parent(void *p) {
  int by_vfork = *(char *)p == 'V';
  for (;;) {
    int status = 0;
    pid_t child = by_vfork ? vfork() : fork();
    if (child == 0 && by_vfork) execl("/bin/true", "true", (char *)0);
    struct sigaction trap;
    if (child == 0) _exit(sigaction(SIGTRAP, 0, &trap) || trap.sa_handler != SIG_DFL);
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) strays++;
    children++;
  }
}

static void begin(void *(*f)(void *), char what, int after_us) {
  struct event *e = malloc(sizeof *e);
  *e = (struct event){what, after_us};
  pthread_t t;
  if (pthread_create(&t, &detached, f, e)) abort();
}

int main(int argc, char **argv) {
  int threads = atoi(argv[1]), busy = atoi(argv[2]);
  const char *how = argc > 3 ? argv[3] : "hot";
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, 256 * 1024);
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  pthread_mutex_lock(&lock);
  setvbuf(stdin, 0, _IONBF, 0);
  setvbuf(stdout, 0, _IOLBF, 0);
  if (!strcmp(how, "signals")) {
    stack_t alt = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&alt, 0);
    struct sigaction a = {.sa_handler = handler, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigaction(SIGALRM, &a, 0);
    struct itimerval t = {{0, 200}, {0, 200}};
    setitimer(ITIMER_REAL, &t, 0);
  }
  for (int i = 1; i < threads; i++) {
    void *(*f)(void *) = idle;
    if (i <= busy) {
      f = hot;
      if (!strcmp(how, "fight")) f = fighter;
      if (!strcmp(how, "deep")) f = diver;
      if (!strcmp(how, "make")) f = maker;
      if (!strcmp(how, "breed")) f = breeder;
      if (!strcmp(how, "relay")) f = relay;
      if (!strcmp(how, "sleep")) f = sleeper;
    }
    pthread_t t;
    if (pthread_create(&t, &attr, f, &states[i])) return 1;
  }
  for (int i = 1; i <= busy && i < threads; i++)
    while (states[i].rounds == 0) usleep(1000);
  puts("ready");
  char line[100];
  while (fgets(line, sizeof line, stdin)) {
    long low = 1000000, high = 0, rounds = 0;
    switch (line[0]) {
      case 'v':
        // Two rounds after this moment, no thread can have seen what was before it.
        for (int i = 1; i <= busy && i < threads; i++) before[i] = states[i].rounds;
        for (int i = 1; i <= busy && i < threads; i++) {
          while (states[i].rounds < before[i] + 2) usleep(1000);
          long v = states[i].seen;
          if (v < low) low = v;
          if (v > high) high = v;
        }
        printf("%ld %ld\n", low, high);
        break;
      case 'F':
      case 'V': puts("begun"); begin(parent, line[0], 0); break;
      case 'c': printf("%ld\n", children); break;
      case 'w': printf("%ld\n", strays); break;
      case 'E':
      case 'G':
      case 'T':
      case 'S':
      // Said first: nothing may be left to say it.
      case 'X': puts("begun"); begin(happen, line[0], atoi(line + 1)); break;
      case 'L': puts("alone"); pthread_exit(0);
      case 'h': printf("%ld\n", handled); break;
      case 'r':
        for (int i = 1; i <= busy; i++) rounds += states[i].rounds;
        printf("%ld\n", rounds);
        break;
      case 'q': return 0;
    }
  }
  return 0;
}
