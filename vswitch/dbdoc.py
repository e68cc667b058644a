#!/usr/bin/python3
"""The reference of the database, made from weir.xml and weir.ovsschema.

usage: dbdoc.py man XML SCHEMA VERSION           the man page weir-db(5), to standard output
       dbdoc.py keys XML SCHEMA                  the C table of the map keys, to standard output
       dbdoc.py check XML SCHEMA SOURCE-DIR...   fail unless the reference, the schema and the sources agree
"""
import json
import pathlib
import re
import sys
import xml.etree.ElementTree as ET

KINDS = ("string", "integer", "boolean", "enum", "octal", "path", "cpus", "pairs", "address", "ips")


class Reference:
    def __init__(self, xml, schema):
        self.root = ET.parse(xml).getroot()
        with open(schema) as f:
            self.schema = json.load(f)
        self.tables = {t.get("name"): t for t in self.root.findall("table")}

    def columns(self, table):
        return {c.get("name"): c for c in self.tables[table].findall("column")}

    def keys(self, table, column):
        element = self.columns(table)[column]
        same = element.get("same-as")
        return self.keys(*same.split()) if same else element.findall("key")


def number_of(text):
    """What "1 << 20" or "4096" is."""
    base, _, shift = text.partition(" << ")
    return int(base) << int(shift or 0)


def problems(ref, dirs):
    """What doesn't agree, one sentence each."""
    documented, existing = set(ref.tables), set(ref.schema["tables"])
    for name in sorted(existing - documented):
        yield f"table {name} isn't documented"
    for name in sorted(documented - existing):
        yield f"table {name} is documented, but not in the schema"
    if len(ref.tables) != len(ref.root.findall("table")):
        yield "a table is documented twice"
    known = set()
    for table in sorted(documented & existing):
        columns, inside = ref.columns(table), ref.schema["tables"][table]["columns"]
        if len(columns) != len(ref.tables[table].findall("column")):
            yield f"table {table}: a column is documented twice"
        for name in sorted(set(inside) - set(columns)):
            yield f"column {table}.{name} isn't documented"
        for name in sorted(set(columns) - set(inside)):
            yield f"column {table}.{name} is documented, but not in the schema"
        for name in sorted(set(inside) & set(columns)):
            if not "".join(columns[name].itertext()).strip():
                yield f"column {table}.{name}: the documentation is empty"
            is_map = isinstance(inside[name]["type"], dict) and "value" in inside[name]["type"]
            seen = set()
            for key in ref.keys(table, name):
                where = f"key {table}.{name}:{key.get('name')}"
                if not is_map:
                    yield f"{where}: the column is no map"
                if key.get("name") in seen:
                    yield f"{where} is documented twice"
                seen.add(key.get("name"))
                if not "".join(key.itertext()).strip():
                    yield f"{where}: the documentation is empty"
                if key.get("type") and key.get("type") not in KINDS:
                    yield f"{where}: no such type: {key.get('type')}"
                if key.get("type") == "integer" and not (key.get("min") and key.get("max")):
                    yield f"{where}: an integer has a min and a max"
                if key.get("type") == "enum" and not key.get("values"):
                    yield f"{where}: an enum has values"
            known |= seen
    documented_ranges = {}
    for table in sorted(documented & existing):
        for name in set(ref.schema["tables"][table]["columns"]) & set(ref.columns(table)):
            for key in ref.keys(table, name):
                if key.get("type") == "integer" and key.get("min") and key.get("max"):
                    documented_ranges.setdefault(key.get("name"), set()).add((int(key.get("min")), int(key.get("max"))))
    # A key that the code reads is a literal, so that it can be found here; so are the numbers of most ranges.
    ranges = re.compile(r'\bconfig_map_uint\s*\(\s*[^",;]+,\s*"([^"]+)",[^,]+,\s*([0-9]+(?: << [0-9]+)?),\s*([0-9]+(?: << [0-9]+)?),')
    reads = re.compile(r'\bconfig_map_(?:get|uint|bool)\s*\(\s*[^",;]+,\s*"([^"]+)"')
    for path in sorted(p for d in dirs for p in pathlib.Path(d).rglob("*.c")):
        for key in reads.findall(path.read_text(errors="replace")):
            if key not in known:
                yield f"{path}: reads the map key {key!r}, which isn't documented"
        for key, low, high in ranges.findall(path.read_text(errors="replace")):
            read = tuple(number_of(n) for n in (low, high))
            if key in documented_ranges and read not in documented_ranges[key]:
                yield f"{path}: reads {key!r} from {read[0]} to {read[1]}, which isn't what is documented"


# ---- the C table


def c_string(s):
    return "NULL" if s is None else json.dumps(s)


