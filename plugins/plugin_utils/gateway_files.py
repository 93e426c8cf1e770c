# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a gateway's key files get onto its disk: one shell command that looks, one that brings what is missing.

The files travel on the command's standard input. The command itself, which the gateway's process list shows, holds
names, sizes and digests. Each set of keys lies in a directory named by a digest of it, so that a new set comes to lie
beside the one in use and is seen whole or not at all.
"""

from __future__ import annotations

import hashlib
import posixpath
import shlex
import typing as t
from dataclasses import dataclass, field

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.secret import Secret

DIRECTORY_MODE: t.Final = "drwx------"
KEY_MODE: t.Final = "-rw-------"
CRL_MODE: t.Final = "-rw-r--r--"
CRL: t.Final = "crl"

# Single quotes are avoided: the command is quoted once more for each shell between here and there.
_LOOK: t.Final = r"""
set -uf
umask 077
LC_ALL=C
export LC_ALL
directory=$1 crl=$2
shift 2
say() {
    [ -e "$2" ] || [ -L "$2" ] || return 0
    listed=$(ls -ldn "$2") || return 1
    name=$1 path=$2 sum=-
    set -- $listed
    case $1 in -*) sum=$(sha256sum <"$path") || return 1 ;; esac
    echo "@ $name $1 $3 ${sum%% *}"
}
look() {
    echo "@ me - $(id -u) -"
    say directory "$directory" || return 1
    for file in ca.crt gateway.crt gateway.key tls-crypt-v2.key; do
        say "$file" "$directory/$file" || return 1
    done
    say crl "$crl" || return 1
    echo "@ end - - -"
}
"""

# The arguments after the first two are NAME SIZE DIGEST of each file, in the order in which they come.
_BRING: t.Final = r"""
die() {
    echo "spokewright: $1" >&2
    exit 1
}
[ ! -t 0 ] || die "standard input is a terminal"
root=${directory%/*} digest=${directory##*/} home=${crl%/*} list=${crl##*/}
[ -d "$root" ] || mkdir "$root" || die "cannot make $root"
new=$root/.$digest.new.$$ fresh=$home/.$list.new.$$
set +f
rm -rf "$root"/.*.new.* "$home/.$list".new.*
set -f
trap "exit 1" HUP INT TERM PIPE
trap "rm -rf \"\$new\" \"\$fresh\"" EXIT
mkdir "$new" || die "cannot make $new"
keys=no revoked=no
while [ $# -ge 3 ]; do
    target=$new/$1
    case $1 in crl) target=$fresh revoked=yes ;; *) keys=yes ;; esac
    # One byte at a time: whatever else comes belongs to the next file.
    said=$(dd bs=1 count="$2" 2>&1 >"$target") || die "cannot write $1: $said"
    sum=$(sha256sum <"$target") || die "cannot read $1 back"
    [ "${sum%% *}" = "$3" ] || die "$1 did not arrive whole"
    shift 3
done
settle() {
    sync "$@" 2>/dev/null || sync
}
if [ "$keys" = yes ]; then
    settle "$new"/ca.crt "$new"/gateway.crt "$new"/gateway.key "$new"/tls-crypt-v2.key "$new"
    if [ -d "$directory" ] && [ ! -L "$directory" ]; then
        # The right set by name, with something in it that is not right: each file is replaced in one step.
        for file in ca.crt gateway.crt gateway.key tls-crypt-v2.key; do
            if [ -d "$directory/$file" ]; then rm -rf "$directory/$file"; fi
            mv -f "$new/$file" "$directory/$file" || die "cannot replace $file"
        done
        chown "$(id -u)" "$directory" && chmod 0700 "$directory" || die "cannot close $directory to others"
        settle "$directory"
    else
        rm -f "$directory"
        mv "$new" "$directory" || die "cannot name $directory"
    fi
    settle "$root"
fi
if [ "$revoked" = yes ]; then
    chmod 0644 "$fresh" || die "cannot open $list to its readers"
    settle "$fresh"
    [ ! -d "$crl" ] || die "$crl is a directory"
    mv -f "$fresh" "$crl" || die "cannot replace $crl"
    settle "$home"
