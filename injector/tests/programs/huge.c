// Moves its own text to anonymous memory, in huge pages where the system has them, as large servers do; the
// headers of its file too when it is told so. Answers questions by read and write alone.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone, used))
#define HUGE (2ul << 20)

// Replaced.
KEEP long answer(long x) {
  __asm__ volatile("" : "+r"(x));
  return x * 10 + VERSION;
}

// Text for two huge pages.
__asm__(".text\n.skip 4 << 20, 0xcc\n");

extern char __executable_start[], etext[];
extern char _init[];

// A copy takes the place of what it is a copy of at once.
static int move(uintptr_t start, uintptr_t end, int protection) {
  size_t len = end - start;
  char *room = mmap(0, len + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) return 1;
  // At the same place within a huge page.
  uintptr_t at = ((uintptr_t)room & ~(HUGE - 1)) + (start & (HUGE - 1));
  if (at < (uintptr_t)room) at += HUGE;
  madvise((void *)at, len, MADV_HUGEPAGE);
  memcpy((void *)at, (void *)start, len);
  if (mprotect((void *)at, len, protection)) return 1;
  return mremap((void *)at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start) == MAP_FAILED;
}

static uintptr_t up(uintptr_t x) { return (x + 4095) & ~4095ul; }

int main(int argc, char **argv) {
  uintptr_t text = (uintptr_t)_init & ~4095ul;
  if (move(text, up((uintptr_t)etext), PROT_READ | PROT_EXEC)) return 1;
  uintptr_t headers = (uintptr_t)__executable_start;
  if (argc > 1 && !strcmp(argv[1], "headers") && move(headers, headers + 4096, PROT_READ)) return 2;
  char line[100];
  setvbuf(stdin, 0, _IONBF, 0);
  setvbuf(stdout, 0, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) printf("%ld\n", answer(atol(line + 1)));
  return 0;
}
