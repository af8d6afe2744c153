/* Jumps by tables in functions whose objects on the stack lie elsewhere in another build: a table's address that a
   loop keeps, and two tables in one function. */
#include "torture.h"

struct parser {
    long state, depth, marks[3];
};

static NOINLINE void note(struct parser *parser, long by) {
    parser->depth += by;
    parser->marks[(unsigned long)by % 3] ^= parser->depth;
}

static NOINLINE long weigh(const long *some, unsigned count) {
    long sum = 0;
    for (unsigned i = 0; i < count; i++)
        sum = sum * 3 + some[i];
    return sum;
}

/* One table, in a loop: its address stays in a register, or in the frame. */
static NOINLINE long parse(const char *text, long a, long b, long c) {
    struct parser parser = {0};
    long counts[4] = {1, 2, 3, 4};
    long sum = 0;
    ADDED(long letters = 0;)
    for (; *text; text++) {
        switch (*text) {
        case 'a': note(&parser, a); break;
        case 'b': sum += weigh(counts, 4); break;
        case 'c': counts[0] += parser.depth; note(&parser, 1); break;
        case 'd': sum ^= a * b; ADDED(letters++;) break;
        case 'e': note(&parser, b + sum % 5); sum += c; break;
        case 'f': counts[2] = weigh(parser.marks, 3); break;
        case 'g': parser.state = parser.state * 2 + 1; note(&parser, parser.state & 7); break;
        case 'h': sum -= weigh(counts, 2) * c; break;
        default: note(&parser, 0); break;
        }
    }
    ADDED(added_counter += letters;)
    return sum + parser.state * 5 + parser.depth * 7 + weigh(parser.marks, 3) + weigh(counts, 4);
}

/* Two tables, the one inside of the other's loop. */
static NOINLINE long nested(unsigned n, long a, long b) {
    struct parser outer = {1, 2, {3}}, inner = {4, 5, {6}};
    long sum = 0, told[5] = {0};
    for (unsigned i = 0; i < n; i++) {
        switch (i % 7) {
        case 0: note(&outer, a); break;
        case 1: note(&inner, b); sum += 3; break;
        case 2: told[1] += weigh(outer.marks, 3); break;
        case 3: told[2] ^= weigh(inner.marks, 3); break;
        case 4: sum += weigh(told, 5); ADDED(added_counter++;) break;
        case 5: note(&outer, sum & 3); note(&inner, sum & 5); break;
        default: sum ^= outer.depth; break;
        }
        for (unsigned j = 0; j < 3; j++)
            switch ((i + j * 5) % 8) {
            case 0: sum += a; note(&inner, 1); break;
            case 1: sum -= b; break;
            case 2: told[0] += sum; break;
            case 3: sum ^= weigh(told, 2); break;
            case 4: note(&outer, 2); break;
            case 5: told[3] = a - b; break;
            case 6: told[4] += weigh(inner.marks, 2); break;
            default: sum *= 3; break;
            }
    }
    return sum + weigh(told, 5) + outer.depth * 11 + inner.depth * 13;
}

int main(void) {
    begin();
    for (unsigned round = 0; round < 2; round++) {
        say("parse", (uint64_t)parse("abcdefghxhgfedcbacegbdfh", 2, 3 + round, 5));
        say("nested", (uint64_t)nested(9, 7, 4 + round));
        version();
    }
    END();
}
