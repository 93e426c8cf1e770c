#!/bin/sh
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What runs on a site: show, stage, activate, confirm, revert. The controller sends this text without its comments as
# the SSH command, a bundle on standard input, and reads back one line, the receipt. Each bundle carries a copy for
# the dead-man timer and for the unit's guard. POSIX sh and what BusyBox has; no Python.
#
#   /etc/spokewright/generations/N/      a bundle, whole
#   /etc/spokewright/current             -> generations/N
#   /etc/spokewright/state/confirmed     the generation that has proven itself
#   /etc/spokewright/state/previous      the one confirmed before it
#   /etc/spokewright/state/pending       "N BOOT_ID": active on probation until confirmed
#
# It may be killed after any line: a verb run again finds what is there and finishes.
PATH=${SPOKEWRIGHT_PATH:-/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin}
LC_ALL=C
export PATH LC_ALL
umask 077
# A link that breaks in the middle must not stop half-way what has begun.
trap '' HUP PIPE
exec 2>/dev/null
R=${SPOKEWRIGHT_ROOT:-}
B=$R/etc/spokewright
G=$B/generations
S=$B/state
U=openvpn-client@spokewright.service
T=spokewright-deadman
C=$R/etc/openvpn/client
CL=../../spokewright/current/client.conf
D=$R/etc/systemd/system/$U.d
DL=../../../spokewright/current/unit.conf
KEEP=3
verb=${1:-show}
t=$G/.none

esc() { tr -d '\000-\010\013-\037' | sed 's/\\/\\\\/g;s/"/\\"/g;s/	/\\t/g' | awk '{printf "%s%s", (NR > 1 ? "\\n" : ""), $0}'; }

# receipt OK CHANGED REASON MESSAGE [MORE-JSON]
receipt() {
  printf '\nSPOKEWRIGHT-RECEIPT {"agent":1,"verb":"%s","ok":%s,"changed":%s,"reason":"%s","message":"%s"%s}\n' \
    "$verb" "$1" "$2" "$3" "$(printf %s "$4" | esc)" "${5:+,$5}"
  [ "$1" = true ] && exit 0
  exit 1
}
ok() { receipt true "$1" "" "$2" "$3"; }
fail() { receipt false false "$1" "$2"; }

disk() { df -P "$B" "$R/etc" | tail -n 1; }
hash_of() { sha256sum <"$1" | cut -d' ' -f1; }
boot_id() { cat /proc/sys/kernel/random/boot_id || echo none; }
number() { case $1 in '' | *[!0-9]*) echo 0 ;; *) echo "$1" ;; esac; }
get() { number "$(cut -d' ' -f1 "$S/$1")"; }
current() { l=$(readlink "$B/current"); number "${l##*/}"; }
# Only coreutils syncs named files; anything else syncs all, which is as good and slower.
flush() { sync "$@" || sync; }

# NAME TEXT
put() {
  printf '%s\n' "$2" >"$S/.$1.new" && flush "$S/.$1.new" && mv -f "$S/.$1.new" "$S/$1" && flush "$S"
}

# TARGET LINK: replace a link by rename
point() {
  [ "$(readlink "$2")" = "$1" ] && return 0
  rm -f "$2.new"
  ln -s "$1" "$2.new" || return 1
  # Without -T, mv would follow a link to a directory and move into it.
  mv -fT "$2.new" "$2" || { rm -f "$2" && mv -f "$2.new" "$2"; } || return 1
  flush "${2%/*}"
}

# N: the digest of a whole generation, or nothing
intact() {
  [ -f "$G/$1/MANIFEST" ] && (cd "$G/$1" && sha256sum -c MANIFEST) >/dev/null && hash_of "$G/$1/MANIFEST"
}

gens() { for d in "$G"/[0-9]*; do [ -d "$d" ] && echo "${d##*/}"; done | sort -n; }

grab() {
  if command -v flock >/dev/null; then
    flock -n 9
    return
  fi
  if mkdir "$S/lock.d"; then
    trap 'rm -rf "$S/lock.d" "$t"' EXIT
    echo "$$ $(boot_id)" >"$S/lock.d/owner"
    return
  fi
  read -r p b <"$S/lock.d/owner" || p=
  # An owner that has not written its name yet is given the time to.
  if [ -n "$p" ]; then
    [ "$b" = "$(boot_id)" ] && kill -0 "$p" && return 1
  elif [ "$1" -lt 3 ]; then
    return 1
  fi
  rm -rf "$S/lock.d"
  return 1
}

ready() {
  # exec would end a dash that cannot open the file, without a word.
  if ! mkdir -p "$S" "$G" || ! (: >>"$S/lock"); then
    fail unwritable "cannot write below $B: $(disk)"
  fi
}

