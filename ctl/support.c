// support: collects what somebody who looks for a fault elsewhere wants to know, into one file. No packet payload, no secrets.
//
// Each step is a process of its own with a limit, so that a switch that hangs, or is not there at all, costs what only it knows
// and no more.
#include "command.h"
#include "control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STEP_SECONDS 10             // that one step may take
#define FILE_MAX (32 * 1024 * 1024) // bytes of what it says
#define LOG_BYTES "8388608"         // of each log, the end

// Facts of the host and the process, by the shell. $PID: the switch's process, "" if there is none; $RUNDIR, $LOGDIR.
static const struct fact {
	const char *file, *what, *script;
	bool of_process;
} facts[] = {
	{"system/versions.txt", "versions",
	 "weirctl=$(readlink /proc/$PPID/exe); $weirctl --version; [ -z \"$PID\" ] || /proc/$PID/exe --version; ovsdb-server "
	 "--version; "
	 "qemu-system-x86_64 --version 2>/dev/null | head -n 1; libvirtd --version 2>/dev/null; cat /etc/os-release; "
	 "dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n' 'weir*' 'openvswitch*' 'libdpdk*' 'qemu-system*' "
	 "'libvirt-daemon*' 2>/dev/null; true"},
	{"system/kernel.txt", "kernel",
	 "uname -a; cat /proc/cmdline; grep . /sys/kernel/mm/transparent_hugepage/enabled /proc/sys/kernel/tainted; lsmod "
	 "2>/dev/null; true"},
	{"system/cpu.txt", "processors and NUMA nodes",
	 "lscpu || cat /proc/cpuinfo; for n in /sys/devices/system/node/node[0-9]*; do echo \"$n: $(cat $n/cpulist), distance "
	 "$(cat $n/distance)\"; done; "
	 "grep . /sys/devices/system/cpu/isolated /sys/devices/system/cpu/nohz_full /sys/devices/system/cpu/vulnerabilities/* "
	 "2>/dev/null; true"},
	{"system/memory.txt", "memory and hugepages",
	 "cat /proc/meminfo; grep . /sys/kernel/mm/hugepages/*/* /sys/devices/system/node/node[0-9]*/hugepages/*/* "
	 "2>/dev/null; grep huge /proc/mounts; true"},
	{"system/load.txt", "load",
	 "cat /proc/uptime /proc/loadavg; grep . /proc/pressure/* 2>/dev/null; ps -eo pid,psr,pcpu,pmem,stat,etime,comm "
	 "--sort=-pcpu | head -n 60"},
	{"system/interfaces.txt", "interfaces", "ip -s -d link; ip -d tuntap 2>/dev/null; true"},
	{"system/rundir.txt", "run directory", "ls -laR \"$RUNDIR\""},
	{"system/kernel-log.txt", "kernel's log", "dmesg --ctime 2>/dev/null | tail -n 500; true"},
	{"process/status.txt", "state and limits of the process",
	 "tr '\\0' ' ' </proc/$PID/cmdline; echo; cat /proc/$PID/status /proc/$PID/limits /proc/$PID/cgroup "
	 "/proc/$PID/oom_score_adj",
	 true},
	{"process/threads.txt", "threads: where they are and what they wait for",
	 "for t in /proc/$PID/task/*; do echo \"--- ${t##*/} $(cat $t/comm)\"; cat $t/stat $t/wchan; echo; "
	 "grep -E 'State|Cpus_allowed_list|ctxt' $t/status; cat $t/stack 2>/dev/null; done; true",
	 true},
	{"process/memory.txt", "memory of the process by mapping",
	 "cat /proc/$PID/smaps_rollup 2>/dev/null; awk '/^[0-9a-f]+-/ { name = $6 ? $6 : \"[anonymous]\" } /^(Size|Rss):/ { "
	 "sum[name, $1] += $2; names[name] = 1 } "
	 "END { for (n in names) printf \"%12d kB mapped %12d kB resident  %s\\n\", sum[n, \"Size:\"], sum[n, \"Rss:\"], n }' "
	 "/proc/$PID/smaps | sort -rn",
	 true},
	{"process/files.txt", "open files", "ls -l /proc/$PID/fd", true},
};

// A key with one of these in it has a value that is nobody's business.
static const char *const secret_words[] = {"password", "passwd",     "passphrase", "secret",
					   "token",    "credential", "psk",        "private"};

