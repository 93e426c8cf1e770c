# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's own exceptions."""

from __future__ import annotations


class LabError(Exception):
    """Something an operator can act on; the text says what is wrong and what to do next."""


class NotRootError(LabError):
    """The command needs root."""
