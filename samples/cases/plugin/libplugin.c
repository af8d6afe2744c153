#include "sample.h"

static int inits;

NOINLINE const char *plugin_name(void) {
#ifdef NEW
    return inits >= 0 ? "beta" : "";
#else
    return inits >= 0 ? "alpha" : "";
#endif
}

NOINLINE int plugin_init(void) {
    return ++inits;
}
