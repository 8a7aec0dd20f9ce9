"""A log that grows, handed on piece by piece."""

from __future__ import annotations

from pathlib import Path

from runtime.edges.log_tail import Tail, last_lines


def test_a_tail_hands_on_whole_lines_and_bars_and_at_the_end_the_rest(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"")
    tail = Tail(log)

    with log.open("ab", buffering=0) as file:
        file.write(b"one\ntw")
        first = tail.read()
        file.write(b"o\n 10%\r 20%\r\xc3")
        second = tail.read()
        file.write(b"\xa9nd")
        third = tail.read()
    end = tail.finish()
    tail.close()

    assert (first, second, third, end) == (["one\n"], ["two\n", " 10%\r", " 20%\r"], [], ["énd\n"])
    assert last_lines(log, 1) == ("énd",)


def test_a_tail_of_a_file_that_runs_away_goes_on_near_its_end_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\nunfini")
    tail = Tail(log)
    first = tail.read()
    with log.open("ab") as file:
        file.writelines(b"%09d\n" % number for number in range(2_000_000))

    then, rest = tail.read(), tail.finish()
    tail.close()

    assert first == ["first\n"]
    assert then == ["unfini\n", f"... 18 MiB of output are left out here: {log} has all of it\n"]
    assert rest[-1] == "001999999\n"
    assert rest == [f"{number:09}\n" for number in range(int(rest[0]), 2_000_000)]
    assert 1 << 19 < sum(map(len, rest)) <= 1 << 20
