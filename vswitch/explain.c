// explain: see explain.h; and the verb.
#include "explain.h"
#include "answer.h"
#include "fdb.h"
#include "station_table.h"
#include "sentence.h"
#include "verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// ---- packets

static int send(struct explanation *e, const struct dry_packet *packet, const uint8_t *frame, struct dry_overlay *overlay)
{
	struct dry_packet p = *packet;

	e->frame = malloc(p.len ? p.len : 1);
	if (!e->frame)
		return -ENOMEM;
	memcpy(e->frame, frame, p.len);
	p.frame = e->frame;
	e->len = p.len;
	int rc = dry_send(&p, overlay, &e->run);
	if (rc)
		explain_free(e);
	return rc;
}

int explain_packet(const struct explain_request *r, struct dry_overlay *overlay, struct explanation *e, char **error)
{
	static uint8_t frame[COMPOSE_MAX]; // one main thread
	struct compose_defaults d = {.fill = assume_fill, .arg = &e->assumed};

	memset(e, 0, sizeof *e);
	e->assumed.port = r->port;
	int len = compose(r->text, &d, frame, error);
	if (len < 0)
		return len;
	struct dry_packet p = {.port = r->port->id, .len = (unsigned)len, .csum = r->csum || r->mss, .mss = r->mss};
	return send(e, &p, frame, overlay);
}

// Which of the copies reaches who is meant: the one for the port where the switch knows the address.
static const struct dry_out *reached(const struct explanation *e, uint16_t network, const struct station *who)
{
	struct fdb_entry at;

	for (unsigned i = 0; i < e->run.n_out; i++) {
		const struct dry_out *o = &e->run.out[i];
		bool known = o->len >= 6 && fdb_lookup(fdb_key(network, o->bytes), &at);

		if (!dry_is_packet(&e->run, o))
			continue;
		if (who ? who->port == o->port : known && at.port == o->port)
			return o;
	}
	return dry_first(&e->run);
}

int explain_answer(const struct explanation *to, struct dry_overlay *overlay, struct explanation *e, char **error)
{
	static uint8_t frame[COMPOSE_MAX];
	uint16_t network = to->run.decision.network;
	const struct station *who = NULL;
	uint8_t ip[16], mac[6];
	bool v6;

	memset(e, 0, sizeof *e);
	*error = NULL;
	const struct dry_out *first = dry_first(&to->run);
	if (first && answer_from(first->bytes, first->len, &v6, ip))
		who = station_find(network, v6, ip, NULL);
	const struct dry_out *o = reached(to, network, who);
	const struct port *port = o ? port_get(o->port) : NULL;
	if (!port)
		return sentence_fail(-ENOENT, error, "the packet reaches nobody");
	e->assumed.port = port;
	e->assumed.network = network;
	enum assume_station kind = STATION_STATIC;
	if (who && who->port == port->id)
		memcpy(mac, who->mac, 6);
	else
		kind = assume_station(network, port->id, mac);
	unsigned ports = dry_ports(&to->run);
	if (ports > 1)
		assume_say(&e->assumed, "of the %u ports that get it, %.63s has who answers", ports, port->name);
	if ((o->bytes[0] & 1) && kind == STATION_MADE_UP)
		assume_say(&e->assumed, "the address of who answers is made up, as none is known on port %.63s", port->name);
	int len = answer(o->bytes, o->len, mac, frame, error);
	if (len < 0)
		return *error ? -ENOENT : len;
	struct dry_packet p = {.port = port->id, .len = (unsigned)len};
	return send(e, &p, frame, overlay);
}

void explain_free(struct explanation *e)
{
	free(e->frame);
	e->frame = NULL;
	dry_free(&e->run);
}

// ---- what is shown

static const char *name_of(uint16_t port)
{
	const struct port *p = port_get(port);

	return p ? p->name : "?";
}

