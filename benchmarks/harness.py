"""What every benchmark shares: options, figures, alternation, medians with spread, table and JSON.

Benchmarks import it as `from harness import ...`, run as `python benchmarks/NAME.py [--quick] [--json FILE]`."""
