/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which backend serves which text, and the opening and closing that all of them share.
 *
 * A type is chosen by the prefix of the text; text without a known prefix is a path, which is
 * looked at to tell a file from a block device. A new type is one more row of the array.
 */
#include "backends/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/guard.h"
#include "base/assert.h"
#include "base/util.h"
#include "io/platform.h"

enum {
    DEFAULT_TIMEOUT_S = 30
};

static const struct backend_ops *const backend_types[] = {
    &file_backend_ops,  &block_backend_ops, &memory_backend_ops,
    &iscsi_backend_ops, &fault_backend_ops,
};

/* Copy `text` to `to`, leaving out every "target_password=..." of a URL's options. */
static void
copy_without_option_secrets(char *to, const char *text)
{
    static const char secret[] = "target_password=";
    const char *start = text;

    while (*text != '\0') {
        bool at_option = text > start && (text[-1] == '?' || text[-1] == '&');
        if (at_option && strncmp(text, secret, strlen(secret)) == 0) {
            text += strcspn(text, "&!");
            text += *text == '&' ? 1 : 0;
        } else {
            *to++ = *text++;
        }
    }
    *to = '\0';
}

/* Is this what may stand behind the '?' of a URL, and not the rest of a password? */
static bool
are_options(const char *text)
{
    static const char *const names[] = { "initiator=",       "header_digest=", "target_user=",
                                         "target_password=", "nop_interval=",  "reconnect=" };

    while (*text != '\0') {
        bool is_known = false;
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
            is_known = is_known || strncmp(text, names[i], strlen(names[i])) == 0;
        }
        if (!is_known) {
            return false;
        }
        text += strcspn(text, "&");
        text += *text == '&' ? 1 : 0;
    }
    return true;
}

/*
 * Where the last '@' of "USER%PASSWORD@" is, or NULL. A password with a '/' or a '?' makes the URL
 * invalid, but must not show up in a message: an '@' behind the '?' belongs to the options only
 * where they are some, and HOST/TARGET/LUN stands before the '?'.
 */
static const char *
find_end_of_secret(const char *url)
{
    const char *options = url + strcspn(url, "?");
    const char *at = memrchr(url, '@', (size_t)(options - url));
    const char *host = at != NULL ? at + 1 : url;
    size_t host_bytes = strcspn(host, "/?%");
    const char *target = host + host_bytes;

    if (host_bytes == 0 || *target != '/') {
        return strrchr(url, '@');
    }
    const char *lun = target + 1 + strcspn(target + 1, "/?");
    size_t lun_bytes = *lun == '/' ? strspn(lun + 1, "0123456789") : 0;
    bool is_whole = lun_bytes > 0 && lun + 1 + lun_bytes == options &&
                    (*options == '\0' || are_options(options + 1));
    return is_whole ? at : strrchr(url, '@');
}

char *
backend_spec_without_secrets(const char *spec)
{
    static const char scheme[] = "iscsi://";
    char *copy = malloc(strlen(spec) + 1);
    ASSERT(copy != NULL);
    const char *url = strstr(spec, scheme);
    if (url == NULL) {
        return memcpy(copy, spec, strlen(spec) + 1);
    }
    const char *user = url + strlen(scheme);
    const char *at = find_end_of_secret(user);
    size_t authority_bytes = strcspn(user, "/?");
    if (at == NULL && (*user == '[' || memchr(user, '%', authority_bytes) == NULL)) {
        copy_without_option_secrets(copy, spec);
        return copy;
    }
    /* The name of the user stays; of USER%PASSWORD without a host nothing else. */
    size_t user_bytes = strcspn(user, "%:@");
    size_t head_bytes = (size_t)(user - spec) + user_bytes;
    memcpy(copy, spec, head_bytes);
    copy_without_option_secrets(copy + head_bytes, at != NULL ? at : "");
    return copy;
}

