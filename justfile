# Every habit has a name. Each recipe is one command that also works without just.

# List the recipes
default:
    @just --list

# A verified dual-stack cluster with kindnet in it
up *ARGS:
    testenv/quickstart {{ARGS}}

# Prove that the network of a cluster works
verify *ARGS:
    cargo run --release -p kindnetctl -- verify {{ARGS}}

# All tests, or some: just test unit, just test e2e -- dual::
test *ARGS:
    testenv/test {{ARGS}}

# Formatting, clippy, documentation, shell scripts
lint:
    testenv/test lint

# Licences, advisories and duplicate crates
deny:
    cargo deny check

# The kindnet image, from static programs
image *ARGS:
    manifests/image/build {{ARGS}}

# kindnetctl up beside kind create cluster, in one run
bench-up *ARGS:
    testenv/bench-up {{ARGS}}

# kindnet-cni beside ptp, host-local and portmap, in one run
bench-cni *ARGS:
    testenv/bench-cni {{ARGS}}
