/* SPDX-License-Identifier: Apache-2.0 */
#include "api/error_body.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/util.h"

struct error_rule {
    int code; /* errno */
    unsigned status;
    const char *what_to_do;
};

static const struct error_rule rules[] = {
    { EINVAL, 400, "" },
    { ERANGE, 400, "" },
    { E2BIG, 413, "Send less in one request." },
    { EBADMSG, 400, "" },
    { ENAMETOOLONG, 400, "Choose a shorter name." },
    { EACCES, 403, "" },
    { EPERM, 403, "" },
    { ENOENT, 404,
      "See what there is with \"volctl list\", \"volctl snapshots\", \"volctl pool list\" or "
      "\"volctl session list\"." },
    { EEXIST, 409, "Choose another name." },
    { EALREADY, 409, "" },
    { EBUSY, 409,
      "See who uses it with \"volctl session list\" and \"volctl exports\"; end that use and try "
      "again." },
    { ENOTEMPTY, 409, "" },
    { ENOSPC, 507, "Add a disk with \"volctl pool add\", or delete what is no longer needed." },
    { EXDEV, 400, "" },
    { EROFS, 409, "See \"volctl status\" for why it cannot be written." },
    { ETIMEDOUT, 504, "See \"volctl status\" and \"volctl events\" for disks that do not answer." },
    { ESHUTDOWN, 503, "The daemon is ending; try again when it has been started again." },
    { ENODEV, 503, "See \"volctl status\" for the state of the pool." },
    { EAGAIN, 503, "Try again." },
    { ENOMEM, 503, "" },
    { EOPNOTSUPP, 501, "" },
    { EIO, 500, "See \"volctl events\" and the daemon's log." },
    { EUCLEAN, 500, "See \"volctl events\" and the daemon's log." },
};

static const struct error_rule *
find_rule(int code)
{
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        if (rules[i].code == -code) {
            return &rules[i];
        }
    }
    return NULL;
}

unsigned
api_error_status(int code)
{
    ASSERT_OP(code, <, 0);
    const struct error_rule *rule = find_rule(code);
    return rule != NULL ? rule->status : 500;
}

json_t *
api_json_text(const char *text)
{
    json_t *json = json_string(text);
    if (json != NULL) {
        return json;
    }
    char *copy = strdup(text);
    ASSERT(copy != NULL);
    for (char *at = copy; *at != '\0'; at++) {
        if ((unsigned char)*at > 0x7e) {
            *at = '?';
        }
    }
    json = json_string(copy);
    ASSERT(json != NULL);
    free(copy);
    return json;
}

json_t *
api_json_time(uint64_t realtime_ns)
{
    char text[48] = "";
    time_t seconds = (time_t)(realtime_ns / NS_PER_S);
    struct tm parts;
    if (realtime_ns != 0 && gmtime_r(&seconds, &parts) != NULL) {
        size_t used = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
        snprintf(text + used, sizeof(text) - used, ".%03" PRIu64 "Z",
                 realtime_ns / NS_PER_MS % 1000);
    }
    return json_string(text);
}

json_t *
api_error_encode(const char *what, const char *why, const char *what_to_do, int code)
{
    ASSERT_OP(code, <, 0);
    const struct error_rule *rule = find_rule(code);
    const char *name = strerrorname_np(-code);
    if (what_to_do == NULL) {
        what_to_do = rule != NULL ? rule->what_to_do : "";
    }
    json_t *body = json_object();
    ASSERT(body != NULL);
    json_object_set_new(body, "error", api_json_text(what));
    json_object_set_new(body, "why", api_json_text(why));
    json_object_set_new(body, "what_to_do", api_json_text(what_to_do));
    json_object_set_new(body, "code", api_json_text(name != NULL ? name : "EIO"));
    return body;
}

static void
copy_member(const json_t *body, const char *name, char *to, size_t size)
{
    const char *text = json_string_value(json_object_get(body, name));
    snprintf(to, size, "%s", text != NULL ? text : "");
}

bool
api_error_decode(const json_t *body, struct api_error *ret_error)
{
    if (!json_is_string(json_object_get(body, "error"))) {
        return false;
    }
    copy_member(body, "error", ret_error->what, sizeof(ret_error->what));
    copy_member(body, "why", ret_error->why, sizeof(ret_error->why));
    copy_member(body, "what_to_do", ret_error->what_to_do, sizeof(ret_error->what_to_do));
    copy_member(body, "code", ret_error->code, sizeof(ret_error->code));
    return true;
}
