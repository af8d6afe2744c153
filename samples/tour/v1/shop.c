/* Requests, one a line:

       add CENTS      put something into this connection's cart
       total          what is in it */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shop.h"

static long requests;

/* "3 items, 12.34" */
int describe(const struct cart *c, char *out, size_t size) {
    return snprintf(out, size, "%d items, %ld.%ld\n", c->items, c->cents / 100, c->cents % 100);
}

int handle_request(struct cart *c, const char *line, char *out, size_t size) {
    requests++;
    if (strncmp(line, "add ", 4) == 0) {
        c->items++;
        c->cents += atol(line + 4);
        return describe(c, out, size);
    }
    if (strcmp(line, "total") == 0)
        return describe(c, out, size);
    return snprintf(out, size, "unknown request\n");
}
