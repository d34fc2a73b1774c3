# The few commands that everybody types (CONTRIBUTING.md).
.PHONY: lint test slow quick docs bench
lint:
	ruff check .
	mypy
test:
	pytest -m ''
slow:
	pytest -m slow
quick:
	pytest tests/ops tests/nn tests/train tests/docs
docs:
	python docs/make_operators.py
	python docs/make_names.py
	NO_MKDOCS_2_WARNING=1 mkdocs build
bench:
	python -m benchmarks