fi
"""


class GatewayFilesError(FleetError):
    """The files are not on the gateway as they should be. Its text says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class KeyFile:
    """One file as it is to lie on the gateway."""

    name: str
    content: Secret = field(repr=False)

    @property
    def mode(self) -> str:
        """Its mode, as ls shows it."""
        return CRL_MODE if self.name == CRL else KEY_MODE

    @property
    def digest(self) -> str:
        """SHA-256 of its bytes."""
        return hashlib.sha256(self.data()).hexdigest()

    def data(self) -> bytes:
        """Its bytes: a secret, for standard input and nothing else."""
        return self.content.reveal().encode("ascii")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies on the gateway under one name."""

    mode: str
    owner: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class GatewayFiles:
    """Where one gateway's files belong, and what they are."""

    directory: str
    crl_path: str
    keys: tuple[KeyFile, ...]
    crl: KeyFile

    def look(self) -> str:
        """The command that says what is there. It changes nothing."""
        return _command(_LOOK + "look", self.directory, self.crl_path)

    def bring(self, *, files: t.Sequence[KeyFile]) -> tuple[str, bytes]:
        """The command that writes these files and then looks, and what it reads on standard input."""
        listed = [str(word) for file in files for word in (file.name, len(file.data()), file.digest)]
        command = _command(_LOOK + _BRING + "look", self.directory, self.crl_path, *listed)
        return command, b"".join(file.data() for file in files)

    def missing(self, *, found: t.Mapping[str, Found]) -> tuple[KeyFile, ...]:
        """The files to bring: all keys as soon as one of them is not right, and the CRL by itself."""
        directory = found.get("directory")
        whole = (
            directory is not None
            and (directory.mode[:10], directory.owner) == (DIRECTORY_MODE, found["me"].owner)
            and all(_right(file=file, found=found) for file in self.keys)
        )
        return (() if whole else self.keys) + (() if _right(file=self.crl, found=found) else (self.crl,))

    def lines(self, *, found: t.Mapping[str, Found] | None = None) -> str:
        """Names, modes and digests, of what is found or else of what is wanted, for a diff."""
        paths = {file.name: posixpath.join(self.directory, file.name) for file in self.keys} | {CRL: self.crl_path}
        wanted = {file.name: Found(mode=file.mode, owner="", digest=file.digest) for file in (*self.keys, self.crl)}
        shown = wanted if found is None else found
        return "".join(
            f"{path} {shown[name].mode[:10]} sha256:{shown[name].digest}\n"
            for name, path in paths.items()
            if name in shown
        )


def answer(*, output: str) -> dict[str, Found]:
    """What a gateway said was there. Lines that a login shell adds of its own are passed over.

    Raises:
        GatewayFilesError: the answer is not whole.
    """
    found = {}
    for line in output.splitlines():
        words = line.split()
        if len(words) == 5 and words[0] == "@":
            found[words[1]] = Found(mode=words[2], owner=words[3], digest=words[4])
    if "me" not in found or "end" not in found:
        raise GatewayFilesError(
            "the gateway did not say what keys it has. It needs sh, ls, id and sha256sum, and a login shell that runs "
            "commands"
        )
    return found


def failure(*, code: int, said: str) -> str:
    """Why a command failed on the gateway, in its own words and in ours."""
    words = [line.strip().removeprefix("spokewright: ") for line in said.splitlines() if line.strip()]
    return (
        f"the keys could not be brought (exit {code}): {'; '.join(words[-4:]) or 'not a word why'}. What was there "
        "before is untouched. Check free space and permissions on the gateway, then run again"
    )


def _right(*, file: KeyFile, found: t.Mapping[str, Found]) -> bool:
    there = found.get(file.name)
    return there is not None and (there.mode[:10], there.owner, there.digest) == (
        file.mode,
        found["me"].owner,
        file.digest,
    )


def _command(script: str, *words: str) -> str:
    return shlex.join(["/bin/sh", "-c", script, "spokewright", *words])
