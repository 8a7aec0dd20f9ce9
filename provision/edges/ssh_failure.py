"""Why a machine is not reached over ssh, in words, from the error of the library that tried. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from provision.model import Machine

_HUNG_UP = "it hung up: its sshd is overloaded or broken, or another program listens there"
_SILENT = "it took the connection and gave no answer"
_NO_SERVER = "no ssh server answers there"
_LOOK_AT_SSHD = "Look at `systemctl status ssh` on its console."
_LOOK_AT_MACHINE = "Check that it is up, and its address, cable and firewall."
_TRY = "Try: ssh -i {key} {user}@{address} true"
_COMPARE = "Compare its key on its console with ssh-keyscan {address}, then correct {known}."
# The error's class or one that it derives from, words in it, what is found, what to do; the first row counts.
_ROWS = (
    ("BadHostKeyException", "", "its host key is another one than {known} holds", _COMPARE),
    ("SSHException", "not found in known_hosts", "{known} does not hold its host key", _COMPARE),
    ("PasswordRequiredException", "", "the key {key} needs a passphrase", "Name a key without one."),
    ("AuthenticationException", "imeout", _SILENT, _LOOK_AT_SSHD),
    ("AuthenticationException", "", "it refuses {user} with the key {key}", _TRY),
    ("SSHException", "banner", f"{_NO_SERVER}: {{said}}", _LOOK_AT_SSHD),
    ("SSHException", "imeout", _SILENT, _LOOK_AT_SSHD),
    ("SSHException", "No existing session", _SILENT, _LOOK_AT_SSHD),
    ("gaierror", "", "its address {address} is not resolved", "Correct ansible_host in the inventory."),
    ("TimeoutError", "", "no answer in time", _LOOK_AT_MACHINE),
    ("NoValidConnectionsError", "", "{said}", f"{_LOOK_AT_MACHINE} {_LOOK_AT_SSHD}"),
    ("ConnectionError", "", _HUNG_UP, _LOOK_AT_SSHD),
    ("EOFError", "", _HUNG_UP, _LOOK_AT_SSHD),
    ("OSError", "", "{said}", _LOOK_AT_MACHINE),
    ("BaseException", "", "{kind}: {said}", _TRY),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SshFailure:
    """What was found, and what to do."""

    found: str
    fix: str


def explained(error: BaseException, machine: Machine) -> SshFailure:
    """The row of an error, filled in for its machine."""
    said = " ".join(str(error).split())
    values = {
        "kind": type(error).__name__,
        "said": said or type(error).__name__,
        "user": machine.user,
        "address": machine.address,
        "key": machine.key_file,
        "known": machine.known_hosts,
    }
    kinds = {kind.__name__ for kind in type(error).__mro__}
    found, fix = next((found, fix) for kind, words, found, fix in _ROWS if kind in kinds and words in said)
    return SshFailure(found=found.format(**values), fix=fix.format(**values))
