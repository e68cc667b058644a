#!/bin/sh
# Builds the part of Open vSwitch's library that Weir uses (database client, control socket, log, poll loop)
# from Debian's package openvswitch-source: configure, a few generated headers, then only the objects below.
#
# usage: build.sh TARBALL WORKDIR LIBRARY HEADER
#   WORKDIR   is emptied; the headers stay there, the library's users read them
#   LIBRARY   the static library to write
#   HEADER    a header that includes Open vSwitch's config.h, which has to come before any other header of it. Users
#             depend on it in the build, so that they are compiled when all headers are there.
set -eu
tarball=$1 work=$2 library=$3 header=$4

# What the roots ovsdb-idl, unixctl, vlog, daemon, stream-ssl, table, db-ctl-base, process, dirs, command-line and
# poll-loop need, transitively. A missing object shows as an undefined symbol when a program is linked.
objects='
aes128 async-append-aio backtrace byteq command-line coverage crc32c csum daemon daemon-unix db-ctl-base dirs
dns-resolve-stub dp-packet dynamic-string entropy fatal-signal guarded-list hash hmap json jsonrpc latch-unix
lockfile ofpbuf ovs-rcu ovs-replay ovs-thread ovsdb-condition ovsdb-cs ovsdb-data ovsdb-error ovsdb-idl
ovsdb-map-op ovsdb-parser ovsdb-session ovsdb-set-op ovsdb-types packets poll-loop process random reconnect seq
sha1 shash signals simap skiplist smap socket-util socket-util-unix sort sset stream stream-fd stream-replay
stream-tcp stream-unix svec syslog-direct syslog-libc syslog-null table timeval token-bucket unicode unixctl util
uuid vlog
'

# The surrounding build may be Clang's, a sanitizer's or make's: none of that is meant for this library.
unset CC CFLAGS CPPFLAGS LDFLAGS MAKEFLAGS MAKELEVEL DESTDIR || true
jobs=$(nproc)

rm -rf "$work"
mkdir -p "$work"
log=$work/build.log
run() {
	if ! "$@" >>"$log" 2>&1; then
		tail -n 30 "$log" >&2
		echo "build.sh: '$*' failed; all of its output is in $log" >&2
		exit 1
	fi
}

tar -xzf "$tarball" -C "$work" --strip-components=1
absolute() { echo "$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"; }
library=$(absolute "$library") header=$(absolute "$header") work=$(absolute "$work")
log=$work/build.log
cd "$work"
# libunbound and libunwind would only add to what the daemon loads.
run ./configure CC=gcc CFLAGS='-O2 -g -w' --disable-shared --disable-afxdp --disable-libcapng \
	--disable-dependency-tracking ac_cv_lib_unbound_ub_ctx_create=no ac_cv_lib_unwind_unw_backtrace=no \
	PYTHON3=/usr/bin/python3
if grep -q '^#define HAVE_OPENSSL 1' config.h; then
	objects="$objects stream-ssl"
else
	objects="$objects stream-nossl"
fi
# Jansson, which the same programs link, has functions of these names: theirs get another for the linker. Every source
# file, and every user of the headers, includes config.h first.
for symbol in json_array json_equal json_integer json_object json_real json_string; do
	echo "#define $symbol ovs_$symbol"
done >>config.h
run make include/odp-netlink.h include/odp-netlink-macros.h lib/ovsdb-server-idl.h lib/vswitch-idl.h lib/dirs.c
set --
for object in $objects; do
	set -- "$@" "lib/$object.lo"
done
run make -j"$jobs" "$@"

set --
for object in $objects; do
	set -- "$@" "lib/$object.o"
done
rm -f "$library"
run ar crs "$library" "$@"
cat >"$header" <<EOF
// Made by build.sh: comes before any other header of Open vSwitch's.
#ifndef WEIR_OPENVSWITCH_H
#define WEIR_OPENVSWITCH_H
#include "$work/config.h"
#endif
EOF
