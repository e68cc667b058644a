// ipfix: see ipfix.h.
#include "ipfix.h"
#include "row.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum {
	HEADER = 16,
	SET_TEMPLATE = 2,
	SET_OPTIONS = 3,
	FIRST_OPTIONS = 256, // ids of templates
	FIRST_RECORD = 300,
	VARIABLE = 65535, // length of an element that says its own
	NAME_MAX_LEN = 96,
	ROOM_MIN = 500, // bytes of the longest record, and of the longest template
};

enum {
#define X(id, name, text) OWN_##name = 0x8000 | id,
	IPFIX_OWN_ELEMENTS(X)
#undef X
};

struct element {
	uint16_t id;  // 0x8000: one of the switch's own
	uint16_t len;
};

// ---- putting bytes

static void put(struct ipfix *x, const void *data, size_t n)
{
	memcpy(x->message + x->len, data, n);
	x->len += n;
}

static void put_uint(struct ipfix *x, uint64_t v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		x->message[x->len++] = (uint8_t)(v >> 8 * (n - 1 - i));
}

static void put_at(uint8_t *at, uint32_t v, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		at[i] = (uint8_t)(v >> 8 * (n - 1 - i));
}

// A string of variable length, RFC 7011 section 7. Cut where it is too long, at a character's beginning.
static void put_str(struct ipfix *x, const char *s)
{
	size_t n = s ? strlen(s) : 0;

	if (n > NAME_MAX_LEN)
		for (n = NAME_MAX_LEN; n && ((uint8_t)s[n] & 0xc0) == 0x80;)
			n--;
	put_uint(x, n, 1);
	if (n)
		put(x, s, n);
}

// ---- messages and sets

static void end_set(struct ipfix *x)
{
	if (x->set)
		put_at(x->message + x->set + 2, (uint32_t)(x->len - x->set), 2);
	x->set = 0;
}

void ipfix_flush(struct ipfix *x)
{
	if (!x->len)
		return;
	end_set(x);
	put_at(x->message + 2, (uint32_t)x->len, 2);
	put_at(x->message + 4, x->export_s, 4);
	x->send(x->arg, x->message, x->len, x->records);
	x->sequence += x->records;
	x->len = 0;
	x->records = 0;
}

void ipfix_renumber(uint8_t *message, uint32_t missed)
{
	uint32_t n;

	memcpy(&n, message + 8, 4);
	put_at(message + 8, ntohl(n) - missed, 4);
}

// Room for one more record of the set: goes on in the same set, begins another, or another message.
static void begin(struct ipfix *x, uint16_t id)
{
	if (x->len && x->len + 4 + ROOM_MIN > IPFIX_MESSAGE)
		ipfix_flush(x);
	if (!x->len) {
		put_uint(x, 10, 2); // version
		put_uint(x, 0, 6);  // length, time: when it is sent
		put_uint(x, x->sequence, 4);
		put_uint(x, x->domain, 4);
	}
	if (x->set && x->set_id == id)
		return;
	end_set(x);
	x->set = x->len;
	x->set_id = id;
	put_uint(x, id, 2);
	put_uint(x, 0, 2);
}

static void put_element(struct ipfix *x, const struct element *e)
{
	put_uint(x, e->id, 2);
	put_uint(x, e->len, 2);
	if (e->id & 0x8000)
		put_uint(x, x->enterprise, 4);
}

// ---- options

// Scope first; each ends with id 0.
static const struct {
	unsigned scopes;
	struct element element[8];
} options[] = {
#define OPTIONS_INTERFACE 0
	{1, {{10, 4}, {82, VARIABLE}, {83, VARIABLE}}}, // ingressInterface: interfaceName, interfaceDescription
#define OPTIONS_SAMPLING 1
	// observationDomainId: samplingInterval, samplingAlgorithm, flowSelectorAlgorithm, samplingProbability
	{1, {{149, 4}, {34, 4}, {35, 1}, {390, 2}, {311, 8}}},
#define OPTIONS_NOT_SENT 2
	{1, {{149, 4}, {166, 8}, {167, 8}, {168, 8}}}, // observationDomainId: notSentFlow-, notSentPacket-, notSentOctetTotalCount
#define OPTIONS_ELEMENT 3
	// privateEnterpriseNumber, informationElementId: informationElementDataType, -Semantics, -Name
	{2, {{346, 4}, {303, 2}, {339, 1}, {344, 1}, {341, VARIABLE}}},
};

