/* System calls under frames: pipes, sleeps, and loops that poll. */
#include "torture.h"
#include <poll.h>
#include <time.h>

static NOINLINE size_t send(int to, const uint32_t *values, size_t n) {
    size_t sent = 0;
    while (sent < n) {
        ssize_t done = write(to, values + sent, sizeof *values * (n - sent > 3 ? 3 : n - sent));
        if (done < 0)
            _exit(7);
        sent += (size_t)done / sizeof *values;
        ADDED(added_counter++;)
    }
    return sent;
}

static NOINLINE uint64_t receive(int from, size_t n) {
    uint64_t sum = 0;
    uint32_t value;
    for (size_t i = 0; i < n; i++) {
        struct pollfd wait = {.fd = from, .events = POLLIN};
        while (poll(&wait, 1, 1) == 0)
            ;
        if (read(from, &value, sizeof value) != sizeof value)
            _exit(7);
        sum = mix(sum, value);
        ADDED(if (i > n) _exit(9);)
    }
    return sum;
}

static NOINLINE void pause_for(long nanoseconds) {
    struct timespec rest = {0, nanoseconds};
    while (nanosleep(&rest, &rest))
        ;
}

int main(void) {
    begin();
    int ends[2];
    uint32_t values[10];
    if (pipe(ends))
        _exit(7);
    for (unsigned round = 1; round <= 4; round++) {
        for (unsigned i = 0; i < 10; i++)
            values[i] = round * i * i;
        size_t sent = send(ends[1], values, 10);
        pause_for(1000);
        say("received", receive(ends[0], sent));
        version();
    }
    END();
}
