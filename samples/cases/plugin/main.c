// A library opened at run time with dlopen, known to the program by a pointer from dlsym alone.
//# build: gcc -O2
//# build: clang -O2
//# target: libplugin.so
//# changed: plugin_name
//# kept: plugin_init
//# before: x => alpha 1
//# after: x => beta 2
#include "sample.h"
#include <dlfcn.h>

static const char *(*name)(void);
static int (*init)(void);

__attribute__((constructor)) static void load(void) {
    void *library = dlopen("libplugin.so", RTLD_NOW);

    if (!library)
        abort();
    name = (const char *(*)(void))dlsym(library, "plugin_name");
    init = (int (*)(void))dlsym(library, "plugin_init");
}

void answer(const char *question) {
    (void)question;
    printf("%s %d\n", name(), init());
}
