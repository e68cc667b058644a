// pages: see pages.h.
#include "pages.h"
#include "control.h"
#include "sentence.h"
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

#define ARGS_MAX 16

struct verb {
	page_fn *list;
};

// A whole list in the making.
struct job {
	struct job *next;
	struct control_request *request;
	struct page page;
	page_fn *list;
	char *args[ARGS_MAX];
	int n_args;
	bool json;
	struct buf text;
};

static struct job *jobs;

static void answer(struct control_request *r, const char *text, char *error)
{
	if (text)
		control_reply(r, text);
	else
		control_reply_error(r, error ? error : "out of memory");
	free(error);
}

static void answer_page(struct control_request *r, struct page *p, page_fn *list, int argc, const char *argv[], bool json)
{
	char cursor[PAGE_CURSOR], *error = NULL;
	struct buf b = {0};
	bool end;
	char *part = page_next(p, list, argc, argv, json, &end, &error);

	if (part) {
		page_cursor(p, cursor);
		buf_add(&b, "%s%s\n", end ? "end" : "next ", end ? "" : cursor);
		buf_add(&b, "%s", part);
	}
	answer(r, b.text, error);
	free(b.text);
	free(part);
}

// One slice of the job. Whether it is done with.
static bool go_on(struct job *j)
{
	char *error = NULL;
	bool end = false;
	char *part = page_next(&j->page, j->list, j->n_args, (const char **)j->args, j->json, &end, &error);

	if (part)
		buf_add(&j->text, "%s", part);
	if (part && !end && j->page.shape.rows > PAGES_WHOLE) {
		sentence_set(&error, "the list has more than %d rows: read it with weirctl, which takes it in parts, or say --limit N", PAGES_WHOLE);
		free(part);
		part = NULL;
	}
	bool more = part && !end;
	if (!more)
		answer(j->request, part ? j->text.text : NULL, error);
	free(part);
	return !more;
}

static void job_free(struct job *j)
{
	for (int i = 0; i < j->n_args; i++)
		free(j->args[i]);
	free(j->text.text);
	free(j);
}

static void answer_whole(struct control_request *r, struct page *p, page_fn *list, int argc, const char *argv[], bool json)
{
	struct job *j = calloc(1, sizeof *j);

	if (!j) {
		control_reply_error(r, "out of memory");
		return;
	}
	*j = (struct job){.request = r, .page = *p, .list = list, .json = json};
	while (j->n_args < argc && j->n_args < ARGS_MAX) {
		j->args[j->n_args] = strdup(argv[j->n_args]);
		if (!j->args[j->n_args++])
			abort();
	}
	if (go_on(j)) {
		job_free(j);
		return;
	}
	j->next = jobs;
	jobs = j;
}

static void run(struct control_request *r, int argc, const char *argv[], void *aux)
{
	const struct verb *v = aux;
	bool json = verbs_take_json(&argc, argv);
	char *error = NULL;
	const char *cursor = verbs_take_option(&argc, argv, "page", &error), *limit = verbs_take_option(&argc, argv, "limit", &error);
	struct page p;

	page_begin(&p);
	if (!error && cursor && strcmp(cursor, "start") && !page_resume(&p, cursor))
		sentence_set(&error, "--page wants start, or what the page before has named as the next one");
	if (!error && limit && (!cursor || !strcmp(cursor, "start"))) {
		size_t digits = strspn(limit, "0123456789");

		p.limit = strtoull(limit, NULL, 10);
		if (!digits || digits > 18 || limit[digits] || !p.limit)
			sentence_set(&error, "--limit wants a number of rows, not \"%s\"", limit);
	}
	if (error)
		answer(r, NULL, error);
	else if (cursor)
		answer_page(r, &p, v->list, argc, argv, json);
	else
		answer_whole(r, &p, v->list, argc, argv, json);
}

void pages_register(const char *name, const char *usage, page_fn *list)
{
	struct verb *v = malloc(sizeof *v); // verbs stay as long as the process lives

	if (!v)
		abort();
	v->list = list;
	control_register(name, usage, 0, ARGS_MAX, run, v);
}

void pages_run(void)
{
	for (struct job **at = &jobs; *at;) {
		struct job *j = *at;

		if (!go_on(j)) {
			at = &j->next;
			continue;
		}
		*at = j->next;
		job_free(j);
	}
}

void pages_wait(void)
{
	if (jobs)
		loop_wait_until(loop_msec());
}

void pages_stop(void)
{
	while (jobs) {
		struct job *j = jobs;

		jobs = j->next;
		control_reply_error(j->request, "the switch ends");
		job_free(j);
	}
}
