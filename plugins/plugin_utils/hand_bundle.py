# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site's bundle as a file that a person carries to a site without a link, with the words that install it."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as bundles

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.bundle import Bundle
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Site
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import SiteKey

INSTALL: Final = "INSTALL"
# Long enough for a person at a console to look at the tunnel; a delivery has the plan's own time.
BY_HAND_SECONDS: Final = 600

TEXT: Final = """\
Bundle for {site}, key epoch {epoch}.

It holds the site's private keys: whoever has this file can be this site.

On the site, as root, at a console. FILE is this archive, with its path:

    umask 077
    mkdir d
    tar -xf FILE -C d
    sh d/agent.sh stage {digest} <FILE

The last line it prints is the receipt, with "ok":true when it went well. Until here nothing runs differently.

    sh d/agent.sh activate {digest} {seconds}

starts the tunnel on the new files. Not confirmed within {seconds} seconds, the site goes back by itself to what it had
confirmed before. When the tunnel is up:

    sh d/agent.sh confirm {digest}
    rm -rf d FILE

"sh /etc/spokewright/current/agent.sh show" says at any time what the site holds. On the controller, once the site has a
link again:

    tools/fleet key stage {site}

which finds the bundle there, sends nothing and enters it in the key store.
"""


def hand_bundle(*, site: Site, key: SiteKey) -> tuple[Bundle, bytes]:
    """The bundle, and its archive with INSTALL beside the files: the same bytes each time."""
    bundle = bundles.build(site=site, key=key)
    return bundle, with_install(bundle=bundle)


def with_install(*, bundle: Bundle) -> bytes:
    """The site can be given the whole archive: what its MANIFEST does not name is no part of the digest."""
    text = TEXT.format(site=bundle.site, epoch=bundle.epoch, digest=bundle.digest, seconds=BY_HAND_SECONDS).encode()
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(bundle.archive), mode="r:") as source,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        entry = tarfile.TarInfo(INSTALL)
        entry.size, entry.mode = len(text), 0o600
        archive.addfile(entry, io.BytesIO(text))
        for member in source:
            archive.addfile(member, source.extractfile(member))
    return buffer.getvalue()