static void begin_options(struct ipfix *x, unsigned which)
{
	if (!(x->told_options >> which & 1)) {
		unsigned n = 0;

		x->told_options |= 1u << which;
		while (options[which].element[n].id)
			n++;
		begin(x, SET_OPTIONS);
		put_uint(x, FIRST_OPTIONS + which, 2);
		put_uint(x, n, 2);
		put_uint(x, options[which].scopes, 2);
		for (unsigned i = 0; i < n; i++)
			put_element(x, &options[which].element[i]);
	}
	begin(x, (uint16_t)(FIRST_OPTIONS + which));
	x->records++;
}

void ipfix_interface(struct ipfix *x, uint32_t id, const char *name, const char *description)
{
	begin_options(x, OPTIONS_INTERFACE);
	put_uint(x, id, 4);
	put_str(x, name);
	put_str(x, description);
}

void ipfix_sampling(struct ipfix *x, uint32_t one_of)
{
	double probability = 1.0 / (one_of ? one_of : 1);
	uint64_t bits;

	memcpy(&bits, &probability, sizeof bits);
	begin_options(x, OPTIONS_SAMPLING);
	put_uint(x, x->domain, 4);
	put_uint(x, one_of, 4);
	put_uint(x, 2, 1); // random
	put_uint(x, 4, 2); // uniform probabilistic
	put_uint(x, bits, 8);
}

void ipfix_not_sent(struct ipfix *x, uint64_t flows, uint64_t packets, uint64_t bytes)
{
	begin_options(x, OPTIONS_NOT_SENT);
	put_uint(x, x->domain, 4);
	put_uint(x, flows, 8);
	put_uint(x, packets, 8);
	put_uint(x, bytes, 8);
}

void ipfix_own_elements(struct ipfix *x)
{
	static const struct {
		uint16_t id;
		const char *name;
	} own[] = {
#define X(id, name, text) {id, text},
		IPFIX_OWN_ELEMENTS(X)
#undef X
	};

	for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
		begin_options(x, OPTIONS_ELEMENT);
		put_uint(x, x->enterprise, 4);
		put_uint(x, own[i].id, 2);
		put_uint(x, 13, 1); // string
		put_uint(x, 0, 1);  // default semantics
		put_str(x, own[i].name);
	}
}

// ---- flow records

// RFC 7270 section 4.12: two bits of status, six of reason.
static uint8_t forwarding_status(const struct flow_record *r)
{
	char reason[64];

	if (r->verdict != RECORD_DROPPED)
		return 64; // forwarded, reason unknown
	flow_record_reason(r, reason);
	if (r->rule)
		return 129; // dropped, ACL deny
	if (!strncmp(reason, "mtu.", 4))
		return 133; // dropped, it would have to be cut in pieces
	return 128;     // dropped, reason unknown
}

static void put_row(struct ipfix *x, uint32_t handle)
{
	const struct row_info *row = handle ? row_get(handle) : NULL;
	char text[200];

	if (row)
		snprintf(text, sizeof text, "%s:%s", row->table, row->name);
	put_str(x, row ? text : "");
}

// What every record has, then what depends on its fields: element, what puts it.
#define ALWAYS(X)                                                                                                      \
	X(152, 8, put_uint(x, r->start_ms, 8))               /* flowStartMilliseconds */                               \
	X(153, 8, put_uint(x, r->end_ms, 8))                 /* flowEndMilliseconds */                                 \
	X(1, 8, put_uint(x, r->bytes, 8))                    /* octetDeltaCount */                                     \
	X(2, 8, put_uint(x, r->packets, 8))                  /* packetDeltaCount */                                    \
	X(10, 4, put_uint(x, r->key.port, 4))                /* ingressInterface */                                    \
	X(89, 1, put_uint(x, forwarding_status(r), 1))       /* forwardingStatus */                                    \
	X(136, 1, put_uint(x, r->why, 1))                    /* flowEndReason */                                       \
	X(56, 6, put(x, r->key.src, 6))                      /* sourceMacAddress */                                    \
	X(80, 6, put(x, r->key.dst, 6))                      /* destinationMacAddress */                               \
	X(256, 2, put(x, &r->key.ethertype, 2))              /* ethernetType */                                        \
	X(OWN_NETWORK, VARIABLE, put_str(x, r->network_name))
