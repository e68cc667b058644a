// actions: see actions.h.
#include "actions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// A list while it is read.
struct list {
	struct actions *a;
	const struct match *match;
	uint8_t n_sets; // so far
	int32_t tag;
	struct pkt_mark mark;
	char class[FIELD_NAME_MAX];
	bool decided;   // drop, in_port, normal or flood was there
	const char *loose; // a set or a tag that no output has come after yet
	struct actions_copy copy[ACTIONS_COPIES + 1]; // outputs and mirrors, in order
	unsigned n;
};

// What the sets of fields need of a packet beside what their match needs.
static int check_set(const struct field *f, const struct list *l, const char *word, char **error)
{
	if (!(f->uses & FOR_SET))
		return field_refuse(error, "%s: %s can't be set", word, f->name);
	if (f->of != (unsigned)IS_ANY && !(f->of & l->match->is & ~(unsigned)IS_ARP))
		return field_refuse(error, "%s: the match must say that the packets are %s", word, f->of & IS_ARP ? "ip" : f->lacks);
	if ((f->id == TP_SRC || f->id == TP_DST) && !(l->match->is & (IS_TCP | IS_UDP)))
		return field_refuse(error, "%s: ports can be set in tcp and udp only", word);
	if (l->n_sets == ACTIONS_SETS)
		return field_refuse(error, "%s: a rule sets %d fields at most", word, ACTIONS_SETS);
	return 0;
}

// ---- the tag

// `present`: the value may have the bit that says that there is a tag, as OpenFlow writes it.
static int set_vid(struct list *l, const char *value, bool present, const char *word, char **error)
{
	union field_value v = {.n = 0};
	char *why = NULL;
	int rc = field_read(field_find(present ? "vlan_tci" : "dl_vlan"), value, &v, &why);

	free(why);
	if (present)
		v.n &= ~0x1000u;
	if (rc || v.n < 1 || v.n > 4094)
		return field_refuse(error, "%s: a VLAN from 1 to 4094 is needed", word);
	l->tag = (int32_t)v.n | (l->tag < 0 ? 0 : l->tag & ~(0xfff | TAG_PORT_VID));
	l->loose = "mod_vlan_vid";
	return 0;
}

// What leaves untagged stays so, unless strip_vlan has made it so: then it gets a tag with VLAN id 0 (IEEE 802.1Q: priority-tagged).
static int set_pcp(struct list *l, const char *value, const char *word, char **error)
{
	union field_value v = {.n = 0};
	char *why = NULL;
	int rc = field_read(field_find("dl_vlan_pcp"), value, &v, &why);

	free(why);
	if (rc)
		return field_refuse(error, "%s: a priority from 0 to 7 is needed", word);
	l->tag = l->tag < 0 ? TAG_PORT_VID : !l->tag ? TAG_GIVEN : l->tag & ~(7 << TAG_PCP_SHIFT);
	l->tag |= TAG_PCP | (int32_t)v.n << TAG_PCP_SHIFT;
	l->loose = "mod_vlan_pcp";
	return 0;
}

static int push_vlan(struct list *l, const char *value, const char *word, char **error)
{
	union field_value v = {.n = 0};
	char *why = NULL;
	int rc = field_read(field_find("dl_type"), value, &v, &why);

	free(why);
	if (rc || (v.n != 0x8100 && v.n != 0x88a8))
		return field_refuse(error, "%s: the Ethertype of a tag is 0x8100 or 0x88a8", word);
	if (l->tag != TAG_OF_PORT && l->tag)
		return field_refuse(error, "%s: one tag is pushed, in front of those that the packet came with or, behind strip_vlan, in the place of the first", word);
	l->tag = TAG_GIVEN | TAG_PCP | (l->tag ? TAG_PUSHED : TAG_REPLACES) | (v.n == 0x88a8 ? TAG_8021AD : 0);
	l->loose = "push_vlan";
	return 0;
}