// Why the device of a port takes nothing, in the port's own words. "": nothing is known to be wrong.
static void problem_of(uint16_t id, struct port_state *s)
{
	const struct port *p = id ? port_get(id) : NULL;

	memset(s, 0, sizeof *s);
	if (p && p->device)
		p->device->ops->state(p->device->dev, s);
	else if (p && p->error)
		snprintf(s->problem, sizeof s->problem, "%s", p->error);
}

static bool is_of_egress(const struct dry_drop *d)
{
	return d->port && !strcmp(reason_get(d->reason)->module, "tx");
}

static void add_hex(struct buf *b, const uint8_t *bytes, uint32_t n)
{
	static const char digits[] = "0123456789abcdef";
	char part[129];

	for (uint32_t at = 0; at < n;) {
		unsigned k = 0;

		for (; at < n && k < 128; at++) {
			part[k++] = digits[bytes[at] >> 4];
			part[k++] = digits[bytes[at] & 15];
		}
		part[k] = '\0';
		buf_add(b, "%s", part);
	}
}

static void format_text(const struct explanation *e, bool hex, struct buf *b)
{
	const struct dry_run *r = &e->run;
	struct port_state s;

	buf_add(b, "%u bytes on port %s:\n", e->len, e->assumed.port->name);
	for (unsigned i = 0; i < e->assumed.n; i++)
		buf_add(b, "  %-10s %s\n", "assumed", e->assumed.said[i]);
	trace_format(r->trace, b, false, 0);
	for (unsigned i = 0; i < r->n_drop; i++) {
		problem_of(is_of_egress(&r->drop[i]) ? r->drop[i].port : 0, &s);
		if (s.problem[0])
			buf_add(b, "  %-10s %s: %s\n", "port", name_of(r->drop[i].port), s.problem);
	}
	for (unsigned i = 0; i < r->n_out; i++) {
		const struct dry_out *o = &r->out[i];

		if (o->mss)
			buf_add(b, "  %-10s %s: to be cut into segments of %u bytes there, each with its checksum\n", "offload",
				name_of(o->port), o->mss);
		else if (o->csum)
			buf_add(b, "  %-10s %s: the checksum is left to it\n", "offload", name_of(o->port));
		if (!hex)
			continue;
		buf_add(b, "  %-10s %s, %u bytes: ", "bytes", name_of(o->port), o->len);
		add_hex(b, o->bytes, o->len);
		buf_add(b, "\n");
	}
}

static json_t *json_out(const struct dry_out *o)
{
	struct buf hex = {0};

	add_hex(&hex, o->bytes, o->len);
	json_t *j = json_pack("{s:s, s:i, s:i, s:s, s:b, s:i}", "port", name_of(o->port), "queue", o->queue, "length",
			      (int)o->len, "hex", hex.text ? hex.text : "", "checksum_left", o->csum, "segment_size", o->mss);
	free(hex.text);
	return j;
}

static json_t *json_drop(const struct dry_drop *d)
{
	const struct reason *r = reason_get(d->reason);
	struct port_state s;

	problem_of(is_of_egress(d) ? d->port : 0, &s);
	return json_pack("{s:s+++, s:s, s:s?, s:s?}", "reason", r->module, ".", r->name, "", "text", r->text, "port",
			 is_of_egress(d) ? name_of(d->port) : NULL, "problem", s.problem[0] ? s.problem : NULL);
}

static json_t *to_json(const struct explanation *e)
{
	json_t *said = json_array(), *out = json_array(), *drops = json_array();

	for (unsigned i = 0; i < e->assumed.n; i++)
		json_array_append_new(said, json_string(e->assumed.said[i]));
	for (unsigned i = 0; i < e->run.n_out; i++)
		json_array_append_new(out, json_out(&e->run.out[i]));
	for (unsigned i = 0; i < e->run.n_drop; i++)
		json_array_append_new(drops, json_drop(&e->run.drop[i]));
	return json_pack("{s:s, s:i, s:o, s:o, s:o, s:o}", "port", e->assumed.port->name, "bytes", (int)e->len, "assumed", said,
			 "steps", trace_json(e->run.trace, 0), "out", out, "drops", drops);
}

