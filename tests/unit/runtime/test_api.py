"""What a script that was written for DeepSpeed calls first."""

from __future__ import annotations

from argparse import ArgumentParser

import runtime


def test_a_script_may_have_defined_the_launcher_s_argument_itself() -> None:
    parser = ArgumentParser()
    parser.add_argument("--local_rank", type=int, default=7)

    read = runtime.add_config_arguments(parser).parse_args(["--deepspeed_config", "x.json"])

    assert (read.local_rank, read.deepspeed_config, read.deepspeed) == (7, "x.json", False)
