// pcapng: see pcapng.h.
#include "pcapng.h"

#include <stdlib.h>
#include <string.h>

enum {
	BLOCK_SECTION = 0x0a0d0d0a,
	BLOCK_INTERFACE = 1,
	BLOCK_STATISTICS = 5,
	BLOCK_PACKET = 6,
};

enum {
	OPT_END = 0,
	OPT_COMMENT = 1,
	SHB_OS = 3,
	SHB_USERAPPL = 4,
	IF_NAME = 2,
	IF_TSRESOL = 9,
	IF_FILTER = 11,
	EPB_FLAGS = 2,
	EPB_DROPCOUNT = 4,
	ISB_STARTTIME = 2,
	ISB_ENDTIME = 3,
	ISB_IFRECV = 4,
	ISB_IFDROP = 5,
};

#define LINKTYPE_ETHERNET 1
#define OPTION_MAX 1024 // bytes of a text; longer ones are cut

static size_t padded(size_t n)
{
	return (n + 3) & ~(size_t)3;
}

// Room for a block with so many bytes in it, at most.
static bool reserve(struct pcapng *p, size_t bytes)
{
	size_t want = p->len + bytes + 64;

	if (want <= p->room)
		return true;
	size_t room = p->room ? p->room : 4096;
	while (room < want)
		room *= 2;
	uint8_t *data = realloc(p->data, room);
	if (!data) {
		p->failed = true;
		return false;
	}
	p->data = data;
	p->room = room;
	return true;
}

// All of these write into room that reserve() has made.

static void put(struct pcapng *p, const void *bytes, size_t n)
{
	if (n)
		memcpy(p->data + p->len, bytes, n);
	memset(p->data + p->len + n, 0, padded(n) - n);
	p->len += padded(n);
}

static void put_u32(struct pcapng *p, uint32_t v)
{
	put(p, &v, sizeof v);
}

static void put_option(struct pcapng *p, uint16_t code, const void *value, size_t n)
{
	uint16_t head[2] = {code, (uint16_t)n};

	put(p, head, sizeof head);
	put(p, value, n);
}

static void put_text(struct pcapng *p, uint16_t code, const char *text)
{
	size_t n = text ? strlen(text) : 0;

	if (n)
		put_option(p, code, text, n < OPTION_MAX ? n : OPTION_MAX);
}

static void put_u64(struct pcapng *p, uint16_t code, uint64_t v)
{
	put_option(p, code, &v, sizeof v);
}

// Times are written as two words, the high one first, whatever the byte order.
static void put_time(struct pcapng *p, uint16_t code, uint64_t ns)
{
	uint32_t words[2] = {(uint32_t)(ns >> 32), (uint32_t)ns};

	put_option(p, code, words, sizeof words);
}

static size_t begin(struct pcapng *p, uint32_t type)
{
	size_t at = p->len;

	put_u32(p, type);
	put_u32(p, 0); // its length, known at the end
	return at;
}

static void end(struct pcapng *p, size_t at)
{
	uint32_t len = (uint32_t)(p->len - at + 4);

	put_u32(p, len);
	memcpy(p->data + at + 4, &len, sizeof len);
}

void pcapng_section(struct pcapng *p, const char *os, const char *application)
{
	uint16_t version[2] = {1, 0};
	int64_t unknown = -1; // length of the section

	if (!reserve(p, 2 * (OPTION_MAX + 8)))
		return;
	size_t at = begin(p, BLOCK_SECTION);
	put_u32(p, 0x1a2b3c4d);
	put(p, version, sizeof version);
	put(p, &unknown, sizeof unknown);
	put_text(p, SHB_OS, os);
	put_text(p, SHB_USERAPPL, application);
	put_option(p, OPT_END, NULL, 0);
	end(p, at);
}

void pcapng_interface(struct pcapng *p, const char *name, const char *filter, uint32_t snaplen)
{
	uint16_t link[2] = {LINKTYPE_ETHERNET, 0};
	uint8_t nanoseconds = 9;
	uint8_t expression[OPTION_MAX + 1] = {0}; // its first byte: it is a string of libpcap's

	if (!reserve(p, 2 * (OPTION_MAX + 8)))
		return;
	size_t at = begin(p, BLOCK_INTERFACE);
	put(p, link, sizeof link);
	put_u32(p, snaplen);
	put_text(p, IF_NAME, name);
	put_option(p, IF_TSRESOL, &nanoseconds, sizeof nanoseconds);
	if (filter) {
		size_t n = strlen(filter) < OPTION_MAX ? strlen(filter) : OPTION_MAX;

		memcpy(expression + 1, filter, n);
		put_option(p, IF_FILTER, expression, n + 1);
	}
	put_option(p, OPT_END, NULL, 0);
	end(p, at);
}

void pcapng_packet(struct pcapng *p, const struct pcapng_packet *k)
{
	uint32_t flags = k->outbound ? 2 : 1;

	if (!reserve(p, k->caplen + OPTION_MAX + 64))
		return;
	size_t at = begin(p, BLOCK_PACKET);
	put_u32(p, k->interface);
	put_u32(p, (uint32_t)(k->ns >> 32));
	put_u32(p, (uint32_t)k->ns);
	put_u32(p, k->caplen);
	put_u32(p, k->len);
	put(p, k->data, k->caplen);
	put_option(p, EPB_FLAGS, &flags, sizeof flags);
	if (k->lost)
		put_u64(p, EPB_DROPCOUNT, k->lost);
	put_text(p, OPT_COMMENT, k->comment);
	put_option(p, OPT_END, NULL, 0);
	end(p, at);
}

void pcapng_statistics(struct pcapng *p, uint32_t interface, uint64_t start_ns, uint64_t end_ns, uint64_t matched, uint64_t lost)
{
	if (!reserve(p, 128))
		return;
	size_t at = begin(p, BLOCK_STATISTICS);
	put_u32(p, interface);
	put_u32(p, (uint32_t)(end_ns >> 32));
	put_u32(p, (uint32_t)end_ns);
	put_time(p, ISB_STARTTIME, start_ns);
	put_time(p, ISB_ENDTIME, end_ns);
	put_u64(p, ISB_IFRECV, matched);
	put_u64(p, ISB_IFDROP, lost);
	put_option(p, OPT_END, NULL, 0);
	end(p, at);
}
