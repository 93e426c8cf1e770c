#!/bin/sh
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
### BEGIN INIT INFO
# Provides:          spokewright
# Required-Start:    $network $remote_fs
# Required-Stop:     $network $remote_fs
# Should-Start:      $syslog
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: Tunnel client of a Spokewright site
### END INIT INFO
# chkconfig: 2345 60 40
# description: Tunnel client of a Spokewright site
#
# Keeps the client running where there is no systemd: SysV, OpenRC and BusyBox init. The keeper starts the client again
# whenever it ends, with whatever status.
PATH=${SPOKEWRIGHT_PATH:-/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin}
export PATH
current=${SPOKEWRIGHT_ROOT:-}/etc/spokewright/current
run=${SPOKEWRIGHT_ROOT:-}/run
[ -d "$run" ] || run=${SPOKEWRIGHT_ROOT:-}/var/run
keeper=$run/spokewright-keeper.pid
client=$run/spokewright-client.pid
# What the client says before it has reached the system's log: that its configuration is no good
said=$run/spokewright-client.said

# FILE: the process in it is there and is ours; a number alone may by now be somebody else's
alive() { read -r pid <"$1" && kill -0 "$pid" && grep -q spokewright "/proc/$pid/cmdline"; } 2>/dev/null
nap() { sleep 0.2 2>/dev/null || sleep 1; }

keep() {
  child=
  # A stop may come when the client runs and its number is not noted yet.
  trap 'trap "" TERM; [ "$child" != begun ] || child=$!; [ -z "$child" ] || { kill $child; wait $child; }; exit 0' TERM
  while :; do
    # A generation on probation whose dead-man timer was lost in a power cut is left before the client starts, and a
    # site that is held waits here.
    child=begun
    sh "$current/agent.sh" guard &
    child=$!
    wait $child
    child=begun
    openvpn --config "$current/client.conf" --syslog spokewright >"$said" 2>&1 &
    child=$!
    echo $child >"$client"
    wait $child
    sleep 5 &
    child=$!
    wait $child
    child=
  done
}

start() {
  alive "$keeper" && return 0
  stop
  if [ ! -e /dev/net/tun ]; then
    modprobe tun 2>/dev/null
    [ -e /dev/net/tun ] || { mkdir -p /dev/net && mknod /dev/net/tun c 10 200; }
  fi
  own=
  command -v setsid >/dev/null && own=setsid
  trap '' HUP
  # The keeper writes no number of its own: setsid may change it.
  # shellcheck disable=SC2016 # the inner shell expands them
  $own sh -c 'echo $$ >"$1"; exec sh "$0" keep' "$current/init.sh" "$keeper" </dev/null >/dev/null 2>&1 &
  # A client that cannot read its configuration ends at once. The keeper goes on trying whatever we say here.
  sleep 1
  alive "$client"
}

stop() {
  for file in "$keeper" "$client"; do
    alive "$file" || continue
    kill "$pid"
    tries=0
    # The client takes its leave of the gateway first.
    while alive "$file"; do
      tries=$((tries + 1))
      [ $tries -le 30 ] || kill -9 "$pid"
      [ $tries -le 60 ] || return 1
      nap
    done
  done
  rm -f "$keeper" "$client"
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  restart | force-reload) stop && start ;;
  status) alive "$keeper" && alive "$client" ;;
  keep) keep ;;
  why) if [ -s "$said" ]; then tail -n 4 "$said"; else tail -n 40 /var/log/messages /var/log/syslog 2>/dev/null | grep spokewright | tail -n 4; fi ;;
  *)
    echo "usage: $0 start|stop|restart|status" >&2
    exit 2
    ;;
esac