enum outcome {
	DONE,
	FAILED,  // it ended with an error; what it said is kept
	HUNG,    // it was ended
	LEFT_OUT // it wasn't tried
};

struct bundle {
	char folder[PATH_MAX + 16]; // where the files are gathered
	char target[PATH_MAX];      // the file that is made of them
	char name[128];             // of the folder in it
	char self[PATH_MAX];
	FILE *summary;
	unsigned n, steps, missing;
	bool hangs, no_database; // it is no use to ask again
	json_t *log;             // of steps, for -f json
};

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// ---- one step

static void remove_tree(const char *path)
{
	char *argv[] = {(char[]){"rm"}, (char[]){"-rf"}, (char[]){"--"}, (char *)(uintptr_t)path, NULL};
	pid_t pid = fork();

	if (!pid) {
		execvp(argv[0], argv);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

static void make_folders(const char *path)
{
	char part[PATH_MAX];

	snprintf(part, sizeof part, "%s", path);
	for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(part, 0700) && errno != EEXIST)
			die("%s: %s", part, strerror(errno));
		*slash = '/';
	}
}

static void path_of(const struct bundle *b, const char *file, char path[PATH_MAX])
{
	if (snprintf(path, PATH_MAX, "%s/%s/%s", b->folder, b->name, file) >= PATH_MAX)
		die("%s: the path is too long", file);
}

static _Noreturn void be_step(const char *path, char *const argv[])
{
	const struct rlimit size = {FILE_MAX, FILE_MAX};
	int out = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600), in = open("/dev/null", O_RDONLY);

	setpgid(0, 0);
	if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(126);
	setrlimit(RLIMIT_FSIZE, &size);
	signal(SIGPIPE, SIG_DFL);
	execvp(argv[0], argv);
	fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
	interrupted = number;
}

static enum outcome wait_for_step(pid_t pid, unsigned limit)
{
	double end = seconds() + limit;
	int status;

	for (;;) {
		pid_t done = waitpid(pid, &status, WNOHANG);

		if (done == pid)
			return WIFEXITED(status) && !WEXITSTATUS(status) ? DONE : FAILED;
		if (done < 0)
			return FAILED;
		if (seconds() > end || interrupted) {
			kill(-pid, SIGKILL);
			waitpid(pid, &status, 0);
			return HUNG;
		}
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	}
}

// The last line of a file, which says why it isn't what it should be.
static void last_line(const char *path, char *line, size_t room)
{
	FILE *f = fopen(path, "r");
	char text[512];

	line[0] = '\0';
	while (f && fgets(text, sizeof text, f))
		if (text[0] != '\n')
			snprintf(line, room, "%.*s", (int)strcspn(text, "\n"), text);
	if (f)
		fclose(f);
}

static void say(struct bundle *b, const char *what, const char *file, enum outcome o, double took, const char *why)
{
	static const char *const words[] = {
		[DONE] = "there", [FAILED] = "incomplete", [HUNG] = "missing", [LEFT_OUT] = "missing"};
	char text[700];

	snprintf(text, sizeof text, "%s%s%s", words[o], why[0] ? ": " : "", why);
	b->missing += o != DONE;
	fprintf(b->summary, "%-40s %-12s %6.1f s  %s%s%s\n", file, words[o], took, what, why[0] ? ": " : "", why);
	fflush(b->summary);
	if (!settings.json) {
		printf("%3u/%u  %-48s %s\n", b->n, b->steps, what, text);
		fflush(stdout);
	}
	json_array_append_new(b->log, json_pack("{s:s, s:s, s:s, s:s?, s:f}", "file", file, "what", what, "result", words[o],
						"why", why[0] ? why : NULL, "seconds", took));
}

static enum outcome step(struct bundle *b, const char *file, const char *what, unsigned limit, char *const argv[])
{
	char path[PATH_MAX], why[512] = "";
	double start = seconds();

	b->n++;
	path_of(b, file, path);
	make_folders(path);
	fflush(NULL);
	pid_t pid = fork();
	if (!pid)
		be_step(path, argv);
	enum outcome o = pid < 0 ? FAILED : wait_for_step(pid, limit);
	if (interrupted) {
		remove_tree(b->folder);
		die("interrupted: no bundle was made");
	}
	if (o == FAILED)
		last_line(path, why, sizeof why);
	else if (o == HUNG)
		snprintf(why, sizeof why, "no answer within %u s", limit);
	say(b, what, file, o, seconds() - start, why);
	return o;
}

