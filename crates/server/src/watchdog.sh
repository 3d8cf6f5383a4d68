# Runs a server, again each time its parent asks for it, and puts everything away when the parent is gone.
#
#   sh watchdog.sh RUN_DIRECTORY POSTGRES [ARGUMENT]...
#
# standard input    from the parent: a line starts an ended server again; end of file, however it came about, is the end
# standard output   to the parent: "started PID", "exited STATUS"
# standard error    the log

run=$1
shift
exec 3<&0

# A report that nobody reads any more must not end the watchdog, nor a hangup of the parent's terminal.
trap : PIPE
trap '' HUP

while
    "$@" </dev/null 3<&- >&2 &
    postgres=$!
    # While the server runs, the guard alone reads the pipe.
    {
        read -r nothing
        # End of file. A paused server is continued; then fast shutdown, immediate shutdown, and the end. PostgreSQL
        # itself gives its children five seconds after an immediate shutdown.
        kill -s CONT "$postgres"
        for step in "INT 50" "QUIT 70" "KILL 10"; do
            kill -s "${step% *}" "$postgres"
            tenths=${step#* }
            while [ "$tenths" -gt 0 ] && kill -0 "$postgres"; do
                sleep 0.1
                tenths=$((tenths - 1))
            done
        done
    } <&3 >/dev/null 2>&1 &
    guard=$!
    echo "started $postgres"
    wait "$postgres"
    status=$?
    # The guard must be gone before the parent hears of the end, or it could swallow the parent's answer.
    kill "$guard" 2>/dev/null
    wait "$guard" 2>/dev/null
    echo "exited $status"
    read -r again <&3
do :; done

cd / && rm -rf "$run"
