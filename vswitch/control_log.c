// control_log: the log, on Open vSwitch's vlog: it has the destinations, the levels and the file. Here: lines and their fields,
// limits of places that log, and names of our own for the library's modules. See log.h.
#include "openvswitch.h"

#include "control_signals.h"
#include "log.h"

#include "openvswitch/dynamic-string.h"
#include "openvswitch/hmap.h"
#include "openvswitch/vlog.h"
#include "hash.h"
#include "unicode.h"
#include "util.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// A module of vlog's appears with its first line. It has the levels of this one, so that "all" holds for modules that come
// later too.
VLOG_DEFINE_THIS_MODULE(weir);

struct log_module {
	struct hmap_node node; // in modules, by name
	struct vlog_module vlog;
	const char *help;
	uint64_t lines, left_out;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // of all that follows
static struct hmap modules = HMAP_INITIALIZER(&modules);
static struct log_site *sites; // that have left something out, ever
static bool as_json, on_console;

// Whose lines the library's are.
static const struct {
	const char *library, *module;
} library_modules[] = {
	{"reconnect", "db"},   {"jsonrpc", "db"},     {"ovsdb_cs", "db"},     {"ovsdb_idl", "db"},  {"ovsdb_error", "db"},
	{"stream", "db"},      {"stream_ssl", "db"},  {"stream_fd", "db"},    {"stream_tcp", "db"}, {"stream_unix", "db"},
	{"socket_util", "db"}, {"dns_resolve", "db"}, {"unixctl", "control"},
};

// ---- modules

// Modules are never removed.
static struct log_module *module_named(const char *name)
{
	uint32_t hash = hash_string(name, 0);
	struct log_module *m;

	HMAP_FOR_EACH_WITH_HASH (m, node, hash, &modules)
		if (!strcmp(m->vlog.name, name))
			return m;
	m = xzalloc(sizeof *m);
	m->vlog.name = xstrdup(name);
	memcpy(m->vlog.levels, this_module.levels, sizeof m->vlog.levels);
	m->vlog.min_level = this_module.min_level;
	m->vlog.honor_rate_limits = this_module.honor_rate_limits;
	ovs_list_init(&m->vlog.list);
	vlog_insert_module(&m->vlog.list);
	hmap_insert(&modules, &m->node, hash);
	return m;
}

static const char *module_of_library(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(library_modules); i++)
		if (!strcmp(library_modules[i].library, name))
			return library_modules[i].module;
	return "main";
}

static enum vlog_level level_of(char level)
{
	return level == 'e' ? VLL_ERR : level == 'w' ? VLL_WARN : level == 'i' ? VLL_INFO : VLL_DBG;
}

static const char *level_name(enum vlog_level l)
{
	return l == VLL_OFF ? "off" : l <= VLL_ERR ? "error" : l == VLL_WARN ? "warning" : l == VLL_INFO ? "info" : "debug";
}

// ---- lines

// One line is one event, whatever a name or a message of somebody else's has in it.
static void put_clean(struct ds *to, const char *text)
{
	char *bad = utf8_validate(text, NULL);

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == 0x7f)
			ds_put_char(to, ' ');
		else
			ds_put_char(to, bad && c >= 0x80 ? '?' : *text);
	}
	free(bad);
}

static void put_json(struct ds *to, const char *text)
{
	struct ds clean = DS_EMPTY_INITIALIZER;

	put_clean(&clean, text);
	ds_put_char(to, '"');
	for (const char *c = ds_cstr(&clean); *c; c++) {
		if (*c == '"' || *c == '\\')
			ds_put_char(to, '\\');
		ds_put_char(to, *c);
	}
	ds_put_char(to, '"');
	ds_destroy(&clean);
}

static void put_value(struct ds *to, const char *value)
{
	if (!value[0] || strpbrk(value, " \"=\\") || strchr(value, '\n'))
		put_json(to, value);
	else
		put_clean(to, value);
}

static void emit(struct vlog_module *m, enum vlog_level l, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vlog_valist(m, l, fmt, args);
	va_end(args);
}

// Under the lock.
static void write_line(struct log_module *m, enum vlog_level l, const struct log_field *fields, const char *sentence)
{
	struct ds line = DS_EMPTY_INITIALIZER;

	if (as_json) {
		ds_put_format(&line, "\"level\": \"%s\", \"module\": ", level_name(l));
		put_json(&line, m->vlog.name);
		ds_put_cstr(&line, ", \"event\": ");
		put_json(&line, sentence);
	} else {
		put_clean(&line, sentence);
	}
	for (; fields && fields->key; fields++) {
		if (!fields->value)
			continue;
		if (as_json) {
			ds_put_format(&line, ", \"%s\": ", fields->key);
			put_json(&line, fields->value);
		} else {
			ds_put_format(&line, " %s=", fields->key);
			put_value(&line, fields->value);
		}
	}
	if (as_json)
		ds_put_char(&line, '}');
	m->lines++;
	emit(&m->vlog, l, "%s", ds_cstr(&line));
	ds_destroy(&line);
}

