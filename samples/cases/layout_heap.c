// A structure in the heap grows. Objects of it may be alive, so the update is refused.
//# build: gcc -O2
//# build: clang -O2
//# changed[gcc]: open_session show
//# changed[clang]: open_session show
//# refused: type-layout session
//# kept: answer
#include "sample.h"

struct session {
    int id;
#ifdef NEW
    int flags;
#endif
    char name[16];
    struct session *next;
};

static struct session *sessions;

NOINLINE void open_session(const char *name) {
    struct session *s = calloc(1, sizeof *s);

    s->id = sessions ? sessions->id + 1 : 1;
#ifdef NEW
    s->flags = 1;
#endif
    strncpy(s->name, name, sizeof s->name - 1);
    s->next = sessions;
    sessions = s;
}

NOINLINE void show(void) {
    for (struct session *s = sessions; s; s = s->next)
        printf("%d %s ", s->id, s->name);
    puts("");
}

void answer(const char *question) {
    open_session(question);
    show();
}
