/* A small shop: one process, one event loop, any number of connections, each with its own cart.
   Says `ready PORT` when it listens. What requests mean is in shop.c. */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shop.h"

#define CONNECTIONS 64

static struct pollfd sockets[CONNECTIONS + 1];
static struct cart *carts[CONNECTIONS + 1];
int connections;

static void disconnect(int slot) {
    close(sockets[slot].fd);
    free(carts[slot]);
    sockets[slot] = sockets[connections];
    carts[slot] = carts[connections];
    connections--;
}

/* Answers every whole line that has come in. */
static int serve(int fd, struct cart *c) {
    char out[256];
    char *end;
    ssize_t got = read(fd, c->line + c->length, sizeof c->line - 1 - c->length);

    if (got <= 0)
        return -1;
    c->length += (size_t)got;
    c->line[c->length] = 0;
    while ((end = strchr(c->line, '\n'))) {
        *end = 0;
        int size = handle_request(c, c->line, out, sizeof out);
        if (write(fd, out, (size_t)size) != size)
            return -1;
        c->length -= (size_t)(end + 1 - c->line);
        memmove(c->line, end + 1, c->length + 1);
    }
    return c->length + 1 < sizeof c->line ? 0 : -1;
}

static void welcome(int listener) {
    int fd = accept(listener, NULL, NULL);

    if (fd < 0)
        return;
    if (connections == CONNECTIONS) {
        close(fd);
        return;
    }
    connections++;
    carts[connections] = calloc(1, sizeof(struct cart));
    sockets[connections].fd = fd;
    sockets[connections].events = POLLIN;
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 64) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0) {
        perror("listen");
        return 1;
    }
    sockets[0].fd = listener;
    sockets[0].events = POLLIN;
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        poll(sockets, (nfds_t)connections + 1, -1);
        for (int slot = connections; slot > 0; slot--)
            if (sockets[slot].revents && serve(sockets[slot].fd, carts[slot]) != 0)
                disconnect(slot);
        if (sockets[0].revents)
            welcome(listener);
    }
}
