// explain: a packet that is in a capture file is read here, and sent to the switch as its bytes.
#include "openvswitch.h"

#include "control.h"

#include "util.h"

#include <errno.h>
#include <pcap/pcap.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_MAX 65600 // bytes that the switch takes

struct wanted {
	const char *file, *packet; // NULL: not said
	const char **args;         // what is left
	int n_args;
	bool described; // a packet is among it
};

// Value of the option if it is args[*i], which is moved behind it; NULL: it is something else.
static const char *take(const struct given *g, int *i, const char *name)
{
	const char *arg = g->args[*i];
	size_t n = strlen(name);

	if (strncmp(arg, name, n) || (arg[n] && arg[n] != '='))
		return NULL;
	if (arg[n])
		return arg + n + 1;
	if (*i + 1 >= g->n_args)
		die("%s needs a value", name);
	return g->args[++*i];
}

static void read_arguments(const struct given *g, struct wanted *w)
{
	w->args = xcalloc((size_t)g->n_args + 2, sizeof(*w->args));
	for (int i = 0; i < g->n_args; i++) {
		const char *value = take(g, &i, "--pcap");

		if (value) {
			w->file = value;
			continue;
		}
		value = take(g, &i, "--packet");
		if (value) {
			w->packet = value;
			continue;
		}
		w->described |= strncmp(g->args[i], "--", 2) &&
				(!i || (strcmp(g->args[i - 1], "--port") && strcmp(g->args[i - 1], "--tso")));
		w->args[w->n_args++] = g->args[i];
	}
}

static unsigned long number_of(const struct wanted *w)
{
	char *end;

	if (!w->packet)
		return 1;
	errno = 0;
	unsigned long n = strtoul(w->packet, &end, 10);
	if (*end || !w->packet[0] || w->packet[0] == '-' || errno || !n)
		die("--packet wants the number of a packet in the file, from 1, not \"%s\"", w->packet);
	return n;
}

static pcap_t *open_file(const char *file)
{
	char why[PCAP_ERRBUF_SIZE];
	pcap_t *p = pcap_open_offline(file, why);

	if (!p)
		die("%s can't be read as a capture file: %s", file, why);
	if (pcap_datalink(p) != DLT_EN10MB) {
		const char *name = pcap_datalink_val_to_name(pcap_datalink(p));

		die("%s has packets of link type %s, not of Ethernet: capture on one interface, not on \"any\"", file,
		    name ? name : "?");
	}
	return p;
}

// The packet as hexadecimal digits. What wasn't captured of it is zeros: the switch looks at headers and lengths.
static char *read_packet(const char *file, unsigned long number)
{
	pcap_t *p = open_file(file);
	struct pcap_pkthdr *header;
	const u_char *bytes;
	int rc = 0;

	for (unsigned long n = 1; n <= number; n++) {
		rc = pcap_next_ex(p, &header, &bytes);
		if (rc == PCAP_ERROR_BREAK)
			die("%s has %lu packet%s, so there is no packet %lu", file, n - 1, n == 2 ? "" : "s", number);
		if (rc != 1)
			die("%s is damaged: packet %lu: %s", file, n, pcap_geterr(p));
	}
	if (header->len > FRAME_MAX)
		die("%s: packet %lu has %u bytes, and the switch takes %u at most", file, number, header->len, FRAME_MAX);
	if (!header->len)
		die("%s: packet %lu is empty", file, number);
	if (header->caplen < header->len)
		fprintf(stderr, "weirctl: only %u of the packet's %u bytes were captured; zeros stand for the rest\n",
			header->caplen, header->len);
	char *hex = xzalloc((size_t)header->len * 2 + 1);
	for (bpf_u_int32 i = 0; i < header->len; i++) {
		unsigned byte = i < header->caplen ? bytes[i] : 0;

		hex[2 * i] = "0123456789abcdef"[byte >> 4];
		hex[2 * i + 1] = "0123456789abcdef"[byte & 15];
	}
	pcap_close(p);
	return hex;
}

int explain_run(const struct given *g)
{
	struct wanted w = {NULL};
	struct given asked = *g;
	char *hex = NULL;

	read_arguments(g, &w);
	if (w.packet && !w.file)
		die("--packet says which packet of the file that --pcap names");
	if (w.file && w.described)
		die("the packet is either described or taken from --pcap %s, not both", w.file);
	if (w.file) {
		hex = read_packet(w.file, number_of(&w));
		w.args[w.n_args++] = hex;
	}
	asked.args = w.args;
	asked.n_args = w.n_args;
	int status = control_run(&asked);
	free(hex);
	free(w.args);
	return status;
}
