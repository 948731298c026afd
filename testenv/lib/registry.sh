# Can this machine's engine pull images?
# shellcheck shell=bash

# registry_reachable [IMAGE] [SECONDS]: asks the engine to look the image's
# manifest up, so that its own mirrors, proxies and credentials count, and
# nothing is pulled. True when the registry knows the image.
# shellcheck disable=SC2120  # both arguments have defaults
registry_reachable() {
  local image=${1:-$REGISTRY_NODE_IMAGE} seconds=${2:-4} status
  local host=${DOCKER_HOST:-unix:///var/run/docker.sock}
  local query=distribution/$image/json
  local target=(--unix-socket "${host#unix://}" "http://engine/$query")
  command -v curl >/dev/null || host=other
  case $host in
    unix://*) ;;
    tcp://*) target=("http://${host#tcp://}/$query") ;;
    *)
      # No socket or no curl to talk to it directly: let the client look instead.
      timeout "$seconds" docker manifest inspect "$image" >/dev/null 2>&1
      return
      ;;
  esac
  status=$(curl -s -o /dev/null -w '%{http_code}' -m "$seconds" "${target[@]}" 2>/dev/null) || true
  [[ $status == 200 ]]
}

# usable_node_image: what `--image` should be on this machine; the local image
# wins, since building it was a decision.
usable_node_image() {
  if docker_image_exists "$NODE_IMAGE"; then
    printf '%s\n' "$NODE_IMAGE"
  elif docker_image_exists "$REGISTRY_NODE_IMAGE" || registry_reachable; then # shellcheck disable=SC2119
    printf '%s\n' "$REGISTRY_NODE_IMAGE"
  else
    return 1
  fi
}