def print_keys(ref):
    print("// Made by dbdoc.py from weir.xml.")
    print("static const struct db_key db_keys[] = {")
    for table in ref.tables:
        for column in ref.columns(table):
            for key in ref.keys(table, column):
                if not key.get("type"):
                    continue  # a key that the switch writes
                low, high = (int(key.get(a, d), 8 if key.get("type") == "octal" else 10) for a, d in (("min", "0"), ("max", "0")))
                print("\t{%s, %s, %s, KEY_%s, %dULL, %dULL, %s, %s, %s}," % (
                    c_string(table), c_string(column), c_string(key.get("name")), key.get("type").upper(), low, high,
                    c_string(key.get("unit")), c_string(key.get("values")), c_string(key.get("for"))))
    print("};")
    print("// Columns in which only these keys are allowed.")
    print("static const char *const db_closed[][2] = {")
    for table in ref.tables:
        for name, column in ref.columns(table).items():
            if column.get("closed") == "yes":
                print("\t{%s, %s}," % (c_string(table), c_string(name)))
    print("};")


# ---- the man page


def roff(s):
    s = s.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", s)


def inline(element):
    """The element's text on one line, <code> in bold."""
    out = roff(element.text or "")
    for child in element:
        out += "\\fB" + roff("".join(child.itertext())) + "\\fR" + roff(child.tail or "")
    return " ".join(out.split())


def number(n):
    return f"{int(n)}"


def base_text(base):
    if isinstance(base, str):
        return base
    if "enum" in base:
        return "one of " + ", ".join(f"\\fB{roff(w)}\\fR" for w in base["enum"][1])
    if "refTable" in base:
        return ("weak " if base.get("refType") == "weak" else "") + f"reference to \\fB{base['refTable']}\\fR"
    if "minInteger" in base:
        return f"integer from {number(base['minInteger'])} to {number(base['maxInteger'])}"
    return base["type"]


def type_text(column):
    t = column["type"]
    if isinstance(t, str):
        return t
    if "value" in t:
        return f"map of {base_text(t['key'])} to {base_text(t['value'])}"
    text = base_text(t["key"])
    if t.get("max", 1) == "unlimited" or t.get("max", 1) > 1:
        return f"set of {text}"
    return text if t.get("min", 1) else f"optional {text}"


def key_text(key):
    kind = key.get("type")
    if kind == "integer":
        unit = f"{key.get('unit')}, " if key.get("unit") else ""
        text = f"{unit}from {number(key.get('min'))} to {number(key.get('max'))}"
    elif kind == "enum":
        text = "one of " + ", ".join(f"\\fB{roff(w)}\\fR" for w in key.get("values").split())
    elif kind == "boolean":
        text = "\\fBtrue\\fR or \\fBfalse\\fR"
    else:
        text = {"octal": "octal number", "path": "absolute path", "cpus": "list of processors",
                "pairs": "list of pairs", "address": "IP address and port", "ips": "IP addresses"}.get(kind, "string")
    if key.get("default"):
        text += f"; default \\fB{roff(key.get('default'))}\\fR"
    if key.get("for"):
        text += f"; type {', '.join(roff(w) for w in key.get('for').split())}"
    return text


def paragraphs(element):
    ps = element.findall("p")
    return [inline(p) for p in ps] if ps else [inline(element)]


def print_man(ref, version):
    out = [f'.TH "WEIR\\-DB" "5" "" "Weir {version}" "Weir"', ".SH NAME",
           f"weir\\-db \\- the database {ref.root.get('name')}: schema of version {ref.schema['version']}", ".SH DESCRIPTION"]
    for p in paragraphs(ref.root):
        out += [p, ".PP"]
    out += ["The tables:", ".PP"]
    for table, element in ref.tables.items():
        out += [".TP", f"\\fB{roff(table)}\\fR", paragraphs(element)[0].split(". ")[0].rstrip(".")]
    for table, element in ref.tables.items():
        inside = ref.schema["tables"][table]["columns"]
        out += [f".SH TABLE {roff(table)}"]
        for p in paragraphs(element):
            out += [p, ".PP"]
        for name, column in ref.columns(table).items():
            out += [".TP", f"\\fB{roff(name)}\\fR: {type_text(inside[name])}"]
            for i, p in enumerate(paragraphs(column)):
                out += ([".IP"] if i else []) + [p]
            for key in column.findall("key"):
                out += [".RS", ".TP", f"\\fB{roff(name)} : {roff(key.get('name'))}\\fR: {key_text(key)}", inline(key), ".RE"]
    out += [".SH SEE ALSO", ".BR weir\\-vswitchd (8),", ".BR weirctl (8),", ".BR ovsdb\\-server (1),",
            ".BR ovsdb\\-client (1)"]
    print("\n".join(out))


def main(argv):
    if len(argv) < 4 or argv[1] not in ("man", "keys", "check"):
        sys.exit(__doc__)
    ref = Reference(argv[2], argv[3])
    if argv[1] == "check":
        found = list(problems(ref, argv[4:]))
        for line in found:
            print(line, file=sys.stderr)
        sys.exit(1 if found else 0)
    elif argv[1] == "keys":
        print_keys(ref)
    else:
        print_man(ref, argv[4])


if __name__ == "__main__":
    main(sys.argv)
