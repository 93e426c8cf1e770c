# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be said with a verb."""

from __future__ import annotations

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.site_verbs import VerbError, check_generation


@pytest.mark.parametrize(
    ("verb", "generation"),
    [
        ("forget", ""),
        ("forget", "old"),
        ("forget", "epoch 2"),
        ("forget", "7"),
        ("forget", "0" * 64),
        ("revert", ""),
        ("revert", "7"),
        ("stage", ""),
    ],
)
def test_what_a_site_understands(verb: str, generation: str) -> None:
    check_generation(verb=verb, generation=generation)


@pytest.mark.parametrize(
    ("verb", "generation", "message"),
    [
        (
            "forget",
            "all",
            r"^generation is 'all'\. With forget it is a number, a digest, 'epoch N', 'retired' or 'old'\.$",
        ),
        ("forget", "epoch", "'epoch N'"),
        ("forget", "1; reboot", "generation is '1; reboot'"),
        ("forget", "0", "generation is '0'"),
        ("revert", "old", r"^generation is 'old'\. With revert it is a number\.$"),
        ("stage", "7", r"^generation is '7', but stage takes none: it means the plan's bundle\.$"),
    ],
)
def test_what_it_does_not(verb: str, generation: str, message: str) -> None:
    with pytest.raises(VerbError, match=message):
        check_generation(verb=verb, generation=generation)
