/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Assertions that stay on in release builds.
 *
 * They state what *our own* code guarantees; bytes that came from a wire, a disk, the API or a
 * configuration file are validated with an error return instead, never asserted on (P12).
 */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

#include <stdint.h>

/* Print where and what, then abort. Never returns. */
_Noreturn void assert_fail(const char *file, int line, const char *function, const char *condition);

/* As assert_fail(), with the two operands of a comparison. */
_Noreturn void assert_fail_op(const char *file, int line, const char *function,
                              const char *condition, uint64_t left, uint64_t right);

#define ASSERT(condition)                                                                          \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0)) {                                                   \
            assert_fail(__FILE__, __LINE__, __func__, #condition);                                 \
        }                                                                                          \
    } while (0)

/* ASSERT_OP(a, <=, b): for integers; prints both values when it fails. */
#define ASSERT_OP(left, op, right)                                                                 \
    do {                                                                                           \
        __auto_type assert_left_ = (left);                                                         \
        __auto_type assert_right_ = (right);                                                       \
        if (__builtin_expect(!(assert_left_ op assert_right_), 0)) {                               \
            assert_fail_op(__FILE__, __LINE__, __func__, #left " " #op " " #right,                 \
                           (uint64_t)assert_left_, (uint64_t)assert_right_);                       \
        }                                                                                          \
    } while (0)

#define UNREACHABLE() assert_fail(__FILE__, __LINE__, __func__, "unreachable")

#endif
