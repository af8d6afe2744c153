#include "sample.h"

NOINLINE void encode(char *text) {
    for (; *text; text++)
#ifdef NEW
        *text += 2;
#else
        *text += 1;
#endif
}

NOINLINE void decode(char *text) {
    for (; *text; text++)
        *text -= 1;
}