static void skip(struct bundle *b, const char *file, const char *what, const char *why)
{
	b->n++;
	say(b, what, file, LEFT_OUT, 0, why);
}

// ---- the running switch

static unsigned limit_of(void)
{
	return settings.timeout && settings.timeout < STEP_SECONDS ? settings.timeout : STEP_SECONDS;
}

static void ask_switch(struct bundle *b)
{
	char timeout[16];

	snprintf(timeout, sizeof timeout, "%u", limit_of());
	for (const struct command *c = commands; c->noun; c++) {
		char file[128], what[128];

		if (!c->bundle)
			continue;
		snprintf(file, sizeof file, "switch/%s%s%s.txt", c->noun, c->verb ? "-" : "", c->verb ? c->verb : "");
		snprintf(what, sizeof what, "weirctl %s%s%s", c->noun, c->verb ? " " : "", c->verb ? c->verb : "");
		if (b->hangs) {
			skip(b, file, what, "the switch does not answer");
			continue;
		}
		char *argv[] = {b->self,
				(char[]){"--ctl"},
				settings.ctl,
				(char[]){"--timeout"},
				timeout,
				(char *)(uintptr_t)c->noun,
				(char *)(uintptr_t)(c->verb ? c->verb : c->bundle_option),
				strstr(c->args, "--limit N]") ? (char[]){"--limit"} : NULL, // a list may have a million rows
				(char[]){"10000"},
				NULL};
		enum outcome o = step(b, file, what, limit_of() + 2, argv);
		// The first of the table is one that any switch answers at once.
		if (o == HUNG || (o != DONE && !strcmp(c->noun, "version"))) {
			b->hangs = true;
			continue;
		}
		char path[PATH_MAX], why[512];
		path_of(b, file, path);
		last_line(path, why, sizeof why);
		b->hangs = o == FAILED && (strstr(why, "does not answer") || strstr(why, "no switch answers"));
	}
}

// ---- the database

static bool is_secret(const char *key)
{
	for (size_t i = 0; i < sizeof secret_words / sizeof secret_words[0]; i++)
		if (strcasestr(key, secret_words[i]))
			return true;
	return false;
}

static void strike_secrets(json_t *v)
{
	const char *key;
	void *next;
	size_t i;
	json_t *in;

	if (json_is_array(v)) {
		json_array_foreach(v, i, in) strike_secrets(in);
	} else if (json_is_object(v)) {
		json_object_foreach_safe(v, next, key, in)
		{
			if (is_secret(key))
				json_object_set_new(v, key, json_string("(left out)"));
			else
				strike_secrets(in);
		}
	}
}

// What can't be read as rows isn't kept: there may be anything in it.
static bool clean_rows(const char *path)
{
	json_t *rows = json_load_file(path, 0, NULL);
	bool ok = rows != NULL;

	if (ok) {
		strike_secrets(rows);
		ok = !json_dump_file(rows, path, JSON_INDENT(1));
	}
	if (!ok)
		unlink(path);
	json_decref(rows);
	return ok;
}

// The names of the tables, which only the database's part of weirctl knows.
static size_t tables(const struct bundle *b, char names[][64], size_t room)
{
	char command[PATH_MAX + 16], line[256];
	size_t n = 0;

	snprintf(command, sizeof command, "'%s' --columns", b->self);
	FILE *f = popen(command, "r");
	while (f && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\t\n")] = '\0';
		if (n < room && strlen(line) < 64 && (!n || strcmp(names[n - 1], line)))
			snprintf(names[n++], 64, "%s", line);
	}
	if (f)
		pclose(f);
	return n;
}

static void dump_database(struct bundle *b, char names[][64], size_t n)
{
	char timeout[16];

	snprintf(timeout, sizeof timeout, "%u", limit_of());
	for (size_t i = 0; i < n; i++) {
		char file[128], what[128], path[PATH_MAX];
		const char *more[] = {"--private-key",      settings.private_key, "--certificate",
				      settings.certificate, "--ca-cert",          settings.ca_cert};
		char *argv[24] = {b->self, (char[]){"--db"}, settings.db,     (char[]){"--timeout"},
				  timeout, (char[]){"-f"},   (char[]){"json"}};
		int argc = 7;

		snprintf(file, sizeof file, "database/%s.json", names[i]);
		snprintf(what, sizeof what, "table %s", names[i]);
		if (b->no_database) {
			skip(b, file, what, "the database does not answer");
			continue;
		}
		for (size_t k = 0; k < 6; k += 2) {
			if (!more[k + 1])
				continue;
			argv[argc++] = (char *)(uintptr_t)more[k];
			argv[argc++] = (char *)(uintptr_t)more[k + 1];
		}
		argv[argc++] = (char[]){"list"};
		argv[argc++] = names[i];
		argv[argc] = NULL;
		enum outcome o = step(b, file, what, limit_of() + 2, argv);
		path_of(b, file, path);
		b->no_database = o != DONE;
		if (o != DONE)
			unlink(path); // the summary has what it says
		else if (!clean_rows(path))
			b->missing++;
	}
}