lock() {
  ready
  exec 9>>"$S/lock"
  n=0
  until grab $n; do
    n=$((n + 1))
    [ $n -le 20 ] || fail busy "another run is at work on this site"
    sleep 1
  done
}

# The one place that knows the init system.
service() {
  command -v systemctl >/dev/null || return 3
  case $1 in
    reload) systemctl daemon-reload ;;
    restart)
      systemctl reset-failed $U
      systemctl restart $U
      ;;
    enabled) [ "$(systemctl is-enabled $U)" = enabled ] ;;
    enable) service enabled || systemctl enable $U ;;
    state) systemctl is-active $U ;;
  esac
}

# N SECONDS
arm() {
  disarm
  a=$G/$1/agent.sh
  command -v systemd-run >/dev/null && systemd-run --quiet --unit=$T --on-active="$2" \
    --timer-property=AccuracySec=1s /bin/sh "$a" deadman "$1" >/dev/null 9>&- && return
  # shellcheck disable=SC2016 # the inner shell expands them
  nohup sh -c 'sleep "$2"; exec sh "$0" deadman "$1"' "$a" "$1" "$2" >/dev/null </dev/null 9>&- &
}
disarm() {
  command -v systemctl >/dev/null || return 0
  systemctl stop $T.timer
  systemctl reset-failed $T.timer $T.service
}

links() {
  mkdir -p "$C" "$D" && chmod 755 "$D" && point "$CL" "$C/spokewright.conf" && point "$DL" "$D/spokewright.conf"
}
linked() { [ "$(readlink "$C/spokewright.conf")" = "$CL" ] && [ "$(readlink "$D/spokewright.conf")" = "$DL" ]; }

# N: make it the current generation
flip() {
  cmp -s "$G/$1/unit.conf" "$B/current/unit.conf" || stale=1
  [ -e "$D/spokewright.conf" ] || stale=1
  point "generations/$1" "$B/current" && links || return 1
  [ -z "$stale" ] || service reload
}

# N: go back from it to the confirmed generation; 1: there is none, 2: not possible now
leave() {
  to=$(get confirmed)
  w=1
  if [ "$to" -gt 0 ] && [ "$to" != "$1" ]; then
    w=0
    if [ "$to" != "$(current)" ]; then
      put reverted "$1"
      flip "$to" || return 2
    fi
  fi
  # Last of all: as long as it is there, the next start or the next run finishes what is left to do.
  rm -f "$S/pending"
  return $w
}

prune() {
  keep=" $(get confirmed) $(get previous) $(current) "
  k=0
  for g in $(gens | sort -rn); do
    k=$((k + 1))
    case $keep in *" $g "*) continue ;; esac
    [ $k -le $KEEP ] || rm -rf "${G:?}/$g"
  done
}

show() {
  list=
  for g in $(gens); do
    h=$(intact "$g")
    [ -n "$h" ] && w=true || w=false
    list="$list${list:+,}{\"generation\":$g,\"digest\":\"$h\",\"intact\":$w}"
  done
  o=$(openvpn --version | sed -n '1s/^OpenVPN \([^ ]*\).*/\1/p')
  more="\"generations\":[$list],\"current\":$(current),\"confirmed\":$(get confirmed),\"pending\":$(get pending)"
  more="$more,\"reverted\":$(get reverted),\"openvpn\":\"$(printf %s "$o" | esc)\",\"service\":\"$(service state | head -n 1)\""
  service enabled && e=true || e=false
  linked && l=true || l=false
  more="$more,\"enabled\":$e,\"links\":$l"
  # The configuration and the manifest hold no secret.
  ok false "" "$more,\"config\":\"$(esc <"$B/current/client.conf")\",\"manifest\":\"$(esc <"$B/current/MANIFEST")\""
}

