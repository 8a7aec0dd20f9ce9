from __future__ import annotations

from provision.bundle.wheel_index import normal_name, pages


def test_names_are_compared_in_their_normal_form() -> None:
    assert normal_name("Ruamel.Yaml__clib") == "ruamel-yaml-clib"


def test_each_project_has_a_page_whose_links_carry_the_sha256() -> None:
    found = pages(
        {"torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl": "aa", "typing_extensions-4-py3-none-any.whl": "bb"},
        files="../..",
    )

    assert set(found) == {"index.html", "torch/index.html", "typing-extensions/index.html"}
    assert (
        'href="../../torch-2.13.0%2Bcpu-cp311-cp311-linux_x86_64.whl#sha256=aa"' in found["torch/index.html"]
    )
    assert 'href="typing-extensions/"' in found["index.html"]


def test_an_archive_of_sources_is_on_the_page_of_its_project_whatever_its_name_holds() -> None:
    found = pages({"deepspeed-0.19.8.tar.gz": "cc", "py-cpuinfo-9.0.0.tar.gz": "dd"}, files="../..")

    assert set(found) == {"index.html", "deepspeed/index.html", "py-cpuinfo/index.html"}
