/* State machines with gotos: plain ones, and by addresses of labels. */
#include "torture.h"

static NOINLINE uint64_t scan(const char *p) {
    uint64_t sum = 0;
    unsigned numbers = 0, words = 0, value = 0;
start:
    if (*p == 0)
        goto done;
    if (*p >= '0' && *p <= '9')
        goto number;
    if (*p == ' ') {
        p++;
        goto start;
    }
word:
    sum = sum * 31 + (unsigned char)*p++;
    if (*p && *p != ' ')
        goto word;
    words++;
    ADDED(added_counter++;)
    goto start;
number:
    value = value * 10 + (unsigned)(*p++ - '0');
    if (*p >= '0' && *p <= '9')
        goto number;
    numbers++;
    sum = mix(sum, value);
    value = 0;
    if (*p && *p != ' ')
        goto word;
    goto start;
done:
    ADDED(if (numbers > 1000) _exit(9);)
    return sum * 100 + numbers * 10 + words;
}

static NOINLINE uint64_t thread(const unsigned char *code) {
    static const void *const labels[] = {&&inc, &&dbl, &&mixed, &&loop, &&end};
    uint64_t a = 1, b = 0;
    unsigned left = 25;
    const unsigned char *p = code;
    goto *labels[*p++];
inc:
    a += b + 1;
    goto *labels[*p++];
dbl:
    b = a * 2 + left;
    ADDED(added_counter += left;)
    goto *labels[*p++];
mixed:
    a = mix(a, b);
    goto *labels[*p++];
loop:
    if (--left)
        p = code;
    goto *labels[*p++];
end:
    return a ^ b;
}

int main(void) {
    begin();
    static const unsigned char code[] = {0, 1, 2, 0, 0, 2, 3, 1, 4};
    static const char *const texts[] = {
        "the 12 quick 7 foxes", "over 1000 lazy dogs 9lives", " 1 22 333 4444 and the rest",
    };
    for (unsigned round = 0; round < 3; round++) {
        say("scan", scan(texts[round]));
        say("thread", thread(code));
        version();
    }
    END();
}
