#!/usr/bin/env bash
# A real Slurm of two nodes, n1 and n2, on the loopback addresses of this machine, for the tests:
#   slurm.sh up DIR [--install]    starts it and prints the variable that commands need
#   slurm.sh kill NODE DIR         ends a node with all that runs on it, as a power failure does
#   slurm.sh node NODE DIR         starts a node again
#   slurm.sh down DIR              stops all
# Needs root and Debian's slurm-wlm and munge; --install installs them.
set -euo pipefail
what=$1
shift

dir() { D=$(realpath -m "$1"); export SLURM_CONF=$D/slurm.conf; }

# Whether a process belongs to this Slurm, and to a node if one is given.
has() {
  local variables
  variables=$(tr '\0' '\n' 2>/dev/null <"/proc/$1/environ") || return 1
  grep -qxF "SLURM_CONF=$D/slurm.conf" <<<"$variables" || return 1
  [ -z "${2:-}" ] || grep -qxF "SLURMD_NODENAME=$2" <<<"$variables"
}

# The daemon of a node, what supervises the jobs there, and the processes of these jobs.
of_node() {
  local pid job
  cat "$D/run/slurmd-$1.pid" 2>/dev/null || true
  for job in $(squeue --noheader --nodelist "$1" --states all --format %A 2>/dev/null); do
    for pid in $(pgrep -f "^slurmstepd: \[$job\."); do
      has "$pid" && echo "$pid" || true
    done
  done
  for pid in $(cd /proc && echo [0-9]*); do
    has "$pid" "$1" && echo "$pid" || true
  done
}

case $what in
up)
  dir "$1"
  if [ "${2:-}" = --install ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends slurm-wlm munge
  fi
  for program in slurmctld slurmd munged; do
    command -v "$program" >/dev/null || { echo "$program is missing: slurm.sh up DIR --install" >&2; exit 3; }
  done
  mkdir -p "$D"/{state,spool-n1,spool-n2,log,run,munge}
  chmod 700 "$D/munge"
  dd if=/dev/urandom bs=1024 count=1 of="$D/munge/munge.key" status=none
  chmod 400 "$D/munge/munge.key"
  host=$(hostname -s)
  # The ports are free ones, so that another Slurm of this machine is not disturbed.
  read -r control first second < <(python3 -c '
import socket
found = [socket.socket() for _ in range(3)]
[s.bind(("127.0.0.1", 0)) for s in found]
print(*(s.getsockname()[1] for s in found))')
  cat >"$D/slurm.conf" <<C
ClusterName=loop
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$D/run/munge.sock
CryptoType=crypto/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool-%n
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmdPidFile=$D/run/slurmd-%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd-%n.log
SlurmctldPort=$control
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
ReturnToService=2
MpiDefault=none
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=20
MinJobAge=600
JobRequeue=1
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$first CPUs=1 RealMemory=4000
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$second CPUs=1 RealMemory=4000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 State=UP
C
  munged --force --key-file="$D/munge/munge.key" --socket="$D/run/munge.sock" \
    --pid-file="$D/run/munged.pid" --log-file="$D/log/munged.log" --seed-file="$D/munge/seed" \
    2>/dev/null
  slurmctld -i 2>/dev/null
  slurmd -N n1
  slurmd -N n2
  for _ in $(seq 120); do
    [ "$(sinfo -h -N -o %T 2>/dev/null | grep -c idle)" = 2 ] && break
    sleep 0.5
  done
  [ "$(sinfo -h -N -o %T | grep -c idle)" = 2 ] || { echo "The nodes do not come up: $D/log" >&2; exit 1; }
  echo "export SLURM_CONF=$D/slurm.conf"
  ;;
kill)
  dir "$2"
  for pid in $(of_node "$1"); do kill -KILL "$pid" 2>/dev/null || true; done
  ;;
node)
  dir "$2"
  slurmd -N "$1"
  ;;
down)
  dir "$1"
  for node in n1 n2; do
    for pid in $(of_node "$node"); do kill -KILL "$pid" 2>/dev/null || true; done
  done
  for daemon in slurmctld munged; do
    [ ! -f "$D/run/$daemon.pid" ] || kill "$(cat "$D/run/$daemon.pid")" 2>/dev/null || true
  done
  ;;
*)
  sed -n '2,7p' "$0" >&2
  exit 2
  ;;
esac
