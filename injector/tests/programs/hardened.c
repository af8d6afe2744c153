// Answers questions from standard input by read and write alone, whatever it has forbidden itself. What it
// answers depends on VERSION.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone, used))

// Replaced.
KEEP long answer(long x) {
  __asm__ volatile("" : "+r"(x));
  return x * 10 + VERSION;
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, value)
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip)
#define DENY (SECCOMP_RET_ERRNO | EPERM)

static int install(struct sock_filter *code, int len, int flags) {
  struct sock_fprog program = {len, code};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

// `number` gives `action`, all else is allowed.
static int forbid(int number, unsigned action) {
  struct sock_filter code[] = {LOAD(nr), UNLESS(number, 1), RETURN(action), RETURN(SECCOMP_RET_ALLOW)};
  return install(code, 4, 0);
}

// As systemd's MemoryDenyWriteExecute: mmap both writable and executable, mprotect to executable.
static int write_or_execute(unsigned action) {
  struct sock_filter code[] = {
      LOAD(nr),
      UNLESS(SYS_mmap, 4),
      LOAD(args[2]),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, PROT_WRITE | PROT_EXEC),
      UNLESS(PROT_WRITE | PROT_EXEC, 6),
      RETURN(action),
      UNLESS(SYS_mprotect, 4),
      LOAD(args[2]),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 2),
      RETURN(action),
      RETURN(action),
      RETURN(SECCOMP_RET_ALLOW),
  };
  return install(code, 12, 0);
}

// mmap of anything executable.
static int execute(unsigned action) {
  struct sock_filter code[] = {
      LOAD(nr),
      UNLESS(SYS_mmap, 3),
      LOAD(args[2]),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1),
      RETURN(action),
      RETURN(SECCOMP_RET_ALLOW),
  };
  return install(code, 6, 0);
}

static void say(long x) {
  char text[32], *at = text + sizeof text;
  int negative = x < 0;
  unsigned long rest = negative ? -x : x;
  *--at = '\n';
  do *--at = '0' + rest % 10; while (rest /= 10);
  if (negative) *--at = '-';
  if (write(1, at, text + sizeof text - at) < 0) syscall(SYS_exit, 1);
}

static volatile int helper_ready;

// Forbids itself everything that the others may do, and waits.
static void *helper(void *p) {
  forbid(SYS_mmap, SECCOMP_RET_KILL_PROCESS);
  helper_ready = 1;
  for (;;) pause();
  return p;
}

static void *sleeper(void *p) {
  helper_ready = 1;
  for (;;) {
    struct timespec t = {0, 50000000};
    nanosleep(&t, 0);
  }
  return p;
}

static long start(void *(*f)(void *)) {
  pthread_t t;
  helper_ready = 0;
  if (pthread_create(&t, 0, f, 0)) return -1;
  while (!helper_ready) usleep(1000);
  return 0;
}

static long harden(const char *how) {
  switch (how[0]) {
    case 'a': return forbid(SYS_ptrace, SECCOMP_RET_KILL_PROCESS);
    case 'm': return forbid(SYS_mmap, DENY);
    case 'k': return forbid(SYS_mmap, SECCOMP_RET_KILL_PROCESS);
    case 't': return forbid(SYS_munmap, SECCOMP_RET_TRAP);
    case 'w': return write_or_execute(DENY);
    case 'W': return write_or_execute(SECCOMP_RET_KILL_PROCESS);
    case 'x': return execute(DENY);
    case 'X': return execute(SECCOMP_RET_KILL_PROCESS);
    case 'r': return forbid(SYS_restart_syscall, SECCOMP_RET_KILL_PROCESS);
    case 'g': return forbid(SYS_rt_sigreturn, SECCOMP_RET_KILL_PROCESS);
    case 's': return prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    case 'h': return start(helper);
    case 'n': return start(sleeper);
    // PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN.
    case 'd': return prctl(65, 1, 0, 0, 0);
    case 'u': return setgid(65534) || setuid(65534);
    case 'D': return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  }
  return -1;
}

int main(void) {
  char line[100];
  if (write(1, "ready\n", 6) != 6) return 1;
  for (;;) {
    int n = 0;
    while (n < 99 && read(0, line + n, 1) == 1 && line[n] != '\n') n++;
    // exit_group is not among what strict mode allows.
    if (n == 0) syscall(SYS_exit, 0);
    line[n] = 0;
    switch (line[0]) {
      case 'a': say(answer(line[1] - '0')); break;
      case '!': say(harden(line + 1)); break;
      case 'p': {
        // A sleep with a time-out, which begins anew by restart_syscall.
        struct pollfd none = {-1, 0, 0};
        say(1);
        say(poll(&none, 1, 300));
        break;
      }
    }
  }
}
