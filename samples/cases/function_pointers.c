// Function pointers stored in the heap before the update: they go on comparing equal to the function
// that is replaced, and calls through them run its NEW body.
//# build: gcc -O2
//# build: gcc -O0
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# build: clang -O2
//# build: clang -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# changed: on_open is_default
//# kept: on_close answer install
//# before: x => opened closed default 1
//# after: x => opened for you, closed default 2
#include "sample.h"

struct handlers {
    void (*open)(void);
    void (*close)(void);
};

static struct handlers *installed;

NOINLINE void on_open(void) {
#ifdef NEW
    printf("opened for you, ");
#else
    printf("opened ");
#endif
}

NOINLINE void on_close(void) {
    printf("closed ");
}

/* Compares with a function that is replaced and with one that is not. */
NOINLINE int is_default(const struct handlers *h) {
#ifdef NEW
    return (h->open == on_open) + (h->close == on_close);
#else
    return h->open == on_open && h->close == on_close;
#endif
}

__attribute__((constructor)) NOINLINE void install(void) {
    installed = malloc(sizeof *installed);
    installed->open = on_open;
    installed->close = on_close;
}

void answer(const char *question) {
    (void)question;
    installed->open();
    installed->close();
    printf("default %d\n", is_default(installed));
}
