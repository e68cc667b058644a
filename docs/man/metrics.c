// metrics: prints weir-metrics(7), the metrics of the switch, from the table they are written by.
#include "metrics_table.h"

#include <stdio.h>

static const struct metric_row metrics[] = {METRICS(METRIC_ROW)};
static const struct metric_row port_metrics[] = {PORT_METRICS(METRIC_ROW)};

static void print(const char *title, const struct metric_row *rows, size_t n)
{
	static const char *const types[] = {
		[OM_COUNTER] = "counter", [OM_GAUGE] = "gauge", [OM_INFO] = "info", [OM_HISTOGRAM] = "histogram"};
	static const char *const suffixes[] = {
		[OM_COUNTER] = "_total", [OM_GAUGE] = "", [OM_INFO] = "_info", [OM_HISTOGRAM] = ""};

	printf(".Ss %s\n.Bl -tag -width Ds\n", title);
	for (size_t i = 0; i < n; i++) {
		const struct om_family *f = &rows[i].family;
		char first = f->help[0] >= 'a' && f->help[0] <= 'z' ? (char)(f->help[0] - 32) : f->help[0];

		printf(".It Cm %s%s\n%c%s.\n.br\n%s", f->name, suffixes[f->type], first, f->help + 1, types[f->type]);
		if (f->unit[0])
			printf(", %s", f->unit);
		if (rows[i].labels[0])
			printf("; labels: %s", rows[i].labels);
		printf("\n");
	}
	printf(".El\n");
}

int main(void)
{
	printf(".Dd November 20, 2026\n.Dt WEIR-METRICS 7\n.Os\n.Sh NAME\n.Nm weir-metrics\n.Nd what Weir counts, for "
	       "Prometheus\n.Sh DESCRIPTION\n"
	       "The metrics of\n.Xr weir-vswitchd 8 ,\nas\n.Ic weirctl metrics\nprints them and as they are to be had over "
	       "HTTP: at\n"
	       ".Pa /metrics\non the UNIX socket\n.Pa metrics.sock\nin the run directory, and at the address in\n.Cm "
	       "other_config:metrics-listen\n"
	       "if it is set, see\n.Xr weir-db 5 .\nThe text is OpenMetrics 1.0.0 for clients that accept it, else Prometheus' "
	       "text format 0.0.4.\n"
	       ".Pp\nCounters begin at 0 when the switch starts; a worker's when that worker does.\n"
	       "When a port is deleted its counters go on as part of the port\n.Dq (switch) ,\nso that sums over all ports "
	       "never go back.\n"
	       "Labels hold 128 bytes at most, in UTF-8; longer values are cut, and what can't be printed becomes\n.Ql \\&? "
	       ".\n");
	print("Switch, ports as a whole, workers", metrics, sizeof metrics / sizeof metrics[0]);
	print("The ledger", port_metrics, sizeof port_metrics / sizeof port_metrics[0]);
	printf(".Ss Tables\nEach table of the switch has the following.\n.Ar TABLE\nis\n.Cm fdb , fdb_network , flow , network "
	       ", packet_buffer , port , row , rule\n"
	       "and others; those of which there are several have a label, such as\n.Cm network\nor\n.Cm worker .\n.Bl -tag "
	       "-width Ds\n"
	       ".It Cm weir_ Ns Ar TABLE Ns Cm _entries\nWhat is in it.\n.It Cm weir_ Ns Ar TABLE Ns Cm _entries_limit\nHow "
	       "much it takes, if there is a limit.\n"
	       ".El\n.Sh SEE ALSO\n.Xr weir-db 5 ,\n.Xr weir-reasons 7 ,\n.Xr weir-vswitchd 8 ,\n.Xr weirctl 8\n");
	return 0;
}
