// Rules: a match, its actions, and a frame, on a line each. Words are refused with a sentence or mean something; what they set in the frame stays within it.
#include "lab.h"
#include "actions.h"
#include "rewrite.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// The line up to the next newline, and *text behind it.
static char *line(char **text)
{
	char *start = *text;

	*text += strcspn(*text, "\n");
	if (**text)
		*(*text)++ = '\0';
	return start;
}

static void set(const struct actions *a, const char *bytes, size_t n)
{
	struct {
		struct rte_mbuf m;
		struct pkt p;
	} loose;
	struct flow_key k;
	char *frame = malloc(n + 1); // of its own, so that a byte too many is seen

	memset(&loose, 0, sizeof loose);
	memcpy(frame, bytes, n);
	loose.m.buf_addr = frame;
	loose.m.data_len = (uint16_t)n;
	loose.m.pkt_len = (uint32_t)n;
	loose.m.nb_segs = 1;
	if (!parse(&loose.m, &k) && !loose.p.drop)
		rewrite_apply(&loose.m, a->set, a->n_sets);
	free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *at = text, *error;
	struct actions a;
	struct match m;

	if (!parse_reason_base) {
		key_init();
		parse_init();
	}
	memcpy(text, data, size);
	text[size] = '\0';
	const char *match = line(&at), *actions = line(&at);
	int rc = match_parse(match, &m, &error);
	if (!rc)
		rc = actions_parse(actions, &m, &a, &error);
	if (!rc) {
		size_t n = size - (size_t)(at - text);

		set(&a, at, n > 2000 ? 2000 : n);
		actions_free(&a);
	} else {
		if (!error || !*error)
			abort();
		free(error);
	}
	free(text);
	return 0;
}