// ---- logs

static void copy_logs(struct bundle *b, const char *folder)
{
	struct dirent **list = NULL;
	int n = folder[0] ? scandir(folder, &list, NULL, alphasort) : -1;
	unsigned found = 0;

	for (int i = 0; i < n; i++) {
		const char *name = list[i]->d_name;
		const char *end = strstr(name, ".log");
		char from[PATH_MAX + 256], file[320];

		// weir-vswitchd.log, .log.1, .log.2.gz; those of others are none of ours.
		if (end && !strncmp(name, "weir-vswitchd", 13) && !strstr(end, ".part")) {
			snprintf(from, sizeof from, "%s/%s", folder, name);
			snprintf(file, sizeof file, "log/%s", name);
			bool packed = strlen(name) > 3 && !strcmp(name + strlen(name) - 3, ".gz");
			char *tail[] = {(char[]){"tail"}, (char[]){"-c"}, (char[]){LOG_BYTES}, from, NULL},
			     *cat[] = {(char[]){"cat"}, from, NULL};
			b->steps++;
			step(b, file, name, STEP_SECONDS, packed ? cat : tail);
			found++;
		}
		free(list[i]);
	}
	free(list);
	if (!found) {
		b->steps++;
		skip(b, "log/weir-vswitchd.log", "log", "it isn't there; --logdir says where it is");
	}
}

// Where the switch writes its log: as its command line has it.
static void find_logdir(const char *pid, char folder[PATH_MAX])
{
	char path[64], text[8192];

	snprintf(folder, PATH_MAX, "/var/log/weir");
	snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
	FILE *f = pid[0] ? fopen(path, "r") : NULL;
	size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
	if (f)
		fclose(f);
	text[n] = '\0';
	for (const char *word = text; word < text + n; word += strlen(word) + 1) {
		if (!strcmp(word, "--logdir") && word + strlen(word) + 1 < text + n)
			snprintf(folder, PATH_MAX, "%s", word + strlen(word) + 1);
		else if (!strncmp(word, "--logdir=", 9))
			snprintf(folder, PATH_MAX, "%s", word + 9);
	}
}

// ---- the file

// The switch that has the run directory of the control socket; "" if none runs.
static void find_process(char rundir[PATH_MAX], char pid[32])
{
	char path[PATH_MAX + 32], exe[PATH_MAX];

	snprintf(rundir, PATH_MAX, "%s", settings.ctl);
	char *slash = strrchr(rundir, '/');
	if (slash)
		*slash = '\0';
	snprintf(path, sizeof path, "%s/weir-vswitchd.pid", rundir);
	FILE *f = fopen(path, "r");
	if (!f || fscanf(f, "%31[0-9]", pid) != 1)
		pid[0] = '\0';
	if (f)
		fclose(f);
	if (!pid[0])
		return;
	// The file outlives a process that was killed, and its number may be somebody else's by now.
	snprintf(path, sizeof path, "/proc/%s/exe", pid);
	ssize_t n = readlink(path, exe, sizeof exe - 1);
	exe[n > 0 ? n : 0] = '\0';
	if (!strstr(exe, "weir-vswitchd"))
		pid[0] = '\0';
}

static void collect_facts(struct bundle *b, bool running)
{
	for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
		const struct fact *f = &facts[i];
		char *argv[] = {(char[]){"/bin/sh"}, (char[]){"-c"}, (char *)(uintptr_t)f->script, NULL};

		if (f->of_process && !running)
			skip(b, f->file, f->what, "no switch runs in this run directory");
		else
			step(b, f->file, f->what, STEP_SECONDS, argv);
	}
}

