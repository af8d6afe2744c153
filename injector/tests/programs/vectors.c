// spin FILE | read: holds values in all registers that calls do not save, in its only thread: in a loop that
// calls nothing, until FILE says otherwise, or in a system call. Then says which of them are not as they were.
//
// It holds 512-bit registers with masks where the processor has them, else 256-bit ones.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone, used))

// Replaced.
KEEP long version(void) { return VERSION; }

struct state {
  unsigned char vectors[32][64];
  unsigned long masks[8];
  // Ten bytes each.
  unsigned char x87[8][16];
  unsigned control;
};

static struct state before, after;
static volatile int *go_on;
static int wide;
static unsigned own;

#define ALL16 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
#define ALL32 ALL16 ",16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
#define ALL8 "0,1,2,3,4,5,6,7"
// Offsets in the structure.
#define MASKS "2048"
#define X87 "2112"
#define CONTROL "2240"

#define LOAD_X87 ".irp i," ALL8 "\n fldt " X87 "+\\i*16(%[in])\n.endr\n ldmxcsr " CONTROL "(%[in])\n"
#define STORE_X87                                                                                   \
  ".irp i,7,6,5,4,3,2,1,0\n fstpt " X87 "+\\i*16(%[out])\n.endr\n stmxcsr " CONTROL "(%[out])\n"
#define LOAD_WIDE                                                                                   \
  ".irp i," ALL32 "\n vmovdqu64 \\i*64(%[in]), %%zmm\\i\n.endr\n"                                   \
  ".irp i," ALL8 "\n kmovq " MASKS "+\\i*8(%[in]), %%k\\i\n.endr\n"
#define STORE_WIDE                                                                                  \
  ".irp i," ALL32 "\n vmovdqu64 %%zmm\\i, \\i*64(%[out])\n.endr\n"                                  \
  ".irp i," ALL8 "\n kmovq %%k\\i, " MASKS "+\\i*8(%[out])\n.endr\n"
#define LOAD ".irp i," ALL16 "\n vmovdqu \\i*64(%[in]), %%ymm\\i\n.endr\n"
#define STORE ".irp i," ALL16 "\n vmovdqu %%ymm\\i, \\i*64(%[out])\n.endr\n"
#define SPIN "1: pause\n cmpl $0, (%[flag])\n je 1b\n"
#define WAIT "xorl %%eax, %%eax\n syscall\n"

#define HOLD(load, how, store)                                                                      \
  __asm__ volatile("stmxcsr %[own]\n" load LOAD_X87 how store STORE_X87 "ldmxcsr %[own]\n vzeroupper\n" \
                   : [own] "+m"(own)                                                                \
                   : [in] "r"(&before), [out] "r"(&after), [flag] "r"(go_on), "D"(0L),              \
                     "S"(&c), "d"(1L)                                                               \
                   : "rax", "rcx", "r11", "memory", "cc")

// Kept: what it holds is not declared, so it must not do anything else.
KEEP static void hold(int spins) {
  char c;
  if (wide && spins) HOLD(LOAD_WIDE, SPIN, STORE_WIDE);
  if (wide && !spins) HOLD(LOAD_WIDE, WAIT, STORE_WIDE);
  if (!wide && spins) HOLD(LOAD, SPIN, STORE);
  if (!wide && !spins) HOLD(LOAD, WAIT, STORE);
}

static void fill(void) {
  memset(&before, 0, sizeof before);
  memset(&after, 0, sizeof after);
  for (int i = 0; i < 32; i++)
    for (int j = 0; j < 64; j++)
      if (wide || (i < 16 && j < 32)) before.vectors[i][j] = i * 7 + j * 3 + 1;
  for (int i = 0; wide && i < 8; i++) before.masks[i] = 0x0123456789abcdeful * (2 * i + 1);
  for (int i = 0; i < 8; i++) {
    long double x = 1.0L / (3 + i);
    memcpy(before.x87[i], &x, 10);
  }
  // Rounds up, denormals are zero, all exceptions masked.
  before.control = 0x1f80 | 0x4000 | 0x40;
}

int main(int argc, char **argv) {
  __builtin_cpu_init();
  wide = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512f");
  if (!__builtin_cpu_supports("avx")) return 1;
  if (argc > 2) {
    int file = open(argv[2], O_RDWR);
    void *at = mmap(0, 4, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || at == MAP_FAILED) return 1;
    go_on = at;
  }
  fill();
  setvbuf(stdout, 0, _IOLBF, 0);
  printf("ready\n%d\n", wide ? 512 : 256);
  hold(go_on != 0);
  for (unsigned i = 0; i < sizeof before; i++) {
    if (((char *)&before)[i] == ((char *)&after)[i]) continue;
    printf("byte %u\n", i);
    return 0;
  }
  printf("same %ld\n", version());
  return 0;
}
