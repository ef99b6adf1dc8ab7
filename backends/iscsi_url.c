/* SPDX-License-Identifier: Apache-2.0 */
/* The text of an iSCSI disk. Error messages never quote it: it may hold a password. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/iscsi_impl.h"
#include "base/assert.h"
#include "base/util.h"

static const char url_form[] = "iscsi://[USER%PW@]HOST[:PORT]/IQN/LUN";

enum {
    DEFAULT_NOP_INTERVAL_S = 5,
    DEFAULT_RECONNECT_S = 60,
    SECONDS_MAX = 86400,
};

void
lun_default_initiator(char name[static LUN_NAME_SIZE])
{
    char host[256] = "";
    uint64_t hash = 0;

    gethostname(host, sizeof(host) - 1);
    for (const char *c = host; *c != '\0'; c++) {
        hash = hash_u64(hash ^ (uint8_t)*c);
    }
    snprintf(name, LUN_NAME_SIZE, "iqn.2026-11.io.volmgr:%016llx", (unsigned long long)hash);
}

/* Copy a part of the text. -EINVAL: empty or too long, or with control characters or blanks. */
static int
take(char *to, size_t to_size, const char *from, size_t length)
{
    if (length == 0 || length >= to_size) {
        return -EINVAL;
    }
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)from[i] <= ' ' || from[i] == 0x7f) {
            return -EINVAL;
        }
    }
    memcpy(to, from, length);
    to[length] = '\0';
    return 0;
}

static int
parse_decimal(const char *text, size_t length, uint64_t maximum, uint64_t *ret_number)
{
    uint64_t number = 0;
    if (length == 0) {
        return -EINVAL;
    }
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return -EINVAL;
        }
        number = number * 10 + (uint64_t)(text[i] - '0');
        if (number > maximum) {
            return -EINVAL;
        }
    }
    *ret_number = number;
    return 0;
}

/* USER%PW */
static int
parse_user(struct lun_location *location, const char *text, size_t length, struct error *error)
{
    const char *percent = memchr(text, '%', length);
    if (percent == NULL) {
        return error_set(error, -EINVAL, "a user without a password; write %s", url_form);
    }
    size_t user_length = (size_t)(percent - text);
    if (take(location->user, sizeof(location->user), text, user_length) < 0 ||
        take(location->password, sizeof(location->password), percent + 1,
             length - user_length - 1) < 0) {
        return error_set(error, -EINVAL, "an empty or overlong user or password; write %s",
                         url_form);
    }
    return 0;
}

/* HOST, HOST:PORT, [ADDRESS], [ADDRESS]:PORT */
static int
parse_host(struct lun_location *location, const char *text, size_t length, struct error *error)
{
    const char *end = text + length;
    const char *colon;
    uint64_t port = 3260;
    int result;

    if (length > 0 && text[0] == '[') {
        const char *bracket = memchr(text, ']', length);
        if (bracket == NULL || (bracket + 1 != end && bracket[1] != ':')) {
            return error_set(error, -EINVAL, "an address that begins with [ and does not end");
        }
        result =
            take(location->host, sizeof(location->host), text + 1, (size_t)(bracket - text - 1));
        colon = bracket + 1 != end ? bracket + 1 : NULL;
    } else {
        colon = memchr(text, ':', length);
        result = take(location->host, sizeof(location->host), text,
                      colon != NULL ? (size_t)(colon - text) : length);
    }
    if (result < 0) {
        return error_set(error, -EINVAL, "no host in the text of the disk; write %s", url_form);
    }
    if (colon != NULL &&
        (parse_decimal(colon + 1, (size_t)(end - colon - 1), 65535, &port) < 0 || port == 0)) {
        return error_set(error, -EINVAL, "the port of the disk is not a number from 1 to 65535");
    }
    snprintf(location->port, sizeof(location->port), "%u", (unsigned)port);
    return 0;
}

static int
parse_seconds(const char *value, size_t length, uint32_t *ret_seconds)
{
    uint64_t seconds;
    if (parse_decimal(value, length, SECONDS_MAX, &seconds) < 0 || seconds == 0) {
        return -EINVAL;
    }
    *ret_seconds = (uint32_t)seconds;
    return 0;
}

