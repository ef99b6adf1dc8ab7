/* SPDX-License-Identifier: Apache-2.0 */
/* IP addresses as text and as bytes. Pure; any thread. */
#ifndef IO_IP_ADDRESS_H
#define IO_IP_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    IP_ADDRESS_TEXT_SIZE = 46
};

struct ip_address {
    bool ipv4;         /* the first 4 bytes count */
    uint8_t bytes[16]; /* big-endian; behind IPv4: zero */
};

/*
 * "192.0.2.7" or "2001:db8::7". IPv4 in the clothes of IPv6 (::ffff:192.0.2.7) becomes IPv4: a
 * socket that listens at [::] shows it so. False: it is no address.
 */
bool ip_address_parse(const char *text, struct ip_address *ret_address);

/* Returns `text`. */
const char *ip_address_format(const struct ip_address *address,
                              char text[static IP_ADDRESS_TEXT_SIZE]);

#endif