static int strip_vlan(struct list *l)
{
	l->tag = l->tag > 0 && (l->tag & TAG_PUSHED) ? TAG_OF_PORT : 0;
	l->loose = "strip_vlan";
	return 0;
}

// What several words set adds up.
static int set_mark(struct list *l, const char *value, const char *word, char **error)
{
	struct pkt_mark m;
	int rc = mark_read(value, word, &m, error);

	if (rc)
		return rc;
	l->mark = (struct pkt_mark){mark_set(&m, l->mark.value), l->mark.mask | m.mask};
	l->loose = "set_field";
	return 0;
}

static int add_set(struct list *l, const char *name, const char *value, const char *word, char **error)
{
	const struct field *f = field_find(name);
	struct rewrite r;

	if (!f)
		return field_refuse(error, "%s: no such field of a packet", word);
	if (f->id == DL_VLAN)
		return set_vid(l, value, !strcasecmp(name, "vlan_vid"), word, error);
	if (f->id == DL_VLAN_PCP)
		return set_pcp(l, value, word, error);
	if (f->id == PKT_MARK)
		return set_mark(l, value, word, error);
	int rc = check_set(f, l, word, error);
	if (rc)
		return rc;
	if (strchr(value, '/'))
		return field_refuse(error, "%s: whole values can be set, without a mask", word);
	rc = field_read(f, value, &r.value, error);
	if (rc)
		return rc;
	if (f->id == NW_TOS && (r.value.n & 3))
		return field_refuse(error, "%s: the two lowest bits are ECN's and stay as they are", word);
	r.field = f->id;
	l->a->set[l->n_sets++] = r;
	l->loose = "set_field";
	return 0;
}

// VALUE->FIELD
static int set_field(struct list *l, const char *value, const char *word, char **error)
{
	const char *arrow = strstr(value, "->");

	if (!arrow || arrow == value || !arrow[2])
		return field_refuse(error, "%s: it is written set_field:VALUE->FIELD", word);
	char *text = strndup(value, (size_t)(arrow - value));
	if (!text)
		return field_refuse(error, "there is no memory for the actions");
	int rc = add_set(l, arrow + 2, text, word, error);
	free(text);
	return rc;
}

static int set_class(struct list *l, const char *name, const char *word, char **error)
{
	if (!*name || strlen(name) >= sizeof l->class)
		return field_refuse(error, "%s: the name of a class is needed, class:NAME", word);
	if (l->class[0])
		return field_refuse(error, "%s: another word has put the packet into class %s already", word, l->class);
	memcpy(l->class, name, strlen(name));
	l->loose = "class";
	return 0;
}

// What is of the packet itself is what was said until now.
static void settle(struct list *l, int32_t tag, uint8_t n_sets)
{
	l->a->tag = tag;
	l->a->n_sets = n_sets;
	l->a->mark = l->mark;
	memcpy(l->a->class, l->class, sizeof l->class);
}

static int decide(struct list *l, enum actions_to to, const char *word, char **error)
{
	if (l->decided)
		return field_refuse(error, "%s: another word says already where the packet goes", word);
	l->decided = true;
	l->loose = NULL;
	l->a->to = to;
	settle(l, l->tag, l->n_sets);
	return 0;
}

static int add_copy(struct list *l, const char *port, bool mirror, const char *word, char **error)
{
	if (!*port || strlen(port) >= FIELD_NAME_MAX)
		return field_refuse(error, "%s: the name of a port is needed, %s:PORT", word, mirror ? "mirror" : "output");
	if (l->n == ACTIONS_COPIES)
		return field_refuse(error, "%s: a rule sends %d copies at most", word, ACTIONS_COPIES);
	struct actions_copy *c = &l->copy[l->n++];
	*c = (struct actions_copy){.tag = mirror ? TAG_AS_RECEIVED : l->tag, .n_sets = mirror ? 0 : l->n_sets};
	memcpy(c->name, port, strlen(port));
	if (!mirror)
		l->loose = NULL;
	return 0;
}