// ---- the verb

struct wanted {
	struct explain_request r;
	bool json, hex, reply;
};

static int run(const struct wanted *w, struct buf *b, char **error)
{
	struct dry_overlay overlay = {.n = 0};
	struct explanation e, back;
	json_t *all = NULL;
	int rc = explain_packet(&w->r, &overlay, &e, error);

	if (rc)
		return rc;
	if (w->json)
		all = to_json(&e);
	else
		format_text(&e, w->hex, b);
	rc = w->reply ? explain_answer(&e, &overlay, &back, error) : 0;
	if (w->reply && !rc) {
		if (w->json) {
			json_object_set_new(all, "reply", to_json(&back));
		} else {
			buf_add(b, "The answer: ");
			format_text(&back, w->hex, b);
		}
		explain_free(&back);
	} else if (rc == -ENOENT) {
		if (w->json)
			json_object_set_new(all, "no_reply", json_string(*error));
		else
			buf_add(b, "No answer: %s.\n", *error);
		free(*error);
		*error = NULL;
		rc = 0;
	}
	if (all) {
		char *dump = json_dumps(all, JSON_COMPACT);

		buf_add(b, "%s\n", dump ? dump : "");
		free(dump);
		json_decref(all);
	}
	explain_free(&e);
	return rc;
}

static void read_arguments(struct wanted *w, int argc, const char *argv[], struct buf *text, char **error)
{
	const char *port, *tso;
	char *end;

	w->json = verbs_take_json(&argc, argv);
	w->hex = verbs_take_flag(&argc, argv, "hex");
	w->reply = verbs_take_flag(&argc, argv, "reply");
	w->r.csum = verbs_take_flag(&argc, argv, "csum");
	port = verbs_take_option(&argc, argv, "port", error);
	tso = *error ? NULL : verbs_take_option(&argc, argv, "tso", error);
	if (*error)
		return;
	unsigned long mss = tso ? strtoul(tso, &end, 10) : 0;
	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "--", 2) && !*error)
			sentence_set(error, "explain doesn't know %s: it takes --port, --reply, --hex, --csum and --tso",
				     argv[i]);
		buf_add(text, "%s%s", i > 1 ? " " : "", argv[i]);
	}
	w->r.text = text->text;
	w->r.port = port ? port_find(port) : NULL;
	w->r.mss = (uint16_t)mss;
	if (*error)
		return;
	if (tso && (*end || !*tso || !mss || mss > UINT16_MAX))
		sentence_set(error, "--tso wants the size of a segment in bytes, not \"%s\"", tso);
	else if (!port)
		sentence_set(error, "say on which port the packet comes in: explain --port PORT MATCH");
	else if (!w->r.port)
		sentence_set(error, "there is no port %s", port);
	else if (!text->len)
		sentence_set(error,
			     "say which packet: fields such as tcp,nw_dst=10.0.0.7,tp_dst=443, or its bytes in hexadecimal");
}

static void explain_verb(struct control_request *request, int argc, const char *argv[], void *aux)
{
	struct wanted w = {.json = false};
	struct buf text = {0}, b = {0};
	char *error = NULL;

	read_arguments(&w, argc, argv, &text, &error);
	int rc = error ? -EINVAL : run(&w, &b, &error);
	if (rc)
		verbs_refuse(request, "%s", error ? error : "out of memory");
	else
		control_reply(request, b.text ? b.text : "");
	free(error);
	free(text.text);
	free(b.text);
}

int explain_init(void)
{
	control_register("explain", "[--json] [--reply] [--hex] [--csum] [--tso SIZE] --port PORT MATCH|HEX", 1, 64,
			 explain_verb, NULL);
	return dry_init();
}
