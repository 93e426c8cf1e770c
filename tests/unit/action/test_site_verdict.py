# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each host's own part of what fan-outs found."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from unit.action.action_tools import act

STAGED: dict[str, Any] = {
    "sites": {
        "site-0001": {"ok": True, "changed": True, "message": "staged as generation 2", "diff": [{"after": "one"}]},
        "site-0002": {"ok": False, "changed": False, "reason": "unreachable", "message": "site-0002: nothing answers."},
        "site-0003": {"ok": True, "changed": False, "message": "", "reason": ""},
    }
}
ACTIVATED: dict[str, Any] = {
    "sites": {"site-0001": {"ok": False, "changed": True, "reason": "busy", "message": "site-0001: busy"}}
}


def verdict(site: str, *, diff: bool = False, **registered: Any) -> dict[str, Any]:
    variables = {"inventory_hostname": site, **registered}
    return act("site_verdict", {"results": list(registered)}, diff=diff, variables=variables)


def test_a_change_is_the_hosts_own() -> None:
    assert verdict("site-0001", staged=STAGED) == {"changed": True, "msg": "staged as generation 2"}
    assert verdict("site-0003", staged=STAGED) == {"changed": False, "msg": ""}


def test_a_failure_has_its_reason() -> None:
    said = verdict("site-0002", staged=STAGED)

    assert (said["failed"], said["changed"], said["reason"]) == (True, False, "unreachable")
    assert said["msg"] == "site-0002: nothing answers."


def test_the_first_failure_decides_and_a_change_before_it_counts() -> None:
    said = verdict("site-0001", staged=STAGED, activated=ACTIVATED)

    assert (said["failed"], said["changed"], said["reason"]) == (True, True, "busy")


def test_a_host_that_was_not_asked_is_fine() -> None:
    assert verdict("site-0009", staged=STAGED) == {"changed": False, "msg": ""}


def test_the_difference_is_the_hosts_own() -> None:
    assert verdict("site-0001", diff=True, staged=STAGED)["diff"] == [{"after": "one"}]
    assert verdict("site-0003", diff=True, staged=STAGED)["diff"] == []


def test_values_instead_of_names_are_refused() -> None:
    with pytest.raises(
        AnsibleActionFail, match=r"'nothing' is no registered result\. Name the variable, not its value"
    ):
        act("site_verdict", {"results": ["nothing"]}, variables={"inventory_hostname": "site-0001"})
