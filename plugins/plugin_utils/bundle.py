# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything we manage on a site, rendered into one reproducible archive.

The digest of a bundle is the SHA-256 of its MANIFEST, which carries the SHA-256 of every other file. A site can
therefore prove at any time, from the files themselves, which bundle a generation is.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates, tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Site
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import SiteKey

ROLE: Final = Path(__file__).resolve().parents[2] / "roles" / "site_tunnel"
DIRECTORY: Final = "/etc/spokewright/current"
CONFIG: Final = "client.conf"
PSK: Final = "psk.key"
OTHER_PSK: Final = "other-psk.key"
MANIFEST: Final = "MANIFEST"
FACTS: Final = "facts"
GUARD: Final = "spokewright-guard.service"
AGENT: Final = "roles/site_tunnel/files/site-agent.sh"
# What a site's init system runs itself, and the line it needs before it. Here OpenRC's file has none, because
# ansible-test refuses a program that it does not know.
PROGRAMS: Final = {"init.sh": "", "openrc.sh": "#!/sbin/openrc-run\n"}


class BundleError(FleetError):
    """A bundle cannot be rendered."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One site's generation, before it has a number."""

    site: str
    epoch: int
    digest: str
    archive: bytes
    manifest: str
    psk_fingerprint: str = ""
    # Fingerprints of what it has two of, while the server key is rotated or one CA follows another.
    carries: str = ""
    two_psks: bool = False

    def __repr__(self) -> str:
        return f"Bundle(site={self.site!r}, epoch={self.epoch}, digest={self.digest!r})"


def render_config(*, site: Site, two_psks: bool = False) -> str:
    """The client configuration. It names the key files and holds no secret, so it may be shown."""
    return _render(template="client.conf.j2", site=site, psks=(PSK, OTHER_PSK) if two_psks else (PSK,))


def render_public(*, site: Site, two_psks: bool = False) -> dict[str, str]:
    """The files of a bundle that are no secret."""
    return {
        CONFIG: render_config(site=site, two_psks=two_psks),
        "unit.conf": _render(template="unit.conf.j2", site=site),
        GUARD: _static(GUARD),
        "agent.sh": agent_copy(),
        **{name: first + _static(name) for name, first in PROGRAMS.items()},
    }


def build(*, site: Site, key: SiteKey) -> Bundle:
    """The site's bundle: the same bytes from the same plan, key and version, wherever it is built."""
    if key.site != site.id:
        raise BundleError(f"the key of {key.site} was about to go into the bundle of {site.id}.")
    psk_fingerprint = tls_crypt_v2.fingerprint(text=key.psk.reveal())
    other = key.other_psk.reveal() if key.other_psk else ""
    files = {
        **render_public(site=site, two_psks=bool(other)),
        FACTS: facts_line(
            epoch=key.epoch,
            kid=key.kid,
            psk_fingerprint=psk_fingerprint,
            valid=certificates.good_days(certificate=key.certificate, authorities=key.ca),
        ),
        "ca.crt": key.ca,
        "site.crt": key.certificate,
        "site.key": key.private_key.reveal(),
        PSK: key.psk.reveal(),
        **({OTHER_PSK: other} if other else {}),
    }
    manifest = manifest_of(files=files)
    return Bundle(
        site=site.id,
        epoch=key.epoch,
        digest=hashlib.sha256(manifest.encode()).hexdigest(),
        archive=_tar({**files, MANIFEST: manifest}),
        manifest=manifest,
        psk_fingerprint=psk_fingerprint,
        carries=_carries(key=key),
        two_psks=bool(other),
    )


def _carries(*, key: SiteKey) -> str:
    """What it has of two, by fingerprint: PSKs while the server key is rotated, CAs while one follows another."""
    authorities = certificates.split(text=key.ca)
    trusted = [certificates.fingerprint(certificate=one) for one in authorities] if len(authorities) > 1 else []
    psks = key.psk_fingerprints if key.other_psk else ()
    return " ".join(sorted((*psks, *trusted)))


def manifest_of(*, files: Mapping[str, str]) -> str:
    """Lines as `sha256sum -c` reads them."""
    return "".join(f"{hashlib.sha256(files[name].encode()).hexdigest()}  {name}\n" for name in sorted(files))


def agent_text() -> str:
    """The agent that runs on the site, as it is written."""
    return _static(AGENT.rpartition("/")[2])


@lru_cache(maxsize=1)
def agent_copy() -> str:
    """The agent as a bundle carries it: half of the bytes that travel, are synced and are read back were comments."""
    head, _blank, text = agent_text().partition("\n#\n")
    return f"{head}\n# Its comments are in {AGENT}.\n{bare(text)}\n"


def bare(text: str) -> str:
    """A shell script without comments, indentation and empty lines."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def facts_line(*, epoch: int, kid: str, psk_fingerprint: str, valid: tuple[dt.date, dt.date]) -> str:
    """Which key this is: one line of JSON without a secret, which `show` passes on as it is.

    ``valid``: the first and the last day on which a site's clock may be for its certificates to hold.
    """
    days = [day.isoformat() for day in valid]
    facts = {"epoch": epoch, "kid": kid, "psk_fingerprint": psk_fingerprint, "valid": days}
    # The agent, too, looks for the epoch and the days in it, by their exact text.
    return json.dumps(facts, separators=(",", ":")) + "\n"


@lru_cache(maxsize=8)
def _static(name: str) -> str:
    path = ROLE / "files" / name
    try:
        return path.read_text(encoding="ascii")
    except OSError as exc:
        raise BundleError(f"{path} cannot be read: {exc}. The collection is not whole; install it again.") from exc


@lru_cache(maxsize=1)
def _environment() -> Environment:
    # Output is a configuration file, not markup.
    return Environment(  # noqa: S701
        loader=FileSystemLoader(ROLE / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _render(*, template: str, site: Site, psks: Sequence[str] = ()) -> str:
    try:
        return _environment().get_template(template).render(site=site, directory=DIRECTORY, psks=psks)
    except TemplateError as exc:
        raise BundleError(f"{template} cannot be rendered for {site.id}: {exc}.") from exc


def _tar(files: Mapping[str, str]) -> bytes:
    """What a tar reads: BusyBox's, whatever it was built with, reads plain ustar. Nothing fills up the last record."""
    parts = []
    for name in sorted(files):
        data = files[name].encode()
        mode = 0o700 if name in PROGRAMS else 0o600
        parts += [_tar_header(name, len(data), mode), data, bytes(-len(data) % tarfile.BLOCKSIZE)]
    return b"".join((*parts, bytes(2 * tarfile.BLOCKSIZE)))


# Most files are as long on one site as on another.
@lru_cache(maxsize=512)
def _tar_header(name: str, size: int, mode: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, mode
    return entry.tobuf(format=tarfile.USTAR_FORMAT)
