#!/bin/sh
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What runs on a site: show, stage, activate, confirm, revert, forget, hold, release. The controller sends this text, without its
# comments, as the first bytes of standard input; a bundle follows only after the line SPOKEWRIGHT-WANT. For `stage` the
# first part of the text is the SSH command, and the second follows only after the line SPOKEWRIGHT-MORE. It reads back
# a line of what the site holds and a line of what was done, the receipt. Each bundle carries a copy, without
# comments, too, for the dead-man timer and for the guard. POSIX sh and what BusyBox has; no Python. A process costs a
# site a millisecond, a login twenty: what the shell can do itself, it does.
#
#   /etc/spokewright/generations/N/      a bundle, whole
#   /etc/spokewright/current             -> generations/N
#   /etc/spokewright/state/confirmed     the generation that has proven itself
#   /etc/spokewright/state/previous      the one confirmed before it
#   /etc/spokewright/state/pending       "N BOOT_ID STEP UNTIL": on probation until confirmed, or until that uptime
#   /etc/spokewright/state/reverted      the generation the site went back from, until something is activated
#   /etc/spokewright/state/hold          "SECONDS END BOOT_ID UPTIME", then who and why: the client is kept stopped
#   /etc/spokewright/state/held          "END USED BOOT_ID UPTIME": how much of the hold is used up, noted every minute
#   /etc/spokewright/state/hold.sh       a copy of this text, which ends the hold
#
# It may be killed after any line: a verb run again finds what is there and finishes.
PATH=${SPOKEWRIGHT_PATH:-/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin}
LC_ALL=C
export PATH LC_ALL
umask 077
# A link that breaks in the middle must not stop half-way what has begun.
trap '' HUP PIPE
exec 2>/dev/null
cd /
R=${SPOKEWRIGHT_ROOT:-}
B=$R/etc/spokewright
G=$B/generations
S=$B/state
KEEP=3
nl='
'
verb=${1:-show}
t=$G/.none
n=0
h=
more=
looked=
asked=

has() { command -v "$1" >/dev/null; }
# The answers of these come in variables: asking in $( ) would start a process.
num() { case $1 in '' | *[!0-9]*) num=0 ;; *) num=$1 ;; esac; }
get() { read -r num _ <"$S/$1" && num "$num" || num=0; }
# PID: it runs, and is one of us; after a restart, or in time, a number alone is somebody else's
lives() { kill -0 "$1" && grep -q -e spokewright -e site-agent "/proc/$1/cmdline"; }
boot_id() { read -r boot </proc/sys/kernel/random/boot_id || boot=none; }
uptime() { read -r now _ </proc/uptime && now=${now%%.*} || now=0; }
# For how long this system runs. In a container /proc/uptime is the machine's; its first process began when it did.
age() {
  uptime
  age=$now
  # In hundredths of a second after the machine's begin, on every Linux there is (USER_HZ).
  f=$(awk '{ sub(/.*\) /, ""); print $20 }' /proc/1/stat)
  case $f in '' | *[!0-9]*) return 0 ;; esac
  f=$((now - f / 100))
  [ "$f" -lt 0 ] || age=$f
}
disk() { df -P "$B" "$R/etc" | tail -n 1; }
# Only coreutils syncs named files; anything else syncs all, which is as good and slower.
flush() { sync "$@" || sync; }

