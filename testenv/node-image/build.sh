# The node image: the contract of kindest/node, made from Debian packages.
# shellcheck shell=bash

NODE_BUILDER=kindnet-node-image-build

node_recipe() {
  local image recipes=()
  for image in $(control_plane_images); do
    recipes+=("$(component_recipe "$image")")
  done
  recipe_hash "$TESTENV_DIR/node-image" "$(basename "$(kubernetes_dir)")" \
    "$(basename "$(tool_binary crictl)")" "$(rootfs_recipe "${NODE_PACKAGES[@]}")" "${recipes[@]}"
}

# The layer with our files and the Kubernetes binaries.
build_node_files() {
  local image=$1 recipe=$2 dir
  dir=$(mktemp -d)
  cp -a "$TESTENV_DIR/node-image/rootfs" "$dir/tree"
  sed -i "s|@SANDBOX_IMAGE@|$KUBERNETES_REGISTRY/pause:$PAUSE_TAG|" "$dir/tree/etc/containerd/config.toml"
  printf '%s\n' "$KUBERNETES_VERSION" >"$dir/tree/kind/version"
  mkdir -p "$dir/tree/usr/bin"
  install -m 0755 "$(kubernetes_dir)"/bin/{kubeadm,kubelet,kubectl} "$dir/tree/usr/bin/"
  install -m 0755 "$(tool_binary crictl)" "$dir/tree/usr/local/bin/crictl"
  install -m 0755 "$TESTENV_DIR/node-image/setup.sh" "$dir/setup.sh"
  cat >"$dir/Dockerfile" <<DOCKERFILE
FROM $NODE_BASE_IMAGE
COPY tree/ /
COPY setup.sh /kind/setup.sh
RUN /kind/setup.sh && rm /kind/setup.sh
ENV container=docker HTTP_PROXY= HTTPS_PROXY= NO_PROXY=
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
CMD []
DOCKERFILE
  build_context_image "$image" "$recipe" "$dir"
  rm -rf "$dir"
}

# Put the images kubeadm wants into the node's containerd, not unpacked: that
# happens on first use and the image stays half the size.
preload_node_images() {
  local from=$1 to=$2
  docker rm -f -v "$NODE_BUILDER" >/dev/null 2>&1 || true
  docker run -d --name "$NODE_BUILDER" --privileged --network none \
    --entrypoint sleep "$from" infinity
  docker exec -d "$NODE_BUILDER" containerd
  retry 10 docker exec "$NODE_BUILDER" ctr version
  # shellcheck disable=SC2046  # names without spaces
  docker save $(control_plane_images) |
    docker exec -i "$NODE_BUILDER" ctr -n k8s.io images import --no-unpack -
  docker exec "$NODE_BUILDER" ctr -n k8s.io images list -q
  docker exec "$NODE_BUILDER" sh -c '
    kill "$(pidof containerd)" && while pidof containerd >/dev/null; do sleep 0.1; done
    rm -rf /run/containerd /var/lib/containerd/tmpmounts'
  docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' \
    --change 'CMD []' "$NODE_BUILDER" "$to"
  docker rm -f -v "$NODE_BUILDER"
}

build_node_image() {
  local files=kindnet/node-files:$KUBERNETES_VERSION
  build_node_files "$files" "$1"
  # The commit keeps the label, so the final name only ever means a whole image.
  preload_node_images "$files" "$NODE_IMAGE"
  docker image rm "$files"
}

prepare_node_image() {
  local recipe
  recipe=$(node_recipe)
  if image_is_current "$NODE_IMAGE" "$recipe"; then
    report_step cached "image $NODE_IMAGE" 0.0
  else
    step "image $NODE_IMAGE" build_node_image "$recipe"
  fi
}