# DIGEST, the bundle on standard input
stage() {
  ready
  for g in "$G"/.incoming.*; do
    kill -0 "${g##*.}" || rm -rf "$g"
  done
  # No lock while the bundle arrives: a link that froze must not keep the next run out.
  t=$G/.incoming.$$
  trap 'rm -rf "$t"' EXIT
  rm -rf "$t"
  mkdir "$t" || fail unwritable "cannot write below $G: $(disk)"
  if ! e=$(tar -xf - -C "$t" 2>&1); then
    case $e in *"o space"* | *uota*) fail no-space "no space left below $B" ;; esac
    fail incomplete "the bundle did not arrive whole: $e"
  fi
  h=$( (cd "$t" && sha256sum -c MANIFEST) >/dev/null && hash_of "$t/MANIFEST")
  [ "$h" = "$1" ] || fail incomplete "what was read back from the disk is not what was sent"
  chmod 600 "$t"/*
  flush "$t"/* "$t"
  lock
  top=0
  for g in $(gens); do
    top=$g
    [ "$(intact "$g")" = "$1" ] &&
      ok false "generation $g already holds it" "\"generation\":$g,\"digest\":\"$1\""
  done
  g=$((top + 1))
  mv "$t" "$G/$g" || fail unwritable "cannot rename below $G: $(disk)"
  flush "$G"
  [ "$(intact "$g")" = "$1" ] || fail incomplete "generation $g cannot be read back"
  ok true "staged as generation $g" "\"generation\":$g,\"digest\":\"$1\""
}

# N SECONDS
activate() {
  lock
  n=$(number "$1")
  h=$(intact "$n")
  m="\"generation\":$n,\"digest\":\"$h\""
  [ -n "$h" ] || fail no-generation "generation $n is not here or not whole; stage it again"
  command -v openvpn >/dev/null || fail openvpn-missing "openvpn is not installed"
  command -v systemctl >/dev/null || fail no-service-manager "no systemd here"
  up=$(service state)
  [ "$up" = activating ] && up=active
  was=$(current)
  if [ "$was" = "$n" ] && [ "$up" = active ] && service enabled && linked; then
    [ "$(get confirmed)" = "$n" ] && ok false "generation $n runs and is confirmed" "$m"
    [ "$(get pending)" = "$n" ] && read -r p b r <"$S/pending" && [ "$r" = started ] && {
      arm "$n" "$2"
      ok false "generation $n runs and waits to be confirmed" "$m"
    }
  fi
  if [ "$(get confirmed)" != "$n" ]; then
    put pending "$n $(boot_id) armed" || fail no-space "cannot write below $S"
    arm "$n" "$2"
  else
    rm -f "$S/pending"
    disarm
  fi
  rm -f "$S/reverted"
  flip "$n" || fail unwritable "cannot make generation $n current: $(disk)"
  e=
  service enable || e="cannot be enabled"
  [ -n "$e" ] || service restart || e="did not start"
  if [ -n "$e" ]; then
    m=$(systemctl status $U --no-pager --lines=4 | tail -n 4)
    if leave "$n"; then
      disarm
      service restart
      fail service-failed "the client $e on generation $n; went back to $(current). $m"
    fi
    # What could not be left now is the timer's to leave.
    [ -f "$S/pending" ] || disarm
    fail service-failed "the client $e on generation $n. $m"
  fi
  [ "$(get confirmed)" = "$n" ] || put pending "$n $(boot_id) started"
  ok true "generation $n runs, $2 s to be confirmed" "$m"
}

# N
confirm() {
  lock
  n=$(number "$1")
  m="\"generation\":$n,\"digest\":\"$(intact "$n")\""
  c=$(current)
  [ "$c" = "$n" ] || fail not-current "generation $c is current, not $n: the site went back by itself"
  was=$(get confirmed)
  [ "$was" = "$n" ] && [ ! -f "$S/pending" ] && ok false "generation $n was confirmed before" "$m"
  if [ "$was" != "$n" ]; then
    [ "$was" -eq 0 ] || put previous "$was"
    put confirmed "$n" || fail no-space "cannot write below $S"
  fi
  rm -f "$S/pending"
  disarm
  prune
  ok true "generation $n is confirmed" "$m"
}

# N: leave generation N
revert() {
  lock
  n=$(number "${1:-$(current)}")
  [ "$(current)" = "$n" ] || [ "$(get pending)" = "$n" ] ||
    ok false "generation $n is not current" "\"generation\":$(current)"
  if [ "$(get confirmed)" = "$n" ]; then
    [ -n "$(intact "$(get previous)")" ] || fail no-previous "no generation before $n is left"
    # From here on a power cut ends in the generation before, as if this one had been on probation.
    if ! put pending "$n $(boot_id) left" || ! put confirmed "$(get previous)"; then
      fail no-space "cannot write below $S"
    fi
    rm -f "$S/previous"
  fi
  leave "$n"
  case $? in
    1) fail no-previous "no confirmed generation to go back to" ;;
    2) fail unwritable "cannot go back from generation $n: $(disk)" ;;
  esac
  disarm
  service restart || fail service-failed "the client did not start on generation $(current)"
  ok true "went back from generation $n to $(current)" "\"generation\":$(current)"
}

# N: called by the timer
deadman() {
  lock
  [ "$(get pending)" = "$1" ] || exit 0
  leave "$1" && service restart
}

# called before the client starts: a power cut took the timer with it
guard() {
  read -r n b _ <"$S/pending" || exit 0
  [ "$b" = "$(boot_id)" ] || leave "$n"
}

case $verb in
  show | stage | activate | confirm | revert | deadman | guard)
    shift
    "$verb" "$@"
    ;;
  *) fail unknown-verb "$verb?" ;;
esac