esc() { awk '{gsub(/[\001-\010\013-\037]/, ""); gsub(/[\\"]/, "\\\\&"); gsub(/\t/, "\\t"); printf "%s%s", (NR > 1 ? "\\n" : ""), $0}' "$@"; }
# TEXT: fit for JSON
text() {
  text=$1
  case $text in *[!\ -~]* | *[\\\"]*) text=$(printf %s "$text" | esc) ;; esac
}

# OK CHANGED REASON MESSAGE
receipt() {
  text "$4"
  state
  m="\"generation\":$n,\"digest\":\"$h\",\"current\":$cur,\"confirmed\":$con,\"previous\":$prv,\"pending\":$pen,\"reverted\":$rev"
  printf '\nSPOKEWRIGHT-RECEIPT {"agent":2,"verb":"%s","ok":%s,"changed":%s,"reason":"%s","message":"%s",%s}\n' \
    "$verb" "$1" "$2" "$3" "$text" "$m$more"
  [ "$1" = true ] && exit 0
  exit 1
}
ok() { receipt true "$1" "" "$2"; }
# Whatever failed, a program that is missing is the reason to name.
fail() {
  for f in tar sha256sum sync mv mkdir ln; do has $f || receipt false false tool-missing "$f is not installed"; done
  receipt false false "$1" "$2"
}

# What the site is set to
state() {
  get confirmed; con=$num
  get previous; prv=$num
  get reverted; rev=$num
  read -r pen pboot step until <"$S/pending" || pen=
  num "$until"; until=$num
  num "$pen"; pen=$num
  num=0
  cd -P "$B/current" && num "${PWD##*/}"
  cur=$num
  cd /
}

# What the generations hold: all their files read back by one process
look() {
  looked=1
  gens=
  top=0
  sums=
  for d in "$G"/[1-9]*; do
    g=${d##*/}
    case $g in *[!0-9]*) continue ;; esac
    [ -d "$d" ] || continue
    gens="$gens $g"
    [ "$g" -le "$top" ] || top=$g
  done
  [ -z "$gens" ] || sums=$nl$(cd "$G" && sha256sum [1-9]*/*)$nl
}

# DIGEST: whether a generation may hold it, by what each was staged as; only a look at the files proves it
glance() {
  may=
  top=0
  for d in "$G"/[1-9]*; do
    g=${d##*/}
    case $g in *[!0-9]*) continue ;; esac
    [ "$g" -le "$top" ] || top=$g
    d=
    read -r d <"$G/$g/.digest"
    [ ${#d} = 64 ] && [ "$d" != "$1" ] || may=1
  done
  [ "$may" = 1 ]
}

# DIR: its digest in h, when every file is what its manifest says
whole() {
  h=
  k=0
  while read -r sum file; do
    case $sums in *"$nl$sum  $1/$file$nl"*) k=1 ;; *) return 1 ;; esac
  done <"$G/$1/MANIFEST"
  [ $k = 1 ] || return 1
  h=${sums%%"  $1/MANIFEST$nl"*}
  h=${h##*"$nl"}
  [ ${#h} = 64 ] || h=
  [ -n "$h" ]
}

# N|DIGEST: the whole generation that is meant in n and h; of several alike the current one, else the newest
find_generation() {
  n=0
  if [ ${#1} -ne 64 ]; then
    num "$1"
    n=$num
    whole "$n"
    return
  fi
  for g in $gens; do
    whole "$g" && [ "$h" = "$1" ] || continue
    if [ "$n" = 0 ] || [ "$g" = "$cur" ]; then n=$g; fi
    [ "$n" = "$cur" ] || [ "$g" -le "$n" ] || n=$g
  done
  h=$1
  [ "$n" != 0 ] || h=
  [ -n "$h" ]
}

# FACTS WANT: the line of what the site holds. Configuration and manifest, for a difference, hold no secret.
show_line() {
  list=
  hh=$h
  for g in $gens; do
    whole "$g" && w=true || w=false
    facts=
    [ "$w" = false ] || read -r facts <"$G/$g/facts" || facts=
    list="$list${list:+,}{\"generation\":$g,\"digest\":\"$h\",\"intact\":$w${facts:+,\"facts\":$facts}}"
  done
  h=$hh
  has openvpn && e=true || e=false
  # Whoever only glanced does not know the generations.
  l="{${looked:+\"generations\":[$list],}\"current\":$cur,\"confirmed\":$con,\"previous\":$prv,\"pending\":$pen,\"reverted\":$rev"
  l="$l,\"installed\":$e,\"init\":\"$init\"$1"
  if [ "$texts" = texts ] && [ "$cur" != 0 ]; then
    l="$l,\"config\":\"$(esc "$B/current/client.conf")\",\"manifest\":\"$(esc "$B/current/MANIFEST")\""
  fi
  printf '\nSPOKEWRIGHT-SHOW %s}\n%s' "$l" "$2"
}

grab() {
  if has flock; then
    flock -n 9
    return
  fi
  boot_id
  if mkdir "$S/lock.d"; then
    trap 'rm -rf "$S/lock.d"; [ ! -e "$t" ] || rm -rf "$t"' EXIT
    echo "$$ $boot" >"$S/lock.d/owner"
    return
  fi
  read -r p b <"$S/lock.d/owner" || p=
  # An owner that has not written its name yet is given the time to.
  if [ -n "$p" ]; then
    [ "$b" = "$boot" ] && lives "$p" && return 1
  elif [ "$1" -lt 3 ]; then
    return 1
  fi
  rm -rf "$S/lock.d"
  return 1
}

ready() {
  if [ ! -d "$S" ] || [ ! -d "$G" ]; then
    mkdir -p "$S" "$G" || fail unwritable "cannot write below $B: $(disk)"
    # What the parents know of new directories must not be younger than what lies in these.
    flush "$B" "$R/etc"
  fi
  # What a killed run left half received or half removed
  for g in "$G"/.incoming.* "$G"/.old.*; do
    [ ! -d "$g" ] || [ "$g" = "$t" ] || lives "${g##*.}" || rm -rf "$g"
  done
}

# SECONDS: how long to wait for another run
lock() {
  ready
  # `command` keeps a dash that cannot open the file from ending without a word.
  command exec 9>>"$S/lock" || fail unwritable "cannot write below $B: $(disk)"
  tries=0
  until grab $tries; do
    tries=$((tries + 1))
    [ $tries -le "${1:-20}" ] || fail busy "another run is at work on this site"
    sleep 1
  done
  state
  look
}

script=init.sh
if [ -d "$R/run/systemd/system" ] && has systemctl; then
  init=systemd
elif [ -d "$R/etc/runlevels" ] && has rc-service; then
  init=openrc script=openrc.sh
elif [ -d "$R/etc/rc2.d" ] || [ -d "$R/etc/rc.d/rc2.d" ]; then
  init=sysv
elif [ -f "$R/etc/inittab" ] || [ -f "$R/etc/init.d/rcS" ]; then
  init=busybox
else
  init=none
fi

# The second part of this text where only the first was sent; `asked` is how many bytes it has.
rest() {
  [ -n "$asked" ] || return 0
  # After a login that ended in the middle of a line, too
  printf '\nSPOKEWRIGHT-MORE\n'
  a=$(dd bs="$asked" count=1 iflag=fullblock)
  [ -n "$a" ] || a=$(dd bs=1 count="$asked")
  case $a in
    "#spokewright-agent"*"#spokewright-end") ;;
    *) fail incomplete "the second part of the agent did not arrive whole" ;;
  esac
  verb=rest
  eval "$a"
  verb=stage
}

# Standard input into the directory t. GNU tar makes it, too; any other one refuses that before it has read a byte. What
# tar says is caught behind a here document: in $( ) it would take one process more.
receive() {
  e=
  exec 8<<END

END
  tar --one-top-level="${t##*/}" -xmof - -C "$G" 2>/proc/self/fd/8 && return
  # One that was killed has not refused anything.
  if [ $? -lt 128 ] && [ ! -d "$t" ]; then
    mkdir "$t" || fail unwritable "cannot write below $G: $(disk)"
    e=$(tar -xf - -C "$t" 2>&1)
    return
  fi
  while read -r l; do e="$e${e:+; }$l"; done <&8
  return 1
}

# DIGEST [texts], then the bundle on standard input if it is wanted
stage() {
  texts=$2
  ready
  state
  gens=
  facts=
  if [ "$texts" = texts ] || glance "$1"; then
    look
    find_generation "$1" && rest && service_facts
  fi
  if [ -n "$h" ]; then
    show_line "$facts"
    ok false "generation $n already holds it"
  fi
  t=$G/.incoming.$$
  trap '[ ! -e "$t" ] || rm -rf "$t"' EXIT
  [ ! -e "$t" ] || rm -rf "$t"
  [ -w "$G" ] || fail unwritable "cannot write below $G: $(disk)"
  show_line "" "SPOKEWRIGHT-WANT$nl"
  receive || case $e in
    *"o space"* | *uota*) fail no-space "no space left below $B" ;;
    *) fail incomplete "the bundle did not arrive whole: $e" ;;
  esac
  cd "$t" || fail unwritable "cannot read below $G: $(disk)"
  echo "$1" >.digest
  flush .digest ./* . || fail unwritable "cannot sync $t: $(disk)"
  # The digest proves the manifest, and the manifest the files.
  sha256sum -c MANIFEST - >/dev/null <<END || fail incomplete "what was read back from the disk is not what was sent"
$1  MANIFEST
END
  cd /
  h=$1
  # No lock: -T renames to a free name or not at all. It is taken where mv cannot do that, or another run was faster.
  n=$((top + 1))
  if [ -e "$G/$n" ] || ! mv -T "$t" "$G/$n"; then
    lock
    h=$1
    n=$((top + 1))
    if [ -e "$G/$n" ] || ! mv "$t" "$G/$n"; then fail unwritable "cannot rename below $G: $(disk)"; fi
  fi
  flush "$G"
  ok true "staged as generation $n"
}

#-- A site to which a bundle is new does without what follows: the controller sends it only when it is asked to.

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

# Whether the client runs, and will after the next boot, and whether somebody holds it
service_facts() {
  service look
  linked && l=true || l=false
  held
  hold_facts
  facts=",\"service\":\"$up\",\"enabled\":$enabled,\"links\":$l$hold_facts"
}

# Everything that knows the init system, down to disarm().
U=openvpn-client@spokewright.service
T=spokewright-deadman
C=$R/etc/openvpn/client
CL=../../spokewright/current/client.conf
SD=$R/etc/systemd/system
D=$SD/$U.d
DL=../../../spokewright/current/unit.conf
GU=spokewright-guard.service
GL=../../spokewright/current/$GU
I=$R/etc/init.d/spokewright

# The client and its keeper must not hold our lock, nor the SSH session.
control() { sh "$B/current/init.sh" "$1" </dev/null >/dev/null 9>&-; }
# One that goes through the links a SysV boot would follow
starts() { for l in "$R"/etc/rc[2345].d/S??spokewright "$R"/etc/rc.d/rc[2345].d/S??spokewright; do [ ! -e "$l" ] || return 0; done && false; }
# An rcS that runs S??* takes a link; any other BusyBox init takes a line.
runs_links() { grep -q '/S[?[]' "$R/etc/init.d/rcS"; }
enable_links() {
  for d in "$R/etc" "$R/etc/rc.d"; do
    [ -d "$d/rc2.d" ] || continue
    for l in 2 3 4 5; do [ ! -d "$d/rc$l.d" ] || point "$I" "$d/rc$l.d/S60spokewright" || return 1; done
    for l in 0 1 6; do [ ! -d "$d/rc$l.d" ] || point "$I" "$d/rc$l.d/K40spokewright" || return 1; done
  done
}
enable_line() {
  i=$R/etc/inittab
  [ -f "$i" ] && cp -p "$i" "$i.spokewright" && printf '\n%s\n' "::once:/bin/sh $I start" >>"$i.spokewright" &&
    flush "$i.spokewright" && mv -f "$i.spokewright" "$i" && flush "$R/etc"
}

service() {
  case $init-$1 in
    systemd-restart)
      [ -z "$stale" ] || systemctl daemon-reload
      systemctl reset-failed $U
      systemctl restart $U
      ;;
    systemd-start)
      systemctl reset-failed $U
      systemctl start $U
      ;;
    systemd-stop) systemctl stop $U ;;
    systemd-enable) systemctl enable $U ;;
    systemd-why) systemctl status $U --no-pager --lines=4 | tail -n 4 ;;
    systemd-look)
      up=inactive
      enabled=false
      for l in $(systemctl show -p ActiveState -p UnitFileState $U); do
        case $l in
          ActiveState=?*) up=${l#*=} ;;
          UnitFileState=enabled) enabled=true ;;
        esac
      done
      ;;
    *-look)
      up=inactive
      enabled=false
      [ ! -f "$B/current/init.sh" ] || ! control status || up=active
      service enabled && enabled=true
      ;;
    openrc-restart)
      # Its verdict is of the keeper, not of the client.
      rc-service spokewright restart </dev/null >/dev/null 9>&-
      control status
      ;;
    *-restart) control restart ;;
    *-start) control status || service restart ;;
    # The keeper goes on, and its guard sits the hold out.
    *-stop)
      control restart
      ! control status
      ;;
    *-why) sh "$B/current/init.sh" why </dev/null 9>&- ;;
    openrc-enabled) [ -e "$R/etc/runlevels/default/spokewright" ] ;;
    openrc-enable) rc-update add spokewright default ;;
    sysv-enabled) starts ;;
    sysv-enable)
      if has update-rc.d; then
        update-rc.d spokewright defaults
      elif has chkconfig; then
        chkconfig --add spokewright && chkconfig spokewright on
      fi >/dev/null
      starts || enable_links
      ;;
    busybox-enabled) [ -e "$R/etc/init.d/S60spokewright" ] || grep -q "^::once:.* $I start" "$R/etc/inittab" ;;
    busybox-enable) if runs_links; then point "$I" "$R/etc/init.d/S60spokewright"; else enable_line; fi ;;
    *) return 3 ;;
  esac
}

links() {
  case $init in
    systemd)
      mkdir -p "$C" "$D" && chmod 755 "$D" || return 1
      linked && return 0
      point "$CL" "$C/spokewright.conf" && point "$DL" "$D/spokewright.conf" || return 1
      linked && return 0
      # One of these directories is a link to elsewhere.
      point "$B/current/client.conf" "$C/spokewright.conf" && point "$B/current/unit.conf" "$D/spokewright.conf"
      ;;
    none) ;;
    openrc)
      # It would name the service after what a link leads to.
      linked && return 0
      l=${I%/*}/.spokewright.new
      cp "$B/current/$script" "$l" && chmod 755 "$l" && flush "$l" && mv -f "$l" "$I" && flush "${I%/*}"
      ;;
    *) mkdir -p "${I%/*}" && point "$B/current/$script" "$I" ;;
  esac
}
linked() {
  case $init in
    systemd)
      # Generations from before it was a unit have their guard in unit.conf.
      [ "$C/spokewright.conf" -ef "$B/current/client.conf" ] && [ "$D/spokewright.conf" -ef "$B/current/unit.conf" ] &&
        { [ ! -e "$B/current/$GU" ] || [ "$SD/$GU" -ef "$B/current/$GU" ]; }
      ;;
    openrc) cmp -s "$B/current/$script" "$I" ;;
    *) [ "$I" -ef "$B/current/$script" ] ;;
  esac
}

# N SECONDS: have the deadman verb run then. One that fires early, or twice, looks at `pending` and does no harm.
arm() {
  disarm
  a=$G/$1/agent.sh
  [ $init = systemd ] && systemd-run --quiet --unit=$T --on-active="$2" --timer-property=AccuracySec=1s \
    /bin/sh "$a" deadman "$1" >/dev/null 9>&- && return
  own=
  has setsid && own=setsid
  # shellcheck disable=SC2016 # the inner shell expands them
  $own sh -c 'sleep "$2"; exec sh "$0" deadman "$1"' "$a" "$1" "$2" >/dev/null </dev/null 9>&- &
}
disarm() {
  [ $init = systemd ] || return 0
  systemctl stop $T.timer
  systemctl reset-failed $T.timer $T.service
}

# A hold ends by the site's clock, or when the site has run for its whole length, whichever comes first: no clock that is
# wrong, stands or jumps can make it longer. Across a boot nothing is known of the last minute, so that counts as used.
H=spokewright-hold
HU=$SD/$H.service
HW=$SD/multi-user.target.wants/$H.service
HD=$D/hold.conf
STEP=60
LONGEST=86400

# Whether the site is held; the seconds that remain, and who said so and why
held() {
  remains=0
  used=0
  { read -r hsecs hend b at && read -r by && read -r why; } <"$S/hold" || return 1
  read -r e u ub uat <"$S/held" && [ "$e" = "$hend" ] && used=$u b=$ub at=$uat
  for f in "$hsecs" "$hend" "$used" "$at"; do case $f in '' | *[!0-9]*) return 1 ;; esac; done
  boot_id
  uptime
  if [ "$b" = "$boot" ] && [ "$at" -le "$now" ]; then used=$((used + now - at)); else age; used=$((used + STEP + age)); fi
  remains=$((hsecs - used))
  f=$(date +%s)
  f=$((hend - f))
  [ "$f" -ge "$remains" ] || remains=$f
  [ "$remains" -gt 0 ] && return
  remains=0
  return 1
}
hold_facts() {
  hold_facts=",\"held\":$remains"
  [ "$remains" = 0 ] && return
  text "$by"
  hold_facts="$hold_facts,\"held_by\":\"$text\""
  text "$why"
  # Its length and its end are the name of a hold.
  hold_facts="$hold_facts,\"held_reason\":\"$text\",\"hold\":\"$hsecs-$hend\""
}
# From here on the receipt says whether the site is held, whatever becomes of the rest.
tell_hold() {
  held
  hold_facts
  more=$hold_facts
}
not_held() {
  if held; then
    tell_hold
    fail held "held for another $remains s by $by${why:+: $why}; release it first"
  fi
  rm -f "$S/hold" "$S/held"
}

# Returns when there is no hold any more.
sit_out() {
  while held; do
    put held "$hend $used $boot $now"
    [ "$remains" -le $STEP ] || remains=$STEP
    sleep "$remains"
  done
}

# Whether the generation sits a hold out; with systemd it needs to know nothing
knows_holds() { [ $init = systemd ] || grep -q '^holder() {' "$B/current/agent.sh"; }
# What keeps the client stopped and ends that: a drop-in beside the one of the generation, whatever that is, and a unit
# that is there again after a boot. Elsewhere it is the guard of the generation itself.
keep_stopped() {
  if [ $init != systemd ]; then
    knows_holds && return
    fail too-old "generation $cur knows no holds and would start its client again; bring the site up to date first (playbooks/sites.yml)"
  fi
  mkdir -p "$D" "${HW%/*}" && chmod 755 "$D" "${HW%/*}" || return 1
  # Over SSH this text is in a variable of the line that runs it.
  case ${a:-} in
    "#spokewright-agent"*) printf '%s\n' "$a" >"$S/hold.sh" ;;
    *) cat "$0" >"$S/hold.sh" ;;
  esac || return 1
  printf '%s\n' "[Unit]" "ConditionPathExists=!$S/hold" >"$HD" || return 1
  printf '%s\n' "[Unit]" "Description=Starts the tunnel client of a Spokewright site again when its hold is over" \
    "StartLimitIntervalSec=0" "[Service]" "ExecStart=/bin/sh $S/hold.sh holder" "Restart=on-failure" "RestartSec=5s" >"$HU" || return 1
  chmod 644 "$HD" "$HU" && flush "$S/hold.sh" "$HD" "$HU" && point "../$H.service" "$HW" && flush "$S" "$D" "${HU%/*}" &&
    systemctl daemon-reload
}
stays_stopped() {
  [ $init = systemd ] || return 0
  [ -s "$S/hold.sh" ] && [ -s "$HD" ] && [ -e "$HW" ] && systemctl is-active --quiet $H.service
}

# [own]: end the hold. Whoever finds the file gone starts the client, and removes what would have done so only then.
unhold() {
  rm -f "$S/hold" "$S/held" && flush "$S"
  service start || return 1
  [ $init = systemd ] || return 0
  [ "$1" = own ] || systemctl stop $H.service
  rm -f "$HW" "$HU" "$HD" "$S/hold.sh"
  systemctl daemon-reload
}

# N: its guard is there before anything wants it, so that a power cut in the next moment finds it
guarded() {
  [ -e "$G/$1/$GU" ] || return 0
  [ -d "$SD" ] || mkdir -p "$SD" || return 1
  # One of these directories is a link to elsewhere.
  [ "$SD/../../spokewright" -ef "$B" ] || GL=$B/current/$GU
  point "$GL" "$SD/$GU"
}

# N: make it the current generation
flip() {
  stale=
  if [ $init = systemd ]; then
    cmp -s "$G/$1/unit.conf" "$B/current/unit.conf" && cmp -s "$G/$1/$GU" "$B/current/$GU" &&
      [ -e "$D/spokewright.conf" ] && [ -e "$SD/$GU" ] || stale=1
    guarded "$1" || return 1
  fi
  point "generations/$1" "$B/current" && links
}

# N: go back from it to the confirmed generation; 1: there is none, 2: not possible now
leave() {
  state
  [ "$con" -gt 0 ] && [ "$con" != "$1" ] || return 1
  [ "$con" != "$cur" ] || return 0
  put reverted "$1"
  flip "$con" || return 2
}
# Last of all: as long as it is there, the next start or the next run finishes what is left to do.
left() { rm -f "$S/pending"; }

# N: a half removed generation must not be seen as one
drop() { mv "$G/$1" "$G/.old.$1.$$" && rm -rf "$G/.old.$1.$$"; }

prune() {
  state
  for g in $gens; do
    newer=0
    for d in $gens; do [ "$d" -le "$g" ] || newer=$((newer + 1)); done
    case " $con $prv $cur " in *" $g "*) continue ;; esac
    [ $newer -lt $KEEP ] || drop "$g"
  done
}

show() {
  texts=texts
  state
  look
  service_facts
  more_facts=$facts
  o=$(openvpn --version) && o=${o#OpenVPN } && o=${o%% *} || o=
  text "$o"
  more_facts="$more_facts,\"openvpn\":\"$text\",\"free_kb\":"
  d=$B
  [ -d "$d" ] || d=$R/etc
  d=$(df -Pk "$d")
  # shellcheck disable=SC2086 # to be split
  set -- ${d##*"$nl"}
  num "$4"
  list=
  for d in flock setsid systemd-run logger busybox; do has $d && list="$list${list:+,}\"$d\""; done
  knows_holds && w=true || w=false
  show_line "$more_facts$num,\"tools\":[$list],\"holds\":$w"
  ok false ""
}

# N|DIGEST: under the lock, say what is there and find what is meant
meant() {
  lock
  find_generation "$1" || h=
  show_line ""
  [ -z "$h" ] || return 0
  [ ${#1} -ne 64 ] || fail not-staged "bundle ${1%"${1#????????????}"} is not on the site; stage it first"
  fail no-generation "generation $n is not here or not whole; stage it again"
}

# YYYY-MM-DD as a number
day() { d=${1#*-} && num "${1%%-*}${d%-*}${d#*-}"; }
# Whether the clock is where the certificates of generation n are valid. With another one a client that starts anew may
# believe no gateway, and so may the one of the generation before: there would be no way back.
on_time() {
  read -r facts <"$G/$n/facts" || facts=
  case $facts in *'"valid":["'*) ;; *) return 0 ;; esac
  from=${facts#*'"valid":["'}
  from=${from%%'"]'*}
  to=${from#*'","'}
  from=${from%%'"'*}
  today=$(date -u +%Y-%m-%d)
  day "$from"
  e=$num
  day "$to"
  f=$num
  day "$today"
  [ "$num" = 0 ] || { [ "$num" -ge "$e" ] && [ "$num" -le "$f" ]; }
}

# N|DIGEST SECONDS
activate() {
  num "$2"
  secs=$num
  meant "$1"
  has openvpn || fail openvpn-missing "openvpn is not installed"
  [ $init != none ] || fail no-service-manager "no init system that can keep the client running was found"
  not_held
  service look
  [ "$up" = activating ] && up=active
  uptime
  boot_id
  until=$((now + secs))
  if [ "$cur" = "$n" ] && [ "$up" = active ] && [ "$enabled" = true ] && linked; then
    [ "$con" = "$n" ] && [ "$pen" = 0 ] && ok false "generation $n runs and is confirmed"
    [ "$pen" = "$n" ] && [ "$step" = started ] && put pending "$n $boot started $until" && {
      arm "$n" "$secs"
      ok false "generation $n runs and waits to be confirmed"
    }
  fi
  # A client that is down has nothing to lose, nor has one that is half way back to this generation.
  if [ "$up" = active ] && { [ "$con" != "$n" ] || [ "$pen" = 0 ]; }; then
    on_time || fail wrong-clock "its clock says $today, and this generation's certificates are valid from $from to $to: its client might believe no gateway, with the keys it has now as little. Set the clock, then run again; nothing was changed"
  fi
  if [ "$con" != "$n" ]; then
    put pending "$n $boot armed $until" || fail no-space "cannot write below $S"
    arm "$n" "$secs"
  fi
  [ "$rev" = 0 ] || rm -f "$S/reverted"
  flip "$n" || fail unwritable "cannot make generation $n current: $(disk)"
  e=
  [ "$enabled" = true ] || service enable >/dev/null || e="cannot be enabled"
  [ -n "$e" ] || service restart || e="did not start"
  if [ -n "$e" ]; then
    why=$(service why)
    leave "$n"
    w=$?
    if [ $w = 0 ]; then
      service restart
      left
      disarm
      fail service-failed "the client $e on generation $n; went back to $con. $why"
    fi
    # What could not be left now is the timer's to leave.
    [ $w = 2 ] || { left && disarm; }
    fail service-failed "the client $e on generation $n. $why"
  fi
  if [ "$con" = "$n" ]; then
    left
    disarm
    ok true "generation $n runs and is confirmed"
  fi
  put pending "$n $boot started $until"
  ok true "generation $n runs, $secs s to be confirmed"
}

# N|DIGEST
confirm() {
  meant "$1"
  [ "$cur" = "$n" ] || fail not-current "generation $cur is current, not $n: the site went back by itself"
  [ "$con" = "$n" ] && [ ! -f "$S/pending" ] && ok false "generation $n was confirmed before"
  # A run that went back to it may have been killed before the client was restarted.
  case $pen in 0 | "$n") ;; *) service restart || fail service-failed "the client did not start on generation $n" ;; esac
  if [ "$con" != "$n" ]; then
    [ "$con" -eq 0 ] || put previous "$con"
    put confirmed "$n" || fail no-space "cannot write below $S"
  fi
  left
  disarm
  prune
  ok true "generation $n is confirmed"
}

# [N]: leave generation N; without a number what is on probation, else what is current, but never twice
revert() {
  lock
  show_line ""
  num "${1:-$pen}"
  n=$num
  if [ "$n" = 0 ]; then
    n=$cur
    [ "$rev" = 0 ] || [ "$rev" = "$cur" ] || ok false "went back from generation $rev to $cur before"
  fi
  [ "$n" != 0 ] || fail no-previous "no generation is current"
  if [ "$cur" != "$n" ] && [ "$pen" != "$n" ]; then
    n=$cur
    ok false "generation $num is not current"
  fi
  not_held
  if [ "$con" = "$n" ] && [ "$prv" != "$n" ]; then
    whole "$prv" || { h= && fail no-previous "no generation before $n is left"; }
    boot_id
    # From here on a power cut ends in the generation before, as if this one had been on probation.
    if ! put pending "$n $boot left 0" || ! put confirmed "$prv"; then
      fail no-space "cannot write below $S"
    fi
    rm -f "$S/previous"
  fi
  leave "$n"
  case $? in
    1) left && fail no-previous "no confirmed generation to go back to" ;;
    2) fail unwritable "cannot go back from generation $n: $(disk)" ;;
  esac
  service restart || fail service-failed "the client did not start on generation $con"
  left
  disarm
  num=$n
  n=$con
  whole "$n"
  ok true "went back from generation $num to $con"
}

# N | DIGEST | epoch E | old: remove generations that are no longer needed. What is newer than the current one waits
# for its activation and is not old.
forget() {
  lock
  show_line ""
  h=
  gone=
  used=
  num "$1"
  for g in $gens; do
    case $1 in
      old) [ "$g" -lt "$cur" ] || continue ;;
      epoch)
        read -r facts <"$G/$g/facts" || facts=
        case $facts in *"\"epoch\":$2,"* | *"\"epoch\":$2}"*) ;; *) continue ;; esac
        ;;
      below)
        # Keys that no gateway lets in: not even a way back.
        read -r facts <"$G/$g/facts" || facts=
        e=${facts#*'"epoch":'}
        e=${e%%[!0-9]*}
        [ -n "$e" ] && [ "$e" -lt "$2" ] || continue
        ;;
      *)
        whole "$g"
        [ "$g" = "$num" ] || [ "$h" = "$1" ] || continue
        ;;
    esac
    w=
    [ "$g" = "$prv" ] && [ "$g" != "$num" ] && [ "$1" != below ] && w="the way back; forget it by its number"
    [ "$g" = "$pen" ] && w="on probation"
    [ "$g" = "$con" ] && w="the confirmed one"
    [ "$g" = "$cur" ] && w="current"
    if [ -n "$w" ]; then
      [ "$1" = old ] || used="$used${used:+; }generation $g is $w"
      continue
    fi
    # The numbers of what is gone are given out again.
    [ "$g" != "$prv" ] || rm -f "$S/previous"
    [ "$g" != "$rev" ] || rm -f "$S/reverted"
    drop "$g" || fail unwritable "cannot remove generation $g: $(disk)"
    gone="$gone${gone:+,}$g"
  done
  h=
  more=",\"forgotten\":[$gone]"
  [ -z "$gone" ] || flush "$G"
  [ -n "$gone" ] && w=true || w=false
  [ -z "$used" ] || receipt false "$w" in-use "not forgotten: $used"
  ok "$w" "${gone:+removed generation $gone}"
}

# SECONDS NOW BY WHY: keep the client stopped for so long. NOW is the controller's clock: the end is by the one that is
# ahead, so that a clock that is put right does not end the hold.
hold() {
  num "$1"
  secs=$num
  num "$2"
  told=$num
  tell_hold
  if [ "$secs" = 0 ] || [ "$secs" -gt $LONGEST ]; then fail bad-time "a site is held for 1 to $LONGEST s, not for $1"; fi
  # Somebody waits for the answer.
  lock 8
  [ $init != none ] || fail no-service-manager "no init system that could keep the client stopped was found"
  [ "$cur" != 0 ] || fail no-generation "nothing runs here that could be held"
  if [ "$pen" != 0 ]; then
    uptime
    [ "$until" -gt "$now" ] && w=$((until - now)) || w=0
    fail on-probation "generation $pen is on probation for another $w s, and would go back by itself; hold it when that is over"
  fi
  service look
  tell_hold
  near=$((secs - remains))
  [ $near -ge 0 ] || near=$((-near))
  # To say it twice within a twentieth of the time is to say it once. It has another end since, and so another name: a
  # release that saw the first must not end the second.
  same=
  if [ "$remains" != 0 ] && [ $((near * 20)) -le "$secs" ] && [ "$by" = "$3" ] && [ "$why" = "$4" ] && stays_stopped; then
    case $up in
      inactive | failed) same=1 ;;
    esac
  fi
  [ -n "$same" ] || keep_stopped || fail unwritable "cannot write what would keep the client stopped: $(disk)"
  boot_id
  uptime
  end=$(date +%s)
  [ "$told" -le "$end" ] || end=$told
  end=$((end + secs))
  rm -f "$S/held"
  put hold "$secs $end $boot $now$nl$3$nl$4" || fail no-space "cannot write below $S"
  tell_hold
  [ -z "$same" ] || ok false "held for another $remains s"
  if [ $init = systemd ] && ! systemctl restart $H.service; then
    unhold
    tell_hold
    fail service-failed "what would end the hold did not start, so the client was not stopped"
  fi
  service stop && w=0 || w=1
  tell_hold
  # A guard that had just sat out the hold before may have taken this one for it.
  if [ "$w" = 1 ] || [ ! -e "$S/hold" ]; then fail service-failed "the client did not stop. $(service why)"; fi
  ok true "held for $remains s"
}

# [HOLD]: end the hold now; with its name no other one.
release() {
  tell_hold
  lock 8
  if [ -n "$1" ] && held && [ "$1" != "$hsecs-$hend" ]; then
    tell_hold
    fail held-anew "held anew by $by${why:+: $why}, for another $remains s; only another release ends that"
  fi
  more=",\"held\":0"
  [ -e "$S/hold" ] || [ -e "$HU" ] || ok false "not held"
  unhold || fail service-failed "the client did not start. $(service why)"
  ok true "released, the client runs"
}

# called by the unit of the hold, now and after every boot
holder() {
  sit_out
  lock 600
  # Whoever had the lock may have prolonged it.
  held && exit 1
  unhold own || exit 1
  exit 0
}

# N: called by the timer. The probation may have been prolonged since.
deadman() {
  while state && [ "$pen" = "$1" ]; do
    uptime
    if [ "$until" -gt "$now" ]; then
      sleep $((until - now))
      continue
    fi
    lock 600
    uptime
    [ "$pen" = "$1" ] && [ "$until" -le "$now" ] || exit 0
    leave "$1"
    case $? in
      0) service restart && left ;;
      1) left ;;
    esac
    exit 0
  done
}

# called before the client starts: a power cut took the timer with it
guard() {
  # Where there is a unit for it, that does it.
  if [ $init != systemd ] && [ -e "$S/hold" ]; then
    sit_out
    held || rm -f "$S/hold" "$S/held"
  fi
  state
  [ "$pen" != 0 ] || exit 0
  boot_id
  [ "$pboot" = "$boot" ] && exit 0
  leave "$pen"
  [ $? = 2 ] || left
}

case $verb in
  show | stage | activate | confirm | revert | forget | hold | release | holder | deadman | guard)
    [ $# = 0 ] || shift
    "$verb" "$@"
    ;;
  rest) ;;
  *) fail unknown-verb "$verb?" ;;
esac
