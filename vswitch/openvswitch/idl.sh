#!/bin/sh
# Makes the C access functions (prefix weirrec_) for the schema, with the generator of Open vSwitch's sources.
#
# usage: idl.sh WORKDIR SCHEMA HEADER SOURCE      (WORKDIR as for build.sh)
set -eu
work=$1 schema=$2 header=$3 source=$4
annotated=$source.ovsidl
/usr/bin/python3 - "$schema" "$annotated" "$(basename "$header")" <<'EOF'
import json, sys
schema = json.load(open(sys.argv[1]))
schema["idlPrefix"] = "weirrec_"
schema["idlHeader"] = '"%s"' % sys.argv[3]
json.dump(schema, open(sys.argv[2], "w"))
EOF
idlc() { PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$work/python" /usr/bin/python3 "$work/ovsdb/ovsdb-idlc.in" "$1" "$annotated"; }
# The source doesn't include config.h by itself.
{ echo '#include "openvswitch.h"'; idlc c-idl-header; } >"$header"
{ echo '#include "openvswitch.h"'; idlc c-idl-source | sed '/#include <config.h>/d'; } >"$source"