// ---- the words

enum verb {
	DROP,
	OUTPUT,
	TO_IN_PORT,
	NORMAL,
	FLOOD,
	SET_FIELD,
	MOD_FIELD,
	SET_VLAN,
	SET_PCP,
	PUSH_VLAN,
	STRIP_VLAN,
	MIRROR,
	CLASS_OF,
	REFUSED,
};

// `arg`: MOD_FIELD: the field; REFUSED: why.
static const struct {
	const char *name;
	enum verb verb;
	bool value; // takes one, after a colon
	const char *arg;
} verbs[] = {
	{"drop", DROP, false, NULL},
	{"output", OUTPUT, true, NULL},
	{"in_port", TO_IN_PORT, false, NULL},
	{"normal", NORMAL, false, NULL},
	{"flood", FLOOD, false, NULL},
	{"all", FLOOD, false, NULL},
	{"set_field", SET_FIELD, true, NULL},
	{"mod_dl_src", MOD_FIELD, true, "dl_src"},
	{"mod_dl_dst", MOD_FIELD, true, "dl_dst"},
	{"mod_nw_src", MOD_FIELD, true, "nw_src"},
	{"mod_nw_dst", MOD_FIELD, true, "nw_dst"},
	{"mod_nw_tos", MOD_FIELD, true, "nw_tos"},
	{"mod_tp_src", MOD_FIELD, true, "tp_src"},
	{"mod_tp_dst", MOD_FIELD, true, "tp_dst"},
	{"mod_vlan_vid", SET_VLAN, true, NULL},
	{"set_vlan_vid", SET_VLAN, true, NULL},
	{"set_vlan", SET_VLAN, true, NULL},
	{"mod_vlan_pcp", SET_PCP, true, NULL},
	{"set_vlan_pcp", SET_PCP, true, NULL},
	{"push_vlan", PUSH_VLAN, true, NULL},
	{"strip_vlan", STRIP_VLAN, false, NULL},
	{"pop_vlan", STRIP_VLAN, false, NULL},
	{"mirror", MIRROR, true, NULL},
	{"class", CLASS_OF, true, NULL},
	{"controller", REFUSED, true, "there is no controller"},
	{"resubmit", REFUSED, true, "there is one table of rules"},
	{"goto_table", REFUSED, true, "there is one table of rules"},
	{"ct", REFUSED, true, "rules don't track connections"},
	{"dec_ttl", REFUSED, false, "a network of layer 2 leaves the TTL alone"},
	{"local", REFUSED, false, "the switch has no port of its own"},
};

static int one(struct list *l, char *word, char **error)
{
	size_t len = strcspn(word, ":=");
	const char *value = word[len] ? word + len + 1 : "";
	size_t i = 0;

	for (; i < sizeof verbs / sizeof verbs[0]; i++)
		if (strlen(verbs[i].name) == len && !strncasecmp(verbs[i].name, word, len))
			break;
	if (i == sizeof verbs / sizeof verbs[0])
		return field_refuse(error, "%s: no such action; there are drop, output:PORT, in_port, normal, flood, set_field:VALUE->FIELD, "
					   "mod_vlan_vid:N, mod_vlan_pcp:N, push_vlan:ETHERTYPE, strip_vlan, class:NAME and mirror:PORT", word);
	if (verbs[i].verb == REFUSED)
		return field_refuse(error, "%s: %s", word, verbs[i].arg);
	if (verbs[i].value != (word[len] != '\0'))
		return field_refuse(error, verbs[i].value ? "%s needs a value: %s:..." : "%s: it takes no value", word, verbs[i].name);
	switch (verbs[i].verb) {
	case DROP:
		return decide(l, ACTIONS_DROP, word, error);
	case TO_IN_PORT:
		return decide(l, ACTIONS_IN_PORT, word, error);
	case NORMAL:
		return decide(l, ACTIONS_NORMAL, word, error);
	case FLOOD:
		return decide(l, ACTIONS_FLOOD, word, error);
	case OUTPUT:
	case MIRROR:
		return add_copy(l, value, verbs[i].verb == MIRROR, word, error);
	case SET_FIELD:
		return set_field(l, value, word, error);
	case MOD_FIELD:
		return add_set(l, verbs[i].arg, value, word, error);
	case SET_VLAN:
		return set_vid(l, value, false, word, error);
	case SET_PCP:
		return set_pcp(l, value, word, error);
	case PUSH_VLAN:
		return push_vlan(l, value, word, error);
	case STRIP_VLAN:
		return strip_vlan(l);
	case CLASS_OF:
		return set_class(l, value, word, error);
	default:
		return -EINVAL;
	}
}

