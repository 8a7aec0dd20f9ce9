"""Generated folders /data: what may lie, file, link or folder, at each name that the roles use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

KINDS = ("folder", "folder", "folder", "folder", "nothing", "file", "link", "dangling")
WORKING = (*["nothing"] * 5, *["folder"] * 4, "file", "link")
BEGUN = (*["nothing"] * 6, "folder", "file", "link")
UNFINISHED = '{"unfinished": true}\n'
CLAIMED = "Made by Clusterwright, which removes it.\n"
# Of an installation: none, unfinished, complete, complete of another installer.
INSTALLED = ("", UNFINISHED, "a" * 64 + "\n", "a" * 64 + "\n", "c" * 64 + "\n")
# Of an environment: none, unfinished, of locks of before and now altered, not ours, not readable.
RECORDED = ("", "", UNFINISHED, '{"built_from": "old", "digest": "d", "entries": {}}', '{"name": "x"}', "{[")


@dataclass(slots=True)
class Tree:
    """Texts of files and targets of links by their places below /; somebody's texts begin with `theirs`.

    `environments` is where the folder of environments really lies.
    """

    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    environments: str = "data/miniconda3/envs"


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    tree = Tree()

    def lay(place: str, names: Sequence[str], kinds: Sequence[str] = KINDS) -> str:
        """Where the folder is that lies there, itself or behind a link; "" for none."""
        kind = draw(st.sampled_from(kinds))
        if kind == "file":
            tree.files[place] = f"theirs {place}"
        if kind in ("link", "dangling"):
            tree.links[place] = f"elsewhere/{place}"
        folder = {"folder": place, "link": f"elsewhere/{place}"}.get(kind, "")
        for name in draw(st.lists(st.sampled_from(names), unique=True)) if folder else []:
            tree.files[f"{folder}/{name}"] = f"theirs {folder}/{name}"
        return folder

    def lay_working(place: str) -> None:
        """The folder that a build of ours works in, with its claim, without, with a forged one."""
        folder = lay(place, ["build/f", "arriving/f"], WORKING)
        if not folder:
            return
        claim = draw(st.sampled_from([*[CLAIMED] * 4, "", f"theirs {folder}/clusterwright"]))
        if claim:
            tree.files[f"{folder}/clusterwright"] = claim
        if claim == CLAIMED and folder == place:
            tree.files |= {
                name: "ours" for name in tree.files if name.startswith((f"{place}/build", f"{place}/arr"))
            }
        lay(f"{folder}/previous", ["f", "bin/python"], ("nothing", "nothing", *KINDS))
        lay(f"{folder}/begun", ["f"], BEGUN)

    def claim(folder: str, record: str, text: str, own: Sequence[str]) -> None:
        """Has a record of ours there; what it claims by name is ours."""
        if text:
            tree.files[f"{folder}/{record}"] = text
            tree.files |= {path: "ours" for name in own if (path := f"{folder}/{name}") in tree.files}

    lay("data", ["models/a.bin", "jobs/trainer/log", ".Miniconda.sh", "miniconda3.before-1/f"], ("folder",))
    lay("data/.miniconda3.previous", ["f"])
    lay_working("data/.clusterwright-miniconda3")
    conda = lay("data/miniconda3", ["bin/conda", "pkgs/x", ".condarc", "lib/added.py"])
    if conda:
        claim(conda, ".clusterwright-installer", draw(st.sampled_from(INSTALLED)), ["bin/conda", ".condarc"])
        names = ["other/o", "llm.before-1/f", ".llm.previous/f", ".llm.build/f"]
        tree.environments = lay(f"{conda}/envs", names, ("folder", "folder", "nothing", "link"))
    if conda and tree.environments:
        lay_working(f"{tree.environments}/.clusterwright-llm")
        llm = lay(
            f"{tree.environments}/llm",
            ["bin/python", "lib/python3.11/site-packages/mine.py", "conda-meta/history"],
        )
        record = draw(st.sampled_from(RECORDED))
        if llm:
            claim(
                llm,
                ".clusterwright/record.json",
                record,
                ["conda-meta/history"] if record == UNFINISHED else [],
            )
    lay("etc/clusterwright", ["certificate.json", "smoke.json", "notes"], ("folder", "nothing"))
    lay("home/trainer", [".profile", "work/a"], ("folder", "nothing"))
    return tree
