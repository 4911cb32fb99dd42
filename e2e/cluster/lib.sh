# What the commands of this folder share: names, places, and how programs are built. Sourced, not run.
# shellcheck shell=bash
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/autonomy

KUBERNETES_VERSION=v1.35.4
HELM_VERSION=v3.21.3
KUBECONFORM_VERSION=v0.8.0
GLUA_VERSION=v1.1.2
KEDA_VERSION=v2.21.0
NETWORK_POLICIES_VERSION=v0.8.0
PAUSE_IMAGE=autonomy.cluster/pause:1
COREDNS_IMAGE=autonomy.cluster/coredns:1.15.0
METRICS_SERVER_IMAGE=autonomy.cluster/metrics-server:0.9.0
NETWORK_POLICIES_IMAGE=autonomy.cluster/kube-network-policies:$NETWORK_POLICIES_VERSION

DIR=${CLUSTER_DIR:-/var/lib/autonomy-cluster}
NETWORK=${CLUSTER_NETWORK:-10.97} # the first half of this /16 is for pods, the second for Services
NODE=autonomy
NODE_IP=$NETWORK.0.1
DNS_IP=$NETWORK.128.10
BRIDGE=autonomy0 # the pods' bridge; the node's own address is on it, so nothing depends on the machine's network
CGROUP=autonomy-cluster
CHAIN=AUTONOMY-CLUSTER
QUEUE=1097 # the number under which the kernel asks the network policies
# Folders outside DIR that kubelet, containerd and CNI make in fixed places, the deepest first.
FOLDERS=(/var/lib/kubelet /var/lib/cni/results /var/lib/cni /var/log/containers /run/containerd/s /run/containerd)

quietly() { "$root/scripts/quietly" "$@"; }
fail() { echo "cluster: $*" >&2; exit 1; }

# Everything a Go module is built from, its pinned sums included, names the folder it is built into.
built_folder() { echo "$cache/$1-$(cat "$here/$1"/go.mod "$here/$1"/go.sum "$here/$1"/*.go | cksum | cut -d' ' -f1)"; }

go_build() { # module's folder, package in it, output, link flags
  command -v go >/dev/null || fail "Go 1.26 or newer is missing: see https://go.dev/doc/install"
  mkdir -p "$(dirname "$3")"
  (cd "$1" && CGO_ENABLED=0 GOFLAGS=-mod=readonly quietly "building $(basename "$3") (once, some minutes)" \
    go build -trimpath -buildvcs=false -ldflags "-s -w ${4:-}" -o "$3.new" "$2" && mv "$3.new" "$3")
}

kubernetes() { # prints the folder of the Kubernetes programs, all links to one binary
  local folder version=k8s.io/component-base/version program
  folder=$(built_folder kubernetes)
  if [ ! -e "$folder/kubectl" ]; then
    [ -x "$folder/kubernetes" ] || go_build "$here/kubernetes" . "$folder/kubernetes" \
      "-X $version.gitVersion=$KUBERNETES_VERSION -X $version.gitMajor=1 -X $version.gitMinor=35"
    for program in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
      ln -sf kubernetes "$folder/$program"
    done
  fi
  echo "$folder"
}

go_module() { # module@version: prints its folder, where it builds with the very versions it was released with
  (cd / && go mod download -json "$1") | sed -n 's/.*"Dir": "\(.*\)",/\1/p'
}

go_program() { # module's folder here: prints the path of the one binary it makes
  local binary
  binary=$(built_folder "$1")/$1
  [ -x "$binary" ] || go_build "$here/$1" . "$binary"
  echo "$binary"
}

go_tool() { # name, package, version, link flags: prints the path of a tool at a pinned version
  local folder=$cache/$1-$3
  [ -x "$folder/$1" ] || GOBIN=$folder CGO_ENABLED=0 quietly "building $1 $3" \
    go install -trimpath -ldflags "-s -w ${4:-}" "$2@$3"
  echo "$folder/$1"
}

running() { # name: its process is alive and really ours, not a later one of the same number
  [ -s "$DIR/run/$1.program" ] &&
    [ "$( (tr '\0' '\n' <"/proc/$(cat "$DIR/run/$1.pid")/cmdline" | head -1) 2>/dev/null)" = "$(cat "$DIR/run/$1.program")" ]
}

# Each call may take CTR_PATIENCE seconds, or as long as it likes.
ctr() { timeout "${CTR_PATIENCE:-0}" ctr --address "$DIR/run/containerd.sock" --namespace k8s.io "$@"; }

image() { # name, Dockerfile, the one file in it: builds it beside that file and gives it to the cluster, unless done
  local tar
  tar=$(dirname "$3")/image.tar
  [ -e "$tar" ] || quietly "building the image $1" "$here/build-image" "$1" "$2" "$3" "$tar"
  ctr images ls -q | grep -qx "$1" || quietly "loading the image $1" "$here/load" "$tar"
}

install_packages() { # program:Debian package, of those that must be there
  local missing=() pair
  for pair; do
    command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail "missing: ${missing[*]}; or give a cluster by KUBECONFIG"
  quietly "reading the package lists" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive quietly "installing ${missing[*]}" \
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

render() { # puts our names in place of {NAME}
  local name script=
  for name in DIR NETWORK NODE NODE_IP DNS_IP BRIDGE CGROUP CNI_BIN PAUSE_IMAGE COREDNS_IMAGE METRICS_SERVER_IMAGE \
    NETWORK_POLICIES_IMAGE KEDA_VERSION FORWARD MASQUERADE_ALL VOLUME QUEUE; do
    script+="s|{$name}|${!name:-}|g;"
  done
  sed "$script"
}

rules() { # table, chains they hang in, our rules: a chain of ours, made once for the table
  local table=$1 parents=$2 parent rule
  shift 2
  ! iptables -w -t "$table" -n -L "$CHAIN" >/dev/null 2>&1 || return 0
  iptables -w -t "$table" -N "$CHAIN"
  # shellcheck disable=SC2086 # a rule is several words
  for rule; do iptables -w -t "$table" -A "$CHAIN" $rule; done
  for parent in $parents; do iptables -w -t "$table" -I "$parent" -j "$CHAIN"; done
}

kubectl() { "$bin/kubectl" --kubeconfig "$DIR/kubeconfig" "$@"; } # this cluster's, for whoever has set bin

cluster_is_given() { [ -n "${KUBECONFIG:-}" ] && [ "$KUBECONFIG" != "$DIR/kubeconfig" ]; }
any_kubectl() { type -P kubectl || "$here/tool" kubectl; } # a given cluster is asked by the one at hand

become_root() { # the caller's arguments: starts the calling script anew as root where it is not
  [ "$(id -u)" = 0 ] || exec sudo --preserve-env=CLUSTER_DIR,CLUSTER_NETWORK,HOME,XDG_CACHE_HOME,PATH "$0" "$@"
}
