# Three PostgreSQL nodes under Patroni and one etcd, for faults on one machine; sourced by `run`.
#
# Everything lives in a network namespace whose only interface is loopback: no packet leaves the machine, and packet rules
# touch nothing else. Each node has an account of its own, without a name outside of the namespace, which is how its
# processes and its packets are told from the others'.
# shellcheck shell=bash disable=SC2046  # lists of process ids are split on purpose

NS=doorbell-lab
ETCD=127.0.0.1:2379
TTL=${LAB_TTL:-20}

address() { echo "127.0.0.1$1"; }
account() { echo $((23450 + $1)); }
inside() { ip netns exec "$NS" "$@"; }
processes() { ps -o pid= -u "$(account "$1")"; }
LAB_URL="host=$(address 1),$(address 2),$(address 3) port=5432 user=postgres dbname=postgres target_session_attrs=read-write"
export LAB_URL
sql() { inside psql -X -q -At -v ON_ERROR_STOP=1 "$LAB_URL connect_timeout=3" "$@"; }
patronictl() { inside "$VENV/bin/patronictl" -c "$DIR/n1/patroni.yml" "$@"; }

# Runs a program in the background, inside; its process id is kept.
spawn() { # NAME COMMAND…
    local name=$1
    shift
    setsid ip netns exec "$NS" nice -n 5 "$@" >>"$DIR/$name.log" 2>&1 </dev/null 9>&- &
    disown # It is killed as part of a fault, which is no news.
    echo $! >"$DIR/$name.pid"
}

make_namespace() {
    local n
    ip netns add "$NS"
    inside ip link set lo up
    # A node speaks from its own address, so that cutting it off is a rule about addresses.
    inside ip rule add pref 100 lookup local
    inside ip rule del pref 0 lookup local
    mkdir -p "/etc/netns/$NS"
    cp /etc/passwd /etc/group "/etc/netns/$NS/"
    for n in 1 2 3; do
        inside ip rule add pref $((10 + n)) uidrange "$(account $n)-$(account $n)" lookup $((100 + n))
        inside ip route replace local 127.0.0.0/8 dev lo src "$(address $n)" table $((100 + n))
        echo "doorbell-lab$n:x:$(account $n):$(account $n)::$DIR/n$n:/bin/sh" >>"/etc/netns/$NS/passwd"
        echo "doorbell-lab$n:x:$(account $n):" >>"/etc/netns/$NS/group"
    done
    inside nft 'add table inet lab; add chain inet lab faults { type filter hook output priority 0; }'
}

configure() { # NODE
    local here
    here=$(address "$1")
    mkdir -p "$DIR/n$1"
    cat >"$DIR/n$1/patroni.yml" <<YML
scope: doorbell
name: n$1
restapi: {listen: '$here:8008', connect_address: '$here:8008'}
etcd3: {host: '$ETCD'}
bootstrap:
  dcs:
    ttl: $TTL
    loop_wait: 1
    retry_timeout: 3
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters: {max_connections: 120, shared_buffers: 32MB, wal_log_hints: 'on', wal_keep_size: 64MB}
  initdb: [encoding: UTF8, data-checksums, {locale: C.UTF-8}]
postgresql:
  listen: '$here:5432'
  connect_address: '$here:5432'
  data_dir: $DIR/n$1/data
  bin_dir: $PG_BIN
  pgpass: $DIR/n$1/pgpass
  pg_hba: ['local all all trust', 'host all all 127.0.0.0/8 trust', 'host replication all 127.0.0.0/8 trust']
  authentication: {superuser: {username: postgres}, replication: {username: replicator}, rewind: {username: rewinder}}
  parameters: {unix_socket_directories: $DIR/n$1}
YML
    chown -R "$(account "$1"):$(account "$1")" "$DIR/n$1"
    chmod 700 "$DIR/n$1"
}