static bool
equals(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && memcmp(text, word, length) == 0;
}

static int
parse_option(struct lun_location *location, const char *text, size_t length, struct error *error)
{
    const char *equal = memchr(text, '=', length);
    size_t key_length = equal != NULL ? (size_t)(equal - text) : length;
    const char *value = equal != NULL ? equal + 1 : text + length;
    size_t value_length = (size_t)(text + length - value);
    int result;

    if (equals(text, key_length, "initiator")) {
        result = take(location->initiator, sizeof(location->initiator), value, value_length);
    } else if (equals(text, key_length, "target_user")) {
        result = take(location->target_user, sizeof(location->target_user), value, value_length);
    } else if (equals(text, key_length, "target_password")) {
        result =
            take(location->target_password, sizeof(location->target_password), value, value_length);
    } else if (equals(text, key_length, "header_digest")) {
        location->header_digest = equals(value, value_length, "crc32c");
        result = location->header_digest || equals(value, value_length, "none") ? 0 : -EINVAL;
    } else if (equals(text, key_length, "nop_interval")) {
        result = parse_seconds(value, value_length, &location->nop_interval_s);
    } else if (equals(text, key_length, "reconnect")) {
        result = parse_seconds(value, value_length, &location->reconnect_s);
    } else {
        return error_set(error, -EINVAL,
                         "an unknown option of an iSCSI disk; there are initiator, header_digest, "
                         "target_user, target_password, nop_interval, reconnect");
    }
    if (result < 0) {
        return error_set(error, result, "the option %.*s of the iSCSI disk has no valid value",
                         (int)key_length, text);
    }
    return 0;
}

static int
parse_options(struct lun_location *location, const char *options, struct error *error)
{
    while (*options != '\0') {
        size_t length = strcspn(options, "&");
        int result = parse_option(location, options, length, error);
        if (result < 0) {
            return result;
        }
        options += length;
        options += *options == '&' ? 1 : 0;
    }
    if ((location->target_user[0] == '\0') != (location->target_password[0] == '\0')) {
        return error_set(error, -EINVAL, "target_user and target_password go together");
    }
    if (location->target_user[0] != '\0' && location->user[0] == '\0') {
        return error_set(error, -EINVAL, "mutual CHAP needs a user and a password of ours as well");
    }
    return 0;
}

int
lun_location_parse(const char *url, struct lun_location *ret_location, struct error *error)
{
    static const char scheme[] = "iscsi://";
    struct lun_location location = {
        .nop_interval_s = DEFAULT_NOP_INTERVAL_S,
        .reconnect_s = DEFAULT_RECONNECT_S,
    };
    ASSERT(strncmp(url, scheme, strlen(scheme)) == 0);
    const char *text = url + strlen(scheme);
    const char *options = text + strcspn(text, "?");
    size_t authority_length = strcspn(text, "/?");
    uint64_t lun;
    int result;

    const char *at = memrchr(text, '@', authority_length);
    const char *host = text;
    if (at != NULL) {
        result = parse_user(&location, text, (size_t)(at - text), error);
        if (result < 0) {
            return result;
        }
        host = at + 1;
    }
    result = parse_host(&location, host, authority_length - (size_t)(host - text), error);
    if (result < 0) {
        return result;
    }
    const char *target = text + authority_length;
    target += *target == '/' ? 1 : 0;
    size_t target_length = strcspn(target, "/?");
    const char *lun_text = target + target_length;
    lun_text += *lun_text == '/' ? 1 : 0;
    if (take(location.target, sizeof(location.target), target, target_length) < 0) {
        return error_set(error, -EINVAL, "no target name in the text of the disk; write %s",
                         url_form);
    }
    if (lun_text > options ||
        parse_decimal(lun_text, (size_t)(options - lun_text), 16383, &lun) < 0) {
        return error_set(error, -EINVAL, "no LUN from 0 to 16383 in the text of the disk; write %s",
                         url_form);
    }
    location.lun = (uint16_t)lun;
    lun_default_initiator(location.initiator);
    result = parse_options(&location, *options == '?' ? options + 1 : options, error);
    if (result < 0) {
        return result;
    }
    *ret_location = location;
    return 0;
}
