// filter: see filter.h.
#include "filter.h"
#include "sentence.h"

#include <errno.h>

int filter_compile(struct bpf_program *f, const char *expression, char **error)
{
	pcap_t *dead = pcap_open_dead(DLT_EN10MB, 65535);
	int rc = dead && !pcap_compile(dead, f, expression, 1, PCAP_NETMASK_UNKNOWN) ? 0 : -EINVAL;

	if (rc)
		sentence_set(error, "\"%s\" is no filter expression of tcpdump: %s", expression, dead ? pcap_geterr(dead) : "out of memory");
	if (dead)
		pcap_close(dead);
	return rc;
}
