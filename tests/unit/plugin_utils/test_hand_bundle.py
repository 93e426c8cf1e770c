# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A person with a console installs a bundle by doing what INSTALL says, word for word, under every shell of a site."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.bundle import MANIFEST, Bundle
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.hand_bundle import INSTALL, hand_bundle
from unit.plugin_utils.fleet_files import write_fleet
from unit.plugin_utils.stores import store_in
from unit.roles.site_agent_support import Site

if TYPE_CHECKING:
    from pathlib import Path


def made(tmp_path: Path) -> tuple[Bundle, bytes]:
    fleet = load_fleet(plan_file=write_fleet(tmp_path))
    return hand_bundle(site=fleet.sites[0], key=store_in(tmp_path).site_key(site="site-0001"))


def test_it_is_the_bundle_and_a_text(tmp_path: Path) -> None:
    bundle, archive = made(tmp_path)
    (tmp_path / "bundle.tar").write_bytes(archive)
    (tmp_path / "bare.tar").write_bytes(bundle.archive)

    with tarfile.open(tmp_path / "bundle.tar") as ours, tarfile.open(tmp_path / "bare.tar") as bare:
        assert ours.getnames() == [INSTALL, *bare.getnames()]
        assert all(member.mode & 0o077 == 0 for member in ours)
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in ours} == {(0, 0, 0, "")}
        for name in bare.getnames():
            one, two = ours.extractfile(name), bare.extractfile(name)
            assert one is not None
            assert two is not None
            assert one.read() == two.read()


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_doing_what_install_says_installs_it(tmp_path: Path, shell: str) -> None:
    (tmp_path / "controller").mkdir()
    bundle, archive = made(tmp_path / "controller")
    site = Site(tmp_path, shell)
    file = tmp_path / "stick" / "site-0001.tar"
    file.parent.mkdir()
    file.write_bytes(archive)
    (tmp_path / "console").mkdir()

    with tarfile.open(file) as tar:
        stream = tar.extractfile(INSTALL)
        assert stream is not None
        text = stream.read().decode()
    commands = [line.strip() for line in text.splitlines() if re.match(r"    (?!tools/)", line)]
    said = subprocess.run(
        [*site.shell, "-e"],
        check=True,
        input="\n".join(commands).replace("FILE", str(file)).encode(),
        capture_output=True,
        cwd=tmp_path / "console",
        env={"SPOKEWRIGHT_ROOT": str(site.root), "SPOKEWRIGHT_PATH": site.path, "PATH": f"{site.path}:{os.defpath}"},
        timeout=60,
    ).stdout.decode()

    receipts = [
        json.loads(line.removeprefix("SPOKEWRIGHT-RECEIPT "))
        for line in said.splitlines()
        if line.startswith("SPOKEWRIGHT-RECEIPT ")
    ]
    assert [one["verb"] for one in receipts] == ["stage", "activate", "confirm"]
    assert all(one["ok"] for one in receipts)
    shown = site.run("show")
    assert (shown["current"], shown["confirmed"], shown["pending"]) == (1, 1, 0)
    assert site.run("stage", bundle.digest)["changed"] is False
    current = site.base / "current"
    assert (current / MANIFEST).read_text() == bundle.manifest
    assert all(path.stat().st_mode & 0o077 == 0 for path in current.iterdir())
    assert not file.exists()
    assert list((tmp_path / "console").iterdir()) == []
