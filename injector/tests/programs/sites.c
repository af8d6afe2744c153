// WHAT [THREADS]: functions that stay on the stack. Builds of different VERSIONs differ by constants
// alone: every instruction is at the same offset, and every frame has the same layout.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone, used))
// A name for a program point: a function symbol of one byte, which costs no instruction.
#define POINT(name)                                                                    \
  __asm__ volatile(".globl site_" #name "\n.type site_" #name ",@function\nsite_" #name \
                   ":\n.size site_" #name ",1" ::: "memory")
// A constant of one encoded length, loaded where it stands: not kept in a register over a loop.
#define MARK                                                                           \
  ({                                                                                   \
    long mark;                                                                         \
    __asm__ volatile("mov %1, %0" : "=r"(mark) : "i"(VERSION * 1000));                 \
    mark;                                                                              \
  })

struct state {
  volatile long seen;    // MARK of the code that ran last
  volatile long rounds;
  volatile long torn;    // rounds in which a version was mixed with another
  volatile long value;
  long pad[12];
};

static struct state states[1024];
static int gate[2];
static volatile long handled;
static volatile long trapped;

// Kept: calls out of the image need the PLT, which the hand-made bundles know nothing of.
KEEP long ask(void) {
  char line[32];
  long n = 0;
  while (n < 31 && read(0, line + n, 1) == 1 && line[n] != '\n') n++;
  if (n == 0) _exit(0);
  line[n] = 0;
  return atol(line);
}

KEEP void tell(long x) {
  char line[32];
  int n = snprintf(line, sizeof line, "%ld\n", x);
  if (write(1, line, n) != n) _exit(1);
}

KEEP void doze(void) {
  struct timespec t = {0, 300000};
  nanosleep(&t, 0);
}

KEEP void work(struct state *s) {
  for (long i = 0; i < 3000; i++) s->value = s->value * 3 + 1;
}

// Replaced. Never returns, blocked in the kernel nearly always.
KEEP void serve(void) {
  long rounds = 0;
  for (;;) {
    long c = ask();
    rounds++;
    tell(rounds * 1000000 + MARK + c);
  }
}

// Replaced. Never returns, calls nothing.
KEEP void spin(struct state *s) {
  for (;;) {
    POINT(spin);
    s->value = s->value + 1;
    s->seen = MARK;
    for (long i = 0; i < 9; i++) s->value = s->value * 5 + i;
    s->value = s->value ^ 3;
    s->torn = s->torn + (s->seen != MARK);
    s->rounds = s->rounds + 1;
  }
}

// Replaced. Like it, but looks whether it is being stepped, all the time.
KEEP void wary(struct state *s) {
  s->value = 1;
  for (;;) {
    POINT(wary);
    s->seen = MARK;
    for (long i = 0; i < 4; i++) {
      unsigned long flags;
      __asm__ volatile("pushf\n\tpop %0" : "=r"(flags)::"memory");
      trapped = trapped + (flags >> 8 & 1);
      s->value = s->value * 5 + i;
    }
    s->rounds = s->rounds + 1;
  }
}

// Replaced. Spends its time in what it calls; no site behind the call.
KEEP void toil(struct state *s) {
  for (;;) {
    POINT(toil);
    s->seen = MARK;
    s->value = s->value ^ 5;
    work(s);
    s->value = s->value + 77;
    s->torn = s->torn + (s->seen != MARK);
    s->rounds = s->rounds + 1;
  }
}

// Replaced. Sleeps and wakes.
KEEP void nap(struct state *s) {
  for (;;) {
    doze();
    s->seen = MARK;
    s->rounds = s->rounds + 1;
  }
}

// Replaced. Copies with one instruction.
KEEP void copy(struct state *s) {
  static char from[1 << 16], to[1 << 16];
  for (;;) {
    POINT(copy);
    s->seen = MARK;
    char *a = from, *b = to;
    long n = sizeof from;
    __asm__ volatile("rep movsb" : "+S"(a), "+D"(b), "+c"(n)::"memory");
    s->rounds = s->rounds + 1;
  }
}

// Replaced. Each frame waits for the next one.
KEEP long recurse(long depth) {
  if (depth == 0) return ask();
  long r = recurse(depth - 1);
  __asm__ volatile("" : "+r"(r));
  return r + MARK;
}

// Kept. A handler that waits.
KEEP void on_signal(int sig) {
  char c;
  (void)sig;
  if (read(gate[0], &c, 1) != 1) _exit(1);
  handled = handled + 1;
}

KEEP void on_alarm(int sig) {
  (void)sig;
  handled = handled + 1;
}

static void (*const LOOPS[])(struct state *) = {spin, toil, nap};

static void *one(void *p) {
  struct state *s = p;
  LOOPS[(s - states) % 3](s);
  return 0;
}

static void *spinner(void *p) { spin(p); return 0; }
static void *warily(void *p) { wary(p); return 0; }
static void *toiler(void *p) { toil(p); return 0; }
static void *copier(void *p) { copy(p); return 0; }

static void ready(void) {
  if (write(1, "ready\n", 6) != 6) _exit(1);
}

static void handle(int sig, void (*f)(int)) {
  static char stack[1 << 16];
  stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
  sigaltstack(&alt, 0);
  struct sigaction a = {.sa_handler = f, .sa_flags = SA_RESTART | SA_ONSTACK};
  sigaction(sig, &a, 0);
}

static void report(int threads) {
  char line[100];
  setvbuf(stdin, 0, _IONBF, 0);
  while (fgets(line, sizeof line, stdin)) {
    long low = 1L << 40, high = 0, torn = 0;
    for (int i = 0; i < threads; i++) {
      long before = states[i].rounds;
      while (states[i].rounds < before + 2) usleep(200);
      if (states[i].seen < low) low = states[i].seen;
      if (states[i].seen > high) high = states[i].seen;
      torn += states[i].torn;
    }
    printf("%ld %ld %ld\n", low, high, torn + trapped);
    fflush(stdout);
  }
}

int main(int argc, char **argv) {
  const char *what = argv[1];
  int threads = argc > 2 ? atoi(argv[2]) : 1;
  if (pipe(gate)) return 1;
  if (!strcmp(what, "serve")) {
    ready();
    serve();
  }
  if (!strcmp(what, "signal")) {
    handle(SIGUSR1, on_signal);
    ready();
    serve();
  }
  if (!strcmp(what, "recurse")) {
    ready();
    for (;;) tell(recurse(ask()));
  }
  void *(*f)(void *) = one;
  if (!strcmp(what, "spin") || !strcmp(what, "storm")) f = spinner;
  if (!strcmp(what, "wary")) f = warily;
  if (!strcmp(what, "toil")) f = toiler;
  if (!strcmp(what, "copy")) f = copier;
  if (!strcmp(what, "held")) {
    // The main thread itself is interrupted in its loop, by a handler that waits.
    handle(SIGUSR1, on_signal);
    ready();
    spin(&states[0]);
  }
  sigset_t alarm;
  sigemptyset(&alarm);
  sigaddset(&alarm, SIGALRM);
  for (int i = 0; i < threads; i++) {
    pthread_t t;
    if (pthread_create(&t, 0, f, &states[i])) return 1;
  }
  if (!strcmp(what, "storm")) {
    struct sigaction a = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &a, 0);
    // The threads that spin take them.
    pthread_sigmask(SIG_BLOCK, &alarm, 0);
    struct itimerval t = {{0, 200}, {0, 200}};
    setitimer(ITIMER_REAL, &t, 0);
  }
  for (int i = 0; i < threads; i++)
    while (states[i].rounds == 0) usleep(1000);
  ready();
  report(threads);
  return 0;
}
