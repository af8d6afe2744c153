// Many functions with many calls, for figures. Waits for a line and ends.
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone, used))

KEEP long step(long x) { __asm__ volatile("" : "+r"(x)); return x + 1; }

#define MARK(x) __asm__ volatile("add %1, %0" : "+r"(x) : "i"(VERSION * 1000))
// Each with five calls, and as much other code as functions have.
#define ONCE(x) x = step(x) * 3; MARK(x); x ^= x >> 7; x += x * 12345; MARK(x);
#define F(n)                                                                           \
  KEEP long f##n(long x) { ONCE(x) ONCE(x) ONCE(x) ONCE(x) ONCE(x) return x; }
#define F4(n) F(n##0) F(n##1) F(n##2) F(n##3)
#define F16(n) F4(n##0) F4(n##1) F4(n##2) F4(n##3)
#define F64(n) F16(n##0) F16(n##1) F16(n##2) F16(n##3)
#define F256(n) F64(n##0) F64(n##1) F64(n##2) F64(n##3)

F256(_0) F64(_10) F64(_11) F16(_120)

int main(void) {
  char c;
  if (write(1, "ready\n", 6) != 6) return 1;
  return read(0, &c, 1) == 1 ? (int)f_00000(c) : 0;
}