/* Tell a file from a block device. */
static int
probe_path(struct platform *platform, const char *path, const struct backend_ops **ret_ops,
           struct error *error)
{
    struct platform_file *file = NULL;
    int result = platform->ops->file_open(platform, path, FILE_OPEN_READ_ONLY, 0, &file, error);
    if (result < 0) {
        return error_set(error, result, "cannot open %s: %s", path, error_name(result));
    }
    enum file_kind kind = platform->ops->file_properties(file)->kind;
    platform->ops->file_close(file);
    switch (kind) {
    case FILE_KIND_REGULAR:
        *ret_ops = &file_backend_ops;
        return 0;
    case FILE_KIND_BLOCK_DEVICE:
        *ret_ops = &block_backend_ops;
        return 0;
    case FILE_KIND_OTHER:
        break;
    }
    return error_set(error, -EINVAL, "%s is neither a regular file nor a block device", path);
}

static int
find_type(struct platform *platform, const char *spec, const struct backend_ops **ret_ops,
          struct error *error)
{
    for (size_t i = 0; i < ARRAY_SIZE(backend_types); i++) {
        const char *scheme = backend_types[i]->scheme;
        if (scheme != NULL && strncmp(spec, scheme, strlen(scheme)) == 0) {
            *ret_ops = backend_types[i];
            return 0;
        }
    }
    if (spec[0] == '\0') {
        return error_set(error, -EINVAL, "the name of a disk is empty");
    }
    return probe_path(platform, spec, ret_ops, error);
}

static void
assert_properties(const struct backend *backend)
{
    const struct backend_properties *properties = &backend->properties;
    ASSERT(properties->block_bytes == 512 || properties->block_bytes == 4096);
    ASSERT(properties->size_bytes > 0);
    ASSERT_OP(properties->size_bytes % properties->block_bytes, ==, 0u);
    ASSERT_OP(properties->physical_block_bytes, >=, properties->block_bytes);
    ASSERT(is_power_of_two(properties->memory_alignment_bytes));
    ASSERT_OP(properties->transfer_bytes_max, >=, 64 * KIB);
    ASSERT_OP(properties->transfer_bytes_max, <=, (uint64_t)INT32_MAX);
    ASSERT_OP(properties->transfer_bytes_max % properties->block_bytes, ==, 0u);
    ASSERT_OP(properties->range_bytes_max % properties->block_bytes, ==, 0u);
}

int
backend_open(struct platform *platform, struct reactor *owner, const char *spec, uint32_t flags,
             struct backend **ret_backend, struct error *error)
{
    const struct backend_ops *ops = NULL;
    struct error unused = { 0 };
    error = error != NULL ? error : &unused;
    ASSERT(platform != NULL && spec != NULL);

    int result = find_type(platform, spec, &ops, error);
    if (result < 0) {
        return result;
    }
    ASSERT(!ops->owner_reactor_only || owner != NULL);
    struct backend *backend = calloc(1, sizeof(*backend));
    if (backend == NULL) {
        return error_set(error, -ENOMEM, "no memory for a disk");
    }
    backend->ops = ops;
    backend->platform = platform;
    backend->owner = owner;
    backend->default_timeout_ns = DEFAULT_TIMEOUT_S * NS_PER_S;
    backend->spec = backend_spec_without_secrets(spec);
    result = guard_create(backend);
    if (result < 0) {
        error_set(error, result, "no memory for a disk");
        goto fail;
    }
    if (flags & (BACKEND_OPEN_READ_ONLY | BACKEND_OPEN_PROBE)) {
        guard_emulate(backend, GUARD_READ_ONLY);
    }
    result = ops->open(backend, spec, flags, error);
    if (result < 0) {
        guard_destroy(backend);
        goto fail;
    }
    assert_properties(backend);
    *ret_backend = backend;
    return 0;

fail:
    free(backend->spec);
    free(backend);
    return result;
}

void
backend_close(struct backend *backend)
{
    struct backend_statistics statistics;
    backend_get_statistics(backend, &statistics);
    ASSERT_OP(statistics.in_flight, ==, 0u);
    backend->ops->close(backend);
    guard_destroy(backend);
    free(backend->spec);
    free(backend);
}

int
backend_refresh(struct backend *backend, struct error *error)
{
    uint64_t old_bytes = backend_size_bytes(backend);
    int result = backend->ops->refresh(backend, error);
    /* A disk that shrank keeps its size here: what lies behind the end fails, and says so. */
    ASSERT_OP(backend_size_bytes(backend), >=, old_bytes);
    return result;
}