static void begin(struct bundle *b, const char *target)
{
	char host[64] = "host", when[32], path[PATH_MAX];
	time_t now = time(NULL);

	umask(077);
	sigaction(SIGINT, &(struct sigaction){.sa_handler = on_interrupt}, NULL);
	sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_interrupt}, NULL);
	gethostname(host, sizeof host - 1);
	strftime(when, sizeof when, "%Y%m%d-%H%M%S", localtime(&now));
	snprintf(b->name, sizeof b->name, "weir-support-%s-%s", host, when);
	if (snprintf(b->target, sizeof b->target, "%s%s", target ? target : b->name, target ? "" : ".tar.gz") >=
	    (int)sizeof b->target - 16)
		die("%s: the path is too long", target);
	// Beside the target: there is room for it, or there isn't for the target either.
	snprintf(b->folder, sizeof b->folder, "%s.XXXXXX", b->target);
	if (!mkdtemp(b->folder))
		die("%s can't be made: %s", b->target, strerror(errno));
	ssize_t n = readlink("/proc/self/exe", b->self, sizeof b->self - 1);
	b->self[n > 0 ? n : 0] = '\0';
	path_of(b, "SUMMARY", path);
	make_folders(path);
	b->summary = fopen(path, "w");
	b->log = json_array();
	if (!b->summary)
		die("%s: %s", path, strerror(errno));
	fprintf(b->summary,
		"Support bundle of the virtual switch Weir, made by weirctl %s on %s, %s.\n"
		"It has no packet payload, and no values of keys such as password.\n\n",
		WEIR_VERSION, host, when);
}

// Packs the folder. It takes the place of an older file at once, or not at all.
static void finish(struct bundle *b)
{
	char part[sizeof b->folder + 16];

	fprintf(b->summary, "\n%u of %u parts are missing or incomplete.\n", b->missing, b->steps);
	fclose(b->summary);
	snprintf(part, sizeof part, "%s.tar.gz", b->folder);
	char *argv[] = {(char[]){"tar"}, (char[]){"-C"}, b->folder, (char[]){"-czf"}, part, b->name, NULL};
	pid_t pid = fork();
	if (!pid) {
		execvp(argv[0], argv);
		_exit(127);
	}
	int status = -1;
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status || rename(part, b->target)) {
		int error = errno;

		unlink(part);
		remove_tree(b->folder);
		die("%s can't be written: %s", b->target, status > 0 ? "tar failed; is the disk full?" : strerror(error));
	}
	remove_tree(b->folder);
}

int support_run(const struct given *g)
{
	static char names[64][64];
	char rundir[PATH_MAX], logdir[PATH_MAX], pid[32] = "";
	const char *target = NULL, *given_logdir = NULL;
	static struct bundle b;

	for (int i = 0; i < g->n_args; i++) {
		const char **to = !strcmp(g->args[i], "-o") || !strcmp(g->args[i], "--output") ? &target
				  : !strcmp(g->args[i], "--logdir")                            ? &given_logdir
											       : NULL;

		if (!to)
			die("support-bundle doesn't know \"%s\": it takes -o FILE.tar.gz and --logdir DIR", g->args[i]);
		if (++i == g->n_args)
			die("%s needs a value: %s %s", g->args[i - 1], g->args[i - 1], to == &target ? "FILE.tar.gz" : "DIR");
		*to = g->args[i];
	}
	find_process(rundir, pid);
	find_logdir(pid, logdir);
	if (given_logdir)
		snprintf(logdir, sizeof logdir, "%s", given_logdir);
	setenv("PID", pid, 1);
	setenv("RUNDIR", rundir, 1);
	setenv("LOGDIR", logdir, 1);
	setenv("LC_ALL", "C", 1);
	begin(&b, target);
	size_t n = tables(&b, names, sizeof names / sizeof names[0]);
	b.steps = (unsigned)(n + sizeof facts / sizeof facts[0]);
	for (const struct command *c = commands; c->noun; c++)
		b.steps += c->bundle;
	// What changes fastest first.
	ask_switch(&b);
	collect_facts(&b, pid[0]);
	dump_database(&b, names, n);
	copy_logs(&b, logdir);
	finish(&b);
	if (settings.json) {
		json_t *all = json_pack("{s:s, s:i, s:o}", "file", b.target, "missing", (int)b.missing, "parts", b.log);
		char *text = json_dumps(all, JSON_INDENT(1));

		puts(text ? text : "");
		free(text);
		json_decref(all);
	} else {
		printf("%s: %u of %u parts%s\n", b.target, b.steps - b.missing, b.steps,
		       b.missing ? "; SUMMARY in it says what is missing, and why" : "");
	}
	return EXIT_SUCCESS;
}
