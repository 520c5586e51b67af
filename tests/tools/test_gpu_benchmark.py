"""The benchmark of GPUs runs to its end where there is none."""

import sys

from benchmarks import gpu


def test_every_table_is_filled_by_a_tiny_model(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny"])

    gpu.main()

    lines = capsys.readouterr().out.splitlines()
    decoded = [line.split(" | ") for line in lines if "graphs" in line or "eager" in line]
    assert [(line[1], line[2]) for line in decoded] == [
        (way, order) for _ in range(2) for way in ("eager", "graphs") for order in ("in order", "launched ahead")
    ]
    assert all(float(line[3].replace(",", "")) > 0 for line in decoded)
    assert any("`generate()`" in line for line in lines)
    assert lines[-1] == "A step was not checked, because only CUDA tells."
