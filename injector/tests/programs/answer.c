// Answers questions from standard input; one thread. What it answers depends on VERSION.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone, used))

#ifdef COROUTINES
// It could have some, as far as anybody can tell from outside.
void *volatile makes = makecontext;
#endif

long counter = 100;
long table[4] = {1, 2, 3, 4};

KEEP long kept(long x) { return x * 2 + 1; }

#if VERSION >= 2
long bonus = 7;
KEEP long added(long x) { return x + bonus; }
#endif

KEEP long answer(long x) {
#if VERSION == 1
  counter = counter + 1;
  return x + 1;
#elif VERSION == 2
  counter = counter + kept(4);
  return added(x) * 10;
#elif VERSION == 3
  counter = counter + kept(10);
  return added(x) * 1000 + 3;
#else
  return -x;
#endif
}

KEEP long other(long x) {
#if VERSION <= 2
  return x ^ 0x55;
#else
  return x ^ 0xaa;
#endif
}

long (*volatile pointer)(long) = answer;

// Waits inside a function that is to be replaced.
KEEP long inside(void) {
  char c;
  long n = read(0, &c, 1);
  return n + VERSION;
}

KEEP long recurse(long depth) {
  char c;
  if (depth == 0) return read(0, &c, 1);
  return recurse(depth - 1) + 1;
}

int main(void) {
  char line[100];
  setvbuf(stdin, 0, _IONBF, 0);
  setvbuf(stdout, 0, _IOLBF, 0);
  puts("ready");
  while (fgets(line, sizeof line, stdin)) {
    long x = atol(line + 1);
    switch (line[0]) {
      case 'a': printf("%ld\n", answer(x)); break;
      case 'p': printf("%ld\n", pointer(x)); break;
      case 'o': printf("%ld\n", other(x)); break;
      case 'i': puts("inside"); printf("%ld\n", inside()); break;
      case 'r': puts("deep"); printf("%ld\n", recurse(x)); break;
      case 'c': printf("%ld\n", counter); break;
      case 't': printf("%ld\n", table[x]); break;
      case 'd': {
        line[strcspn(line, "\n")] = 0;
        printf("%ld\n", (long)dlsym(RTLD_DEFAULT, line + 1));
        break;
      }
      case 'x': execl("/bin/cat", "cat", (char *)0); break;
      case '=': printf("%d\n", pointer == answer); break;
    }
  }
  return 0;
}
