#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# For test-install.sh, which reads this inside the throw-away system: the daemon as the unit starts
# it, without systemd.

service_pid=

service_start() {
    install -d -m 0755 -o volmgr -g volmgr /run/volmgr
    # Each of these programs becomes the next, so that the process is the daemon in the end.
    setpriv --reuid volmgr --regid volmgr --clear-groups env RUNTIME_DIRECTORY=/run/volmgr \
        bash -c "umask 0077; exec volmgrd --state /var/lib/volmgr \
        --config /etc/volmgr/volmgrd.conf" >>/volmgrd.log 2>&1 &
    service_pid=$!
    for ((i = 0; i < 300; i++)); do
        if volctl status 2>/dev/null | grep -q "^State: *serving"; then
            return
        fi
        sleep 0.1
    done
    cat /volmgrd.log
    fail "the daemon does not serve"
}

service_stop() {
    kill "$service_pid"
    wait "$service_pid" || fail "the daemon did not end in order"
}

# Whether the volume holds what was written, where there is a client that can tell.
service_check_data() {
    if command -v nbdcopy >/dev/null; then
        nbdcopy "nbd+unix:///p/v?socket=/run/volmgr/nbd.sock" /read-back
        cmp -n 1048576 /pattern /read-back || fail "the data has changed"
    fi
}

service_first_day() {
    service_start
    [[ $(stat -c "%U %G %a" /run/volmgr/nbd.sock) == "volmgr volmgr 660" ]] || fail "NBD socket"
    [[ $(stat -c "%U %G %a" /var/lib/volmgr/volmgrd.sock) == "volmgr volmgr 660" ]] ||
        fail "control socket"
    setpriv --reuid nobody --regid nogroup --groups volmgr volctl status >/dev/null ||
        fail "a member of the group cannot use volctl"
    if setpriv --reuid nobody --regid nogroup --clear-groups volctl status 2>/refused; then
        fail "everybody can use volctl"
    fi
    grep -qF "member of the socket's group" /refused || fail "refused without advice"
    install -d -o volmgr /srv/disks
    volctl pool create p "file:/srv/disks/a?size=200M" "file:/srv/disks/b?size=200M"
    volctl create p/v --size 16M
    volctl export p/v nbd
    head -c 1048576 /dev/urandom >/pattern
    if command -v nbdcopy >/dev/null; then
        nbdcopy --flush /pattern "nbd+unix:///p/v?socket=/run/volmgr/nbd.sock"
    fi
    service_check_data
}

# The programs have been replaced under the running daemon.
service_restarted() {
    service_check_data
    service_stop
    service_start
    volctl exports | grep -q "^p/v" || fail "the export is gone"
    service_check_data
    volctl check
    kill -9 "$service_pid"
    wait "$service_pid" || true
    service_start
    service_check_data
    service_stop
}
