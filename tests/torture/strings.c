/* Text: numbers to digits and back, building, reversing, searching. */
#include "torture.h"

struct text {
    char bytes[120];
    size_t length;
};

static NOINLINE void append(struct text *t, const char *what) {
    size_t n = strlen(what);
    if (t->length + n >= sizeof t->bytes)
        n = sizeof t->bytes - 1 - t->length;
    memcpy(t->bytes + t->length, what, n);
    t->length += n;
    t->bytes[t->length] = 0;
    ADDED(added_counter += n;)
}

static NOINLINE void number(struct text *t, long value, unsigned base) {
    char digits[24], *p = digits + sizeof digits - 1;
    unsigned long rest = value < 0 ? 0 - (unsigned long)value : (unsigned long)value;
    *p = 0;
    do {
        *--p = "0123456789abcdefghijklmnopqrstuvwxyz"[rest % base];
        rest /= base;
        ADDED(if (p < digits) _exit(9);)
    } while (rest);
    if (value < 0)
        *--p = '-';
    append(t, p);
}

static NOINLINE long parse(const char **text) {
    long value = 0;
    int negative = **text == '-';
    *text += negative;
    for (; **text >= '0' && **text <= '9'; ++*text)
        value = value * 10 + (**text - '0');
    return negative ? -value : value;
}

static NOINLINE void reverse(char *bytes, size_t n) {
    for (size_t i = 0, j = n; i + 1 < j; i++) {
        char c = bytes[i];
        bytes[i] = bytes[--j];
        bytes[j] = c;
    }
}

static NOINLINE uint64_t words(const char *bytes) {
    uint64_t sum = 0;
    unsigned length = 0;
    for (;; bytes++) {
        if (*bytes && *bytes != ' ') {
            length = length * 3 + (unsigned char)*bytes;
            continue;
        }
        sum = mix(sum, length);
        length = 0;
        if (!*bytes)
            return sum;
    }
}

int main(void) {
    begin();
    for (long round = 1; round < 6; round++) {
        struct text t = {.length = 0};
        append(&t, "from ");
        number(&t, -round * 7919, 10);
        append(&t, " to ");
        number(&t, round * 123456789, 36);
        const char *p = t.bytes + 5;
        say("parsed", (uint64_t)parse(&p));
        reverse(t.bytes, t.length);
        say("words", words(t.bytes));
        version();
    }
    END();
}
