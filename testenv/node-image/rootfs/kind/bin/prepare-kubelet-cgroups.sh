#!/bin/sh
# Make the cgroups the kubelet is told to live under (cgroupRoot: /kubelet).
set -eu
root=/sys/fs/cgroup

if [ "$(stat -f -c %T "$root")" = cgroup2fs ]; then
  # A cgroup with processes of its own cannot hand controllers to its children.
  [ -z "$(cat "$root/cgroup.procs" 2>/dev/null)" ] || {
    echo "the root cgroup still has processes" >&2
    exit 1
  }
  for folder in "$root" "$root/kubelet" "$root/kubelet.slice"; do
    mkdir -p "$folder"
    # shellcheck disable=SC2013  # one line of words
    for controller in $(cat "$folder/cgroup.controllers"); do
      echo "+$controller" >"$folder/cgroup.subtree_control" || true
    done
  done
  exit 0
fi

for hierarchy in "$root"/*/; do
  [ -e "$hierarchy/cgroup.procs" ] || continue
  for name in kubelet kubelet.slice; do
    mkdir -p "$hierarchy/$name"
    # Nobody can enter a new cpuset before these are filled in.
    for key in cpuset.cpus cpuset.mems; do
      [ -e "$hierarchy/$key" ] || continue
      [ -n "$(cat "$hierarchy/$name/$key")" ] || cat "$hierarchy/$key" >"$hierarchy/$name/$key"
    done
  done
done
