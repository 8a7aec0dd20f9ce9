"""`python -m runtime certify`: give the nodes of a test the certificate that the controller signed."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import typer

from runtime.errors import BadInput
from runtime.gate.certificate import CONTROLLER, Certificate, parse, payload
from runtime.gate.signature import HOST_KEY, SIGNERS
from runtime.job.spec import CERTIFICATE, HOSTFILE, Job
from runtime.job.user import go_on_as_cluster_user
from runtime.launch.cli import on_signals, read_nodes
from runtime.launch.preflight import preflight
from runtime.remote.session import Interrupted, open_session
from runtime.smoke.certify import hand_out, signing_with
from runtime.terminal import printable


def certify(
    sealed: str = typer.Argument(help="The certificate and the controller's signature, as JSON."),
    hostfile: Path = typer.Option(Path(HOSTFILE), help="The nodes, as zerorun reads them."),
    ssh_config: str = typer.Option("", help="Configuration file for ssh instead of its own."),
    certificate: Path = typer.Option(Path(CERTIFICATE), help="Where nodes keep their certificate."),
    signers: Path = typer.Option(Path(SIGNERS), help="Who may sign certificates."),
) -> None:
    """Write a certificate that the controller signed to the nodes that it is for.

    Exit status: 0 all nodes have it, or a valid one for more nodes; 1 not all, 2 bad input.
    """
    go_on_as_cluster_user(os.environ, lambda words: typer.echo(f"certify: {words}", err=True))
    signing = signing_with(Path(HOST_KEY), signers, for_controller=True)
    if signing.trust is None:
        raise BadInput("check who signed", found=signing.refusal, fix="Run site.yml.")
    made, signature = _parsed(sealed)
    if made.signer != CONTROLLER or not signing.trust.is_signed(payload(made), signature, CONTROLLER):
        raise BadInput(
            "write a certificate",
            found="the controller whose key this node knows did not sign it",
            fix="Run site.yml, which tells the nodes of that key; then provision smoke.",
        )
    include = "@".join(made.nodes)
    nodes = read_nodes(hostfile, include=include, exclude="", nnodes=None, nproc_per_node=None)
    identity = f"certify-{secrets.token_hex(8)}"
    job = Job(
        job_id=identity,
        nodes=nodes,
        kind="program",
        words=(sys.executable,),
        cwd="/",
        python=sys.executable,
        job_path=str(certificate.parent / identity),  # never made; its folder is one that is on every node
        certificate_path=str(certificate),
    )
    with open_session(job, ssh_config=ssh_config) as session:
        on_signals(session.interrupt)
        try:
            problems = (*preflight(session), *hand_out(session, made, signature, signing))
        except Interrupted as e:
            raise typer.Exit(128 + session.interrupts[0]) from e
    for problem in problems:
        typer.echo(printable(str(problem)), err=True)
    raise typer.Exit(1 if problems else 0)


def _parsed(sealed: str) -> tuple[Certificate, str]:
    try:
        return parse(sealed)
    except ValueError as e:
        fix = "provision smoke and site.yml make one."
        raise BadInput("write a certificate", found=f"it is none: {e}", fix=fix) from e
