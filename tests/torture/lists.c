/* Lists and hash tables in the heap. */
#include "torture.h"

struct node {
    struct node *next;
    unsigned key;
    uint64_t value;
};

struct table {
    struct node *buckets[8];
    unsigned count;
};

static NOINLINE struct node *merge(struct node *a, struct node *b) {
    struct node *head = NULL, **end = &head;
    while (a && b) {
        struct node **less = a->value <= b->value ? &a : &b;
        *end = *less;
        *less = (*less)->next;
        end = &(*end)->next;
        ADDED(added_counter++;)
    }
    *end = a ? a : b;
    return head;
}

static NOINLINE struct node *sort(struct node *list) {
    if (!list || !list->next)
        return list;
    struct node *slow = list, *fast = list->next;
    while (fast && fast->next) {
        slow = slow->next;
        fast = fast->next->next;
    }
    struct node *second = slow->next;
    slow->next = NULL;
    return merge(sort(list), sort(second));
}

static NOINLINE void put(struct table *t, unsigned key, uint64_t value) {
    struct node **place = &t->buckets[key % 8];
    for (struct node *n = *place; n; n = n->next)
        if (n->key == key) {
            n->value += value;
            return;
        }
    struct node *n = malloc(sizeof *n);
    if (!n)
        _exit(5);
    *n = (struct node){*place, key, value};
    *place = n;
    t->count++;
    ADDED(if (t->count > 1000) _exit(9);)
}

static NOINLINE struct node *drain(struct table *t) {
    struct node *all = NULL;
    for (unsigned i = 0; i < 8; i++)
        for (struct node *n = t->buckets[i], *next; n; n = next) {
            next = n->next;
            n->next = all;
            all = n;
        }
    memset(t, 0, sizeof *t);
    return all;
}

static NOINLINE uint64_t finish(struct node *list) {
    uint64_t sum = 0;
    for (struct node *next; list; list = next) {
        next = list->next;
        sum = mix(sum, list->value);
        free(list);
    }
    return sum;
}

int main(void) {
    begin();
    struct table table = {.count = 0};
    for (unsigned round = 1; round <= 3; round++) {
        for (unsigned i = 0; i < 24; i++)
            put(&table, i * i % 19, mix(i, round));
        say("count", table.count);
        say("sorted", finish(sort(drain(&table))));
        version();
    }
    END();
}
