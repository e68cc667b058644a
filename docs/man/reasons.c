// reasons: prints weir-reasons(7), the drop reasons of the core and of every stage, from the tables they are counted by.
#include "forward.h"
#include "parse.h"
#include "stage.h"

#include <stdio.h>

#define COUNT(set) (sizeof(set) / sizeof((set)[0]))

static const struct reason parse_rows[] = {PARSE_REASONS(REASON_ROW)};
static const struct reason flow_rows[] = {FORWARD_REASONS(REASON_ROW)};
static const struct reason tx_rows[] = {TX_REASONS(REASON_ROW)};

static void print(const char *title, const struct reason *rows, size_t n)
{
	if (!n)
		return;
	printf(".Ss %s\n.Bl -tag -width Ds\n", title);
	for (size_t i = 0; i < n; i++)
		printf(".It Cm %s.%s\n%c%s.\n", rows[i].module, rows[i].name, rows[i].text[0] >= 'a' && rows[i].text[0] <= 'z' ? rows[i].text[0] - 32 : rows[i].text[0],
		       rows[i].text + 1);
	printf(".El\n");
}

int main(void)
{
	printf(".Dd November 20, 2026\n.Dt WEIR-REASONS 7\n.Os\n.Sh NAME\n.Nm weir-reasons\n.Nd why Weir drops packets\n.Sh DESCRIPTION\n"
	       "Every packet that\n.Xr weir-vswitchd 8\ndrops is counted by ingress port and reason.\n"
	       ".Ic weirctl drops\nlists the counters,\n.Ic weirctl explain\nsays beforehand what will happen to a packet, and\n.Ic weirctl trace\n"
	       "shows it of real ones.\n");
	print("Malformed input", parse_rows, COUNT(parse_rows));
	print("Flow cache and flooding", flow_rows, COUNT(flow_rows));
	for (unsigned i = 0; i < stage_list_n; i++) {
		char title[64];

		snprintf(title, sizeof title, "Stage %s", stage_list[i]->name);
		print(title, stage_list[i]->reasons, stage_list[i]->n_reasons);
	}
	print("On the way out", tx_rows, COUNT(tx_rows));
	printf(".Sh SEE ALSO\n.Xr weir-vswitchd 8 ,\n.Xr weirctl 8\n");
	return 0;
}
