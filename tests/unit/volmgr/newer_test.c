/* SPDX-License-Identifier: Apache-2.0 */
/* Databases with what a later version may write: served only when nothing can go wrong by it. */
#include "tests/unit/volmgr/harness.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"
#include "volmgr/core_impl.h"

static const char *const ONE[] = { "/d/0", NULL };

static void
put_overlay(struct byte_buffer *batch)
{
    struct volume_record volume = {
        .id = 2, .branch = 2, .name = "o", .size_bytes = MIB, .sector_bytes = 512, .copies = 1,
        .kind = VOLUME_KIND_EPHEMERAL,
    };
    schema_put_volume(batch, &volume);
}

static void
put_unknown(struct byte_buffer *batch)
{
    store_batch_put(batch, STORE_FAMILY_SYSTEM, "a1", 2, "x", 1);
}

static void
put_harmless(struct byte_buffer *batch)
{
    store_batch_put(batch, STORE_FAMILY_SYSTEM, "Q1", 2, "x", 1);
    store_batch_put(batch, STORE_FAMILY_HISTORY, "Q1", 2, "x", 1);
}

static void
what_must_be_known_is_not_served(void **state)
{
    static const struct {
        void (*put)(struct byte_buffer *batch);
        enum pool_state wanted;
    } cases[] = {
        { put_overlay, POOL_STATE_OFFLINE },
        { put_unknown, POOL_STATE_OFFLINE },
        { put_harmless, POOL_STATE_ONLINE },
    };

    (void)state;
    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        struct bench *bench = bench_create(31, 1);
        struct byte_buffer batch = BYTE_BUFFER_INIT;
        bench_disk(bench, "/d/0", 256 * MIB);
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_make_pool(bench, "p", ONE, false), 0);
        assert_int_equal(bench_make_volume(bench, "p/v", 1 * GIB), 0);
        assert_int_equal(bench_shutdown(bench), 0);
        cases[n].put(&batch);
        bench_poke_database(bench, &batch);
        byte_buffer_free(&batch);
        bench->made_up = true;
        assert_int_equal(bench_boot(bench), 0);
        assert_int_equal(bench_pool_state(bench, "p"), cases[n].wanted);
        if (cases[n].wanted == POOL_STATE_OFFLINE) {
            assert_non_null(strstr(bench->error.message, "written by a newer volmgr"));
        }
        assert_int_equal(bench_shutdown(bench), 0);
        bench_free(bench);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_must_be_known_is_not_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
