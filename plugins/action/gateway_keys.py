# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a gateway its keys out of the encrypted key store, on the standard input of one command."""

from __future__ import annotations

import posixpath
import typing as t
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.basic import missing_required_lib
from ansible.plugins.action import ActionBase

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_files import Found
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_material import Material

OPTIONS = {
    "key_store": {"type": "path", "required": True},
    "key_store_key": {"type": "path", "required": True, "no_log": False},
    "gateway": {"type": "str", "required": True},
    # Paths on the gateway: not to be expanded here.
    "directory": {"type": "str", "required": True},
    "crl": {"type": "str", "required": True},
    "crl_minimum_days": {"type": "int", "default": 14},
    "state": {"type": "str", "default": "present", "choices": ["checked", "present"]},
}


class ActionModule(ActionBase):
    """Entry point of spokewright.fleet.gateway_keys."""

    _VALID_ARGS = frozenset(OPTIONS)
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Prove the keys here, and with state=present have them there."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(argument_spec=OPTIONS)
        try:
            material = self._proven(args)
            result.update(_public(args=args, material=material))
            if args["state"] == "present":
                self._have(args=args, material=material, result=result)
        except ImportError as exc:
            raise AnsibleActionFail(missing_required_lib(exc.name or "cryptography")) from exc
        except FleetError as exc:
            raise AnsibleActionFail(f"{args['gateway']}: {str(exc).rstrip('.')}.") from None
        return result

    def _proven(self, args: dict[str, t.Any]) -> Material | None:
        """The keys, or nothing in check mode when they are still to be made."""
        from ansible_collections.spokewright.fleet.plugins.plugin_utils import gateway_material, key_store  # noqa: PLC0415

        for name in ("directory", "crl"):
            if not posixpath.isabs(args[name]):
                raise AnsibleActionFail(f"{name}: {args[name]!r} is no absolute path. Say where it is on the gateway.")
        store = Path(args["key_store"])
        try:
            key = key_store.KeyStore(path=store, key=Path(args["key_store_key"])).gateway_key(name=args["gateway"])
        except key_store.NoKeyError:
            if self._task.check_mode:
                return None
            raise
        material = gateway_material.check_material(key=key, store=store)
        gateway_material.check_days(material=material, store=store, crl_minimum_days=args["crl_minimum_days"])
        return material

    def _have(self, *, args: dict[str, t.Any], material: Material | None, result: dict[str, t.Any]) -> None:
        """Ask the gateway what it has, bring what is missing, and ask what it has then."""
        from ansible_collections.spokewright.fleet.plugins.plugin_utils import gateway_files  # noqa: PLC0415

        if material is None:
            # Whatever the gateway has, it will be given the keys that are made then.
            result["changed"] = True
            return
        files = gateway_files.GatewayFiles(
            directory=result["directory"], crl_path=args["crl"], keys=material.keys, crl=material.crl
        )
        # With something on its standard input no command gets a terminal, which would mangle what is sent and said.
        found = self._ask(command=files.look(), data=b"\n")
        missing = files.missing(found=found)
        result.update(changed=bool(missing), brought=[file.name for file in missing])
        after = None
        if missing and not self._task.check_mode:
            command, data = files.bring(files=missing)
            after = self._ask(command=command, data=data)
            if files.missing(found=after):
                wrong = ", ".join(file.name for file in files.missing(found=after))
                raise gateway_files.GatewayFilesError(f"{wrong}: not on the gateway as sent, although it was written")
        if self._task.diff and missing:
            result["diff"] = {
                "before_header": "keys by digest",
                "after_header": "keys by digest",
                "before": files.lines(found=found),
                "after": files.lines(found=after),
            }

    def _ask(self, *, command: str, data: bytes) -> dict[str, Found]:
        from ansible_collections.spokewright.fleet.plugins.plugin_utils import gateway_files  # noqa: PLC0415

        done = self._low_level_execute_command(command, in_data=data)
        if done["rc"] != 0:
            raise gateway_files.GatewayFilesError(gateway_files.failure(code=done["rc"], said=done["stderr"]))
        return gateway_files.answer(output=done["stdout"])


def _public(*, args: dict[str, t.Any], material: Material | None) -> dict[str, t.Any]:
    """What may be told about the keys."""
    shown = {
        "changed": False,
        "digest": material.digest if material else "",
        "directory": posixpath.join(args["directory"], material.digest) if material else "",
        "certificate_days": material.certificate_days if material else 0,
        "crl_days": material.crl_days if material else 0,
        "crl_revoked": material.crl_revoked if material else 0,
    }
    known = f"its keys are {material.digest}" if material else "its keys are not made yet"
    return shown | {"msg": f"{args['gateway']}: {known}"}
