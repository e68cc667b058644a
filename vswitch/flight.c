// flight: see flight.h.
#include "flight.h"
#include "clock.h"
#include "pause.h"
#include "port.h"
#include "thread.h"
#include "recorder.h"
#include "verbs.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SHOWN 40 // rounds, unless --limit says otherwise

static struct round rounds[RECORDER_ROUNDS];
static int8_t told[MAX_WORKERS]; // 1: that its recorder is frozen was logged

static const char *name_of(uint16_t port)
{
	const struct port *p = port_get(port);

	return p ? p->name : "(gone)";
}

static void sentence(struct buf *b, const struct recorder *r, const struct round *round)
{
	recorder_sentence(b, round, &r->limit, name_of(round->full_port));
}

static int64_t epoch_ns; // of the workers' clock, as one answer has it

static void look_at_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	epoch_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - (int64_t)clock_ns();
}

// Wall-clock time of a moment of the workers' clock.
static void format_time(char *text, size_t room, uint64_t ns)
{
	int64_t at = epoch_ns + (int64_t)ns;
	struct tm tm;

	time_t s = (time_t)(at / 1000000000);
	localtime_r(&s, &tm);
	size_t n = strftime(text, room, "%F %T", &tm);
	snprintf(text + n, room - n, ".%06u", (unsigned)(at % 1000000000 / 1000));
}

static void list_round(struct listing *l, unsigned worker, const struct recorder *r, const struct round *round)
{
	struct buf why = {0};
	char at[40];

	format_time(at, sizeof at, round->start_ns);
	sentence(&why, r, round);
	listing_row(l);
	listing_uint(l, worker);
	listing_str(l, at);
	listing_uint(l, round->rounds);
	listing_real(l, (double)round->busy_ns / 1e3, 1);
	listing_uint(l, round->packets);
	listing_uint(l, round->resolved);
	listing_uint(l, round->dropped);
	listing_uint(l, round->misses);
	listing_uint(l, round->backlog);
	listing_uint(l, round->call_us);
	listing_real(l, (double)round->slept_ns / 1e3, 1);
	listing_str(l, why.text);
	free(why.text);
}

static struct listing *history_listing(void)
{
	static const char *const columns[][2] = {
		{"worker", "WORKER"},     {"time", "TIME"},       {"rounds", "ROUNDS"},   {"busy_us", "BUSY(us)"},
		{"packets", "PACKETS"},   {"resolved", "RESOLVED"}, {"dropped", "DROPPED"}, {"misses", "MISSES"},
		{"backlog", "BACKLOG"},   {"call_us", "CALL(us)"}, {"slept_us", "SLEPT(us)"}, {"suspicious", "SUSPICIOUS"},
	};
	struct listing *l = listing_new();

	for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
		listing_column(l, columns[i][0], columns[i][1]);
	return l;
}

// Of each worker whose recorder is frozen, or that had something suspicious.
static void add_headline(struct buf *b, unsigned worker, const struct recorder *r, bool frozen)
{
	uint64_t n = 0;

	for (unsigned i = 1; i < SUSPICION_N; i++)
		n += __atomic_load_n(&r->suspicious[i], __ATOMIC_RELAXED);
	if (!n)
		return;
	buf_add(b, "worker %u: %llu suspicious rounds so far (%llu too long, %llu with a full queue, %llu storms)", worker, (unsigned long long)n,
		(unsigned long long)r->suspicious[SUSPICION_LONG], (unsigned long long)r->suspicious[SUSPICION_FULL],
		(unsigned long long)r->suspicious[SUSPICION_STORM]);
	struct round last;
	if (recorder_read(r, true, &last, 1)) {
		char at[40];

		format_time(at, sizeof at, last.start_ns);
		buf_add(b, "; frozen at %s: ", at);
		sentence(b, r, &last);
		if (!frozen)
			buf_add(b, " (--frozen shows the rounds before it)");
	}
	buf_add(b, "\n");
}

