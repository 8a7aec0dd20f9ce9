"""The drawing holds every measurement, and the definition beside it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from runtime.bench.contest import Contestant, Sample, rows_of
from runtime.bench.plot import plot


def test_every_measurement_is_drawn_beside_its_definition() -> None:
    rows = [
        row
        for ranks in (1, 2, 4)
        for row in rows_of(
            {
                Contestant(engine="clusterwright", stage=stage): [
                    Sample(parameters=10, seconds=[1.0], state_bytes=100 + stage, peak_bytes=1, loss=1.0)
                ]
                for stage in (1, 2, 3)
            },
            ranks,
        )
    ]

    drawing = ElementTree.fromstring(plot(rows))

    titles = [element.text for element in drawing.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 9
    assert "clusterwright, stage 2, 4 ranks: 10.20, definition 5.50" in titles
    heights = [float(bar.attrib["height"]) for bar in drawing.iter("{http://www.w3.org/2000/svg}rect")]
    assert all(height > 0 for height in heights)
