#include "address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int mac_parse(const char *s, uint8_t mac[6])
{
	if (strlen(s) != MAC_STRLEN)
		return -EINVAL;
	for (int i = 0; i < 6; i++) {
		const char *digit = s + 3 * i;
		if (!isxdigit((unsigned char)digit[0]) || !isxdigit((unsigned char)digit[1]) || (i < 5 && digit[2] != ':'))
			return -EINVAL;
		mac[i] = (uint8_t)strtoul((char[]){digit[0], digit[1], '\0'}, NULL, 16);
	}
	return 0;
}

void mac_format(const uint8_t m[6], char out[MAC_STRLEN + 1])
{
	snprintf(out, MAC_STRLEN + 1, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
}

static char *sentence(const char *s, const char *why)
{
	char *text;

	return asprintf(&text, "'%s' %s", s, why) < 0 ? NULL : text;
}

char *mac_problem(const char *s)
{
	static const uint8_t zero[6];
	uint8_t mac[6];

	if (mac_parse(s, mac))
		return sentence(s, "is not an Ethernet address such as 52:54:00:00:00:01");
	if (mac[0] & 1)
		return sentence(s, "is a multicast address, which no interface has");
	if (!memcmp(mac, zero, sizeof(mac)))
		return sentence(s, "is the zero address, which no interface has");
	return NULL;
}

char *address_problem(const char *text)
{
	char *copy = strdup(text);
	char *save = NULL;
	char *word = strtok_r(copy, " ", &save);
	char *problem = mac_problem(word ? word : "");
	unsigned char ip[16];

	while (!problem && (word = strtok_r(NULL, " ", &save)))
		if (inet_pton(AF_INET, word, ip) != 1 && inet_pton(AF_INET6, word, ip) != 1)
			problem = sentence(word, "is not an IPv4 or IPv6 address");
	free(copy);
	return problem;
}