start_etcd() {
    spawn etcd etcd --data-dir "$DIR/etcd" --listen-client-urls "http://$ETCD" --advertise-client-urls "http://$ETCD" \
        --listen-peer-urls http://127.0.0.1:2380 --log-level error
}
start_node() { # NODE
    local id
    id=$(account "$1")
    spawn "n$1" setpriv --reuid="$id" --regid="$id" --clear-groups env HOME="$DIR/n$1" "$VENV/bin/patroni" "$DIR/n$1/patroni.yml"
}

# The node that takes writes.
leader() { sql -c 'select right(host(inet_server_addr()), 1)'; }

# Waits for one that takes writes and two that follow it; in synchronous mode one of them in step.
whole() {
    local follow="select count(*) = 2 and count(*) filter (where sync_state = 'sync') = $1 from pg_stat_replication where state = 'streaming'"
    for _ in $(seq 240); do
        [ "$(sql -c "$follow" 2>/dev/null)" = t ] && return
        sleep 0.5
    done
    echo 'the cluster is not whole:' >&2
    patronictl list >&2
    return 1
}

cluster_up() {
    local n
    cluster_down
    mkdir -p "$DIR"
    chmod 755 "$DIR"
    make_namespace
    for n in 1 2 3; do configure $n; done
    start_etcd
    start_node 1
    for n in $(seq 120); do
        leader >/dev/null 2>&1 && break
        sleep 0.5
    done
    start_node 2
    start_node 3
    whole 0
}

cluster_down() {
    local n
    [ -e "/etc/netns/$NS" ] || return 0
    for n in 1 2 3; do
        kill -CONT $(processes $n) 2>/dev/null || true
        kill -KILL $(processes $n) 2>/dev/null || true
    done
    [ ! -e "$DIR/etcd.pid" ] || kill "$(cat "$DIR/etcd.pid")" 2>/dev/null || true
    ip netns del "$NS" 2>/dev/null || true
    rm -rf "${DIR:?}" "/etc/netns/$NS"
    rmdir /etc/netns 2>/dev/null || true
}

synchronous() { # on | off
    patronictl edit-config --quiet --force -s "synchronous_mode=$1" >/dev/null
    whole "$([ "$1" = on ] && echo 1 || echo 0)"
}

# ---- faults: each is done to the node that takes writes, and undone by `heal` -----------------------------------------------

postmaster() { head -1 "$DIR/n$1/data/postmaster.pid"; }
drop() { inside nft "add rule inet lab faults $1 drop"; }

fault() { # NAME NODE; how long it lasts is in HOLD
    local n=$2 other
    HOLD=35
    case $1 in
    switchover) HOLD=10 && patronictl switchover doorbell --leader "n$n" --force >>"$DIR/switchover.log" 2>&1 ;;
    kill-postmaster) HOLD=20 && kill -KILL "$(postmaster "$n")" ;;
    kill-node) kill -KILL $(processes "$n") ;;
    kill-patroni) kill -KILL $(pgrep -u "$(account "$n")" -f patroni.yml) ;;
    freeze) kill -STOP $(processes "$n") ;;
    cut-off)
        drop "ip daddr $(address "$n") ip saddr != $(address "$n")"
        drop "ip saddr $(address "$n") ip daddr != $(address "$n")"
        ;;
    isolate) # Clients still reach it, nobody else does.
        for other in 1 2 3; do
            [ "$other" != "$n" ] || continue
            drop "ip saddr $(address "$n") ip daddr $(address "$other")"
            drop "ip saddr $(address "$other") ip daddr $(address "$n")"
        done
        drop "ip saddr $(address "$n") tcp dport 2379"
        drop "ip daddr $(address "$n") tcp sport 2379"
        ;;
    none) HOLD=5 ;;
    *) echo "no fault is named $1" >&2 && return 2 ;;
    esac
}
FAULTS='switchover kill-postmaster kill-node kill-patroni freeze cut-off isolate'

heal() {
    local n
    inside nft flush chain inet lab faults
    for n in 1 2 3; do
        kill -CONT $(processes $n) 2>/dev/null || true
        pgrep -u "$(account $n)" -f patroni.yml >/dev/null || start_node $n
    done
}
