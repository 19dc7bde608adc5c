# A newcomer types nothing else. Every target sets up what it needs first; see toolchain/setup.

PULUMI := toolchain/pulumi
PYTHON_OF = python3 -c 'import json, sys; print(json.load(sys.stdin)["python"])'

BENCH_PYTHON_OF = python3 -c 'import json, sys; print(json.load(sys.stdin)["benchPython"])'

# Tests wait more than they work: two at once on a core.
TEST = python=$$(toolchain/setup --for test --print-env | $(PYTHON_OF)) \
	&& "$$python" -m pytest --numprocesses $$((2 * $$(nproc))) --no-loadscope-reorder

.PHONY: demo demo-aws down test results test-more test-quick test-faults unit bench bench-log clean

## A jailed SFTP host on this computer, and a tour of it
demo:
	@toolchain/setup --for demo
	@$(PULUMI) stack select local --create
	@$(PULUMI) up --stack local --yes --skip-preview
	@demo/tour

## The AWS stack from `up` to `destroy` on a local EC2, which is gone afterwards
demo-aws:
	@python=$$(toolchain/setup --for demo --print-env | $(PYTHON_OF)) \
		&& "$$python" demo/aws

## Everything that `make demo` made, gone
down:
	@toolchain/setup --for demo
	@$(PULUMI) stack select local --create
	@$(PULUMI) destroy --stack local --yes --skip-preview
	@$(PULUMI) stack rm local --yes --preserve-config
	@rm -rf .local/local

## Every case of tests/cases.py on every Debian, and everything on the newest; linters, too. PYTEST='-k jack' for some
test:
	@$(TEST) -m "not more" $(PYTEST)

## What `make test` finds of each case of tests/cases.py, as a page: tests/RESULTS.md
results:
	@$(TEST) -m "not more" --results tests/RESULTS.md $(PYTEST)

## What `make test` has not the time for: the tools' own tests, other than cases on older Debians, and what takes long
test-more:
	@$(TEST) -m more $(PYTEST)

## An answer in a minute: the unit tests but the two longest, and jailctl on one machine
test-quick:
	@$(TEST) tests/unit tests/hostside/test_jailctl.py -k 'trixie or not hostside' \
		--ignore tests/unit/test_cases.py --ignore tests/unit/test_config_properties.py $(PYTEST)

## jailctl killed, refused and out of room at each of its steps, `up` killed ten times, and 50 random histories: three
## quarters of an hour, where `make test` samples
test-faults:
	@export SFTP_JAIL_EVERY_STEP=1 SFTP_JAIL_EXAMPLES=50 \
		&& $(TEST) tests/hostside/faults tests/hostside/test_quota.py tests/engine/test_users.py $(PYTEST)

## The tests that need neither root nor a machine of their own
unit:
	@python=$$(toolchain/setup --for stack --print-env | $(PYTHON_OF)) \
		&& "$$python" -m pytest tests/unit $(PYTEST)

## What all of it costs, beside Ansible, pyinfra and a script: bench/RESULTS.md. An hour or two; BENCH='--sizes 10' for less
bench:
	@ready=$$(toolchain/setup --for bench --print-env) \
		&& python=$$(echo "$$ready" | $(PYTHON_OF)) \
		&& SFTP_JAIL_BENCH_PYTHON=$$(echo "$$ready" | $(BENCH_PYTHON_OF)) "$$python" bench/run.py $(BENCH)

## 100 000 operations by 20 users at once: is every one in the log, once, under the right name?
bench-log:
	@python=$$(toolchain/setup --for test --print-env | $(PYTHON_OF)) \
		&& "$$python" bench/log.py

clean: down
	@rm -rf .local venv .pytest_cache .mypy_cache .ruff_cache
