// A function was renamed, and the user says so: pointers to it keep their identity.
//# build: gcc -O2
//# build: clang -O2
//# build-args: --map on_event=handle_event
//# changed: on_event
//# kept: answer
//# before: x => event x
//# after: x => handled x
#include "sample.h"

#ifdef NEW
#define on_event handle_event
#endif

NOINLINE void on_event(const char *what) {
#ifdef NEW
    printf("handled %s\n", what);
#else
    printf("event %s\n", what);
#endif
}

void (*volatile callback)(const char *) = on_event;

void answer(const char *question) {
    callback(question);
}
