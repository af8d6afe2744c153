// PORT THREADS: a server of threads, each with an epoll set of its own, in a loop that never ends. To a line with
// a number it answers another number, by a formula of its VERSION, and how many lines this connection has sent.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEEP __attribute__((noinline, noclone))

struct connection {
  int socket;
  int used;
  long lines;
  char buffer[128];
};

struct worker {
  int epoll;
};

static struct worker workers[256];

#if VERSION == 2
static volatile long answered;

KEEP long scaled(long n) { return n * 5; }
#endif

// One expression: an answer is of one version.
KEEP long compute(long n) {
#if VERSION == 1
  return n * 3 + 1;
#elif VERSION == 2
  answered = answered + 1;
  return scaled(n) + 2;
#else
  return n * 7 + 3;
#endif
}

KEEP int answer(struct connection *c, const char *line) {
  char reply[64];
  long n = compute(atol(line));
  c->lines++;
  int len = snprintf(reply, sizeof reply, "%ld %ld\n", n, c->lines);
  return write(c->socket, reply, len) == len;
}

KEEP int serve(struct connection *c) {
  ssize_t got = read(c->socket, c->buffer + c->used, sizeof c->buffer - 1 - c->used);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 1;
  if (got <= 0) return 0;
  c->used += got;
  c->buffer[c->used] = 0;
  for (char *end; (end = strchr(c->buffer, '\n'));) {
    *end = 0;
    if (!answer(c, c->buffer)) return 0;
    c->used -= end + 1 - c->buffer;
    memmove(c->buffer, end + 1, c->used + 1);
  }
  return 1;
}

KEEP void drop(struct connection *c) {
  close(c->socket);
  free(c);
}

KEEP int wait_for(struct worker *w, struct epoll_event *event, int patience) {
  return epoll_wait(w->epoll, event, 1, patience);
}

KEEP void work(struct worker *w) {
  for (;;) {
    struct epoll_event event;
    int patience = VERSION == 3 ? 60000 : -1;
    if (wait_for(w, &event, patience) == 1 && !serve(event.data.ptr)) drop(event.data.ptr);
  }
}

static void *begin(void *argument) {
  work(argument);
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  int threads = atoi(argv[2]), one = 1;
  int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons(atoi(argv[1])),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 64)) return 1;
  // This thread is one of them.
  for (int i = 0; i < threads - 1; i++) {
    pthread_t thread;
    workers[i].epoll = epoll_create1(EPOLL_CLOEXEC);
    if (pthread_create(&thread, 0, begin, &workers[i])) return 1;
  }
  for (int next = 0;; next = (next + 1) % (threads - 1)) {
    int socket = accept4(listening, 0, 0, SOCK_CLOEXEC);
    if (socket < 0) continue;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct connection *c = calloc(1, sizeof *c);
    c->socket = socket;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(workers[next].epoll, EPOLL_CTL_ADD, socket, &event);
  }
}
