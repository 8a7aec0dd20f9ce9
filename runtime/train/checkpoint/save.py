"""Saving, at the step or beside the training: write apart, prove, agree, rename, move `latest`."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from runtime.errors import BadInput, CheckpointFailed
from runtime.train.checkpoint import folder as disk
from runtime.train.checkpoint.agree import (
    Disks,
    Peers,
    all_do,
    find_disks,
    from_first,
    gather,
    gather_to_first,
    raise_first,
    send_file,
)
from runtime.train.checkpoint.listing import METADATA
from runtime.train.checkpoint.manifest import LIMIT_BYTES, MANIFEST, Manifest, Record, record_of, records_from
from runtime.train.checkpoint.shards import write_shards
from runtime.train.checkpoint.snapshot import Snapshot, Staging, take
from runtime.train.checkpoint.state import PROGRESS
from runtime.train.checkpoint.table import from_values, merge, to_json, to_values

if TYPE_CHECKING:
    from runtime.train.state import TrainingState

logger = logging.getLogger("runtime")
Watch = Callable[[str], None]
_FIX = "Free space or mend the disk; the last checkpoint is untouched."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Save:
    """One save: what goes where, who acts on which disk, and the group over which the ranks agree."""

    training: TrainingState
    snapshot: Snapshot
    root: Path
    partial: Path
    disks: Disks
    watch: Watch
    peers: Peers

    def all_do(self, asked: str, act: Callable[[], Any]) -> Any:
        return all_do(asked, act, fix=_FIX, topology=self.training.group.topology, peers=self.peers)

    def leaders_do(self, asked: str, act: Callable[[], Any]) -> Any:
        return self.all_do(asked, act if self.disks.leads else lambda: None)


def save(
    training: TrainingState,
    root: Path,
    tag: str,
    client_state: Mapping[str, Any],
    *,
    frozen: bool = True,
    write_latest: bool = True,
    watch: Watch = lambda _: None,
) -> Path:
    """Saves a checkpoint and returns its folder. Collective: every rank calls it with the same arguments.

    `watch` is told the name of each phase before it begins; tests kill ranks there.

    Raises:
        BadInput: ranks ask for different tags, or another run saves into the folder.
        CheckpointFailed: a rank could not write; nothing is committed, the last checkpoint is untouched.
    """
    snapshot = take(training, disk.check_tag(tag), client_state, frozen=frozen, staging=None)
    return write(training, root, snapshot, write_latest=write_latest, watch=watch)


def write(
    training: TrainingState,
    root: Path,
    snapshot: Snapshot,
    *,
    write_latest: bool,
    watch: Watch = lambda _: None,
    peers: Peers = None,
) -> Path:
    """Writes, proves and commits what was taken; the ranks agree over `peers`. Collective, see `save`."""
    tag = snapshot.tag
    _same_on_all(tag, peers)
    disks = find_disks(root, training.session, training.dims.dp, training.group.topology, peers)
    this = _Save(
        training=training,
        snapshot=snapshot,
        root=root,
        partial=root / disk.partial_name(tag, training.run, training.session),
        disks=disks,
        watch=watch,
        peers=peers,
    )
    _claim(this)
    this.leaders_do(f"make room for {tag} in {root}", lambda: _make_room(this))
    try:
        final = _commit(this, _write_rest(this, _write_shards(this)))
    except CheckpointFailed:
        if disks.leads:  # a full disk must not stay full
            shutil.rmtree(this.partial, ignore_errors=True)
        raise
    watch("latest")
    if write_latest:
        this.leaders_do(f"point latest at {final.name}", lambda: disk.write_latest(root, final.name))
    watch("prune")
    this.leaders_do("remove old checkpoints", lambda: _prune(this, final.name))
    return final


def _claim(this: _Save) -> None:
    run = this.training.run
    owners = gather(disk.claim(this.root, run) if this.disks.leads else run, this.peers)
    other = next((owner for owner in owners if owner != run), None)
    if other is not None:
        raise BadInput(
            f"save into {this.root}",
            found=f"run {other} saves there, and this is run {run}, which did not load from it",
            fix="Choose another folder, or call engine.load_checkpoint on this one first.",
        )


def _make_room(this: _Save) -> None:
    for stale in disk.leftovers(this.root, this.training.run):
        logger.info("removing %s, which a save left when its job died", stale)
        disk.remove(stale)
    this.partial.mkdir()


def _write_shards(this: _Save) -> list[Any]:
    """Each rank's shards; returns on rank 0 which are where, by the word of each rank."""
    this.watch("shards")
    rank = this.training.dims.dp.rank
    table = this.all_do(
        f"write the shards to {this.partial}", lambda: write_shards(this.partial, rank, this.snapshot.shards)
    )
    return gather_to_first(to_values(table), this.peers)


