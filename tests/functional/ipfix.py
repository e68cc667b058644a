"""A strict reader of IPFIX (RFC 7011): what a collector would have to guess is an error here."""

import struct

OWN = 32473
# number: name, bytes (None: variable length), of IANA's registry
ELEMENTS = {
    1: ("octetDeltaCount", 8), 2: ("packetDeltaCount", 8), 4: ("protocolIdentifier", 1), 5: ("ipClassOfService", 1),
    7: ("sourceTransportPort", 2), 8: ("sourceIPv4Address", 4), 10: ("ingressInterface", 4), 11: ("destinationTransportPort", 2),
    12: ("destinationIPv4Address", 4), 14: ("egressInterface", 4), 27: ("sourceIPv6Address", 16), 28: ("destinationIPv6Address", 16),
    32: ("icmpTypeCodeIPv4", 2), 34: ("samplingInterval", 4), 35: ("samplingAlgorithm", 1), 56: ("sourceMacAddress", 6), 58: ("vlanId", 2),
    80: ("destinationMacAddress", 6), 82: ("interfaceName", None), 83: ("interfaceDescription", None), 89: ("forwardingStatus", 1),
    136: ("flowEndReason", 1), 139: ("icmpTypeCodeIPv6", 2), 149: ("observationDomainId", 4), 152: ("flowStartMilliseconds", 8),
    153: ("flowEndMilliseconds", 8), 166: ("notSentFlowTotalCount", 8), 167: ("notSentPacketTotalCount", 8), 168: ("notSentOctetTotalCount", 8),
    245: ("dot1qCustomerVlanId", 2), 256: ("ethernetType", 2), 303: ("informationElementId", 2), 311: ("samplingProbability", 8),
    339: ("informationElementDataType", 1), 341: ("informationElementName", None), 344: ("informationElementSemantics", 1),
    346: ("privateEnterpriseNumber", 4), 390: ("flowSelectorAlgorithm", 2),
}
STRINGS = {82, 83, 341}


class Wrong(AssertionError):
    pass


def need(condition, *what):
    if not condition:
        raise Wrong(*what)


class Reader:
    """One transport session. records: flow records as dictionaries; options: {template's scope names: [records]}."""

    def __init__(self):
        self.templates, self.records, self.options, self.sequence, self.messages = {}, [], {}, {}, 0

    def message(self, data):
        need(len(data) >= 16, "short message")
        version, length, time, sequence, domain = struct.unpack("!HHIII", data[:16])
        need(version == 10, "version", version)
        need(length == len(data), "length", length, len(data))
        need(self.sequence.setdefault(domain, sequence) == sequence, "sequence", sequence, self.sequence[domain])
        self.time, self.domain, self.messages = time, domain, self.messages + 1
        before, at = self.count(), 16
        while at < len(data):
            need(len(data) - at >= 4, "a cut set")
            set_id, size = struct.unpack("!HH", data[at:at + 4])
            need(4 < size <= len(data) - at, "size of a set", size)
            self.set(domain, set_id, data[at + 4:at + size])
            at += size
        self.sequence[domain] = (sequence + self.count() - before) % (1 << 32)

    def count(self):
        return len(self.records) + sum(map(len, self.options.values()))

    def set(self, domain, set_id, body):
        if set_id in (2, 3):
            while len(body) >= 4:
                body = self.template(domain, set_id == 3, body)
            need(not body, "rest of a template set")
            return
        need(set_id >= 256, "set", set_id)
        need((domain, set_id) in self.templates, "a template that nobody told of", set_id)
        while body:
            body = self.record(self.templates[domain, set_id], body)

    def template(self, domain, options, body):
        number, n = struct.unpack("!HH", body[:4])
        need(number >= 256 and n > 0, "template", number, n)
        at, scopes, fields = 4, 0, []
        if options:
            scopes, = struct.unpack("!H", body[4:6])
            need(0 < scopes <= n, "scopes", scopes)
            at = 6
        for _ in range(n):
            element, length = struct.unpack("!HH", body[at:at + 4])
            at += 4
            enterprise = 0
            if element & 0x8000:
                element &= 0x7fff
                enterprise, = struct.unpack("!I", body[at:at + 4])
                at += 4
                need(length == 65535, "own elements are strings")
            else:
                need(element in ELEMENTS, "element", element)
                name, size = ELEMENTS[element]
                need(length == (65535 if size is None else size), "length of", name, length)
            fields.append((enterprise, element, length))
        need(len(set(fields)) == len(fields), "an element twice")
        known = self.templates.setdefault((domain, number), (scopes, fields))
        need(known == (scopes, fields), "template changed", number)
        return body[at:]

    def record(self, template, body):
        scopes, fields = template
        values = {}
        for enterprise, element, length in fields:
            if length == 65535:
                length, body = body[0], body[1:]
                need(length < 255, "long string")
            need(len(body) >= length, "a cut record")
            raw, body = body[:length], body[length:]
            if enterprise:
                values[f"own{element}"] = raw.decode()
                values["enterprise"] = enterprise
            elif element in STRINGS:
                values[ELEMENTS[element][0]] = raw.decode()
            elif element in (56, 80):
                values[ELEMENTS[element][0]] = raw.hex(":")
            elif element in (8, 12, 27, 28):
                values[ELEMENTS[element][0]] = raw
            elif element == 311:
                values[ELEMENTS[element][0]], = struct.unpack("!d", raw)
            else:
                values[ELEMENTS[element][0]] = int.from_bytes(raw, "big")
        if scopes:
            self.options.setdefault(tuple(ELEMENTS[e][0] for _, e, _ in fields[:scopes]), []).append(values)
        else:
            self.records.append(values)
        return body
