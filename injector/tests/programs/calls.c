// Waits in every kind of system call that a signal or a tracer interrupts, each in a thread of its own, and
// says how each of them ended: result, error, and by how much it missed its deadline.
//
// A parent of it records everything that it is told about it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone, used))

// Replaced.
KEEP long version(void) { return VERSION; }

#ifndef TIMEOUT_MS
#define TIMEOUT_MS 700
#endif
#define TIMEOUT_NS (TIMEOUT_MS * 1000000L)

static const struct timespec TIMEOUT = {TIMEOUT_NS / 1000000000, TIMEOUT_NS % 1000000000};
static const struct timeval TIMEOUT_TV = {TIMEOUT_MS / 1000, TIMEOUT_MS % 1000 * 1000};
// Open for as long as nothing is written to it.
static int quiet[2], gate[2], sockets[2], listener, queue, semaphores, epoll, ring;
static int timed_listener, full, empty_ring;
static aio_context_t aio;
static struct sockaddr_un name, other_name, busy;
static unsigned word;
static pid_t child;

static long now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

static struct timespec deadline(void) {
  long at = now_ns() + TIMEOUT_NS;
  return (struct timespec){at / 1000000000, at % 1000000000};
}

static long call_nanosleep(void) { return nanosleep(&TIMEOUT, 0); }
static long call_clock_nanosleep(void) {
  struct timespec at = deadline();
  errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, 0);
  return errno ? -1 : 0;
}
static struct pollfd polled(void) { return (struct pollfd){quiet[0], POLLIN, 0}; }
static long call_poll(void) {
  struct pollfd p = polled();
  return poll(&p, 1, TIMEOUT_MS);
}
static long call_ppoll(void) {
  struct pollfd p = polled();
  return ppoll(&p, 1, &TIMEOUT, 0);
}
static long call_select(void) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(quiet[0], &set);
  struct timeval t = {TIMEOUT_MS / 1000, TIMEOUT_MS % 1000 * 1000};
  return select(quiet[0] + 1, &set, 0, 0, &t);
}
static long call_futex(void) { return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &TIMEOUT, 0, 0); }
static long call_futex_until(void) {
  struct timespec at = deadline();
  return syscall(SYS_futex, &word, FUTEX_WAIT_BITSET, 0, &at, 0, ~0u);
}
static long call_condition(void) {
  pthread_condattr_t a;
  pthread_cond_t c;
  pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
  pthread_condattr_init(&a);
  pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
  pthread_cond_init(&c, &a);
  struct timespec at = deadline();
  pthread_mutex_lock(&m);
  errno = pthread_cond_timedwait(&c, &m, &at);
  return errno ? -1 : 0;
}
static struct epoll_event event;
static long call_epoll(void) { return epoll_wait(epoll, &event, 1, TIMEOUT_MS); }
static long call_epoll2(void) { return syscall(SYS_epoll_pwait2, epoll, &event, 1, &TIMEOUT, 0, 8); }
static long call_recv(void) {
  char c;
  return recv(sockets[0], &c, 1, 0);
}
static long call_semtimedop(void) {
  struct sembuf b = {0, -1, 0};
  return semtimedop(semaphores, &b, 1, &TIMEOUT);
}
static long call_sigtimedwait(void) {
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, SIGUSR2);
  return sigtimedwait(&s, 0, &TIMEOUT);
}

static long call_recvmmsg(void) {
  char c;
  struct iovec v = {&c, 1};
  struct mmsghdr m = {.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1}};
  return recvmmsg(sockets[0], &m, 1, 0, 0);
}
static long call_accept_timed(void) { return accept(timed_listener, 0, 0); }
static long call_send(void) {
  char c = 'x';
  return send(full, &c, 1, 0);
}
// Nobody accepts there, and nobody more can wait for it.
static long call_connect(void) {
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &TIMEOUT_TV, sizeof TIMEOUT_TV);
  long result = connect(s, (void *)&busy, sizeof busy), error = errno;
  close(s);
  errno = error;
  return result;
}
static long call_getevents(void) {
  struct io_event done;
  return syscall(SYS_io_getevents, aio, 1, 1, &done, &TIMEOUT);
}
static long call_ring_timed(void) {
  struct __kernel_timespec time = {TIMEOUT.tv_sec, TIMEOUT.tv_nsec};
  struct io_uring_getevents_arg a = {.ts = (unsigned long)&time};
  int flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
  return syscall(SYS_io_uring_enter, empty_ring, 0, 1, flags, &a, sizeof a);
}