// A number of --NAME N; `fallback` if it isn't there; false: it is none.
static bool take_number(int *argc, const char *argv[], const char *name, unsigned fallback, unsigned *n, char **error)
{
	const char *text = verbs_take_option(argc, argv, name, error);
	char *end;

	*n = fallback;
	if (!text)
		return !*error;
	unsigned long v = strtoul(text, &end, 10);
	*n = v < 1000000 ? (unsigned)v : 1000000;
	return *text >= '0' && *text <= '9' && !*end;
}

static void clear(struct control_request *r, unsigned worker, bool json)
{
	unsigned n = 0;

	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		struct recorder *rec = worker == UINT32_MAX || worker == i ? thread_recorder(i) : NULL;
		struct round last;

		if (!rec)
			continue;
		n += recorder_read(rec, true, &last, 1) > 0;
		recorder_thaw(rec);
		pause_clear(thread_pause(i));
		told[i] = 0;
	}
	struct buf b = {0};
	buf_add(&b, json ? "{\"cleared\": %u}\n" : n == 1 ? "%u recorder goes on\n" : "%u recorders go on\n", n);
	control_reply(r, b.text ? b.text : "");
	free(b.text);
}

static void history(struct control_request *r, int argc, const char *argv[], void *aux)
{
	bool json = verbs_take_json(&argc, argv), frozen = verbs_take_flag(&argc, argv, "frozen");
	unsigned worker, limit;
	char *error = NULL;
	bool good = take_number(&argc, argv, "worker", UINT32_MAX, &worker, &error) && take_number(&argc, argv, "limit", SHOWN, &limit, &error);
	bool clears = argc == 2 && !strcmp(argv[1], "clear");

	if (!good || argc > 1 + clears || (clears && frozen)) {
		verbs_refuse(r, "%s", error ? error : "worker history takes --worker N, --frozen and --limit N, or clear");
		free(error);
		return;
	}
	if (worker != UINT32_MAX && !thread_recorder(worker)) {
		verbs_refuse(r, "there is no worker %u", worker);
		return;
	}
	if (clears) {
		clear(r, worker, json);
		return;
	}
	struct listing *l = history_listing();
	struct buf head = {0};
	look_at_clock();
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		const struct recorder *rec = worker == UINT32_MAX || worker == i ? thread_recorder(i) : NULL;

		if (!rec)
			continue;
		unsigned n = recorder_read(rec, frozen, rounds, limit);
		for (unsigned k = 0; k < n; k++)
			list_round(l, i, rec, &rounds[k]);
		add_headline(&head, i, rec, frozen);
	}
	if (json) {
		verbs_reply(r, l, true);
	} else {
		char *table = listing_render(l, false);

		if (frozen && !listing_rows(l))
			buf_add(&head, "nothing is frozen\n");
		else
			buf_add(&head, "%s%s", head.text ? "\n" : "", table ? table : "out of memory");
		control_reply(r, head.text ? head.text : "out of memory");
		free(table);
		listing_free(l);
	}
	free(head.text);
}

void flight_watch(void)
{
	for (unsigned i = 0; i < MAX_WORKERS; i++) {
		const struct recorder *r = thread_recorder(i);
		struct round last;

		if (!r || !recorder_read(r, true, &last, 1)) {
			told[i] = 0;
		} else if (!told[i]) {
			struct buf b = {0};

			sentence(&b, r, &last);
			log_event('w', "worker", LOG_FIELDS({"worker", LOG_NUMBER(i)}, {"why", b.text ? b.text : ""}),
				  "worker %u: %s; weirctl worker history --frozen --worker %u shows what was before", i,
				 b.text ? b.text : "", i);
			free(b.text);
			told[i] = 1;
		}
	}
}

void flight_init(void)
{
	control_register("worker/history", "[--json] [--worker N] [--frozen] [--limit N] | clear [--worker N]", 0, 7, history, NULL);
}
