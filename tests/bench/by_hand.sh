#!/usr/bin/env bash
# The peer of site.yml: the procedure of a team without it, one node after the other over plain ssh, as people
# write it down (apt, host names, /etc/hosts, keys by ssh-copy-id, Miniconda, environment, one all-reduce).
# It checks nothing, as they do not. Prints "step<TAB>seconds" for bench_provisioning.py.
#
# Usage: by_hand.sh STATE_FOLDER MIRROR_URL ENVS_FOLDER NAME=ADDRESS...
set -euo pipefail
state=$1 mirror=$2 envs=$3
shift 3
nodes=("$@")
host=${mirror#http://} host=${host%%:*}

on() { # on NODE COMMAND: as root, over ssh
  ssh -n -i "$state/ssh_key" -o UserKnownHostsFile="$state/known_hosts" -o StrictHostKeyChecking=yes \
    -o BatchMode=yes "root@${1#*=}" "$2"
}
to() { # to NODE FILE FOLDER
  scp -q -i "$state/ssh_key" -o UserKnownHostsFile="$state/known_hosts" -o StrictHostKeyChecking=yes \
    -o BatchMode=yes "$2" "root@${1#*=}:$3"
}
on_each() { # one node after the other
  for node in "${nodes[@]}"; do on "$node" "$1"; done
}
step() { # step NAME FUNCTION: times it
  local started=$EPOCHREALTIME
  "$2" >&2
  printf '%s\t%.1f\n' "$1" "$(awk "BEGIN { print $EPOCHREALTIME - $started }")"
}

host_names() {
  for node in "${nodes[@]}"; do
    on "$node" "hostnamectl set-hostname ${node%=*}"
    for other in "${nodes[@]}"; do on "$node" "echo '${other#*=} ${other%=*}' >>/etc/hosts"; done
  done
}
ssh_trust() {
  on_each "test -f ~/.ssh/id_rsa || ssh-keygen -q -t rsa -N '' -f ~/.ssh/id_rsa"
  for node in "${nodes[@]}"; do
    key=$(on "$node" "cat ~/.ssh/id_rsa.pub")
    for other in "${nodes[@]}"; do
      on "$other" "echo '$key' >>~/.ssh/authorized_keys"
      on "$node" "ssh-keyscan -t ed25519 ${other%=*} ${other#*=} >>~/.ssh/known_hosts 2>/dev/null"
    done
  done
}
base_packages() {
  on_each "rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
    echo 'deb [trusted=yes] $mirror/apt ./' >/etc/apt/sources.list
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends git curl wget tmux htop \
      ncdu unzip build-essential rsync pdsh ninja-build chrony"
}
data_disk() {
  on_each "mkfs.ext4 -q /dev/vdb && mkdir -p /data && mount /dev/vdb /data && echo '/dev/vdb /data ext4 defaults 0 2' >>/etc/fstab"
}
miniconda() {
  on_each "cd /data && curl -fsSO $mirror/miniconda/current.sh && sh current.sh -b -p /data/miniconda3 && rm current.sh &&
    /data/miniconda3/bin/conda init bash"
}
conda_env() {
  for node in "${nodes[@]}"; do
    to "$node" "$envs/llm/wheels-cpu.lock" /data/
    on "$node" "/data/miniconda3/bin/conda create -y -q -n llm --override-channels -c $mirror/conda python=3.11 pip &&
      /data/miniconda3/envs/llm/bin/pip install -q --index-url $mirror/wheels/llm/simple --trusted-host $host \
        -r /data/wheels-cpu.lock && echo 'conda activate llm' >>~/.bashrc"
  done
}
all_reduce() {
  local size=${#nodes[@]} rank=0 pids=()
  cat >"$state/all_reduce.py" <<'PYTHON'
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
one = torch.ones(1)
dist.all_reduce(one)
print(dist.get_rank(), one.item())
PYTHON
  for node in "${nodes[@]}"; do to "$node" "$state/all_reduce.py" /data/; done
  for node in "${nodes[@]}"; do
    on "$node" "GLOO_SOCKET_IFNAME=eth0 MASTER_ADDR=${nodes[0]#*=} MASTER_PORT=29500 RANK=$rank WORLD_SIZE=$size \
      /data/miniconda3/envs/llm/bin/python /data/all_reduce.py" &
    pids+=($!)
    rank=$((rank + 1))
  done
  wait "${pids[@]}"
}

step host_names host_names
step ssh_trust ssh_trust
step base_packages base_packages
step data_disk data_disk
step miniconda miniconda
step conda_env conda_env
step smoke_test all_reduce
