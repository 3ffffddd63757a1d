#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes and removes single local nodes; the role and terraform/local both call it, the latter once a node and several at once.
#   node.sh make NODE ADDRESS [IMAGE] a container of this name and address, made anew if there is one; default: the image that state=prepared made
#   node.sh await NODE ADDRESS        returns when its SSH server answers
#   node.sh remove NODE...            no container, volume and host key of these names is left
#   node.sh sweep                     nothing of the whole site is left
# Prints a line for everything that it made or removed.
# LOCAL_NODES_PREFIX begins all names, LOCAL_NODES_FOLDER is the site's folder. make also knows LOCAL_NODES_OPEN_FILES and
# LOCAL_NODES_PROCESSES (limits, lowered to this machine's own) and LOCAL_NODES_GENERATION (how often the node was lost and made again).
set -euo pipefail
verb=${1-}
[ $# -eq 0 ] || shift
case $verb:$# in
make:[23] | await:2 | remove:[1-9]* | sweep:0) ;;
*)
  sed -n '/^#   /s/^#   //p' "$0" >&2
  exit 2
  ;;
esac
prefix=$LOCAL_NODES_PREFIX
keys=$LOCAL_NODES_FOLDER/credentials/ssh
records=$LOCAL_NODES_FOLDER/state/local_nodes

# A run that was killed may have left a script like this one behind, still at work on the same node.
lock() {
  mkdir -p "$records"
  exec {lock}>"$records/$1.lock"
  flock --wait 60 "$lock" || fail "another run has been at work on node $1 for a minute; end it and run again"
}

fail() {
  echo "$*" >&2
  exit 1
}

# A node that ends by itself in the moment it is stopped is an error to podman, and gone at the next try.
remove_containers() {
  local try
  for try in 1 2 3; do
    if podman rm --force --ignore --volumes --time 2 "$@" 2>"$log"; then return; fi
    sleep "$try"
  done
  fail "podman could not remove $*: $(tail -n 3 "$log")"
}

remove_volumes() {
  local name
  podman volume rm --force "$@" 2>"$log" || grep -v 'no such volume' "$log" >&2 || true
  for name in "$@"; do
    if podman volume exists "$name"; then fail "podman could not remove the volume $name"; fi
  done
}

remove() {
  local name names=("${@/#/$prefix-}")
  remove_containers "${names[@]}"
  remove_volumes "${names[@]}"
  for name in "$@"; do rm -f "$keys/nodes/$name" "$keys/nodes/$name.pub"; done
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

case $verb in
make)
  node=$1 address=$2 image=${3:-$(cat "$records/.image")} name=$prefix-$1
  lock "$node"
  podman network exists "$prefix" || fail "the site's network $prefix is gone; run playbooks/local_nodes.yml, or tofu apply -replace=terraform_data.ready"
  podman image exists "$image" || fail "the node image $image is gone; run playbooks/local_nodes.yml, or tofu apply -replace=terraform_data.ready"
  remove_containers "$name" >"$log"
  remove_volumes "$name" >"$log"
  (umask 077 && mkdir -p "$keys/nodes")
  [ -e "$keys/nodes/$node" ] || ssh-keygen -q -t ed25519 -N "" -C "$node" -f "$keys/nodes/$node"

  # Where even root may not raise limits, asking for more than this machine's own hard ones keeps a container from starting.
  read -r files processes < <(prlimit --noheadings --output HARD --nofile --nproc | sed 's/unlimited/1048576/' | xargs)
  least() { printf '%s\n' "$@" | sort -n | head -n 1; }
  files=$(least "$files" "${LOCAL_NODES_OPEN_FILES:-1048576}")
  processes=$(least "$processes" "${LOCAL_NODES_PROCESSES:-1048576}" "$(cat /proc/sys/kernel/pid_max)")
  # On cgroup v1, podman's systemd mode gives every node the whole machine's systemd hierarchy, and their systemds remove each other's groups;
  # on v2 it is what makes the node's own hierarchy writable.
  systemd=false
  [ ! -e /sys/fs/cgroup/cgroup.controllers ] || systemd=always

  # /var/lib is a volume because the overlay file systems of containers and images do not stack on a node's own overlay.
  # A reboot ends the container's init by a signal, and podman starts it again; one that was killed or stopped stays away.
  # The lock is not the container's to hold.
  podman --runtime runc run --detach --restart on-failure --name "$name" --hostname "$node" \
    --label "ashlar_site=$prefix" --label "ashlar_node=$node" --label "ashlar_address=$address" \
    --network "$prefix" --network-alias "$node" --ip "$address" --no-hosts \
    --privileged --cgroupns private --systemd "$systemd" --pids-limit -1 \
    --ulimit "nofile=$files:$files" --ulimit "nproc=$processes:$processes" \
    --tmpfs /run:rw,mode=755,size=256m,exec --tmpfs /run/lock:rw --tmpfs /tmp:rw,mode=1777 \
    --volume "$name:/var/lib:dev,suid,exec" \
    --volume "$keys/nodes/$node:/etc/ssh/ssh_host_ed25519_key:ro" \
    --volume "$keys/id_ed25519.pub:/root/.ssh/authorized_keys:ro" \
    "$image" >"$log" {lock}>&-
  # What terraform/local reads of it: the container's id, and a file that lies there as long as the container does.
  podman inspect --format "{\"id\": \"{{.Id}}\", \"witness\": \"{{.OCIConfigPath}}\", \"generation\": ${LOCAL_NODES_GENERATION:-0}}" "$name" >"$records/$node.new"
  mv "$records/$node.new" "$records/$node"
  echo "made $name"
  ;;

await)
  node=$1 address=$2
  # shellcheck disable=SC2016
  for _ in $(seq 120); do
    if timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/22" && read -r -t 1 banner <&3 && [[ $banner == SSH-* ]]' "$address" 2>/dev/null; then exit 0; fi
    sleep 0.5
  done
  fail "node $node did not answer by SSH within a minute; see: podman exec $prefix-$node journalctl -b"
  ;;

remove)
  for node in "$@"; do lock "$node"; done
  remove "$@"
  ;;

sweep)
  mapfile -t nodes < <(podman ps --all --filter "label=ashlar_site=$prefix" --format '{{.Labels.ashlar_node}}')
  [ ${#nodes[@]} -eq 0 ] || remove "${nodes[@]}"
  mapfile -t volumes < <(podman volume ls --quiet --filter "name=^$prefix-")
  [ ${#volumes[@]} -eq 0 ] || remove_volumes "${volumes[@]}"
  if podman network exists "$prefix"; then podman network rm "$prefix"; fi
  for folder in "$keys" "$records"; do
    [ ! -e "$folder" ] || { rm -rf "$folder" && echo "removed $folder"; }
  done
  ;;
esac
