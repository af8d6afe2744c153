/* Functions with any number of arguments, and lists of them passed on. */
#include "torture.h"

static NOINLINE uint64_t gather(const char *format, va_list list) {
    uint64_t sum = 0;
    for (; *format; format++) {
        ADDED(added_counter++;)
        switch (*format) {
        case 'i': sum = mix(sum, (uint64_t)va_arg(list, int)); break;
        case 'l': sum = mix(sum, va_arg(list, unsigned long)); break;
        case 'd': sum = mix(sum, bits(va_arg(list, double))); break;
        case 's': sum = mix(sum, strlen(va_arg(list, const char *))); break;
        default: _exit(4);
        }
    }
    return sum;
}

static NOINLINE uint64_t pack(const char *format, ...) {
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    uint64_t first = gather(format, list);
    uint64_t second = gather(format, again);
    va_end(again);
    va_end(list);
    ADDED(if (first != second) _exit(9);)
    return first + second;
}

static NOINLINE int most(int count, ...) {
    va_list list;
    va_start(list, count);
    int best = va_arg(list, int);
    while (--count > 0) {
        int next = va_arg(list, int);
        if (next > best)
            best = next;
    }
    va_end(list);
    return EITHER(best, best + 1 - 1);
}

int main(void) {
    begin();
    for (int i = 1; i < 9; i++) {
        uint64_t sum = pack("ildsilds", i, 3ul * (unsigned)i, i / 4.0, "some", -i, 7ul, 0.5, "words");
        sum = mix(sum, pack("dddddddddd", 1.0, 2.0, 3.0 * i, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, i * 1.5));
        sum = mix(sum, (uint64_t)most(9, i, 3, -4, 5 * i, 9, 2, 6, 5, 35));
        say("sum", sum);
        version();
    }
    END();
}