#define SOMETIMES(X)                                                                                                   \
	X(OUT_PORT, 14, 4, put_uint(x, r->out, 4))           /* egressInterface */                                     \
	X(DROP, OWN_REASON, VARIABLE, put_str(x, flow_record_reason(r, text)))                                         \
	X(DROP, OWN_ROW, VARIABLE, put_row(x, r->rule))                                                                \
	X(VLAN, 58, 2, put_uint(x, r->key.vlan & 0xfff, 2))  /* vlanId */                                              \
	X(CVLAN, 245, 2, put_uint(x, r->key.cvlan & 0xfff, 2)) /* dot1qCustomerVlanId */                               \
	X(PROTO, 4, 1, put_uint(x, r->key.proto, 1))         /* protocolIdentifier */                                  \
	X(V4_SRC, 8, 4, put(x, &r->key.v4.src, 4))           /* sourceIPv4Address; of ARP: the sender's */             \
	X(V4_DST, 12, 4, put(x, &r->key.v4.dst, 4))          /* destinationIPv4Address */                              \
	X(V6_SRC, 27, 16, put(x, r->key.v6.src, 16))         /* sourceIPv6Address */                                   \
	X(V6_DST, 28, 16, put(x, r->key.v6.dst, 16))         /* destinationIPv6Address */                              \
	X(TP_SRC, 7, 2, put(x, &r->key.sport, 2))            /* sourceTransportPort */                                 \
	X(TP_DST, 11, 2, put(x, &r->key.dport, 2))           /* destinationTransportPort */                            \
	X(ICMP4, 32, 2, put_icmp(x, r))                      /* icmpTypeCodeIPv4 */                                    \
	X(ICMP6, 139, 2, put_icmp(x, r))                     /* icmpTypeCodeIPv6 */                                    \
	X(TOS, 5, 1, put_uint(x, r->key.tos, 1))             /* ipClassOfService, ECN taken out */                     \
	X(NAT_V4_SRC, 225, 4, put(x, r->nat.src, 4))         /* postNATSourceIPv4Address */                            \
	X(NAT_V4_DST, 226, 4, put(x, r->nat.dst, 4))         /* postNATDestinationIPv4Address */                       \
	X(NAT_V6_SRC, 281, 16, put(x, r->nat.src, 16))       /* postNATSourceIPv6Address */                            \
	X(NAT_V6_DST, 282, 16, put(x, r->nat.dst, 16))       /* postNATDestinationIPv6Address */                       \
	X(NAT_TP_SRC, 227, 2, put(x, &r->nat.sport, 2))      /* postNAPTSourceTransportPort */                         \
	X(NAT_TP_DST, 228, 2, put(x, &r->nat.dport, 2))      /* postNAPTDestinationTransportPort */

static void put_icmp(struct ipfix *x, const struct flow_record *r)
{
	put_uint(x, ntohs(r->key.sport), 1);
	put_uint(x, ntohs(r->key.dport), 1);
}

static void put_template(struct ipfix *x, uint16_t id, uint32_t fields)
{
	static const struct element always[] = {
#define X(element, len, code) {element, len},
		ALWAYS(X)
#undef X
	};
	static const struct {
		uint32_t bit;
		struct element element;
	} sometimes[] = {
#define X(name, element, len, code) {RECORD_##name, {element, len}},
		SOMETIMES(X)
#undef X
	};
	unsigned n = sizeof always / sizeof always[0];

	for (size_t i = 0; i < sizeof sometimes / sizeof sometimes[0]; i++)
		n += (fields & sometimes[i].bit) != 0;
	begin(x, SET_TEMPLATE);
	put_uint(x, id, 2);
	put_uint(x, n, 2);
	for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
		put_element(x, &always[i]);
	for (size_t i = 0; i < sizeof sometimes / sizeof sometimes[0]; i++)
		if (fields & sometimes[i].bit)
			put_element(x, &sometimes[i].element);
}

static int find_template(struct ipfix *x, uint32_t fields)
{
	for (unsigned i = 0; i < x->n_templates; i++)
		if (x->fields[i] == fields)
			return (int)i;
	if (x->n_templates == IPFIX_TEMPLATES)
		return -1;
	x->fields[x->n_templates] = fields;
	return (int)x->n_templates++;
}

bool ipfix_record(struct ipfix *x, const struct flow_record *r)
{
	uint32_t fields = r->fields & ~(uint32_t)RECORD_ARP_OP; // for which there is no element
	int t = find_template(x, fields);
	char text[64];

	if (t < 0)
		return false;
	uint16_t id = (uint16_t)(FIRST_RECORD + t);
	if (!(x->told >> t & 1)) {
		x->told |= 1ULL << t;
		put_template(x, id, fields);
	}
	begin(x, id);
	x->records++;
#define X(element, len, code) code;
	ALWAYS(X)
#undef X
#define X(name, element, len, code)                                                                                    \
	if (fields & RECORD_##name)                                                                                    \
		code;
	SOMETIMES(X)
#undef X
	return true;
}

void ipfix_tell(struct ipfix *x)
{
	x->told = 0;
	x->told_options = 0;
}

void ipfix_init(struct ipfix *x, uint32_t domain, uint32_t enterprise, void (*send)(void *, uint8_t *, size_t, unsigned), void *arg)
{
	memset(x, 0, sizeof *x);
	x->domain = domain;
	x->enterprise = enterprise;
	x->send = send;
	x->arg = arg;
}
