// db_check: is the value of a map key what weir.xml says that it is? One sentence if not.
#include "openvswitch.h"

#include "db_private.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

enum db_key_kind {
	KEY_STRING,
	KEY_INTEGER,
	KEY_BOOLEAN,
	KEY_ENUM,
	KEY_OCTAL,
	KEY_PATH,
	KEY_CPUS,
	KEY_PAIRS,
	KEY_ADDRESS, // IP address and port
	KEY_IPS      // IP addresses, separated by spaces
};

struct db_key {
	const char *table, *column, *key;
	enum db_key_kind kind;
	uint64_t lo, hi;
	const char *unit;   // of an integer, or NULL
	const char *values; // of an enum, separated by spaces
	const char *types;  // port types that have it, separated by spaces; NULL: all
};

#include "db-keys.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static char *sentence(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static char *sentence(const char *fmt, ...)
{
	va_list args;
	char *s;

	va_start(args, fmt);
	if (vasprintf(&s, fmt, args) < 0)
		abort();
	va_end(args);
	return s;
}

static bool word_in(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (const char *w = words; *w;) {
		size_t n = strcspn(w, " ");
		if (n == len && !memcmp(w, word, n))
			return true;
		w += n;
		w += strspn(w, " ");
	}
	return false;
}

// Reads a number without sign and leaves *s behind it. No number of this database has more than 18 digits.
static bool read_number(const char **s, int base, uint64_t *value)
{
	const char *start = *s;

	for (*value = 0; **s >= '0' && **s < '0' + base && *s - start < 18; (*s)++)
		*value = *value * (unsigned)base + (uint64_t)(**s - '0');
	return *s > start;
}

static char *check_integer(const struct db_key *k, const char *column, const char *value)
{
	const char *s = value;
	uint64_t v;
	bool number = read_number(&s, 10, &v) && !*s;

	if (number && v >= k->lo && v <= k->hi)
		return NULL;
	if (k->unit && !number)
		return sentence("%s: %s must be a number of %s, not \"%s\"", column, k->key, k->unit, value);
	return sentence("%s: %s must be a number from %llu to %llu%s%s, not \"%s\"", column, k->key, (unsigned long long)k->lo,
			(unsigned long long)k->hi, k->unit ? " " : "", k->unit ? k->unit : "", value);
}

static bool cpus_ok(const char *s)
{
	for (;;) {
		uint64_t first, last;
		if (!read_number(&s, 10, &first))
			return false;
		last = first;
		if (*s == '-') {
			s++;
			if (!read_number(&s, 10, &last))
				return false;
		}
		if (last < first || last > 4095)
			return false;
		if (!*s)
			return true;
		if (*s++ != ',')
			return false;
	}
}

static bool pairs_ok(const char *s)
{
	for (;;) {
		uint64_t v;
		if (!read_number(&s, 10, &v) || v > UINT16_MAX || *s++ != ':' || !read_number(&s, 10, &v) || v > UINT16_MAX)
			return false;
		if (!*s)
			return true;
		if (*s++ != ',')
			return false;
	}
}

// "127.0.0.1:9477", "[::1]:9477"
static bool address_ok(const char *s)
{
	const char *colon = strrchr(s, ':');
	bool brackets = s[0] == '[';
	char host[INET6_ADDRSTRLEN];
	struct in6_addr a;
	uint64_t port;

	if (!colon || (brackets && (colon == s || colon[-1] != ']')))
		return false;
	size_t n = (size_t)(colon - s) - (brackets ? 2 : 0);
	const char *p = colon + 1;
	if (n >= sizeof host || !read_number(&p, 10, &port) || *p || !port || port > UINT16_MAX)
		return false;
	memcpy(host, s + brackets, n);
	host[n] = 0;
	return inet_pton(brackets ? AF_INET6 : AF_INET, host, &a) == 1;
}

bool db_parse_ip(const char *s, size_t len, struct config_ip *ip)
{
	char one[INET6_ADDRSTRLEN];

	*ip = (struct config_ip){.v6 = false};
	if (!len || len >= sizeof one)
		return false;
	memcpy(one, s, len);
	one[len] = 0;
	ip->v6 = memchr(one, ':', len) != NULL;
	return inet_pton(ip->v6 ? AF_INET6 : AF_INET, one, ip->b) == 1;
}

bool db_parse_station_ip(const char *s, struct config_ip *ip)
{
	return db_parse_ip(s, strlen(s), ip) && db_ip_of_station(ip);
}

bool db_ip_of_station(const struct config_ip *ip)
{
	static const struct config_ip none;

	if (ip->v6)
		return ip->b[0] != 0xff && memcmp(ip->b, none.b, 15) != 0; // RFC 4291: multicast, unspecified, loopback
	return ip->b[0] && ip->b[0] != 127 && ip->b[0] < 224;              // RFC 1122 section 3.2.1.3
}

