#!/usr/bin/env bash
# A Ray cluster of three nodes with one CPU each, on loopback addresses of this machine:
#   ray.sh up FOLDER    start it: 127.0.0.2:6479 is its address, FOLDER has its files
#   ray.sh kill N       end the node 127.0.0.N by SIGKILL, as if its machine had lost power
#   ray.sh down FOLDER  end it and remove its files
# Ray replaces 127.0.0.1 by the address of the network card, so that the nodes have other ones.
# $RAY is the command of Ray, by default the one on the path.
set -euo pipefail
RAY=${RAY:-ray}
export RAY_USAGE_STATS_ENABLED=0 RAY_DISABLE_DOCKER_CPU_WARNING=1
case $1 in
up)
	mkdir -p "$2"
	common=(--num-cpus 1 --num-gpus 0 --disable-usage-stats --object-store-memory 100000000)
	"$RAY" start --head --node-ip-address 127.0.0.2 --port 6479 --include-dashboard=false \
		--temp-dir "$(realpath "$2")" "${common[@]}" >/dev/null 2>&1
	for node in 3 4; do
		"$RAY" start --address 127.0.0.2:6479 --node-ip-address 127.0.0.$node "${common[@]}" \
			>/dev/null 2>&1
	done
	;;
kill)
	kill -9 $(pgrep -f -- "raylet/raylet .*--node_ip_address=127\.0\.0\.$2 ")
	;;
down)
	folder=$(realpath -m "$2")
	for process in $(pgrep -f -- "--session-dir=$folder/|session_dir=$folder/|--temp-dir=$folder" || true); do
		kill -9 "$process" 2>/dev/null || true
	done
	rm -rf "$folder"
	;;
esac
