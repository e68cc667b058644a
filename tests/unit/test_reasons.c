// Every drop reason was provoked by some unit test, or is one that takes a device. Runs last: the other tests leave what they provoked in files.
#include "lab.h"

#include <dirent.h>
#include <stdio.h>

// A reason here is provoked by a functional test, with real ports.
static const char *const by_devices[] = {
	"tx.DISCONNECTED", "tx.NO_BUFFERS", "tx.QUEUE_FULL", "tx.NO_MEMORY", "tx.DEVICE", "tx.OFFLOAD", "tx.CLOSED",
};

static bool provoked[MAX_REASONS];

static bool takes_a_device(const char *name)
{
	for (size_t i = 0; i < sizeof by_devices / sizeof by_devices[0]; i++)
		if (!strcmp(by_devices[i], name))
			return true;
	return false;
}

static void note(const char *path)
{
	char line[128], module[64], name[64];
	FILE *f = fopen(path, "r");

	assert_non_null(f);
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "%63[^.].%63[^\n]", module, name) == 2)
			provoked[reason_find(module, name)] = true;
	fclose(f);
}

static void every_reason_is_provoked(void **state)
{
	const char *dir = getenv("UNIT_REASONS_DIR");
	unsigned files = 0, missing = 0;
	char path[512];

	if (!dir)
		skip();
	lab_setup(); // registers them
	lab_teardown();
	DIR *d = opendir(dir);
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));) {
		if (!strstr(e->d_name, ".reasons"))
			continue;
		snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
		note(path);
		files++;
	}
	closedir(d);
	if (files < 2) // this test alone
		skip();
	for (uint16_t i = 1; i < reason_count(); i++) {
		snprintf(path, sizeof path, "%s.%s", reason_get(i)->module, reason_get(i)->name);
		if (!provoked[i] && !takes_a_device(path)) {
			print_error("no test provokes %s: %s\n", path, reason_get(i)->text);
			missing++;
		}
	}
	assert_int_equal(missing, 0);
	// The table names nothing that isn't.
	for (size_t i = 0; i < sizeof by_devices / sizeof by_devices[0]; i++)
		lab_reason(by_devices[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(every_reason_is_provoked)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