bool db_parse_prefix(const char *s, size_t len, struct config_prefix *prefix)
{
	const char *slash = memchr(s, '/', len), *end = s + len;
	uint64_t bits = 0;

	if (!db_parse_ip(s, (size_t)((slash ? slash : end) - s), &prefix->ip))
		return false;
	unsigned most = prefix->ip.v6 ? 128 : 32;
	prefix->len = (uint8_t)most;
	if (!slash)
		return true;
	const char *digits = slash + 1;
	if (!read_number(&digits, 10, &bits) || digits != end || bits > most)
		return false;
	prefix->len = (uint8_t)bits;
	return true;
}

static char *check_ips(const struct db_key *k, const char *column, const char *value)
{
	struct config_ip ip;

	if (!*value)
		return sentence("%s: %s is empty", column, k->key);
	for (const char *s = value, *end; *s; s = end + strspn(end, " ")) {
		end = s + strcspn(s, " ");
		if (!db_parse_ip(s, (size_t)(end - s), &ip))
			return sentence("%s: %s must be IP addresses with spaces between, not \"%s\"", column, k->key, value);
	}
	return NULL;
}

static char *check_value(const struct db_key *k, const char *column, const char *value)
{
	const char *s = value;
	uint64_t v;

	switch (k->kind) {
	case KEY_INTEGER:
		return check_integer(k, column, value);
	case KEY_BOOLEAN:
		if (!word_in("true false", value))
			return sentence("%s: %s must be true or false, not \"%s\"", column, k->key, value);
		return NULL;
	case KEY_ENUM:
		if (!word_in(k->values, value))
			return sentence("%s: %s must be one of %s, not \"%s\"", column, k->key, k->values, value);
		return NULL;
	case KEY_OCTAL:
		if (!read_number(&s, 8, &v) || *s || v > k->hi)
			return sentence("%s: %s must be an octal number up to 0%llo, not \"%s\"", column, k->key,
					(unsigned long long)k->hi, value);
		return NULL;
	case KEY_PATH:
		if (value[0] != '/')
			return sentence("%s: %s must be an absolute path, not \"%s\"", column, k->key, value);
		if (strlen(value) >= sizeof((struct sockaddr_un){0}).sun_path)
			return sentence("%s: %s is longer than the %zu bytes that the path of a socket can have", column,
					k->key, sizeof((struct sockaddr_un){0}).sun_path - 1);
		return NULL;
	case KEY_CPUS:
		if (!cpus_ok(value))
			return sentence("%s: %s must be a list of processors such as 1-3,5, not \"%s\"", column, k->key, value);
		return NULL;
	case KEY_PAIRS:
		if (!pairs_ok(value))
			return sentence("%s: %s must be a list of pairs such as 0:1,1:2, not \"%s\"", column, k->key, value);
		return NULL;
	case KEY_ADDRESS:
		if (!address_ok(value))
			return sentence("%s: %s must be an IP address and a port such as 127.0.0.1:9477 or [::1]:9477, not \"%s\"", column, k->key, value);
		return NULL;
	case KEY_IPS:
		return check_ips(k, column, value);
	case KEY_STRING:
		if (!*value)
			return sentence("%s: %s is empty", column, k->key);
		return NULL;
	}
	return NULL;
}

static const struct db_key *find_key(const char *table, const char *column, const char *key)
{
	for (size_t i = 0; i < COUNT(db_keys); i++)
		if (!strcmp(db_keys[i].table, table) && !strcmp(db_keys[i].column, column) && !strcmp(db_keys[i].key, key))
			return &db_keys[i];
	return NULL;
}

static bool is_closed(const char *table, const char *column)
{
	for (size_t i = 0; i < COUNT(db_closed); i++)
		if (!strcmp(db_closed[i][0], table) && !strcmp(db_closed[i][1], column))
			return true;
	return false;
}

char *db_check_map(const char *table, const char *column, const struct config_map *map, const char *type, size_t *bad)
{
	for (size_t i = 0; i < map->n; i++) {
		const struct config_pair *p = &map->pair[i];
		const struct db_key *k = find_key(table, column, p->key);
		char *error = NULL;

		if (!k && is_closed(table, column))
			error = sentence("%s: there is no key \"%s\"", column, p->key);
		else if (k && k->types && type && !word_in(k->types, type))
			error = sentence("%s: %s isn't for ports of type %s", column, p->key, type);
		else if (k)
			error = check_value(k, column, p->value);
		if (error) {
			if (bad)
				*bad = i;
			return error;
		}
	}
	return NULL;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool db_parse_mac(const char *s, size_t len, uint8_t mac[6])
{
	if (len != 17)
		return false;
	for (int i = 0; i < 6; i++, s += 3) {
		int hi = hex_digit(s[0]), lo = hex_digit(s[1]);
		if (hi < 0 || lo < 0 || (i < 5 && s[2] != ':'))
			return false;
		mac[i] = (uint8_t)(hi << 4 | lo);
	}
	return true;
}

// Names become file names (sockets) and words of a command line.
char *db_check_name(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

	if (name[n] || n < 1 || n > 63 || !isalnum((unsigned char)name[0]))
		return sentence("name: \"%s\" isn't 1 to 63 letters, digits and ._- that begin with a letter or digit", name);
	return NULL;
}
