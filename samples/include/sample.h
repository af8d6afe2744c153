/* What a case and its question loop share. */
#ifndef SAMPLE_H
#define SAMPLE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Functions under test must not dissolve in their callers, nor their callers learn how they look
   inside, as with larger ones. What is left of that has cases of its own. */
#ifdef __clang__
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __attribute__((noinline, noipa))
#endif

/* Written by the case: prints one line for each line that the test asks. */
void answer(const char *question);

#endif
