"""The smoke test's word that nodes work together, and what speaks against relying on it: pure.

The text on a node is JSON: the certificate, and a signature over its canonical form. It fails closed: what is
missing, unreadable, altered, expired, for other nodes or for another installation counts as none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from runtime.job.spec import Job
from runtime.probes.job import Facts
from runtime.probes.preflight_checks import Problem, ranks_of
from runtime.untrusted.conform import Lines, conform

PROVE = "Run the smoke test (python -m runtime smoke, or site.yml), or start with --no-gate."
RESTORE = (
    "`provision env verify` names all of it and site.yml builds it anew; packages of your own belong into "
    "the locks or a layer (envs/README.md). Or start with --no-gate."
)
# No host name begins so: no node can be called like the controller.
CONTROLLER = "@controller"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Who may sign: the nodes of this cluster, and whether a signature over a payload is its signer's."""

    nodes: frozenset[str]
    is_signed: Callable[[bytes, str, str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What was proven, of what, and for how long.

    `signer` is the node that ran the test, or CONTROLLER where that did. `nodes` are the slots of each node
    by its name; `issued` and `expires` are in ISO 8601 with an offset; `figures` are bandwidths in 10^9 bytes
    a second, None where there is none.
    """

    signer: str

    nodes: Mapping[str, int]
    environment: str
    clusterwright: str
    torch: str
    issued: str
    expires: str
    figures: Mapping[str, float | None]

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return now >= datetime.fromisoformat(self.expires)


def payload(certificate: Certificate) -> bytes:
    """What is signed: one form for one content."""
    return json.dumps(asdict(certificate), sort_keys=True, separators=(",", ":")).encode()


def sealed(certificate: Certificate, signature: str) -> str:
    """The text of the file."""
    return json.dumps({"certificate": asdict(certificate), "signature": signature}, indent=2) + "\n"


def parse(text: str) -> tuple[Certificate, str]:
    """A certificate and its signature from a file's text.

    Raises:
        ValueError: it is none.
    """
    try:
        values = json.loads(text)
    except RecursionError as e:
        raise ValueError("it is nested too deep") from e
    try:
        if "signer" not in values["certificate"]:
            raise ValueError("an earlier version signed it, with the cluster's key, which every node has")
        conform(Certificate, values["certificate"], "certificate")
        certificate = Certificate(**values["certificate"])  # to the letter, as it was signed
        if not certificate.nodes or datetime.fromisoformat(certificate.expires).tzinfo is None:
            raise ValueError("it names no node, or no time")
        return certificate, conform(Lines, values["signature"], "signature")
    except (KeyError, TypeError) as e:
        raise ValueError(f"it lacks parts of a certificate ({e})") from e


def read(facts: Facts, *, now: datetime, trust: Trust) -> Certificate | str:
    """The certificate that a node holds, or why that is none, as a finding."""
    if not facts.certificate:
        return "holds no certificate of a smoke test that passed"
    try:
        certificate, signature = parse(facts.certificate)
    except ValueError as e:
        return f"its certificate cannot be read: {e}"
    if strangers := [name for name in _who(certificate) if name not in trust.nodes]:
        names = ", ".join(ascii(name)[1:81].rstrip("'") for name in strangers[:8])
        return f"its certificate is of a test with {names}, no node of this cluster (any more)"
    if not trust.is_signed(payload(certificate), signature, certificate.signer):
        return f"its certificate is not signed by {signer_name(certificate)}, or was altered since"
    if certificate.expired(now):
        return f"its certificate expired on {certificate.expires}"
    for what, then, today in (
        ("environment", certificate.environment, facts.environment),
        ("clusterwright", certificate.clusterwright, facts.clusterwright),
        ("torch", certificate.torch, facts.torch),
    ):
        if then != today and what == "environment" and facts.changed:
            return f"its environment was changed since, which its certificate does not cover: {facts.changed}"
        if then != today:
            return f"its certificate is for the {what} {_short(then)}, and it has {_short(today)} now"
    return certificate


def _who(certificate: Certificate) -> list[str]:
    """The nodes whose word a certificate is: those of the test, and who signed it."""
    signer = () if certificate.signer == CONTROLLER else (certificate.signer,)
    return list(dict.fromkeys((*signer, *certificate.nodes)))


def signer_name(certificate: Certificate) -> str:
    """Who signed it, for people."""
    return "the controller" if certificate.signer == CONTROLLER else certificate.signer


def proven_by(known: Iterable[Certificate | str]) -> str:
    """Who proved nodes, from what `read` said of them: `by the controller`, `by te1`."""
    names = sorted({signer_name(one) for one in known if isinstance(one, Certificate)})
    return f"by {' and '.join(names)}" if names else ""


def refusals(
    job: Job, known: Mapping[str, Certificate | str], *, altered: Collection[str] = ()
) -> tuple[Problem, ...]:
    """A problem for each node that answered and on whose certificate the job cannot rely.

    Args:
        known: what `read` said of each node that answered.
        altered: those whose environment is not as it was recorded.
    """
    wanted, held = _slots(job), ranks_of(job)
    found = {host: one if isinstance(one, str) else _uncovered(one, wanted) for host, one in known.items()}
    return tuple(
        Problem(
            check="certificate",
            host=host,
            ranks=held[host],
            found=words,
            fix=RESTORE if host in altered else PROVE,
        )
        for host, words in found.items()
        if words
    )


def offer(job: Job, known: Mapping[str, Certificate | str], *, without: Collection[str]) -> tuple[str, ...]:
    """The most nodes of the job, without those that cannot take part, that were proven together."""
    valid = {host: one for host, one in known.items() if isinstance(one, Certificate) and host not in without}
    wanted = _slots(job)
    groups = [
        tuple(host for host, own in valid.items() if own == one and not _uncovered(one, {host: wanted[host]}))
        for one in valid.values()
    ]
    return max(groups, key=len, default=())


def _slots(job: Job) -> dict[str, int]:
    return {node.host.name: len(node.slots) for node in job.nodes}


def _short(text: str) -> str:
    return (text if " " in text else text[:12]) or "none"


def _uncovered(certificate: Certificate, wanted: Mapping[str, int]) -> str:
    """What the job wants beyond what was proven."""
    strangers = [name for name in wanted if name not in certificate.nodes]
    if strangers:
        tested = ", ".join(certificate.nodes)
        return f"its certificate is for {tested}, tested without {', '.join(strangers)}"
    more = [
        f"{name} ({certificate.nodes[name]})" for name in wanted if wanted[name] > certificate.nodes[name]
    ]
    return f"its certificate is for fewer slots of {', '.join(more)}" if more else ""


def new_certificate(
    *,
    signer: str,
    nodes: Mapping[str, int],
    facts: Facts,
    figures: Mapping[str, float | None],
    now: float,
    valid_seconds: float,
) -> Certificate:
    """For nodes that have just passed; `facts` of any one, since they agree; `now` in seconds since 1970."""

    def at(seconds: float) -> str:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

    return Certificate(
        signer=signer,
        nodes=dict(nodes),
        environment=facts.environment,
        clusterwright=facts.clusterwright,
        torch=facts.torch,
        issued=at(now),
        expires=at(now + valid_seconds),
        figures=dict(figures),
    )
