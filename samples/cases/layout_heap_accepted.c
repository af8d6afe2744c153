// The same kind of change to a structure that lives within one request only, which the user knows.
//# build: gcc -O2
//# build: clang -O2
//# build-args: --accept-layout request
//# warning: request
//# changed: parse finish
//# kept: answer
//# before: get a => get 5
//# after: get a => get/1 5
#include "sample.h"

struct request {
    char verb[8];
#ifdef NEW
    int version;
#endif
    int length;
};

NOINLINE struct request *parse(const char *line) {
    struct request *r = calloc(1, sizeof *r);

    memcpy(r->verb, line, strcspn(line, " ") & 7);
#ifdef NEW
    r->version = 1;
#endif
    r->length = (int)strlen(line);
    return r;
}

NOINLINE void finish(struct request *r) {
#ifdef NEW
    printf("%s/%d %d\n", r->verb, r->version, r->length);
#else
    printf("%s %d\n", r->verb, r->length);
#endif
    free(r);
}

void answer(const char *question) {
    finish(parse(question));
}
