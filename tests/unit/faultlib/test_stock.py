# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stock configuration has not."""

from __future__ import annotations

from pathlib import Path

from faultlib.stock import client_config, keepalived_config, server_config, story_client_config, story_server_config

TEMPLATE = Path(__file__).resolve().parents[3] / "bench" / "failover_stock" / "keepalived.conf"


def test_a_daemon_has_the_usual_keepalive_and_nothing_that_tells_clients() -> None:
    text = "dev tun0\nkeepalive 2 6\nhand-window 15\nexplicit-exit-notify 1\nmanagement /a unix\nserver 10.0.0.0\n"

    found = server_config(text=text, name="stock-tun0").splitlines()

    assert found == [
        "dev tun0",
        "server 10.0.0.0",
        "keepalive 10 60",
        "management /run/openvpn-server/stock-tun0.sock unix",
    ]


def test_a_client_has_no_timer_of_ours_and_keeps_its_remotes() -> None:
    text = "hand-window 15\n<connection>\nremote 198.19.0.1 1194 udp4\nconnect-retry 1 5\n</connection>\nverb 3\n"

    assert client_config(text=text) == "<connection>\nremote 198.19.0.1 1194 udp4\n</connection>\nverb 3\n"


def test_one_is_the_master_and_adverts_are_keepaliveds_own() -> None:
    vips, ids = {"inside": "10.200.0.1", "frame_relay": "198.19.0.1"}, {"inside": 10, "frame_relay": 20}
    template = TEMPLATE.read_text(encoding="utf-8")

    master = keepalived_config(template=template, owner=True, vips=vips, ids=ids)
    backup = keepalived_config(template=template, owner=False, vips=vips, ids=ids)

    assert "group { inside frame_relay }" in master
    assert master.count("state MASTER") == backup.count("state BACKUP") == 2
    assert "advert_int" not in master
    assert "virtual_router_id 20" in master
    assert "198.19.0.1" in master
    assert "$" not in master


def test_the_storys_daemon_serves_everybody_and_has_its_options() -> None:
    text = "dev tun0\nkeepalive 2 6\nclient-config-dir /c/tun0/ccd\ntls-crypt-v2-verify /v\nmssfix 1400 mtu\nrcvbuf 9\n"

    found = story_server_config(text=text, name="stock-tun0").splitlines()

    assert found[:3] == ["dev tun0", "keepalive 60 300", "management /run/openvpn-server/stock-tun0.sock unix"]
    assert "client-config-dir /etc/spokewright-bench/ccd" in found
    assert not [line for line in found if line.startswith(("tls-crypt-v2-verify", "rcvbuf", "connect-freq"))]


def test_every_site_of_the_story_asks_at_the_same_port() -> None:
    text = "allow-compression no\n<connection>\nremote 198.19.0.1 1195 udp4\nserver-poll-timeout 4\n</connection>\n"

    found = story_client_config(text=text, port="1194").splitlines()

    assert found[-3:] == ["<connection>", "remote 198.19.0.1 1194 udp4", "</connection>"]
    assert "fragment 1200" in found[:-3], "a connection has only what was said before it"
