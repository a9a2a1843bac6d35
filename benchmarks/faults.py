"""What the command leaves when it is killed, when the disk is full and when the folder is read-only.

    python benchmarks/faults.py --count 50
    python benchmarks/faults.py --only convert --count 5

Each verb that writes runs once undisturbed. Then it is killed by SIGKILL, half of the times at a random moment, half at
a random one of the moments when it opens a file to write, renames, links or removes one; half of the times once more on
what that left. After each kill every file that has its final name must load to its end, and the model that was there
must load. Then the same command must complete and give, byte by byte, the undisturbed result.

Full disks are tmpfs mounts of random sizes, too small for the run, and read-only ones mounted so: for root, on Linux.
The command must end with status 1 and one line that names the path and says why; nothing may be truncated, and with
room it must complete. Prints a table and the faults; the exit status is 1 if there are any. A test runs a few of each.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from footage import films_by_class
from hub_server import HubServer
from killed import Command, contents, damage
from small_models import tiny
from videos import real_video

from timesformer_zoo import load_model, save_pretrained

FAULTS = ("killed", "full disk", "read-only")
LABELS = ["bigbuckbunny", "bikes", "carphone_pristine"]


@dataclass(frozen=True)
class Verb:
    """One that writes, to {out}; {mine} is a model, {films} are videos, {film} is a longer one."""

    arguments: str
    model: str | None = None  # where in the output there is a model, from the start
    to_file: bool = False  # its standard output is kept
    publishes: bool = False
    leave_out: tuple[str, ...] = ()  # what may differ from the undisturbed run
    size: int = 1_000_000  # bytes that it needs, more or less


SMALL = (
    "--img-size 32 --workers 0 --crops 1 --epochs 3 --batch-size 4 --warmup 0 --repeats 1 --save-every 1 --best top1"
)
VERBS = {
    # The random states of what does not take part (CUDA, Python's own) need not be those of the undisturbed run.
    "finetune": Verb(
        f"finetune {{films}} --out {{out}} --model {{mine}} {SMALL}", leave_out=("checkpoints/",), size=5_000_000
    ),
    "evaluate": Verb("evaluate {out}/model {films} --out {out} --card --workers 0 --crops 1", "model", size=150_000),
    "convert": Verb("convert {other} {out}/model --to transformers --force", "model", size=100_000),
    "convert to a file": Verb("convert {mine} {out}/weights.safetensors --to native --force", size=100_000),
    "classify --json > file": Verb("classify {films} --model {mine} --json --no-windows", to_file=True, size=4096),
    "classify --out": Verb("classify {films} --model {mine} --out {out}/labels --no-windows", size=12_000),
    "embed": Verb("embed {films} --model {mine} -o {out}/library", size=12_000),
    "timeline": Verb(
        "timeline {film} --model {mine} --crops 1 --window 0.5 --step 0.04 "
        + " ".join(f"-o {{out}}/t.{suffix}" for suffix in ("json", "jsonl", "csv", "html", "png")),
        size=400_000,
    ),
    "push": Verb("push {out}/model me/mine", "model", publishes=True, size=100_000),
}


@dataclass
class Outcome:
    """Of one verb and one kind of fault."""

    runs: int = 0
    untouched: int = 0  # left as it was before
    done: int = 0  # left as an undisturbed run does
    faults: list[str] = field(default_factory=list)


class Campaign:
    """Runs verbs in a folder of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.places = {name: folder / name for name in ("films", "mine", "other", "out")}
        self.places["film"] = real_video("carphone_pristine.mp4")
        if not self.places["films"].exists():
            films_by_class(self.places["films"], 4)
            save_pretrained(tiny(num_classes=3), self.places["mine"], labels=LABELS)
            save_pretrained(tiny("joint", num_classes=3), self.places["other"], labels=LABELS)

    def start(self, verb: Verb, out: Path) -> None:
        """What is there before the command runs."""
        for path in out.iterdir() if out.exists() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        out.mkdir(exist_ok=True)
        if verb.model:
            shutil.copytree(self.places["mine"], out / verb.model)
        if verb.arguments.startswith("convert") and not verb.model:
            shutil.copyfile(self.places["other"] / "model.safetensors", out / "weights.safetensors")

    def arguments(self, verb: Verb, out: Path) -> list[str]:
        return [part.format(**{**self.places, "out": out}) for part in verb.arguments.split()]

    def runner(self, command: Command, verb: Verb, out: Path) -> Callable[..., object]:
        output = out / "labels.jsonl" if verb.to_file else None
        return lambda **when: command(self.arguments(verb, out), output, errors=self.folder / "errors.txt", **when)

    def env(self, hub: HubServer, temporary: Path | None = None) -> dict[str, str]:
        """Of the command: its Hub, and its temporary folder, where a killed push leaves something."""
        temporary = temporary or self.folder / "temporary"
        temporary.mkdir(exist_ok=True)
        return {**hub.env(self.folder / "home", "hf_me"), "TMPDIR": str(temporary)}

    def killed(self, verb: Verb, count: int) -> Outcome:
        """Kill it `count` times, and let it complete each time."""
        result, out = Outcome(), self.places["out"]
        with HubServer() as hub, Command(self.env(hub)) as command:
            run = self.runner(command, verb, out)
            self.start(verb, out)
            before = contents(out)
            run()  # the first one fills caches
            hub.repos.clear()
            self.start(verb, out)
            whole = run()
            if whole.status:
                raise RuntimeError(f"undisturbed, it failed: {whole.errors}")
            after, published = contents(out, verb.leave_out), self.published(hub)
            while result.runs < count:
                self.start(verb, out)
                hub.repos.clear()
                for _ in range(self.random.choice((1, 2))):  # a second time, on what the first left
                    when: dict[str, float] = (
                        {"seconds": self.random.uniform(0, whole.seconds)}
                        if self.random.random() < 0.5
                        else {"event": self.random.randrange(whole.events)}
                    )
                    killed = run(**when)
                    if killed.status == 0:  # it was faster this time
                        continue
                    result.runs += 1
                    if killed.status != -signal.SIGKILL:
                        result.faults.append(f"{when}: status {killed.status}: {killed.errors}")
                    wrong = self.wrong(verb, out, hub, published)
                    result.faults += [f"{when}: {problem}" for problem in wrong]
                    now, there = contents(out, verb.leave_out), self.published(hub)
                    result.untouched += (now, there) == (before, {})
                    result.done += (now, there) == (after, published)
                again = run()
                if again.status:
                    result.faults.append(f"{when}, then again: status {again.status}: {again.errors}")
                elif (contents(out, verb.leave_out), self.published(hub)) != (after, published):
                    result.faults.append(f"{when}, then again: another result")
                elif left := [str(path) for path in out.rglob("*partial*") if "checkpoints" not in path.parts]:
                    result.faults.append(f"{when}, then again: leftovers {left}")
        return result

    def wrong(self, verb: Verb, out: Path, hub: HubServer, published: dict[str, bytes]) -> list[str]:
        """What is not as it should be after a fault."""
        wrong = damage(out)
        if verb.model:
            try:
                load_model(out / verb.model)
            except Exception as error:
                wrong.append(f"the model does not load: {error}")
        if self.published(hub) not in ({}, published):
            wrong.append("a part was published")
        return wrong

    @staticmethod
    def published(hub: HubServer) -> dict[str, bytes]:
        """The files of the repository but for the Hub's own; none before the first commit."""
        repo = hub.repos.get("me/mine")
        names = [] if repo is None else [name for name in repo.commits[repo.refs["main"]] if name != ".gitattributes"]
        return {name: repo.read(name) for name in names} if repo is not None else {}

    def on_bad_disks(self, verb: Verb, count: int, kind: str) -> Outcome:
        """Run it where there is too little room, or none may write, and then where there is room."""
        result, disk = Outcome(), self.folder / "disk"
        disk.mkdir(exist_ok=True)
        # push writes to the temporary folder alone
        with HubServer() as hub, Command(self.env(hub, disk if verb.publishes else None)) as command:
            for _ in range(count):
                hub.repos.clear()
                with mounted(disk) as remount:
                    out = disk / "out"
                    self.start(verb, out)
                    before = contents(out)
                    (disk / "other").write_bytes(bytes(4096))  # a size of 0 would be no limit
                    room = self.random.randrange(0, verb.size // 4096) * 4096
                    remount(f"size={used(disk) + room}" if kind == "full disk" else "ro")
                    run = self.runner(command, verb, out)
                    if kind == "read-only" and verb.to_file:
                        continue  # the shell would not begin
                    got = run()
                    result.runs += 1
                    *_, last = got.errors.splitlines() or [""]
                    said = last.startswith("timesformer-zoo ") and "could not be written: " in last
                    if got.status == 0:
                        result.done += 1  # there was room enough
                    elif got.status != 1 or not said or "Traceback" in got.errors:
                        result.faults.append(f"{kind}, {room} bytes: status {got.status}: {got.errors}")
                    wrong = [] if verb.to_file else self.wrong(verb, out, hub, self.published(hub))
                    result.faults += [f"{kind}, {room} bytes: {problem}" for problem in wrong]
                    result.untouched += contents(out) == before
                    remount("rw,size=64m")
                    again = run()
                    if again.status:
                        result.faults.append(f"{kind}, {room} bytes, then again: {again.status}: {again.errors}")
                    result.faults += damage(out)
        return result


def used(disk: Path) -> int:
    """Bytes taken of a mount."""
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@contextmanager
def mounted(disk: Path) -> Iterator[Callable[[str], None]]:
    """A disk of its own at a folder; call what this gives with options of mount to change it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True) and None
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def may_mount() -> bool:
    """Whether this user may mount disks here."""
    return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount") is not None


def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="of kills and of disks, for each verb (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="another one: other moments (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=VERBS, default=list(VERBS), help="these verbs (default: all)")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS, help="these faults (default: all)")
    args = parser.parse_args(argv)
    if not may_mount():
        print("not root on Linux: no disks are mounted, so that there are kills alone", file=sys.stderr)
    start = time.monotonic()
    faults: Counter[str] = Counter()
    print("| verb | fault | runs | left as before | done | faults |\n| --- | --- | --- | --- | --- | --- |")
    with TemporaryDirectory() as name:
        campaign = Campaign(Path(name), args.seed)
        for title in args.only:
            for kind in args.faults:
                verb = VERBS[title]
                if kind == "killed":
                    result = campaign.killed(verb, args.count)
                elif may_mount():
                    result = campaign.on_bad_disks(verb, args.count if kind == "full disk" else 1, kind)
                else:
                    continue
                if not result.runs:
                    continue
                row = (title, kind, result.runs, result.untouched, result.done, len(result.faults))
                print("|", " | ".join(map(str, row)), "|", flush=True)
                faults.update(f"{title}: {fault}" for fault in result.faults)
    print(f"\n{time.monotonic() - start:.0f} s")
    for fault, count in faults.items():
        print(f"{count} times: {fault}", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
