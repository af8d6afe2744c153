/* Sorting in arrays of the frame: quick, heap, shell; partly recursive. */
#include "torture.h"

static NOINLINE void quick(int *v, int low, int high) {
    while (low < high) {
        int pivot = v[(low + high) / 2], i = low, j = high;
        while (i <= j) {
            while (v[i] < pivot)
                i++;
            while (v[j] > pivot)
                j--;
            if (i <= j) {
                int t = v[i];
                v[i++] = v[j];
                v[j--] = t;
            }
        }
        ADDED(added_counter++;)
        if (j - low < high - i) {
            quick(v, low, j);
            low = i;
        } else {
            quick(v, i, high);
            high = j;
        }
    }
}

static NOINLINE void sift(int *v, int root, int n) {
    for (int child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && v[child + 1] > v[child])
            child++;
        if (v[root] >= v[child])
            return;
        int t = v[root];
        v[root] = v[child];
        v[child] = t;
    }
}

static NOINLINE void heap(int *v, int n) {
    for (int i = n / 2 - 1; i >= 0; i--)
        sift(v, i, n);
    for (int i = n - 1; i > 0; i--) {
        int t = v[0];
        v[0] = v[i];
        v[i] = t;
        sift(v, 0, i);
        ADDED(if (v[0] < v[1] && i > 2 && v[0] < v[2]) _exit(9);)
    }
}

static NOINLINE void shell(int *v, int n) {
    static const int gaps[] = {13, 4, 1};
    for (unsigned g = 0; g < 3; g++)
        for (int i = gaps[g]; i < n; i++) {
            int value = v[i], j = i;
            for (; j >= gaps[g] && v[j - gaps[g]] > value; j -= gaps[g])
                v[j] = v[j - gaps[g]];
            v[j] = value;
        }
    ADDED(added_counter += (unsigned long)n;)
}

static NOINLINE uint64_t sum_up(const int *v, int n) {
    uint64_t sum = 0;
    for (int i = 0; i < n; i++)
        sum = mix(sum, (uint64_t)v[i] + (unsigned)i);
    return sum;
}

int main(void) {
    begin();
    int original[36], v[36];
    for (unsigned i = 0; i < 36; i++)
        original[i] = (int)(mix(i, i) >> 50) - 8000;
    memcpy(v, original, sizeof v);
    quick(v, 0, 35);
    say("quick", sum_up(v, 36));
    version();
    memcpy(v, original, sizeof v);
    heap(v, 36);
    say("heap", sum_up(v, 36));
    version();
    memcpy(v, original, sizeof v);
    shell(v, 36);
    say("shell", sum_up(v, 36));
    version();
    END();
}
