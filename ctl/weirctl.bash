# bash completion for weirctl(8). What there is comes from weirctl itself, names from the database.

# The names of the noun's rows in the database that the line is about. Uses `words` of _weirctl().
_weirctl_names() {
	local i connection=()
	for ((i = 1; i < ${#words[@]} - 1; i++)); do
		case ${words[i]} in
		--db | --host) connection+=("${words[i]}" "${words[i + 1]}") ;;
		--db=* | --host=*) connection+=("${words[i]}") ;;
		esac
	done
	"$program" --timeout 1 "${connection[@]}" --names "$1" 2>/dev/null
}

_weirctl() {
	local program=${COMP_WORDS[0]} words=() said=() list=() table cur prev='' noun verb i raw glue='' skip=''
	# bash cuts words up at : and =. Together again, unless there is a space before the cursor.
	for ((i = 0; i <= COMP_CWORD; i++)); do
		raw=${COMP_WORDS[i]}
		if ((i == COMP_CWORD)) && [[ -z $raw && ${COMP_LINE:0:COMP_POINT} == *[[:space:]] ]]; then
			words+=("")
		elif ((${#words[@]})) && [[ $glue || $raw == [:=]* ]]; then
			words[${#words[@]} - 1]+=$raw
		else
			words+=("$raw")
		fi
		[[ $raw == *[:=] ]] && glue=1 || glue=
	done
	cur=${words[${#words[@]} - 1]}
	if [[ $cur == --*=* ]]; then
		prev=${cur%%=*} cur=${cur#*=}
	elif ((${#words[@]} > 1)); then
		prev=${words[${#words[@]} - 2]}
	fi

	# NOUN, VERB, arguments and options with tabs between, a line for each command.
	table=$("$program" --commands 2>/dev/null) || return 0
	# The words of the last command, without options and their values.
	for ((i = 1; i < ${#words[@]} - 1; i++)); do
		if [[ $skip ]]; then
			skip=
		elif [[ ${words[i]} == -- ]]; then
			said=()
		elif [[ ${words[i]} == -f ]]; then
			skip=1
		elif [[ ${words[i]} == --* ]]; then
			[[ ${words[i]} != *=* ]] && grep -q -e "${words[i]}=" <<<"$table" && skip=1
		elif [[ ${words[i]} != -* ]]; then
			said+=("${words[i]}")
		fi
	done
	noun=${said[0]-} verb=${said[1]-}

	case $prev in
	--network | --trunks) list=($(_weirctl_names network)) ;;
	--router) list=($(_weirctl_names router)) ;;
	--in-port) list=($(_weirctl_names router_port)) ;;
	--action) list=(lookup blackhole unreachable prohibit) ;;
	--src | --dst | --to) list=($(_weirctl_names port)) ;;
	--port) list=($(_weirctl_names port)) ;;
	--host) list=($(_weirctl_names host)) ;;
	--names) list=(port network host) ;;
	--sort) list=(packets bytes drops cycles latency name) ;;
	-f | --format) list=(table json) ;;
	--type) list=(vhost-user tap kernel dpdk) ;;
	--tunnel)
		[[ $noun == network ]] && list=(vxlan geneve gre)
		;;
	--mode) list=(client server) ;;
	--vlan-mode) list=(access trunk native-tagged native-untagged dot1q-tunnel) ;;
	--unknown-unicast) list=(flood drop) ;;
	--point) list=(rx tx drop stage:rule stage:storm stage:mtu) ;;
	--iface) list=($(command ls /sys/class/net)) ;;
	--logdir)
		COMPREPLY=($(compgen -d -- "$cur"))
		return 0
		;;
	--path | --ctl | --pcap | -o | -w)
		COMPREPLY=($(compgen -f -- "$cur"))
		return 0
		;;
	esac
	if ((${#list[@]})); then
		:
	elif [[ $cur == -* ]]; then
		list=($(awk -F '\t' -v n="$noun" -v v="$verb" '
			$1 == "" || ($1 == n && ($2 == v || $2 == "")) { print $4 }
			$1 != "" && $1 == n && ($2 == v || $2 == "") {
				while (match($3, /--[a-z-]+/)) {
					print substr($3, RSTART, RLENGTH)
					$3 = substr($3, RSTART + RLENGTH)
				}
			}' <<<"$table"))
	elif [[ -z $noun ]]; then
		list=($(awk -F '\t' '$1 != "" && !seen[$1]++ { print $1 }' <<<"$table"))
	elif [[ -z $verb ]] && awk -F '\t' -v n="$noun" '$1 == n && $2 != "" { f = 1 } END { exit !f }' <<<"$table"; then
		list=($(awk -F '\t' -v n="$noun" '$1 == n && $2 != "" { print $2 }' <<<"$table"))
	else
		case $noun/$verb/${#said[@]} in
		port/del/2 | port/set/2 | port/show/2 | port/latency/2 | port/cost/2) list=($(_weirctl_names port)) ;;
		network/del/2 | network/set/2 | network/show/2 | fdb/*/2 | group/*/2) list=($(_weirctl_names network)) ;;
		router/del/2 | router/set/2 | router/show/2 | route/*/2 | route-policy/*/2) list=($(_weirctl_names router)) ;;
		router-port/del/2 | router-port/set/2 | router-port/show/2) list=($(_weirctl_names router_port)) ;;
		route/add/[4-9]*) [[ ${said[-1]} == dev ]] && list=($(_weirctl_names router_port)) || list=(via dev weight blackhole unreachable prohibit) ;;
		worker/history/2) list=(clear) ;;
		class/del/2 | class/set/2 | class/show/2) list=($(_weirctl_names class)) ;;
		mirror/del/2 | mirror/set/2) list=($(_weirctl_names mirror)) ;;
		host/del/2 | host/set/2 | host/show/2) list=($(_weirctl_names host)) ;;
		fdb/add/4) list=($(_weirctl_names port)) ;;
		log/set/2) list=(all $("$program" --timeout 1 log list 2>/dev/null | awk 'NR > 1 { print $1 }')) ;;
		log/set/3) list=(off error warning info debug) ;;
		port/set/* | port/add/[3-9]*) list=($("$program" --columns | awk '$1 == "Port" { print $2 "=" }')) ;;
		network/set/* | network/add/[3-9]*) list=($("$program" --columns | awk '$1 == "Network" { print $2 "=" }')) ;;
		router/set/* | router/add/[3-9]*) list=($("$program" --columns | awk '$1 == "Router" { print $2 "=" }')) ;;
		router-port/set/* | router-port/add/[3-9]*) list=($("$program" --columns | awk '$1 == "Router_Port" { print $2 "=" }')) ;;
		class/set/* | class/add/[3-9]*) list=($("$program" --columns | awk '$1 == "Class" { print $2 "=" }')) ;;
		host/set/*) list=($("$program" --columns | awk '$1 == "Host" { print $2 "=" }')) ;;
		list//1 | find//1 | get//1 | set//1 | add//1 | remove//1 | clear//1 | create//1 | destroy//1 | wait-until//1)
			list=($("$program" --columns | cut -f1 | sort -u))
			;;
		list/*/2 | get/*/2 | set/*/2 | add/*/2 | remove/*/2 | clear/*/2 | destroy/*/2 | wait-until/*/2)
			list=($(_weirctl_names "$verb"))
			;;
		esac
	fi
	COMPREPLY=($(compgen -W "${list[*]}" -- "$cur"))
	# What is to be typed next belongs to the same word.
	if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
		compopt -o nospace 2>/dev/null
	fi
	return 0
}

complete -F _weirctl weirctl
