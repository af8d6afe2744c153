// Answers questions from standard input. VERSION 2 has variables of its own, which its functions change.
#include <stdio.h>
#include <stdlib.h>

#define KEEP __attribute__((noinline, noclone, used))

KEEP long *fresh(void) { return malloc(sizeof(long)); }

#if VERSION == 2
long calls = 5;
long *held;
long room[4];
#endif

KEEP long answer(long x) {
#if VERSION == 2
  calls = calls + 1;
  return calls * 100 + x;
#else
  return x + VERSION;
#endif
}

// Where a pointer to what it makes is kept depends on the version.
KEEP long hold(long x) {
#if VERSION == 2
  held = x == 0 ? 0 : x == 1 ? room : fresh();
#endif
  return x + VERSION;
}

int main(void) {
  char line[100];
  setvbuf(stdin, 0, _IONBF, 0);
  setvbuf(stdout, 0, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    long x = atol(line + 1);
    printf("%ld\n", line[0] == 'h' ? hold(x) : answer(x));
  }
  return 0;
}
