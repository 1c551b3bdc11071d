# `make run` and `make test` are all a newcomer needs; both work on a machine that has nothing but Rust.

CARGO ?= cargo
# Any Postgres variable of the caller's session is none of the tests' business.
TEST_ENV = env -u DATABASE_URL -u TIDEMARK_KEYS_URL -u TIDEMARK_DATA_DIR
# Rounds of killing server and Postgres, a few seconds each; TIDEMARK_CRASH_SEED repeats a failed run.
CRASH_ROUNDS ?= 300

.DEFAULT_GOAL := help
.PHONY: help run test check check-all fmt lint doc demo bench generate postgres deny

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: postgres ## Build, show the demo and keep the server up
	$(CARGO) run --release --locked --bin tidemark -- demo

test: postgres ## Run all tests
	$(TEST_ENV) $(CARGO) test --workspace --locked

check: fmt lint test doc ## What must hold before every commit

check-all: check deny ## Everything, with far more generated cases and crashes
	$(TEST_ENV) PROPTEST_CASES=4096 TIDEMARK_CRASH_ROUNDS=$(CRASH_ROUNDS) $(CARGO) test --workspace --locked --release

fmt: ## Check the formatting
	$(CARGO) fmt --all --check

lint: ## Run clippy; warnings are errors
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc: ## Check the rustdoc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

demo: postgres ## Run the demo as a check; prints its findings as JSON
	$(CARGO) run --release --locked --quiet --bin tidemark -- demo --exit --json

bench: postgres ## Measure
	$(CARGO) bench --locked --bench append --bench replay --bench ingest

generate: ## Write the files that are derived from code
	$(CARGO) run --locked --quiet --bin tidemark -- dev generate

deny: ## Check licences and advisories (needs cargo-deny)
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check; \
	else echo "cargo-deny is not installed; skipping (cargo install cargo-deny)"; fi

postgres:
	@.ci/ensure-postgres
