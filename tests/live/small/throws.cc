// An exception passes through a frame that waits to be carried over, and is caught by a function that is
// kept; afterwards the same function runs in NEW.
#include <cstdio>
#include <cstring>
#include <stdexcept>

#define NOINLINE __attribute__((noinline, noclone))

static char line[16];

static NOINLINE bool ask() {
    if (!fgets(line, sizeof line, stdin))
        return false;
    if (!strcmp(line, "throw\n"))
        throw std::runtime_error("thrown");
    return true;
}

static NOINLINE void serve() {
    long lines = 0;
    while (ask()) {
        lines++;
#ifdef NEW
        printf("line %ld, in NEW\n", lines);
#else
        printf("line %ld\n", lines);
#endif
        fflush(stdout);
    }
}

static NOINLINE bool guarded() {
    try {
        serve();
        return false;
    } catch (const std::runtime_error &error) {
        printf("caught %s\n", error.what());
        fflush(stdout);
        return true;
    }
}

int main() {
    puts("ready");
    fflush(stdout);
    while (guarded()) {
    }
    return 0;
}