// The last output is what becomes of the packet itself, unless a word says something else; sets and tags that nothing comes after are those of the packet.
static int finish(struct list *l, char **error)
{
	struct actions *a = l->a;
	unsigned last = l->n;

	if (l->decided && a->to == ACTIONS_DROP) {
		for (unsigned i = 0; i < l->n; i++)
			if (l->copy[i].tag != TAG_AS_RECEIVED)
				return field_refuse(error, "drop: the packet can't go to %s as well (mirror:%s sends a copy there)", l->copy[i].name,
						    l->copy[i].name);
		if (l->class[0])
			return field_refuse(error, "class:%s: what is dropped is in no class", l->class);
		a->n_sets = 0;
	}
	while (last && l->copy[last - 1].tag == TAG_AS_RECEIVED)
		last--;
	if (l->loose && (l->decided || last))
		return field_refuse(error, "%s: no output comes behind it, so it would change nothing", l->loose);
	if (!l->decided && last) {
		struct actions_copy *c = &l->copy[last - 1];

		a->to = ACTIONS_PORT;
		settle(l, c->tag, c->n_sets);
		memcpy(a->name, c->name, sizeof a->name);
		memmove(c, c + 1, (l->n - last) * sizeof *c);
		l->n--;
	} else if (!l->decided) {
		a->to = ACTIONS_NORMAL;
		settle(l, l->tag, l->n_sets);
	}
	if (!l->n)
		return 0;
	a->copy = calloc(l->n, sizeof *a->copy);
	if (!a->copy)
		return field_refuse(error, "there is no memory for the actions");
	memcpy(a->copy, l->copy, l->n * sizeof *a->copy);
	a->n_copies = (uint8_t)l->n;
	return 0;
}

int actions_parse(const char *text, const struct match *match, struct actions *a, char **error)
{
	struct list l = {.a = a, .match = match, .tag = TAG_OF_PORT};
	char *copy = strdup(text), *save = NULL;
	int rc = 0, n = 0;

	*a = (struct actions){.set = calloc(ACTIONS_SETS, sizeof *a->set), .tag = TAG_OF_PORT};
	*error = NULL;
	if (!copy || !a->set)
		rc = field_refuse(error, "there is no memory for the actions");
	for (char *word = rc ? NULL : strtok_r(copy, ", \t\r\n", &save); word && !rc; word = strtok_r(NULL, ", \t\r\n", &save), n++)
		rc = one(&l, word, error);
	if (!rc && !n)
		rc = field_refuse(error, "there are no actions: write drop, output:PORT or another");
	if (!rc)
		rc = finish(&l, error);
	free(copy);
	if (rc) {
		actions_free(a);
		return rc;
	}
	if (!l.n_sets) {
		free(a->set);
		a->set = NULL;
	}
	return 0;
}

void actions_free(struct actions *a)
{
	free(a->set);
	free(a->copy);
	a->set = NULL;
	a->copy = NULL;
	a->n_copies = 0;
}
