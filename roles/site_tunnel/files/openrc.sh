# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh disable=SC2034 # openrc-run reads it
#
# What OpenRC runs; the work is done by init.sh beside it.
description="Tunnel client of a Spokewright site"

depend() {
  need net
  use dns logger
  after firewall
}

start() {
  ebegin "Starting the tunnel client"
  # The keeper goes on trying when the client does not come up, so the service is started in any case.
  /bin/sh /etc/spokewright/current/init.sh restart || ewarn "It did not start yet and is tried again every few seconds"
  eend 0
}

stop() {
  ebegin "Stopping the tunnel client"
  /bin/sh /etc/spokewright/current/init.sh stop
  eend $?
}

status() {
  /bin/sh /etc/spokewright/current/init.sh status
}
