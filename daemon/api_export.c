/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of an export, as fields of the API and as options of its record. */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "daemon/api_call_impl.h"
#include "targets/nbd/server.h"

_Static_assert((int)API_HOST_BYTES_MAX < (int)EXPORT_HOST_TEXT_SIZE, "hosts fit both");

static int
take_rules(struct api_call *call, char options[static EXPORT_OPTIONS_SIZE],
                  struct error *error)
{
    struct export_access access = { .is_default = api_flag(&call->arguments, "default") };
    const char *tls = api_text(&call->arguments, "tls");
    size_t count = 0;
    const char *const *hosts = api_strings(&call->arguments, "hosts", &count);

    if (tls != NULL) {
        bool known = export_tls_parse(tls, &access.tls);
        ASSERT(known); /* A3 */
    }
    for (size_t i = 0; i < count; i++) {
        struct export_host *host = &access.hosts[access.host_count];
        if (access.host_count == EXPORT_HOSTS_MAX) {
            return error_set(error, -E2BIG, "an export can name %d hosts at most: name a network",
                             EXPORT_HOSTS_MAX);
        }
        int result = export_host_parse(hosts[i], host, error);
        if (result < 0) {
            return result;
        }
        bool twice = false;
        for (uint32_t other = 0; other < access.host_count; other++) {
            twice |= export_host_equals(host, &access.hosts[other]);
        }
        access.host_count += !twice;
    }
    return export_access_format(&access, options, error);
}

/* Rules that no host could satisfy with the addresses that there are. */
static int
check_tls(const struct api_call *call, const char *options, struct error *error)
{
    struct export_access access;
    bool offered = false;
    bool plain = false;

    if (export_access_parse(options, &access) < 0) {
        return error_set(error, -EINVAL, "the rules of the export are not understood");
    }
    for (uint32_t i = 0; i < call->node->nbd_listen_count; i++) {
        offered |= call->node->nbd_tls[i] != NBD_TLS_OFF;
        plain |= call->node->nbd_tls[i] != NBD_TLS_REQUIRED;
    }
    bool names_only = access.host_count > 0;
    for (uint32_t i = 0; i < access.host_count; i++) {
        names_only &= access.hosts[i].kind == EXPORT_HOST_NAME;
    }
    if ((access.tls == EXPORT_TLS_REQUIRED || names_only) && !offered) {
        return error_set(error, -EINVAL,
                         "no address of the daemon offers TLS; set tls or unix_tls in [nbd] of its "
                         "configuration");
    }
    if (access.tls == EXPORT_TLS_OFF && names_only) {
        return error_set(error, -EINVAL, "a name is proved by TLS only");
    }
    if (access.tls == EXPORT_TLS_OFF && offered && !plain) {
        return error_set(error, -EINVAL, "every address of the daemon requires TLS");
    }
    return 0;
}

int
api_export_rules(struct api_call *call, char options[static EXPORT_OPTIONS_SIZE],
                 struct error *error)
{
    int result = take_rules(call, options, error);
    return result < 0 ? result : check_tls(call, options, error);
}