// Without a deadline: each ends when the main thread says so.
static long call_read(void) {
  char c;
  return read(gate[0], &c, 1);
}
static long call_accept(void) { return accept(listener, 0, 0) < 0 ? -1 : 0; }
static long call_epoll_for_ever(void) {
  int e = epoll_create1(0);
  struct epoll_event in = {.events = EPOLLIN};
  epoll_ctl(e, EPOLL_CTL_ADD, gate[0], &in);
  return epoll_wait(e, &in, 1, -1);
}
static long call_wait4(void) { return wait4(child, 0, 0, 0) == child ? 0 : -1; }
static long call_msgrcv(void) {
  struct { long type; char text; } m;
  return msgrcv(queue, &m, 1, 0, 0);
}
static long call_semop(void) {
  struct sembuf b = {1, -1, 0};
  return semop(semaphores, &b, 1);
}
static long call_futex_for_ever(void) {
  static unsigned own;
  return syscall(SYS_futex, &word, FUTEX_WAIT, own, 0, 0, 0);
}
static long call_sigwait(void) {
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, SIGUSR1);
  return sigwaitinfo(&s, 0);
}
static volatile int handled;
static void on_usr1(int sig) { handled = sig; }
static long call_sigsuspend(void) {
  sigset_t s;
  sigfillset(&s);
  sigdelset(&s, SIGHUP);
  errno = 0;
  sigsuspend(&s);
  // Its only way to end.
  return errno == EINTR && handled ? 0 : -1;
}
static long call_ring(void) { return syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, 0, 0); }

static struct call {
  const char *const name;
  long (*const run)(void);
  // It ends by itself.
  const int timed;
  pthread_t thread;
  volatile int tid, done;
  long result, error, took;
} calls[] = {
    {"nanosleep", call_nanosleep, 1},
    {"clock_nanosleep", call_clock_nanosleep, 1},
    {"poll", call_poll, 1},
    {"ppoll", call_ppoll, 1},
    {"select", call_select, 1},
    {"futex", call_futex, 1},
    {"futex-until", call_futex_until, 1},
    {"condition", call_condition, 1},
    {"epoll", call_epoll, 1},
    {"epoll2", call_epoll2, 1},
    {"recv", call_recv, 1},
    {"semtimedop", call_semtimedop, 1},
    {"sigtimedwait", call_sigtimedwait, 1},
    {"recvmmsg", call_recvmmsg, 1},
    {"accept-timed", call_accept_timed, 1},
    {"send", call_send, 1},
    {"connect", call_connect, 1},
    {"io-getevents", call_getevents, 1},
    {"io-uring-timed", call_ring_timed, 1},
    {"read", call_read, 0},
    {"accept", call_accept, 0},
    {"epoll-for-ever", call_epoll_for_ever, 0},
    {"wait4", call_wait4, 0},
    {"msgrcv", call_msgrcv, 0},
    {"semop", call_semop, 0},
    {"futex-for-ever", call_futex_for_ever, 0},
    {"sigwait", call_sigwait, 0},
    {"sigsuspend", call_sigsuspend, 0},
    {"io-uring", call_ring, 0},
};
#define CALLS (int)(sizeof calls / sizeof *calls)

static void *run(void *p) {
  struct call *c = p;
  long start = now_ns();
  c->tid = gettid();
  errno = 0;
  c->result = c->run();
  c->error = c->result < 0 ? errno : 0;
  c->took = now_ns() - start;
  c->done = 1;
  return 0;
}

static int asleep(int tid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
  int f = open(path, O_RDONLY), n = read(f, text, sizeof text - 1);
  close(f);
  if (n <= 0) return 0;
  text[n] = 0;
  return strstr(text, ") S ") != 0;
}

static int start(struct call *c) {
  pthread_attr_t a;
  pthread_attr_init(&a);
  pthread_attr_setstacksize(&a, 1 << 17);
  c->done = c->tid = 0;
  if (c->run == call_ring && ring < 0) return 0;
  return pthread_create(&c->thread, &a, run, c) == 0;
}

static void wait_asleep(struct call *c) {
  while (!c->done && (!c->tid || !asleep(c->tid))) usleep(200);
}

// Ends those that do not end by themselves.
static void wake(void) {
  struct { long type; char text; } m = {1, 'x'};
  struct sembuf b = {1, 1, 0};
  // One for the reader; the poller sees it first.
  if (write(gate[1], "xx", 2) != 2) abort();
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(s, (void *)&name, sizeof name)) abort();
  kill(child, SIGKILL);
  if (msgsnd(queue, &m, 1, 0) || semop(semaphores, &b, 1)) abort();
  if (syscall(SYS_futex, &word, FUTEX_WAKE, 100, 0, 0, 0) < 0) abort();
  for (int i = 0; i < CALLS; i++) {
    if (calls[i].run == call_sigwait) pthread_kill(calls[i].thread, SIGUSR1);
    if (calls[i].run == call_sigsuspend) pthread_kill(calls[i].thread, SIGHUP);
  }
  if (ring >= 0) syscall(SYS_io_uring_enter, ring, 1, 0, 0, 0, 0);
}

