#!/bin/bash
# Runs once in the image being built: turns a Debian root file system with the
# files of rootfs/ and the binaries on top into a node.
set -euo pipefail

# What a container must not start: devices, consoles and the clock are the host's.
find /usr/lib/systemd/system /etc/systemd/system -name '*.wants' -type d |
  while read -r folder; do
    rm -f "$folder"/{systemd-udev*,systemd-tmpfiles-setup.service,systemd-tmpfiles-setup-dev.service} \
      "$folder"/{getty@*,getty.target,systemd-modules-load.service,systemd-firstboot.service} \
      "$folder"/{dev-hugepages.mount,sys-kernel-*.mount,sys-fs-fuse-connections.mount} \
      "$folder"/{systemd-update-utmp*,apt-daily*,dpkg-db-backup.timer,e2scrub*,fstrim.timer}
  done
systemctl set-default multi-user.target
systemctl mask getty.target console-getty.service systemd-udevd.service
systemctl enable containerd.service kubelet.service
# Owned by the container, bind-mounted by the engine.
ln -sf /dev/null /etc/systemd/system/systemd-hostnamed.service

# Only these four: whatever else a CNI needs it has to bring along.
mkdir -p /opt/cni/bin /etc/cni/net.d /etc/containerd/certs.d /var/run/nri
install -m 0755 /usr/lib/cni/{host-local,loopback,portmap,ptp} /opt/cni/bin/
rm -rf /usr/lib/cni

for program in containerd ctr containerd-shim-runc-v2; do
  ln -sf "/usr/bin/$program" "/usr/local/bin/$program"
done
ln -sf /usr/sbin/runc /usr/local/sbin/runc

ctr oci spec |
  jq '.hooks.createContainer += [{ path: "/kind/bin/mount-product-files.sh" }] | del(.process.rlimits)' \
    >/etc/containerd/cri-base.json

kubelet --version
