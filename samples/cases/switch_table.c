// Two entries of a jump table trade places: the instructions are the same, the table is not. The
// table of a function that does not change moves.
//# build: gcc -O2 -fno-tree-switch-conversion
//# build: gcc -O2 -fno-tree-switch-conversion -no-pie -fno-pie -Wl,--emit-relocs
//# build: clang -O2
//# build: clang -O2 -fuse-ld=lld
//# changed: verb
//# kept: state answer
//# before: 3 => 3 start, idle
//# before: 5 => 5 pause, done
//# after: 3 => 3 pause, idle
//# after: 5 => 5 start, done
#include "sample.h"

NOINLINE static int say(int code, const char *word) {
    return printf("%d %s", code, word);
}

NOINLINE int verb(int code) {
    switch (code) {
    case 0: return say(code, "open") + 1;
    case 1: return say(code, "close") + 2;
    case 2: return say(code, "stop") + 3;
#ifdef NEW
    case 5: return say(code, "start") + 4;
    case 4: return say(code, "halt") + 5;
    case 3: return say(code, "pause") + 6;
#else
    case 3: return say(code, "start") + 4;
    case 4: return say(code, "halt") + 5;
    case 5: return say(code, "pause") + 6;
#endif
    case 6: return say(code, "resume") + 7;
    case 7: return say(code, "kill") + 8;
    default: return 0;
    }
}

NOINLINE int state(int code) {
    switch (code) {
    case 0: return printf(", new\n") + 1;
    case 1: return printf(", ready\n") + 2;
    case 2: return printf(", running\n") + 3;
    case 3: return printf(", idle\n") + 4;
    case 4: return printf(", waiting\n") + 5;
    case 5: return printf(", done\n") + 6;
    default: return printf(", unknown\n");
    }
}

void answer(const char *question) {
    int code = atoi(question);
    int printed = verb(code) + state(code);

    if (printed < 0)
        abort();
}