static int set_up_ring(void) {
  struct io_uring_params p;
  memset(&p, 0, sizeof p);
  int fd = syscall(SYS_io_uring_setup, 4, &p);
  if (fd < 0) return -1;
  char *sq = mmap(0, 1 << 14, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
  struct io_uring_sqe *e = mmap(0, 4 * sizeof *e, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQES);
  if (sq == MAP_FAILED || e == MAP_FAILED) return -1;
  // One operation that does nothing, submitted later.
  memset(e, 0, sizeof *e);
  e->opcode = IORING_OP_NOP;
  *(unsigned *)(sq + p.sq_off.array) = 0;
  *(unsigned *)(sq + p.sq_off.tail) = 1;
  return fd;
}

static int listen_at(struct sockaddr_un *at, const char *which) {
  at->sun_family = AF_UNIX;
  snprintf(at->sun_path + 1, sizeof at->sun_path - 1, "dsu-calls-%d%s", getpid(), which);
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(s, (void *)at, sizeof *at) || listen(s, 1)) abort();
  return s;
}

// A socket that takes nothing more.
static void set_up_full(void) {
  static char much[1 << 16];
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) abort();
  full = pair[0];
  while (send(full, much, sizeof much, MSG_DONTWAIT) > 0) {}
  while (send(full, much, 1, MSG_DONTWAIT) > 0) {}
  setsockopt(full, SOL_SOCKET, SO_SNDTIMEO, &TIMEOUT_TV, sizeof TIMEOUT_TV);
}

static void set_up(void) {
  if (pipe(quiet) || pipe(gate) || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets)) abort();
  setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &TIMEOUT_TV, sizeof TIMEOUT_TV);
  listener = listen_at(&name, "");
  timed_listener = listen_at(&other_name, "-timed");
  listen_at(&busy, "-busy");
  while (connect(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), (void *)&busy, sizeof busy) == 0) {}
  setsockopt(timed_listener, SOL_SOCKET, SO_RCVTIMEO, &TIMEOUT_TV, sizeof TIMEOUT_TV);
  set_up_full();
  if (syscall(SYS_io_setup, 1, &aio)) abort();
  queue = msgget(IPC_PRIVATE, 0600);
  semaphores = semget(IPC_PRIVATE, 2, 0600);
  epoll = epoll_create1(0);
  struct epoll_event in = {.events = EPOLLIN};
  epoll_ctl(epoll, EPOLL_CTL_ADD, quiet[0], &in);
  ring = set_up_ring();
  empty_ring = set_up_ring();
  child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) pause();
  }
  struct sigaction a = {.sa_handler = on_usr1};
  sigaction(SIGHUP, &a, 0);
  sigset_t all;
  sigfillset(&all);
  sigdelset(&all, SIGTRAP);
  pthread_sigmask(SIG_BLOCK, &all, 0);
}

static void clean_up(void) {
  kill(child, SIGKILL);
  msgctl(queue, IPC_RMID, 0);
  semctl(semaphores, 0, IPC_RMID);
}

static void tell_of(struct call *c) {
  long late = c->timed ? (c->took - TIMEOUT_NS) / 1000 : 0;
  printf("%s %s %ld %ld\n", c->name, c->result < 0 ? "-1" : "ok", c->error, late);
}

static void serve(void) {
  char line[100];
  set_up();
  setvbuf(stdin, 0, _IONBF, 0);
  setvbuf(stdout, 0, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    switch (line[0]) {
      case 'p': printf("%d\n", getpid()); break;
      case 'v': printf("%ld\n", version()); break;
      case 'b':
        for (int i = 0; i < CALLS; i++) if (!start(&calls[i])) calls[i].tid = -1;
        for (int i = 0; i < CALLS; i++) if (calls[i].tid >= 0) wait_asleep(&calls[i]);
        puts("begun");
        break;
      case 'o':
        // The only thread.
        line[strcspn(line, "\n")] = 0;
        puts("begun");
        for (int i = 0; i < CALLS; i++) {
          struct call *c = &calls[i];
          if (strcmp(c->name, line + 1)) continue;
          run(c);
          tell_of(c);
        }
        break;
      case 'e':
        for (int i = 0; i < CALLS; i++)
          if (calls[i].timed) pthread_join(calls[i].thread, 0);
        wake();
        for (int i = 0; i < CALLS; i++) {
          struct call *c = &calls[i];
          if (c->tid < 0) { printf("%s none 0 0\n", c->name); continue; }
          if (!c->timed) pthread_join(c->thread, 0);
          tell_of(c);
        }
        puts("end");
        break;
    }
  }
  clean_up();
}

// What the parent was told: signals, and what there was to wait for.
static atomic_long told;
static void on_child(int sig, siginfo_t *info, void *context) {
  (void)sig;
  (void)context;
  if (info->si_code != CLD_EXITED) told++;
}

int main(void) {
  struct sigaction a = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigaction(SIGCHLD, &a, 0);
  pid_t watched = fork();
  if (watched == 0) {
    signal(SIGCHLD, SIG_DFL);
    serve();
    return 0;
  }
  int status;
  while (waitpid(watched, &status, WUNTRACED | WCONTINUED) == watched && !WIFEXITED(status)) {
    told++;
    if (WIFSIGNALED(status)) break;
  }
  printf("told %ld\n", told);
  return 0;
}
