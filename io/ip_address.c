/* SPDX-License-Identifier: Apache-2.0 */
#include "io/ip_address.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/assert.h"

_Static_assert((int)IP_ADDRESS_TEXT_SIZE >= (int)INET6_ADDRSTRLEN, "the longest address fits");

bool
ip_address_parse(const char *text, struct ip_address *ret_address)
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    struct ip_address address = { 0 };

    if (inet_pton(AF_INET, text, address.bytes) == 1) {
        address.ipv4 = true;
    } else if (inet_pton(AF_INET6, text, address.bytes) != 1) {
        return false;
    } else if (memcmp(address.bytes, mapped, sizeof(mapped)) == 0) {
        memmove(address.bytes, address.bytes + 12, 4);
        memset(address.bytes + 4, 0, 12);
        address.ipv4 = true;
    }
    *ret_address = address;
    return true;
}

const char *
ip_address_format(const struct ip_address *address, char text[static IP_ADDRESS_TEXT_SIZE])
{
    const char *result = inet_ntop(address->ipv4 ? AF_INET : AF_INET6, address->bytes, text,
                                   IP_ADDRESS_TEXT_SIZE);
    ASSERT(result != NULL);
    return result;
}