// ---- limits

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static bool take_token(struct log_site *s, uint64_t now)
{
	uint64_t more = s->at_ms ? (now - s->at_ms) * LOG_RATE : LOG_BURST * 1000;

	s->at_ms = now;
	s->tokens = s->tokens + more < LOG_BURST * 1000 ? s->tokens + more : LOG_BURST * 1000;
	if (s->tokens < 1000)
		return false;
	s->tokens -= 1000;
	return true;
}

static void leave_out(struct log_site *s, struct log_module *m, char level, char *sentence, uint64_t now)
{
	if (!s->known) {
		s->known = true;
		s->next = sites;
		sites = s;
	}
	if (!s->left_out++)
		s->since_ms = now;
	m->left_out++;
	free(s->last);
	free(s->module);
	s->last = sentence;
	s->module = xstrdup(m->vlog.name);
	s->level = level;
}

static void say_left_out(struct log_site *s, uint64_t now)
{
	char *sentence = xasprintf("%u more of these in %llu s were left out; the last: %s", s->left_out,
				   (unsigned long long)(now - s->since_ms + 999) / 1000, s->last);

	write_line(module_named(s->module), level_of(s->level), LOG_FIELDS({"left_out", LOG_NUMBER(s->left_out)}), sentence);
	free(sentence);
	s->left_out = 0;
}

void log_run(bool all)
{
	uint64_t now = now_ms();

	pthread_mutex_lock(&lock);
	for (struct log_site *s = sites; s; s = s->next)
		if (s->left_out && (all || take_token(s, now)))
			say_left_out(s, now);
	pthread_mutex_unlock(&lock);
}

static __attribute__((format(printf, 5, 0))) void write_limited(struct log_site *s, char level, const char *module,
								const struct log_field *fields, const char *fmt, va_list args)
{
	pthread_mutex_lock(&lock);
	struct log_module *m = module_named(module);
	if (vlog_is_enabled(&m->vlog, level_of(level))) {
		char *sentence = xvasprintf(fmt, args);
		uint64_t now = now_ms();

		// What was left out comes first, so that lines stay in order.
		if (!s->left_out && take_token(s, now)) {
			write_line(m, level_of(level), fields, sentence);
			free(sentence);
		} else {
			leave_out(s, m, level, sentence, now);
		}
	}
	pthread_mutex_unlock(&lock);
}

void log_write(struct log_site *s, char level, const char *module, const struct log_field *fields, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	write_limited(s, level, module, fields, fmt, args);
	va_end(args);
}

// ---- the library's lines
//
// The linker gives the library's calls of vlog() and vlog_rate_limit() to these (--wrap), so that its lines look like ours.
// vlog's own remain.

void __wrap_vlog(const struct vlog_module *, enum vlog_level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void __wrap_vlog_rate_limit(const struct vlog_module *, enum vlog_level, struct vlog_rate_limit *, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static __attribute__((format(printf, 3, 0))) void library_line(const struct vlog_module *from, enum vlog_level l,
							       const char *fmt, va_list args)
{
	static struct log_site limits[16]; // by name, so that one that talks a lot doesn't silence the others

	if (vlog_is_enabled(from, l))
		write_limited(&limits[hash_string(from->name, 0) % ARRAY_SIZE(limits)],
			      l <= VLL_ERR    ? 'e'
			      : l == VLL_WARN ? 'w'
			      : l == VLL_INFO ? 'i'
					      : 'd',
			      module_of_library(from->name), LOG_FIELDS({"library", from->name}), fmt, args);
}

void __wrap_vlog(const struct vlog_module *from, enum vlog_level l, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	library_line(from, l, fmt, args);
	va_end(args);
}

void __wrap_vlog_rate_limit(const struct vlog_module *from, enum vlog_level l, struct vlog_rate_limit *limit, const char *fmt,
			    ...)
{
	va_list args;

	va_start(args, fmt);
	library_line(from, l, fmt, args);
	va_end(args);
}

// ---- levels

static bool parse_level(const char *text, enum vlog_level *l)
{
	static const struct {
		const char *name;
		enum vlog_level level;
	} names[] = {{"off", VLL_OFF},   {"error", VLL_ERR}, {"err", VLL_ERR},   {"warning", VLL_WARN},
		     {"warn", VLL_WARN}, {"info", VLL_INFO}, {"debug", VLL_DBG}, {"dbg", VLL_DBG}};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcasecmp(text, names[i].name)) {
			*l = names[i].level;
			return true;
		}
	}
	return false;
}

