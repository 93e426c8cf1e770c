# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that knows Ansible's vault format. `ansible-vault view` opens what is written here."""

from __future__ import annotations

import os
from typing import Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

HEADER: Final = "$ANSIBLE_VAULT;"
SALT_BYTES: Final = 32


class VaultFormatError(FleetError):
    """A text is not in the vault format, or was damaged."""


class WrongSecretError(VaultFormatError):
    """The text was encrypted with another secret, or was changed since."""


def is_vault(text: str) -> bool:
    """Whether a text claims to be encrypted."""
    return text.startswith(HEADER)


def encrypt(*, text: str, secret: bytes) -> str:
    """The text in the vault format."""
    vault = _ansible_vault()
    # A salt of our own: a setting of Ansible can make its salt the same for every file.
    sealed: bytes = vault.VaultLib().encrypt(
        text.encode(), secret=vault.VaultSecret(secret), salt=os.urandom(SALT_BYTES).hex()
    )
    _forget_derived_keys()
    return sealed.decode("ascii")


def decrypt(*, text: str, secret: bytes) -> str:
    """The text inside.

    Raises:
        WrongSecretError: this secret does not open it.
        VaultFormatError: it is nothing that any secret opens.
    """
    from ansible.errors import AnsibleError  # noqa: PLC0415

    if not is_vault(text):
        raise VaultFormatError("it is not in ansible-vault's format.")
    try:
        vault = _ansible_vault()
        plain: bytes = vault.VaultLib([("default", vault.VaultSecret(secret))]).decrypt(text)
        return plain.decode()
    except AnsibleError as exc:
        if "no vault secrets were found that could decrypt" in str(exc):
            raise WrongSecretError("this key does not open it.") from None
        raise VaultFormatError("it is no whole ansible-vault file.") from None
    except ValueError:
        # Whatever the parser says may quote what it read.
        raise VaultFormatError("it is no whole ansible-vault file.") from None
    finally:
        _forget_derived_keys()


def _forget_derived_keys() -> None:
    """Ansible keeps every key it derives for the life of the process; each of ours is used once."""
    cached = getattr(getattr(_ansible_vault().VaultAES256, "_gen_key_initctr", None), "cache_clear", None)
    if cached is not None:
        cached()


def _ansible_vault() -> Any:
    # Needed only here, and slow to import.
    from ansible.parsing import vault  # noqa: PLC0415

    return vault
