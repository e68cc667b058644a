// station_file: see station_file.h.
//
// A line for each pair: NETWORK PORT IP MAC PORT IP MAC, between tabs; "-" as port and MAC of an address that is a router's.
// What is no such line, or of networks and ports that aren't there, is left out.
#include "station_file.h"
#include "clock.h"
#include "log.h"
#include "station_table.h"
#include "station_talk.h"
#include "topology.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EVERY_MS 2000
#define LINES_MAX 16384
#define HEAD "weir stations 1\n"
// As if it was heard so long ago: it goes soon, unless it is heard of.
#define SEEN_AGO_S (STATION_AGE_S - 60)

static char path[PATH_MAX];
static uint32_t kept; // version() of what is in the file
static int64_t next_ms;
static bool loaded;

void station_file_init(const char *rundir)
{
	snprintf(path, sizeof path, "%s/stations", rundir);
}

static void write_address(FILE *f, const struct config_ip *ip, const struct station *s)
{
	char text[INET6_ADDRSTRLEN];

	fprintf(f, "\t%s\t%s\t", s ? lport_name(s->port) : "-",
		inet_ntop(ip->v6 ? AF_INET6 : AF_INET, ip->b, text, sizeof text));
	if (s)
		fprintf(f, "%02x:%02x:%02x:%02x:%02x:%02x", s->mac[0], s->mac[1], s->mac[2], s->mac[3], s->mac[4], s->mac[5]);
	else
		fprintf(f, "-");
}

static bool is_plain(const char *name)
{
	return !strpbrk(name, "\t\n");
}

static void write_pair(FILE *f, const struct station_talk *t)
{
	const struct network *net = network_get(t->network);
	struct station mine, theirs;

	if (!net || !is_plain(net->name) || !station_lookup(t->network, &t->mine, &mine) || !is_plain(lport_name(mine.port)))
		return;
	bool known = station_lookup(t->network, &t->theirs, &theirs) && is_plain(lport_name(theirs.port));
	fprintf(f, "%s", net->name);
	write_address(f, &t->mine, &mine);
	write_address(f, &t->theirs, known ? &theirs : NULL);
	fprintf(f, "\n");
}

static int write_all(FILE *f)
{
	const struct station_talk *t;
	unsigned lines = 0;

	fprintf(f, HEAD);
	for (uint16_t i = 1; i < MAX_PORTS; i++)
		for (unsigned n = 0; lines < LINES_MAX && (t = station_talk_of(i, n)); n++, lines++)
			write_pair(f, t);
	return ferror(f) ? -EIO : 0;
}

// A pair whose station isn't known is left out, so the file also changes with those.
static uint32_t version(void)
{
	return station_talk_version() + station_version();
}

void station_file_run(int64_t now_ms, bool end)
{
	char new[PATH_MAX + 4];

	if (!loaded || (!end && now_ms < next_ms) || version() == kept)
		return;
	next_ms = now_ms + EVERY_MS;
	kept = version();
	snprintf(new, sizeof new, "%s.new", path);
	FILE *f = fopen(new, "we");
	int rc = f ? write_all(f) : -errno;
	if (f && fclose(f) && !rc)
		rc = -errno;
	if (!rc && rename(new, path))
		rc = -errno;
	if (rc)
		log_line('w', "port", "%s could not be written: %s; after a restart guests ask for their neighbours anew", path,
			 strerror(-rc));
}

// ---- reading

static bool read_ip(const char *text, struct config_ip *ip)
{
	*ip = (struct config_ip){.v6 = strchr(text, ':') != NULL};
	return inet_pton(ip->v6 ? AF_INET6 : AF_INET, text, ip->b) == 1;
}

static bool read_mac(const char *text, uint8_t mac[6])
{
	char end;

	return sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%c", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5],
		      &end) == 6 &&
	       !(mac[0] & 1);
}

static uint16_t network_of(const char *name)
{
	for (uint16_t i = 1; i < MAX_NETWORKS; i++)
		if (network_get(i) && !strcmp(network_get(i)->name, name))
			return i;
	return 0;
}

static uint16_t port_of(const char *name)
{
	for (uint16_t i = 1; i < MAX_PORTS; i++)
		if (lport_get(i) && !strcmp(lport_get(i)->name, name))
			return i;
	return 0;
}

static void read_line(char *line, uint32_t seen)
{
	char *word[7], *save = NULL;
	unsigned n = 0;
	struct station_talk t = {0};
	uint8_t mine[6], theirs[6];

	for (char *w = strtok_r(line, "\t\n", &save); w && n < 7; w = strtok_r(NULL, "\t\n", &save))
		word[n++] = w;
	if (n != 7 || !read_ip(word[2], &t.mine) || !read_mac(word[3], mine) || !read_ip(word[5], &t.theirs) ||
	    t.mine.v6 != t.theirs.v6)
		return;
	uint16_t port = port_of(word[1]), other = port_of(word[4]);
	t.network = network_of(word[0]);
	if (!port || !t.network)
		return;
	struct station s;
	if (!station_lookup(t.network, &t.mine, &s))
		station_seen(t.network, &t.mine, mine, port, false, seen);
	if (other && read_mac(word[6], theirs) && !station_lookup(t.network, &t.theirs, &s))
		station_seen(t.network, &t.theirs, theirs, other, false, seen);
	station_talk(port, &t);
}

void station_file_load(void)
{
	uint32_t now_s = (uint32_t)(clock_ns() / 1000000000ULL);
	char line[512];
	FILE *f;

	if (loaded)
		return;
	loaded = true;
	f = fopen(path, "re");
	if (!f)
		return;
	if (fgets(line, sizeof line, f) && !strcmp(line, HEAD))
		for (unsigned i = 0; i < LINES_MAX && fgets(line, sizeof line, f); i++)
			read_line(line, now_s - SEEN_AGO_S);
	fclose(f);
	kept = version();
}
