"""Which NVIDIA driver a node gets: modules by its cards, packages by what apt offers, what is left to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from provision.errors import BadInput, ProvisionError
from provision.roles.apt_pins import version_pins
from provision.roles.driver_parts import installed_in, is_driver, upstream
from provision.roles.gpu_driver import gpus_on_bus, version_of

_NVIDIA = "0x10de"
_BRIDGE_CLASS = "0x0680"  # NVSwitch of HGX A100 and H100; cards are display devices
_OPEN_SINCE = (560,)  # from here NVIDIA recommends the open modules for every card that can have them
# Both forms of dkms(8): "nvidia/580.95.05, KERNEL, x86_64: installed", before 3.0 "nvidia, 580.95.05, ...".
_BUILT = re.compile(r"^nvidia[\w-]*(?:/|, )([\w.+~-]+), ([^,\s]+), \w+: (\w+)", re.MULTILINE)
_OUR_PIN = "/etc/apt/preferences.d/clusterwright-nvidia"
_MODULES = ("auto", "open", "proprietary")

_STEPS = {
    "build": "build the module for the kernel that runs",
    "load": "load the module",
    "reboot": "reboot, and wait",
    "fabric": "start the fabric manager",
}

Commands = Mapping[str, Mapping[str, Any]]
Texts = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Cards whose PCI device number is below a bound: which modules they take, which branches know them."""

    name: str
    below: int
    modules: Sequence[str]
    oldest: str = ""
    newest: str = ""

    @property
    def branches(self) -> str:
        """For people."""
        from_oldest = f" from {self.oldest}" if self.oldest else ""
        return f"branches{from_oldest}{f' up to {self.newest}' if self.newest else ''}"

    def knows(self, branch: Sequence[int]) -> bool:
        oldest, newest = version_of(self.oldest) or (0,), version_of(self.newest) or (10**9,)
        return tuple(oldest) <= tuple(branch) <= tuple(newest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a site asks for. `version` is a branch (580) or a whole version; `packages` override the sets."""

    version: str
    modules: str
    packages: Sequence[str]
    may_replace: bool
    may_reboot: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Generations ascending; sets of packages by kind, the preferred first, with {branch} in their names."""

    generations: Sequence[Generation]
    sets: Mapping[str, Sequence[Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done on a node. `problem` is why it is refused, `unknown` what apt does not offer (yet).

    `version` is the whole one, empty where apt does not say it yet; `packages` are to be installed, each as
    name=version; `step` is what makes it live: "", "build", "load", "reboot" or "fabric".
    """

    cards: int
    modules: str = ""
    version: str = ""
    packages: Sequence[str] = field(default=())
    step: str = ""
    why: str = ""
    problem: str = ""
    unknown: str = ""

    @property
    def is_settled(self) -> bool:
        return not (self.packages or self.step or self.problem or self.unknown)

    @property
    def intent(self) -> str:
        """What would be done, for people."""
        if self.packages:
            what = f"install the driver {self.version} with {self.modules} modules: {' '.join(self.packages)}"
            return f"{what}; then build, and load it or reboot"
        if self.unknown:
            return f"install {self.modules} modules; apt offers none of {self.unknown} yet"
        return f"{_STEPS.get(self.step, 'hold the driver')} ({self.why})" if self.why else "hold the driver"


def device_numbers(files: Texts) -> list[int]:
    """The PCI device numbers of the NVIDIA cards, from /sys/bus/pci/devices/*/{vendor,class,device}."""
    texts = {path.split("/")[-2]: text for path, text in files.items() if path.endswith("/device")}
    return [int(texts[address], 16) for address in gpus_on_bus(files) if address in texts]


def has_switch(files: Texts) -> bool:
    """Whether there is an NVSwitch on the bus, without whose fabric manager its cards do not compute."""
    return any(
        path.endswith("/vendor")
        and text.strip() == _NVIDIA
        and files.get(path.removesuffix("vendor") + "class", "").startswith(_BRIDGE_CLASS)
        for path, text in files.items()
    )


def modules_for(numbers: Iterable[int], wanted: Wanted, generations: Sequence[Generation]) -> str:
    """`open` or `proprietary`.

    Raises:
        BadInput: no modules of this version know all of the cards.
    """
    asked = f"install the NVIDIA driver {wanted.version} with modules {wanted.modules}"
    branch = (version_of(wanted.version) or (0,))[:1]
    if wanted.modules not in _MODULES:
        fix = f"Set nvidia_driver_modules to one of {', '.join(_MODULES)}."
        raise BadInput(asked, found=f"there are no modules {wanted.modules!r}", fix=fix)
    possible = {"open", "proprietary"}
    names = []
    for number in sorted(set(numbers)):
        generation = next(known for known in generations if number < known.below)
        names.append(f"{generation.name} (10de:{number:04x})")
        if not generation.knows(branch):
            found = f"{names[-1]} takes {generation.branches}"
            raise BadInput(asked, found=found, fix="Set nvidia_driver_version to one of these for this node.")
        possible &= set(generation.modules)
    if wanted.modules != "auto":
        possible &= {wanted.modules}
    if not possible:
        fix = "Set nvidia_driver_modules: auto; cards of both kinds cannot be in one machine."
        raise BadInput(asked, found=f"its cards do not take them: {', '.join(names)}", fix=fix)
    preferred = "open" if branch >= _OPEN_SINCE else "proprietary"
    return preferred if preferred in possible else next(iter(possible))


def candidates(wanted: Wanted, tables: Tables, kind: str) -> list[list[str]]:
    """The sets of packages of a kind (`open`, `proprietary`, `fabric`), the preferred first."""
    if wanted.packages and kind != "fabric":
        return [list(wanted.packages)]
    branch = wanted.version.partition(".")[0]
    return [[name.format(branch=branch) for name in names] for names in tables.sets.get(kind, ())]


def names_to_ask(wanted: Wanted, tables: Tables) -> list[str]:
    """Every package that could be chosen: apt is asked about these alone."""
    sets = chain.from_iterable(candidates(wanted, tables, kind) for kind in ("open", "proprietary", "fabric"))
    return sorted({name for names in sets for name in names})


def offered_in(madison: str) -> dict[str, list[str]]:
    """By package the versions that apt offers, from `apt-cache madison` (newest first)."""
    found: dict[str, list[str]] = {}
    for line in madison.splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) >= 3 and words[1] not in found.setdefault(words[0], []):
            found[words[0]].append(words[1])
    return found


def plan(files: Texts, commands: Commands, wanted: Wanted, tables: Tables) -> Plan:
    """What is to be done, from what was observed; nothing where the node has no NVIDIA card.

    Args:
        files: texts of what is below /sys/bus/pci/devices, /sys/module and /etc/apt/preferences.d.
        commands: kernel, installed, held, offered, dkms, secure_boot, runfile, ours, busy, fabric.
    """
    numbers = device_numbers(files)
    if not numbers:
        return Plan(cards=0)
    installed = installed_in(commands["installed"]["stdout"])
    try:
        modules = modules_for(numbers, wanted, tables.generations)
        _refuse_what_is_theirs(commands, installed, wanted)
        version, packages, unknown = _choice(commands, installed, wanted, tables, modules, has_switch(files))
        _refuse_what_they_hold(files, commands, installed, packages, wanted)
    except ProvisionError as e:
        return Plan(cards=len(numbers), problem=f"{e.asked}: {e.found}. {e.fix}")
    step, why = ("", "") if packages or unknown else _step(files, commands, version, has_switch(files))
    problem = _cannot(step, why, commands, wanted)
    return Plan(
        cards=len(numbers),
        modules=modules,
        version=version,
        packages=tuple(packages),
        step=step,
        why=why,
        problem=problem,
        unknown=unknown,
    )


def _refuse_what_is_theirs(commands: Commands, installed: Texts, wanted: Wanted) -> None:
    """Raises:
    BadInput: a driver is there that no record of ours claims, and that would have to go.
    """
    asked = f"install the NVIDIA driver {wanted.version}"
    if commands["runfile"]["rc"] == 0:
        found = "NVIDIA's own installer (.run) has put one there, which no package manager knows"
        raise BadInput(
            asked, found=found, fix="Take it off there: nvidia-uninstall; then run site.yml again."
        )
    ours = set(commands["ours"]["stdout"].split())
    others = sorted(
        f"{name} {version}"
        for name, version in installed.items()
        if name not in ours and is_driver(name) and not _is_of(upstream(version), wanted.version)
    )
    if others and not wanted.may_replace:
        found = f"another one is there that site.yml did not install: {', '.join(others)}"
        fix = (
            "Leave nvidia_driver_version empty to keep it, or let it be replaced: nvidia_driver_replace: true"
        )
        raise BadInput(asked, found=found, fix=fix)
    if "SecureBoot enabled" in commands["secure_boot"]["stdout"]:
        found = "Secure Boot is on, and a kernel refuses modules that are built there and not signed"
        raise BadInput(asked, found=found, fix="Enrol the key of dkms (mokutil --import), or turn it off.")


def _refuse_what_they_hold(
    files: Texts, commands: Commands, installed: Texts, packages: Sequence[str], wanted: Wanted
) -> None:
    """Raises:
    BadInput: the machine's owner holds or pins a part of the driver in another version.
    """
    asked = f"install the NVIDIA driver {wanted.version}"
    chosen = dict(package.split("=", 1) for package in packages if "=" in package)
    held = [
        name
        for name in commands["held"]["stdout"].split()
        if (name in chosen and installed.get(name) != chosen[name])
        or (is_driver(name) and not _is_of(upstream(installed.get(name, "")), wanted.version))
    ]
    if held:
        there = ", ".join(f"{name} {installed.get(name, '')}".strip() for name in held)
        fix = f"Set nvidia_driver_version to that, or let it go: apt-mark unhold {' '.join(held)}"
        raise BadInput(asked, found=f"this machine's owner holds {there} (apt-mark showhold)", fix=fix)
    theirs = {path: text for path, text in files.items() if path != _OUR_PIN}
    pinned = [
        str(pin)
        for pin in version_pins(theirs)
        if any(pin.forbids(name, version) for name, version in chosen.items())
    ]
    if pinned:
        fix = "Set nvidia_driver_version to that, or take the pin out there."
        raise BadInput(asked, found="; ".join(dict.fromkeys(pinned)), fix=fix)


def _is_of(version: str, wanted: str) -> bool:
    return version == wanted or version.startswith(f"{wanted}.")


def _choice(
    commands: Commands, installed: Texts, wanted: Wanted, tables: Tables, modules: str, switch: bool
) -> tuple[str, list[str], str]:
    """The whole version, what is to be installed of it, and what apt does not offer.

    A set that is installed in the wanted version is held, whatever is newer: only the site changes it.
    """
    offered = offered_in(commands["offered"]["stdout"])
    sets = candidates(wanted, tables, modules)
    held = [
        names for names in sets if _common(names, {name: [installed.get(name, "")] for name in names}, wanted)
    ]
    names = next(iter(held), None) or next((names for names in sets if _common(names, offered, wanted)), None)
    if names is None:
        return "", [], _not_offered(sets, offered, wanted)
    known = {name: [installed.get(name, "")] for name in names} if held else offered
    version = _common(names, known, wanted)
    packages = [] if held else [f"{name}={_exact(offered[name], version)}" for name in names]
    if switch:
        fabric = candidates(wanted, tables, "fabric")
        if not any(upstream(installed.get(names[0], "")) == version for names in fabric):
            chosen = next((names[0] for names in fabric if _exact(offered.get(names[0], ()), version)), "")
            if not chosen:
                return (
                    version,
                    [],
                    f"{' or '.join(names[0] for names in fabric)} {version}, for its NVSwitches",
                )
            packages.append(f"{chosen}={_exact(offered[chosen], version)}")
    headers = f"linux-headers-{commands['kernel']['stdout']}"
    if packages and headers in offered and headers not in installed:
        packages.append(headers)
    return version, packages, ""


def _common(names: Sequence[str], versions: Mapping[str, Sequence[str]], wanted: Wanted) -> str:
    """The newest version of the driver that is wanted and that all of these packages have; else nothing."""
    having = [{upstream(version) for version in versions.get(name, ())} for name in names]
    common = [version for version in set.intersection(*having) if _is_of(version, wanted.version)]
    return max(common, key=lambda version: version_of(version) or (), default="")


def _exact(versions: Sequence[str], version: str) -> str:
    return next((exact for exact in versions if upstream(exact) == version), "")


def _not_offered(sets: Sequence[Sequence[str]], offered: Mapping[str, Sequence[str]], wanted: Wanted) -> str:
    said = [f"{name} {', '.join(versions)}" for name, versions in offered.items() if is_driver(name)]
    has = f"it has {'; '.join(said)}" if said else "it has none of them in any version"
    return f"{' | '.join(' + '.join(names) for names in sets)} in version {wanted.version} ({has})"


def _step(files: Texts, commands: Commands, version: str, switch: bool) -> tuple[str, str]:
    """What is left once the packages are there, and why."""
    kernel, loaded = commands["kernel"]["stdout"], files.get("/sys/module/nvidia/version", "").strip()
    if loaded == version and switch and commands["fabric"]["stdout"] != "active":
        return (
            "fabric",
            "the fabric manager does not run, without which cards behind NVSwitches do not compute",
        )
    if loaded == version:
        return "", ""
    modules = _BUILT.findall(commands["dkms"]["stdout"])
    if (version, kernel) not in {
        (upstream(built), of) for built, of, state in modules if state == "installed"
    }:
        return "build", f"dkms has no module {version} for the kernel {kernel}, which runs"
    if loaded:
        return "reboot", f"the driver {loaded} is loaded and {version} is installed"
    if "/sys/module/nouveau/refcnt" in files:
        return "reboot", "the nouveau driver holds the cards until a reboot"
    return "load", f"the driver {version} is not loaded"


def _cannot(step: str, why: str, commands: Commands, wanted: Wanted) -> str:
    busy = commands["busy"]["stdout"].split() if commands["busy"]["rc"] == 0 else []
    if step == "reboot" and not wanted.may_reboot:
        return f"{why}: reboot it, or let site.yml do that and wait for it (nvidia_driver_reboot: true)"
    if step == "reboot" and busy and all(word.isdigit() for word in busy):
        return f"{why}, and processes compute on its cards ({', '.join(busy)}): it is not rebooted under them"
    return ""
