/* What the torture programs share.

   A program stops itself at its start (`begin`), so that the harness can take it from there
   instruction by instruction. It prints lines of a word and a number; the same ones whatever the compiler
   and its flags. With -DNEW it is the next version: a statement, a counter, a check, a local
   more, the same numbers; only lines that begin with @ name the version that printed them. */
#ifndef TORTURE_H
#define TORTURE_H

#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))
#define INLINE static inline __attribute__((always_inline))

#ifdef NEW
#define VERSION 2
#define ADDED(...) __VA_ARGS__
#define EITHER(old, new) new
#else
#define VERSION 1
#define ADDED(...)
#define EITHER(old, new) old
#endif

/* For statements of NEW that must not be optimized away. */
ADDED(volatile unsigned long added_counter;)

/* Mixes a value into a checksum (Knuth's multiplier, and a rotation). */
INLINE uint64_t mix(uint64_t sum, uint64_t value) {
    sum ^= value * 0x9e3779b97f4a7c15u;
    return (sum << 23 | sum >> 41) + 0x632be59bd9b4e019u;
}

/* The bits of a double, for a checksum. */
INLINE uint64_t bits(double value) {
    uint64_t result;
    memcpy(&result, &value, sizeof result);
    return result;
}

/* One line: a word and a number in hexadecimal. Written at once: nothing is lost in a crash. */
static NOINLINE void say(const char *what, uint64_t value) {
    char line[64];
    size_t length = 0;
    while (what[length] && length < 40) {
        line[length] = what[length];
        length++;
    }
    line[length++] = ' ';
    for (int shift = 60; shift >= 0; shift -= 4)
        line[length++] = "0123456789abcdef"[value >> shift & 15];
    line[length++] = '\n';
    ADDED(added_counter += length;)
    if (write(1, line, length) != (ssize_t)length)
        _exit(3);
}

/* Names the version that runs. */
static NOINLINE void version(void) { say("@", VERSION); }

/* The harness takes over here. */
static NOINLINE void begin(void) { kill(getpid(), SIGSTOP); }

/* The end: not by a return, because an update that waits until main has gone shows nothing. */
#define END() _exit(0)

#endif