static void set_level(struct vlog_module *m, enum vlog_level l)
{
	vlog_set_levels(m, VLF_FILE, l);
	if (on_console)
		vlog_set_levels(m, VLF_CONSOLE, l);
}

// vlog's word for an opened file is not a line of ours.
static void silence_vlog(void)
{
	struct vlog_module *m = vlog_module_from_name("vlog");

	if (m)
		vlog_set_levels(m, VLF_ANY_DESTINATION, VLL_OFF);
}

bool log_set_level(const char *name, const char *level, char **error)
{
	enum vlog_level l;
	bool found = false;

	if (!parse_level(level, &l)) {
		*error = xasprintf("there is no level \"%s\": off, error, warning, info or debug", level);
		return false;
	}
	if (!strcmp(name, "all")) {
		set_level(NULL, l);
		silence_vlog();
		return true;
	}
	pthread_mutex_lock(&lock);
	struct log_module *m;
	HMAP_FOR_EACH (m, node, &modules) {
		if (strcmp(m->vlog.name, name))
			continue;
		set_level(&m->vlog, l);
		found = true;
	}
	pthread_mutex_unlock(&lock);
	if (!found) {
		*error = xasprintf("there is no module \"%s\": weirctl log list shows them", name);
		return false;
	}
	for (size_t i = 0; i < ARRAY_SIZE(library_modules); i++) {
		struct vlog_module *lib = vlog_module_from_name(library_modules[i].library);

		if (lib && !strcmp(library_modules[i].module, name))
			set_level(lib, l);
	}
	return true;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(struct log_module *const *)a)->vlog.name, (*(struct log_module *const *)b)->vlog.name);
}

void log_each_module(void (*fn)(const struct log_module_view *, void *arg), void *arg)
{
	size_t n = 0;

	pthread_mutex_lock(&lock);
	struct log_module **sorted = xcalloc(hmap_count(&modules) + 1, sizeof(struct log_module *)), *m;
	HMAP_FOR_EACH (m, node, &modules)
		sorted[n++] = m;
	qsort(sorted, n, sizeof(struct log_module *), by_name);
	for (size_t i = 0; i < n; i++) {
		struct log_module_view v = {
			.name = sorted[i]->vlog.name,
			.level = level_name(vlog_get_level(&sorted[i]->vlog, VLF_FILE)),
			.help = sorted[i]->help,
			.lines = sorted[i]->lines,
			.left_out = sorted[i]->left_out,
		};
		fn(&v, arg);
	}
	pthread_mutex_unlock(&lock);
	free(sorted);
}

// ---- open

static void make_modules(void)
{
#define LOG_MODULE(name_, help_) module_named(#name_)->help = help_;
	pthread_mutex_lock(&lock);
	LOG_MODULES(LOG_MODULE)
	pthread_mutex_unlock(&lock);
#undef LOG_MODULE
}

void log_open(const char *file, bool to_stderr, bool json)
{
	const char *pattern = json ? "{\"time\": \"%D{%Y-%m-%dT%H:%M:%S.###Z}\", %m" : "%D{%Y-%m-%dT%H:%M:%S.###Z} %p %c: %m";

	control_keep_signals();
	ovs_set_program_name(program_invocation_short_name, WEIR_VERSION);
	vlog_init();
	as_json = json;
	on_console = to_stderr;
	vlog_set_levels(NULL, VLF_SYSLOG, VLL_OFF);
	vlog_set_levels(NULL, VLF_CONSOLE, to_stderr ? VLL_INFO : VLL_OFF);
	vlog_set_levels(NULL, VLF_FILE, VLL_INFO);
	silence_vlog();
	vlog_set_pattern(VLF_CONSOLE, pattern);
	vlog_set_pattern(VLF_FILE, pattern);
	make_modules();
	int error = file ? vlog_set_log_file(file) : 0;
	if (error)
		fprintf(stderr, "%s: the log can't be written to %s: %s\n", program_invocation_short_name, file,
			ovs_strerror(error));
}

int log_reopen(void)
{
	int error = vlog_reopen_log_file();

	if (error)
		log_line('e', "control", "the log can't be opened anew: %s", ovs_strerror(error));
	else
		log_line('i', "control", "the log was opened anew");
	return error;
}
