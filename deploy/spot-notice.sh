#!/bin/sh
# Watches EC2 for the notice that this machine is taken away, and then asks Kosmograph to stop (SIGTERM).
#
#   deploy/spot-notice.sh kosmograph worker --model ID ...   runs the command, passes signals on, ends with its exit code
#   deploy/spot-notice.sh --pid PID...                       watches for processes that run already
#
# SPOT_METADATA_URL  http://169.254.169.254   the metadata service (IMDSv2)
# SPOT_INTERVAL_S    5                        seconds between two looks
# SPOT_REBALANCE     1                        0: a rebalance recommendation is no reason to stop
set -u

url=${SPOT_METADATA_URL:-http://169.254.169.254}
interval_s=${SPOT_INTERVAL_S:-5}
token=

usage() {
    echo "usage: spot-notice.sh COMMAND [ARGUMENT...] | spot-notice.sh --pid PID..." >&2
    exit 2
}

new_token() {
    token=$(curl -sf --noproxy '*' -m 2 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 21600' "$url/latest/api/token") || token=
}

# Puts what the metadata service has under a name into `notice`. Fails where it has nothing, as is the rule.
metadata() {
    [ -n "$token" ] || new_token
    notice=$(curl -s --noproxy '*' -m 2 -w '%{http_code}' -H "X-aws-ec2-metadata-token: $token" \
        "$url/latest/meta-data/$1") || return 1
    case $notice in
    *200) notice=${notice%200} ;;
    *401) token= && return 1 ;; # it has expired: a new one with the next look
    *) return 1 ;;
    esac
}

noticed() {
    metadata spot/instance-action && return 0
    [ "${SPOT_REBALANCE:-1}" != 0 ] && metadata events/recommendations/rebalance
}

# Sends a signal to all of them; fails when none is left.
tell() {
    left=1
    for pid in $pids; do
        kill "-$1" "$pid" 2>/dev/null && left=0
    done
    return $left
}

# Looks until there is a notice, or nobody to tell of it.
watch() {
    until noticed; do
        tell 0 || return 0
        sleep "$interval_s" >/dev/null 2>&1
    done
    echo "spot-notice: this machine goes: $notice" >&2
    tell TERM || true
}

[ $# -gt 0 ] || usage
if [ "$1" = --pid ]; then
    shift
    [ $# -gt 0 ] || usage
    for pid in "$@"; do
        case $pid in '' | 0* | *[!0-9]*) usage ;; esac # 0 is our own group
        kill -0 "$pid" 2>/dev/null || echo "spot-notice: there is no process $pid, or it is not ours to signal" >&2
    done
    pids=$*
    tell 0 || exit 1 # else nobody would be told, and nobody know of it
    watch
    exit 0
fi

# A shell ignores SIGINT for what it runs in the background: SIGTERM serves for both, and drains as well.
asked=
trap 'asked=1' INT TERM
"$@" <&0 &
pids=$!
trap 'tell TERM' INT TERM
[ -z "$asked" ] || tell TERM # it came before there was somebody to pass it on to
watch &
watcher=$!
while :; do
    wait "$pids"
    code=$?
    kill -0 "$pids" 2>/dev/null || break # else a signal ended the wait, and not the command
done
kill "$watcher" 2>/dev/null
exit "$code"
