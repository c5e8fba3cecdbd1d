"""What a prefix that is there already spares is measured from what really happened."""

from pathlib import Path

from rich.console import Console

from benchmarks.prefix import look, table_of

ON_CPU = {"quant": "none", "engine": "torch", "device": "cpu"}


def test_only_a_prefix_on_the_disk_spares_the_second_process_the_prefill(
    checkpoint: Path, tmp_path: Path
) -> None:
    cold, from_disk = (look(str(checkpoint), ON_CPU, tmp_path / "kept") for _ in range(2))
    assert cold["computed_tokens"] > cold["prefix_tokens"]
    assert from_disk["computed_tokens"] < from_disk["prefix_tokens"]
    assert cold["bytes"] == from_disk["bytes"] > 0


def test_the_table_counts_in_what_cold_takes() -> None:
    measured = {"cold_seconds": 12.0, "disk_seconds": 1.0, "warm_seconds": 0.5}
    console = Console(width=60)
    with console.capture() as shown:
        console.print(table_of(measured))
    rows = [line.split() for line in shown.get().splitlines()[1:]]
    assert rows == [["cold", "12", "1.0x"], ["disk", "1", "12.0x"], ["warm", "0.5", "24.0x"]]
