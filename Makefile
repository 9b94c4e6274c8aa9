# The two commands of the README: `make demo` and `make test`. Both set up everything they need in .venv.
.PHONY: demo test check bench clean

demo:  ## A model learns from feedback before your eyes, with proof (a few minutes)
	@scripts/set-up
	@.venv/bin/rewardloop simulate --out runs/demo

test:  ## Lint, types, floors, then the whole suite (minutes, no GPU)
	@scripts/set-up test lint
	@$(MAKE) --no-print-directory check
	.venv/bin/python -m pytest -n 2 -q

check:  ## Lint, types and floors alone (seconds)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	@scripts/check-page

bench:  ## Every benchmark, quick; figures as JSON in runs/bench
	@scripts/set-up test bench
	@mkdir -p runs/bench
	@for b in decode update step startup learning store crash serving gateway_crash quality robustness; do .venv/bin/python benchmarks/$$b.py --quick --json runs/bench/$$b.json || exit 1; done

clean:
	rm -rf .venv runs build dist
