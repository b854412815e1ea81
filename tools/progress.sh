# shellcheck shell=sh
# For sourcing: `run`, which keeps a person informed while a long command works, on stderr: stdout
# is for what the whole is asked for, as `make bench ARGS="-o json"`.

# What is to be done at a script's end, for `run` has the trap.
at_exit=:
trap 'eval "$at_exit"' EXIT

# run LOG WHAT COMMAND...: run the command with its output in the file LOG; every 5 seconds say
# how long it has been and what it printed last. If it fails, show the end of LOG and return its
# exit status.
run() {
    log=$1
    what=$2
    shift 2
    echo "enid: $what ..." >&2
    : >"$log"
    # fd 9 is a caller's lock, which must not outlive the caller in a sleep.
    (
        seconds=0
        while sleep 5 >/dev/null 2>&1; do
            seconds=$((seconds + 5))
            printf '  %3d s  %s\n' "$seconds" "$(tail -n 1 "$log" | tr -d '\r' | cut -c 1-80)" >&2
        done
    ) 9>&- &
    ticker=$!
    trap 'kill "$ticker" 2>/dev/null || :; eval "$at_exit"' EXIT
    trap 'exit 130' INT TERM HUP
    status=0
    "$@" >"$log" 2>&1 9>&- || status=$?
    kill "$ticker" 2>/dev/null || :
    wait "$ticker" 2>/dev/null || :
    trap 'eval "$at_exit"' EXIT
    trap - INT TERM HUP
    [ "$status" -eq 0 ] || {
        tail -n 20 "$log" >&2
        echo "enid: $what failed (exit status $status); all it said is in $log" >&2
    }
    return "$status"
}
