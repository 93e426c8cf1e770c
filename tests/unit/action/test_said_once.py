# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our errors are whole texts. Ansible adds the text of a cause, and of the cause's cause, to what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleActionFail

from unit.action.action_tools import act
from unit.plugin_utils.fleet_files import write_fleet

ACTIONS = Path(__file__).resolve().parents[3] / "plugins" / "action"


def test_an_error_with_a_cause_of_its_own_is_said_once(tmp_path: Path) -> None:
    plan = str(write_fleet(tmp_path))
    act("site_psk", {"plan": plan})
    (tmp_path / "keystore.key").write_text("x" * 64 + "\n", encoding="ascii")

    for check in (True, False):
        with pytest.raises(AnsibleActionFail) as refused:
            act("site_psk", {"plan": plan}, check=check)
        assert str(refused.value).count("does not open") == 1


@pytest.mark.parametrize("path", sorted(ACTIONS.glob("*.py")), ids=lambda path: path.stem)
def test_no_action_hands_the_cause_on(path: Path) -> None:
    raised = [line for line in path.read_text(encoding="utf-8").splitlines() if "AnsibleActionFail(" in line]
    assert [line for line in raised if "str(exc)" in line and not line.endswith("from None")] == []