def _write_rest(this: _Save, parts: list[Any]) -> dict[str, Record]:
    """The small files, and the digests of all; what one rank wrote for all goes to every disk."""
    this.watch("rest")
    rank = this.training.dims.dp.rank

    def write() -> dict[str, Any]:
        if rank == 0:
            table = merge(from_values(part) for part in parts)
            disk.write_atomically(this.partial / METADATA, to_json(table))
        disk.write_atomically(this.partial / f"rank_{rank}.pt", this.snapshot.random)
        if this.disks.leads:
            disk.write_atomically(this.partial / PROGRESS, this.snapshot.progress)
        own = [*this.partial.glob(f"__{rank}_*"), this.partial / f"rank_{rank}.pt"]
        if rank == 0:
            own += [this.partial / METADATA, this.partial / PROGRESS]
        return {path.name: asdict(record_of(path, rank)) for path in own}

    records: dict[str, Record] = {}
    for found in gather(this.all_do(f"write {this.partial}", write), this.peers):
        records |= records_from(found)
    if len(this.disks.all_leaders) > 1:
        this.watch("copies")
        this.all_do("copy to other disks", lambda: _copy_between_disks(this, records))
    return records


def _copy_between_disks(this: _Save, records: Mapping[str, Record]) -> None:
    """The metadata goes to every disk; each disk's files go to the next one, its buddy."""
    leaders = this.disks.all_leaders
    transfers = [(METADATA, 0, leader) for leader in leaders[1:]]
    if this.training.config.checkpoint.buddy:
        for name, record in records.items():
            sender = this.disks.leaders[record.rank]
            if name not in (METADATA, PROGRESS):
                transfers.append((name, sender, leaders[(leaders.index(sender) + 1) % len(leaders)]))
    faults = []
    for name, sender, receiver in transfers:
        path, size = this.partial / name, records[name].size
        ends = {"sender": sender, "receiver": receiver, "rank": this.disks.rank}
        faults.append(send_file(path, path, size=size, peers=this.peers, **ends))
    raise_first(faults)
    received = [name for name, _, receiver in transfers if receiver == this.disks.rank]
    damaged = [
        name for name in received if record_of(this.partial / name, records[name].rank) != records[name]
    ]
    if damaged:
        raise OSError(f"{', '.join(damaged)} arrived damaged")


def _commit(this: _Save, records: Mapping[str, Record]) -> Path:
    tag = this.snapshot.tag
    manifest = Manifest(
        tag=tag,
        run=this.training.run,
        step=this.snapshot.step,
        stage=this.training.zero_optimization_stage(),
        world_size=this.training.dims.dp.size,
        saved_at=time.time(),
        files=records,
    )
    text = from_first(manifest.to_json(), this.peers).encode()
    this.watch("manifest")
    this.leaders_do("list the files", lambda: _write_manifest(this.partial, text))
    name = disk.check_tag(max(gather(disk.free_name(this.root, tag), this.peers), key=len))
    this.watch("rename")
    this.leaders_do(f"commit {name}", lambda: disk.commit(this.partial, this.root / name))
    return this.root / name


def _write_manifest(folder: Path, text: bytes) -> None:
    if len(text) > LIMIT_BYTES:
        raise OSError(f"the list of files has {len(text)} bytes, and at most {LIMIT_BYTES} are read again")
    disk.write_atomically(folder / MANIFEST, text)


def _prune(this: _Save, saved: str) -> None:
    settings = this.training.config.checkpoint
    going = disk.to_prune(
        disk.entries(this.root),
        keep_last=settings.keep_last,
        keep_every=settings.keep_every,
        spare=[saved, disk.read_latest(this.root)],
    )
    for entry in going:
        disk.remove(entry.path)


def _same_on_all(tag: str, peers: Peers) -> None:
    tags = gather(tag, peers)
    if len(set(tags)) > 1:
        raise BadInput(
            "save a checkpoint",
            found=f"ranks ask for different tags: {sorted(set(tags))}",
            fix="Pass one tag.",
        )


class Saves:
    """The saves of one training, one after the other.

    A save beside the training talks over a process group of its own, so that its messages and the training's
    cannot be taken for each other. Its error is logged at once, and raised where all ranks come together
    next: by the next save or load, or by `wait`. The interpreter does not end before the thread has.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._group: dist.ProcessGroup | None = None
        self._staging = Staging()

    def save(
        self,
        training: TrainingState,
        root: Path,
        tag: str,
        client_state: Mapping[str, Any],
        *,
        frozen: bool,
        write_latest: bool,
    ) -> Path:
        """Saves as the configuration says: returns when it is done, or when the state has been copied."""
        self.wait()
        if not training.config.checkpoint.async_save:
            return save(training, root, tag, client_state, frozen=frozen, write_latest=write_latest)
        if self._group is None:
            self._group = training.dims.dp.beside("gloo")
        snapshot = take(training, disk.check_tag(tag), client_state, frozen=frozen, staging=self._staging)
        self._start(lambda: write(training, root, snapshot, write_latest=write_latest, peers=self._group))
        return root / tag

    def wait(self) -> None:
        """Waits for the save under way, and raises its error once.

        Raises:
            CheckpointFailed: the save failed; the last checkpoint is untouched.
        """
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _start(self, act: Callable[[], object]) -> None:
        self._thread = threading.Thread(target=self._run, args=(act,), name="checkpoint")
        self._thread.start()

    def _run(self, act: Callable[[], object]) -> None:
        try:
            act()
        except BaseException as e:  # it is raised in the thread that trains
            logger.error("%s", e)
            self._error = e
