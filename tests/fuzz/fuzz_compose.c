// Descriptions of packets: refused with a sentence, or a frame that the parser takes.
#include "lab.h"
#include "compose.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool only_digits(const char *s)
{
	return s[strspn(s, "0123456789abcdefABCDEF: \t\n\v\f\r")] == '\0';
}

// A next header of IPv6 that announces another header, which a description can't write.
static bool announces(const uint8_t *frame, int n)
{
	static const uint8_t next[] = {0, 43, 44, 51, 60, 135, 139, 140};
	int l3 = frame[12] == 0x81 && !frame[13] ? 18 : 14;

	if (n < l3 + 48 || frame[l3 - 2] != 0x86 || frame[l3 - 1] != 0xdd)
		return n < l3 + 48;
	return memchr(next, frame[l3 + 6] == 44 ? frame[l3 + 40] : frame[l3 + 6], sizeof next) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct compose_defaults defaults = {.dl_src = {2, 0, 0, 0, 0, 1}, .dl_dst = {2, 0, 0, 0, 0, 2}};
	static uint8_t frame[COMPOSE_MAX];
	struct {
		struct rte_mbuf m;
		struct pkt p;
	} loose;
	struct flow_key k;
	char *error, *text = malloc(size + 1);

	if (!parse_reason_base) {
		key_init();
		parse_init();
	}
	memset(&loose, 0, sizeof loose);
	memcpy(text, data, size);
	text[size] = '\0';
	int n = compose(text, &defaults, frame, &error);
	if (n < 0) {
		if (!error || !*error)
			abort();
		free(error);
	} else if (n) {
		loose.m.buf_addr = frame;
		loose.m.data_len = (uint16_t)n;
		loose.m.pkt_len = (uint32_t)n;
		loose.m.nb_segs = 1;
		if (parse(&loose.m, &k))
			abort();
		if (loose.p.drop && !only_digits(text) && !announces(frame, n))
			abort();
	}
	free(text);
	return 0;
}
