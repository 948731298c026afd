# The images kubeadm asks for, under the exact names it asks for.
# shellcheck shell=bash

SCRATCH_COMPONENTS=(kube-apiserver kube-controller-manager kube-scheduler)
IMAGE_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

component_image() { printf '%s/%s\n' "$KUBERNETES_REGISTRY" "$1"; }

control_plane_images() {
  local component
  for component in "${SCRATCH_COMPONENTS[@]}" kube-proxy; do
    component_image "$component:$KUBERNETES_VERSION"
  done
  component_image "pause:$PAUSE_TAG"
  component_image "etcd:$ETCD_TAG"
  component_image "coredns:$COREDNS_TAG"
}

image_recipe() { recipe_hash "$TESTENV_DIR/images/control-plane.sh" "$@"; }

# import_tree IMAGE RECIPE ENTRYPOINT DIR: an image that is just those files.
import_tree() {
  tar -C "$4" --owner=0 --group=0 --numeric-owner -cf - . |
    docker import --change "LABEL $RECIPE_LABEL=$2" --change "ENV PATH=$IMAGE_PATH" \
      --change "ENTRYPOINT [\"$3\"]" - "$1"
}

# import_static IMAGE RECIPE BINARY TARGET: a static binary and nothing else.
import_static() {
  local dir
  dir=$(mktemp -d)
  mkdir -p "$dir$(dirname "$4")" "$dir/tmp" "$dir/etc"
  chmod 1777 "$dir/tmp"
  printf 'root:x:0:0:root:/:/\n' >"$dir/etc/passwd"
  install -m 0755 "$3" "$dir$4"
  import_tree "$1" "$2" "$4" "$dir"
  rm -rf "$dir"
}

# build_context_image IMAGE RECIPE DIR: a Dockerfile build without any registry.
build_context_image() {
  DOCKER_BUILDKIT=0 docker build -q --label "$RECIPE_LABEL=$2" -t "$1" "$3"
}

build_pause() {
  local dir
  dir=$(mktemp -d)
  gcc -Os -static -s -o "$dir/pause" "$TESTENV_DIR/images/pause.c"
  import_static "$1" "$2" "$dir/pause" /pause
  rm -rf "$dir"
}

# unpack_packages DIR PACKAGE...: files of Debian packages, nothing installed.
unpack_packages() {
  local dir=$1 debs package
  shift
  debs=$(mktemp -d)
  private_apt_update "$DEBIAN_SUITE"
  (cd "$debs" && retry 3 private_apt "$DEBIAN_SUITE" apt-get download "$@")
  mkdir -p "$dir"
  for package in "$debs"/*.deb; do
    dpkg -x "$package" "$dir"
  done
  rm -rf "$debs"
}

build_etcd() {
  local dir
  dir=$(mktemp -d)
  unpack_packages "$dir/files" etcd-server
  install -D "$dir/files/usr/bin/etcd" "$dir/etcd"
  rm -rf "$dir/files"
  printf 'FROM %s\nCOPY etcd /usr/local/bin/etcd\nENTRYPOINT []\nCMD ["etcd"]\n' \
    "$TESTENV_BASE_IMAGE" >"$dir/Dockerfile"
  build_context_image "$1" "$2" "$dir"
  rm -rf "$dir"
}

build_kube_proxy() {
  local dir
  dir=$(mktemp -d)
  # ipset is for the IPVS mode.
  unpack_packages "$dir/files" ipset libipset13
  mkdir -p "$dir/tree/usr/local/bin" "$dir/tree/usr/local/lib/kubernetes"
  cp -a "$dir/files/usr" "$dir/tree/"
  cp -a "$dir"/files/{sbin,lib}/. "$dir/tree/usr/local/lib/kubernetes/" 2>/dev/null || true
  rm -rf "$dir/tree/usr/share"
  install -m 0755 "$TESTENV_DIR/images/kube-proxy" "$dir/tree/usr/local/bin/kube-proxy"
  install -m 0755 "$(kubernetes_dir)/bin/kube-proxy" "$dir/tree/usr/local/lib/kubernetes/kube-proxy"
  printf 'FROM %s\nCOPY tree/ /\nRUN ldconfig\nENTRYPOINT []\nCMD ["kube-proxy"]\n' \
    "$TESTENV_BASE_IMAGE" >"$dir/Dockerfile"
  rm -rf "$dir/files"
  build_context_image "$1" "$2" "$dir"
  rm -rf "$dir"
}

# component_recipe IMAGE: the hash its label must carry to be up to date.
component_recipe() {
  local kubernetes base
  kubernetes=$(basename "$(kubernetes_dir)")
  base=$(rootfs_recipe "${BASE_PACKAGES[@]}")
  case $1 in
    */kube-proxy:*) image_recipe "$kubernetes" "$base" "$TESTENV_DIR/images/kube-proxy" ;;
    */pause:*) image_recipe "$TESTENV_DIR/images/pause.c" ;;
    */etcd:*) image_recipe "$base" etcd ;;
    */coredns:*) image_recipe "$(basename "$(tool_binary coredns)")" ;;
    *) image_recipe "$kubernetes" "$1" ;;
  esac
}

# build_component IMAGE RECIPE
build_component() {
  local name=${1##*/}
  name=${name%%:*}
  case $name in
    kube-proxy) build_kube_proxy "$1" "$2" ;;
    pause) build_pause "$1" "$2" ;;
    etcd) build_etcd "$1" "$2" ;;
    coredns) import_static "$1" "$2" "$(tool_binary coredns)" /coredns ;;
    *) import_static "$1" "$2" "$(kubernetes_dir)/bin/$name" "/usr/local/bin/$name" ;;
  esac
}

prepare_control_plane_images() {
  local image recipe
  for image in $(control_plane_images); do
    recipe=$(component_recipe "$image")
    if image_is_current "$image" "$recipe"; then
      report_step cached "image $image" 0.0
    else
      step "image $image" build_component "$image" "$recipe"
    fi
  done
}
