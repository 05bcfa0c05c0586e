#!/usr/bin/env bash
# Private instances of the servers that tests talk to: PostgreSQL, Redis, etcd and a Docker engine.
#
#   scripts/services.sh install   install what is missing (scripts/install.sh)
#   scripts/services.sh start     start them, or keep those that run; writes .services/env
#   scripts/services.sh status    exit code 0 when all of them run
#   scripts/services.sh env       print the variables: eval "$(scripts/services.sh env)"
#   scripts/services.sh stop      remove the containers, stop every server, leave nothing behind but logs and images
#
# Everything binds 127.0.0.1 or a unix socket, on free ports, with its data under .services. Another Docker engine on the
# host is not disturbed: this one has its own containerd, bridge and control group, and writes no firewall rules.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PATH:/usr/sbin:/sbin" ETCDCTL_API=3

readonly ROOT=$PWD
readonly STATE=$ROOT/.services
readonly LOGS=$STATE/log
readonly PIDS=$STATE/pids
TAG=bai-$(printf '%s' "$ROOT" | cksum | cut -d' ' -f1 | xargs printf '%08x')   # one name per checkout
readonly TAG
readonly SERVICES=(postgres redis etcd containerd dockerd)                     # in order of start
RUN=                                                                          # sockets and data; see choose_run_dir
declare -A PORT=()

say() { printf 'services: %s\n' "$*"; }
die() { printf 'services: %s\n' "$*" >&2; exit 1; }

# ---------------------------------------------------------------------------------------------------------- processes

# The start time of a live process (clock ticks since boot): with its pid it names the process for good.
start_time() {
  local stat fields
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -ra fields <<<"${stat##*) }"
  [[ ${fields[0]} != Z ]] && printf '%s' "${fields[19]}"
}

alive() {
  local pid started
  read -r pid started 2>/dev/null <"$PIDS/$1" && [[ $(start_time "$pid") == "$started" ]]
}

all_alive() {
  local name
  for name in "${SERVICES[@]}"; do alive "$name" || return 1; done
}

# launch NAME COMMAND...: in a session of its own, so that it outlives this shell; its pid is saved.
launch() {
  local name=$1 pid
  shift
  setsid "$@" >"$LOGS/$name.log" 2>&1 </dev/null 9>&- &
  pid=$!
  disown "$pid"
  printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$PIDS/$name"
}

# wait_ready NAME SECONDS COMMAND...: until the command succeeds.
wait_ready() {
  local name=$1 deadline=$((SECONDS + $2))
  shift 2
  until timeout 5 "$@" >/dev/null 2>&1 9>&-; do
    alive "$name" || failed "$name" "ended while starting"
    ((SECONDS < deadline)) || failed "$name" "was not ready in time"
    sleep 0.1
  done
}

failed() {
  say "$1 $2; the end of its log:" >&2
  tail -n 40 "$LOGS/$1.log" >&2 || true
  exit 1
}

# terminate NAME SIGNAL SECONDS: ask, wait, and only then kill. Does nothing when the saved process is gone.
terminate() {
  local name=$1 signal=$2 deadline=$((SECONDS + $3)) pid
  if alive "$name"; then
    read -r pid _ <"$PIDS/$name"
    kill "-$signal" "$pid"
    while alive "$name" && ((SECONDS < deadline)); do sleep 0.05; done
    if alive "$name"; then
      say "$name ignored SIG$signal for $3 s: killed" >&2
      kill -KILL "$pid"
      while alive "$name"; do sleep 0.05; done
    fi
  fi
  rm -f "$PIDS/$name"
}

# ------------------------------------------------------------------------------------------------------ places, ports

as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }

# .services itself, unless its path is too long for a unix socket (107 bytes) or closed to the user postgres: then a short
# directory under /tmp. The choice is kept in .services/dir.
choose_run_dir() {
  if ((${#STATE} <= 60)) && as_postgres test -x "$STATE"; then
    RUN=$STATE
  else
    RUN=$(mktemp -d /tmp/bai.XXXXXX)
    chmod 711 "$RUN"
  fi
  printf '%s\n' "$RUN" >"$STATE/dir"
  mkdir -p "$RUN"/{redis,docker}
}

# Free ports below the range that the kernel hands to outgoing connections, so that none is taken before we bind it.
choose_ports() {
  local ports
  ports=$(/usr/bin/env python3 - <<'PY'
import random, socket
found, held = [], []
for port in random.sample(range(20000, 32000), 400):
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", port))
    except OSError:
        continue
    held.append(s)
    found.append(str(port))
    if len(found) == 4:
        break
print(*found)
PY
  )
  read -r 'PORT[postgres]' 'PORT[redis]' 'PORT[etcd]' 'PORT[etcd-peer]' <<<"$ports"
}

# ------------------------------------------------------------------------------------------------------------ servers

start_postgres() {
  local bin=/usr/lib/postgresql/15/bin data=$RUN/postgres
  install -d -o postgres -g postgres -m 700 "$data"
  (cd / && as_postgres "$bin/initdb" -D "$data" -A trust -U postgres -E UTF8 --locale=C.UTF-8 --no-sync) \
    >"$LOGS/initdb.log" 2>&1 || { cat "$LOGS/initdb.log" >&2; die "initdb failed"; }
  launch postgres setpriv --reuid=postgres --regid=postgres --init-groups "$bin/postgres" -D "$data" \
    -p "${PORT[postgres]}" -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=300 \
    -c fsync=off -c synchronous_commit=off -c full_page_writes=off
}

start_redis() {
  launch redis redis-server --bind 127.0.0.1 --port "${PORT[redis]}" --dir "$RUN/redis" --save '' --appendonly no
}

start_etcd() {
  local client=http://127.0.0.1:${PORT[etcd]} peer=http://127.0.0.1:${PORT[etcd-peer]}
  launch etcd etcd --name test --data-dir "$RUN/etcd" --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "test=$peer"
}

# A bridge of our own, on the first free 172.30.n.0/24. dockerd's default bridge may belong to another engine.
create_bridge() {
  local n
  ip link show "$TAG" >/dev/null 2>&1 || ip link add "$TAG" type bridge
  if [[ -z $(ip -4 -o addr show dev "$TAG") ]]; then
    for n in {0..254}; do
      ip -4 route show root 172.30.0.0/16 | grep -qF "172.30.$n." || break
    done
    ip addr add "172.30.$n.1/24" dev "$TAG"
  fi
  ip link set "$TAG" up
  if foreign_firewall; then iptables -I DOCKER-USER -i "$TAG" -o "$TAG" -j ACCEPT; fi
}

# Another Docker engine on this host drops forwarded bridge traffic that is not its own; its hook chain lets ours pass.
foreign_firewall() { iptables -n -L DOCKER-USER >/dev/null 2>&1; }

delete_bridge() {
  if foreign_firewall; then
    while iptables -D DOCKER-USER -i "$TAG" -o "$TAG" -j ACCEPT 2>/dev/null; do :; done
  fi
  ip link show "$TAG" >/dev/null 2>&1 || return 0
  ip link del "$TAG"
}

start_containerd() {
  cat >"$RUN/docker/containerd.toml" <<TOML
version = 2
root = "$STATE/docker/containerd-root"
state = "$RUN/docker/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$RUN/docker/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "$RUN/docker/opt"
TOML
  launch containerd containerd --config "$RUN/docker/containerd.toml"
}

# No firewall rules and no forwarding: kernels are reached through the bridge and through ports published on loopback,
# which docker-proxy serves. Containers have no way out of the host.
start_dockerd() {
  create_bridge
  echo '{}' >"$RUN/docker/daemon.json"
  launch dockerd dockerd --config-file "$RUN/docker/daemon.json" --host "unix://$RUN/docker/docker.sock" \
    --data-root "$STATE/docker/data" --exec-root "$RUN/docker/exec" --pidfile "$RUN/docker/docker.pid" \
    --containerd "$RUN/docker/containerd.sock" --containerd-namespace "$TAG" --containerd-plugins-namespace "$TAG-plugins" \
    --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$TAG" --bridge "$TAG" \
    --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --shutdown-timeout 5
}

write_env() {
  local docker_host=unix://$RUN/docker/docker.sock
  {
    printf 'export %s=%q\n' \
      BAI_TEST_POSTGRES_URL "postgres://postgres@127.0.0.1:${PORT[postgres]}/postgres" \
      BAI_TEST_REDIS_URL "redis://127.0.0.1:${PORT[redis]}/0" \
      BAI_TEST_ETCD_URL "http://127.0.0.1:${PORT[etcd]}" \
      BAI_TEST_DOCKER_HOST "$docker_host" \
      DOCKER_HOST "$docker_host" \
      BAI_TEST_CLIENT "$ROOT/.venv/bin/backend.ai" \
      BAI_TEST_PYTHON "$ROOT/.venv/bin/python"
  } >"$STATE/env.new"
  mv "$STATE/env.new" "$STATE/env"
}

# ----------------------------------------------------------------------------------------------------------- commands

start() {
  ((EUID == 0)) || die "run as root: the Docker engine and the user postgres need it"
  mkdir -p "$LOGS" "$PIDS"
  lock
  if all_alive; then
    say "already running (.services/env)"
    return
  fi
  stop_all
  trap 'stop_all' EXIT
  choose_run_dir
  choose_ports
  start_containerd
  start_redis
  start_etcd
  wait_ready containerd 30 test -S "$RUN/docker/containerd.sock"
  start_dockerd
  start_postgres
  wait_ready redis 15 redis-cli -p "${PORT[redis]}" ping
  wait_ready etcd 30 etcdctl --endpoints "http://127.0.0.1:${PORT[etcd]}" endpoint health
  wait_ready postgres 30 pg_isready -q -h 127.0.0.1 -p "${PORT[postgres]}"
  wait_ready dockerd 60 docker -H "unix://$RUN/docker/docker.sock" version
  remove_containers   # what a crash of the engine left in its data
  write_env
  trap - EXIT
  say "running (.services/env)"
}

stop() {
  [[ -d $STATE ]] || return 0
  mkdir -p "$LOGS" "$PIDS"
  lock
  stop_all
  say "stopped"
}

lock() {
  exec 9>"$STATE/lock"
  flock -w 120 9 || die "another start or stop has not ended for two minutes"
}

stop_all() {
  RUN=$STATE
  [[ -f $STATE/dir ]] && RUN=$(<"$STATE/dir")
  rm -f "$STATE/env"
  if alive dockerd; then remove_containers || say "containers could not be removed through the engine" >&2; fi
  terminate dockerd TERM 20
  end_orphans
  terminate containerd TERM 10
  terminate postgres INT 10
  terminate etcd TERM 10
  terminate redis TERM 10
  delete_bridge
  remove_leftovers
}

remove_containers() {
  local -x DOCKER_HOST=unix://$RUN/docker/docker.sock
  local -a ids
  mapfile -t ids < <(timeout 20 docker ps -aq 9>&-)
  ((${#ids[@]} == 0)) || timeout 120 docker rm -f -v "${ids[@]}" >/dev/null
  timeout 20 docker swarm leave --force >/dev/null 2>&1 || true
  timeout 60 docker network prune -f >/dev/null
  timeout 60 docker volume prune -f >/dev/null
}

# After a crash of the engine its shims and containers live on. A shim names our containerd's socket in its arguments; what
# ran in a container is in our control group.
end_orphans() {
  local file pid
  for file in /proc/[0-9]*/cmdline; do
    { tr '\0' ' ' <"$file"; } 2>/dev/null | grep -q "^[^ ]*containerd-shim.* -address $RUN/docker/containerd.sock " || continue
    pid=${file#/proc/}
    kill -KILL "${pid%/cmdline}" 2>/dev/null || true
  done
  while read -r pid; do kill -KILL "$pid" 2>/dev/null || true; done < <(
    find /sys/fs/cgroup -path "*/$TAG/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un)
}

remove_leftovers() {
  local mount
  while read -r mount; do umount -l "$mount" || true; done < <(our_mounts)
  [[ -z $(our_mounts) ]] || die "still mounted, nothing is deleted: $(our_mounts | xargs)"
  find /sys/fs/cgroup -depth -type d \( -path "*/$TAG" -o -path "*/$TAG/*" \) -exec rmdir {} + 2>/dev/null || true
  rm -rf "$RUN"/{postgres,redis,etcd} "$RUN"/docker/{containerd,exec,opt,*.sock,*.sock.ttrpc,*.toml,*.json,*.pid}
  rm -rf "$STATE/docker/containerd-root"
  if [[ $RUN != "$STATE" ]]; then rm -rf "$RUN"; fi
  rm -f "$STATE/dir"
}

# Mount points below our directories, deepest first.
our_mounts() {
  cut -d' ' -f5 /proc/self/mountinfo | { grep -e "^$STATE/" -e "^$RUN/" || true; } | sort -r
}

case ${1-} in
  install) exec scripts/install.sh ;;
  start) start ;;
  stop) stop ;;
  status) if all_alive; then say running; else say "not running"; exit 1; fi ;;
  env) [[ -f $STATE/env ]] || die "not running: scripts/services.sh start"; cat "$STATE/env" ;;
  *) die "usage: scripts/services.sh {install|start|stop|status|env}" ;;
esac
