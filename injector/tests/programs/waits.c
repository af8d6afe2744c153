// Waits in system calls whose time-outs the kernel forgets when a stop interrupts them, each in a thread of its
// own, and does on command what a process can do or suffer meanwhile. Says how each call has ended.
//
// A parent of it records everything that it is told about it.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone, used))

// Replaced.
KEEP long version(void) { return VERSION; }

#define TIMEOUT_NS (TIMEOUT_MS * 1000000L)
static const struct timespec TIMEOUT = {TIMEOUT_NS / 1000000000, TIMEOUT_NS % 1000000000};
static int quiet[2], sockets[2], semaphores, epoll;

static long now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000L + t.tv_nsec;
}

static struct epoll_event event;
static long call_epoll(void) { return epoll_wait(epoll, &event, 1, TIMEOUT_MS); }
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
  sigaddset(&s, SIGRTMIN);
  return sigtimedwait(&s, 0, &TIMEOUT);
}

static struct call {
  const char *const name;
  long (*const run)(void);
  pthread_t thread;
  volatile int tid;
  long result, error, took;
} calls[] = {
    {"epoll", call_epoll},
    {"recv", call_recv},
    {"semtimedop", call_semtimedop},
    {"sigtimedwait", call_sigtimedwait},
};
#define CALLS (int)(sizeof calls / sizeof *calls)

static void *run(void *p) {
  struct call *c = p;
  sigset_t s;
  sigemptyset(&s);
  sigaddset(&s, SIGRTMIN);
  pthread_sigmask(SIG_BLOCK, &s, 0);
  long start = now_ns();
  c->tid = gettid();
  c->result = c->run();
  c->error = c->result < 0 ? errno : 0;
  c->took = now_ns() - start;
  return 0;
}

static int asleep(int tid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
  FILE *f = fopen(path, "r");
  if (!f) return 1;
  size_t n = fread(text, 1, sizeof text - 1, f);
  fclose(f);
  text[n] = 0;
  return strstr(text, ") S ") != 0;
}

static volatile long handled;
static void on_signal(int sig) {
  (void)sig;
  __sync_fetch_and_add(&handled, 1);
}

static void set_up(void) {
  struct timeval t = {TIMEOUT_MS / 1000, TIMEOUT_MS % 1000 * 1000};
  if (pipe(quiet) || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets)) abort();
  setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
  semaphores = semget(IPC_PRIVATE, 1, 0600);
  epoll = epoll_create1(0);
  struct epoll_event in = {.events = EPOLLIN};
  epoll_ctl(epoll, EPOLL_CTL_ADD, quiet[0], &in);
  struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &a, 0);
  signal(SIGUSR2, SIG_IGN);
}

static void wake(void) {
  struct sembuf b = {0, 1, 0};
  if (write(quiet[1], "x", 1) != 1 || write(sockets[1], "x", 1) != 1 || semop(semaphores, &b, 1)) abort();
  pthread_kill(calls[3].thread, SIGRTMIN);
}

static void serve(char *program) {
  char line[100];
  set_up();
  setvbuf(stdin, 0, _IONBF, 0);
  setvbuf(stdout, 0, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    switch (line[0]) {
      case 'p': printf("%d\n", getpid()); break;
      case 'v': printf("%ld\n", version()); break;
      case 'h': printf("%ld\n", handled); break;
      case 'b':
        for (int i = 0; i < CALLS; i++) {
          calls[i].tid = 0;
          pthread_create(&calls[i].thread, 0, run, &calls[i]);
        }
        for (int i = 0; i < CALLS; i++)
          while (!calls[i].tid || !asleep(calls[i].tid)) usleep(200);
        puts("begun");
        break;
      case 's':
        // A signal to each that waits.
        for (int i = 0; i < CALLS; i++) pthread_kill(calls[i].thread, atoi(line + 1));
        puts("sent");
        break;
      case 'w':
        wake();
        puts("woken");
        break;
      case 'f': {
        pid_t child = fork();
        if (child == 0) _exit(version());
        int status;
        waitpid(child, &status, 0);
        printf("%d\n", WEXITSTATUS(status));
        break;
      }
      case 'x':
        semctl(semaphores, 0, IPC_RMID);
        execl(program, program, "served", (char *)0);
        abort();
      case 'q': _exit(7);
      case 'e':
        for (int i = 0; i < CALLS; i++) {
          struct call *c = &calls[i];
          pthread_join(c->thread, 0);
          long late = (c->took - TIMEOUT_NS) / 1000;
          printf("%s %s %ld %ld\n", c->name, c->result < 0 ? "-1" : "ok", c->error, late);
        }
        puts("end");
        break;
    }
  }
  semctl(semaphores, 0, IPC_RMID);
}

// What the parent was told: signals, and what there was to wait for.
static atomic_long told;
static void on_child(int sig, siginfo_t *info, void *context) {
  (void)sig;
  (void)context;
  if (info->si_code != CLD_EXITED && info->si_code != CLD_KILLED) told++;
}

int main(int count, char **arguments) {
  if (count > 1) {
    serve(arguments[0]);
    return 0;
  }
  struct sigaction a = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigaction(SIGCHLD, &a, 0);
  pid_t watched = fork();
  if (watched == 0) {
    signal(SIGCHLD, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve(arguments[0]);
    return 0;
  }
  int status;
  while (waitpid(watched, &status, WUNTRACED | WCONTINUED) == watched && !WIFEXITED(status)) {
    if (WIFSIGNALED(status)) break;
    told++;
  }
  printf("told %ld, %s %d\n", told, WIFEXITED(status) ? "exited" : "killed",
         WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
  return 0;
}
