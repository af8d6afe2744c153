/* What the event loop and the requests share. */
#include <stddef.h>

struct cart {
    int items;
    long cents;
    char line[128];
    size_t length;
};

extern int connections;

/* Answers one line; gives the length of the answer in `out`. */
int handle_request(struct cart *c, const char *line, char *out, size_t size);
