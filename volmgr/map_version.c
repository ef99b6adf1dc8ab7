/* SPDX-License-Identifier: Apache-2.0 */
#include "volmgr/map_version_impl.h"

#include "base/assert.h"

void
map_version_loaded(struct map_version *version, uint32_t stored, uint32_t previous)
{
    ASSERT(stored == 0 || previous < stored);
    *version = (struct map_version){ .stored = stored, .previous = previous };
}

void
map_version_change(struct map_version *version, uint32_t frozen, uint32_t current)
{
    ASSERT_OP(frozen, <, current);
    ASSERT(!map_version_must_freeze(version, frozen));
    if (version->working != 0) {
        return; /* W1 */
    }
    if (version->stored != 0 && version->stored <= frozen) {
        version->previous = version->stored;
    }
    version->working = current;
    ASSERT_OP(version->working, >, frozen);
    ASSERT_OP(version->working, >, version->previous);
}

void
map_version_encoded(struct map_version *version)
{
    ASSERT_OP(version->working, !=, 0u);
    version->stored = version->working;
    version->working = 0;
}

void
map_version_died(struct map_version *version, uint32_t died, uint32_t previous)
{
    ASSERT_OP(previous, <, died);
    if (version->previous == died) {
        version->previous = previous;
    } else {
        ASSERT(version->previous > died || version->previous < previous);
    }
}
