# Debian root file systems as image layers, for machines without a registry.
# shellcheck shell=bash

NODE_PACKAGES=(systemd systemd-sysv dbus bash ca-certificates conntrack containerd
  containernetworking-plugins curl e2fsprogs ebtables ethtool iproute2 iptables jq
  kmod libseccomp2 mount nftables pigz procps rsync runc socat util-linux)

BASE_PACKAGES=(iptables nftables conntrack kmod iproute2 ca-certificates)

# rootfs_recipe PACKAGE...: names the archive for that list of packages.
rootfs_recipe() {
  printf '%s-%s\n' "$DEBIAN_SUITE" "$(recipe_hash "$TESTENV_DIR/images/debootstrap.sh" "$@")"
}

rootfs_archive() { printf '%s/rootfs/%s.tar.gz\n' "$KINDNET_CACHE" "$(rootfs_recipe "$@")"; }

build_rootfs() {
  local archive dir mirror packages
  archive=$(rootfs_archive "$@")
  dir=$archive.dir
  mirror=$(debian_mirror)
  packages=$(IFS=,; printf '%s' "$*")
  rm -rf "$dir"
  mkdir -p "$dir" "$KINDNET_CACHE/debootstrap"
  debootstrap --variant=minbase --include="$packages" \
    --cache-dir="$KINDNET_CACHE/debootstrap" "$DEBIAN_SUITE" "$dir" "$mirror"
  rm -rf "$dir"/var/cache/apt/archives/*.deb "$dir"/var/lib/apt/lists/* \
    "$dir"/usr/share/{doc,man,info,locale,lintian}/* "$dir"/var/log/*.log
  # The device nodes are the container runtime's business.
  rm -rf "${dir:?}/dev" && mkdir "$dir/dev"
  : >"$dir/etc/machine-id"
  rm -f "$dir/etc/hostname" "$dir/etc/resolv.conf"
  tar -C "$dir" --numeric-owner -cf - . | gzip -1 >"$archive.tmp"
  rm -rf "$dir"
  mv "$archive.tmp" "$archive"
  keep_newest 4 "$KINDNET_CACHE/rootfs"
}

# rootfs_image IMAGE PACKAGE...: import the archive under that name.
rootfs_image() {
  local image=$1
  shift
  docker import --change "LABEL $RECIPE_LABEL=$(rootfs_recipe "$@")" \
    --change "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    --change 'CMD ["bash"]' "$(rootfs_archive "$@")" "$image"
}

# prepare_rootfs_image TITLE IMAGE PACKAGE...
prepare_rootfs_image() {
  local title=$1 image=$2
  shift 2
  if image_is_current "$image" "$(rootfs_recipe "$@")"; then
    report_step cached "$title" 0.0
    return 0
  fi
  cached_step "$title: debootstrap" "$(rootfs_archive "$@")" build_rootfs "$@"
  step "$title: import" rootfs_image "$image" "$@"
}

NODE_BASE_IMAGE=kindnet/node-base:$DEBIAN_SUITE

prepare_node_base() { prepare_rootfs_image "node root file system" "$NODE_BASE_IMAGE" "${NODE_PACKAGES[@]}"; }

# What our own images build on, whatever debian:bookworm-slim may be here.
TESTENV_BASE_IMAGE=kindnet/base:$DEBIAN_SUITE

# A real debian:bookworm-slim pulled earlier keeps its name.
name_base_image() {
  docker_image_exists "$BASE_IMAGE" && [[ -z $(docker_image_label "$BASE_IMAGE" "$RECIPE_LABEL") ]] && return 0
  docker tag "$TESTENV_BASE_IMAGE" "$BASE_IMAGE"
}

prepare_base_image() {
  prepare_rootfs_image "base root file system" "$TESTENV_BASE_IMAGE" "${BASE_PACKAGES[@]}"
  name_base_image
}
